"""Checkpoints of SE-ResNets from other code, for the nets of this package and of timm.

The known projects are pytorchcv, pytorch-cifar100, pytorch-cifar, moskomule/senet.pytorch, and any net with the model's
own or torchvision's names whose squeeze-excite is named `fc1`/`fc2`, `fc.0`/`fc.2`, `conv_reduce`/`conv_expand` or
`fc.reduce`/`fc.expand`, under any attribute of its block. A checkpoint is refused if a tensor has no place in the
model, or if the other net's attention computes something else. A warning names other differences that are known from
the project's code. A checkpoint has no preprocessing: the model's own stays.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seattn.core.errors import UserError
from seattn.layers import SqueezeExcite
from seattn.models.checkpoints.fit import (
    attention_difference,
    differences,
    find_pairs,
    fit,
    fold_conv_biases,
    match_pairs,
    rename_attention,
    with_counters,
)
from seattn.models.checkpoints.layouts import LAYOUTS, CheckpointLayout, DifferentFunctionError, Names, State
from seattn.models.checkpoints.read import read_state_dict, unwrap

_logger = logging.getLogger("seattn")


def remap_checkpoint(state: Mapping[str, Any], model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `state` as a state dict for `model`, which `load_state_dict(strict=True)` accepts.

    With it `model` gives the outputs of the checkpoint's net.

    Args:
        state: a state dict, or a checkpoint that holds one under a common key, such as `state_dict` or `model`;
            averaged weights (EMA) are preferred. Common prefixes, such as `module.`, are removed.
        model: the model to load them into; it is not changed.

    Raises:
        UserError: naming the first keys that do not fit, or how the checkpoint's net differs.
    """
    return _remap(unwrap(state, "this state"), model, "this state")


def load_foreign(
    model: nn.Module, path_or_state: str | os.PathLike[str] | Mapping[str, Any], *, origin: str = "this state"
) -> None:
    """Load a checkpoint of any known layout into `model`; from a file only tensors are read.

    pytorch-cifar100's SE-ResNets have a ReLU between a block's last norm and its SE. For such a checkpoint each block's
    `se` in `model` becomes `nn.Sequential(nn.ReLU(), se)`, and a line of the log says so.

    Args:
        origin: what errors call a state dict, for example the file that it is from.

    Raises:
        UserError: as `remap_checkpoint`, or if the file is missing or damaged; `model` is not changed then.
    """
    if isinstance(path_or_state, Mapping):
        state = unwrap(path_or_state, origin)
    else:
        state, origin = read_state_dict(Path(path_or_state)), str(path_or_state)
    blocks = _blocks_that_lack_a_relu(state, model)
    for block in blocks:
        block.se = nn.Sequential(nn.ReLU(), block.se)
    try:
        remapped = _remap(state, model, origin)
    except UserError:
        for block in blocks:
            block.se = block.se[1]
        raise
    if blocks:
        _logger.info("%s: a ReLU is now before each block's squeeze-excite, as in the checkpoint's net", origin)
    model.load_state_dict(remapped, strict=True)


def _blocks_that_lack_a_relu(state: Mapping[str, torch.Tensor], model: nn.Module) -> list[Any]:
    try:
        layout, _ = _recognise(state)
    except DifferentFunctionError:  # raised again when the state is translated
        return []
    if not layout.relu_before_attn:
        return []
    return [module for module in model.modules() if isinstance(getattr(module, "se", None), SqueezeExcite)]


def _recognise(state: State) -> tuple[CheckpointLayout, Names]:
    """The first layout that the state has, and the model's names of its keys; the last layout fits every state."""
    for layout in LAYOUTS:
        try:
            names = layout.names(state)
        except DifferentFunctionError as error:
            raise DifferentFunctionError(f"{error} (read as {layout.name})") from error
        if names is not None:
            return layout, names
    raise AssertionError("the last layout knows any state")


def _remap(state: dict[str, torch.Tensor], model: nn.Module, origin: str) -> dict[str, torch.Tensor]:
    wanted = model.state_dict()
    state = _without_other_modules(state, wanted, origin)
    own = with_counters(state, wanted)
    if _shapes(own) != _shapes(wanted):
        own = _translate(state, model, origin)
    for key, value in own.items():
        if wanted[key].is_floating_point() and not value.is_floating_point():
            dtype = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{origin}: {key} has {dtype} values, {_architecture(model)} needs floating point")
    return own


def _without_other_modules(state: dict[str, torch.Tensor], wanted: State, origin: str) -> dict[str, torch.Tensor]:
    """The tensors under the one prefix that has all of the model's keys; `state` itself if there is no such prefix.

    A training program's module may hold the net beside a criterion, metrics or a projection.
    """
    names = [key for key in wanted if not key.endswith(".num_batches_tracked")]  # old checkpoints have no counters
    prefixes = [key.removesuffix(names[0]) for key in state if key.endswith(f".{names[0]}")] if names else []
    prefixes = [prefix for prefix in prefixes if all(prefix + name in state for name in names)]
    if (names and names[0] in state) or not prefixes:
        return state
    if len(prefixes) > 1:
        raise UserError(f"{origin} holds {len(prefixes)} such nets, under {', '.join(prefixes)}; keep one of them")
    (prefix,) = prefixes
    others = [key for key in state if not key.startswith(prefix)]
    if others:
        _logger.info("%s: only the tensors under %s are loaded, not %s", origin, prefix, ", ".join(others[:3]))
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _translate(state: dict[str, torch.Tensor], model: nn.Module, origin: str) -> dict[str, torch.Tensor]:
    name, wanted = _architecture(model), model.state_dict()
    try:
        layout, names = _recognise(state)
    except DifferentFunctionError as error:
        raise UserError(f"{origin} is refused for {name}: {error}") from error
    shapes = {name: state[key].shape for name, key in names.items()}
    matched = match_pairs(find_pairs(shapes), find_pairs(_shapes(wanted)))
    if difference := attention_difference(matched, model, layout):
        raise UserError(f"{origin} is refused for {name}: {difference} (read as {layout.name})")
    names = rename_attention(names, matched)
    remapped = fit(state, names, wanted, matched)
    if layout.fixed:
        fold_conv_biases(remapped, wanted)
    if wrong := _misfits(remapped, names, wanted):
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        read = f" (read as {layout.name})" if layout.fixed else ""
        raise UserError(f"{origin} does not hold weights of {name}: {', '.join(wrong[:3])}{more}{read}")
    _logger.info("%s: read as %s", origin, layout.name)
    unusual = differences(model) if layout.fixed else []
    if unusual:
        _logger.warning(
            "%s: the nets of %s differ from this model, where %s: outputs will differ",
            origin,
            layout.name,
            "; ".join(unusual[:3]),
        )
    return remapped


def _misfits(found: State, names: Names, wanted: State) -> list[str]:
    """The errors that a strict load of `found` would report, with the checkpoint's own names."""
    return [
        *(f"size mismatch for {key}" for key in wanted if key in found and found[key].shape != wanted[key].shape),
        *(f"missing {key}" for key in wanted if key not in found),
        *(f"unexpected {names.get(key, key)}" for key in found if key not in wanted),
    ]


def _shapes(state: State) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def _architecture(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return str(cfg.get("architecture") or type(model).__name__)
