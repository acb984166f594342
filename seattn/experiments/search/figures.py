"""The figures of a search, drawn by Optuna: scores by trial, scores by the value of each key, and which keys matter."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances, plot_slice

from seattn.core.files import write_bytes
from seattn.experiments.search.results import ranked
from seattn.experiments.search.space import Search

ENOUGH = 10  # complete trials; a forest that is fitted to fewer tells nothing
_SCORE = "held-out top-1, %"
_STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "figure.constrained_layout.use": True, "svg.hashsalt": "seattn"}
_logger = logging.getLogger("seattn")


def write_figures(out: Path, search: Search, study: optuna.Study) -> None:
    """Write history, slices and importance as .png and .svg; a line in the log says which need more trials."""
    complete = ranked(study.get_trials(deepcopy=False))
    if not complete:
        _logger.info("no figures yet: no trial is complete")
        return
    keys = list(search.space)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one value has no range to draw
        _write(out / "history", plot_optimization_history(study, target_name=_SCORE))
        slices: Any = plot_slice(study, params=keys, target_name=_SCORE)
        for axes in np.ravel(slices):
            _label_values(axes, search.space[axes.get_xlabel()].distribution)
        _write(out / "slices", slices)
        if len(complete) < ENOUGH:
            _logger.info("no importance yet: this takes %d complete trials, there are %d", ENOUGH, len(complete))
        elif len({trial.value for trial in complete}) == 1:
            _logger.info("no importance: all complete trials have the same score")
        else:
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            _write(out / "importance", plot_param_importances(study, evaluator=evaluator, params=keys))


def _write(stem: Path, axes: Any) -> None:
    figure = np.ravel(axes)[0].figure
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        write_bytes(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue())
    plt.close(figure)


def _label_values(axes: Any, distribution: BaseDistribution) -> None:
    """Label few round values on a logarithmic axis, and leave room for the names at the ends of an axis of choices."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif isinstance(distribution, CategoricalDistribution):
        axes.set_xlim(low - 0.3, high + 0.3)
