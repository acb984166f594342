"""The T-passes of a profile: as kernels/README.md has them, and as torch's own operators make them."""

import re
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import EcaModule, SEModule
from timm.layers.cbam import CbamModule
from timm.models.resnet import BasicBlock
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import seattn
from seattn.evaluation.profile.costs import profile
from seattn.evaluation.profile.passes import EAGER, ONE_PROGRAM, Passes, ProfileOperator
from tests.evaluation.profile.test_costs import meta

ROOT = Path(__file__).resolve().parents[3]

# (net, options, passes of a block forward and backward, eager)
PASSES = {
    "plain": ("resnet20_cifar", {}, (4, 7), (8, 8)),
    "se": ("se_resnet20_cifar", {}, (4, 7), (11, 18)),
    "eca": ("eca_resnet20_cifar", {}, (4, 7), (11, 18)),
    "cbam": ("cbam_resnet20_cifar", {}, (3 + 6 + 5, 5 + 10 + 3), (16, 39.5)),
    "se-pre": ("se_resnet20_cifar", {"attn_placement": "pre"}, (3 + 2 + 5, 5 + 3 + 3), (11, 18)),
    "se-in-the-first-stage": ("se_resnet20_cifar", {"attn_stages": (1,)}, (4, 7), (9, 34 / 3)),
    "se-in-all-but-one-before-drop-path": (
        *("se_resnet20_cifar", {"drop_path_rate": 0.1}),  # norm and SE in one op; timm's rate starts at 0
        ((4 + 8 * (3 + 2 + 3 + 2)) / 9, (7 + 8 * (5 + 2 + 0 + 3)) / 9),
        ((11 + 8 * 13) / 9, (18 + 8 * 20) / 9),
    ),
    "timms-plain": ("resnet18", {}, (8, 8), (8, 8)),
    "timms-se": ("seresnet18", {}, (11, 18), (11, 18)),
    "timms-plain-bottleneck": ("resnet26", {}, (8, 8), (8, 8)),
    "preact-plain": ("preact_resnet18_cifar", {}, (3, 0), (3, 0)),
}


@pytest.mark.parametrize(("name", "options", "own", "eager"), PASSES.values(), ids=PASSES)
def test_passes_of_a_block(name, options, own, eager):
    total = profile(meta(name, **options)).total
    assert (total.passes / total.blocks, total.passes_backward / total.blocks) == pytest.approx(own)
    assert (total.eager_passes / total.blocks, total.eager_passes_backward / total.blocks) == pytest.approx(eager)


def test_accelerated_nets_move_less():
    model = timm.create_model("seresnet18")
    seattn.accelerate(model, verbose=False)
    total = profile(model).total
    assert (total.passes, total.passes_backward) == (4 * total.blocks, 7 * total.blocks)
    assert total.bytes_moved / total.eager_bytes_moved == pytest.approx(11 / 29)


def test_one_program_a_sample_where_a_map_is_small():
    by_stage = {stage.name: stage for stage in profile(meta("se_preact_resnet18_cifar")).stages}
    first, second = by_stage["stages.0"], by_stage["stages.1"]  # 64 x 32 x 32 and 128 x 16 x 16
    assert (first.passes / first.blocks, first.passes_backward / first.blocks) == (4, 4)
    assert (second.passes / second.blocks, second.passes_backward / second.blocks) == (3, 3)


def test_bytes_moved_are_passes_times_maps():
    maps = 4 * 3 * (16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8)  # fp32, three blocks a stage
    total = profile(meta("se_resnet20_cifar")).total
    assert (total.bytes_moved, total.eager_bytes_moved) == (11 * maps, 29 * maps)


def test_attention_without_numbers_is_named():
    found = profile(meta("resnet18", block_args={"attn_layer": "gc"}))
    assert found.uncounted == ("GlobalContext",)
    assert found.total.attention_parameters > 0
    assert (found.total.passes, found.total.passes_backward) == (8 * 8, 8 * 8)


# Rows of kernels/README.md's table "Counted" and the operator that each is; the second number is what memory sees.
DOCUMENTED = {
    "SE, one program a sample": (ProfileOperator("se", 4, False, False, False), True),
    "SE + add + ReLU, one program a sample": (ProfileOperator("se", 4, False, True, True), True),
    "SE, in passes": (ProfileOperator("se", 4, False, False, False), False),
    "SE + add + ReLU, in passes": (ProfileOperator("se", 4, False, True, True), False),
    "ECA + add + ReLU": (ProfileOperator("eca", 0, False, True, True), True),
    "**batch norm + SE + add + ReLU**": (ProfileOperator("se", 4, True, True, True), True),
    "batch norm + ECA + add + ReLU": (ProfileOperator("eca", 0, True, True, True), True),
    "batch norm + add + ReLU": (ProfileOperator("", 0, True, True, True), True),
}


@pytest.mark.parametrize("row", DOCUMENTED)
def test_the_operators_passes_are_the_documented_ones(row):
    operator, small = DOCUMENTED[row]
    lines = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8").splitlines()
    (cells,) = (line.split("|")[2:4] for line in lines if line.startswith(f"| {row} |"))
    forward, backward = (int(re.findall(r"\d+", cell)[-1]) for cell in cells)
    assert operator.passes(64, 1e3 if small else 1e9) == Passes(forward, backward)


def test_the_limits_of_one_program_are_the_kernels():
    pytest.importorskip("triton", reason="needs triton")
    from seattn_kernels._layout import SAMPLE_LIMITS

    assert (SAMPLE_LIMITS.channels, SAMPLE_LIMITS.hidden, SAMPLE_LIMITS.sample_bytes) == ONE_PROGRAM
    assert SAMPLE_LIMITS.images == 96


class Traffic(TorchDispatchMode):
    """Maps that torch's operators read and write, in units of one map of `size` bytes."""

    def __init__(self, size):
        super().__init__()
        self.size, self.passes = size, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            maps = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            sizes = [min(t.nbytes, t.untyped_storage().nbytes()) / self.size for t in maps]  # an expanded one is small
            sizes = [size for size in sizes if size > 0.2]  # a mask is a quarter of an fp32 map
            again = {"native_batch_norm": 1, "native_batch_norm_backward": 2}  # maps that these read twice
            self.passes += sum(sizes) + (again.get(func._schema.name.removeprefix("aten::"), 0) if sizes else 0)
        return out


STEPS = {
    "norm": (nn.BatchNorm2d(64), ["norm"]),
    "se": (SEModule(64, rd_channels=4), ["gate"]),
    "eca": (EcaModule(64), ["gate"]),
    "cbam": (CbamModule(64), ["cbam"]),
    "act": (nn.ReLU(), ["act"]),
    "block": (None, ["norm", "gate", "add", "act"]),
}


@pytest.mark.parametrize("step", STEPS)
def test_eager_passes_are_those_of_torchs_operators(step):
    module, parts = STEPS[step]
    x, shortcut = (torch.randn(8, 64, 16, 16, requires_grad=True) for _ in range(2))
    block = BasicBlock(64, 64, attn_layer=lambda c, **dd: SEModule(c, rd_channels=4, **dd))

    def tail(x):
        y = block.se(block.bn2(x))
        y += shortcut
        return block.act2(y)

    inner = x.clone()
    with Traffic(x.nbytes) as forward:
        y = tail(inner) if module is None else module(inner)
    dy = torch.randn_like(y)
    with Traffic(x.nbytes) as backward:
        torch.autograd.grad(y, [inner, shortcut] if module is None else [inner], dy)
    expected = [sum(EAGER[part][direction] for part in parts) for direction in (0, 1)]
    assert [forward.passes, backward.passes] == expected
