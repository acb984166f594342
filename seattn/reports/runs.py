"""Runs put together: those of one recipe and other seeds are one group; the first group is what others are against.

What a report reads of a run's folder: the resolved recipe, the log of epochs, the result; not yet the weights.

Runs scored on images: which images a split is, read once, and what each run's net makes of them.
Shapes: N images, K classes, H x W pixels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.records import parse, read_json
from seattn.core.rows import AccuracyRow
from seattn.data.folders import find_split, has_split, list_files
from seattn.data.images import FileSet, ImageSet, cifar_folder, hold_out, read_image
from seattn.data.open import load_split
from seattn.evaluation.prediction import batches_as_seen, predict_logits
from seattn.evaluation.scoring import Evaluation, FloatArray, IntArray, match_classes, summarize
from seattn.models.load import CONFIG, DIR_PREFIX, WEIGHTS, load_model
from seattn.training.run_dir import Row, read_summary, shipped

COLUMNS = ("epoch", "train_loss", "eval_loss", "eval_top1", "lr")  # of summary.csv, which has more
_VALUES = ("seattn.class_weights",)  # keys whose value may be a mapping, and is one value all the same


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One run; `history` has an epoch a row, `result` is None until the run is finished."""

    path: Path
    recipe: Recipe
    history: tuple[Row, ...]
    result: AccuracyRow | None
    has_weights: bool

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.resolve().name

    @property
    def planned(self) -> int:
        """Epochs that the recipe asks for."""
        return self.recipe.run_epochs

    @property
    def exported(self) -> Row | None:
        """The epoch whose weights the run left, if it left some."""
        return shipped(self.history, self.recipe.seattn.early_stop) if self.has_weights else None

    @property
    def seconds(self) -> float | None:
        """Spent in training steps; None where the log does not say."""
        times = [row["train_seconds"] for row in self.history if "train_seconds" in row]
        return sum(times) if len(times) == len(self.history) else None


def read_run(path: Path) -> FinishedRun:
    """The run in the folder `path`, finished or not.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    if not path.is_dir():
        raise UserError(f"no such run folder: {path}; give what `seattn train` or `seattn finetune` has as --out")
    if not (path / "recipe.yaml").is_file():
        raise UserError(f"{path} has no recipe.yaml: it is no folder of `seattn train` or `seattn finetune`")
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


def differences(recipes: list[Recipe]) -> dict[str, list[Any]]:
    """The keys in which recipes differ, dotted, with the value of each; seeds do not count."""
    flat = [dict(_flat(recipe.to_dict())) for recipe in recipes]
    keys = list(dict.fromkeys(key for one in flat for key in one if key != "seed"))
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def changed_keys(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe that differ from their defaults, dotted."""
    plain = dict(_flat(Recipe(model=recipe.model, lr=recipe.lr).to_dict()))
    own = dict(_flat(recipe.to_dict()))
    return {key: value for key, value in own.items() if key in ("model", "lr", "seed") or value != plain.get(key)}


def _flat(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict) and prefix + key not in _VALUES:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


SPLITS = ("held-out", "validation", "test")
_CIFAR_SIZE = (32, 32)
_SAME = 0.005  # accuracy that the log and the same images may differ by: other hardware, not other images


@dataclass(frozen=True, eq=False)
class Scores:
    """What one run's net makes of N images: pictures (N, H, W, 3) as it sees them, probabilities (N, K)."""

    evaluation: Evaluation
    labels: IntArray
    pictures: npt.NDArray[np.uint8]
    probabilities: FloatArray
    params: int

    @cached_property
    def predicted(self) -> IntArray:
        """(N,)."""
        found: IntArray = self.probabilities.argmax(1)
        return found

    @cached_property
    def confidence(self) -> FloatArray:
        """(N,)."""
        found: FloatArray = self.probabilities.max(1)
        return found

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,)."""
        right: npt.NDArray[np.bool_] = self.predicted == self.labels
        return right


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images, read when they are asked for; `what` says in words which."""

    what: str
    labels: IntArray
    class_names: tuple[str, ...]
    read: Callable[[], Iterator[Image.Image]]


def open_split(runs: Sequence[FinishedRun], data_dir: Path, split: str) -> Split:
    """The images that all `runs` are scored on.

    Args:
        split: "held-out" is what the runs chose by: the validation folder where there is one, else the part of train
            that their recipes hold out; "validation" and "test" are folders.

    Raises:
        UserError: if it is not there, or the runs held out different images.
    """
    if split not in SPLITS:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}")
    cifar = cifar_folder(data_dir)
    if not data_dir.is_dir():
        find_split(data_dir, "train")  # raises
    folder_of_its_own = split == "held-out" and cifar is None and has_split(data_dir, "validation")
    if split != "held-out" or folder_of_its_own:
        name = "validation" if folder_of_its_own else split
        if cifar is not None and name == "validation":
            raise UserError(f"{data_dir / cifar} has no validation split; use held-out or test")
        files = list_files(find_split(data_dir, name)) if cifar is None else load_split(data_dir, name, _CIFAR_SIZE)
        return _split(files, f"the {name} split in {data_dir}")
    ours = runs[0].recipe.seattn
    for run in runs[1:]:
        theirs = run.recipe.seattn
        if (theirs.holdout, theirs.holdout_seed) != (ours.holdout, ours.holdout_seed):
            raise UserError(
                f"{run.path} held out other images (seattn.holdout {theirs.holdout:g}, holdout_seed "
                f"{theirs.holdout_seed}) than {runs[0].path} ({ours.holdout:g}, {ours.holdout_seed}): the first may "
                "have trained on what the other is judged by; report them one by one, or on --split test"
            )
    if ours.holdout == 0:
        raise UserError(f"{runs[0].path} was trained on all images and held out none; give --split test")
    what = f"{ours.holdout:.0%} of the train split in {data_dir}, held out by seed {ours.holdout_seed}"
    if cifar is not None:
        return _split(hold_out(load_split(data_dir, "train", _CIFAR_SIZE), ours.holdout, ours.holdout_seed)[1], what)
    return _split(hold_out(list_files(find_split(data_dir, "train")), ours.holdout, ours.holdout_seed)[1], what)


def _split(images: FileSet | ImageSet, what: str) -> Split:
    def read() -> Iterator[Image.Image]:
        if isinstance(images, FileSet):
            yield from map(read_image, images.paths)
        else:
            yield from map(Image.fromarray, images.images.numpy())

    return Split(f"{len(images):,} images: {what}", images.labels.numpy(), images.class_names, read)


def score_run(run: FinishedRun, split: Split, device: str) -> Scores:
    """The net that the run left, on every image.

    Raises:
        UserError: if it cannot be loaded, or the classes are not those of the images.
    """
    model = load_model(f"{DIR_PREFIX}{run.path}", device=device)
    outputs, names = match_classes(split.class_names, model)
    labels = np.array(outputs)[split.labels]  # (N,)
    pictures: list[npt.NDArray[np.uint8]] = []
    logits = predict_logits(model, batches_as_seen(model, split.read(), pictures))  # (N, K)
    return Scores(
        evaluation=summarize(logits, labels, names),
        labels=labels,
        pictures=np.stack(pictures),
        probabilities=logits.double().softmax(1).numpy(),
        params=sum(parameter.numel() for parameter in model.parameters()),
    )


def check_held_out(run: FinishedRun, scores: Scores) -> str:
    """ "" if these are the images that the run held out, as far as its own numbers tell; else what differs.

    Raises:
        UserError: if there are more or fewer of them than the run says.
    """
    found = scores.evaluation
    if run.result is not None and run.result.held_out_images != found.n:
        raise UserError(
            f"{run.path} held out {run.result.held_out_images} images, the data folder gives {found.n}: it is not what "
            "the run was trained on; give that folder, or --split test"
        )
    logged = run.exported
    if logged is None or abs(logged["eval_top1"] / 100 - found.top1) <= _SAME + 1 / found.n:
        return ""
    return (
        f"The run's own log says {logged['eval_top1']:.2f} % on the images that it held out, here it is "
        f"{found.top1:.2%}: these may be other images, or other weights."
    )


def check_comparable(scores: Sequence[Scores], runs: Sequence[FinishedRun]) -> None:
    """Raise UserError unless all scores are of the same classes in the same order."""
    for run, score in zip(runs[1:], scores[1:], strict=True):
        if score.evaluation.class_names != scores[0].evaluation.class_names:
            raise UserError(f"{run.path} and {runs[0].path} have other classes, or in another order: nothing compares")


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
