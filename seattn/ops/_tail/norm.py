"""The batch norm of a tail: its arguments as in torch.nn.functional.batch_norm, its definition, its running statistics.

Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167. Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seattn.ops._checks import check_vector
from seattn.ops._maps import cast
from seattn_kernels.arguments import Norm


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Arguments of `torch.nn.functional.batch_norm` after the input, (C) each. `momentum` is never None here."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float
    eps: float

    def check(self, x: Tensor, *, prefix: str = "") -> None:
        """Raise ValueError unless sizes and devices fit x (N, C, H, W) and the numbers are in range.

        Args:
            x: the input of the norm.
            prefix: the text before "weight" and "bias" in a message.
        """
        channels = x.shape[1]
        check_vector("running_mean", self.running_mean, channels, x)
        check_vector("running_var", self.running_var, channels, x)
        check_vector(f"{prefix}weight", self.weight, channels, x)
        check_vector(f"{prefix}bias", self.bias, channels, x)
        if (self.running_mean is None) != (self.running_var is None):
            raise ValueError("running_mean and running_var must be given together, or neither")
        if not self.training and self.running_mean is None:
            raise ValueError("running_mean and running_var must be given where training is False")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in 0..1; got {self.momentum}")
        if not self.eps >= 0:
            raise ValueError(f"eps must be at least 0; got {self.eps}")
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] <= 1:
            raise ValueError(f"x must have more than one value a channel where training is True; got {tuple(x.shape)}")

    def for_operator(self, dtype: torch.dtype) -> Norm:
        """The norm for an operator: weights in `dtype`, and the running statistics unless training uses the batch's."""
        weight, bias = cast(self.weight, dtype), cast(self.bias, dtype)
        if self.training:
            return Norm("batch", weight, bias, None, None, self.eps)
        return Norm("frozen", weight, bias, cast(self.running_mean, dtype), cast(self.running_var, dtype), self.eps)

    def as_factor_and_offset(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(C) each: the norm of x with the running statistics is x * factor + offset."""
        assert self.running_mean is not None
        assert self.running_var is not None
        factor = (self.running_var.to(dtype) + self.eps).rsqrt()
        factor = factor if self.weight is None else factor * self.weight.to(dtype)
        offset = -factor * self.running_mean.to(dtype)
        return factor, offset if self.bias is None else offset + self.bias.to(dtype)

    def running_update(self, x: Tensor) -> Callable[[tuple[Tensor, ...]], None] | None:
        """A function that moves the running statistics towards those of x (N, C, H, W); None if they do not move.

        It takes the results of an operator, of which the last two are the mean and the biased variance of x.
        """
        mean, var = self.running_mean, self.running_var
        if not self.training or mean is None or var is None:
            return None
        values = x.shape[0] * x.shape[2] * x.shape[3]

        def update(results: tuple[Tensor, ...]) -> None:
            batch_mean, batch_var = results[-2:]
            with torch.no_grad():
                mean.mul_(1 - self.momentum).add_(batch_mean, alpha=self.momentum)
                var.mul_(1 - self.momentum).add_(batch_var, alpha=self.momentum * values / (values - 1))

        return update


def batch_norm_reference(x: Tensor, norm: BatchNorm, dtype: torch.dtype) -> Tensor:
    """The norm of x in `dtype`; updates the running statistics where training."""
    mean, var = cast(norm.running_mean, dtype), cast(norm.running_var, dtype)
    weight, bias = cast(norm.weight, dtype), cast(norm.bias, dtype)
    y = F.batch_norm(x.to(dtype), mean, var, weight, bias, norm.training, norm.momentum, norm.eps)
    if norm.training:
        for running, moved in ((norm.running_mean, mean), (norm.running_var, var)):
            if running is not None and moved is not None and running is not moved:
                running.copy_(moved)
    return y


def batch_norm(x: Tensor, norm: BatchNorm) -> Tensor:
    """The norm of x by torch, in the dtype of x, statistics in fp32; updates the running statistics where training."""
    dtypes = {t.dtype for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias) if t is not None}
    if x.element_size() < 4 and dtypes - {torch.float32}:
        return batch_norm_reference(x, norm, torch.float32).to(x.dtype)  # torch mixes x only with fp32
    if x.element_size() >= 4 and dtypes - {x.dtype}:
        return batch_norm_reference(x, norm, x.dtype)
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps
    )
