"""The data sets that nets of this package are trained on: values for their cfgs, and texts for model cards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


@dataclass(frozen=True)
class About:
    """What a card says of a data set.

    Args:
        what: size and origin, to follow the name.
        limits: sentences on what a net that learned from the data set cannot do.
        licence: a sentence.
        hub: name of the data set on the Hub.
        cite: BibTeX.
    """

    what: str = ""
    limits: str = ""
    licence: str = ""
    hub: str | None = None
    cite: str = ""


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        title: its name in rows and cards.
        label_names: class names in the order of a net's outputs.
        mean, std: of pixel values in 0..1, channels R, G, B.
        about: the texts of a card about the data set.
        superclasses: superclass -> its classes, where the data set has superclasses.
    """

    title: str
    label_names: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    about: About = About()
    superclasses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

_CIFAR100_SUPERCLASSES = """
aquatic_mammals: beaver dolphin otter seal whale
fish: aquarium_fish flatfish ray shark trout
flowers: orchid poppy rose sunflower tulip
food_containers: bottle bowl can cup plate
fruit_and_vegetables: apple mushroom orange pear sweet_pepper
household_electrical_devices: clock keyboard lamp telephone television
household_furniture: bed chair couch table wardrobe
insects: bee beetle butterfly caterpillar cockroach
large_carnivores: bear leopard lion tiger wolf
large_man-made_outdoor_things: bridge castle house road skyscraper
large_natural_outdoor_scenes: cloud forest mountain plain sea
large_omnivores_and_herbivores: camel cattle chimpanzee elephant kangaroo
medium_mammals: fox porcupine possum raccoon skunk
non-insect_invertebrates: crab lobster snail spider worm
people: baby boy girl man woman
reptiles: crocodile dinosaur lizard snake turtle
small_mammals: hamster mouse rabbit shrew squirrel
trees: maple_tree oak_tree palm_tree pine_tree willow_tree
vehicles_1: bicycle bus motorcycle pickup_truck train
vehicles_2: lawn_mower rocket streetcar tank tractor
"""

# The names of the data set's folders, in their own spelling.
_BUTTERFLY75 = """
ADONIS, AFRICAN GIANT SWALLOWTAIL, AMERICAN SNOOT, AN 88, APPOLLO, ATALA, BANDED ORANGE HELICONIAN, BANDED PEACOCK,
BECKERS WHITE, BLACK HAIRSTREAK, BLUE MORPHO, BLUE SPOTTED CROW, BROWN SIPROETA, CABBAGE WHITE, CAIRNS BIRDWING,
CHECQUERED SKIPPER, CHESTNUT, CLEOPATRA, CLODIUS PARNASSIAN, CLOUDED SULPHUR, COMMON BANDED AWL, COMMON WOOD-NYMPH,
COPPER TAIL, CRECENT, CRIMSON PATCH, DANAID EGGFLY, EASTERN COMA, EASTERN DAPPLE WHITE, EASTERN PINE ELFIN,
ELBOWED PIERROT, GOLD BANDED, GREAT EGGFLY, GREAT JAY, GREEN CELLED CATTLEHEART, GREY HAIRSTREAK, INDRA SWALLOW,
IPHICLUS SISTER, JULIA, LARGE MARBLE, MALACHITE, MANGROVE SKIPPER, MESTRA, METALMARK, MILBERTS TORTOISESHELL, MONARCH,
MOURNING CLOAK, ORANGE OAKLEAF, ORANGE TIP, ORCHARD SWALLOW, PAINTED LADY, PAPER KITE, PEACOCK, PINE WHITE,
PIPEVINE SWALLOW, POPINJAY, PURPLE HAIRSTREAK, PURPLISH COPPER, QUESTION MARK, RED ADMIRAL, RED CRACKER, RED POSTMAN,
RED SPOTTED PURPLE, SCARCE SWALLOW, SILVER SPOT SKIPPER, SLEEPY ORANGE, SOOTYWING, SOUTHERN DOGFACE, STRAITED QUEEN,
TROPICAL LEAFWING, TWO BARRED FLASHER, ULYSES, VICEROY, WOOD SATYR, YELLOW SWALLOW TAIL, ZEBRA LONG WING
"""

# The set of 100 classes also has these, and one name in other letters.
_ONLY_BUTTERFLY100 = """
ARCIGERA FLOWER MOTH, ATLAS MOTH, BANDED TIGER MOTH, BIRD CHERRY ERMINE MOTH, BROOKES BIRDWING, BROWN ARGUS,
CHALK HILL BLUE, CINNABAR MOTH, CLEARWING MOTH, COMET MOTH, EMPEROR GUM MOTH, GARDEN TIGER MOTH, GIANT LEOPARD MOTH,
GLITTERING SAPPHIRE, GREEN HAIRSTREAK, HERCULES MOTH, HUMMING BIRD HAWK MOTH, IO MOTH, LUNA MOTH,
MADAGASCAN SUNSET MOTH, OLEANDER HAWK MOTH, POLYPHEMUS MOTH, ROSY MAPLE MOTH, SIXSPOT BURNET MOTH,
WHITE LINED SPHINX MOTH
"""

_SPECIES = tuple(" ".join(name.split()) for name in _BUTTERFLY75.split(","))
_MOTHS = tuple(" ".join(name.split()) for name in _ONLY_BUTTERFLY100.split(","))
_RENAMED = {"IPHICLUS SISTER": "Iphiclus sister"}

_KRIZHEVSKY = """@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009}
}"""
_TINY = (
    "The photographs have 32 × 32 pixels and show one object in the middle. A larger photograph must be scaled down "
    "and then looks different from the training images; artefacts of JPEG and of scaling can change the prediction. "
    "About {} percent of the labels of the test split are wrong (Northcutt et al. 2021, https://arxiv.org/abs/2103.14749)."
)
_FOR_RESEARCH = "{} (Krizhevsky 2009) was published for research without a licence text."

# By the tag of weights, `arch.tag`.
DATASETS = {
    "cifar10": Dataset(
        "CIFAR-10",
        tuple(_CIFAR10.split()),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        about=About(
            "50,000 photographs for training, ten classes",
            limits=_TINY.format("half a"),
            licence=_FOR_RESEARCH.format("CIFAR-10"),
            hub="uoft-cs/cifar10",
            cite=_KRIZHEVSKY,
        ),
    ),
    "cifar100": Dataset(
        "CIFAR-100",
        tuple(_CIFAR100.split()),
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        about=About(
            "50,000 photographs for training, a hundred classes",
            limits=_TINY.format("six"),
            licence=_FOR_RESEARCH.format("CIFAR-100"),
            hub="uoft-cs/cifar100",
            cite=_KRIZHEVSKY,
        ),
        superclasses={
            line.split(": ")[0]: tuple(line.split(": ")[1].split()) for line in _CIFAR100_SUPERCLASSES.split("\n")[1:-1]
        },
    ),
    "butterfly75": Dataset(
        "Butterfly-75",
        _SPECIES,
        about=About(
            "75 species of butterfly, from the Kaggle set Butterfly Image Classification, in splits of our own: "
            "5,189 photographs for training; groups of near-duplicates are all in the training split",
            limits="The photographs are JPEG files of low quality, and the net may rely on their artefacts. Some "
            "labels are wrong (COPPER TAIL contains other species). The net tells species apart by photographs of "
            "mostly open wings; it is not fit for surveys or science.",
            licence="The parent set is listed as CC0, but some photographs have watermarks of photo agencies: the "
            "weights and scores are published, the photographs are not.",
        ),
    ),
    "butterfly100": Dataset("Butterfly-100", tuple(sorted(_RENAMED.get(name, name) for name in _SPECIES + _MOTHS))),
}
CIFAR = ("cifar10", "cifar100")
BUTTERFLIES = ("butterfly75", "butterfly100")


def about(title: str) -> About:
    """What a card says of the data set with this title; nothing for a user's own."""
    return next((data.about for data in DATASETS.values() if data.title == title), About())


def superclasses(label_names: Sequence[str]) -> tuple[str, ...] | None:
    """The superclass of each class, if these are the classes of a data set that has superclasses."""
    for data in DATASETS.values():
        if data.superclasses and set(data.label_names) == set(label_names):
            by_class = {label: name for name, labels in data.superclasses.items() for label in labels}
            return tuple(by_class[label] for label in label_names)
    return None
