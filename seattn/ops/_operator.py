"""An operator from a forward and a backward function: in eager mode an autograd function, in traced code a custom op.

Pairs of `torch.library.custom_op` compile, export and pass opcheck, but their dispatch takes longer than that of a
plain `torch.autograd.Function`. So eager calls take the function, traced calls the op, and both run the same Python. An
operator is differentiable once: `create_graph=True` raises.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.library import custom_op
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils._python_dispatch import _get_current_dispatch_mode

from seattn.ops._kernel import INTERPRETED

NAMESPACE = "seattn"  # torch.ops.seattn; a kernel of the Hub has its own (kernels/hub/stage.py)
Outputs = tuple[Tensor, ...]
Then = Callable[[Outputs], None]
P = ParamSpec("P")


def _gradients_of_the_first_inputs(dy: Tensor, constants: tuple[Any, ...], results: Outputs) -> Outputs:
    return results


@dataclass(frozen=True)
class Operator:
    """A forward, a backward, and how they fit together.

    Args:
        name: the operators are `torch.ops.seattn.<name>_fwd` and `_bwd`.
        fwd, bwd: by implementation, "torch" and "triton". The annotations of "torch" are the schema of torch.library.
            The first result of the forward is the one that has a gradient.
        fwd_fake, bwd_fake: results of the right shapes, dtypes and strides, without values.
        save: (inputs, outputs of the forward) -> (tensors, constants), which the backward takes after the gradient.
        grads: (gradient, constants, results of the backward) -> the gradients of the first inputs of the forward. The
            inputs that follow have none. By default these gradients are the results of the backward.
        shown: how many results of the forward the caller sees.
    """

    name: str
    fwd: dict[str, Callable[..., Outputs]]
    bwd: dict[str, Callable[..., Outputs]]
    fwd_fake: Callable[..., Outputs]
    bwd_fake: Callable[..., Outputs]
    save: Callable[[tuple[Any, ...], Outputs], tuple[tuple[Tensor | None, ...], tuple[Any, ...]]]
    grads: Callable[[Tensor, tuple[Any, ...], Outputs], tuple[Tensor | None, ...]] = _gradients_of_the_first_inputs
    shown: int = 1


def define(op: Operator) -> Callable[..., Outputs]:
    """Register `op` and return run(implementation, *inputs, then=None), which gives the first `shown` results.

    `then` is called with these results before autograd saves anything for the backward: the second forward of gradient
    checkpointing ends as soon as the last value that it needs is saved.
    """
    fwd_op = _register(op)
    functions = {implementation: _autograd_function(op, implementation) for implementation in op.fwd}

    def run(implementation: str, *inputs: Any, then: Then | None = None) -> Outputs:
        results: Outputs
        if implementation == "triton" and _is_traced(inputs[0]):
            results = tuple(fwd_op(*inputs)[: op.shown])
        elif not wants_grad(*inputs):  # an autograd function takes as long as a small tail on a CPU
            results = _guarded(op.fwd[implementation], *inputs)[: op.shown]
        elif is_compiling():  # Dynamo traces no autograd function that changes other tensors
            results = functions[implementation].apply(None, *inputs)
        else:
            results = functions[implementation].apply(then, *inputs)
            return results
        if then is not None:
            then(results)
        return results

    return run


def wants_grad(*inputs: Any) -> bool:
    """Whether autograd would record an operator of these inputs."""
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in inputs)


def _is_traced(x: Tensor) -> bool:
    # Under a dispatch mode or in a subclass (fake tensors, DTensor) there may be no memory for a kernel to read.
    return (
        is_compiling()
        or torch.jit.is_tracing()
        or type(x) not in (Tensor, torch.nn.Parameter)
        or _get_current_dispatch_mode() is not None
    )


def _autograd_function(op: Operator, implementation: str) -> Any:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, then: Then | None, *inputs: Any) -> Any:
            outputs = _guarded(op.fwd[implementation], *inputs)
            if then is not None:
                then(outputs[: op.shown])
            tensors, ctx.constants = op.save(inputs, outputs)
            ctx.save_for_backward(*tensors)
            if not is_compiling():  # Dynamo does not know it; without it, autograd makes zeros for the other outputs
                ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*outputs[1 : op.shown])
            return outputs[: op.shown]

        @staticmethod
        def backward(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> Any:
            if dy is None:  # nothing that was differentiated depends on the result
                return (None,) * len(ctx.needs_input_grad)
            if torch.is_grad_enabled():  # once_differentiable would give a second derivative of 0 without an error
                raise RuntimeError(
                    f"seattn's {op.name} is differentiable once, and create_graph=True asks for more; "
                    "set_kernels('reference') gives it"
                )
            results = _guarded(op.bwd[implementation], dy, *ctx.saved_tensors, *ctx.constants)
            return None, *_grads(op, dy, ctx.constants, results, ctx.needs_input_grad[1:])

    Function.__name__ = Function.__qualname__ = op.name
    return Function


def _grads(
    op: Operator, dy: Tensor, constants: tuple[Any, ...], results: Outputs, needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """A gradient or None for each input of the forward."""
    grads = op.grads(dy, constants, results)
    inputs_without = (None,) * (len(needed) - len(grads))
    return *(g if need else None for g, need in zip(grads, needed, strict=False)), *inputs_without


def _register(op: Operator) -> Callable[..., Outputs]:
    # An exported graph runs anywhere: on a CPU the same steps in torch, or Triton where TRITON_INTERPRET=1 is set.
    on_cpu = "triton" if INTERPRETED else "torch"
    for direction, functions, fake in (("fwd", op.fwd, op.fwd_fake), ("bwd", op.bwd, op.bwd_fake)):
        registered = custom_op(
            f"{NAMESPACE}::{op.name}_{direction}",
            functools.partial(_guarded, functions["triton"]),
            mutates_args=(),
            device_types="cuda",
            schema=torch.library.infer_schema(functions["torch"], mutates_args=()),
        )
        registered.register_kernel("cpu")(functools.partial(_guarded, functions[on_cpu]))
        registered.register_fake(fake)
    namespace = getattr(torch.ops, NAMESPACE)
    fwd_op, bwd_op = (getattr(namespace, f"{op.name}_{direction}").default for direction in ("fwd", "bwd"))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        tensors, ctx.constants = op.save(inputs, output)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        results = bwd_op(dy, *ctx.saved_tensors, *ctx.constants)
        return _grads(op, dy, ctx.constants, results, ctx.needs_input_grad)

    torch.library.register_autograd(fwd_op, backward, setup_context=setup_context)
    return fwd_op


def _guarded(fn: Callable[..., Outputs], first: Tensor, *others: Any) -> Outputs:
    """`fn` without autocast, which would lower its small products, and on the device of its first argument."""
    # Triton launches on the current device, which need not be the device of the tensors.
    on_other_gpu = first.is_cuda and first.device.index != torch.cuda.current_device()
    with torch.cuda.device(first.device) if on_other_gpu else nullcontext(), no_autocast(first):
        return fn(first, *others)


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A `with` block without autocast on the device of x. In eager mode nothing is entered where autocast is off."""
    kind = x.device.type
    # torch.compile traces a backward where autocast seems off, and runs it where the forward's autocast is on.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) or is_compiling() else nullcontext()


def graph_without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """As `no_autocast`; a graph that is traced inside also runs without autocast if its caller has autocast on."""
    if x.is_meta:  # the one device without autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def dense_like(x: Tensor, like: Tensor) -> Tensor:
    """x in the layout that `like` is computed in: NCHW, channels_last, or the nearer of the two, which costs a copy.

    Every implementation and every fake calls this: their outputs must have the same strides.
    """
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def public_op(run: Callable[..., Tensor]) -> Callable[[Callable[P, tuple[Any, ...]]], Callable[P, Tensor]]:
    """Decorator of a function that turns the arguments of an op into those of `run`; the result is the op.

    torch.fx records a call of the op as one node. Which implementation runs is chosen when the graph runs.
    """

    def decorate(arguments: Callable[P, tuple[Any, ...]]) -> Callable[P, Tensor]:
        @functools.wraps(arguments)
        def op(*args: P.args, **kwargs: P.kwargs) -> Tensor:
            if has_torch_function(args):
                result: Tensor = handle_torch_function(op, args, *args, **kwargs)
                return result
            return run(*arguments(*args, **kwargs))

        op.__signature__ = inspect.signature(arguments).replace(return_annotation=Tensor)  # type: ignore[attr-defined]
        return op

    return decorate


def definition(op: Callable[P, Tensor], reference: Callable[..., Tensor]) -> Callable[P, Tensor]:
    """The definition of a `public_op`, in fp32 with one rounding at the end; the arguments are those of the op."""
    arguments = inspect.unwrap(op)

    @functools.wraps(op)
    def defined(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return reference(*arguments(*args, **kwargs))

    defined.__name__ = defined.__qualname__ = f"{op.__name__}_reference"
    defined.__doc__ = f"The definition, in fp32 with one rounding. Arguments as in `{op.__name__}`."
    return defined
