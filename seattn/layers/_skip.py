"""Whether an op may do a module's work in its place: not if the module would be missed.

A hook on the module would no longer fire, and a forward of the instance's own would no longer be called.
"""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def may_skip(*modules: nn.Module | None) -> bool:
    """True if nobody watches these modules or their children: no hooks, no forward set on an instance."""
    return not _has_any_global_hook() and all(map(_unwatched, modules))


def _unwatched(module: nn.Module | None) -> bool:
    if module is None:
        return True
    if (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    ):
        return False
    return all(map(_unwatched, module._modules.values()))
