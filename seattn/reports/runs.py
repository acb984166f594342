"""The runs of a report: their folders, the images that they are scored on, and groups of runs of one recipe.

Shapes: N images, K classes, R runs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seattn.core.errors import UserError, counted
from seattn.core.files import not_found
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.records import parse, read_json
from seattn.core.rows import AccuracyRow
from seattn.data.folders.files import list_files
from seattn.data.folders.own_splits import DATA, images_of_runs
from seattn.data.folders.splits import find_split, has_split
from seattn.data.images import FileSet, ImageSet, cifar_folder, hold_out, leave_out_unreadable, load_cifar
from seattn.evaluation.scoring import Evaluation, FloatArray, Scores, score_images
from seattn.models.load import CONFIG, DIR_PREFIX, WEIGHTS, load_model
from seattn.training.run_dir import Row, read_summary, shipped

COLUMNS = ("epoch", "train_loss", "eval_loss", "eval_top1", "lr")  # of summary.csv that a report needs
_MAPPING_KEYS = ("seattn.class_weights",)  # keys of a recipe whose value may be a mapping, which is shown as one value


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One run; `history` has one row for each epoch, `result` is None until the run is finished."""

    path: Path
    recipe: Recipe
    history: tuple[Row, ...]
    result: AccuracyRow | None
    has_weights: bool

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def planned(self) -> int:
        """The number of epochs in the recipe."""
        return self.recipe.run_epochs

    @property
    def exported(self) -> Row | None:
        """The row of the epoch whose weights the run exported; None if there are no weights."""
        return shipped(self.history, self.recipe.seattn.early_stop) if self.has_weights else None

    @property
    def holds_out(self) -> bool:
        """Whether the run measured an accuracy on held-out images; recipes with `holdout: 0` do not."""
        return not math.isnan(self.history[-1]["eval_top1"])

    @property
    def tested(self) -> AccuracyRow | None:
        """The result on the test split; None if the run has none."""
        return self.result if self.result is not None and self.result.split == "test" else None

    @property
    def seconds(self) -> float | None:
        """Time in training steps; None where the log has no times."""
        times = [row["train_seconds"] for row in self.history if "train_seconds" in row]
        return sum(times) if len(times) == len(self.history) else None


def read_run(path: Path) -> FinishedRun:
    """The run in the folder `path`, which need not be finished.

    Raises:
        UserError: if a file is missing or damaged; the message names the file.
    """
    if not path.is_dir():
        raise UserError(
            f"{not_found('run folder', path)}; give the --out folder of `seattn train` or `seattn finetune`"
        )
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"{path} has no recipe.yaml: it is not a folder of `seattn train` or `seattn finetune`")
    recipe = load_recipe(path / "recipe.yaml")
    has_weights = (path / WEIGHTS).is_file() and (path / CONFIG).is_file()
    return FinishedRun(path, recipe, _history(path / "summary.csv"), _result(path / "result.json"), has_weights)


def _history(path: Path) -> tuple[Row, ...]:
    history = read_summary(path.parent)
    if not history:
        raise UserError(f"{path} has no epoch: the run has not finished its first epoch, or this is not its log")
    missing = [name for name in COLUMNS if name not in history[0]]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; it should be the log of `seattn train`")
    return tuple(history)


def _result(path: Path) -> AccuracyRow | None:
    if not path.exists():
        return None
    return parse(AccuracyRow, read_json(path), path)


def differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The keys, dotted, in which recipes differ, with the value of each recipe; `seed` does not count."""
    flat = [dict(_flat(recipe.to_dict())) for recipe in recipes]
    keys = dict.fromkeys(key for values in flat for key in values if key != "seed")
    by_key = {key: [values.get(key) for values in flat] for key in keys}
    return {key: values for key, values in by_key.items() if any(value != values[0] for value in values)}


def changed_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe, dotted, that differ from their defaults; and always model, lr and seed."""
    defaults = dict(_flat(Recipe(model=recipe.model, lr=recipe.lr).to_dict()))
    values = dict(_flat(recipe.to_dict()))
    return {key: value for key, value in values.items() if key in ("model", "lr", "seed") or value != defaults.get(key)}


def _flat(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict) and prefix + key not in _MAPPING_KEYS:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


SPLITS = ("held-out", "validation", "test")
_SAME = 0.005  # accuracies of the same net on the same images differ by less, whatever the hardware


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images; `description` says in words which images."""

    description: str
    images: FileSet | ImageSet


def open_split(runs: Sequence[FinishedRun], data_dir: Path, split: str) -> Split:
    """The images that all `runs` are scored on.

    Args:
        split: "held-out" for the images that the runs chose by: the validation folder where there is one, otherwise the
            part of train that the recipes hold out; "validation" or "test" for one of these folders.
        data_dir: the images that the runs were trained on; if it has no such split, but the runs made the same splits
            of it, these are used.

    Raises:
        UserError: if the split does not exist, or the runs held out different images or none.
    """
    if split not in SPLITS:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}")
    made = [run.path / DATA for run in runs]
    data_dir = images_of_runs(made, data_dir, "validation" if split == "held-out" else split)
    has_validation_folder = cifar_folder(data_dir) is None and has_split(data_dir, "validation")
    if split == "held-out" and not has_validation_folder:
        return _held_out_part(runs, data_dir)
    name = "validation" if split == "held-out" else split
    images = _read_split(data_dir, name)
    return Split(f"{counted(len(images), 'image')}: the {name} split in {data_dir}", images)


def _held_out_part(runs: Sequence[FinishedRun], data_dir: Path) -> Split:
    first = runs[0].recipe.seattn
    for run in runs[1:]:
        other = run.recipe.seattn
        if (other.holdout, other.holdout_seed) != (first.holdout, first.holdout_seed):
            raise UserError(
                f"{run.path} held out other images (seattn.holdout {other.holdout:g}, holdout_seed "
                f"{other.holdout_seed}) than {runs[0].path} ({first.holdout:g}, {first.holdout_seed}): one run may "
                "have trained on images that the other is scored on; report the runs one by one, or on --split test"
            )
    if first.holdout == 0:
        raise UserError(f"{runs[0].path} was trained on all images, no images were held out; give --split test")
    whole = _read_split(data_dir, "train")
    result = runs[0].result
    if result is not None and isinstance(whole, FileSet) and len(whole) != result.train_images + result.held_out_images:
        whole = leave_out_unreadable(whole, "train")  # as a run with --skip-bad did before it held images out
    _, images = hold_out(whole, first.holdout, first.holdout_seed)
    return Split(
        f"{counted(len(images), 'image')}: {first.holdout:.0%} of the train split in {data_dir}, held out by seed "
        f"{first.holdout_seed}",
        images,
    )


def _read_split(data_dir: Path, name: str) -> FileSet | ImageSet:
    return list_files(find_split(data_dir, name)) if cifar_folder(data_dir) is None else load_cifar(data_dir, name)


def score_run(run: FinishedRun, split: Split, device: str, *, progress: str = "") -> Scores:
    """Run the exported net on every image of the split.

    Args:
        progress: the description of a progress bar; "" shows none.

    Raises:
        UserError: if the net cannot be loaded, or its classes are not those of the images.
    """
    model = load_model(f"{DIR_PREFIX}{run.path}", device=device)
    return score_images(model, as_trained(run, split.images), progress=progress)


def as_trained(run: FinishedRun, images: FileSet | ImageSet) -> FileSet | ImageSet:
    """The images with the run's own choice about EXIF orientation."""
    return replace(images, exif=run.recipe.seattn.exif) if isinstance(images, FileSet) else images


def check_held_out(run: FinishedRun, evaluation: Evaluation) -> str:
    """A warning if the images are not those that the run held out, as far as its own numbers show; otherwise "".

    Raises:
        UserError: if the run held out another number of images.
    """
    if run.result is not None and run.result.held_out_images != evaluation.n:
        raise UserError(
            f"{run.path} held out {run.result.held_out_images} images, the data folder gives {evaluation.n}: it is not "
            "what the run was trained on; give that folder, or --split test"
        )
    logged = run.exported
    if logged is None or math.isnan(logged["eval_top1"]):
        return ""
    if abs(logged["eval_top1"] / 100 - evaluation.top1) <= _SAME + 1 / evaluation.n:
        return ""
    return (
        f"The run's own log says {logged['eval_top1']:.2f} % on the images that it held out, here the accuracy is "
        f"{evaluation.top1:.2%}: these may be other images, or other weights."
    )


def check_comparable(scores: Sequence[Scores], runs: Sequence[FinishedRun]) -> None:
    """Raise UserError unless all scores are of the same classes in the same order."""
    for run, score in zip(runs[1:], scores[1:], strict=True):
        if score.evaluation.class_names != scores[0].evaluation.class_names:
            raise UserError(
                f"{run.path} and {runs[0].path} have different classes, or the classes in another order: the runs "
                "cannot be compared"
            )


_NAMED = 2  # changed keys that a label names


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs of one recipe with different seeds; `scores` are those of the runs with weights, in order."""

    label: str
    runs: tuple[FinishedRun, ...]
    scores: tuple[Scores, ...] = ()

    @property
    def confusion(self) -> FloatArray:
        """(K, K) counts by [true][predicted], mean over the runs."""
        return np.asarray(np.mean([score.evaluation.confusion for score in self.scores], axis=0))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(R, N): whether each of R scored runs is right on each image."""
        return np.stack([score.correct for score in self.scores])

    @property
    def top1s(self) -> list[float]:
        """The accuracy of each scored run."""
        return [score.evaluation.top1 for score in self.scores]

    @property
    def test_top1s(self) -> list[float]:
        """The recorded test accuracy of each run that has one."""
        return [run.tested.top1 for run in self.runs if run.tested is not None]

    @property
    def scored(self) -> list[FinishedRun]:
        """The runs with weights."""
        return [run for run in self.runs if run.has_weights]


def group_runs(runs: Sequence[FinishedRun], labels: Sequence[str] | None) -> list[RunGroup]:
    """Groups of runs of one recipe, in the order of their first runs; other groups are compared with the first.

    A second run with the same recipe and seed starts a new group: something else has changed between the two.

    Args:
        labels: the names of the groups. By default these are the models, if each group has its own; otherwise the
            folder for the first group, and the changed keys for the others.

    Raises:
        UserError: if a folder is given twice, the runs are of different data sets, or the labels do not fit.
    """
    _check(runs)
    groups: list[list[FinishedRun]] = []
    for run in runs:
        group = next((group for group in groups if _same_but_for_seed(run, group)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    if labels is None:
        labels = _default_labels(groups)
    elif len(labels) != len(groups) or len(set(labels)) < len(labels) or not all(labels):
        names = ", ".join(" and ".join(run.name for run in group) for group in groups)
        raise UserError(
            f"--labels must be {len(groups)} different names, one for each recipe ({names}); got {','.join(labels)!r}"
        )
    return [RunGroup(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def _check(runs: Sequence[FinishedRun]) -> None:
    seen = set()
    for run in runs:
        if (path := run.path.resolve()) in seen:
            raise UserError(f"{run.path} is given twice")
        seen.add(path)
        dataset, first = run.recipe.seattn.dataset, runs[0].recipe.seattn.dataset
        if dataset != first:
            raise UserError(
                f"{run.path} was trained on {dataset or 'data without a name'}, {runs[0].path} on "
                f"{first or 'data without a name'} (seattn.dataset): give runs on the same data"
            )


def _same_but_for_seed(run: FinishedRun, group: Sequence[FinishedRun]) -> bool:
    alike = replace(run.recipe, seed=0) == replace(group[0].recipe, seed=0)
    return alike and run.recipe.seed not in {other.recipe.seed for other in group}


def _default_labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
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
    if len(set(labels)) < len(labels):  # folders with the same name in different places
        labels = [str(group[0].path) for group in groups]
    return labels


def _stem(group: Sequence[FinishedRun]) -> str:
    name = group[0].name
    return name.removesuffix(f"-s{group[0].recipe.seed}") if len(group) > 1 else name


def value_text(value: Any) -> str:
    """A value of a recipe in words: {"cat": 2.0} is "cat 2", None is "none"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(item)}" for key, item in value.items()) or "none"
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text or "none"
