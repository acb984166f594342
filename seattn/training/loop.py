"""The visible loop behind `seattn.training.train`: epochs from where the run stands, then the last score.

timm's optimizers, schedulers, mixing, weight averaging and checkpoints. All randomness of an epoch comes from
(seed, epoch), so a run that was killed and resumed sees what the uninterrupted one would have seen.
"""

import logging
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import load_checkpoint, resume_checkpoint
from timm.utils import ModelEmaV3

from seattn.core.device import autocast_dtype
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow, conditions
from seattn.data.open import EvalSplit, open_data
from seattn.data.transforms import data_config
from seattn.evaluation.prediction import predict_logits
from seattn.evaluation.scoring import Evaluation, summarize
from seattn.training.build import (
    create_mixup,
    create_model,
    create_optimizer,
    create_schedule,
    create_teacher,
    head_recipe,
    only_classifier_learns,
    side_at,
)
from seattn.training.log import Clock, EpochLog, Rates, epoch_progress
from seattn.training.losses import Teacher, make_loss
from seattn.training.processes import Distributed
from seattn.training.run_dir import AtomicSaver, Row, RunDir, accuracy_row, is_stale
from seattn.training.update import Batch, Updater, check_finite

_logger = logging.getLogger("seattn")


class TrainingRun:
    """One process' part of a run: everything that the recipe names, made and checked, and then `run`."""

    def __init__(
        self,
        recipe: Recipe,
        data_dir: Path,
        path: Path,
        device: torch.device,
        processes: Distributed,
        *,
        skip_bad: bool,
    ) -> None:
        self.recipe, self.path, self.device, self.processes = recipe, path, device, processes
        self.log: EpochLog | None = None
        self.amp = autocast_dtype(recipe, device)
        torch.manual_seed(recipe.seed)
        self.model = create_model(recipe)
        self.data = open_data(
            *(recipe, data_dir, data_config(self.model), device),
            rank=processes.rank,
            world=processes.world,
            skip_bad=skip_bad,
        )
        self.classes = len(self.data.class_names)
        if self.classes != self.model.num_classes:
            outputs = self.model.num_classes
            raise UserError(
                f"{data_dir} has {self.classes} classes, the model {outputs}; set num_classes: {self.classes}"
            )
        self.batches = self.data.train.batches()
        if not self.batches:
            size, images = recipe.batch_size * processes.world, len(self.data.train)
            raise UserError(f"batch_size {size} is more than the {images} training images; lower it")

        self.model.to(device)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.ema = (
            ModelEmaV3(self.model, decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup)
            if recipe.model_ema
            else None
        )
        self.mixup = create_mixup(recipe, self.classes)
        self.teacher = self._create_teacher()
        self._prepare(recipe)

    def _prepare(self, recipe: Recipe) -> None:
        """Optimizer, schedule and update for the parameters that learn now."""
        self.updates = -(-self.batches // recipe.grad_accum_steps)  # of an epoch
        self.optimizer = create_optimizer(recipe, self.model)
        self.schedule, self.epochs = create_schedule(recipe, self.optimizer, self.updates)
        net = self.processes.wrap(self.model, self.device, sync_bn=recipe.sync_bn)
        if recipe.torchcompile is not None:
            net = torch.compile(net, backend=recipe.torchcompile)  # type: ignore[assignment]
        loss = make_loss(recipe, self.data.train.labels, self.data.class_names, self.teacher).to(self.device)
        self.update = Updater(
            *(net, self.optimizer, loss, self.device),
            amp=self.amp,
            clip_grad=recipe.clip_grad,
            clip_mode=recipe.clip_mode,
            sam_rho=recipe.seattn.sam_rho,
        )
        if self.processes.first:
            self.saver = AtomicSaver(
                self.model,
                self.optimizer,
                model_ema=self.ema,
                amp_scaler=self.update.scaler,
                checkpoint_dir=str(self.path),
                max_history=1,
            )

    def _create_teacher(self) -> Teacher | None:
        if self.recipe.kd_model_name is None:
            return None
        net = create_teacher(self.recipe, self.classes)
        return Teacher(net, self.recipe, self.model.pretrained_cfg).to(self.device)

    def run(
        self, run_dir: RunDir | None, *, read_test: bool, on_epoch: Callable[[Row], None] | None
    ) -> AccuracyRow | None:
        """All epochs from where the run stands, then the last score; `run_dir` in the first process."""
        ours, history = self.recipe.seattn, []
        measured_in = conditions(self.device)  # now, so that the commit is the one whose code trained
        start = self._resume()
        if run_dir is not None:
            run_dir.start(self.recipe)
            history, self.log = run_dir.read_summary(start), EpochLog(self.path, self.recipe)
            if history:
                self.saver.restore(history)
        end, head = self.epochs, ours.balanced_head_epochs
        for epoch in range(start, end + head):
            if self.processes.from_first(is_stale(history, ours.early_stop)):
                break
            if epoch == end and start <= end:
                self._begin_head()
            loss, rates = self._train_epoch(epoch)
            self.processes.share_norms(self.recipe.dist_bn, self.model, self.ema and self.ema.module)
            if run_dir is not None and self.log is not None:
                eval_loss, eval_top1 = self._held_out_scores()
                row = {
                    "epoch": epoch,
                    "train_loss": loss,
                    "eval_loss": eval_loss,
                    "eval_top1": eval_top1,
                    "lr": self.optimizer.param_groups[0]["lr"],
                    **rates.row(),
                }
                history.append(row)
                run_dir.write_summary(history)
                self.saver.save_checkpoint(epoch, metric=eval_top1 if len(self.data.held_out) else None)
                self.log.write(row)
                _logger.info(
                    "epoch %d/%d: train loss %.4f, held-out top-1 %s, %s",
                    *(epoch + 1, end + head, loss, self._in_words(eval_top1), rates),
                )
                if on_epoch is not None:
                    on_epoch(row)
        if run_dir is None:
            return None
        if ours.early_stop is not None:
            load_checkpoint(self.averaged, str(self.path / "model_best.pth.tar"), use_ema=self.ema is not None)
        run_dir.export(self.averaged, self.data.class_names)
        split = "test" if read_test else "held-out"
        scores = self._evaluate(self.data.test() if read_test else self.data.held_out)
        params = sum(p.numel() for p in self.model.parameters())
        images = len(self.data.train), len(self.data.held_out)
        dtype = str(self.amp or torch.float32).removeprefix("torch.")
        result = accuracy_row(self.recipe, split, scores, history, images, params, dtype, measured_in)
        run_dir.write_result(result)
        _logger.info(
            "%s top-1 %.2f %% (95 %% interval %.2f to %.2f, n = %d); weights, config and result in %s",
            *(split, 100 * result.top1, 100 * result.top1_low, 100 * result.top1_high, result.n, self.path),
        )
        return result

    @property
    def averaged(self) -> Any:
        """The net that is evaluated and shipped: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def _resume(self) -> int:
        """Load the last checkpoint, if there is one; the epoch to go on with."""
        path = self.path / "last.pth.tar"
        if not path.exists():
            return 0
        try:
            done = int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]) + 1
            if done > self.epochs:
                self._begin_head()
            resume_checkpoint(self.model, str(path), self.optimizer, self.update.scaler, log_info=False)
            if self.ema is not None:
                load_checkpoint(self.ema.module, str(path), use_ema=True)
        except Exception as error:  # a damaged pickle fails in any way whatever
            raise UserError(f"cannot resume from {path}: {str(error).splitlines()[0]}") from error
        _logger.info("resumed from %s after %d epochs", path, done)
        return done

    def _begin_head(self) -> None:
        """The second stage: the averaged net's classifier alone, on balanced batches, down a cosine."""
        self.model.load_state_dict(self.averaged.state_dict())
        self.ema = None
        only_classifier_learns(self.model)
        length = self.epochs
        self._prepare(head_recipe(self.recipe))
        self.epochs = length

    def _train_epoch(self, epoch: int) -> tuple[float, Rates]:
        recipe, in_head = self.recipe, epoch >= self.epochs
        # Nothing of an epoch depends on how it was reached; no two processes drop or mix alike.
        seed = ((recipe.seed * 100_003 + epoch) * 1_009 + self.processes.rank) % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)  # timm's Mixup draws from it
        self.model.train(not in_head)
        if self.mixup is not None:
            self.mixup.mixup_enabled = not recipe.mixup_off_epoch or epoch < recipe.mixup_off_epoch
        local = epoch - self.epochs if in_head else epoch  # of this stage
        self.schedule.step(local)
        losses = torch.zeros(self.updates, device=self.device)
        side = side_at(epoch, recipe.seattn.resize)
        clock = Clock(self.data.train.epoch(epoch, size=side, balanced=in_head or None))
        with epoch_progress(enabled=self.processes.first) as progress:
            last = self.epochs + recipe.seattn.balanced_head_epochs
            task = progress.add_task(f"epoch {epoch + 1}/{last}", total=self.updates, state="")
            for step, group in enumerate(clock.groups(recipe.grad_accum_steps)):
                update = local * self.updates + step
                self.schedule.step_update(update)
                losses[step] = self.update([self._mixed(batch) for batch in group])
                if self.ema is not None:
                    self.ema.update(self.model, step=update + 1)
                if self.device.type == "cpu" or step % 32 == 31:  # reading a loss waits for the device
                    check_finite(losses[: step + 1], epoch, recipe.lr, self.path)
                    seconds = clock.seconds / (step + 1)
                    left = timedelta(seconds=round(seconds * (self.epochs * self.updates - update - 1)))
                    state = f"{clock.rates(1)}, loss {losses[: step + 1].mean():.3f}, {left} left"
                    progress.update(task, completed=step + 1, state=state)
        check_finite(losses, epoch, recipe.lr, self.path)
        return self.processes.mean(losses.mean()), clock.rates(self.processes.world)

    def _mixed(self, batch: Batch) -> Batch:
        if self.mixup is None:
            return batch
        x, target = self.mixup(*batch)
        return x, target

    def _held_out_scores(self) -> tuple[float, float]:
        """Mean loss and top-1 in per cent of the images held out; NaN where the recipe holds out none."""
        if not len(self.data.held_out):
            return math.nan, math.nan
        scores = self._evaluate(self.data.held_out)
        return scores.loss, 100 * scores.top1

    def _in_words(self, top1: float) -> str:
        return f"{top1:.2f} %" if len(self.data.held_out) else "unknown (no image is held out)"

    def _evaluate(self, data: EvalSplit) -> Evaluation:
        """In fp32, as a user will run the net."""
        logits = predict_logits(self.averaged, data.in_order(), channels_last=self.recipe.channels_last)  # (N, K)
        return summarize(logits, data.labels, data.class_names)
