"""What a training run leaves behind: recipe, log, checkpoints, weights, result. Every file is whole or absent.

recipe.yaml       the resolved recipe
summary.csv       one row an epoch
last.pth.tar      timm's checkpoint, rewritten each epoch; model_best.pth.tar is the best of them on the held-out images
model.safetensors, config.json    the trained net as timm's "local-dir:" scheme loads it
result.json       the test split's row; a run that has it is finished

What a run's epochs say together: when to end early, which epoch's weights are shipped, and the run's one row.
"""

import csv
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import Timeout
from timm.utils import CheckpointSaver
from torch import nn

from seattn.core.errors import UserError, first_line
from seattn.core.files import atomic_path, folder_lock, require_writable, write_text
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.rows import AccuracyRow, Conditions
from seattn.models.checkpoints.folder import save_net

if TYPE_CHECKING:
    from seattn.evaluation.scoring import Evaluation


class AtomicSaver(CheckpointSaver):  # type: ignore[misc]  # timm's classes are untyped
    """timm's saver without its moments in which neither the old file nor the new one exists."""

    def _replace(self, src: str, dst: str) -> None:
        os.replace(src, dst)

    def _duplicate(self, src: str, dst: str) -> None:
        part = f"{dst}.part"
        super()._duplicate(src, part)
        os.replace(part, dst)

    def save_checkpoint(self, epoch: int, metric: float | None = None) -> Any:
        """timm's, in which a disk that is full is one line, and the last whole checkpoint stays.

        Raises:
            UserError: if the checkpoint cannot be written.
        """
        try:
            return super().save_checkpoint(epoch, metric)
        except (OSError, RuntimeError) as error:  # torch's zip writer raises the second
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UserError(
                f"cannot write the checkpoint of epoch {epoch} into {self.checkpoint_dir}: {reason}; make room and go "
                "on with --resume"
            ) from error

    def restore(self, history: Sequence[dict[str, float]]) -> None:
        """Take up after the epochs of `history`: timm before 1.0.31 forgets which checkpoint was the best."""
        if math.isnan(history[-1]["eval_top1"]):  # no image is held out, and no checkpoint is the best
            return
        best = max(history, key=lambda row: row["eval_top1"])
        self.best_epoch, self.best_metric = int(best["epoch"]), best["eval_top1"]
        path = os.path.join(self.checkpoint_dir, f"checkpoint-{self.best_epoch}{self.extension}")
        self.checkpoint_files = [(path, self.best_metric)]


class RunDir:
    """The folder of one run, locked against other processes until `close`; the lock ends with the process.

    Raises:
        UserError: if it cannot be written, if another process trains in it, or if it holds a run that this one would
            overwrite or does not continue.
    """

    def __init__(self, path: Path, recipe: Recipe, *, resume: bool) -> None:
        self.path = path
        self.checkpoint = path / "last.pth.tar"
        self._made = not path.exists()
        require_writable(path)
        self._lock = folder_lock(path)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"another process trains in {path}; wait until it ends, or give another --out") from None
        try:
            self._check(recipe, resume=resume)
        except UserError:
            self.close()
            raise

    def start(self, recipe: Recipe) -> None:
        """Put the resolved recipe there, unless it is there already."""
        if not self.checkpoint.exists():
            recipe.write(self.path / "recipe.yaml")

    def close(self) -> None:
        """Release the folder for other processes; remove it if the run left nothing in it."""
        lock = self.path / ".lock"
        if self._made and list(self.path.iterdir()) == [lock]:
            lock.unlink()
            self.path.rmdir()
        self._lock.release()

    def _check(self, recipe: Recipe, *, resume: bool) -> None:
        if (self.path / "result.json").exists():
            raise UserError(f"the run in {self.path} is finished; give another --out to train again")
        if not self.checkpoint.exists():
            return
        if not resume:
            raise UserError(f"{self.path} holds an unfinished run; continue it with --resume or give another --out")
        before = load_recipe(self.path / "recipe.yaml").to_dict()  # a key that is newer than the run: its default
        now = recipe.to_dict()
        changed = [key for key in now if before[key] != now[key]]
        if changed:
            raise UserError(
                f"{self.path} was started with another recipe (differs in {', '.join(changed)}); resume with the same "
                "one or give another --out"
            )

    def read_summary(self, epochs: int) -> list[dict[str, float]]:
        """The rows of the first `epochs` epochs."""
        return read_summary(self.path)[:epochs]

    def write_summary(self, rows: Sequence[dict[str, float]]) -> None:
        """All rows so far."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "summary.csv", text.getvalue())

    def export(self, model: nn.Module, class_names: Sequence[str]) -> None:
        """Write `model.safetensors` and `config.json`; `class_names` in the order of the outputs."""
        plain = deepcopy(model).cpu().to(memory_format=torch.contiguous_format)  # safetensors takes no other layout
        with tempfile.TemporaryDirectory(dir=self.path) as part:
            save_net(plain, Path(part), class_names)
            for name in ("model.safetensors", "config.json"):
                with atomic_path(self.path / name) as target:  # for the permissions that any other file gets
                    shutil.copyfile(Path(part) / name, target)

    def write_result(self, row: AccuracyRow) -> None:
        """The last file of a run."""
        result: dict[str, Any] = asdict(row)
        write_text(self.path / "result.json", json.dumps(result, indent=2) + "\n")


def read_summary(run_dir: Path) -> list[dict[str, float]]:
    """The rows of a run's summary.csv, one an epoch; none before the first has ended.

    Raises:
        UserError: if the file cannot be read or a line of it is damaged.
    """
    path = run_dir / "summary.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    history = []
    for line, row in enumerate(rows, 2):
        try:
            history.append({key: float(value) for key, value in row.items()})
        except (TypeError, ValueError) as error:  # a cut line has None for the values that are gone
            raise UserError(f"{path}, line {line} is damaged: it should be {len(row)} numbers") from error
    return history


Row = dict[str, float]


def is_stale(history: Sequence[Row], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no better held-out accuracy; never where patience is None."""
    return patience is not None and bool(history) and len(history) - 1 - _best(history) >= patience


def shipped(history: Sequence[Row], patience: int | None) -> Row:
    """The epoch whose weights are exported: the last, or with early stopping the best on the held-out images."""
    return history[-1] if patience is None else history[_best(history)]


def _best(history: Sequence[Row]) -> int:
    return max(range(len(history)), key=lambda i: history[i]["eval_top1"])


def accuracy_row(
    recipe: Recipe,
    split: str,
    scores: "Evaluation",
    history: Sequence[Row],
    images: tuple[int, int],
    params: int,
    dtype: str,
    measured_in: Conditions,
) -> AccuracyRow:
    """The row of a finished run, `scores` being those of `split`; `images` are those trained on and those held out."""
    last = shipped(history, recipe.seattn.early_stop)
    return AccuracyRow(
        name=recipe.model,
        dataset=recipe.seattn.dataset,
        split=split,
        n=scores.n,
        top1=scores.top1,
        top1_low=scores.top1_low,
        top1_high=scores.top1_high,
        top5=scores.top5,
        loss=scores.loss,
        ece=scores.ece,
        seed=recipe.seed,
        epochs=len(history),
        train_images=images[0],
        held_out_images=images[1],
        held_out_top1=last["eval_top1"] / 100 if images[1] else None,
        params=params,
        train_seconds=sum(row["train_seconds"] for row in history),
        dtype=dtype,
        memory_format="channels_last" if recipe.channels_last else "contiguous",
        conditions=measured_in,
    )
