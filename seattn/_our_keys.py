"""The keys of a recipe that timm's train.py has no word for."""

import math
from dataclasses import dataclass

from seattn.errors import UserError

LOSSES = ("cross_entropy", "focal")
CLASS_WEIGHTS = ("none", "balanced", "effective")
SAMPLINGS = ("shuffle", "balanced")
POLICIES = ("", "cifar10", "imagenet", "randaugment", "trivial")
DATA_PATHS = ("auto", "memory", "folder")
CROP_BORDERS = ("black", "reflect")
FLIPS = ("random", "alternate")


@dataclass(frozen=True)
class OurKeys:
    """What timm's script has no key for.

    Args:
        dataset: name that the result rows carry.
        data: "memory" keeps the set decoded on the device and augments whole batches there, "folder" reads files with
            timm's loader and transforms; "auto" takes memory where the set fits, unless `aa` is set or crops by `scale`
            are to come from images larger than the model's input.
        crop_padding: pixels of black that a training image gets on each side before a random crop to its size, in place
            of timm's `scale` and `ratio`; None leaves those.
        crop_border: what `crop_padding` adds: "black" pixels, or "reflect", the image mirrored at its edge.
        flips: "random" mirrors a training image left to right with probability `hflip` in every epoch. "alternate"
            draws once for each image, and then mirrors the image in every second epoch, so that two successive epochs
            see both sides (Jordan, 2024, https://arxiv.org/abs/2404.00498, section 3.6); it needs `hflip` 0.5, and
            images that are kept in memory.
        cutout: side in pixels of a square that is blanked in each training image (DeVries and Taylor, 2017); 0: none.
            It shrinks with the image under `resize`.
        policy: torchvision's "cifar10" or "imagenet" AutoAugment, "randaugment" or "trivial" (TrivialAugmentWide);
            timm's own policies are `aa`, for data "folder". Either takes the place of `color_jitter`, as in timm.
        holdout: part of the train split that is held out for every choice, when the data have no validation split; 0
            trains on the whole train split, and no accuracy is known before the end.
        holdout_seed: which part; apart from `seed`, so that all seeds choose on the same images.
        loss: "cross_entropy" (or timm's `bce_loss`) or "focal" (Lin et al., ICCV 2017).
        focal_gamma: its exponent.
        class_weights: "balanced" weighs a class by the inverse of its count, "effective" by that of its effective
            number (Cui et al., CVPR 2019, beta 0.999), "none" not at all; or the weights of single classes by name, as
            `{cat: 2}`, the others' being 1.
        sampling: "balanced" draws every class equally often.
        balanced_head_epochs: epochs after the last, in which only the classifier learns, from balanced batches
            (Kang et al., ICLR 2020).
        sam_rho: radius of sharpness-aware minimisation (Foret et al., ICLR 2021); None: without.
        resize: progressive resizing, (side, epochs) in turn; the epochs left run at the model's own size.
        early_stop: end after so many epochs without a better held-out accuracy.
    """

    dataset: str = ""
    data: str = "auto"
    crop_padding: int | None = None
    crop_border: str = "black"
    flips: str = "random"
    cutout: int = 0
    policy: str = ""
    holdout: float = 0.1
    holdout_seed: int = 0
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
    class_weights: str | dict[str, float] = "none"
    sampling: str = "shuffle"
    balanced_head_epochs: int = 0
    sam_rho: float | None = None
    resize: tuple[tuple[int, int], ...] = ()
    early_stop: int | None = None

    def __post_init__(self) -> None:
        require(0 <= self.holdout < 1, "seattn.holdout", self.holdout, "from 0 up to, not including, 1")
        require(
            self.crop_padding is None or self.crop_padding >= 0, "seattn.crop_padding", self.crop_padding, "0 or more"
        )
        require(self.cutout >= 0, "seattn.cutout", self.cutout, "0 or more")
        one_of("seattn.crop_border", self.crop_border, CROP_BORDERS)
        one_of("seattn.flips", self.flips, FLIPS)
        in_files = self.flips == "alternate" and self.data == "folder"
        require(not in_files, "seattn.flips", self.flips, "random where seattn.data is folder")
        one_of("seattn.data", self.data, DATA_PATHS)
        one_of("seattn.policy", self.policy, POLICIES)
        one_of("seattn.loss", self.loss, LOSSES)
        if isinstance(self.class_weights, dict):
            for name, weight in self.class_weights.items():
                require(0 < weight < math.inf, f"seattn.class_weights.{name}", weight, "a number above 0")
        else:
            one_of("seattn.class_weights", self.class_weights, CLASS_WEIGHTS)
        one_of("seattn.sampling", self.sampling, SAMPLINGS)
        require(self.focal_gamma >= 0, "seattn.focal_gamma", self.focal_gamma, "0 or more")
        require(self.balanced_head_epochs >= 0, "seattn.balanced_head_epochs", self.balanced_head_epochs, "0 or more")
        require(self.sam_rho is None or self.sam_rho > 0, "seattn.sam_rho", self.sam_rho, "above 0, or left away")
        require(self.early_stop is None or self.early_stop >= 1, "seattn.early_stop", self.early_stop, "at least 1")
        unseen = self.early_stop is not None and self.holdout == 0
        require(
            not unseen, "seattn.early_stop", self.early_stop, "omitted where holdout is 0: no image judges an epoch"
        )
        both = self.early_stop is not None and self.balanced_head_epochs > 0
        require(not both, "seattn.early_stop", self.early_stop, "left away where balanced_head_epochs is set")
        for stage in self.resize:
            require(min(stage) >= 1, "seattn.resize", self.resize, "pairs of side and epochs, each at least 1")


def require(holds: bool, key: str, value: object, right: str) -> None:
    """Raise UserError, naming key, value and what would be right, unless it holds."""
    if not holds:
        raise UserError(f"{key} must be {right}, got {value!r}")


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UserError unless the value is one of the choices."""
    require(value in choices, key, value, "one of " + ", ".join(choice or "''" for choice in choices))
