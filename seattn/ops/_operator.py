"""One operator from a forward and a backward function: in eager an autograd function, in traced code a custom op.

`torch.library.custom_op` pairs compile, export and pass opcheck, but cost more to dispatch than a plain
`torch.autograd.Function`; so eager calls take the function and only traced ones the op. Both call the same Python.
Differentiable once: `create_graph=True` raises.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils._python_dispatch import _get_current_dispatch_mode

from seattn.ops._kernel import INTERPRETED
from seattn.ops._namespace import NAMESPACE

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Operator:
    """A forward, a backward, and how the one feeds the other.

    Args:
        name: `torch.ops.seattn.<name>_fwd` and `_bwd`; the namespace is `NAMESPACE`.
        fwd_schema, bwd_schema: arguments and results as torch.library writes them. The first result of the forward is
            the one that has a gradient; the rest is for the backward and for `shown`.
        fwd, bwd: by implementation, "torch" and "triton".
        fwd_fake, bwd_fake: results of the right shapes, dtypes and strides, without values.
        keep: (inputs, outputs of the forward) -> (tensors, constants): what the backward takes after the gradient.
        grads: (gradient, whether each input needs one, constants, results of the backward) -> a gradient or None for
            each input of the forward.
        shown: how many results of the forward the caller sees.
    """

    name: str
    fwd_schema: str
    bwd_schema: str
    fwd: dict[str, Callable[..., Outputs]]
    bwd: dict[str, Callable[..., Outputs]]
    fwd_fake: Callable[..., Outputs]
    bwd_fake: Callable[..., Outputs]
    keep: Callable[[tuple[Any, ...], Outputs], tuple[tuple[Tensor | None, ...], tuple[Any, ...]]]
    grads: Callable[[Tensor, tuple[bool, ...], tuple[Any, ...], Outputs], tuple[Tensor | None, ...]]
    shown: int


def define(op: Operator) -> Callable[..., Outputs]:
    """Register `op` and return run(implementation, *inputs), which gives the first `shown` results."""
    _register(op)
    functions = {kind: _autograd_function(op, kind) for kind in op.fwd}
    fwd_op = getattr(getattr(torch.ops, NAMESPACE), f"{op.name}_fwd").default

    def run(implementation: str, *inputs: Any) -> Outputs:
        if _is_traced(inputs[0]) and implementation == "triton":
            return tuple(fwd_op(*inputs)[: op.shown])
        if not wants_grad(*inputs):  # an autograd function costs as much as a small tail on a CPU
            return _guarded(op.fwd[implementation], *inputs)[: op.shown]
        result: Outputs = functions[implementation].apply(*inputs)
        return result

    return run


def wants_grad(*inputs: Any) -> bool:
    """Whether autograd would record an operator of these inputs."""
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in inputs)


def _is_traced(x: Tensor) -> bool:
    # Under a dispatch mode or in a subclass (fake tensors, DTensor) there may be no memory for a kernel to read.
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or _get_current_dispatch_mode() is not None
    )


def _autograd_function(op: Operator, kind: str) -> Any:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            outputs = _guarded(op.fwd[kind], *inputs)
            tensors, ctx.constants = op.keep(inputs, outputs)
            ctx.save_for_backward(*tensors)
            ctx.mark_non_differentiable(*outputs[1 : op.shown])
            return outputs[: op.shown]

        @staticmethod
        def backward(ctx: Any, dy: Tensor, *_: Tensor | None) -> Any:
            if torch.is_grad_enabled():  # once_differentiable would let a gradient of a gradient be 0 without a word
                raise RuntimeError(
                    f"seattn's {op.name} is differentiable once, and create_graph=True asks for more; "
                    "set_kernels('reference') gives it"
                )
            grads = _guarded(op.bwd[kind], dy, *ctx.saved_tensors, *ctx.constants)
            return op.grads(dy, ctx.needs_input_grad, ctx.constants, grads)

    Function.__name__ = Function.__qualname__ = f"{op.name}"
    return Function


def _register(op: Operator) -> None:
    fwd_op = custom_op(
        f"{NAMESPACE}::{op.name}_fwd",
        partial(_guarded, op.fwd["triton"]),
        mutates_args=(),
        device_types="cuda",
        schema=op.fwd_schema,
    )
    bwd_op = custom_op(
        f"{NAMESPACE}::{op.name}_bwd",
        partial(_guarded, op.bwd["triton"]),
        mutates_args=(),
        device_types="cuda",
        schema=op.bwd_schema,
    )
    # An exported graph runs anywhere: on the CPU the same steps in torch, or Triton where TRITON_INTERPRET=1 is set.
    on_cpu = "triton" if INTERPRETED else "torch"
    fwd_op.register_kernel("cpu")(partial(_guarded, op.fwd[on_cpu]))
    bwd_op.register_kernel("cpu")(partial(_guarded, op.bwd[on_cpu]))
    fwd_op.register_fake(op.fwd_fake)
    bwd_op.register_fake(op.bwd_fake)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        tensors, ctx.constants = op.keep(inputs, output)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        run = getattr(getattr(torch.ops, NAMESPACE), f"{op.name}_bwd").default
        return op.grads(dy, ctx.needs_input_grad, ctx.constants, run(dy, *ctx.saved_tensors, *ctx.constants))

    fwd_op.register_autograd(backward, setup_context=setup_context)


def _guarded(fn: Callable[..., Outputs], first: Tensor, *rest: Any) -> Outputs:
    """`fn` without autocast, which would lower its small products, and on the device of its first argument."""
    # Triton launches on the current device, which need not be that of the tensors.
    elsewhere = first.is_cuda and first.device.index != torch.cuda.current_device()
    with torch.cuda.device(first.device) if elsewhere else nullcontext(), no_autocast(first):
        return fn(first, *rest)


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A `with` block without autocast on the device of x."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def dense_like(x: Tensor, like: Tensor) -> Tensor:
    """x in the layout that `like` is computed in: NCHW, channels_last, or the nearer of the two, which costs a copy.

    Every implementation and the fakes go through here: their outputs must have the same strides.
    """
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
