"""Activations and gates inside a kernel, with their derivatives. Any shape, fp32; NaN passes through, as in torch."""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import triton
import triton.language as tl

_INV_SQRT2: tl.constexpr = tl.constexpr(0.7071067811865476)
_INV_SQRT_2PI: tl.constexpr = tl.constexpr(0.3989422804014327)


@triton.jit
def act(h, ACT: tl.constexpr):
    # where(h < 0, 0, h), not maximum(h, 0): the latter would turn NaN into 0.
    if ACT == "relu":
        a = tl.where(h < 0, 0.0, h)
    elif ACT == "silu":
        a = h * tl.sigmoid(h)
    elif ACT == "gelu":
        a = 0.5 * h * (1.0 + tl.erf(h * _INV_SQRT2))
    elif ACT == "hard_swish":
        t = h + 3.0
        a = h * tl.where(t < 0, 0.0, tl.where(t > 6, 6.0, t)) / 6.0
    else:
        tl.static_assert(ACT == "identity")
        a = h
    return a


@triton.jit
def act_grad(grad, h, ACT: tl.constexpr):
    """grad * ACT'(h). Where the derivative is 0 the result is 0, whatever the gradient, as in torch."""
    if ACT == "relu":
        d = tl.where(h <= 0, 0.0, grad)
    elif ACT == "silu":
        s = tl.sigmoid(h)
        d = grad * (s * (1.0 + h * (1.0 - s)))
    elif ACT == "gelu":
        d = grad * (0.5 * (1.0 + tl.erf(h * _INV_SQRT2)) + h * _INV_SQRT_2PI * tl.exp(-0.5 * h * h))
    elif ACT == "hard_swish":
        d = tl.where(h <= -3, 0.0, tl.where(h >= 3, grad, grad * (h / 3.0 + 0.5)))
    else:
        tl.static_assert(ACT == "identity")
        d = grad
    return d


@triton.jit
def gate(z, GATE: tl.constexpr):
    if GATE == "sigmoid":
        s = tl.sigmoid(z)
    elif GATE == "two_sigmoid":
        s = 2.0 * tl.sigmoid(z)
    else:
        tl.static_assert(GATE == "hard_sigmoid")
        t = z + 3.0
        s = tl.where(t < 0, 0.0, tl.where(t > 6, 6.0, t)) / 6.0
    return s


@triton.jit
def gate_grad(grad, s, GATE: tl.constexpr):
    """grad * GATE'(z), from the gate's value s."""
    if GATE == "sigmoid":
        d = grad * (s * (1.0 - s))
    elif GATE == "two_sigmoid":
        d = grad * (s * (1.0 - 0.5 * s))
    else:
        tl.static_assert(GATE == "hard_sigmoid")
        d = tl.where((s > 0) & (s < 1), grad / 6.0, 0.0)
    return d
