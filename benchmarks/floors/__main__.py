"""Compute the floors of all kernels on GPUs, and count the launches of a block: `python -m benchmarks.floors`.

No GPU is needed and nothing is timed. Every op is recorded on fake tensors, and each of its kernels is compiled for
each device. The folder benchmarks/results/floors gets a row for every launch (kernels.csv) and for every block
(launches.csv), from which `make cards` renders the tables of kernels/README.md.
"""

# mypy: disable-error-code="import-untyped"
# (triton has no types)

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import timm
import torch
import triton
from timm.layers import EcaModule, SEModule
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from benchmarks._command import Parser, command
from benchmarks.floors.binaries import Usage, build, usage_of
from benchmarks.floors.devices import DEVICES, Device
from benchmarks.floors.inductor import count_compiled
from benchmarks.floors.launches import Launch, Recorded, fake_gpu, record
from benchmarks.floors.rows import FLOORS, LAUNCHES, FloorRow, LaunchRow, limits
from benchmarks.speed.ops import OPS, Function, Shape, eca_weights, se_weights
from benchmarks.speed.timing import FORMATS
from seattn import ops
from seattn.core.files import require_writable, write_text
from seattn.core.records import render_rows

# Stages of ResNet-20 and ResNet-18 for CIFAR at 1,024 images, and of ResNet-50 at 256. Together they take every row of
# every table of tiles.
CIFAR: tuple[Shape, ...] = ((1024, 64, 32, 32), (1024, 128, 16, 16), (1024, 256, 8, 8), (1024, 512, 4, 4))
SHAPES: dict[str, tuple[Shape, ...]] = {
    "channels_last": ((1024, 16, 32, 32), (1024, 32, 16, 16), *CIFAR, (256, 256, 56, 56), (256, 2048, 7, 7)),
    "contiguous": CIFAR,
}
# The ops that have a kernel or a tile of their own in NCHW; the other ops have rows in channels_last only.
OF_NCHW = ("se_tail", "bn_se_tail", "cbam_channel", "cbam_spatial", "channel_gate")
DTYPE = torch.bfloat16
BLOCK_SHAPE: Shape = (128, 128, 16, 16)  # of the second stage of ResNet-18 for CIFAR
BLOCKS = {"plain": None, "se": "se", "eca": "eca", "cbam": "cbam"}  # and timm's name of the attention


def floor_rows(
    shapes: Mapping[str, Sequence[Shape]] = SHAPES,
    cases: Sequence[str] | None = None,
    devices: Sequence[Device] = DEVICES,
) -> Iterator[FloorRow]:
    """A row for every Triton launch of the ops, or of `cases`, for every shape of a memory format and every device."""
    usages: dict[tuple[str, str], Usage] = {}
    for memory_format, sizes in shapes.items():
        own = cases if cases is not None or memory_format == "channels_last" else OF_NCHW
        for shape in sizes:
            for case, mode, recorded in recorded_ops(shape, memory_format, own):
                for (i, launch), device in product(enumerate(recorded.kernels), devices):
                    key = (device.target, repr(launch.specialization))
                    if key not in usages:
                        usages[key] = usage_of(build(launch, device.target))
                    yield _floor(device, case, mode, shape, memory_format, i, launch, usages[key])


def _floor(
    device: Device, case: str, mode: str, shape: Shape, memory_format: str, i: int, launch: Launch, usage: Usage
) -> FloorRow:
    found = limits(
        device,
        programs=launch.programs,
        num_warps=launch.num_warps,
        registers=usage.registers,
        shared=usage.shared,
        bytes_moved=launch.bytes_moved,
    )
    return FloorRow(
        device=device.name,
        case=case,
        mode=mode,
        shape="x".join(map(str, shape)),
        dtype=str(DTYPE).removeprefix("torch."),
        memory_format=memory_format,
        launch=i,
        kernel=launch.name,
        tile=launch.tile,
        programs=launch.programs,
        num_warps=launch.num_warps,
        bytes_moved=launch.bytes_moved,
        triton=triton.__version__,
        **asdict(usage),
        **asdict(found),
    )


def recorded_ops(
    shape: Shape, memory_format: str, cases: Sequence[str] | None = None
) -> Iterator[tuple[str, str, Recorded]]:
    """(name, mode, launches) of every op, or of `cases`: forward and backward of training, inference of tails."""
    with fake_gpu():
        x, shortcut, dy = (
            torch.empty(shape, dtype=DTYPE).contiguous(memory_format=FORMATS[memory_format]) for _ in range(3)
        )
        x.requires_grad_()
        shortcut.requires_grad_()
        for case, (function, parameters) in _functions(shape).items():
            if cases is None or case in cases:
                call = partial(function, x, shortcut)
                forward, backward = _both(call, [x, shortcut, *parameters], dy)
                yield case, "forward", forward
                yield case, "backward", backward
        for case, function in _inference(shape).items():
            if cases is None or case in cases:
                with torch.no_grad():
                    yield case, "inference", record(partial(function, x, shortcut))


def _both(call: Callable[[], Tensor], inputs: Sequence[Tensor], dy: Tensor) -> tuple[Recorded, Recorded]:
    """What the forward and the backward of `call` launch; the backward computes the gradients of `inputs`."""
    outputs: list[Tensor] = []
    forward = record(lambda: outputs.append(call()))
    return forward, record(lambda: torch.autograd.grad(outputs, inputs, dy, allow_unused=True))


def _functions(shape: Shape) -> dict[str, tuple[Function, Sequence[Tensor]]]:
    """Our side of the timed ops with its fp32 weights, as under autocast; and the channel gate alone."""
    pairs = {name: op.make(shape[1], torch.empty(0)) for name, op in OPS.items()}
    logits = torch.empty(shape[:2], requires_grad=True)
    functions: dict[str, tuple[Function, Sequence[Tensor]]] = {
        name: (pair.ours, pair.parameters) for name, pair in pairs.items()
    }
    return {**functions, "channel_gate": (lambda x, _: ops.channel_gate(x, logits), [logits])}


def _inference(shape: Shape) -> dict[str, Function]:
    """The tails with a norm whose statistics are given."""
    channels = shape[1]
    norm = nn.BatchNorm2d(channels)
    args = norm.running_mean, norm.running_var, norm.weight, norm.bias
    se, eca = se_weights(SEModule(channels)), eca_weights(EcaModule(channels))
    return {
        "plain_tail": lambda x, shortcut: ops.batch_norm_add_act(x, shortcut, *args, training=False),
        "bn_se_tail": lambda x, shortcut: ops.batch_norm_squeeze_excite_add_act(
            x, shortcut, *args, *se, training=False
        ),
        "bn_eca_tail": lambda x, shortcut: ops.batch_norm_efficient_channel_attn_add_act(
            x, shortcut, *args, *eca, training=False
        ),
    }


def launch_rows() -> Iterator[LaunchRow]:
    """The launches of a block with each attention: ours, timm's in eager mode, and timm's under torch.compile."""
    for block, attn in BLOCKS.items():
        prefix = "" if attn is None else f"{attn}_"
        ours = timm.create_model(f"{prefix}resnet18_cifar").get_submodule("layer2.1")
        theirs = BasicBlock(BLOCK_SHAPE[1], BLOCK_SHAPE[1], attn_layer=attn)
        for name, module in (("seattn", ours), ("timm_eager", theirs)):
            for mode, recorded in recorded_block(module).items():
                yield _launches(block, mode, name, len(recorded.kernels), len(recorded.operators))
        for training in (True, False):
            x = torch.zeros(BLOCK_SHAPE).contiguous(memory_format=torch.channels_last)
            called = count_compiled(theirs.to(memory_format=torch.channels_last), x, training=training)
            for mode, names in zip(("forward", "backward") if training else ("inference",), called, strict=True):
                kernels = sum(name.startswith("triton_") for name in names)
                yield _launches(block, mode, "timm_compile", kernels, len(names) - kernels)


def recorded_block(module: nn.Module) -> dict[str, Recorded]:
    """The launches of a block in fp32 and channels_last, by mode: forward, backward, inference."""
    with fake_gpu() as mode:
        fakes: dict[str, torch.Tensor] = {
            name: mode.from_tensor(tensor) for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        x = torch.empty(BLOCK_SHAPE).contiguous(memory_format=torch.channels_last).requires_grad_()

        def call() -> Any:
            return torch.func.functional_call(module, fakes, (x,))

        module.train()
        leaves = [x, *(fake for fake in fakes.values() if fake.requires_grad)]
        forward, backward = _both(call, leaves, torch.empty_like(x))
        module.eval()
        with torch.no_grad():
            return {"forward": forward, "backward": backward, "inference": record(call)}


def _launches(block: str, mode: str, implementation: str, kernels: int, operators: int) -> LaunchRow:
    return LaunchRow(
        block=block,
        mode=mode,
        shape="x".join(map(str, BLOCK_SHAPE)),
        dtype="float32",
        implementation=implementation,
        kernels=kernels,
        operators=operators,
        torch=torch.__version__,
        triton=triton.__version__,
    )


@command("floors")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=FLOORS.parent, help="the folder of both files")
    out = parser.parse_args(arguments).out
    require_writable(out, keep=False)
    floors: list[FloorRow] = []
    for row in floor_rows():
        if not floors or floors[-1].shape != row.shape:
            print(f"floors: {row.shape} {row.memory_format}", flush=True)
        floors.append(row)
    launches = list(launch_rows())
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / FLOORS.name, render_rows(FloorRow, floors))
    write_text(out / LAUNCHES.name, render_rows(LaunchRow, launches))
    print(f"floors: {len(floors)} rows of kernels, {len(launches)} of blocks; all files are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
