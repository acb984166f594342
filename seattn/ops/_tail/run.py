"""Channel attention, alone or as the tail of a residual block: contract, definition and choice for all such ops.

Each public op is a function from its arguments to a `Tail`. Shapes: N images, C channels, H x W pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor
from torch.compiler import is_compiling

from seattn.ops._checks import check_map, check_out_act, check_shortcut
from seattn.ops._kernel import choose, get_kernels, too_large
from seattn.ops._maps import cast, column, compute_dtype
from seattn.ops._operator import no_autocast, public_op, wants_grad
from seattn.ops._tail.excitation import Excitation
from seattn.ops._tail.in_torch import attn_tail_inference
from seattn.ops._tail.norm import BatchNorm, batch_norm, batch_norm_reference
from seattn.ops._tail.operator import attn_tail, flatten
from seattn_kernels.arguments import NO_NORM

# The hand-written tail computes the norm, too, for maps of at least this number of elements. A training step of an SE
# block with a smaller map is faster with torch's norm: chosen by timings on an AMD EPYC with AVX-512.
NORM_INSIDE_FROM = 3 << 17


class Tail(NamedTuple):
    """The arguments of `run` and of `reference`."""

    x: Tensor
    shortcut: Tensor | None
    excitation: Excitation
    norm: BatchNorm | None = None
    out_act: str = "identity"


def run(
    x: Tensor,
    shortcut: Tensor | None,
    excitation: Excitation,
    norm: BatchNorm | None,
    out_act: str,
    *,
    overwrite: bool = False,
) -> Tensor:
    """out_act(scale * norm(x) + shortcut), scale = excite(mean(norm(x))), by the implementation that `choose` gives.

    Args:
        overwrite: the caller no longer needs x. If no gradient is wanted, the result may use the memory of x.

    Raises:
        ValueError: for shapes that do not fit, mixed devices, a dtype that is not floating point or an unknown name.
        RuntimeError: if the kernels are set to "triton" or "torch" and that implementation cannot run.
    """
    check_map(x)
    if shortcut is not None:
        check_shortcut(shortcut, x)
    excitation.check(x)
    check_out_act(out_act)
    if norm is not None:
        norm.check(x)
    implementation = choose(x, too_large)
    if implementation == "reference":
        form = for_compilers if is_compiling() and get_kernels() == "auto" else reference
        return form(x, shortcut, excitation, norm, out_act)
    shortcut = cast(shortcut, x.dtype)
    if norm is not None and implementation == "torch" and not _norm_inside_pays(x, excitation, norm.training):
        x, norm, overwrite = batch_norm(x, norm), None, True
        if excitation.kind == "none":
            x = x if shortcut is None else x.add_(shortcut)
            return x.relu_() if out_act == "relu" else x
    e = excitation.in_dtype(compute_dtype(x))
    if norm is None and implementation == "torch" and not wants_grad(x, shortcut, e.w1, e.b1, e.w2, e.b2):
        with no_autocast(x):
            return attn_tail_inference(x, shortcut, e, out_act, overwrite=overwrite)
    arguments = NO_NORM if norm is None else norm.for_operator(compute_dtype(x))
    then = None if norm is None else norm.running_update(x)
    return attn_tail(implementation, *flatten(x, shortcut, e, arguments, out_act), then=then)[0]


def infer(
    x: Tensor, shortcut: Tensor | None, excitation: Excitation, out_act: str, *, overwrite: bool = False
) -> Tensor:
    """`run` without its checks, for modules whose parts fit together; `is_cpu_inference(x)` must be true."""
    e = excitation.in_dtype(x.dtype)
    return attn_tail_inference(x, cast(shortcut, x.dtype), e, out_act, overwrite=overwrite)


def leaves_norm_to_torch(x: Tensor, excitation: Excitation, training: bool) -> bool:
    """Whether `run` would give a norm of x to torch's operator. A caller that does this itself can free x."""
    return choose(x, too_large) == "torch" and not _norm_inside_pays(x, excitation, training)


@contextmanager
def as_in_large_batches() -> Iterator[None]:
    """A `with` block in which maps of any size are worked on as large ones are."""
    global NORM_INSIDE_FROM
    before, NORM_INSIDE_FROM = NORM_INSIDE_FROM, 0
    try:
        yield
    finally:
        NORM_INSIDE_FROM = before


def _norm_inside_pays(x: Tensor, excitation: Excitation, training: bool) -> bool:
    """Whether the torch functions should compute the norm too, and not leave it to torch's operator.

    False without attention, where torch's operator and two steps in place are fastest; with given statistics, for which
    torch's operator makes one pass; in 16 bit, where a hand-written norm loses digits between its steps or, in
    fp32, takes memory; and for a small map, where a pass takes less time than the additional small steps.
    """
    return excitation.kind != "none" and training and x.element_size() >= 4 and x.numel() >= NORM_INSIDE_FROM


def reference(
    x: Tensor, shortcut: Tensor | None, excitation: Excitation, norm: BatchNorm | None, out_act: str
) -> Tensor:
    """The definition, in fp32 (float64 for a float64 x) with one rounding at the end, under autocast too."""
    dtype = compute_dtype(x)
    y = x.to(dtype) if norm is None else batch_norm_reference(x, norm, dtype)
    if excitation.kind != "none":
        y = y * excitation.reference(y.mean((2, 3)))[:, :, None, None]
    y = y if shortcut is None else y + shortcut
    return (y.relu() if out_act == "relu" else y).to(x.dtype)


def for_compilers(
    x: Tensor, shortcut: Tensor | None, excitation: Excitation, norm: BatchNorm | None, out_act: str
) -> Tensor:
    """The definition in the form that inductor fuses best: no step needs a map in fp32, or a normalised map, in memory.

    Inductor computes in fp32 what it fuses, and keeps a value in memory that two loops share. So nothing but x is
    shared: the mean of a norm with given statistics is computed from the mean of x. A norm in training works in the
    dtype of x, as timm's does, with its sums in fp32.
    """
    dtype = compute_dtype(x)
    if norm is not None and (norm.training or excitation.kind == "none"):
        x, norm = batch_norm(x, norm), None
    y = x
    if excitation.kind != "none":
        mean = x.mean((2, 3), dtype=dtype)  # (N, C)
        if norm is None:
            y = x * excitation.reference(mean)[:, :, None, None].to(x.dtype)
        else:
            factor, offset = norm.as_factor_and_offset(dtype)  # (C) each
            scale = excitation.reference(mean * factor + offset)
            y = x * column(scale * factor, x) + column(scale * offset, x)
    y = y if shortcut is None else y + shortcut
    return (y.relu() if out_act == "relu" else y).to(x.dtype)


tail_op = public_op(run)
