"""The batch norm of a tail: its arguments as in torch.nn.functional.batch_norm, its definition, its running statistics.

Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167. Shapes: B images, C channels, H x W pixels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._checks import check_vector


class BatchNorm(NamedTuple):
    """Arguments of `torch.nn.functional.batch_norm` after the input, (C) each; `momentum` is never None here."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float
    eps: float


def check_batch_norm(norm: BatchNorm, x: Tensor) -> None:
    """ValueError for sizes, devices, a momentum or an eps that cannot be meant."""
    for name in ("running_mean", "running_var", "weight", "bias"):
        check_vector(name, getattr(norm, name), x.shape[1], x)
    if (norm.running_mean is None) != (norm.running_var is None):
        raise ValueError("running_mean and running_var must be given together, or neither")
    if not norm.training and norm.running_mean is None:
        raise ValueError("running_mean and running_var must be given where training is False")
    if not 0 <= norm.momentum <= 1:
        raise ValueError(f"momentum must be in 0..1; got {norm.momentum}")
    if not norm.eps >= 0:
        raise ValueError(f"eps must be at least 0; got {norm.eps}")
    values = x.shape[0] * x.shape[2] * x.shape[3]
    if norm.training and values <= 1:
        raise ValueError(f"x must have more than one value a channel where training is True; got {tuple(x.shape)}")


def batch_norm_reference(x: Tensor, norm: BatchNorm, dtype: torch.dtype) -> Tensor:
    """The norm of x in `dtype`, running statistics updated where training."""
    running = (norm.running_mean, norm.running_var)
    mean, var = (None if r is None else r.to(dtype) for r in running)
    weight, bias = (None if p is None else p.to(dtype) for p in (norm.weight, norm.bias))
    y = F.batch_norm(x.to(dtype), mean, var, weight, bias, norm.training, norm.momentum, norm.eps)
    if norm.training:
        for given, new in zip(running, (mean, var), strict=True):
            if given is not None and new is not None and given is not new:
                given.copy_(new)
    return y


def batch_norm(x: Tensor, norm: BatchNorm) -> Tensor:
    """The norm of x by torch, in the dtype of x, statistics in fp32; running statistics updated where training."""
    if x.element_size() < 4 and any(t is not None and t.dtype != torch.float32 for t in norm[:4]):
        return batch_norm_reference(x, norm, torch.float32).to(x.dtype)  # torch mixes x with fp32, nothing else
    if any(t is not None and t.dtype != x.dtype for t in norm[:4]) and x.element_size() >= 4:
        return batch_norm_reference(x, norm, x.dtype)
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    )


@torch.no_grad()
def update_running(norm: BatchNorm, mean: Tensor, var: Tensor, values: int) -> None:
    """Move the running statistics towards those of a batch of `values` numbers a channel; its variance is unbiased."""
    if norm.running_mean is None or norm.running_var is None:
        return
    keep = 1 - norm.momentum
    norm.running_mean.mul_(keep).add_(mean, alpha=norm.momentum)
    norm.running_var.mul_(keep).add_(var, alpha=norm.momentum * values / (values - 1))
