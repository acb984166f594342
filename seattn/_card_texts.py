"""What cards say of a data set and of a recipe."""

from dataclasses import dataclass

from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow
from seattn.hub.facts import Facts


@dataclass(frozen=True)
class DatasetText:
    """`what` follows the name; `limits` and `licence` are of sentences; `hub` is the name on the Hub, if it has one."""

    what: str = ""
    limits: str = ""
    licence: str = ""
    hub: str | None = None
    cite: str = ""


_KRIZHEVSKY = """@techreport{krizhevsky2009learning,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009}
}"""
_TINY = (
    "The photographs are of 32 pixels, with the thing in the middle: larger ones must be scaled down and look other "
    "than those the net knows, and artefacts of JPEG and of scaling can change its mind. Some labels of the test split "
    "are wrong (about half a percent; Northcutt et al. 2021, https://arxiv.org/abs/2103.14749)."
)
_FOR_RESEARCH = "(Krizhevsky 2009) was published for research without a licence text."

DATASETS = {
    "CIFAR-10": DatasetText(
        "50,000 photographs for training, ten classes",
        _TINY,
        f"CIFAR-10 {_FOR_RESEARCH}",
        "uoft-cs/cifar10",
        _KRIZHEVSKY,
    ),
    "CIFAR-100": DatasetText(
        "50,000 photographs for training, a hundred classes",
        _TINY.replace("about half a percent", "about six percent"),
        f"CIFAR-100 {_FOR_RESEARCH}",
        "uoft-cs/cifar100",
        _KRIZHEVSKY,
    ),
    "Butterfly-75": DatasetText(
        "75 species of butterfly, from the Kaggle set Butterfly Image Classification, in splits of our own: "
        "5,189 photographs for training, near-duplicates kept together there",
        "The photographs are JPEG files of low quality, whose artefacts the net may go by, and some labels are wrong "
        "(COPPER TAIL holds other species). Species are told apart by their looks on photographs of mostly open wings; "
        "nothing here is fit for surveys or science.",
        "The parent set is listed as CC0, but some photographs carry the marks of agencies: the weights and scores are "
        "published, the photographs are not.",
    ),
}


def dataset_text(name: str) -> DatasetText:
    """What is known of the data set `name`; nothing of a user's."""
    return DATASETS.get(name, DatasetText())


_SE = """@inproceedings{hu2018squeeze,
  title = {Squeeze-and-Excitation Networks},
  author = {Hu, Jie and Shen, Li and Sun, Gang},
  booktitle = {CVPR},
  year = {2018}
}"""
_ECA = """@inproceedings{wang2020eca,
  title = {ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks},
  author = {Wang, Qilong and Wu, Banggu and Zhu, Pengfei and Li, Peihua and Zuo, Wangmeng and Hu, Qinghua},
  booktitle = {CVPR},
  year = {2020}
}"""
_CBAM = """@inproceedings{woo2018cbam,
  title = {CBAM: Convolutional Block Attention Module},
  author = {Woo, Sanghyun and Park, Jongchan and Lee, Joon-Young and Kweon, In So},
  booktitle = {ECCV},
  year = {2018}
}"""
_SEATTN = """@software{seattn,
  title = {seattn: squeeze-and-excitation, CBAM and ECA attention for timm},
  author = {{The seattn maintainers}},
  license = {Apache-2.0}
}"""
_KINDS = {
    "se_": ("squeeze-and-excitation ([Hu et al. 2018](https://arxiv.org/abs/1709.01507))", _SE),
    "eca_": ("efficient channel attention ([Wang et al. 2020](https://arxiv.org/abs/1910.03151))", _ECA),
    "cbam_": ("convolutional block attention ([Woo et al. 2018](https://arxiv.org/abs/1807.06521))", _CBAM),
}
# By a part of the architecture's name; the first that it has.
_FAMILIES = {
    "preact_resnet": "A pre-activation ResNet",
    "resnext": "A ResNeXt",
    "wrn": "A wide ResNet",
    "mobilenetv2": "A MobileNetV2",
    "resnet": "A ResNet",
}


def family_text(architecture: str) -> str:
    """What kind of net it is and with which attention; for a net of timm's, its name."""
    kind = next((text for prefix, (text, _) in _KINDS.items() if architecture.startswith(prefix)), None)
    family = next((text for part, text in _FAMILIES.items() if part in architecture), None)
    known = f"{family} (`{architecture}`)" if family else f"A net `{architecture}`"
    return f"{known} with {kind}" if kind else known


def citation(facts: Facts, data: DatasetText) -> str:
    """What to cite, in BibTeX."""
    of_net = [entry for prefix, (_, entry) in _KINDS.items() if facts.recipe.model.startswith(prefix)]
    entries = "\n\n".join([_SEATTN, *of_net, *([data.cite] if data.cite else [])])
    return f"## Citation\n\n```bibtex\n{entries}\n```\n"


def _restarts(recipe: Recipe) -> str:
    again = recipe.lr_cycle_limit - 1
    if not again:
        return ""
    times = "once more" if again == 1 else f"{again} times more"
    return (
        f", then {times} from {recipe.lr_cycle_decay:g} times the rate over {recipe.lr_cycle_mul:g} times the length "
        "of the cycle before"
    )


def training_text(recipe: Recipe, row: AccuracyRow) -> str:
    """How `recipe` trained the weights of `row`, in one clause."""
    ours = recipe.seattn
    length = recipe.warmup_epochs if recipe.warmup_prefix else 0
    sizes = ", ".join(f"{epochs} at {side} pixels" for side, epochs in ours.resize)
    rest = row.epochs - sum(epochs for _, epochs in ours.resize)
    parts = [
        f"{row.epochs} epochs of {row.train_images:,} images"
        + (f" ({sizes}{f', {rest} at full size' if rest else ''})" if sizes else ""),
        f"batch {recipe.batch_size}",
        f"{recipe.opt} to a learning rate of {recipe.lr:g} over {recipe.warmup_epochs} epochs and down along "
        f"{'a straight line' if recipe.sched == 'poly' and recipe.decay_rate == 1 else recipe.sched} over "
        f"{recipe.epochs if length else recipe.epochs - recipe.warmup_epochs}{_restarts(recipe)}",
        f"weight decay {recipe.weight_decay:g}",
        f"random crop from a border of {ours.crop_padding} pixels"
        if ours.crop_padding is not None
        else f"random crops of {recipe.scale[0]:.0%} to {recipe.scale[1]:.0%} of the image",
    ]
    optional = {
        "mirroring": recipe.hflip,
        f"colours changed by up to {recipe.color_jitter or 0:.0%}": recipe.color_jitter and not ours.policy,
        f"the policy {ours.policy}": ours.policy,
        f"cut-outs of {ours.cutout} pixels": ours.cutout,
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        f"dropout {recipe.drop:g}": recipe.drop,
        f"label smoothing {recipe.smoothing:g}": recipe.smoothing,
        f"weights averaged with decay {recipe.model_ema_decay:g}": recipe.model_ema,
    }
    return ", ".join([*parts, *(text for text, on in optional.items() if on), row.dtype, row.memory_format])
