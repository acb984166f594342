"""The report's figures of one evaluation: confusions and calibration.

Shapes: K classes.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from seattn.evaluation.figures import Plot, Theme
from seattn.evaluation.scoring import Evaluation, FloatArray, IntArray, calibration_bins, wilson_interval, worst_pairs

BINS = 15
MAX_CELL_LABELS = 20  # beyond this many classes numbers in cells are too small to read


def confusion_plot(evaluation: Evaluation, *, name: str = "") -> Plot:
    """The confusion matrix (K, K): rows are true classes; mistakes have a colour scale of their own."""
    confusion, names = evaluation.confusion, evaluation.class_names
    draw = partial(draw_confusion, confusion, names)
    return Plot(draw, width=5.2, height=5.0, alt=confusion_text(confusion, names), title=f"Confusions: {name}")


def draw_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str], figure: Figure, theme: Theme) -> None:
    """Draw counts (K, K) by [true][predicted]."""
    counts = np.array(confusion)  # (K, K)
    k = len(counts)
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (K, K)
    diagonal = np.eye(k, dtype=bool)
    worst = max(float(rates[~diagonal].max(initial=0.0)), 1e-9)
    alpha = np.where(diagonal, 0.85 * rates, 0.85 * rates / worst)
    cells = np.where(diagonal[..., None], to_rgb(theme.right), to_rgb(theme.wrong))  # (K, K, 3)
    axes = figure.subplots()
    axes.imshow(np.concatenate([cells, alpha[..., None]], -1), interpolation="nearest")
    if k <= MAX_CELL_LABELS:
        for (true, predicted), count in np.ndenumerate(counts):
            if count:
                strong = alpha[true, predicted] > 0.55
                color = theme.page if strong else theme.text
                axes.text(predicted, true, str(count), ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(k), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), names)
        axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=theme.text, alpha=0.12, linewidth=0.6)
        axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def confusion_text(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The confusions in a sentence."""
    pairs = ", ".join(
        f"{true} taken for {wrong} {count} times" for true, wrong, count in worst_pairs(confusion, names, 3)
    )
    return f"Confusion matrix of {len(names)} classes. Most frequent mistakes: {pairs or 'none'}."


def reliability_plot(evaluation: Evaluation, probabilities: FloatArray, labels: IntArray, *, name: str = "") -> Plot:
    """Accuracy by bin of confidence above the number of images in each bin; probabilities (N, K), labels (N,)."""
    count, confidence, accuracy = calibration_bins(probabilities, labels, BINS)
    mean_confidence = float((count * confidence).sum() / count.sum())

    def draw(figure: Figure, theme: Theme) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        left: npt.NDArray[np.float64] = np.linspace(0, 1, BINS + 1)[:-1]
        bars = {"width": 1 / BINS, "align": "edge", "linewidth": 0.8, "edgecolor": theme.page}
        filled = count > 0
        top.plot([0, 1], [0, 1], color=theme.text, linestyle="--", linewidth=1, label="perfectly calibrated")
        top.bar(left[filled], accuracy[filled], color=theme.right, label="accuracy", **bars)
        gap = np.abs(accuracy - confidence)[filled]
        lower = np.minimum(accuracy, confidence)[filled]
        hatched = {**bars, "edgecolor": theme.wrong}
        top.bar(left[filled], gap, bottom=lower, fill=False, hatch="////", label="gap to confidence", **hatched)
        top.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        low, high = np.array([wilson_interval(round(a * n), n) for a, n in zip(accuracy, count, strict=True) if n]).T
        spread = np.abs([accuracy[filled] - low, high - accuracy[filled]])
        centre = left[filled] + 0.5 / BINS
        top.errorbar(centre, accuracy[filled], spread, fmt="none", color=theme.text, linewidth=1, label="95% interval")
        top.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        bottom.bar(left, count, color=theme.text, alpha=0.6, **bars)
        bottom.axvline(
            mean_confidence, color=theme.wrong, linewidth=1.5, label=f"mean confidence {mean_confidence:.3f}"
        )
        bottom.axvline(
            evaluation.top1, color=theme.right, linewidth=1.5, linestyle="--", label=f"accuracy {evaluation.top1:.3f}"
        )
        bottom.set(ylabel="images", xlabel="confidence in the predicted class")
        bottom.legend(frameon=False, loc="upper left", handlelength=1.2)
        for axes in (top, bottom):
            axes.spines[["top", "right"]].set_visible(False)

    alt = (
        f"Reliability diagram, {BINS} bins: expected calibration error {evaluation.ece:.3f}, mean confidence "
        f"{mean_confidence:.3f}, accuracy {evaluation.top1:.3f}."
    )
    return Plot(draw, width=5.2, height=5.0, alt=alt, title=f"Calibration: {name}")
