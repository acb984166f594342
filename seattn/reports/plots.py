"""The figures of training runs: curves, classes, differences between two runs, confusions of one class.

Shapes: K classes.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from seattn.core.errors import counted
from seattn.evaluation.scoring import ClassScore, FloatArray
from seattn.evaluation.statistics import ImageDifference
from seattn.evaluation.style import PAGE, RIGHT, TEXT, WRONG, Plot, legend_above, plain_axes, series_color, shortened
from seattn.reports.runs import FinishedRun, RunGroup
from seattn.training.build import side_at

ROW = 0.27  # inches for each class


def curves_plot(groups: Sequence[RunGroup]) -> Plot:
    """Loss, held-out accuracy and learning rate by epoch; all runs of a group have one colour.

    A single group has training in blue and held-out images in orange. Runs without held-out images have no accuracy.
    """
    alone = len(groups) == 1
    measured = any(run.holds_out for group in groups for run in group.runs)

    def draw(figure: Figure) -> None:
        heights = (3, 3, 1.4) if measured else (3, 1.4)
        panels: list[Any] = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
        loss, rate, accuracy = panels[0], panels[-1], panels[1] if measured else None
        for index, group in enumerate(groups):
            color = series_color(1 if alone else index)
            train_color = series_color(0) if alone else color
            for run in group.runs:
                labelled = run is group.runs[0]
                train_label = ("training" if alone else "training, dashed") if labelled and index == 0 else None
                held_out_label = ("held out" if alone else group.label) if labelled else None
                epochs = [row["epoch"] + 1 for row in run.history]
                _draw_line(loss, run, "train_loss", color=train_color, label=train_label, linestyle="--", linewidth=1.1)
                _draw_line(loss, run, "eval_loss", color=color, label=held_out_label)
                rate.plot(epochs, [row["lr"] for row in run.history], color=color, linewidth=1.2)
                if accuracy is not None:
                    _draw_line(accuracy, run, "eval_top1", color=color)
                    _mark_export(accuracy, run, color, "weights exported" if labelled and index == 0 else None)
        if alone:
            _mark_sizes(panels, groups[0].runs[0])
        loss.set_ylabel("loss")
        rate.set(ylabel="learning rate", xlabel="epoch")
        longest = max(len(group.label) for group in groups)
        columns = 2 if alone else max(1, min(3, 90 // (longest + 8)))
        legend_above(loss, columns=columns)
        if accuracy is not None:
            accuracy.set_ylabel("held-out top-1, %")
            if accuracy.get_legend_handles_labels()[0]:
                accuracy.legend(frameon=False, loc="lower right")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        rate.yaxis.set_major_locator(MaxNLocator(3))
        for axes in panels:
            plain_axes(axes)

    text = "; ".join(f"{group.label}: {_run_in_words(run)}" for group in groups for run in group.runs)
    title = "Loss, held-out accuracy and learning rate" if measured else "Loss and learning rate"
    return Plot(draw, 8.6, 6.2 if measured else 4.0, f"{title} by epoch. {text}.", "Training")


def _draw_line(axes: Any, run: FinishedRun, column: str, *, linestyle: str = "-", **style: Any) -> None:
    """One column of the log by epoch; a run of a single epoch is a dot."""
    values = [row[column] for row in run.history]
    if not all(isnan(value) for value in values):
        epochs = [row["epoch"] + 1 for row in run.history]
        marker = "o" if len(epochs) == 1 and linestyle == "-" else None
        axes.plot(epochs, values, **{"linewidth": 1.6, "linestyle": linestyle, "marker": marker, **style})


def _mark_export(axes: Any, run: FinishedRun, color: str, label: str | None) -> None:
    row = run.exported
    if row is not None and run.holds_out:
        point = {"marker": "D", "markersize": 5, "linestyle": "none", "markeredgecolor": PAGE}
        axes.plot(row["epoch"] + 1, row["eval_top1"], color=color, label=label, **point)


def _mark_sizes(panels: Sequence[Any], run: FinishedRun) -> None:
    """A line where the side of the training images changes, and the side in pixels."""
    resize = run.recipe.seattn.resize
    sides = [side_at(epoch, resize) for epoch in range(len(run.history))]
    for epoch, side in enumerate(sides if resize else []):
        if epoch == 0 or side != sides[epoch - 1]:
            axes = panels[-2]
            text = f" {side} px" if side else " full size"
            axes.text(epoch + 1, 1.0, text, transform=axes.get_xaxis_transform(), va="bottom", fontsize=8)
            for axes in panels if epoch else ():
                axes.axvline(epoch + 1, color=TEXT, alpha=0.5, linewidth=1, linestyle=":")


def _run_in_words(run: FinishedRun) -> str:
    text = f"{counted(len(run.history), 'epoch')}, "
    if not run.holds_out:
        return f"{text}no images held out"
    best = max(row["eval_top1"] for row in run.history)
    return f"{text}held-out top-1 {run.history[-1]['eval_top1']:.1f} % at the end, {best:.1f} % at best"


def classes_plot(scores: Sequence[ClassScore], name: str) -> Plot:
    """Recall with its 95 % interval and precision of each class, in the order given, from the top."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        y = np.arange(len(scores))
        recall = np.array([score.recall for score in scores])
        limits = np.array([score.recall_interval for score in scores]).T  # (2, K)
        spread = np.abs(limits - recall)
        axes.errorbar(recall, y, xerr=spread, fmt="o", color=RIGHT, capsize=2, label="recall, 95% interval")
        axes.plot([s.precision for s in scores], y, "D", color=WRONG, fillstyle="none", label="precision")
        _label_classes(axes, [score.name for score in scores])
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(right=1.005)
        legend_above(axes)

    alt = "Recall and precision by class, lowest recall first: " + ", ".join(
        f"{score.name} {score.recall:.0%} and {score.precision:.0%}" for score in scores[:5]
    )
    return Plot(draw, 7.0, 0.9 + ROW * len(scores), alt, f"Recall and precision: {name}")


def differences_plot(names: Sequence[str], rows: Mapping[str, Sequence[ImageDifference]], against: str) -> Plot:
    """The change of recall against the first group in points, by class; `rows` has the changes of each other group."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        y = np.arange(len(names))
        for index, (label, changes) in enumerate(rows.items(), 1):
            shift = (index - (len(rows) + 1) / 2) * 0.7 / len(rows)
            change = 100 * np.array([row.change for row in changes])
            limits = 100 * np.array([(row.low, row.high) for row in changes]).T
            axes.errorbar(
                change,
                y + shift,
                xerr=np.abs(limits - change),
                fmt="o",
                markersize=4,
                capsize=2,
                color=series_color(index),
                label=label,
            )
        axes.axvline(0, color=TEXT, linewidth=1)
        _label_classes(axes, names)
        axes.set_xlabel(f"recall against {against}, percentage points")
        legend_above(axes, columns=1)

    text = "; ".join(
        f"{label}: "
        + ", ".join(f"{name} {100 * row.change:+.1f}" for name, row in zip(names[:5], changes[:5], strict=True))
        for label, changes in rows.items()
    )
    alt = f"Change of recall by class against {against}, in points. {text}."
    return Plot(draw, 7.0, 1.1 + 0.2 * len(rows) + max(ROW, 0.16 * len(rows)) * len(names), alt, "Change of recall")


def one_class_plot(
    name: str, others: Sequence[str], shares: dict[str, tuple[FloatArray, FloatArray]], title: str
) -> Plot:
    """The classes that a class is taken for (filled bars) and the classes taken for this class (hatched), by groups.

    Args:
        others: the names of the other classes.
        shares: for each group's label, and for each of the others: the share of the images of the class that are taken
            for the other, and the share of the other's images that are taken for the class.
    """
    short = shortened(name)
    bars_of_class = 2 * len(shares)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        y, height = np.arange(len(others)), 0.84 / bars_of_class
        for index, (label, (forward, backward)) in enumerate(shares.items()):
            color = WRONG if len(shares) == 1 else series_color(index)
            prefix = f"{label}: " if len(shares) > 1 else ""
            kinds: tuple[tuple[FloatArray, str, dict[str, Any]], ...] = (
                (forward, f"{prefix}{short} taken for it", {"color": color}),
                (backward, f"{prefix}it taken for {short}", {"edgecolor": color, "fill": False, "hatch": "////"}),
            )
            for side, (share, text, style) in enumerate(kinds):
                place = y + (2 * index + side - (bars_of_class - 1) / 2) * height
                bars = axes.barh(place, share, 0.9 * height, label=text, **style)
                axes.bar_label(bars, [f"{value:.1%}" for value in share], padding=2, fontsize=7)
        _label_classes(axes, others)
        largest = max(float(share.max()) for both in shares.values() for share in both)
        axes.set_xlim(0, 1.1 * max(0.004, largest))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        legend_above(axes)

    text = "; ".join(
        f"{label}: " + ", ".join(f"{other} {share:.1%}" for other, share in zip(others[:3], forward[:3], strict=True))
        for label, (forward, _) in shares.items()
    )
    height = 0.9 + 0.2 * len(shares) + len(others) * max(1.3 * ROW, 0.17 * bars_of_class)
    return Plot(draw, 8.0, height, f"What {name} is taken for. {text}.", title)


def _label_classes(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    plain_axes(axes, grid="x")
