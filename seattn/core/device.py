"""In what a run computes: what its recipe says, or float32 where the device has no such arithmetic."""

import logging

import torch

from seattn.core.recipe import Recipe

_logger = logging.getLogger("seattn")
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """What autocast computes in, or None for float32; a warning where the recipe says bfloat16 and this CPU has none.

    Autocast is for speed. A CPU without bfloat16 computes it one number at a time: a step of SE-ResNet-20 took 12 times
    as long as in float32 (128 images, one thread, AVX2).
    """
    if not recipe.amp:
        return None
    if recipe.amp_dtype == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        _logger.warning("this CPU has no bfloat16, in which it would be many times slower: computing in float32")
        return None
    return _DTYPES[recipe.amp_dtype]


def cpu_has_bfloat16() -> bool:
    """Whether convolutions in bfloat16 are oneDNN's here, with AVX-512, AMX or Arm's instructions for it."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
