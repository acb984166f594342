"""What a recipe says to build: the model, its optimizer, its schedule, the mixing of batches."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.models.listing import check_name
from seattn.models.load import HUB_ERRORS


def create_model(recipe: Recipe) -> Any:
    """The recipe's net.

    Raises:
        UserError: if its weights cannot be had, or a keyword of `model_kwargs` is wrong.
    """
    # Left out where the recipe says nothing, so that the model's own default holds.
    given = {"num_classes": recipe.num_classes, "drop_path_rate": recipe.drop_path}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        return timm.create_model(
            recipe.model, pretrained=recipe.pretrained, drop_rate=recipe.drop, **kwargs, **recipe.model_kwargs
        )
    except HUB_ERRORS as error:
        raise UserError(f"cannot load the weights of {recipe.model}: {str(error).splitlines()[0]}") from error
    except (TypeError, ValueError) as error:
        if not recipe.model_kwargs:
            raise
        raise UserError(f"model_kwargs {recipe.model_kwargs} for {recipe.model}: {error}") from error


def create_teacher(recipe: Recipe, classes: int) -> Any:
    """The trained net that `kd_model_name` names.

    Raises:
        UserError: if there is no such net, it has no weights, or they cannot be had.
    """
    assert recipe.kd_model_name is not None
    check_name(recipe.kd_model_name)
    try:
        return timm.create_model(recipe.kd_model_name, pretrained=True, num_classes=classes)
    except HUB_ERRORS as error:
        raise UserError(f"cannot load the weights of {recipe.kd_model_name}: {str(error).splitlines()[0]}") from error


def create_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """timm's optimizer of that name over the model's parameters that learn.

    Raises:
        UserError: if timm does not know the name or one of its options.
    """
    options: dict[str, Any] = {"betas": recipe.opt_betas, "eps": recipe.opt_eps}
    options = {key: value for key, value in options.items() if value is not None}
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            model,
            recipe.opt,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            layer_decay=recipe.layer_decay,
            **options,
            **recipe.opt_kwargs,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"cannot make the optimizer {recipe.opt!r}: {str(error).splitlines()[0]}") from error
    return optimizer


def create_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, updates: int) -> tuple[Scheduler, int]:
    """timm's schedule of that name, and the length of the run in epochs; `updates` are those of an epoch."""
    scheduler, epochs = create_scheduler_v2(
        optimizer,
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
        cycle_mul=recipe.lr_cycle_mul,
        cycle_decay=recipe.lr_cycle_decay,
        cycle_limit=recipe.lr_cycle_limit,
        step_on_epochs=not recipe.sched_on_updates,
        updates_per_epoch=updates,
    )
    assert scheduler is not None
    return scheduler, epochs


def create_mixup(recipe: Recipe, classes: int) -> Any:
    """timm's Mixup, or None."""
    if not (recipe.mixup > 0 or recipe.cutmix > 0 or recipe.cutmix_minmax is not None):
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        cutmix_minmax=recipe.cutmix_minmax,
        prob=recipe.mixup_prob,
        switch_prob=recipe.mixup_switch_prob,
        mode=recipe.mixup_mode,
        label_smoothing=recipe.smoothing,
        num_classes=classes,
    )


def side_at(epoch: int, resize: Iterable[tuple[int, int]]) -> int | None:
    """The side that images are trained at in this epoch (the first is 0); None for the model's own."""
    end = 0
    for side, epochs in resize:
        end += epochs
        if epoch < end:
            return side
    return None


def only_classifier_learns(model: Any) -> None:
    """Start the classifier anew and freeze all else, batch norm's statistics too (Kang et al., ICLR 2020, cRT)."""
    model.requires_grad_(False)
    classifier = model.get_classifier()
    classifier.requires_grad_(True)
    classifier.reset_parameters()


def head_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the second stage: the classifier alone, down a cosine, without what the first stage balanced by."""
    ours = replace(recipe.seattn, class_weights="none", sam_rho=None, resize=(), early_stop=None)
    return replace(
        recipe,
        epochs=recipe.seattn.balanced_head_epochs,
        sched="cosine",
        warmup_epochs=0,
        cooldown_epochs=0,
        lr_cycle_limit=1,
        layer_decay=None,
        seattn=ours,
    )
