"""The folder of a training run: recipe, log, checkpoints, weights, result. Every file is whole or absent.

recipe.yaml       the resolved recipe
summary.csv       one row an epoch
last.pth.tar      timm's checkpoint, rewritten each epoch; model_best.pth.tar is the best of them on the held-out images
model.safetensors, config.json    the trained net as timm's "local-dir:" scheme loads it
result.json       the test split's row; a run that has it is finished
"""

import csv
import difflib
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
from typing import Any

import torch
from filelock import Timeout
from safetensors import SafetensorError
from timm.utils import CheckpointSaver
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import atomic_path, folder_lock, require_writable, system_reason, write_text
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.records import csv_text, read_text
from seattn.core.rows import AccuracyRow
from seattn.models.checkpoints.folder import save_net

Row = dict[str, float]  # an epoch's numbers, by the column of summary.csv


class AtomicSaver(CheckpointSaver):  # type: ignore[misc]  # timm's classes are untyped
    """timm's saver; at every moment the old file or the new one exists."""

    def _replace(self, src: str, dst: str) -> None:
        os.replace(src, dst)

    def _duplicate(self, src: str, dst: str) -> None:
        part = f"{dst}.part"
        super()._duplicate(src, part)
        os.replace(part, dst)

    def save_checkpoint(self, epoch: int, metric: float | None = None) -> Any:
        """Write the checkpoint of an epoch, counted from 0; on a full disk the last whole checkpoint stays.

        Raises:
            UserError: if the checkpoint cannot be written.
        """
        try:
            return super().save_checkpoint(epoch, metric)
        except (OSError, RuntimeError) as error:
            Path(self.checkpoint_dir, f"tmp{self.extension}").unlink(missing_ok=True)
            # torch's writer of zip files raises RuntimeError, whose message is about positions in the file
            reason = error.strerror if isinstance(error, OSError) else "the disk is full or has an error"
            place = f"the checkpoint of epoch {epoch + 1} into {self.checkpoint_dir}"
            raise UserError(f"cannot write {place}: {reason}; make room and resume with --resume") from error

    def restore(self, history: Sequence[Row]) -> None:
        """Continue after the epochs of `history`: timm before 1.0.31 forgets which checkpoint was the best."""
        if math.isnan(history[-1]["eval_top1"]):  # no image is held out, and no checkpoint is the best
            return
        best = max(history, key=lambda row: row["eval_top1"])
        self.best_epoch, self.best_metric = int(best["epoch"]), best["eval_top1"]
        path = os.path.join(self.checkpoint_dir, f"checkpoint-{self.best_epoch}{self.extension}")
        self.checkpoint_files = [(path, self.best_metric)]


class RunDir:
    """The folder of one run, locked against other processes until `close`; the lock ends with the process.

    Raises:
        UserError: if the folder cannot be written, if another process trains in it, or if it holds a run that this run
            would overwrite or does not continue.
    """

    def __init__(self, path: Path, recipe: Recipe, *, resume: bool) -> None:
        self.path = path
        self.checkpoint = path / "last.pth.tar"
        self._is_longer = False  # whether the recipe has more epochs than that of the interrupted or finished run
        if resume and not path.exists():
            raise no_run(path)
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
        """Write the resolved recipe, unless the run has one already with as many epochs."""
        if self._is_longer or not self.checkpoint.exists():
            (self.path / "result.json").unlink(missing_ok=True)
            recipe.write(self.path / "recipe.yaml")

    def close(self) -> None:
        """Release the folder for other processes; remove it if the run left nothing in it."""
        lock = self.path / ".lock"
        if self._made and list(self.path.iterdir()) == [lock]:
            lock.unlink()
            self.path.resolve().rmdir()
        self._lock.release()

    def _check(self, recipe: Recipe, *, resume: bool) -> None:
        finished = (self.path / "result.json").exists()
        if not self.checkpoint.exists():
            if finished:
                raise UserError(f"the run in {self.path} is finished; give another --out to train again")
            if resume and not (self.path / "recipe.yaml").exists():
                raise no_run(self.path)
            return
        if not (resume or finished):
            raise UserError(f"{self.path} holds an unfinished run; continue it with --resume or give another --out")
        # A key that is newer than the run has its default in `before`.
        before = load_recipe(self.path / "recipe.yaml")
        changed = _changed_keys(before, recipe)
        # timm's schedules depend on the number of epochs alone: the learning rate continues on the longer schedule.
        self._is_longer = resume and set(changed) == {"epochs"} and recipe.epochs > before.epochs
        if finished and not self._is_longer:
            raise UserError(
                f"the run in {self.path} is finished, with epochs: {before.epochs}; give another --out to train again, "
                "or --resume with more --epochs to train it longer"
            )
        if self._is_longer and before.seattn.balanced_head_epochs:
            raise UserError(f"{self.path} ends with balanced_head_epochs, after which no other epochs can follow")
        if self._is_longer and is_stale(read_summary(self.path), recipe.seattn.early_stop):
            raise UserError(
                f"the run in {self.path} stopped early, by seattn.early_stop: {recipe.seattn.early_stop}: no more "
                "would be trained; give another --out, with a larger seattn.early_stop"
            )
        if changed and not self._is_longer:
            raise UserError(
                f"{self.path} was started with another recipe (differs in {', '.join(changed)}); resume with the same "
                "one or give another --out"
            )

    def write_summary(self, rows: Sequence[Row]) -> None:
        """Write the rows of all epochs until now."""
        columns = list(rows[0])
        write_text(self.path / "summary.csv", csv_text([columns, *([row[name] for name in columns] for row in rows)]))

    def export(self, model: nn.Module, class_names: Sequence[str]) -> None:
        """Write `model.safetensors` and `config.json`; `class_names` in the order of the outputs."""
        plain = deepcopy(model).cpu().to(memory_format=torch.contiguous_format)  # safetensors takes no other layout
        try:
            with tempfile.TemporaryDirectory(dir=self.path) as part:
                save_net(plain, Path(part), class_names)
                for name in ("model.safetensors", "config.json"):
                    with atomic_path(self.path / name) as target:  # for the permissions that any other file gets
                        shutil.copyfile(Path(part) / name, target)
        except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
            reason = system_reason(error)
            raise UserError(f"cannot write the weights into {self.path}: {reason}; make room and --resume") from error

    def write_result(self, row: AccuracyRow) -> None:
        """Write result.json, the last file of a run."""
        write_text(self.path / "result.json", json.dumps(asdict(row), indent=2) + "\n")


def _changed_keys(before: Recipe, now: Recipe) -> list[str]:
    """The dotted keys in which two recipes differ."""
    old, new = before.to_dict(), now.to_dict()
    ours, new_ours = old.pop("seattn"), new.pop("seattn")
    return [key for key in new if old[key] != new[key]] + [
        f"seattn.{key}" for key in ours if ours[key] != new_ours[key]
    ]


def no_run(path: Path) -> UserError:
    """The error that `path` holds no run to resume; it names up to three runs near it."""
    found = {folder.parent for place in {path, path.parent, Path("runs")} for folder in place.glob("*/recipe.yaml")}
    runs = [str(folder) for folder in sorted(found) if (folder / "last.pth.tar").exists()]
    near = difflib.get_close_matches(str(path), runs, n=3, cutoff=0.0)
    hint = f"runs near it: {', '.join(near)}" if near else "no run is near it"
    return UserError(f"{path} holds no run to resume; {hint}; omit --resume to start a new run")


def read_summary(run_dir: Path) -> list[Row]:
    """The rows of a run's summary.csv, one for each epoch; none before the first epoch has ended.

    Raises:
        UserError: if the file cannot be read or a line of it is damaged.
    """
    path = run_dir / "summary.csv"
    if not path.exists():
        return []
    history: list[Row] = []
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            history.append({key: float(value) for key, value in row.items()})
    except (TypeError, ValueError, csv.Error) as error:  # a cut line has None in place of its last values
        numbers = len(reader.fieldnames or ())
        raise UserError(f"{path}, line {reader.line_num} is damaged: it should be {numbers} numbers") from error
    return history


def is_stale(history: Sequence[Row], patience: int | None) -> bool:
    """Whether the last `patience` epochs brought no better held-out accuracy; never where patience is None."""
    return patience is not None and bool(history) and len(history) - 1 - _best(history) >= patience


def shipped(history: Sequence[Row], patience: int | None) -> Row:
    """The epoch whose weights are exported: the last, or with early stopping the best on the held-out images."""
    return history[-1] if patience is None else history[_best(history)]


def _best(history: Sequence[Row]) -> int:
    return max(range(len(history)), key=lambda i: history[i]["eval_top1"])
