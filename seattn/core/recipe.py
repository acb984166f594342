"""A recipe: how one net is trained, as a frozen, typed record that a YAML file fills.

The top-level keys, their meaning and their defaults are those of timm's train.py, so that one file drives both. Keys
that timm does not have are under the key `seattn`. A file is called after its weights: `<arch>.<tag>.yaml`.
"""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, ValidationInfo
from pydantic.dataclasses import dataclass

from seattn.core.errors import UserError
from seattn.core.files import not_found, write_text
from seattn.core.records import one_line_errors, read_yaml


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


# What a recipe can name for what it does not have: the field, other projects' names in small letters, the nearest.
_NEAREST = {
    "opt": {
        "ranger ranger21 rangerlite lookahead": "lookahead_radam",
        "sam": "seattn.sam_rho: 0.05, with any optimizer",
        "swa": "model_ema: true",
        "lbfgs asgd rprop": "sgd",
        "sophia shampoo soap": "kron",
    },
    "sched": {
        "exponential exp exponentiallr": "step with decay_epochs: 1 and decay_rate below 1",
        "onecycle onecyclelr 1cycle": "poly with decay_rate: 1.0 and warmup_prefix: true",
        "linear linearlr polynomial": "poly with decay_rate: 1.0",
        "none constant fixed": "step with decay_rate: 1.0",
        "plateau reducelronplateau": "multistep, or seattn.early_stop",
        "warmrestarts cosinewarmrestarts cosineannealingwarmrestarts sgdr": "cosine with lr_cycle_limit",
        "cosineannealing cosinelr cosineannealinglr": "cosine",
        "wsd trapezoid": "multistep",
    },
    "loss": {
        "ohem ohemcrossentropy hardmining asl asymmetric polyloss gce ghm": "focal",
        "ce crossentropyloss softmax nll labelsmoothing": "cross_entropy, with smoothing",
        "bce bceloss bcewithlogits": "bce_loss: true",
        "ldam balancedsoftmax logitadjust classbalanced weightedcrossentropy": "cross_entropy with class_weights",
        "kd distillation kldiv": "cross_entropy with kd_model_name",
    },
}


def nearest(field: str, name: object) -> str | None:
    """The nearest thing that a recipe has for another project's `name` in a field, if one is known."""
    plain = "".join(character for character in str(name).lower() if character.isalnum())
    return next((right for names, right in _NEAREST.get(field, {}).items() if plain in names.split()), None)


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
CONFIGS = Path(__file__).parents[1] / "zoo_configs"  # a link to the folder of the repository; in a wheel, its files
CYCLIC = ("cosine", "poly", "tanh")


def require(holds: bool, key: str, value: object, right: str) -> None:
    """Raise UserError unless `holds` is true; its message names the key, its value and what would be right."""
    if not holds:
        raise UserError(f"{key} must be {right}, got {value!r}")


@one_line_errors
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OurKeys:
    """The keys of a recipe that timm's script does not have.

    Args:
        dataset: the name of the data set in the result rows.
        exif: rotate images by their EXIF orientation, which timm does not do.
        data: "memory" keeps the decoded images on the device and augments whole batches there; "folder" reads files
            with timm's loader and transforms. "auto" is "memory" where the images fit, unless `aa` is set, or `scale`
            crops images that are larger than the model's input.
        crop_padding: width in pixels of the border that a training image gets before a random crop to its size. It
            replaces timm's `scale` and `ratio`; with None they hold.
        crop_border: the border of `crop_padding`: "black", or "reflect" for the image mirrored at its edge.
        flips: "random" mirrors a training image left to right with probability `hflip` in every epoch. "alternate"
            draws once for each image, and then mirrors the image in every second epoch: two successive epochs see both
            sides (Jordan, 2024, https://arxiv.org/abs/2404.00498, section 3.6). It needs `hflip` 0.5 and images in
            memory.
        cutout: side in pixels of a square that is blanked in each training image (DeVries and Taylor, 2017); 0: none.
            The square shrinks with the image under `resize`.
        policy: torchvision's "cifar10" or "imagenet" AutoAugment, "randaugment" or "trivial" (TrivialAugmentWide). For
            data "folder" there are timm's own policies too, by `aa`. A policy replaces `color_jitter`, as in timm.
        holdout: the part of the train split on which choices are made, where the data have no validation split; 0
            trains on the whole train split, and no accuracy is known before the end.
        holdout_seed: selects the images of that part. Runs with different `seed` hold out the same images.
        loss: "cross_entropy" (or timm's `bce_loss`) or "focal" (Lin et al., ICCV 2017).
        focal_gamma: the exponent of the focal loss.
        class_weights: weights of the classes in the loss: the inverse of the number of images ("balanced") or of the
            effective number (Cui et al., CVPR 2019, beta 0.999; "effective"); or a weight for each of some classes, as
            `{cat: 2}`, where all others have 1.
        sampling: "balanced" draws every class equally often.
        balanced_head_epochs: additional epochs at the end, in which only the classifier learns, from balanced batches
            (Kang et al., ICLR 2020).
        sam_rho: radius of sharpness-aware minimisation (Foret et al., ICLR 2021); None does not use it.
        resize: progressive resizing, as pairs of a side in pixels and a number of epochs; the remaining epochs run at
            the model's own size.
        early_stop: end the run after this number of epochs without a better held-out accuracy.
    """

    dataset: str = ""
    exif: StrictBool = True
    data: Literal["auto", "memory", "folder"] = "auto"
    crop_padding: Count | None = None
    crop_border: Literal["black", "reflect"] = "black"
    flips: Literal["random", "alternate"] = "random"
    cutout: Count = 0
    policy: Literal["", "cifar10", "imagenet", "randaugment", "trivial"] = ""
    holdout: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    holdout_seed: Seed = 0
    loss: Annotated[Literal["cross_entropy", "focal"], BeforeValidator(_known)] = "cross_entropy"
    focal_gamma: NotNegative = 2.0
    class_weights: Literal["none", "balanced", "effective"] | dict[str, Positive] = "none"
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    balanced_head_epochs: Count = 0
    sam_rho: Positive | None = None
    resize: tuple[tuple[CountFromOne, CountFromOne], ...] = ()
    early_stop: CountFromOne | None = None

    def __post_init__(self) -> None:
        in_files = self.flips == "alternate" and self.data == "folder"
        require(not in_files, "seattn.flips", self.flips, "random where seattn.data is folder")
        if self.early_stop is not None:
            key, epochs = "seattn.early_stop", self.early_stop
            require(self.holdout > 0, key, epochs, "omitted where holdout is 0: no image judges an epoch")
            require(self.balanced_head_epochs == 0, key, epochs, "omitted where balanced_head_epochs is set")


@one_line_errors
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Keys of timm's train.py, with its meanings and defaults, and the key `seattn`.

    A one-cycle schedule in timm's words: `sched: poly`, `decay_rate: 1.0`, `warmup_prefix: true`; the whole run is then
    `warmup_epochs + epochs` long. Warm restarts (Loshchilov and Hutter, SGDR, ICLR 2017): `lr_cycle_limit` cycles, the
    first of `epochs` epochs, each `lr_cycle_mul` times as long as the one before and from `lr_cycle_decay` times its
    rate. Batch sizes are of one process. `initial_checkpoint` is a file of weights to start from, of which a classifier
    of another size is left out; `kd_model_name` may also be the folder of a run, or `hf-hub:org/name`.

    Raises:
        UserError: for an unknown, missing or ill-typed key, or a value out of range.
    """

    model: str
    lr: Positive
    model_kwargs: Keywords = field(default_factory=dict)
    num_classes: CountFromOne | None = None
    pretrained: StrictBool = False
    initial_checkpoint: str = ""
    batch_size: Annotated[int, Field(strict=True, ge=2, le=1_000_000)] = 128  # batch norm needs two values
    grad_accum_steps: CountFromOne = 1
    epochs: CountFromOne = 300
    seed: Seed = 42

    opt: Annotated[str, BeforeValidator(_known)] = "sgd"
    momentum: NotNegative = 0.9
    opt_betas: tuple[Number, Number] | None = None
    opt_eps: NotNegative | None = None
    opt_kwargs: Keywords = field(default_factory=dict)
    weight_decay: NotNegative = 2e-5
    layer_decay: Positive | None = None
    clip_grad: Positive | None = None
    clip_mode: Literal["norm", "value", "agc"] = "norm"

    sched: Annotated[Scheduler, BeforeValidator(_known)] = "cosine"
    sched_on_updates: StrictBool = False
    warmup_epochs: Count = 5
    warmup_lr: NotNegative = 1e-5
    warmup_prefix: StrictBool = False
    min_lr: NotNegative = 0.0
    decay_rate: Number = 0.1
    decay_epochs: Annotated[Positive, AfterValidator(_keep_default)] = 90
    decay_milestones: tuple[Count, ...] = (90, 180, 270)
    cooldown_epochs: Count = 0
    lr_cycle_mul: Annotated[Number, Field(gt=0, le=100)] = 1.0
    lr_cycle_decay: Annotated[Number, Field(gt=0, le=1)] = 0.5
    lr_cycle_limit: Annotated[int, Field(strict=True, ge=1, le=100)] = 1

    smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    bce_loss: StrictBool = False
    bce_sum: StrictBool = False
    bce_target_thresh: Number | None = None
    drop: Fraction = 0.0
    drop_path: Fraction | None = None
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    cutmix_minmax: tuple[Fraction, Fraction] | None = None
    mixup_prob: Fraction = 1.0
    mixup_switch_prob: Fraction = 0.5
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    mixup_off_epoch: Count = 0
    kd_model_name: str | None = None
    kd_temperature: Positive = 4.0
    distill_loss_weight: Number | None = None
    task_loss_weight: Number | None = None

    scale: tuple[Positive, Fraction] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    hflip: Fraction = 0.5
    vflip: Fraction = 0.0
    color_jitter: NotNegative | None = 0.4
    aa: str | None = None
    reprob: Fraction = 0.0
    remode: Literal["pixel", "rand", "const"] = "pixel"
    recount: CountFromOne = 1
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    workers: Annotated[int, Field(strict=True, ge=0, le=1024)] = 4

    model_ema: StrictBool = False
    model_ema_decay: Annotated[Number, Field(gt=0, lt=1)] = 0.9998
    model_ema_warmup: StrictBool = False
    amp: StrictBool = False
    amp_dtype: Literal["bfloat16", "float16"] = "float16"
    channels_last: StrictBool = False
    torchcompile: str | None = None
    sync_bn: StrictBool = False
    dist_bn: Literal["", "broadcast", "reduce"] = "reduce"
    log_wandb: StrictBool = False
    wandb_project: str | None = None

    # Only timm's script reads these keys.
    device_modules: tuple[str, ...] = ()
    train_split: str = "train"
    val_split: str = "validation"

    seattn: OurKeys = field(default_factory=OurKeys)

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
        require(length <= 1_000_000, "lr_cycle_limit", self.lr_cycle_limit, "so low that the run has 1,000,000 epochs")
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


def packaged_configs(kind: str = "") -> dict[str, Path]:
    """The files of `zoo_configs/` in this package by their names: recipes, or the "ablations" or "searches"."""
    files = sorted((CONFIGS / kind).glob("*.yaml"))
    return {path.stem: path for path in files if path.name != "queue.yaml"}


def find_config(name: Path, kind: str = "") -> Path:
    """The file `name` if there is one, otherwise the file of that name in this package.

    Args:
        kind: "" for recipes, "ablations" or "searches".

    Raises:
        UserError: if there is neither; it names the packaged file with the nearest name.
    """
    packaged, stem = packaged_configs(kind), name.name.removesuffix(".yaml")
    may_be_packaged = name.parent in (Path(), Path("zoo_configs") / kind)
    if may_be_packaged and stem in packaged and not os.path.isfile(name):  # a folder of that name may be there
        return packaged[stem]
    if os.path.lexists(name):
        return name
    if not may_be_packaged:
        raise UserError(not_found("file", name))
    near = difflib.get_close_matches(stem, packaged, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"there is no file {name}, and no such name in this package; {hint}--list shows the names")


def load_recipe(path: Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """The recipe in the file `path`, with the keys of `overrides` replaced ("seattn.cutout": `cutout` under `seattn`).

    Raises:
        UserError: naming the file, the key and the nearest valid one, or the value and what would be right.
    """
    raw = read_yaml(path, "recipe", "model: se_resnet20_cifar")
    return parse_recipe(replace_keys(raw, overrides or {}), source=str(path))


def parse_recipe(raw: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        UserError: naming `source`, for an unknown, missing or ill-typed key, or a value out of range.
    """
    for key in raw:
        if key in OurKeys.__dataclass_fields__:
            right = nearest(key, raw[key])
            hint = f" The nearest to {raw[key]!r} is {right}" if right else ""
            raise UserError(f"{source}: unknown key {key!r}; did you mean 'seattn.{key}'?{hint}")
    try:
        return Recipe(**{str(key): value for key, value in raw.items()})
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def replace_keys(raw: dict[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """`raw` with the values of `changes`, whose dotted keys name values inside of mappings."""
    for key, value in changes.items():
        raw = _replaced(raw, key.split("."), value)
    return raw


def _replaced(raw: Any, path: list[str], value: object) -> dict[str, Any]:
    raw = raw if isinstance(raw, dict) else {}
    inner = value if len(path) == 1 else _replaced(raw.get(path[0]), path[1:], value)
    return {**raw, path[0]: inner}


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
