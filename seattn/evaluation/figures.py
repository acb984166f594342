"""The figures of one evaluation (confusions, reliability) and of one explanation (the map over the image, the gates).

Shapes: N images, K classes, H x W pixels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from PIL import Image

from seattn.evaluation.gates import LayerGates
from seattn.evaluation.scoring import ClassCounts, Evaluation, FloatArray, wilson_interval
from seattn.evaluation.style import PAGE, RIGHT, TEXT, WRONG, Plot, legend_above, plain_axes, series_color

Pixels = npt.NDArray[np.uint8]

MAX_CELL_LABELS = 20  # with more classes the numbers in the cells are too small to read
_OPACITY = 0.85  # of the darkest cell
_LEVELS = 40  # of opacity: the cells of one level are one shape, so that a figure of 1,000 classes stays small
BANDS = 3  # images whose spread is drawn; more bands hide each other
_SIDE = 256  # pixels of an enlarged picture, at least
_STRENGTH = 0.75  # opacity of the map at its hottest place
_NAMED = 24  # layers whose names fit under a figure


def confusion_plot(counts: ClassCounts, *, name: str = "", side: float = 5.2) -> Plot:
    """The confusion matrix (K, K): rows are true classes; mistakes have a colour scale of their own.

    Args:
        side: the width of the figure in inches.
    """
    pairs = ", ".join(f"{true} taken for {wrong} {count} times" for true, wrong, count in counts.worst_pairs(3))
    alt = f"Confusion matrix of {len(counts.class_names)} classes. Most frequent mistakes: {pairs or 'none'}."
    return Plot(partial(_draw_confusion, counts), width=side, height=side - 0.2, alt=alt, title=f"Confusions: {name}")


def _draw_confusion(class_counts: ClassCounts, figure: Figure) -> None:
    counts, names = np.array(class_counts.confusion), class_counts.class_names  # (K, K)
    k = len(counts)
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (K, K)
    diagonal = np.eye(k, dtype=bool)
    worst = max(float(rates[~diagonal].max(initial=0.0)), 1e-9)
    opacity = _OPACITY * np.where(diagonal, rates, rates / worst)
    axes = figure.subplots()
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal", xlabel="predicted", ylabel="true")
    _draw_cells(axes, np.where(diagonal, opacity, 0), RIGHT)
    _draw_cells(axes, np.where(diagonal, 0, opacity), WRONG)
    if k > MAX_CELL_LABELS:
        return
    for (true, predicted), count in np.ndenumerate(counts):
        if count:
            color = PAGE if opacity[true, predicted] > 0.55 else TEXT
            axes.text(predicted, true, str(count), ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(k), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(k), names)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=TEXT, alpha=0.12, linewidth=0.6)
    axes.tick_params(which="both", length=0)


def _draw_cells(axes: Any, opacity: FloatArray, color: str) -> None:
    """Fill each cell (K, K) whose opacity is above 0."""
    levels = np.ceil(opacity * _LEVELS).astype(int)  # (K, K)
    for level in np.unique(levels[levels > 0]):
        rows, columns = np.nonzero(levels == level)
        squares = [
            Outline([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)], closed=True)
            for x, y in zip(columns - 0.5, rows - 0.5, strict=True)
        ]
        outline = Outline.make_compound_path(*squares)
        axes.add_patch(PathPatch(outline, facecolor=color, alpha=min(1.0, level / _LEVELS), linewidth=0))


def reliability_plot(evaluation: Evaluation, *, name: str = "") -> Plot:
    """Accuracy by bin of confidence above the number of images in each bin."""
    count, confidence, accuracy = np.array(evaluation.bins).T
    bins = len(count)
    mean_confidence = float((count * confidence).sum() / count.sum())

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        left: npt.NDArray[np.float64] = np.linspace(0, 1, bins + 1)[:-1]
        bars = {"width": 1 / bins, "align": "edge", "linewidth": 0.8, "edgecolor": PAGE}
        filled = count > 0
        top.plot([0, 1], [0, 1], color=TEXT, linestyle="--", linewidth=1, label="perfectly calibrated")
        top.bar(left[filled], accuracy[filled], color=RIGHT, label="accuracy", **bars)
        gap = np.abs(accuracy - confidence)[filled]
        lower = np.minimum(accuracy, confidence)[filled]
        hatched = {**bars, "edgecolor": WRONG}
        top.bar(left[filled], gap, bottom=lower, fill=False, hatch="////", label="gap to confidence", **hatched)
        top.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        low, high = np.array([wilson_interval(round(right * n), n) for n, _, right in evaluation.bins if n]).T
        spread = np.abs([accuracy[filled] - low, high - accuracy[filled]])
        centre = left[filled] + 0.5 / bins
        top.errorbar(centre, accuracy[filled], spread, fmt="none", color=TEXT, linewidth=1, label="95% interval")
        bottom.bar(left, count, color=TEXT, alpha=0.6, **bars)
        bottom.axvline(mean_confidence, color=WRONG, linewidth=1.5, label=f"mean confidence {mean_confidence:.3f}")
        bottom.axvline(
            evaluation.top1, color=RIGHT, linewidth=1.5, linestyle="--", label=f"accuracy {evaluation.top1:.3f}"
        )
        bottom.set(ylabel="images", xlabel="confidence in the predicted class")
        for axes in (top, bottom):
            axes.spines[["top", "right"]].set_visible(False)
            legend_above(axes)

    alt = (
        f"Reliability diagram, {bins} bins: expected calibration error {evaluation.ece:.3f}, mean confidence "
        f"{mean_confidence:.3f}, accuracy {evaluation.top1:.3f}."
    )
    return Plot(draw, width=5.2, height=5.2, alt=alt, title=f"Calibration: {name}")


def enlarged(picture: Pixels) -> Pixels:
    """The picture (H, W, 3) enlarged by a whole factor, so that its pixels stay squares."""
    factor = max(1, _SIDE // max(picture.shape[:2]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def overlay(picture: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """The picture (H, W, 3) in grey under the heat (H, W) in colour; the hotter, the more opaque."""
    large = enlarged(picture)
    size = (large.shape[1], large.shape[0])
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = np.asarray(Image.fromarray(large).convert("L"), dtype=np.float32)[..., None] / 255
    color = mpl.colormaps["inferno"](0.25 + 0.75 * smooth)[..., :3]
    weight = _STRENGTH * smooth[..., None]
    return np.asarray(((grey * (1 - weight) + color * weight) * 255).round().astype(np.uint8))


def gates_plot(images: Sequence[tuple[str, Sequence[LayerGates]]], *, width: float = 8.6) -> Plot:
    """Mean of the gates by depth, one line for each image.

    Up to BANDS images have a band of one standard deviation, a single image has the distribution.

    Args:
        width: the width of the figure in inches.
    """
    depth = np.arange(len(images[0][1]))
    names = [layer.name for layer in images[0][1]]

    def draw(figure: Figure) -> None:
        axes: Any = figure.subplots()
        if len(images) == 1:
            parts = axes.violinplot([layer.gates for layer in images[0][1]], depth, showextrema=True, widths=0.8)
            for body in parts["bodies"]:
                body.set(facecolor=RIGHT, alpha=0.3)
            for key in ("cbars", "cmins", "cmaxes"):
                parts[key].set(color=RIGHT, linewidth=0.8)
        for index, (label, layers) in enumerate(images):
            mean = np.array([layer.gates.mean() for layer in layers])
            spread = np.array([layer.gates.std() for layer in layers])
            color = series_color(index)
            axes.plot(depth, mean, "o-", color=color, markersize=4, linewidth=1.5, label=label)
            if 1 < len(images) <= BANDS:
                axes.fill_between(depth, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        depth_axis(axes, names)
        axes.set_ylabel("gate")
        if len(images) > 1:
            legend_above(axes)

    text = "; ".join(
        f"{label}: mean {np.mean([layer.gates.mean() for layer in layers]):.2f}, from {layers[0].gates.mean():.2f} in "
        f"the first layer to {layers[-1].gates.mean():.2f} in the last"
        for label, layers in images
    )
    return Plot(draw, width, 3.6 + 0.1 * len(images), f"Channel gates by depth. {text}.", "Channel gates by depth")


def depth_axis(axes: Any, names: Sequence[str]) -> None:
    """Label the horizontal axis with the names of the attention layers, the first layer on the left."""
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    else:
        axes.set_xlabel(f"attention layer, {names[0]} to {names[-1]}")
    plain_axes(axes)
