"""A search as three figures: which keys mattered, how it went, and the scores over each key's values."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from seattn.core.files import atomic_path
from seattn.evaluation.style import RIGHT, WRONG, figure_style
from seattn.experiments.search.space import Choice, Range, Search
from seattn.experiments.search.trials import last_score, ranked, short

ENOUGH = 10  # whole trials, below which a forest fitted to them says nothing
FORESTS = 8  # of which the spread is drawn
_COLUMNS = 3
_logger = logging.getLogger("seattn")


def write_plots(out: Path, search: Search, study: optuna.Study) -> None:
    """importance, history and slices, each as .png and .svg; a line says which there are too few trials for."""
    trials = study.get_trials(deepcopy=False)
    whole = ranked(trials)
    if not whole:
        _logger.info("no figures: no trial is whole yet")
        return
    _write(out / "history", _history(search, trials))
    _write(out / "slices", _slices(search, trials))
    if len(whole) < ENOUGH:
        _logger.info("no importance yet: it takes %d whole trials, there are %d", ENOUGH, len(whole))
    elif len({trial.value for trial in whole}) == 1:
        _logger.info("no importance: all whole trials have the same score")
    else:
        _write(out / "importance", _importance(search, study, len(whole)))


def _write(stem: Path, figure: Figure) -> None:
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with mpl.rc_context(figure_style()):
            figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        with atomic_path(stem.parent / f"{stem.name}.{kind}") as part:
            part.write_bytes(buffer.getvalue())


def importances(search: Search, study: optuna.Study) -> npt.NDArray[np.float64]:
    """fANOVA's share of the scores' variance of each key, (FORESTS, keys): a row a random forest."""
    keys = list(search.space)
    rows = []
    for seed in range(FORESTS):
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys)
        rows.append([found[key] for key in keys])
    return np.array(rows)


def _importance(search: Search, study: optuna.Study, whole: int) -> Figure:
    rows = importances(search, study)
    order = rows.mean(0).argsort()
    keys = [list(search.space)[i] for i in order]
    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(6, 1.3 + 0.32 * len(keys)), layout="constrained")
        axes = figure.subplots()
        mean, spread = rows.mean(0)[order], rows.std(0)[order]
        axes.barh(keys, mean, 0.7, color=RIGHT)
        axes.errorbar(mean, range(len(keys)), xerr=spread, fmt="none", color="#1f2328", linewidth=1, capsize=3)
        for place, (value, width) in enumerate(zip(mean, spread, strict=True)):
            axes.annotate(f"{value:.2f}", (value + width, place), (5, 0), textcoords="offset points", va="center")
        axes.set(xlabel=f"share of the variance, mean and standard deviation of {FORESTS} forests")
        axes.set_xlim(0, 1.15 * float((mean + spread).max()))
        _plain(axes, grid="x")
        figure.suptitle(f"{search.name}: what mattered in {whole} whole trials (fANOVA)", fontsize=10)
    return figure


def _history(search: Search, trials: Sequence[FrozenTrial]) -> Figure:
    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        _dots(axes, trials, [trial.number for trial in trials], _floor(trials))
        whole = sorted(ranked(trials), key=lambda trial: trial.number)
        best = np.maximum.accumulate([trial.value or 0.0 for trial in whole])
        places = [trial.number for trial in whole]
        last = max(trial.number for trial in trials)
        axes.step([*places, last], [*best, best[-1]], where="post", color=RIGHT, linewidth=1, label="best so far")
        axes.set(xlabel="trial", ylabel="held-out top-1, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes, grid="y")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(f"{search.name}: {len(trials)} trials, best {best[-1]:.2f} %", fontsize=10)
    return figure


def _slices(search: Search, trials: Sequence[FrozenTrial]) -> Figure:
    columns = min(_COLUMNS, len(search.space))
    rows = -(-len(search.space) // columns)
    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(0.6 + 2.8 * columns, 0.8 + 2.5 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        floor = _floor(trials)
        for axes, (key, dimension) in zip(panels, search.space.items(), strict=False):
            mine = [trial for trial in trials if key in trial.params]
            values = [trial.params[key] for trial in mine]
            if isinstance(dimension, Choice):
                kept = list(dimension.ends())
                # Side by side in the order of their numbers, as many share a value.
                values = [
                    kept.index(value) + 0.5 * (trial.number / len(trials) - 0.5)
                    for trial, value in zip(mine, values, strict=True)
                ]
                axes.set_xticks(range(len(kept)), [_label(value) for value in kept])
                axes.set_xlim(-0.5, len(kept) - 0.5)
            else:
                axes.set_xscale("log" if dimension.log else "linear")
                axes.set_xlim(*_widened(dimension))
                if dimension.whole and not dimension.log:
                    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            _dots(axes, mine, values, floor)
            axes.set_xlabel(key)
            _plain(axes, grid="y")
        for axes in panels[len(search.space) :]:
            axes.set_visible(False)
        for axes in panels[::columns]:
            axes.set_ylabel("held-out top-1, %")
        figure.align_xlabels()
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(f"{search.name}: every trial over each key", fontsize=10)
    return figure


def _widened(dimension: Range) -> tuple[float, float]:
    """The whole range with a little room, so that a best value at its edge is seen to be there."""
    if dimension.log:
        room = (dimension.high / dimension.low) ** 0.04
        return dimension.low / room, dimension.high * room
    room = 0.04 * (dimension.high - dimension.low)
    return dimension.low - room, dimension.high + room


def _floor(trials: Sequence[FrozenTrial]) -> float:
    """Below this a score is drawn at the edge: what failed early would else press all others into one line."""
    scores = np.array([trial.value for trial in ranked(trials)])
    low, middle, high = scores.min(), np.median(scores), scores.max()
    return float(max(low, middle - 6 * max(high - middle, 0.5)) - 0.08 * max(high - low, 1))


def _dots(axes: Any, trials: Sequence[FrozenTrial], places: Sequence[float], floor: float) -> None:
    """Whole trials as dots, pruned ones as rings where they stood, what is lower or failed at the bottom edge."""
    kinds = {
        "whole": (TrialState.COMPLETE, {"marker": "o", "color": RIGHT}),
        "pruned": (TrialState.PRUNED, {"marker": "o", "facecolors": "none", "edgecolors": WRONG}),
        "failed": (TrialState.FAIL, {"marker": "x", "color": WRONG}),
    }
    for name, (state, style) in kinds.items():
        shown = [(place, last_score(t)) for place, t in zip(places, trials, strict=True) if t.state == state]
        inside = [(x, y) for x, y in shown if state != TrialState.FAIL and y is not None and y >= floor]
        below = [x for x, y in shown if state == TrialState.FAIL or y is None or y < floor]
        if inside or (below and state == TrialState.FAIL):
            points = inside if state != TrialState.FAIL else [(x, floor) for x in below]
            axes.scatter(*zip(*points, strict=True), s=22, label=name, zorder=3, clip_on=False, **style)
        if below and state != TrialState.FAIL:
            label = f"{name}, lower"
            arrows = {**style, "marker": "v"}
            axes.scatter(below, [floor] * len(below), s=22, label=label, zorder=3, clip_on=False, **arrows)
    axes.set_ylim(bottom=floor)


def _label(value: object) -> str:
    text = short(value)
    return text if len(text) <= 12 else f"{text[:11]}…"


def _plain(axes: Any, *, grid: Any) -> None:
    axes.grid(axis=grid, color="#000000", alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
