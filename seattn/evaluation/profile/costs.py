"""What a model costs: parameters, MACs, memory for the backward, passes over the maps at the ends of its blocks.

Nothing is computed: shapes are followed on the meta device and in fake tensors, so a large net takes a second.

The parts of a net that a profile has a row for: stem, stages, head.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from seattn.blocks.attended.insert import find_stages
from seattn.evaluation.profile.passes import Tail, attention_layers, find_tails
from seattn.models.listing import Costs, our_models
from seattn.ops import set_kernels

STEM, HEAD = "stem", "head"


@dataclass(frozen=True)
class Units:
    """The rows, in the order of the modules, and which modules belong to which.

    Args:
        names: of the rows.
        roots: name of a module -> row; whatever stands below such a module belongs to the same row.
    """

    names: tuple[str, ...]
    roots: dict[str, str] = field(default_factory=dict)

    def of(self, module: str) -> str:
        """The row of the module, parameter or buffer called `module`; what belongs to no part goes to the first."""
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            if (row := self.roots.get(".".join(parts[:length]))) is not None:
                return row
        return self.names[0]


def find_units(model: nn.Module) -> Units:
    """The stages that hold residual blocks of a known kind, with "stem" before and "head" after them.

    In a net without such blocks every child that holds parameters is a row by its own name.
    """
    stages = {_stage_of(site.name) for sites in find_stages(model) for site in sites} - {""}
    if stages:
        roots = dict(_split(model, "", stages))
    else:
        roots = {name: name for name, child in model.named_children() if _holds_parameters(child)}
    return Units(tuple(dict.fromkeys(roots.values())) or (STEM,), roots)


def _stage_of(block: str) -> str:
    """The module that holds the block, or the numbered one above it: stages.0 for stages.0.blocks.1."""
    stage = block.rpartition(".")[0]
    above, _, last = stage.rpartition(".")
    return above if above.rpartition(".")[2].isdecimal() and not last.isdecimal() else stage


def _split(module: nn.Module, prefix: str, stages: set[str]) -> Iterator[tuple[str, str]]:
    """(module, row) of everything below `module`, which is no stage but has one below."""
    row = STEM
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        if any(stage.startswith(f"{name}.") for stage in stages):
            yield from _split(child, f"{name}.", stages)
            row = HEAD
        elif name in stages or child_name.isdecimal():  # beside a stage in one list of them
            yield name, name
            row = HEAD
        else:
            yield name, row


def _holds_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


@contextmanager
def entered(model: nn.Module, units: Units, tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell(row)` whenever a forward pass inside the `with` block comes to a module of a row."""

    def watch(module: nn.Module, row: str) -> Iterator[RemovableHandle]:
        if isinstance(module, nn.ModuleList):  # is never called; those that it holds are
            for child in module:
                yield from watch(child, row)
        else:
            yield module.register_forward_pre_hook(lambda *_: tell(row))

    handles = [handle for name, row in units.roots.items() for handle in watch(model.get_submodule(name), row)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


TOTAL = "total"


@dataclass(frozen=True)
class Stage:
    """One part of a net; all but parameters and passes are for the images of the profile's batch.

    Args:
        name: "stem", the name of a stage's module, "head"; "total" for the whole net.
        parameters, attention_parameters: numbers of them; attention's are among the former.
        macs, attention_macs: multiplications with addition in convolutions and matrices, half of their FLOPs.
        activation_bytes: kept for the backward in fp32, each piece of memory once, parameters left out.
        blocks: residual blocks of a known kind, or attention layers where there are no such blocks.
        passes, passes_backward: reads and writes of maps at the ends of these blocks and by their attention, summed
            over the blocks, with Triton kernels wherever the model calls one of seattn's operators.
        bytes_moved: by those passes in fp32, forward and backward.
        eager_passes, eager_passes_backward, eager_bytes_moved: the same if each step ran by itself.
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
        batch: images that the numbers are for.
        stages: in the order of the forward pass.
        uncounted: types of attention whose passes are known to nobody here, so that they are left out.
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
        """For JSON: the fields and the total."""
        return {**asdict(self), TOTAL: asdict(self.total)}


def profile(model: nn.Module, input_size: tuple[int, int, int] | None = None, batch: int = 1) -> Profile:
    """What `model` costs, in training for memory and passes; it stays as it is.

    Args:
        model: any net of images, on any device, the meta device too.
        input_size: (channels, height, width); by default that of its pretrained cfg.
        batch: images that MACs and bytes are given for.

    Raises:
        ValueError: if a number is below 1, or no size is given and the model has no cfg that says it.
    """
    size = _input_size(model, input_size)
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    model = copy.deepcopy(model).to("meta").train()
    units = find_units(model)
    tails, attention = find_tails(model), attention_layers(model)
    sums = {name: Counter[str]() for name in units.names}
    _count_parameters(model, units, attention, sums)
    shapes = _count_macs(model, units, attention, tails, size, batch, sums)
    two, three = (_activation_bytes(model, units, size, images) for images in (2, 3))  # a norm needs two in training
    for name in units.names:
        # Linear in the images: what they share, like the statistics of norms, and what each one adds.
        sums[name]["activation_bytes"] = two[name] + (batch - 2) * (three[name] - two[name])
    stages = []
    for name in units.names:
        own = [tail for tail in tails if units.of(tail.name) == name]
        stages.append(Stage(name, **{**sums[name], **_traffic(own, shapes, batch)}))
    unknown = sorted({tail.unknown for tail in tails if tail.unknown})
    return Profile(size, batch, tuple(stages), tuple(unknown))


def parameters_and_macs(model: nn.Module) -> tuple[int, int]:
    """The totals of `profile(model)` that do not depend on training, in a fraction of its time."""
    units = Units(("",))
    sums = {"": Counter[str]()}
    model = copy.deepcopy(model).to("meta")
    _count_parameters(model, units, {}, sums)
    _count_macs(model, units, {}, [], _input_size(model, None), 1, sums)
    return sums[""]["parameters"], sums[""]["macs"]


def _input_size(model: nn.Module, given: tuple[int, int, int] | None) -> tuple[int, int, int]:
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    size = cfg.get("input_size") if given is None else given
    if size is None:
        raise ValueError(f"{type(model).__name__} has no pretrained_cfg with an input_size; give input_size=(C, H, W)")
    channels, height, width = (int(number) for number in size)
    if min(channels, height, width) < 1:
        raise ValueError(f"input_size must be three numbers of at least 1, (C, H, W); got {tuple(size)}")
    return channels, height, width


def _count_parameters(
    model: nn.Module, units: Units, attention: dict[str, nn.Module], sums: dict[str, Counter[str]]
) -> None:
    inside = {id(p) for layer in attention.values() for p in layer.parameters()}
    for name, p in model.named_parameters():  # a shared one once
        count = sums[units.of(name)]
        count["parameters"] += p.numel()
        count["attention_parameters"] += p.numel() if id(p) in inside else 0


def _count_macs(
    model: nn.Module,
    units: Units,
    attention: dict[str, nn.Module],
    tails: list[Tail],
    size: tuple[int, int, int],
    batch: int,
    sums: dict[str, Counter[str]],
) -> dict[str, torch.Size]:
    """Put the MACs into `sums`; the shapes of the maps of all tails that were met, by name."""
    shapes: dict[str, torch.Size] = {}
    starts: dict[str, int] = {}
    counter = FlopCounterMode(display=False)
    row, before = units.names[0], 0

    def come_to(name: str) -> None:
        nonlocal row, before
        now = counter.get_total_flops()
        sums[row]["macs"] += (now - before) // 2
        row, before = name, now

    def start(name: str) -> None:
        starts[name] = counter.get_total_flops()

    def finish(name: str) -> None:
        sums[units.of(name)]["attention_macs"] += (counter.get_total_flops() - starts[name]) // 2

    handles: list[RemovableHandle] = []
    for name, layer in attention.items():
        handles.append(layer.register_forward_pre_hook(lambda *_, n=name: start(n)))
        handles.append(layer.register_forward_hook(lambda *_, n=name: finish(n)))
    for tail in tails:
        module = model.get_submodule(tail.name)
        handles.append(module.register_forward_hook(lambda _, x, y, t=tail: _note(shapes, t, x[0], y)))
    model.eval()
    try:
        # Only the reference has shapes on the meta device; it is made of the products that are counted.
        with torch.no_grad(), set_kernels("reference"), entered(model, units, come_to), counter:
            model(torch.empty(batch, *size, device="meta"))
    finally:
        model.train()
        for handle in handles:
            handle.remove()
    come_to(row)
    return shapes


def _note(shapes: dict[str, torch.Size], tail: Tail, x: Any, y: Any) -> None:
    shapes[tail.name] = (x if tail.of_input else y).shape


def _activation_bytes(model: nn.Module, units: Units, size: tuple[int, int, int], images: int) -> Counter[str]:
    """Memory that a forward pass in training keeps for the backward, by part."""
    kept: dict[int, Tensor] = {}  # by storage; held, so that no address comes twice
    found: Counter[str] = Counter()
    row = units.names[0]

    def come_to(name: str) -> None:
        nonlocal row
        row = name

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own and storage._cdata not in kept:
            kept[storage._cdata] = x
            found[row] += storage.nbytes()
        return x

    with FakeTensorMode(), _on_cpu(model) as fake, set_kernels("torch"), entered(fake, units, come_to):
        own = {t.untyped_storage()._cdata for t in (*fake.parameters(), *fake.buffers())}
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            fake(torch.empty(images, *size))
    return found


@contextmanager
def _on_cpu(model: nn.Module) -> Iterator[nn.Module]:
    """The model with CPU tensors of its shapes in fp32, fake ones inside a FakeTensorMode; meta again afterwards."""
    former = [(part, part._parameters.copy(), part._buffers.copy()) for part in model.modules()]
    new: dict[int, Tensor] = {}

    def make(t: Tensor) -> Tensor:
        dtype = torch.float32 if t.is_floating_point() else t.dtype
        empty = torch.empty(t.shape, dtype=dtype, device="cpu")
        return nn.Parameter(empty, t.requires_grad) if isinstance(t, nn.Parameter) else empty

    for part, parameters, buffers in former:
        for tensors in (parameters, buffers):
            mapping: Any = part._parameters if tensors is parameters else part._buffers
            for name, t in tensors.items():
                if t is not None:
                    mapping[name] = new.setdefault(id(t), make(t))
    try:
        yield model
    finally:
        for part, parameters, buffers in former:
            part._parameters.update(parameters)
            part._buffers.update(buffers)


def _traffic(tails: list[Tail], shapes: dict[str, torch.Size], batch: int) -> dict[str, Any]:
    """The fields of `Stage` on passes, of the tails of one part; maps are of a shape (B, C, H, W) in fp32."""
    ends = [tail for tail in tails if not tail.of_input]
    found: dict[str, Any] = Counter({"blocks": len(ends or tails)})
    for tail in tails:
        shape = shapes.get(tail.name)
        if shape is None:  # never called
            continue
        bytes_ = 4 * shape.numel()
        own, eager = tail.passes(shape[1], bytes_ / batch), tail.eager_passes()
        found["passes"] += own.forward
        found["passes_backward"] += own.backward
        found["bytes_moved"] += bytes_ * sum(own)
        found["eager_passes"] += eager.forward
        found["eager_passes_backward"] += eager.backward
        found["eager_bytes_moved"] += bytes_ * sum(eager)
    return found


def number(value: float) -> str:
    """Three digits or all below 1000, with the letter of the thousand."""
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
