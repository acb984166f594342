"""The figure of a study: the accuracy of each seed, joined across variants, and the paired differences."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seattn.core.errors import counted
from seattn.evaluation.statistics import SeedDifference, Summary
from seattn.evaluation.style import figure_style
from seattn.experiments.study.results import StudyResult, VariantResult

# The colours of Okabe and Ito without yellow; with more seeds they repeat.
_SEEDS = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"), ("#56b4e9", "P"))
_MEAN = "#000000"
_LONG = 24  # letters; a longer name does not fit below the panel
_Styles = dict[int, dict[str, str]]  # the colour and the marker by seed


def plot_bytes(result: StudyResult, kind: str) -> bytes:
    """The figure as "png" or "svg"; the same result gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(figure_style(10)):
        metadata = {"Date": None} if kind == "svg" else None
        draw(result).savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def draw(result: StudyResult) -> Figure:
    """Draw accuracies on the left, differences to the reference on the right, and main effects below."""
    variants, effects = result.variants, result.effects
    seeds = sorted({seed for variant in variants for seed in variant.accuracy})
    styles = {
        seed: dict(zip(("color", "marker"), _SEEDS[i % len(_SEEDS)], strict=True)) for i, seed in enumerate(seeds)
    }
    with mpl.rc_context(figure_style(10)):
        rows = [len(variants), *([len(effects)] if effects else [])]
        figure = Figure(figsize=(9, 1.5 + 0.46 * sum(rows) + 0.7 * (len(rows) - 1)), layout="constrained")
        grid = figure.add_gridspec(len(rows), 2, height_ratios=[r + 0.3 for r in rows], width_ratios=[1.1, 1])
        left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        _accuracies(left, variants, styles)
        first = variants[0].accuracy
        pairs = [{s: v.accuracy[s] - first[s] for s in v.accuracy if s in first} if v.against else {} for v in variants]
        _differences(right, [variant.against for variant in variants], pairs, styles)
        right.set_yticks(range(len(variants)), [""] * len(variants))
        against = result.reference if len(result.reference) < _LONG else "the first"
        right.set_xlabel(f"points against {against}")
        panels = [left, right]
        if effects:
            below = figure.add_subplot(grid[1, :])
            _differences(below, [e.difference for e in effects], [e.by_seed for e in effects], styles)
            below.set_yticks(range(len(effects)), [effect.name for effect in effects])
            below.set_xlabel("main effect in points: of each seed the mean over the other factors' levels")
            panels.append(below)
        for axes in panels:
            axes.invert_yaxis()
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.grid(axis="x", color="#000000", alpha=0.12, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        first_run = result.rows[0].result
        lengths = [row.result.epochs for row in result.rows]
        least, most = min(lengths), max(lengths)
        epochs = counted(most, "epoch") if least == most else f"{least} to {most} epochs"
        data = f"{result.name}: {first_run.dataset or 'held-out images'}"
        figure.suptitle(f"{data}, {counted(len(seeds), 'seed')}, {epochs}", fontsize=11)
    return figure


def _accuracies(axes: Any, variants: Sequence[VariantResult], styles: _Styles) -> None:
    for seed, style in styles.items():
        ys = [y for y, variant in enumerate(variants) if seed in variant.accuracy]
        xs = [variants[y].accuracy[seed] for y in ys]
        axes.plot(xs, ys, label=f"seed {seed}", markersize=5, linewidth=0.8, alpha=0.8, **style)
    _means(axes, [variant.summary for variant in variants])
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants])
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0), min(high, 100.5))  # an interval of two seeds may be wider than 0 to 100 %
    axes.set_xlabel("held-out top-1, %")


def _differences(
    axes: Any, differences: Sequence[SeedDifference | None], by_seed: Sequence[dict[int, float]], styles: _Styles
) -> None:
    axes.axvline(0, color="#555555", linewidth=1)
    for y, values in enumerate(by_seed):
        for seed, value in values.items():
            axes.plot([value], [y], markersize=5, alpha=0.8, **styles[seed])
    _means(axes, differences)


def _means(axes: Any, summaries: Sequence[Summary | None]) -> None:
    """Draw means and intervals, a little below the points."""
    label: str | None = "mean, 95 % t interval"
    for y, s in enumerate(summaries):
        if s is None:
            continue
        bar = None if s.low is None or s.high is None else [[s.mean - s.low], [s.high - s.mean]]
        line = {"color": _MEAN, "markersize": 5, "elinewidth": 1.4, "capsize": 3}
        axes.errorbar([s.mean], [y + 0.22], None, bar, fmt="d", label=label, **line)
        label = None
    axes.set_ylim(-0.5, len(summaries) - 0.5)
