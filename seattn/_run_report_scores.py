"""Runs scored on images: which images a split is, read once, and what each run's net makes of them.

Shapes: N images, K classes, H x W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from seattn._image_set import FileSet, ImageSet, cifar_folder, hold_out, read_rgb
from seattn._report_images import batches_as_seen
from seattn._run_report_read import Run
from seattn._splits import find_split, has_split, list_files
from seattn.data import load_split
from seattn.errors import UserError
from seattn.evaluate import Evaluation, FloatArray, IntArray, match_classes, predict_logits, summarize
from seattn.load import DIR_PREFIX, load_model

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


def open_split(runs: Sequence[Run], data_dir: Path, split: str) -> Split:
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
            yield from map(read_rgb, images.paths)
        else:
            yield from map(Image.fromarray, images.images.numpy())

    return Split(f"{len(images):,} images: {what}", images.labels.numpy(), images.class_names, read)


def score_run(run: Run, split: Split, device: str) -> Scores:
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


def check_held_out(run: Run, scores: Scores) -> str:
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


def check_comparable(scores: Sequence[Scores], runs: Sequence[Run]) -> None:
    """Raise UserError unless all scores are of the same classes in the same order."""
    for run, score in zip(runs[1:], scores[1:], strict=True):
        if score.evaluation.class_names != scores[0].evaluation.class_names:
            raise UserError(f"{run.path} and {runs[0].path} have other classes, or in another order: nothing compares")
