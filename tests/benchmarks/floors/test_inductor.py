"""Inductor's kernels counted in its code for CUDA, where no CUDA is."""

import pytest

pytest.importorskip("triton", reason="needs triton")
import torch
from torch import nn

from benchmarks.floors import inductor
from seattn.core.errors import UserError

CODE = """
def partition_0(args):
    triton_poi_fused_before.run(a)
def call(self, args):
    buf0 = extern_kernels.convolution(primals_1, primals_2, stride=(1, 1))
    # Topologically Sorted Source Nodes: [mean], Original ATen: [aten.mean]
    triton_per_fused_mean_0.run(buf1, 4, stream=raw_stream0)
    extern_kernels.addmm(primals_3, buf1, out=buf2)
    assert_tensor_metadata(buf0, (1, 2), (2, 1), torch.float32, 'torch.ops.aten.convolution.default')
    buf3 = torch.ops.aten.convolution_backward.default(buf2, primals_1, [64])
    buf4 = buf3[0]
"""


def test_calls_are_found_once_each_in_the_order_of_the_code():
    assert inductor.calls(CODE) == ["convolution", "triton_per_fused_mean_0", "addmm", "convolution_backward"]


class Steps(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv(x).mul(2).add(1).relu()


def test_inductor_fuses_for_a_gpu_that_is_not_here():
    module = Steps().to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    (called,) = inductor.count_compiled(module, x, training=False)
    assert [name.split("_")[0] for name in called] == ["convolution", "triton"]  # three steps in one kernel
    forward, backward = inductor.count_compiled(module, x, training=True)
    assert "convolution" in forward
    assert "convolution_backward" in backward
    assert not torch.cuda.is_initialized()


def test_a_torch_with_other_internals_is_named(monkeypatch):
    def missing(*_):
        raise AttributeError("module has no attribute 'GraphLowering'")

    monkeypatch.setattr(inductor, "_codes", missing)
    with pytest.raises(UserError, match=f"torch {torch.__version__.split('+')[0]}.* compiles nothing .*GraphLowering"):
        inductor.count_compiled(Steps(), torch.randn(1, 4, 8, 8), training=True)
