"""The training loop: a recipe, a data folder, and at the end weights, their config and one honest row.

timm's optimizers, schedulers, weight averaging and checkpoints in one visible loop. All randomness of an epoch comes
from (seed, epoch), so a run that was killed and resumed sees what the uninterrupted one would have seen.
"""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, dispatch_clip_grad
from torch import nn

from seattn._memory_data import MemoryEval, MemoryTrain
from seattn._progress import epoch_progress
from seattn.data import ImageSet, has_split, hold_out, load_split
from seattn.errors import UserError
from seattn.evaluate import Evaluation, predict_logits, summarize
from seattn.load import HUB_ERRORS, check_name, torch_device
from seattn.recipe import Recipe, load_recipe
from seattn.rows import AccuracyRow, Conditions, conditions
from seattn.run_dir import AtomicSaver, RunDir

_logger = logging.getLogger("seattn")


def train(
    recipe_path: Path,
    data_dir: Path,
    out_dir: Path | None = None,
    *,
    resume: bool = False,
    device: str | None = None,
    overrides: Mapping[str, object] | None = None,
) -> AccuracyRow:
    """Train what the recipe says on `data_dir`, and read the test split once, at the end.

    Args:
        recipe_path: a file of `zoo_configs/`.
        data_dir: an image folder (train/<class>/<image>, test/…, validation/… optional) or torchvision's CIFAR files.
        out_dir: where the run's files go; `runs/<model>-s<seed>` by default.
        resume: continue the run in `out_dir` after its last finished epoch, if it has one.
        device: "cuda", "cpu", …; by default CUDA where there is one.
        overrides: recipe keys to replace.

    Raises:
        UserError: for a bad recipe, bad data, or an `out_dir` that cannot be used; nothing is half-written.
    """
    recipe = load_recipe(recipe_path, overrides)
    check_name(recipe.model)
    target = torch_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    for split in ("train", "test"):
        if not has_split(data_dir, split):
            load_split(data_dir, split, (1, 1))  # raises, and says what is missing
    run_dir = RunDir(out_dir or Path("runs") / f"{recipe.model}-s{recipe.seed}", recipe, resume=resume)
    try:
        run = _Run(recipe, data_dir, run_dir, target)
    except BaseException:
        run_dir.abandon()
        raise
    return run.run()


@dataclass(frozen=True)
class _Timing:
    images: int
    seconds: float


class _Run:
    def __init__(self, recipe: Recipe, data_dir: Path, run_dir: RunDir, device: torch.device) -> None:
        self.recipe, self.data_dir, self.run_dir, self.device = recipe, data_dir, run_dir, device
        torch.manual_seed(recipe.seed)
        self.model = self._create_model()
        cfg = self.model.pretrained_cfg
        self.size: tuple[int, int] = tuple(cfg["input_size"][1:])
        self.train_set, self.held_out = self._load_train()
        self._check_classes()
        self.batches = MemoryTrain(self.train_set, recipe, cfg, device)
        if not self.batches.batches():
            raise UserError(
                f"batch_size {recipe.batch_size} is more than the {len(self.train_set)} training images; lower it"
            )

        self.model.to(device)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.ema = (
            ModelEmaV3(self.model, decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup)
            if recipe.model_ema
            else None
        )
        self.optimizer = self._create_optimizer()
        self.scheduler, self.epochs = create_scheduler_v2(
            self.optimizer,
            sched=recipe.sched,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_lr=recipe.warmup_lr,
            warmup_prefix=recipe.warmup_prefix,
            min_lr=recipe.min_lr,
            decay_rate=recipe.decay_rate,
            decay_epochs=recipe.decay_epochs,
            decay_milestones=list(recipe.decay_milestones),
            cooldown_epochs=recipe.cooldown_epochs,
            step_on_epochs=not recipe.sched_on_updates,
            updates_per_epoch=self.batches.batches(),
        )
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
        self.saver = AtomicSaver(
            self.model, self.optimizer, model_ema=self.ema, checkpoint_dir=str(run_dir.path), max_history=1
        )

    def _create_model(self) -> Any:
        recipe = self.recipe
        # Left out where the recipe says nothing, so that the model's own default holds.
        given = {"num_classes": recipe.num_classes, "drop_path_rate": recipe.drop_path}
        kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        try:
            return timm.create_model(recipe.model, pretrained=recipe.pretrained, drop_rate=recipe.drop, **kwargs)
        except HUB_ERRORS as error:
            raise UserError(f"cannot load the weights of {recipe.model}: {str(error).splitlines()[0]}") from error

    def _create_optimizer(self) -> Any:
        recipe = self.recipe
        betas: dict[str, Any] = {} if recipe.opt_betas is None else {"betas": recipe.opt_betas}
        try:
            return create_optimizer_v2(
                self.model,
                recipe.opt,
                lr=recipe.lr,
                weight_decay=recipe.weight_decay,
                momentum=recipe.momentum,
                **betas,
            )
        except (ValueError, TypeError) as error:
            raise UserError(f"cannot make the optimizer {recipe.opt!r}: {str(error).splitlines()[0]}") from error

    def _load_train(self) -> tuple[ImageSet, ImageSet]:
        train = load_split(self.data_dir, "train", self.size)
        if has_split(self.data_dir, "validation"):
            return train, load_split(self.data_dir, "validation", self.size)
        return hold_out(train, self.recipe.seattn.holdout, self.recipe.seattn.holdout_seed)

    def _check_classes(self) -> None:
        found, outputs = len(self.train_set.class_names), self.model.num_classes
        if found != outputs:
            raise UserError(f"{self.data_dir} has {found} classes, the model {outputs}; set num_classes: {found}")
        if self.held_out.class_names != self.train_set.class_names:
            raise UserError(f"the train and validation splits of {self.data_dir} have different class folders")

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.recipe.amp else nullcontext()

    def run(self) -> AccuracyRow:
        self.run_dir.start(self.recipe)
        start = self._resume()
        history = self.run_dir.read_summary(start)
        if history:
            self.saver.restore(history)
        measured_in = conditions(self.device)  # now, so that the commit is the one whose code trained
        for epoch in range(start, self.epochs):
            loss, timing = self._train_epoch(epoch)
            held_out = self._evaluate(self.held_out)
            history.append(
                {
                    "epoch": epoch,
                    "train_loss": loss,
                    "eval_loss": held_out.loss,
                    "eval_top1": 100 * held_out.top1,
                    "lr": self.optimizer.param_groups[0]["lr"],
                    "images_per_second": timing.images / timing.seconds,
                    "train_seconds": timing.seconds,
                }
            )
            self.run_dir.write_summary(history)
            self.saver.save_checkpoint(epoch, metric=100 * held_out.top1)
            _logger.info(
                "epoch %d/%d: train loss %.4f, held-out top-1 %.2f %%, %.0f images/s",
                *(epoch + 1, self.epochs, loss, 100 * held_out.top1, timing.images / timing.seconds),
            )
        self.run_dir.export(self.averaged, self.train_set.class_names)
        row = self._final_row(history, measured_in)
        self.run_dir.write_result(row)
        _logger.info(
            "test top-1 %.2f %% (95 %% interval %.2f to %.2f, n = %d); weights, config and result in %s",
            *(100 * row.top1, 100 * row.top1_low, 100 * row.top1_high, row.n, self.run_dir.path),
        )
        return row

    @property
    def averaged(self) -> Any:
        """The net that is evaluated and shipped: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def _resume(self) -> int:
        """Load the last checkpoint, if there is one; the epoch to go on with."""
        path = str(self.run_dir.checkpoint)
        if not self.run_dir.checkpoint.exists():
            return 0
        try:
            epoch = resume_checkpoint(self.model, path, self.optimizer, log_info=False) or 0
            if self.ema is not None:
                load_checkpoint(self.ema.module, path, use_ema=True)
        except (RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
            raise UserError(f"cannot resume from {path}: {str(error).splitlines()[0]}") from error
        _logger.info("resumed from %s after %d of %d epochs", path, epoch, self.epochs)
        return epoch

    def _train_epoch(self, epoch: int) -> tuple[float, _Timing]:
        recipe, steps = self.recipe, self.batches.batches()
        # One stream an epoch for the data and one for dropout: nothing of an epoch depends on how it was reached.
        torch.manual_seed(recipe.seed * 100_003 + epoch)
        self.model.train()
        meter = AverageMeter()
        self.scheduler.step(epoch)
        started = time.perf_counter()
        with epoch_progress() as progress:
            task = progress.add_task(f"epoch {epoch + 1}/{self.epochs}", total=steps, state="")
            for step, (x, target) in enumerate(self.batches.epoch(epoch)):
                update = epoch * steps + step
                self.scheduler.step_update(update)
                loss = self._step(x, target)
                if not math.isfinite(loss):
                    raise UserError(
                        f"the loss became {loss} at step {step} of epoch {epoch}; lower lr (now {recipe.lr}) and "
                        f"continue from the last good epoch in {self.run_dir.path} or start again"
                    )
                if self.ema is not None:
                    self.ema.update(self.model, step=update + 1)
                meter.update(loss, len(target))
                seconds_a_step = (time.perf_counter() - started) / (step + 1)
                left = timedelta(seconds=round(seconds_a_step * (self.epochs * steps - update - 1)))
                rate = f"{recipe.batch_size / seconds_a_step:.0f} images/s"
                progress.update(task, advance=1, state=f"{rate}, loss {meter.avg:.3f}, {left} left of the run")
        return meter.avg, _Timing(steps * recipe.batch_size, time.perf_counter() - started)

    def _step(self, x: torch.Tensor, target: torch.Tensor) -> float:
        self.optimizer.zero_grad()
        with self._autocast():
            loss = self.loss(self.model(x), target)
        loss.backward()
        if self.recipe.clip_grad is not None:
            dispatch_clip_grad(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        return float(loss.item())

    def _evaluate(self, data: ImageSet) -> Evaluation:
        """In fp32, as a user will run the net."""
        batches = MemoryEval(data, self.recipe.batch_size, self.model.pretrained_cfg, self.device)
        logits = predict_logits(self.averaged, batches.in_order(), channels_last=self.recipe.channels_last)  # (N, K)
        return summarize(logits, data.labels, data.class_names)

    def _final_row(self, history: list[dict[str, float]], measured_in: Conditions) -> AccuracyRow:
        test_set = load_split(self.data_dir, "test", self.size)
        if test_set.class_names != self.train_set.class_names:
            raise UserError(f"the train and test splits of {self.data_dir} have different class folders")
        test = self._evaluate(test_set)
        return AccuracyRow(
            name=self.recipe.model,
            dataset=self.recipe.seattn.dataset,
            split="test",
            n=test.n,
            top1=test.top1,
            top1_low=test.top1_low,
            top1_high=test.top1_high,
            top5=test.top5,
            loss=test.loss,
            ece=test.ece,
            seed=self.recipe.seed,
            epochs=self.epochs,
            train_images=len(self.train_set),
            held_out_images=len(self.held_out),
            held_out_top1=history[-1]["eval_top1"] / 100,
            params=sum(p.numel() for p in self.model.parameters()),
            train_seconds=sum(entry["train_seconds"] for entry in history),
            dtype="bfloat16" if self.recipe.amp else "float32",
            memory_format="channels_last" if self.recipe.channels_last else "contiguous",
            conditions=measured_in,
        )
