"""The parts of a run that a recipe names: the model, its optimizer, its schedule, the mixing of batches."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import scheduler_kwargs
from torch import nn

from seattn.core.errors import UserError, did_you_mean, first_line, shorten
from seattn.core.recipe import Recipe
from seattn.data.transforms import data_config, output_names
from seattn.models.checkpoints.foreign import load_foreign
from seattn.models.checkpoints.read import read_state_dict, require_finite
from seattn.models.load import HUB_ERRORS, load_model

_logger = logging.getLogger("seattn")


def create_model(recipe: Recipe) -> Any:
    """The recipe's net.

    Raises:
        UserError: if its weights or those of `initial_checkpoint` cannot be loaded, or a keyword of `model_kwargs` is
            wrong, or the net cannot classify images of its input size.
    """
    # A keyword that the recipe does not set is omitted: the model's own default then holds.
    given = {"num_classes": recipe.num_classes, "drop_path_rate": recipe.drop_path}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        model = timm.create_model(
            recipe.model, pretrained=recipe.pretrained, drop_rate=recipe.drop, **kwargs, **recipe.model_kwargs
        )
    except HUB_ERRORS as error:
        raise UserError(f"cannot load the weights of {recipe.model}: {first_line(error)}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        if not recipe.model_kwargs:
            raise
        reason = " ".join(str(error).split())[:200]  # the second line names weights that do not fit
        raise UserError(f"model_kwargs {recipe.model_kwargs} for {recipe.model}: {reason}") from error
    _check_outputs(model, recipe.model)
    if recipe.initial_checkpoint:
        load_all_but_classifier(model, Path(recipe.initial_checkpoint))
    return model


def warn_of_seen_images(recipe: Recipe, class_names: Sequence[str], held_out: int) -> None:
    """Warn if the start's published weights know the classes: they may have been trained on the held-out images."""
    cfg = timm.get_pretrained_cfg(recipe.model)
    if not (recipe.pretrained and held_out) or cfg is None or set(cfg.label_names or ()) != set(class_names):
        return
    _logger.warning(
        "the weights of %s were trained on these classes: if the %d held-out images are among their training images, "
        "the held-out accuracy is too high",
        recipe.model,
        held_out,
    )


def _check_outputs(model: Any, name: str) -> None:
    """Raise UserError if the model cannot classify two images of its input size; otherwise the run would fail later."""
    size, training = tuple(data_config(model)["input_size"]), model.training
    try:
        with torch.no_grad():
            y = model.eval()(torch.zeros(2, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{name} cannot take images of its input size {size}: {first_line(error).rstrip('.')}; check model_kwargs "
            "(pretrained_cfg_overlay: {input_size: [C, H, W]} in them sets the size)"
        ) from error
    finally:
        model.train(training)
    shape = tuple(y.shape) if isinstance(y, torch.Tensor) else None
    if shape is None or len(shape) != 2 or model.num_classes not in (0, shape[1]):
        found = "a list of feature maps" if shape is None else f"outputs of shape {shape}"
        raise UserError(f"{name} is not a classifier: it gives {found} for two images; check model_kwargs")


def load_all_but_classifier(model: Any, path: Path) -> None:
    """Load the weights in `path`; a classifier that is not in the file, or is of another size there, stays random.

    Raises:
        UserError: if the file is damaged, or holds weights of another net.
    """
    state, own = read_state_dict(path), model.state_dict()
    for key in classifier_keys(model):
        if key not in state or state[key].shape != own[key].shape:
            state[key] = own[key]
    load_foreign(model, state, origin=str(path))
    require_finite(model.state_dict(), str(path))


def classifier_keys(model: Any) -> list[str]:
    """The keys of the parameters of the model's classifier, or of its two classifiers, in its state dict."""
    names = model.pretrained_cfg.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return [key for key in model.state_dict() if key.startswith(tuple(f"{name}." for name in names))]


def create_teacher(name: str, student: Mapping[str, Any], class_names: Sequence[str]) -> tuple[Any, list[int]]:
    """The trained net called `name`, and the number of its output for each class of the data.

    Args:
        name: `arch` or `arch.tag`, the folder of a run, or `hf-hub:org/name`.
        student: the data config of the student.
        class_names: those of the data.

    Raises:
        UserError: if there is no such net, its weights cannot be loaded, or it does not fit the data: it has other
            classes (by name, or by number where it has no names) or channels, or cannot take images of this size.
    """
    teacher: Any = load_model(name)
    outputs = _outputs_of_teacher(name, teacher, class_names)
    channels, size = student["input_size"][0], tuple(student["input_size"])
    own_channels = data_config(teacher)["input_size"][0]
    if own_channels != channels:
        raise UserError(
            f"the teacher {name} takes images of {own_channels} channels, the student of {channels}: set "
            "model_kwargs.in_chans, or another kd_model_name"
        )
    try:
        with torch.no_grad():
            teacher(torch.zeros(1, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"the teacher {name} cannot take the student's images {size}: {first_line(error)}") from error
    return teacher, outputs


def _outputs_of_teacher(name: str, teacher: Any, class_names: Sequence[str]) -> list[int]:
    known = output_names(teacher.pretrained_cfg.get("label_names"), teacher.num_classes)
    if set(known) == set(class_names):
        return [known.index(class_name) for class_name in class_names]
    if not known and teacher.num_classes == len(class_names):
        return list(range(len(class_names)))
    theirs = f" ({shorten(known)})" if known else ""
    raise UserError(
        f"the teacher {name} has {teacher.num_classes} classes{theirs}, the data {len(class_names)} "
        f"({shorten(class_names)}): distillation needs a teacher of the same classes"
    )


def create_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimizer, from timm, for those parameters of the model that learn.

    Raises:
        UserError: if timm does not know the name or one of its options.
    """
    try:
        return create_optimizer_v2(model, **optimizer_kwargs(recipe), **recipe.opt_kwargs)
    except (ValueError, TypeError) as error:
        name = recipe.opt.lower().removeprefix("lookahead_")
        known = [str(optimizer) for optimizer in list_optimizers()]
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"opt must be an optimizer of timm, got {recipe.opt!r}; {hint}") from error
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
    """Initialise the classifier (or both) again and freeze all other parameters (Kang et al., ICLR 2020)."""
    model.requires_grad_(False)
    classifier = model.get_classifier()
    for head in classifier if isinstance(classifier, tuple | list) else (classifier,):  # a distilled net has two
        head.requires_grad_(True)
        for layer in head.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()


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
