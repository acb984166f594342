"""Figures of a net: inline SVG for a light and a dark page, a PNG that stands alone; colours of Okabe and Ito.

Those of one evaluation are here too: confusions and calibration. Shapes: K classes.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from seattn.core.files import atomic_path
from seattn.evaluation.scoring import Evaluation, FloatArray, IntArray, calibration_bins, wilson_interval, worst_pairs

RIGHT, WRONG = "#0072b2", "#d55e00"  # blue and vermilion: told apart by every kind of colour vision
RIGHT_DARK, WRONG_DARK = "#56b4e9", "#e69f00"
_SERIES = (RIGHT, WRONG, "#009e73", "#cc79a7", "#7f6000", "#5e4fa2", "#000000")
_SERIES_DARK = (RIGHT_DARK, WRONG_DARK, "#2fd0a0", "#e6a3c8", "#f0e442", "#a99bea", "#ffffff")
_DPI = 150


class Theme:
    """The colours of a figure on a light or a dark page."""

    def __init__(self, *, dark: bool) -> None:
        self.text = "#e6e6e6" if dark else "#1f2328"
        self.page = "#14171a" if dark else "#ffffff"
        self.right = RIGHT_DARK if dark else RIGHT
        self.wrong = WRONG_DARK if dark else WRONG
        self._series = _SERIES_DARK if dark else _SERIES

    def series(self, index: int) -> str:
        """The colour of the series of that number; the same for all series of one run."""
        return self._series[index % len(self._series)]


@dataclass(frozen=True)
class Plot:
    """What `draw` draws, width x height inches; `title` heads the PNG, `alt` says in words what is to be seen."""

    draw: Callable[[Figure, Theme], None]
    width: float
    height: float
    alt: str
    title: str = ""

    def html(self) -> str:
        """For both colour schemes."""
        light, dark = (self._svg_uri(Theme(dark=dark)) for dark in (False, True))
        return (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img class="figure" src="{light}" alt="{escape(self.alt)}"></picture>'
        )

    def write_png(self, path: Path) -> None:
        """Write it to `path`, light, under its title; whole or not at all."""
        theme, buffer = Theme(dark=False), io.BytesIO()
        with mpl.rc_context(_style(theme)):
            figure = Figure(figsize=(self.width, self.height + 0.35), layout="constrained", facecolor=theme.page)
            self.draw(figure, theme)
            figure.suptitle(self.title, fontsize=11)
            figure.savefig(buffer, format="png", dpi=_DPI)
        with atomic_path(path) as part:
            part.write_bytes(buffer.getvalue())

    def svg(self, theme: Theme, *, paper: str = "none", metadata: Mapping[str, str] | None = None) -> bytes:
        """Without its title, on a `paper` of that colour; the same bytes each time."""
        buffer = io.BytesIO()
        with mpl.rc_context(_style(theme)):
            figure = Figure(figsize=(self.width, self.height), layout="constrained", facecolor=paper)
            self.draw(figure, theme)
            known = {"Date": None, **(metadata or {})}
            figure.savefig(buffer, format="svg", transparent=paper == "none", metadata=known)
        return buffer.getvalue()

    def _svg_uri(self, theme: Theme) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg(theme)).decode("ascii")


def _style(theme: Theme) -> dict[Any, Any]:
    return {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "svg.hashsalt": "seattn",  # with Date=None above: the same report, byte for byte
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), theme.text),
    }


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
