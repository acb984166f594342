"""Weights from other code: SE-ResNets' checkpoints, whoever named their tensors, in our nets and timm's.

Known are pytorchcv, pytorch-cifar100, pytorch-cifar, moskomule/senet.pytorch, and any net with the model's own or
torchvision's names whose squeeze-excite is spelt `fc1`/`fc2`, `fc.0`/`fc.2`, `conv_reduce`/`conv_expand` or
`fc.reduce`/`fc.expand`, under any attribute of its block. Where the keys, or the project they belong to, tell that the
other net computes something else, it is refused. The preprocessing is not in a checkpoint: the model's own stays.
"""

import copy
import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seattn.core.errors import UserError
from seattn.layers import SqueezeExcite
from seattn.models.checkpoints.fit import (
    check_attention,
    check_blocks,
    check_model,
    find_pairs,
    fit,
    fold_conv_biases,
    match_pairs,
    rename_attention,
    with_counters,
)
from seattn.models.checkpoints.layouts import LAYOUTS, CheckpointLayout, DifferentFunctionError, Names
from seattn.models.checkpoints.read import read_state_dict, unwrap

_logger = logging.getLogger("seattn")


def remap_checkpoint(state: Mapping[str, Any], model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `state` as a state dict that `model` loads with `strict=True` and computes the same with.

    Args:
        state: a state dict, or a checkpoint that holds one under `state_dict`, `model` or `net`; `module.` is removed.
        model: what shall load it; it is left as it is.

    Raises:
        UserError: naming the first keys that do not fit, or what the checkpoint's net computes otherwise.
    """
    return _remap(unwrap(state, "this state"), model, "this state")


def load_foreign(model: nn.Module, path_or_state: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Load a checkpoint of any known layout into `model`; from a file only tensors are read.

    pytorch-cifar100's SE-ResNets have a ReLU between a block's last norm and its SE: such a checkpoint puts it into
    `model` too, where each block's `se` becomes `nn.Sequential(nn.ReLU(), se)`; the log says so.

    Raises:
        UserError: as `remap_checkpoint`, or if the file is missing or damaged; `model` stays as it was then.
    """
    if isinstance(path_or_state, Mapping):
        state, origin = unwrap(path_or_state, "this state"), "this state"
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
        _logger.info("%s: a ReLU now stands before each block's squeeze-excite, as in the net that it is of", origin)
    model.load_state_dict(remapped, strict=True)


def _blocks_that_lack_a_relu(state: Mapping[str, torch.Tensor], model: nn.Module) -> list[Any]:
    for layout in LAYOUTS:
        try:
            if layout.names(state) is not None:
                break
        except DifferentFunctionError:  # to be raised where its message is made
            return []
    if not layout.relu_before_attn:
        return []
    return [module for module in model.modules() if isinstance(getattr(module, "se", None), SqueezeExcite)]


def _remap(state: dict[str, torch.Tensor], model: nn.Module, origin: str) -> dict[str, torch.Tensor]:
    wanted = model.state_dict()
    own = with_counters(state, wanted)
    if {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in wanted.items()}:
        return own
    for layout in LAYOUTS:
        try:
            names = layout.names(state)
            if names is not None:  # at the latest that of the last layout
                names, remapped, wrong = _read(state, names, model, layout)
                break
        except DifferentFunctionError as error:
            name = _architecture(model)
            raise UserError(f"{origin} is refused for {name}: {error} (read as {layout.name})") from error
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        read = f" (read as {layout.name})" if layout.fixed else ""
        raise UserError(f"{origin} does not hold weights of {_architecture(model)}: {', '.join(wrong[:3])}{more}{read}")
    _logger.info("%s: read as %s", origin, layout.name)
    return remapped


def _read(
    state: dict[str, torch.Tensor], names: Names, model: nn.Module, layout: CheckpointLayout
) -> tuple[Names, dict[str, torch.Tensor], list[str]]:
    """Whose key each name is, the tensors under the model's names, and what does not fit."""
    wanted = model.state_dict()
    theirs = {name: state[key].shape for name, key in names.items()}
    ours = {name: value.shape for name, value in wanted.items()}
    matched = match_pairs(find_pairs(theirs), find_pairs(ours))
    check_blocks(theirs, ours)
    check_attention(theirs, ours, matched, model, layout)
    names = rename_attention(names, matched)
    remapped = fit(state, names, wanted, matched)
    if layout.fixed:
        fold_conv_biases(remapped, wanted)
    wrong = _misfits(remapped, names, model)
    if layout.fixed and not wrong:
        check_model(model)
    return names, remapped, wrong


def _misfits(remapped: Mapping[str, torch.Tensor], names: Names, model: nn.Module) -> list[str]:
    """The keys that `model` would not load; torch itself says so of a copy without memory, for layers may rename."""
    tensors = [*model.parameters(), *model.buffers()]
    hollow = copy.deepcopy(model, {id(tensor): _hollow(tensor) for tensor in tensors})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a norm that lacks its counter makes one, which meta does not keep
            # not strict: that would put the keys into one long message
            result = hollow.load_state_dict({key: value.to("meta") for key, value in remapped.items()}, strict=False)
    except RuntimeError as error:
        wrong = [line.strip().split(":")[0] for line in str(error).splitlines() if "size mismatch" in line]
        if not wrong:
            raise
        return wrong
    missing = [f"missing {key}" for key in result.missing_keys]
    return missing + [f"unexpected {names.get(key, key)}" for key in result.unexpected_keys]


def _hollow(tensor: torch.Tensor) -> torch.Tensor:
    empty = tensor.detach().to("meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _architecture(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return str(cfg.get("architecture") or type(model).__name__)
