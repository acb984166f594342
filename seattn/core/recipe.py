"""A recipe: how one net is trained, as a frozen, typed record that a YAML file fills.

The top-level keys, their meaning and their defaults are those of timm's train.py, so the same file drives both; what
timm has no word for stands under the one key `seattn`. A file is named after what it makes, `<arch>.<tag>.yaml`.

The keys of a recipe that timm's train.py has no word for.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import dacite
import yaml

from seattn.core.errors import UserError
from seattn.core.files import write_text

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


# Those that every timm we allow knows; not "plateau", which timm deprecates: a resumed run forgets its state.
SCHEDULERS = ("cosine", "multistep", "poly", "step", "tanh")

CYCLIC = ("cosine", "poly", "tanh")


@dataclass(frozen=True)
class Recipe:
    """Keys of timm's train.py, with its meanings and defaults, and one of ours.

    A one-cycle schedule in timm's words: `sched: poly`, `decay_rate: 1.0`, `warmup_prefix: true`; the whole run is then
    `warmup_epochs + epochs` long. Warm restarts (Loshchilov and Hutter, SGDR, ICLR 2017): `lr_cycle_limit` cycles, the
    first of `epochs` epochs, each `lr_cycle_mul` times as long as the one before and from `lr_cycle_decay` times its
    rate. Batch sizes are of one process.
    """

    model: str
    lr: float
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    pretrained: bool = False
    batch_size: int = 128
    grad_accum_steps: int = 1
    epochs: int = 300
    seed: int = 42

    opt: str = "sgd"
    momentum: float = 0.9
    opt_betas: tuple[float, float] | None = None
    opt_eps: float | None = None
    opt_kwargs: dict[str, Any] = field(default_factory=dict)
    weight_decay: float = 2e-5
    layer_decay: float | None = None
    clip_grad: float | None = None
    clip_mode: str = "norm"

    sched: str = "cosine"
    sched_on_updates: bool = False
    warmup_epochs: int = 5
    warmup_lr: float = 1e-5
    warmup_prefix: bool = False
    min_lr: float = 0.0
    decay_rate: float = 0.1
    decay_epochs: float = 90
    decay_milestones: tuple[int, ...] = (90, 180, 270)
    cooldown_epochs: int = 0
    lr_cycle_mul: float = 1.0
    lr_cycle_decay: float = 0.5
    lr_cycle_limit: int = 1

    smoothing: float = 0.1
    bce_loss: bool = False
    bce_sum: bool = False
    bce_target_thresh: float | None = None
    drop: float = 0.0
    drop_path: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    mixup_mode: str = "batch"
    mixup_off_epoch: int = 0
    kd_model_name: str | None = None
    kd_temperature: float = 4.0
    distill_loss_weight: float | None = None
    task_loss_weight: float | None = None

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float | None = 0.4
    aa: str | None = None
    reprob: float = 0.0
    remode: str = "pixel"
    recount: int = 1
    train_interpolation: str = "random"
    workers: int = 4

    model_ema: bool = False
    model_ema_decay: float = 0.9998
    model_ema_warmup: bool = False
    amp: bool = False
    amp_dtype: str = "float16"
    channels_last: bool = False
    torchcompile: str | None = None
    sync_bn: bool = False
    dist_bn: str = "reduce"
    log_wandb: bool = False
    wandb_project: str | None = None

    # Read by timm's script alone.
    device_modules: tuple[str, ...] = ()
    train_split: str = "train"
    val_split: str = "validation"

    seattn: OurKeys = field(default_factory=OurKeys)

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", self.lr, "a number above 0")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2 (batch norm needs two values)")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.grad_accum_steps >= 1, "grad_accum_steps", self.grad_accum_steps, "at least 1")
        require(0 <= self.smoothing < 1, "smoothing", self.smoothing, "from 0 up to, not including, 1")
        for name in ("hflip", "vflip", "reprob", "mixup_prob", "mixup_switch_prob", "drop"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability")
        alternate = self.seattn.flips == "alternate"
        require(not alternate or self.hflip == 0.5, "hflip", self.hflip, "0.5 where seattn.flips is alternate")
        require(self.mixup >= 0, "mixup", self.mixup, "0 or more")
        require(self.cutmix >= 0, "cutmix", self.cutmix, "0 or more")
        one_of("sched", self.sched, SCHEDULERS)
        one_of("clip_mode", self.clip_mode, ("norm", "value", "agc"))
        one_of("mixup_mode", self.mixup_mode, ("batch", "pair", "elem"))
        one_of("remode", self.remode, ("pixel", "rand", "const"))
        one_of("dist_bn", self.dist_bn, ("", "broadcast", "reduce"))
        one_of("train_interpolation", self.train_interpolation, ("random", "bilinear", "bicubic"))
        one_of("amp_dtype", self.amp_dtype, ("bfloat16", "float16"))
        require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "0 or more")
        require(0 < self.model_ema_decay < 1, "model_ema_decay", self.model_ema_decay, "between 0 and 1")
        require(0 < self.scale[0] <= self.scale[1] <= 1, "scale", self.scale, "two fractions, the smaller first")
        require(0 < self.ratio[0] <= self.ratio[1], "ratio", self.ratio, "two numbers above 0, the smaller first")
        require(self.kd_temperature > 0, "kd_temperature", self.kd_temperature, "above 0")
        mixes = self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None
        require(not (mixes and self.batch_size % 2), "batch_size", self.batch_size, "even where mixup or cutmix is on")
        focal = self.seattn.loss == "focal"
        require(not (focal and self.bce_loss), "seattn.loss", "focal", "cross_entropy where bce_loss is true")
        require(self.lr_cycle_limit >= 1, "lr_cycle_limit", self.lr_cycle_limit, "at least 1")
        cycles = self.lr_cycle_limit == 1 or self.sched in CYCLIC
        require(cycles, "lr_cycle_limit", self.lr_cycle_limit, f"1 where sched is none of {', '.join(CYCLIC)}")
        require(self.lr_cycle_mul > 0, "lr_cycle_mul", self.lr_cycle_mul, "above 0")
        require(0 < self.lr_cycle_decay <= 1, "lr_cycle_decay", self.lr_cycle_decay, "above 0, at most 1")
        resized = sum(epochs for _, epochs in self.seattn.resize)
        length = self.scheduled_epochs
        require(resized <= length, "seattn.resize", self.seattn.resize, f"within the {length} epochs")

    @property
    def scheduled_epochs(self) -> int:
        """Length of timm's schedule: warmup before it, all cycles, cooldown."""
        around = self.cooldown_epochs + (self.warmup_epochs if self.warmup_prefix else 0)
        mul, cycles = self.lr_cycle_mul, self.lr_cycle_limit
        in_first_ones = cycles if mul == 1 else (1 - mul**cycles) / (1 - mul)  # the length of all, in first cycles
        return around + math.floor(self.epochs * in_first_ones)

    @property
    def run_epochs(self) -> int:
        """Length of the whole run, its second stage included, unless it stops early."""
        return self.scheduled_epochs + self.seattn.balanced_head_epochs

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, lists for tuples: what is written beside the weights."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def write(self, path: Path) -> None:
        """Write the resolved recipe as YAML, whole or not at all."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))


def load_recipe(path: Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """Read `path`; `overrides` replace its keys, `seattn.cutout` the key `cutout` under `seattn`.

    Raises:
        UserError: naming the file, the key and the nearest valid one, or the value and what would be right.
    """
    raw = read_mapping(path, "recipe", "model: se_resnet20_cifar")
    return parse_recipe(replace_keys(raw, overrides or {}), source=str(path))


def read_mapping(path: Path, what: str, example: str) -> dict[str, Any]:
    """The keys and values of a YAML file that is a `what`.

    Raises:
        UserError: if it cannot be read, or is something else.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{what} {path} must be a mapping of keys to values, for example {example!r}")
    return raw


def replace_keys(raw: dict[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """`raw` with the values of `changes`, whose dotted keys reach below."""
    for key, value in changes.items():
        raw = _replaced(raw, key.split("."), value)
    return raw


def _replaced(raw: Any, path: list[str], value: object) -> dict[str, Any]:
    raw = raw if isinstance(raw, dict) else {}
    inner = value if len(path) == 1 else _replaced(raw.get(path[0]), path[1:], value)
    return {**raw, path[0]: inner}


def parse_recipe(raw: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        UserError: for an unknown, missing or ill-typed key, or a value out of range.
    """
    _check_keys(Recipe, raw, source, "")
    # timm's parser reads numbers out of text too, and YAML 1.1 takes 5e-4, without a dot, for text.
    config = dacite.Config(type_hooks={float: _to_float})
    try:
        return dacite.from_dict(Recipe, {key: _tuples(value) for key, value in raw.items()}, config)
    except dacite.MissingValueError as error:
        raise UserError(f"{source}: the key {error.field_path!r} is missing") from error
    except dacite.WrongTypeError as error:
        value: Any = raw  # error.value may be what dacite had made of it
        for part in str(error.field_path).split("."):
            value = value[part]
        raise UserError(_wrong_type(source, str(error.field_path), error.field_type, value)) from error
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def _check_keys(cls: type, raw: object, source: str, prefix: str) -> None:
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: {prefix.rstrip('.')} must be a mapping, got {raw!r}")
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix + near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise UserError(f"{source}: unknown key {prefix + str(key)!r}; {hint}")
        if isinstance(value, bool) and hints[key] is not bool:  # Python takes True for the number 1
            raise UserError(_wrong_type(source, prefix + key, hints[key], value))
        if is_dataclass(hints[key]):
            _check_keys(hints[key], value, source, f"{prefix}{key}.")


def _wrong_type(source: str, key: str, hint: Any, value: object) -> str:
    expected = str(hint) if get_args(hint) else hint.__name__
    return f"{source}: {key} must be {expected}, got {value!r}"


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _to_float(value: object) -> object:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
