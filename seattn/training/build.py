"""The parts of a run that a recipe names: the model, its optimizer, its schedule, the mixing of batches."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import scheduler_kwargs
from torch import nn

from seattn.core.errors import UserError, first_line
from seattn.core.recipe import Recipe
from seattn.models.listing import check_name
from seattn.models.load import HUB_ERRORS


def create_model(recipe: Recipe) -> Any:
    """The recipe's net.

    Raises:
        UserError: if its weights cannot be loaded, or a keyword of `model_kwargs` is wrong.
    """
    # A keyword that the recipe does not set is omitted: the model's own default then holds.
    given = {"num_classes": recipe.num_classes, "drop_path_rate": recipe.drop_path}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        return timm.create_model(
            recipe.model, pretrained=recipe.pretrained, drop_rate=recipe.drop, **kwargs, **recipe.model_kwargs
        )
    except HUB_ERRORS as error:
        raise UserError(f"cannot load the weights of {recipe.model}: {first_line(error)}") from error
    except (TypeError, ValueError) as error:
        if not recipe.model_kwargs:
            raise
        raise UserError(f"model_kwargs {recipe.model_kwargs} for {recipe.model}: {error}") from error


def create_teacher(name: str, classes: int) -> Any:
    """The trained net called `name`.

    Raises:
        UserError: if there is no such net, it has no weights, or they cannot be loaded.
    """
    check_name(name)
    try:
        return timm.create_model(name, pretrained=True, num_classes=classes)
    except HUB_ERRORS as error:
        raise UserError(f"cannot load the weights of {name}: {first_line(error)}") from error


def create_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer, from timm, for those parameters of the model that learn.

    Raises:
        UserError: if timm does not know the name or one of its options.
    """
    try:
        return create_optimizer_v2(model, **optimizer_kwargs(recipe), **recipe.opt_kwargs)
    except (ValueError, TypeError) as error:
        raise UserError(f"cannot make the optimizer {recipe.opt!r}: {first_line(error)}") from error


def create_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, updates: int) -> tuple[Scheduler, int]:
    """The schedule of the learning rate and its length in epochs; an epoch has `updates` updates."""
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(recipe), updates_per_epoch=updates)
    assert scheduler is not None
    return scheduler, epochs


def create_mixup(recipe: Recipe, classes: int) -> Any:
    """timm's Mixup, or None where the recipe does not mix batches."""
    if not recipe.mixes:
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
    """The side of training images in this epoch (the first is 0), in pixels; None for the model's own."""
    end = 0
    for side, epochs in resize:
        end += epochs
        if epoch < end:
            return side
    return None


def only_classifier_learns(model: Any) -> None:
    """Initialise the classifier again and freeze all other parameters (cRT, Kang et al., ICLR 2020)."""
    model.requires_grad_(False)
    classifier = model.get_classifier()
    classifier.requires_grad_(True)
    classifier.reset_parameters()


def head_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the second stage: a cosine schedule for the classifier, without class weights, SAM and resizing."""
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
