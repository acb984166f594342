"""What a run's epochs say together: when to end early, which epoch's weights are shipped, and the run's one row."""

from collections.abc import Sequence

from seattn.evaluate import Evaluation
from seattn.recipe import Recipe
from seattn.rows import AccuracyRow, Conditions

Row = dict[str, float]


def is_stale(history: Sequence[Row], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no better held-out accuracy; never where patience is None."""
    return patience is not None and bool(history) and len(history) - 1 - _best(history) >= patience


def shipped(history: Sequence[Row], patience: int | None) -> Row:
    """The epoch whose weights are exported: the last, or with early stopping the best on the held-out images."""
    return history[-1] if patience is None else history[_best(history)]


def _best(history: Sequence[Row]) -> int:
    return max(range(len(history)), key=lambda i: history[i]["eval_top1"])


def accuracy_row(
    recipe: Recipe,
    split: str,
    scores: Evaluation,
    history: Sequence[Row],
    images: tuple[int, int],
    params: int,
    dtype: str,
    measured_in: Conditions,
) -> AccuracyRow:
    """The row of a finished run, `scores` being those of `split`; `images` are those trained on and those held out."""
    last = shipped(history, recipe.seattn.early_stop)
    return AccuracyRow(
        name=recipe.model,
        dataset=recipe.seattn.dataset,
        split=split,
        n=scores.n,
        top1=scores.top1,
        top1_low=scores.top1_low,
        top1_high=scores.top1_high,
        top5=scores.top5,
        loss=scores.loss,
        ece=scores.ece,
        seed=recipe.seed,
        epochs=len(history),
        train_images=images[0],
        held_out_images=images[1],
        held_out_top1=last["eval_top1"] / 100 if images[1] else None,
        params=params,
        train_seconds=sum(row["train_seconds"] for row in history),
        dtype=dtype,
        memory_format="channels_last" if recipe.channels_last else "contiguous",
        conditions=measured_in,
    )
