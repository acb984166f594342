"""The figures of training runs: curves, classes, differences between two runs, confusions of one class.

Shapes: K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from seattn.evaluation.figures import Plot, Theme
from seattn.evaluation.scoring import ClassScore, FloatArray, wilson_interval
from seattn.evaluation.statistics import ImageDifference
from seattn.reports.runs import Group
from seattn.training.build import side_at

ROW = 0.27  # inches of a class


def curves_plot(groups: Sequence[Group]) -> Plot:
    """Loss, held-out accuracy and learning rate by epoch; one colour a group, all of its runs."""
    alone = len(groups) == 1

    def draw(figure: Figure, theme: Theme) -> None:
        panels: Any = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
        loss, accuracy, rate = panels
        for index, group in enumerate(groups):
            color = theme.series(1 if alone else index)  # alone: held-out is orange, training blue
            for run in group.runs:
                first = run is group.runs[0]
                x = [row["epoch"] + 1 for row in run.history]
                dashed: dict[str, Any] = {
                    "color": theme.series(0) if alone else color,
                    "linewidth": 1.1,
                    "linestyle": "--",
                }
                dashed["label"] = ("training" if alone else "training, dashed") if first and index == 0 else None
                loss.plot(x, [row["train_loss"] for row in run.history], **dashed)
                solid: dict[str, Any] = {"color": color, "linewidth": 1.6, "marker": "o" if len(x) == 1 else None}
                name = "held out" if alone else group.label
                loss.plot(x, [row["eval_loss"] for row in run.history], **solid, label=name if first else None)
                accuracy.plot(x, [row["eval_top1"] for row in run.history], **solid)
                rate.plot(x, [row["lr"] for row in run.history], color=color, linewidth=1.2)
                if (epoch := run.exported) is not None:
                    label = "weights exported" if first and index == 0 else None
                    point = {"marker": "D", "markersize": 5, "linestyle": "none", "markeredgecolor": theme.page}
                    accuracy.plot(epoch["epoch"] + 1, epoch["eval_top1"], color=color, label=label, **point)
        if alone:
            _mark_stages(panels, groups[0], theme)
        loss.set_ylabel("loss")
        accuracy.set_ylabel("held-out top-1, %")
        rate.set(ylabel="learning rate", xlabel="epoch")
        _legend(loss, groups)
        if accuracy.get_legend_handles_labels()[0]:
            accuracy.legend(frameon=False, loc="lower right")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        rate.yaxis.set_major_locator(MaxNLocator(3))
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=theme.text, alpha=0.12, linewidth=0.6)

    best = "; ".join(
        f"{group.label}: {len(run.history)} epochs, held-out top-1 {run.history[-1]['eval_top1']:.1f} % at the end, "
        f"{max(row['eval_top1'] for row in run.history):.1f} % at best"
        for group in groups
        for run in group.runs
    )
    return Plot(draw, 8.6, 6.2, f"Loss, held-out accuracy and learning rate by epoch. {best}.", "Training")


def _legend(axes: Any, groups: Sequence[Group]) -> None:
    longest = max(len(group.label) for group in groups)
    columns = 2 if len(groups) == 1 else max(1, min(3, 90 // (longest + 8)))
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


def _mark_stages(panels: Any, group: Group, theme: Theme) -> None:
    """A line where the side of the training images changes, and the side."""
    run = group.runs[0]
    sides = [side_at(epoch, run.recipe.seattn.resize) for epoch in range(len(run.history))]
    for epoch, side in enumerate(sides):
        if run.recipe.seattn.resize and (epoch == 0 or side != sides[epoch - 1]):
            text = f" {side} px" if side else " full size"
            panels[1].text(epoch + 1, 1.0, text, transform=panels[1].get_xaxis_transform(), va="bottom", fontsize=8)
            for axes in panels if epoch else ():
                axes.axvline(epoch + 1, color=theme.text, alpha=0.5, linewidth=1, linestyle=":")


def classes_plot(scores: Sequence[ClassScore], name: str) -> Plot:
    """Recall with its 95 % interval and precision of each class, in the order given, from the top."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        y = np.arange(len(scores))
        recall = np.array([score.recall for score in scores])
        limits = np.array([wilson_interval(round(s.recall * s.support), s.support) for s in scores]).T  # (2, K)
        axes.errorbar(
            *(recall, y),
            xerr=np.abs(limits - recall),
            fmt="o",
            color=theme.right,
            capsize=2,
            label="recall, 95% interval",
        )
        axes.plot([s.precision for s in scores], y, "D", color=theme.wrong, fillstyle="none", label="precision")
        _class_axis(axes, [score.name for score in scores], theme)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlim(right=1.005)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)

    alt = "Recall and precision by class, lowest recall first: " + ", ".join(
        f"{score.name} {score.recall:.0%} and {score.precision:.0%}" for score in scores[:5]
    )
    return Plot(draw, 7.0, 0.9 + ROW * len(scores), alt, f"Recall and precision: {name}")


def differences_plot(names: Sequence[str], rows: dict[str, Sequence[ImageDifference]], against: str) -> Plot:
    """By class what each group's recall gains over the first's, in points; `rows` by the groups' labels."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        y = np.arange(len(names))
        for index, (label, found) in enumerate(rows.items(), 1):
            shift = (index - (len(rows) + 1) / 2) * 0.7 / len(rows)
            change = 100 * np.array([one.change for one in found])
            limits = 100 * np.array([(one.low, one.high) for one in found]).T
            spread = np.abs(limits - change)
            axes.errorbar(
                change, y + shift, xerr=spread, fmt="o", markersize=4, capsize=2, color=theme.series(index), label=label
            )
        axes.axvline(0, color=theme.text, linewidth=1)
        _class_axis(axes, names, theme)
        axes.set_xlabel(f"recall against {against}, percentage points")
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)

    parts = [
        f"{label}: "
        + ", ".join(f"{name} {100 * one.change:+.1f}" for name, one in list(zip(names, found, strict=True))[:5])
        for label, found in rows.items()
    ]
    alt = f"Change of recall by class against {against}, in points. {'; '.join(parts)}."
    return Plot(draw, 7.0, 1.1 + 0.2 * len(rows) + max(ROW, 0.16 * len(rows)) * len(names), alt, "Change of recall")


def one_class_plot(
    name: str, others: Sequence[str], shares: dict[str, tuple[FloatArray, FloatArray]], title: str
) -> Plot:
    """What the class is taken for, and what is taken for it, by groups.

    Args:
        others: the names of the classes that are shown.
        shares: by the groups' labels, for each of the others: share of the class' images that are taken for it, and
            share of its images that are taken for the class.
    """

    def draw(figure: Figure, theme: Theme) -> None:
        panels: Any = figure.subplots(1, 2, sharey=True)
        short = name if len(name) <= 20 else name[:19] + "…"
        heads = (f"images of {short}, taken for …", f"images of …, taken for {short}")
        y, height = np.arange(len(others)), 0.8 / len(shares)
        for side, (axes, head) in enumerate(zip(panels, heads, strict=True)):
            for index, (label, both) in enumerate(shares.items()):
                place = y + (index - (len(shares) - 1) / 2) * height
                color = theme.wrong if len(shares) == 1 else theme.series(index)
                bars = axes.barh(place, both[side], 0.92 * height, color=color, label=label)
                axes.bar_label(bars, [f"{share:.1%}" for share in both[side]], padding=2, fontsize=7)
            _class_axis(axes, others, theme)
            axes.set_title(head, fontsize=9, loc="left")
            axes.set_xlim(0, 1.25 * max(0.004, *(float(both[side].max()) for both in shares.values())))
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylim(len(others) - 0.4, -0.6)
        if len(shares) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=1 + (len(shares) < 3))

    said = "; ".join(
        f"{label}: " + ", ".join(f"{other} {share:.1%}" for other, share in list(zip(others, both[0], strict=True))[:3])
        for label, both in shares.items()
    )
    height = 1.2 + len(others) * max(ROW, 0.17 * len(shares)) + 0.12 * len(shares)
    return Plot(draw, 8.0, height, f"What {name} is taken for. {said}.", title)


def _class_axis(axes: Any, names: Sequence[str], theme: Theme) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=theme.text, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
