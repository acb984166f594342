"""The training loop: the epochs that a run has not finished yet, then the final score.

It uses timm's optimizers, schedulers, mixing, weight averaging and checkpoints. All randomness of an epoch comes from
(seed, epoch), so a run that was killed and resumed draws the same numbers as an uninterrupted run.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import load_checkpoint, resume_checkpoint
from timm.utils import ModelEmaV3
from tqdm import tqdm

from seattn.blocks.strided_convs import take_strides_out
from seattn.core.device import autocast_dtype
from seattn.core.errors import UserError, counted
from seattn.core.recipe import Recipe
from seattn.core.rows import AccuracyRow, Conditions, conditions
from seattn.data.memory import EvalSplit
from seattn.data.open import open_data
from seattn.data.transforms import data_config
from seattn.evaluation.prediction import predict_logits
from seattn.evaluation.scoring import Evaluation, summarize
from seattn.models._datasets import title_of
from seattn.training.build import (
    create_mixup,
    create_model,
    create_optimizer,
    create_schedule,
    create_teacher,
    head_recipe,
    only_classifier_learns,
    side_at,
    warn_of_seen_images,
)
from seattn.training.log import Clock, EpochLog, describe_rates
from seattn.training.losses import Teacher, TrainingLoss, make_criterion
from seattn.training.processes import Distributed
from seattn.training.run_dir import AtomicSaver, Row, RunDir, is_stale, read_summary, shipped
from seattn.training.update import Batch, Updater, check_finite

_logger = logging.getLogger("seattn")


class TrainingRun:
    """One process of a run: makes and checks everything that the recipe names; `run` then trains.

    Args:
        path: the folder of the run, which resumes from the last checkpoint there.
        run_dir: writes files into that folder, in the first process; None in all other processes.
        skip_bad: leave unreadable images out.
    """

    labelled = True  # whether the classes of the images are used

    def __init__(
        self,
        recipe: Recipe,
        data_dir: Path,
        *,
        path: Path,
        run_dir: RunDir | None,
        device: torch.device,
        processes: Distributed,
        skip_bad: bool,
    ) -> None:
        self.recipe, self.path, self.run_dir, self.device, self.processes = recipe, path, run_dir, device, processes
        self.history: list[Row] = []
        self.log: EpochLog | None = None
        self.amp = autocast_dtype(recipe, device)
        torch.manual_seed(recipe.seed)
        resumes = (path / "last.pth.tar").exists()  # the checkpoint has all weights; the file of the start may be gone
        self.model = self._create_model(replace(recipe, initial_checkpoint="") if resumes else recipe)
        self.data = open_data(
            recipe,
            data_dir,
            data_config(self.model),
            device,
            rank=processes.rank,
            world=processes.world,
            skip_bad=skip_bad,
            labelled=self.labelled,
        )
        self._prepare_data(data_dir)
        self.batches = self.data.train.batches()
        if not self.batches:
            size, images = recipe.batch_size * processes.world // self.data.train.views, len(self.data.train)
            raise UserError(f"batch_size {size} is more than the {images} training images; lower it")
        self.model.to(device)
        if device.type == "cpu":
            take_strides_out(self.model)
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.ema: ModelEmaV3 | None = None
        if recipe.model_ema:
            self.ema = ModelEmaV3(self.model, decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup)
        self.mixup = create_mixup(recipe, len(self.data.class_names))
        self.teacher: Teacher | None = None
        if recipe.kd_model_name is not None:
            config, names = data_config(self.model), self.data.class_names
            teacher, teacher_outputs = create_teacher(recipe.kd_model_name, config, names)
            self.teacher = Teacher(teacher, recipe, config, teacher_outputs).to(device)
        self._prepare(recipe)

    def _written(self) -> Recipe:
        """The recipe for the run's folder."""
        return self.recipe

    def _create_model(self, recipe: Recipe) -> Any:
        return create_model(recipe)

    def _prepare_data(self, data_dir: Path) -> None:
        """Raise UserError unless the data have as many classes as the model; warn where its weights know them."""
        classes, outputs = len(self.data.class_names), self.model.num_classes
        if classes != outputs:
            raise UserError(f"{data_dir} has {classes} classes, the model {outputs}; set num_classes: {classes}")
        if (title := self.recipe.seattn.dataset) and not title_of(title, self.data.class_names):
            _logger.warning(
                "%s has other classes than %s (seattn.dataset): the run's row names no data set", data_dir, title
            )
        warn_of_seen_images(self.recipe, self.data.class_names, len(self.data.held_out))

    def _criterion(self, recipe: Recipe) -> torch.nn.Module:
        return make_criterion(recipe, self.data.train.labels, self.data.class_names)

    def _prepare(self, recipe: Recipe) -> None:
        """Make the optimizer, the schedule and the update for the parameters that learn now."""
        self.updates = math.ceil(self.batches / recipe.grad_accum_steps)  # per epoch
        self.optimizer = create_optimizer(recipe, self.model)
        self.schedule, _ = create_schedule(recipe, self.optimizer, self.updates)
        net = self.processes.wrap(self.model, self.device, sync_bn=recipe.sync_bn)
        if recipe.torchcompile is not None:
            net = torch.compile(net, backend=recipe.torchcompile)  # type: ignore[assignment]
        self.update = Updater(
            net,
            self.optimizer,
            TrainingLoss(self._criterion(recipe), self.teacher).to(self.device),
            self.device,
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

    def run(self, *, read_test: bool, on_epoch: Callable[[Row], None] | None) -> AccuracyRow | None:
        """Train the epochs that are not finished yet, then score; returns None in all processes but the first.

        Args:
            read_test: score on the test split, else on the held-out images.
            on_epoch: called with the row of each epoch, in the first process.
        """
        measured_in = conditions(self.device)  # before training: the commit of the code that trains
        try:
            for epoch in range(self._start(), self.recipe.run_epochs):
                if self.processes.from_first(is_stale(self.history, self.recipe.seattn.early_stop)):
                    break
                if epoch == self.recipe.scheduled_epochs:
                    self._begin_head()
                loss, rates = self._train_epoch(epoch)
                self.processes.share_norms(self.recipe.dist_bn, self.model, self.ema and self.ema.module)
                if self.run_dir is not None:
                    row = self._record_epoch(self.run_dir, epoch, loss, rates)
                    if on_epoch is not None:
                        on_epoch(row)
            return None if self.run_dir is None else self._finish(self.run_dir, measured_in, read_test=read_test)
        finally:
            if self.log is not None:
                self.log.close()

    def _finish(self, run_dir: RunDir, measured_in: Conditions, *, read_test: bool) -> AccuracyRow | None:
        """Write the weights and their config, then the row of the run."""
        if self.recipe.seattn.early_stop is not None:
            load_checkpoint(self.averaged, str(self.path / "model_best.pth.tar"), use_ema=self.ema is not None)
        run_dir.export(self.averaged, self.data.class_names)
        result = self._score("test" if read_test else "held-out", measured_in)
        run_dir.write_result(result)
        interval = f"{100 * result.top1_low:.2f} to {100 * result.top1_high:.2f}"
        score = f"{result.split} top-1 {100 * result.top1:.2f} % (95 % interval {interval}, n = {result.n})"
        _logger.info("%s; weights, config and result in %s", score, self.path)
        return result

    def _score(self, split: str, measured_in: Conditions) -> AccuracyRow:
        """The row of the finished run, whose net is scored on the test split or on the held-out images."""
        recipe, held_out = self.recipe, len(self.data.held_out)
        scores = self._evaluate(self.data.test() if split == "test" else self.data.held_out)
        return AccuracyRow(
            name=recipe.model,
            dataset=title_of(recipe.seattn.dataset, self.data.class_names),
            split=split,
            n=scores.n,
            top1=scores.top1,
            top1_low=scores.top1_low,
            top1_high=scores.top1_high,
            top5=scores.top5,
            loss=scores.loss,
            ece=scores.ece,
            seed=recipe.seed,
            epochs=len(self.history),
            train_images=len(self.data.train),
            held_out_images=held_out,
            held_out_top1=shipped(self.history, recipe.seattn.early_stop)["eval_top1"] / 100 if held_out else None,
            params=sum(p.numel() for p in self.model.parameters()),
            train_seconds=sum(row["train_seconds"] for row in self.history),
            dtype=str(self.amp or torch.float32).removeprefix("torch."),
            memory_format="channels_last" if recipe.channels_last else "contiguous",
            conditions=measured_in,
        )

    @property
    def averaged(self) -> Any:
        """The net that is evaluated and exported: the moving average of the weights, if the recipe has one."""
        return self.model if self.ema is None else self.ema.module

    def _start(self) -> int:
        """Load the state of the run from its folder and open the log; returns the number of finished epochs."""
        done = self._resume()
        if self.run_dir is not None:
            self.run_dir.start(self._written())
            self.history = read_summary(self.path)[:done]
            self.log = EpochLog(self.path, self.recipe)
            if self.history:
                self.saver.restore(self.history)
        return done

    def _resume(self) -> int:
        """Load the last checkpoint, if there is one; returns the number of finished epochs."""
        path = self.path / "last.pth.tar"
        if not path.exists():
            return 0
        try:
            done = int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]) + 1
            if done > self.recipe.scheduled_epochs:
                self._begin_head()
            resume_checkpoint(self.model, str(path), self.optimizer, self.update.scaler, log_info=False)
            if self.ema is not None:
                load_checkpoint(self.ema.module, str(path), use_ema=True)
        except Exception as error:  # a damaged pickle can raise any exception
            wrong = "it is damaged, or no checkpoint of this recipe"
            raise UserError(f"cannot resume from {path}: {wrong}; give another --out to train again") from error
        _logger.info("resumed from %s after %s", path, counted(done, "epoch"))
        return done

    def _begin_head(self) -> None:
        """Begin the second stage: only the classifier of the averaged net learns, on balanced batches.

        It starts from the same random weights in every process, and after a resume.
        """
        torch.manual_seed(self.recipe.seed * 100_003 + self.recipe.scheduled_epochs)
        self.model.load_state_dict(self.averaged.state_dict())
        self.ema = None
        only_classifier_learns(self.model)
        self._prepare(head_recipe(self.recipe))

    def _train_epoch(self, epoch: int) -> tuple[float, dict[str, float]]:
        """Train one epoch; returns its mean loss and its rates, both over all processes."""
        recipe = self.recipe
        in_head = epoch >= recipe.scheduled_epochs
        # The seed depends only on the epoch and the process: a resumed run repeats it, and processes differ in it.
        seed = ((recipe.seed * 100_003 + epoch) * 1_009 + self.processes.rank) % 2**32
        torch.manual_seed(seed)
        np.random.seed(seed)  # timm's Mixup draws from it
        self.model.train(not in_head)
        if self.mixup is not None:
            self.mixup.mixup_enabled = not recipe.mixup_off_epoch or epoch < recipe.mixup_off_epoch
        stage_epoch = epoch - recipe.scheduled_epochs if in_head else epoch
        self.schedule.step(stage_epoch)
        losses = torch.zeros(self.updates, device=self.device)
        side = side_at(epoch, recipe.seattn.resize)
        clock = Clock(self.data.train.epoch(epoch, size=side, balanced=in_head or None))
        with tqdm(
            clock.groups(recipe.grad_accum_steps),
            desc=f"epoch {epoch + 1}/{recipe.run_epochs}",
            total=self.updates,
            unit="update",
            leave=False,
            dynamic_ncols=True,
            disable=None if self.processes.first else True,  # None: no bar where stderr is not a terminal
        ) as progress:
            for step, group in enumerate(progress):
                update = stage_epoch * self.updates + step
                self.schedule.step_update(update)
                losses[step] = self.update([self._mixed(batch) for batch in group])
                if self.ema is not None:
                    self.ema.update(self.model, step=update + 1)
                if self.device.type == "cpu" or step % 32 == 31:  # reading a loss waits for the device
                    check_finite(losses[: step + 1], epoch, recipe.lr, self.path)
                    updates_left = (recipe.run_epochs - epoch) * self.updates - step - 1
                    left = timedelta(seconds=round(clock.seconds / (step + 1) * updates_left))
                    rates = describe_rates(clock.rates(1))
                    progress.set_postfix_str(f"{rates}, loss {losses[: step + 1].mean():.3f}, {left} left in all")
        check_finite(losses, epoch, recipe.lr, self.path)
        return self.processes.mean(losses.mean()), clock.rates(self.processes.world)

    def _mixed(self, batch: Batch) -> Batch:
        if self.mixup is None:
            return batch
        x, target = self.mixup(*batch)
        return x, target

    def _record_epoch(self, run_dir: RunDir, epoch: int, loss: float, rates: dict[str, float]) -> Row:
        """Score the held-out images, if there are any; write the row of the epoch and the checkpoint."""
        held_out = self._score_held_out()
        row = {
            "epoch": epoch,
            "train_loss": loss,
            "eval_loss": math.nan if held_out is None else held_out.loss,
            "eval_top1": math.nan if held_out is None else 100 * held_out.top1,
            "lr": self.optimizer.param_groups[0]["lr"],
            **rates,
        }
        self.history.append(row)
        run_dir.write_summary(self.history)
        self.saver.save_checkpoint(epoch, metric=None if held_out is None else row["eval_top1"])
        assert self.log is not None  # the process has a run_dir
        self.log.write(row)
        top1 = "unknown (no image is held out)" if held_out is None else f"{row['eval_top1']:.2f} %"
        place = f"epoch {epoch + 1}/{self.recipe.run_epochs}"
        _logger.info("%s: train loss %.4f, held-out top-1 %s, %s", place, loss, top1, describe_rates(rates))
        return row

    def _score_held_out(self) -> Evaluation | None:
        return self._evaluate(self.data.held_out) if len(self.data.held_out) else None

    def _evaluate(self, data: EvalSplit) -> Evaluation:
        """The scores in float32, the dtype in which users run the net."""
        logits = predict_logits(self.averaged, data.in_order(), channels_last=self.recipe.channels_last)  # (N, K)
        return summarize(logits, data.labels, data.class_names)
