"""One update of the weights from a group of micro-batches: gradients, sharpness-aware minimisation, clipping, step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.utils import NativeScaler, dispatch_clip_grad
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seattn.core.errors import UserError

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits (B, K), target, x) -> ()


class Updater:
    """Updates the weights of `model` from a group of `grad_accum_steps` batches.

    Args:
        model: the net, which may be wrapped and compiled.
        loss: the loss of the logits, the targets and the input.
        amp: torch.bfloat16, torch.float16 (timm's scaler then scales the gradients) or None.
        clip_grad, clip_mode: as in timm.
        sam_rho: radius of sharpness-aware minimisation, Foret et al., ICLR 2021, https://arxiv.org/abs/2010.01412,
            algorithm 1. Batch norm's running statistics are those of the first of its two gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        device: torch.device,
        *,
        amp: torch.dtype | None = None,
        clip_grad: float | None = None,
        clip_mode: str = "norm",
        sam_rho: float | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss, self.device, self.amp = model, optimizer, loss, device, amp
        self.clip_grad, self.clip_mode, self.sam_rho = clip_grad, clip_mode, sam_rho
        self.scaler = NativeScaler(device=device.type) if amp is torch.float16 else None

    def __call__(self, group: Sequence[Batch]) -> Tensor:
        """Take one step; returns the mean loss, shape (), of the group before the step."""
        self.optimizer.zero_grad()
        total = self._gradients(group)
        if self.sam_rho is not None:
            with self._ascended_weights(), _unchanged_statistics(self.model):
                self.optimizer.zero_grad()
                self._gradients(group)
        if self.scaler is None:
            if self.clip_grad is not None:
                dispatch_clip_grad(self._parameters(), self.clip_grad, self.clip_mode)
            self.optimizer.step()
        return total

    def _gradients(self, group: Sequence[Batch]) -> Tensor:
        total = torch.zeros((), device=self.device)
        for i, (x, target) in enumerate(group):
            last = i == len(group) - 1
            with nullcontext() if last else self._without_sync():
                with self._autocast():
                    loss = self.loss(self.model(x), target, x) / len(group)
                if self.scaler is None:
                    loss.backward()
                else:
                    self.scaler(
                        loss,
                        self.optimizer,
                        clip_grad=self.clip_grad,
                        clip_mode=self.clip_mode,
                        parameters=self._parameters(),
                        need_update=last,
                    )
            total += loss.detach()
        return total

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.amp is None else torch.autocast(self.device.type, self.amp)

    def _without_sync(self) -> AbstractContextManager[Any]:
        """Do not average gradients over processes; the last micro-batch of a group averages their sum."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    @contextmanager
    def _ascended_weights(self) -> Iterator[None]:
        """Move the weights w to w + rho g / |g| while the body runs: the step from w takes the gradient there."""
        assert self.sam_rho is not None
        pairs = [(p, p.grad) for p in self._parameters() if p.grad is not None]
        before = [p.detach().clone() for p, _ in pairs]
        with torch.no_grad():
            norm = torch.nn.utils.get_total_norm([grad for _, grad in pairs])
            for p, grad in pairs:
                p.add_(grad * (self.sam_rho / (norm + 1e-12)))
        try:
            yield
        finally:
            with torch.no_grad():
                for (p, _), value in zip(pairs, before, strict=True):
                    p.copy_(value)


def check_finite(losses: Tensor, epoch: int, lr: float, run: Path) -> None:
    """Raise UserError if a loss is not finite, naming the first such step of the epoch; `epoch` counts from 0."""
    if not losses.isfinite().all():
        step = int((~losses.isfinite()).nonzero()[0])
        raise UserError(
            f"the loss became {float(losses[step])} at step {step + 1} of epoch {epoch + 1}; lower lr (now {lr}) and "
            f"continue from the last good epoch in {run} or start again"
        )


@contextmanager
def _unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norm as they are while the body runs."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.momentum is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
