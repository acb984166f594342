"""A plan: the steps of a folded residual block, kept from one call to the next, for inference on a CPU.

On a small map the Python code between the steps takes as long as the steps. A plan looks up once what the steps need;
each call only checks that nothing has changed since.
Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from seattn.blocks.folded.fold import HOOKS, Fold
from seattn.blocks.folded.kernel import ACTS, NO_ACT, Conv, onednn_takes
from seattn.ops._kernel import is_cpu_inference
from seattn.ops._tail.excitation import Excitation
from seattn.ops._tail.in_torch import attn_tail_inference

PLAN = "_seattn_plan"  # the attribute of a block that holds its plan
_MAX_SHAPES = 2  # full batches, and the last batch
Convs = tuple[Conv | None, list[Conv], Conv]
_RELU = ACTS["relu"]
_version = attrgetter("_version")
_training = itemgetter("training")


class BlockPlan:
    """act(attn(conv_n(... conv_1(x))) + shortcut(x)) with a ReLU after each convolution but the last, and at the end.

    A copy of the block, or one from a pickle, has no plan and makes its own.

    Args:
        block: the residual block; all of its modules are checked for changes.
        folds: the folds of its branch, in order; all have weights in fp32.
        projection: the fold that is the whole shortcut; None calls the block's `downsample`, if it has one.
        excitation: what its attention computes, with weights in fp32; of kind "none" if it has no attention.
    """

    def __init__(
        self, block: nn.Module, folds: Sequence[Fold], projection: Fold | None, excitation: Excitation
    ) -> None:
        self._folds, self._projection, self._excitation = tuple(folds), projection, excitation
        self._downsample = block._modules.get("downsample")
        self._convs: dict[Size, Convs] = {}
        modules = list(block.modules())
        self._own = tuple(module.__dict__ for module in modules)
        self._hooks = tuple(own[name] for own in self._own[1:] for name in HOOKS)  # the block's own run as before
        self._children = tuple(own["_modules"] for own in self._own)
        self._count = sum(map(len, self._children))
        places = [(children, name) for children in self._children for name in children]
        self._held_by, self._names = zip(*places, strict=True)
        self._held = tuple(map(dict.get, self._held_by, self._names))
        tensors = [
            (own[kind], name, tensor)
            for own in self._own
            for kind in ("_parameters", "_buffers")
            for name, tensor in own[kind].items()
            if tensor is not None
        ]
        self._dicts, self._keys, self._tensors = zip(*tensors, strict=True)
        self._changes = self._count_changes()

    def __reduce__(self) -> Any:
        return type(None), ()

    def is_current(self) -> bool:
        """Whether the block is in evaluation mode and without hooks, and no module or weight has changed."""
        return not (
            any(map(_training, self._own))
            or any(self._hooks)
            or any(map(dict.__contains__, self._own, repeat("forward")))
            or sum(map(len, self._children)) != self._count
            or not all(map(is_, map(dict.get, self._held_by, self._names), self._held))
            or not all(map(is_, map(dict.get, self._dicts, self._keys), self._tensors))
            or self._count_changes() != self._changes
        )

    def run(self, x: Tensor) -> Tensor:
        """The block's output for x, (B, C, H, W)."""
        y = shortcut = x
        projection, first, last = self._convs.get(x.shape) or self._prepare(x)
        if projection is not None:
            shortcut = projection(x, NO_ACT)
        elif self._downsample is not None:
            shortcut = self._downsample(x)
        for conv in first:
            y = conv(y, _RELU)
        if self._excitation.kind == "none":
            return last(y, _RELU, shortcut)
        return attn_tail_inference(last(y, NO_ACT), shortcut, self._excitation, "relu", overwrite=True)

    def _prepare(self, x: Tensor) -> Convs:
        """Make the projection, the first convolutions and the last one for the shape of x."""
        if len(self._convs) >= _MAX_SHAPES:
            self._convs = {}
        projection = None if self._projection is None else self._projection.prepared(x)
        y, first = x, []
        for fold in self._folds[:-1]:
            first.append(fold.prepared(y))
            y = first[-1](y, _RELU)
        self._convs[x.shape] = projection, first, self._folds[-1].prepared(y)
        return self._convs[x.shape]

    def _count_changes(self) -> int:
        # torch does not count a move to other memory, as by `.to()`; `data_ptr` shows it.
        return sum(map(_version, self._tensors)) + sum(map(Tensor.data_ptr, self._tensors))


def plan_takes(x: Tensor) -> bool:
    """Whether a plan can run for x now: an fp32 map in channels_last on a CPU, without gradients."""
    return is_cpu_inference(x) and x.dtype == torch.float32 and onednn_takes(x) and not _has_any_global_hook()
