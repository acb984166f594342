"""The processes of one run, as PyTorch's launcher starts them: `torchrun --nproc-per-node N -m seattn train ...`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.utils import distribute_bn, reduce_tensor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seattn.core.device import default_device
from seattn.core.errors import UserError, first_line

T = TypeVar("T")


class Distributed:
    """The processes of one run. There is only one process unless the launcher has set RANK and WORLD_SIZE.

    Attributes:
        rank: the number of this process; process 0 writes files and logs.
        world: the number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._local_rank = int(os.environ.get("LOCAL_RANK", 0))

    @property
    def first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    @property
    def many(self) -> bool:
        """Whether the run has more than one process."""
        return self.world > 1

    def device(self, wanted: str | None) -> str:
        """The name of this process' device; with "cuda" and many processes, each process has a device of its own."""
        name = wanted or default_device()
        return f"cuda:{self._local_rank}" if name == "cuda" and self.many else name

    @contextmanager
    def group(self, device: torch.device) -> Iterator[None]:
        """Connect the processes, over NCCL on CUDA and over gloo elsewhere.

        Raises:
            UserError: if another process of the run ended.
        """
        if not self.many:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield
        except (dist.DistError, RuntimeError) as error:
            if isinstance(error, dist.DistError) or "peer" in str(error) or "Connection" in str(error):
                message = f"another process of the run ended ({first_line(error)}); resume with --resume"
                raise UserError(message) from error
            raise
        finally:
            dist.destroy_process_group()

    def wrap(self, model: nn.Module, device: torch.device, *, sync_bn: bool) -> nn.Module:
        """Make `model` average its gradients over the processes, and with `sync_bn` batch norm's statistics too.

        Raises:
            UserError: if `sync_bn` is asked for on a device other than CUDA.
        """
        if not self.many:
            return model
        if sync_bn:
            if device.type != "cuda":
                raise UserError("sync_bn: torch synchronises batch norm on CUDA only; dist_bn: reduce works anywhere")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def share_norms(self, how: str, *models: nn.Module | None) -> None:
        """Give all processes the same running statistics: the mean ("reduce") or the first process' ("broadcast")."""
        for model in models:
            if self.many and how and model is not None:
                distribute_bn(model, self.world, how == "reduce")

    def mean(self, value: torch.Tensor) -> float:
        """The mean of `value` over all processes."""
        return float(reduce_tensor(value, self.world) if self.many else value)

    def from_first(self, value: T) -> T:
        """The first process' value, in all processes."""
        values: list[Any] = [value]
        if self.many:
            dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have called this method."""
        if self.many:
            dist.barrier()
