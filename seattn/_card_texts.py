"""What cards say of a data set and of a recipe."""

from dataclasses import dataclass

from seattn.recipe import Recipe
from seattn.rows import AccuracyRow


@dataclass(frozen=True)
class DatasetText:
    """`what` follows the name, `limits` is of sentences; `hub` is the name on the Hub, None where it has none."""

    what: str
    limits: str
    hub: str | None = None


_KRIZHEVSKY = "(Krizhevsky 2009) was published for research without a licence text."

DATASETS = {
    "CIFAR-10": DatasetText("50,000 photographs for training, ten classes", f"CIFAR-10 {_KRIZHEVSKY}", "cifar10"),
    "CIFAR-100": DatasetText(
        "50,000 photographs for training, a hundred classes", f"CIFAR-100 {_KRIZHEVSKY}", "cifar100"
    ),
    "Butterfly-75": DatasetText(
        "75 species of butterfly, from the Kaggle set Butterfly Image Classification, in splits of our own: "
        "5,189 photographs for training, near-duplicates kept together there",
        "The photographs are JPEG files of low quality, and some labels are wrong (COPPER TAIL holds other species). "
        "Species are told apart by their looks on photographs of mostly open wings; nothing here is fit for "
        "surveys or science. The parent set is listed as CC0, but some photographs carry the marks of agencies: the "
        "weights and scores are published, the photographs are not.",
    ),
}


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
        f"{recipe.epochs if length else recipe.epochs - recipe.warmup_epochs}",
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
