"""Whether an op may do a module's work in its place: not if the module would be missed.

A hook on the module would no longer fire, and a forward of the instance's own would no longer be called.
"""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook


def may_skip(*modules: nn.Module | None) -> bool:
    """True if nobody watches these modules or their children: no hooks, no forward set on an instance."""
    if _has_any_global_hook():
        return False
    # Asked in every call, so in one frame and without nn.Module's lookup.
    seen = list(modules)
    for module in seen:  # which grows by the children
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
        if own["_modules"]:
            seen += own["_modules"].values()
    return True
