"""Nets in two processes of DistributedDataParallel on gloo: the gradients are those of one process."""

import copy

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import seattn
from tests.helpers.nets import images

SMALL = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 16), "num_classes": 5}


def own():
    return timm.create_model("se_resnet20_cifar", zero_init_last=False)


def added():
    return seattn.add_attention(timm.create_model("resnet18", zero_init_last=False, **SMALL), "cbam")


def accelerated():
    return seattn.accelerate(timm.create_model("ecaresnet26t", zero_init_last=False), verbose=False)


NETS = {make.__name__: make for make in (own, added, accelerated)}


def net_of(name):
    torch.manual_seed(0)
    return NETS[name]().double().train()


def batches():
    return images(8, side=32, dtype=torch.float64).chunk(2)


def loss_of(y):
    return (y * torch.arange(y.shape[1], dtype=y.dtype).cos()).sum() / len(y)


def one_process(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        for name in NETS:
            net = net_of(name)
            ddp = DistributedDataParallel(net, broadcast_buffers=False)
            for _ in range(2):  # a second step uses the buckets that the first has made
                net.zero_grad()
                y = ddp(batches()[rank])
                loss_of(y).backward()
            grads = [p.grad for p in net.parameters()]
            torch.save((y.detach(), grads, net.state_dict()), f"{folder}/{name}-{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    spawn(one_process, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_the_mean_over_the_batches(name, folder):
    expected = []
    for rank, x in enumerate(batches()):
        net = net_of(name)
        for _ in range(2):
            net.zero_grad()
            y = net(x)
            loss_of(y).backward()
        found, _, state = torch.load(folder / f"{name}-{rank}.pt")
        torch.testing.assert_close(found, y.detach(), rtol=1e-12, atol=1e-12)
        for key, value in net.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-12, atol=1e-12)
        expected.append([p.grad for p in net.parameters()])
    for rank in range(2):
        _, grads, _ = torch.load(folder / f"{name}-{rank}.pt")
        for grad, first, second in zip(grads, *expected, strict=True):
            mean = (first + second) / 2
            assert (grad - mean).norm() <= 1e-10 * mean.norm() + 1e-12


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", NETS)
def test_a_synchronised_norm_runs_as_torch_runs_it(name, training):
    """No op takes a SyncBatchNorm for a BatchNorm2d. In one process both compute the same."""
    plain = net_of(name).train(training)
    net = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    with torch.no_grad():
        torch.testing.assert_close(net(batches()[0]), plain(batches()[0]), rtol=1e-10, atol=1e-12)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value, rtol=1e-10, atol=1e-12)
