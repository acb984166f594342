"""model.safetensors of a folder for the Hub against the net that its config.json describes."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from seattn.core.errors import UserError, first_line

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def check_weights(path: Path, model: nn.Module) -> str:
    """Hold that `path` has the keys, shapes and kinds of number of `model` and no NaN; what it has, in words.

    Raises:
        UserError: naming the first tensor that is otherwise.
    """
    wanted = model.state_dict()
    try:
        with safe_open(str(path), "pt") as file:
            keys = set(file.keys())
            for key in sorted(keys ^ set(wanted)):
                raise UserError(
                    f"{path}: the net {'has no' if key in keys else 'needs'} {key}; is config.json another's?"
                )
            for key, tensor in wanted.items():  # shapes stand in the header: nothing large is read before they fit
                shape = tuple(file.get_slice(key).get_shape())
                if shape != tuple(tensor.shape):
                    raise UserError(f"{path}: {key} is {shape}, the net needs {tuple(tensor.shape)}")
            dtypes = [_check_values(file.get_tensor(key), tensor, f"{path}: {key}") for key, tensor in wanted.items()]
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {first_line(error)}; get it again") from error
    parts = (f"{dtypes.count(dtype)} {str(dtype).removeprefix('torch.')}" for dtype in sorted(set(dtypes), key=str))
    return f"{len(dtypes)} tensors ({', '.join(parts)}) as {type(model).__name__} needs them, no NaN"


def _check_values(found: torch.Tensor, wanted: torch.Tensor, where: str) -> torch.dtype:
    fits = found.dtype in _FLOATS if wanted.is_floating_point() else found.dtype == wanted.dtype
    if not fits:
        right = "float16, bfloat16 or float32" if wanted.is_floating_point() else wanted.dtype
        raise UserError(f"{where} is {found.dtype}; it must be {right}")
    if not bool(found.isfinite().all()):
        raise UserError(f"{where} has NaN or infinite values; these weights are broken")
    return found.dtype
