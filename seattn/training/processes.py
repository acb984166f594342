"""The processes of one run, as PyTorch's launcher starts them: `torchrun --nproc-per-node N -m seattn train ...`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from timm.utils import distribute_bn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seattn.core.errors import UserError

T = TypeVar("T")


class Distributed:
    """This process among those of the run: alone, unless the launcher has set RANK and WORLD_SIZE.

    Attributes:
        rank: 0 writes files and logs.
        world: number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._local_rank = int(os.environ.get("LOCAL_RANK", 0))

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def many(self) -> bool:
        """Whether there is another one."""
        return self.world > 1

    def device(self, wanted: str | None) -> str:
        """The device of this process: with "cuda" and many processes, each its own."""
        name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
        return f"cuda:{self._local_rank}" if name == "cuda" and self.many else name

    @contextmanager
    def group(self, device: torch.device) -> Iterator[None]:
        """The processes connected, over NCCL on CUDA and gloo elsewhere.

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
                raise UserError(
                    f"another process of the run ended ({str(error).splitlines()[0]}); go on with --resume"
                ) from error
            raise
        finally:
            dist.destroy_process_group()

    def wrap(self, model: nn.Module, device: torch.device, *, sync_bn: bool) -> nn.Module:
        """The model that trains: with gradients averaged over the processes, and batch norm's statistics too.

        Raises:
            UserError: if synchronised batch norm is asked for off CUDA.
        """
        if not self.many:
            return model
        if sync_bn:
            if device.type != "cuda":
                raise UserError("sync_bn: torch synchronises batch norm on CUDA only; dist_bn: reduce works anywhere")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def share_norms(self, how: str, *models: nn.Module | None) -> None:
        """Give all processes the same running statistics: their mean ("reduce") or the first one's ("broadcast")."""
        for model in models:
            if self.many and how and model is not None:
                distribute_bn(model, self.world, how == "reduce")

    def mean(self, value: torch.Tensor) -> float:
        """Of one number of each process."""
        if self.many:
            dist.all_reduce(value)
            value = value / self.world
        return float(value)

    def from_first(self, value: T) -> T:
        """What the first process has."""
        if not self.many:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box)
        result: T = box[0]
        return result

    def wait(self) -> None:
        """Until all are here."""
        if self.many:
            dist.barrier()
