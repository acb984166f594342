"""The data sets that nets of this package are trained on: values for their cfgs, and texts for model cards."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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


# The classes of each set, in the order of a net's outputs, and of CIFAR-100 by superclass, in no order.
_CLASSES = json.loads((Path(__file__).resolve().parent / "classes.json").read_text(encoding="utf-8"))
_SUPERCLASSES = {name: tuple(classes) for name, classes in _CLASSES["cifar100"].items()}

_KRIZHEVSKY = """@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009}
}"""
_TINY = (
    "The photographs have 32 × 32 pixels, most with one object in the middle. A larger photograph must be scaled down "
    "and then looks different from the training images; artefacts of JPEG and of scaling can change the prediction. "
    "About {} percent of the labels of the test split are wrong (Northcutt et al. 2021, https://arxiv.org/abs/2103.14749)."
)
_TWICE = (
    " {} percent of the test images have a near duplicate in the train split (Barz and Denzler 2020, "
    "https://arxiv.org/abs/1902.00423)."
)
_FOR_RESEARCH = "{} (Krizhevsky 2009) was published for research without a licence text."

# By the tag of weights, `arch.tag`.
DATASETS = {
    "cifar10": Dataset(
        "CIFAR-10",
        tuple(_CLASSES["cifar10"]),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        about=About(
            "50,000 photographs for training, ten classes",
            limits=_TINY.format("half a") + _TWICE.format("Three"),
            licence=_FOR_RESEARCH.format("CIFAR-10"),
            hub="uoft-cs/cifar10",
            cite=_KRIZHEVSKY,
        ),
    ),
    "cifar100": Dataset(
        "CIFAR-100",
        tuple(sorted(name for classes in _SUPERCLASSES.values() for name in classes)),
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        about=About(
            "50,000 photographs for training, a hundred classes",
            limits=_TINY.format("six")
            + _TWICE.format("Ten")
            + " Ten of the 10,000 are there pixel for pixel, by our own count.",
            licence=_FOR_RESEARCH.format("CIFAR-100"),
            hub="uoft-cs/cifar100",
            cite=_KRIZHEVSKY,
        ),
        superclasses=_SUPERCLASSES,
    ),
    "butterfly75": Dataset(
        "Butterfly-75",
        tuple(_CLASSES["butterfly75"]),
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
    "butterfly100": Dataset(
        "Butterfly-100",
        tuple(_CLASSES["butterfly100"]),
        about=About(
            "100 species of butterfly and moth, from the Kaggle set Butterfly & Moths Image Classification, in its own "
            "splits: 12,534 photographs for training, 490 for validation, 500 for the test; one of the test images has "
            "a near duplicate in train; all were scaled from 224 to 128 pixels and stored as WebP of quality 75 before "
            "training and test, and two names of one species were made one (POLYGONIA is QUESTION MARK)",
            limits="The test images are of the same source as the training images. On photographs from elsewhere, with "
            "other framing and light, the accuracy is probably lower; it was not measured. Some labels are wrong "
            "(COPPER TAIL contains other species). The net tells species apart by photographs of mostly open wings; it "
            "is not fit for surveys or science.",
            licence="The set is listed as CC0, but some photographs have watermarks of photo agencies: the weights and "
            "scores are published, the photographs are not.",
        ),
    ),
}
CIFAR = ("cifar10", "cifar100")
BUTTERFLIES = ("butterfly75", "butterfly100")


def about(title: str) -> About:
    """What a card says of the data set with this title; nothing for a user's own."""
    return next((data.about for data in DATASETS.values() if data.title == title), About())


def title_of(title: str, label_names: Sequence[str]) -> str:
    """`title`, or "" if the data set of that title is one of these here and has other classes."""
    known = next((data.label_names for data in DATASETS.values() if data.title == title), label_names)
    return title if set(known) == set(label_names) else ""


def superclasses(label_names: Sequence[str]) -> tuple[str, ...] | None:
    """The superclass of each class, if these are the classes of a data set that has superclasses."""
    for data in DATASETS.values():
        if data.superclasses and set(data.label_names) == set(label_names):
            by_class = {label: name for name, labels in data.superclasses.items() for label in labels}
            return tuple(by_class[label] for label in label_names)
    return None
