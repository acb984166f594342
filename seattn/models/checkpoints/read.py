"""Files and dicts of weights as state dicts of plain keys; nothing but tensors is ever read from a pickle."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict

from seattn.core.errors import UserError, first_line

# Under which key a checkpoint holds its weights: timm's and common ones; "net" is pytorch-cifar's. Averaged ones first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "net", "model_state_dict")
_AVERAGED = 2  # so many of them


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a .safetensors file or a checkpoint of torch, averaged ones (EMA) preferred.

    Raises:
        UserError: if the file is missing, damaged, or holds anything but weights.
    """
    return unwrap(read_checkpoint(path), str(path))


def read_checkpoint(path: Path) -> object:
    """All that a .safetensors file or a checkpoint of torch holds, as tensors and plain values.

    Raises:
        UserError: if the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a whole safetensors file: {first_line(error)}") from error
    return _torch_load(path)


def unwrap(content: object, origin: str, *, averaged: bool = True) -> dict[str, torch.Tensor]:
    """The state dict in `content`, alone or under a usual key, without the prefixes of DataParallel and compile.

    Args:
        averaged: False passes over averaged weights (EMA).

    Raises:
        UserError: naming `origin`, if there is none.
    """
    for key in _WRAPPERS if averaged else _WRAPPERS[_AVERAGED:]:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{origin} holds no weights: expected a state dict, alone or under 'state_dict'")
    state: dict[str, Any] = dict(content)
    return clean_state_dict(state)


def _torch_load(path: Path) -> object:
    try:
        # timm's checkpoints carry the argparse.Namespace of the run that wrote them
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged or holds other objects than weights, which are never unpickled; give a state dict"
        ) from error
    except Exception as error:  # a damaged pickle fails in any way whatever: IndexError, struct.error, EOFError ...
        raise UserError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from error
    return content
