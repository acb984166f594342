"""Whether an op may read the weights of a module instead of calling the module.

A call runs the module's hooks, its parametrisations, and whatever a tool (pruning, LoRA, weight norm) put in its place.
An op that reads only the weights would skip all of these.
"""

from typing import Any

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

_TORCH_TYPES = (nn.Conv1d, nn.Conv2d, nn.BatchNorm2d)


def may_skip(*modules: nn.Module | None) -> bool:
    """Whether these modules and their children have no hooks, and no `forward` that was set on the instance."""
    if _has_any_global_hook():
        return False
    pending = list(modules)  # this runs in every call of a block: no recursion, no attribute lookup of nn.Module
    while pending:
        module = pending.pop()
        if module is None:
            continue
        own = module.__dict__
        if (
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "forward" in own
        ):
            return False
        pending += own["_modules"].values()
    return True


def reads_weights(*convs: nn.Module) -> bool:
    """Whether an op may read the weights of these convolutions: they are torch's own modules without hooks."""
    return all(type(conv) in _TORCH_TYPES and _has_own_weights(conv) for conv in convs) and may_skip(*convs)


def is_pointwise(conv: Any) -> bool:
    """Whether the module is an nn.Conv2d that multiplies the channels of each pixel by its own matrix."""
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
        and _has_own_weights(conv)
    )


def is_over_channels(conv: Any) -> bool:
    """Whether the module is an nn.Conv1d(1, 1, k) of odd k without bias that keeps the length, padding with zeros."""
    return (
        type(conv) is nn.Conv1d
        and conv.in_channels == conv.out_channels == 1
        and conv._parameters["bias"] is None
        and conv.kernel_size[0] % 2 == 1
        and conv.padding == (conv.kernel_size[0] // 2,)
        and conv.padding_mode == "zeros"
        and conv.stride == (1,)
        and conv.dilation == (1,)
        and _has_own_weights(conv)
    )


def _has_own_weights(conv: Any) -> bool:
    # Pruning and weight norm compute the weight before each call, from parameters of other names.
    return "weight" in conv._parameters and "bias" in conv._parameters
