"""The keys of a recipe, each with its type, its default, its bounds and, in the string below it, its meaning.

`seattn recipe keys` and the reference are made from them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, ValidationInfo
from pydantic.dataclasses import dataclass

from seattn.core.errors import UserError
from seattn.core.files import write_text
from seattn.core.recipe.foreign import nearest
from seattn.core.records import one_line_errors


def _from_text(value: object) -> object:
    """Text as a number: YAML 1.1 reads 5e-4, without a dot, as text, and timm's parser accepts such text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _tuples(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _keywords(value: Any, info: ValidationInfo) -> Any:
    """Lists as tuples; numbers that are not finite are refused."""
    if not _is_finite(value):
        raise ValueError(f"{info.field_name} must hold finite numbers, got {value}")
    return _tuples(value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _known(value: object, info: ValidationInfo) -> object:
    """Refuse a name of another project with the nearest thing that a recipe has."""
    field = info.field_name or ""
    if right := nearest(field, value):
        raise ValueError(f"{'seattn.loss' if field == 'loss' else field} has no {value!r}; the nearest is {right}")
    return value


def _keep_default(value: float) -> float:
    """90, the default of decay_epochs, stays an int, as in every recipe.yaml until now."""
    return 90 if value == 90 else value


Number = Annotated[float, Field(strict=True, allow_inf_nan=False), BeforeValidator(_from_text)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
CountFromOne = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # NumPy takes no larger one
Keywords = Annotated[dict[str, Any], BeforeValidator(_keywords)]
Scheduler = Literal["cosine", "multistep", "poly", "step", "tanh"]  # not "plateau": a resumed run forgets its state
_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)
CYCLIC = ("cosine", "poly", "tanh")


def require(holds: bool, key: str, value: object, right: str) -> None:
    """Raise UserError unless `holds` is true; its message names the key, its value and what would be right."""
    if not holds:
        raise UserError(f"{key} must be {right}, got {value!r}")


@one_line_errors
@dataclass(frozen=True, config=_CONFIG)
class OurKeys:
    """The keys of a recipe that timm's script does not have."""

    dataset: str = ""
    """The name of the data set in the result rows."""
    exif: StrictBool = True
    """Rotate images by their EXIF orientation, which timm does not do."""
    data: Literal["auto", "memory", "folder"] = "auto"
    """`memory` keeps the decoded images on the device and augments whole batches there; `folder` reads files with
    timm's loader and transforms. `auto` is `memory` where the images fit, unless `aa` is set, or `scale` crops images
    that are larger than the model's input."""
    crop_padding: Count | None = None
    """Width in pixels of the border that a training image gets before a random crop to its size. It replaces timm's
    `scale` and `ratio`, which hold where it is null."""
    crop_border: Literal["black", "reflect"] = "black"
    """The border of `crop_padding`: black, or the image mirrored at its edge."""
    flips: Literal["random", "alternate"] = "random"
    """`random` mirrors a training image left to right with probability `hflip` in every epoch. `alternate` draws once
    for each image, and then mirrors the image in every second epoch: two successive epochs see both sides (Jordan,
    2024, https://arxiv.org/abs/2404.00498, section 3.6). It needs `hflip` 0.5 and images in memory."""
    cutout: Count = 0
    """Side in pixels of a square that is blanked in each training image (DeVries and Taylor, 2017); 0: none. The square
    shrinks with the image under `resize`."""
    policy: Literal["", "cifar10", "imagenet", "randaugment", "trivial"] = ""
    """torchvision's AutoAugment for CIFAR-10 or ImageNet, RandAugment or TrivialAugmentWide. For data `folder` there
    are timm's own policies too, by `aa`. A policy replaces `color_jitter`, as in timm."""
    holdout: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """The part of the train split on which choices are made, where the data have no validation split; 0 trains on the
    whole train split, and no accuracy is known before the end."""
    holdout_seed: Seed = 0
    """Selects the images of that part. Runs with different `seed` hold out the same images."""
    long_tail: Annotated[Number, Field(ge=1)] = 1.0
    """Thins the train split to study rare classes: the number of images of the first class, by name, over that of the
    last; the numbers between follow an exponential curve (Cui et al., CVPR 2019). Held-out images are not removed. 1:
    no thinning."""
    loss: Annotated[Literal["cross_entropy", "focal"], BeforeValidator(_known)] = "cross_entropy"
    """`cross_entropy` (or timm's `bce_loss`), or `focal` (Lin et al., ICCV 2017)."""
    focal_gamma: NotNegative = 2.0
    """The exponent of the focal loss."""
    hardest: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """The share of each batch that is learnt: the images with the largest cross entropy (Shrivastava et al., CVPR
    2016)."""
    class_weights: Literal["none", "balanced", "effective"] | dict[str, Positive] = "none"
    """Weights of the classes in the loss: the inverse of the number of images (`balanced`) or of the effective number
    (`effective`; Cui et al., CVPR 2019, beta 0.999); or a weight for each of some classes, as `{cat: 2}`, where all
    others have 1."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """`shuffle` takes every image once in an epoch; `balanced` draws every class equally often."""
    balanced_head_epochs: Count = 0
    """Additional epochs at the end, in which only the classifier learns, from balanced batches (Kang et al., ICLR
    2020)."""
    sam_rho: Positive | None = None
    """Radius of sharpness-aware minimisation (Foret et al., ICLR 2021); null does not use it."""
    resize: tuple[tuple[CountFromOne, CountFromOne], ...] = ()
    """Progressive resizing, as pairs of a side in pixels and a number of epochs; the remaining epochs run at the
    model's own size."""
    early_stop: CountFromOne | None = None
    """End the run after this number of epochs without a better held-out accuracy. It needs held-out images, and no
    `balanced_head_epochs`."""

    def __post_init__(self) -> None:
        in_files = self.flips == "alternate" and self.data == "folder"
        require(not in_files, "seattn.flips", self.flips, "random where seattn.data is folder")
        if self.early_stop is not None:
            key, epochs = "seattn.early_stop", self.early_stop
            require(self.holdout > 0, key, epochs, "omitted where holdout is 0: no image judges an epoch")
            require(self.balanced_head_epochs == 0, key, epochs, "omitted where balanced_head_epochs is set")


@one_line_errors
@dataclass(frozen=True, config=_CONFIG)
class Recipe:
    """Keys of timm's train.py, with its meanings and defaults, and the key `seattn`.

    A one-cycle schedule in timm's words: `sched: poly`, `decay_rate: 1.0`, `warmup_prefix: true`; the whole run is then
    `warmup_epochs + epochs` long. Warm restarts (Loshchilov and Hutter, SGDR, ICLR 2017): `lr_cycle_limit` cycles, the
    first of `epochs` epochs, each `lr_cycle_mul` times as long as the one before and from `lr_cycle_decay` times its
    rate. Batch sizes are of one process.

    Raises:
        UserError: for an unknown, missing or ill-typed key, or a value out of range.
    """

    model: str
    """The net: `arch` or `arch.tag`, any of timm or of this package."""
    lr: Positive
    """The highest learning rate of the schedule."""
    model_kwargs: Keywords = field(default_factory=dict)
    """Options of the net, as `{rd_ratio: 0.125}`."""
    num_classes: CountFromOne | None = None
    """The number of classes; null: the net's own."""
    pretrained: StrictBool = False
    """Start from the net's trained weights."""
    initial_checkpoint: str = ""
    """A file of weights to start from, of which a classifier of another size is left out."""
    batch_size: Annotated[int, Field(strict=True, ge=2, le=1_000_000)] = 128  # batch norm needs two values
    """Images in a batch of one process; even where mixup or cutmix is on."""
    grad_accum_steps: CountFromOne = 1
    """Batches whose gradients make one update of the weights."""
    epochs: CountFromOne = 300
    """Epochs of the schedule's first cycle, including the warm-up unless `warmup_prefix` is true."""
    seed: Seed = 42
    """The seed of the initial weights, the order of the images and the augmentation."""

    opt: Annotated[str, BeforeValidator(_known)] = "sgd"
    """An optimizer of timm; `sgd` has Nesterov's momentum, and `lookahead_` before a name wraps it in Lookahead."""
    momentum: NotNegative = 0.9
    """Momentum, of the optimizers that have it."""
    opt_betas: tuple[Number, Number] | None = None
    """The two betas of the optimizers like Adam; null: the optimizer's own."""
    opt_eps: NotNegative | None = None
    """The epsilon of the optimizers like Adam; null: the optimizer's own."""
    opt_kwargs: Keywords = field(default_factory=dict)
    """Further options of the optimizer."""
    weight_decay: NotNegative = 2e-5
    """Weight decay; biases and the parameters of norms have none."""
    layer_decay: Positive | None = None
    """The factor of the learning rate from one group of layers to the group before it; null: one rate for all."""
    clip_grad: Positive | None = None
    """The limit of `clip_mode` for gradients; null does not clip."""
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    """Clip the norm of all gradients, each value, or each gradient in proportion to its weights (adaptive gradient
    clipping; Brock et al., ICML 2021)."""

    sched: Annotated[Scheduler, BeforeValidator(_known)] = "cosine"
    """The schedule of the learning rate."""
    sched_on_updates: StrictBool = False
    """Change the rate with every update, not with every epoch."""
    warmup_epochs: Count = 5
    """Epochs in which the rate rises in a straight line from `warmup_lr` to `lr`."""
    warmup_lr: NotNegative = 1e-5
    """The learning rate at the start of the warm-up."""
    warmup_prefix: StrictBool = False
    """Put the warm-up before the schedule, so that the run is `warmup_epochs` longer."""
    min_lr: NotNegative = 0.0
    """The learning rate at the end of `cosine`, `poly` and `tanh`, and in the cooldown."""
    decay_rate: Number = 0.1
    """The factor of each decay of `step` and `multistep`; the exponent of `poly`."""
    decay_epochs: Annotated[Positive, AfterValidator(_keep_default)] = 90
    """Epochs between two decays of `step`."""
    decay_milestones: tuple[Count, ...] = (90, 180, 270)
    """The epochs at which `multistep` decays."""
    cooldown_epochs: Count = 0
    """Additional epochs after the schedule, at `min_lr`."""
    lr_cycle_mul: Annotated[Number, Field(gt=0, le=100)] = 1.0
    """The length of each cycle over that of the cycle before it."""
    lr_cycle_decay: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """The highest rate of each cycle over that of the cycle before it."""
    lr_cycle_limit: Annotated[int, Field(strict=True, ge=1, le=100)] = 1
    """The number of cycles of `cosine`, `poly` and `tanh`; 1 for the other schedules."""

    smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    """Label smoothing: the part of each target that is spread over all classes."""
    bce_loss: StrictBool = False
    """Binary cross entropy of each class in place of the cross entropy."""
    bce_sum: StrictBool = False
    """Sum the binary cross entropy over the classes in place of its mean."""
    bce_target_thresh: Number | None = None
    """With `bce_loss`, a target above this value becomes 1 and any other 0; null leaves targets as they are."""
    drop: Fraction = 0.0
    """Dropout before the classifier: the probability that a feature is dropped."""
    drop_path: Fraction | None = None
    """Stochastic depth: the largest probability that a residual branch is dropped; null: the net's own."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (Zhang et al., ICLR 2018); 0 does not use it."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix (Yun et al., ICCV 2019); 0 does not use it."""
    cutmix_minmax: tuple[Fraction, Fraction] | None = None
    """The least and the largest side of CutMix's rectangle, as parts of the image's; this turns CutMix on, whatever
    `cutmix` is."""
    mixup_prob: Fraction = 1.0
    """The probability that a batch, or an element of it, is mixed where mixup or cutmix is on."""
    mixup_switch_prob: Fraction = 0.5
    """The probability of CutMix in place of mixup where both are on."""
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    """Draw the mixture once for a batch, for each pair of images, or for each image."""
    mixup_off_epoch: Count = 0
    """The number of epochs after which batches are no longer mixed; 0: they are in all epochs."""
    kd_model_name: str | None = None
    """The teacher of knowledge distillation (Hinton et al., 2015): a model's name, the folder of a run, or
    `hf-hub:org/name`."""
    kd_temperature: Positive = 4.0
    """The temperature by which the logits of teacher and student are divided."""
    distill_loss_weight: Number | None = None
    """The weight of the teacher's loss; null: 1 minus `task_loss_weight`, or 1 where that is null."""
    task_loss_weight: Number | None = None
    """The weight of the loss of the labels beside a teacher's; null: 1."""

    scale: tuple[Positive, Fraction] = (0.08, 1.0)
    """The least and the largest area of a random crop over the image's."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """The least and the largest width over height of a random crop."""
    hflip: Fraction = 0.5
    """The probability that a training image is mirrored left to right."""
    vflip: Fraction = 0.0
    """The probability that a training image is turned upside down."""
    color_jitter: NotNegative | None = 0.4
    """The largest change of brightness, contrast and saturation, as a part of 1; a policy replaces it."""
    aa: str | None = None
    """A policy of timm for images from files, as `rand-m9-mstd0.5`, `augmix-m5` or `original`."""
    reprob: Fraction = 0.0
    """The probability of random erasing (Zhong et al., AAAI 2020) of a training image."""
    remode: Literal["pixel", "rand", "const"] = "pixel"
    """Erase with a random value for each pixel, with one for each rectangle, or with 0."""
    recount: CountFromOne = 1
    """The number of rectangles that are erased."""
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    """The interpolation of a random crop; `random` draws one of the two for each image."""
    workers: Annotated[int, Field(strict=True, ge=0, le=1024)] = 4
    """Processes that read and augment images from files; 0 does both in the training's own."""

    model_ema: StrictBool = False
    """Keep an exponential moving average of the weights; its weights are evaluated and saved."""
    model_ema_decay: Annotated[Number, Field(gt=0, lt=1)] = 0.9998
    """The part of the average that one update keeps."""
    model_ema_warmup: StrictBool = False
    """Start with a smaller part, which rises to `model_ema_decay`."""
    amp: StrictBool = False
    """Mixed precision: compute most operators in `amp_dtype`."""
    amp_dtype: Literal["bfloat16", "float16"] = "float16"
    """The dtype of `amp`; with `float16` the gradients are scaled."""
    channels_last: StrictBool = False
    """Keep images and weights in the memory format channels_last (NHWC)."""
    torchcompile: str | None = None
    """The backend of torch.compile, as `inductor`; null does not compile."""
    sync_bn: StrictBool = False
    """Batch norm over the batches of all processes."""
    dist_bn: Literal["", "broadcast", "reduce"] = "reduce"
    """After each epoch, give all processes the mean of the batch norms' running statistics, or those of the first."""
    log_wandb: StrictBool = False
    """Log each epoch to Weights & Biases; needs the extra `logs`."""
    wandb_project: str | None = None
    """The project of that log; null: the one of wandb's settings."""

    device_modules: tuple[str, ...] = ()
    """Only for timm's script: modules that it imports first, as `[seattn]`."""
    train_split: str = "train"
    """Only for timm's script: the name of the train split."""
    val_split: str = "validation"
    """Only for timm's script: the name of the split on which it evaluates each epoch."""

    seattn: OurKeys = field(default_factory=OurKeys)
    """The keys that timm's script does not have."""

    def __post_init__(self) -> None:
        alternate = self.seattn.flips == "alternate"
        require(not alternate or self.hflip == 0.5, "hflip", self.hflip, "0.5 where seattn.flips is alternate")
        require(self.scale[0] <= self.scale[1], "scale", self.scale, "two fractions, the smaller first")
        require(self.ratio[0] <= self.ratio[1], "ratio", self.ratio, "two numbers above 0, the smaller first")
        odd = self.mixes and self.batch_size % 2 == 1
        require(not odd, "batch_size", self.batch_size, "even where mixup or cutmix is on")
        focal = self.seattn.loss == "focal"
        require(not (focal and self.bce_loss), "seattn.loss", "focal", "cross_entropy where bce_loss is true")
        cycles = self.lr_cycle_limit == 1 or self.sched in CYCLIC
        right = f"1 where sched is not one of {', '.join(CYCLIC)}"
        require(cycles, "lr_cycle_limit", self.lr_cycle_limit, right)
        resized = sum(epochs for _, epochs in self.seattn.resize)
        length = self.scheduled_epochs
        lengths = {"epochs": self.epochs, "cooldown_epochs": self.cooldown_epochs}
        longest = "lr_cycle_limit" if self.lr_cycle_limit > 1 else max(lengths, key=lengths.__getitem__)
        require(
            length <= 1_000_000, longest, getattr(self, longest), "so low that the run has at most 1,000,000 epochs"
        )
        require(resized <= length, "seattn.resize", self.seattn.resize, f"within the {length} epochs")

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed, by mixup or cutmix."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    @property
    def scheduled_epochs(self) -> int:
        """Length of timm's schedule: warm-up before it, all cycles, cooldown."""
        around = self.cooldown_epochs + (self.warmup_epochs if self.warmup_prefix else 0)
        mul, cycles = self.lr_cycle_mul, self.lr_cycle_limit
        first_cycles = cycles if mul == 1 else (1 - mul**cycles) / (1 - mul)  # length of all cycles, in first cycles
        return around + math.floor(self.epochs * first_cycles)

    @property
    def run_epochs(self) -> int:
        """Length of the whole run, its second stage included, unless it stops early."""
        return self.scheduled_epochs + self.seattn.balanced_head_epochs

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, lists for tuples: the content of a run's recipe.yaml."""
        plain: dict[str, Any] = _lists(asdict(self))
        return plain

    def write(self, path: Path) -> None:
        """Write the resolved recipe as YAML, whole or not at all."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
