"""Runs put together: those of one recipe and other seeds are one group; the first group is what others are against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seattn._run_report_read import FinishedRun, differences
from seattn._run_report_scores import Scores
from seattn.core.errors import UserError
from seattn.evaluation.scoring import FloatArray

_NAMED = 2  # changed keys that a label names


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one recipe; `scores` are of the runs that left weights, in their order, where images were given."""

    label: str
    runs: tuple[FinishedRun, ...]
    scores: tuple[Scores, ...] = ()

    @property
    def confusion(self) -> FloatArray:
        """(K, K) counts by [true][predicted], mean over the runs."""
        mean: FloatArray = np.mean([score.evaluation.confusion for score in self.scores], axis=0)
        return mean

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(R, N): whether each of R scored runs is right on each image."""
        return np.stack([score.correct for score in self.scores])

    @property
    def top1s(self) -> list[float]:
        """Of each scored run."""
        return [score.evaluation.top1 for score in self.scores]

    @property
    def scored(self) -> list[FinishedRun]:
        """The runs that `scores` are of."""
        return [run for run in self.runs if run.has_weights]


def group_runs(runs: Sequence[FinishedRun], labels: Sequence[str] | None) -> list[Group]:
    """Groups in the order of their first runs.

    A recipe and seed that comes twice starts a group of its own: it is a before and after of something else.

    Args:
        labels: what to call the groups; by default their models where each has its own, otherwise the first by its
            folder and others by the keys that they change.

    Raises:
        UserError: if a folder comes twice, the runs are of different data sets, or labels do not fit.
    """
    _check(runs)
    found: list[list[FinishedRun]] = []
    for run in runs:
        home = next((group for group in found if _same_but_for_seed(run, group)), None)
        if home is None:
            found.append([run])
        else:
            home.append(run)
    if labels is None:
        labels = _own_labels(found)
    elif len(labels) != len(found) or len(set(labels)) < len(labels) or not all(labels):
        names = ", ".join(" and ".join(run.name for run in group) for group in found)
        raise UserError(
            f"--labels must be {len(found)} different names, one for each recipe ({names}); got {','.join(labels)!r}"
        )
    return [Group(label, tuple(group)) for label, group in zip(labels, found, strict=True)]


def _check(runs: Sequence[FinishedRun]) -> None:
    seen = set()
    for run in runs:
        if (where := run.path.resolve()) in seen:
            raise UserError(f"{run.path} is given twice")
        seen.add(where)
        ours, first = run.recipe.seattn.dataset, runs[0].recipe.seattn.dataset
        if ours != first:
            raise UserError(
                f"{run.path} was trained on {ours or 'data without a name'}, {runs[0].path} on "
                f"{first or 'data without a name'} (seattn.dataset): give runs on the same data"
            )


def _same_but_for_seed(run: FinishedRun, group: Sequence[FinishedRun]) -> bool:
    alike = replace(run.recipe, seed=0) == replace(group[0].recipe, seed=0)
    return alike and run.recipe.seed not in {other.recipe.seed for other in group}


def _own_labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    recipes = [group[0].recipe for group in groups]
    models = [recipe.model for recipe in recipes]
    if len(models) > 1 and len(set(models)) == len(models):
        return models
    labels = [_stem(groups[0])]
    for group in groups[1:]:
        changed = [
            f"{key.removeprefix('seattn.')}={value_text(now)}"
            for key, (_, now) in differences([recipes[0], group[0].recipe]).items()
        ]
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        labels.append(", ".join(changed[:_NAMED]) + more if changed else _stem(group))
    if len(set(labels)) < len(labels):
        labels = [_stem(group) for group in groups]
    if len(set(labels)) < len(labels):  # folders of one name in different places
        labels = [str(group[0].path) for group in groups]
    return labels


def _stem(group: Sequence[FinishedRun]) -> str:
    name = group[0].name
    return name.removesuffix(f"-s{group[0].recipe.seed}") if len(group) > 1 else name


def value_text(value: Any) -> str:
    """A recipe's value for people: {"cat": 2.0} is "cat 2", nothing "none"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(one)}" for key, one in value.items()) or "none"
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text or "none"
