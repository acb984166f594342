"""What the data sets are: class names in the order of the outputs, channel mean and standard deviation."""

from dataclasses import dataclass

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as a model's cfg describes it; mean and std are of pixel values in 0..1, channels R, G, B."""

    label_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


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

# As the folders of the sets are called, spelling included.
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

# The set of 100 has these besides, and one name in other letters.
_ONLY_BUTTERFLY100 = """
ARCIGERA FLOWER MOTH, ATLAS MOTH, BANDED TIGER MOTH, BIRD CHERRY ERMINE MOTH, BROOKES BIRDWING, BROWN ARGUS,
CHALK HILL BLUE, CINNABAR MOTH, CLEARWING MOTH, COMET MOTH, EMPEROR GUM MOTH, GARDEN TIGER MOTH, GIANT LEOPARD MOTH,
GLITTERING SAPPHIRE, GREEN HAIRSTREAK, HERCULES MOTH, HUMMING BIRD HAWK MOTH, IO MOTH, LUNA MOTH,
MADAGASCAN SUNSET MOTH, OLEANDER HAWK MOTH, POLYPHEMUS MOTH, ROSY MAPLE MOTH, SIXSPOT BURNET MOTH,
WHITE LINED SPHINX MOTH
"""

DATASETS = {
    "cifar10": DatasetInfo(tuple(_CIFAR10.split()), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": DatasetInfo(tuple(_CIFAR100.split()), (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}

_SPECIES = tuple(" ".join(name.split()) for name in _BUTTERFLY75.split(","))
_MOTHS = tuple(" ".join(name.split()) for name in _ONLY_BUTTERFLY100.split(","))
_RENAMED = {"IPHICLUS SISTER": "Iphiclus sister"}
_SPECIES100 = tuple(sorted(_RENAMED.get(name, name) for name in _SPECIES + _MOTHS))

BUTTERFLIES = {
    "butterfly75": DatasetInfo(_SPECIES, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "butterfly100": DatasetInfo(_SPECIES100, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}
