"""What a model costs: parameters, MACs, memory for the backward, passes over the maps at the ends of its blocks.

Nothing is computed: shapes are propagated on the meta device and in fake tensors, which takes a second for a large net.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from seattn.blocks.attended.insert import find_stages
from seattn.evaluation.hooks import recorded
from seattn.evaluation.profile.passes import Tail, attention_layers, find_tails
from seattn.models.listing import Costs, our_models
from seattn.ops import set_kernels
from seattn.ops._tail.run import as_in_large_batches

STEM, HEAD = "stem", "head"


@dataclass(frozen=True)
class Units:
    """The rows of a profile in order, and the modules of each row.

    Args:
        names: the names of the rows.
        roots: name of a module -> its row, to which all modules below it belong, too.
    """

    names: tuple[str, ...]
    roots: dict[str, str] = field(default_factory=dict)

    def row_of(self, module: str) -> str:
        """The row of the module, parameter or buffer with this name; the first row if it is below no root."""
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            if (row := self.roots.get(".".join(parts[:length]))) is not None:
                return row
        return self.names[0]


def find_units(model: nn.Module) -> Units:
    """The stages that hold residual blocks of a known kind, with "stem" before and "head" after them.

    In a net without such blocks, each child with parameters is a row.
    """
    stages = {_stage_of(site.name) for sites in find_stages(model) for site in sites} - {""}
    if stages:
        roots = dict(_split(model, "", stages))
    else:
        roots = {name: name for name, child in model.named_children() if next(child.parameters(), None) is not None}
    return Units(tuple(dict.fromkeys(roots.values())) or (STEM,), roots)


def _stage_of(block: str) -> str:
    """The module that holds the block, or the numbered module above that: stages.0 for stages.0.blocks.1."""
    stage = block.rpartition(".")[0]
    above, _, last = stage.rpartition(".")
    return above if above.rpartition(".")[2].isdecimal() and not last.isdecimal() else stage


def _split(module: nn.Module, prefix: str, stages: set[str]) -> Iterator[tuple[str, str]]:
    """(name, row) of every module below `module`, which is not a stage but contains one."""
    row = STEM
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        if any(stage.startswith(f"{name}.") for stage in stages):
            yield from _split(child, f"{name}.", stages)
            row = HEAD
        elif name in stages or child_name.isdecimal():  # a numbered module beside a stage is a row like a stage
            yield name, name
            row = HEAD
        else:
            yield name, row


def _called_modules(model: nn.Module, units: Units) -> dict[str, str]:
    """Name of each root -> its row. A ModuleList is never called: the modules in it take its place."""
    rows: dict[str, str] = {}
    for root, row in units.roots.items():
        module = model.get_submodule(root)
        names = [f"{root}.{name}" for name, _ in module.named_children()]
        rows.update(dict.fromkeys(names if isinstance(module, nn.ModuleList) else [root], row))
    return rows


TOTAL = "total"


@dataclass(frozen=True)
class Stage:
    """One part of a net; all fields but parameters and passes are for the images of the profile's batch.

    Args:
        name: "stem", the name of a stage's module, "head"; "total" for the whole net.
        parameters, attention_parameters: their numbers; the parameters of attention are among the former.
        macs, attention_macs: multiply-accumulate operations of convolutions and matrix products, half of their FLOPs.
        activation_bytes: memory kept for the backward in fp32, each storage once, without parameters.
        blocks: number of residual blocks of a known kind, or of attention layers where there are no such blocks.
        passes, passes_backward: reads and writes of maps at the ends of these blocks and by their attention, summed
            over the blocks, with Triton kernels wherever the model calls one of seattn's operators.
        bytes_moved: bytes of these passes in fp32, forward and backward.
        eager_passes, eager_passes_backward, eager_bytes_moved: the same numbers if each step runs by itself.
    """

    name: str
    parameters: int = 0
    attention_parameters: int = 0
    macs: int = 0
    attention_macs: int = 0
    activation_bytes: int = 0
    blocks: int = 0
    passes: float = 0.0
    passes_backward: float = 0.0
    bytes_moved: float = 0.0
    eager_passes: float = 0.0
    eager_passes_backward: float = 0.0
    eager_bytes_moved: float = 0.0


@dataclass(frozen=True)
class Profile:
    """The costs of a net by part.

    Args:
        input_size: (channels, height, width) of an image.
        batch: number of images that the numbers are for.
        stages: the parts in the order of the forward pass.
        uncounted: types of attention whose passes are not known, and are therefore not counted.
    """

    input_size: tuple[int, int, int]
    batch: int
    stages: tuple[Stage, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> Stage:
        """The sum over the parts."""
        names = [field.name for field in fields(Stage)[1:]]
        return Stage(TOTAL, **{name: sum(getattr(stage, name) for stage in self.stages) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """The fields and the total as plain values, for JSON."""
        return {**asdict(self), TOTAL: asdict(self.total)}


def profile(model: nn.Module, input_size: tuple[int, int, int] | None = None, batch: int = 1) -> Profile:
    """The costs of `model`, with memory and passes of a training step; the model is not changed.

    Args:
        model: any net of images, on any device, also on the meta device.
        input_size: (channels, height, width); by default the model's channels and the side of its pretrained cfg.
        batch: number of images that MACs and bytes are given for.

    Raises:
        ValueError: if a number is below 1, or no size is given and the model has no pretrained cfg with a size.
    """
    size = _input_size(model, input_size)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    model = copy.deepcopy(model).to("meta").train()
    units = find_units(model)
    tails, attention = find_tails(model), attention_layers(model)
    parameters, attention_parameters = _count_parameters(model, units, attention)
    macs, attention_macs, shapes = _count_macs(model, units, attention, tails, size, batch)
    # Bytes grow linearly with the images; a batch norm needs two of them in training.
    two, three = (_activation_bytes(model, units, size, images) for images in (2, 3))
    stages = tuple(
        Stage(
            name,
            parameters=parameters[name],
            attention_parameters=attention_parameters[name],
            macs=macs[name],
            attention_macs=attention_macs[name],
            activation_bytes=two[name] + (batch - 2) * (three[name] - two[name]),
            **_traffic([tail for tail in tails if units.row_of(tail.name) == name], shapes, batch),
        )
        for name in units.names
    )
    return Profile(size, batch, stages, tuple(sorted({tail.unknown for tail in tails if tail.unknown})))


def parameters_and_macs(model: nn.Module) -> tuple[int, int]:
    """The totals of `profile(model)` that do not depend on training, in a fraction of its time."""
    model = copy.deepcopy(model).to("meta")
    macs, _, _ = _count_macs(model, Units((TOTAL,)), {}, [], _input_size(model, None), 1)
    return sum(parameter.numel() for parameter in model.parameters()), macs[TOTAL]


def _input_size(model: nn.Module, given: tuple[int, int, int] | None) -> tuple[int, int, int]:
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    size = cfg.get("input_size") if given is None else given
    if size is None:
        raise ValueError(f"{type(model).__name__} has no pretrained_cfg with an input_size; give input_size=(C, H, W)")
    channels, height, width = (int(number) for number in size)
    if given is None:
        channels = int(getattr(model, "in_chans", channels))  # of a net made with another in_chans than its cfg's
    if min(channels, height, width) < 1:
        raise ValueError(f"input_size must be three numbers of at least 1, (C, H, W); got {tuple(size)}")
    return channels, height, width


def _count_parameters(
    model: nn.Module, units: Units, attention: dict[str, nn.Module]
) -> tuple[Counter[str], Counter[str]]:
    """Parameters by row, each shared parameter once, and those of attention layers among them."""
    inside = {id(parameter) for layer in attention.values() for parameter in layer.parameters()}
    total, attention_total = Counter[str](), Counter[str]()
    for name, parameter in model.named_parameters():
        total[units.row_of(name)] += parameter.numel()
        if id(parameter) in inside:
            attention_total[units.row_of(name)] += parameter.numel()
    return total, attention_total


def _count_macs(
    model: nn.Module,
    units: Units,
    attention: dict[str, nn.Module],
    tails: list[Tail],
    size: tuple[int, int, int],
    batch: int,
) -> tuple[Counter[str], Counter[str], dict[str, torch.Size]]:
    """MACs by row, those of attention layers among them, and the shape of each tail's map by the tail's name."""
    ends = {tail.name: tail for tail in tails}
    counter = FlopCounterMode(display=False)

    def shape(name: str, inputs: tuple[Any, ...], output: Any) -> torch.Size:
        x: Tensor = inputs[0] if ends[name].of_input else output
        return x.shape

    model.eval()
    modules = {name: model.get_submodule(name) for name in ends}
    # The meta device has no kernels; the reference runs there, and consists of products that are counted.
    with torch.no_grad(), set_kernels("reference"), recorded(modules, shape) as shapes, counter:
        model(torch.empty(batch, *size, device="meta"))
    model.train()
    counts = counter.get_flop_counts()

    def macs(name: str) -> int:
        return int(sum(counts.get(f"{type(model).__name__}.{name}", {}).values())) // 2

    total, attention_total = Counter[str](), Counter[str]()
    for name, row in _called_modules(model, units).items():
        total[row] += macs(name)
    total[units.names[0]] += counter.get_total_flops() // 2 - total.total()  # products outside of all rows' modules
    for name in attention:
        attention_total[units.row_of(name)] += macs(name)
    return total, attention_total, dict(shapes)


def _activation_bytes(model: nn.Module, units: Units, size: tuple[int, int, int], images: int) -> Counter[str]:
    """Memory that a forward pass in training keeps for the backward, by row."""
    saved: dict[int, Tensor] = {}  # by storage; the tensors are held, so that no address is used twice
    bytes_by_row: Counter[str] = Counter()
    row = units.names[0]

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own and storage._cdata not in saved:
            saved[storage._cdata] = x
            bytes_by_row[row] += storage.nbytes()
        return x

    def enter(name: str, *_: Any) -> None:
        nonlocal row
        row = rows[name]

    rows = _called_modules(model, units)
    modules = {name: model.get_submodule(name) for name in rows}
    with FakeTensorMode(), torch.enable_grad(), set_kernels("torch"), as_in_large_batches():
        tensors = {name: _in_fp32(t) for name, t in chain(model.named_parameters(), model.named_buffers())}
        own = {t.untyped_storage()._cdata for t in tensors.values()}
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        with recorded(modules, enter, before=True), hooks:
            functional_call(model, tensors, (torch.empty(images, *size),))
    return bytes_by_row


def _in_fp32(t: Tensor) -> Tensor:
    """A tensor without values on the CPU, in float32 where `t` has a floating-point type."""
    dtype = torch.float32 if t.is_floating_point() else t.dtype
    return torch.empty(t.shape, dtype=dtype, device="cpu").requires_grad_(t.requires_grad)


def _traffic(tails: list[Tail], shapes: dict[str, torch.Size], batch: int) -> dict[str, Any]:
    """The fields of `Stage` on the passes of the tails of one row; maps have a shape (B, C, H, W) and are fp32."""
    ends = [tail for tail in tails if not tail.of_input]
    traffic: dict[str, Any] = Counter({"blocks": len(ends or tails)})
    for tail in tails:
        shape = shapes.get(tail.name)
        if shape is None:  # the module is never called
            continue
        map_bytes = 4 * shape.numel()
        passes, eager = tail.passes(shape[1], map_bytes / batch), tail.eager_passes()
        traffic["passes"] += passes.forward
        traffic["passes_backward"] += passes.backward
        traffic["bytes_moved"] += map_bytes * sum(passes)
        traffic["eager_passes"] += eager.forward
        traffic["eager_passes_backward"] += eager.backward
        traffic["eager_bytes_moved"] += map_bytes * sum(eager)
    return traffic


def number(value: float) -> str:
    """A number with three significant digits and k, M or G; a whole number below 1000 has no decimals."""
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * unit:
            return f"{value / unit:.{digits(value / unit)}f} {letter}"
    return f"{value:.{0 if value == int(value) else 1}f}"


def digits(value: float) -> int:
    return 2 if value < 9.995 else 1 if value < 99.95 else 0


def measure_costs() -> dict[str, Costs]:
    """The costs of every net, counted now."""
    return {name: measure_cost(name) for name in our_models()}


def measure_cost(name: str) -> Costs:
    """The costs of one net, counted now."""
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    parameters, macs = parameters_and_macs(model)
    return Costs(parameters, macs, tuple(model.pretrained_cfg["input_size"]))
