"""Passes over memory, counted: the bytes of whole maps that an interpreted run loads and stores.

T is one map's bytes. Shapes are no multiple of any tile, so masked lanes would show.
"""

import os
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("triton", reason="needs triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("counts in Triton's interpreter", allow_module_level=True)

from tests.kernels._count_bytes import Traffic, counted
from tests.kernels._tail_reference import Config
from tests.kernels.test_attn_tail_launcher import FORMATS, backward, force, forward, gradient_for, make

SHAPE = (2, 67, 5, 7, 6, 3)  # (N, C, H, W, R, k)


class Op(NamedTuple):
    """A tail and what it moves, in T: asked for, and in memory while a program's sample stays in cache."""

    config: Config
    shortcut: bool
    plan: str
    forward: tuple[int, int]  # (issued, distinct)
    backward: tuple[int, int]
    launches: tuple[int, int]  # of Triton kernels, forward and backward


OPS = {
    # One program a sample: the second read of x, and of g or dy, is the one that the cache serves.
    "se": Op(Config(out_act="identity"), False, "sample", (3, 2), (4, 3), (1, 1)),
    "se-tail": Op(Config(), True, "sample", (4, 3), (6, 5), (1, 1)),
    "frozen-bn-se-tail": Op(Config(norm="frozen"), True, "sample", (4, 3), (6, 6), (1, 5)),
    # A kernel a pass: no program touches an address twice, so both counts are the same.
    "se-in-passes": Op(Config(out_act="identity"), False, "passes", (3, 3), (4, 4), (4, 4)),
    "se-tail-in-passes": Op(Config(), True, "passes", (4, 4), (6, 6), (4, 4)),
    "eca-tail": Op(Config(kind="eca"), True, "passes", (4, 4), (6, 6), (3, 4)),
    "ese-tail": Op(Config(kind="ese"), True, "passes", (4, 4), (6, 6), (3, 3)),
    # The batch's statistics bring the squeeze: attention costs no pass over the plain tail.
    "bn-tail": Op(Config(kind="none", norm="batch"), True, "passes", (4, 4), (7, 7), (3, 3)),
    "bn-se-tail": Op(Config(norm="batch"), True, "passes", (4, 4), (7, 7), (5, 5)),
    "bn-eca-tail": Op(Config(kind="eca", norm="batch"), True, "passes", (4, 4), (7, 7), (4, 5)),
    "bn-ese-tail": Op(Config(kind="ese", norm="batch"), True, "passes", (4, 4), (7, 7), (4, 4)),
    "frozen-bn-tail": Op(Config(kind="none", norm="frozen"), True, "passes", (3, 3), (6, 6), (1, 3)),
}


def traffic_of(op: Op, memory_format, dtype, monkeypatch) -> tuple[Traffic, Traffic]:
    """Forward's and backward's."""
    force(op.plan, monkeypatch)
    inputs = make(SHAPE, op.config, dtype, memory_format, shortcut=op.shortcut)
    dy = gradient_for(inputs.x)
    with counted(inputs.x, monkeypatch) as forward_traffic:
        results = forward(inputs, op.config)
    with counted(inputs.x, monkeypatch) as backward_traffic:
        backward(dy, inputs, op.config, results)
    return forward_traffic, backward_traffic


@pytest.mark.cover(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_maps_pass_as_often_as_stated(op, memory_format, dtype, monkeypatch):
    forward, backward = traffic_of(op, memory_format, dtype, monkeypatch)
    assert (forward.issued, forward.distinct) == op.forward, forward.per_kernel()
    assert (backward.issued, backward.distinct) == op.backward, backward.per_kernel()
    assert (len(forward.launches), len(backward.launches)) == op.launches, (forward.launches, backward.launches)
    assert forward.torch_ops == backward.torch_ops == []  # nothing passes over a map outside the kernels


def test_each_kernel_moves_its_share(monkeypatch):
    forward, backward = traffic_of(OPS["bn-se-tail"], torch.channels_last, torch.bfloat16, monkeypatch)
    assert forward.per_kernel() == {"moments_kernel": 1, "apply_kernel": 3}
    assert backward.per_kernel() == {"reduce_kernel": 4, "apply_grad_kernel": 3}
    assert {arg for _, arg in backward.stored} == {"g_ptr", "dx_ptr"}


def test_the_count_sees_a_copy_and_a_pass_by_torch(monkeypatch):
    x = torch.ones(SHAPE[:4])
    with counted(x, monkeypatch) as traffic:
        x.transpose(2, 3).contiguous()
        x.mul(2)
    assert traffic.torch_ops == ["aten.transpose.int", "aten.clone.default", "aten.mul.Tensor"]
