"""One of two processes that train in step; a module of its own, so that the other process imports no test."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seattn.ops import set_kernels, squeeze_excite_add_act


class SEHalf(nn.Module):
    """A convolution and an SE tail without a norm, whose gradient is the mean of those of the halves of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8, 2), nn.Linear(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        c = self.conv(x)
        return squeeze_excite_add_act(c, c, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)


def net_and_images() -> tuple[SEHalf, Tensor]:
    torch.manual_seed(0)
    return SEHalf(), torch.randn(8, 3, 6, 6)


def step(_: int, rank: int, meeting: str) -> dict[str, Tensor]:
    """The gradients of one step on every second image, averaged over both processes."""
    limit = timedelta(seconds=120)  # for the other one to come, and to fail by if it does not
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=limit)
    try:
        net, x = net_and_images()
        with set_kernels("torch"):
            ddp = nn.parallel.DistributedDataParallel(net)
            ddp(x[rank::2]).square().mean().backward()
        return {name: p.grad for name, p in net.named_parameters()}
    finally:
        dist.destroy_process_group()
