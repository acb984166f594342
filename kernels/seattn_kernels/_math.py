"""Activations and gates inside a kernel, with their derivatives. Any shape, fp32; NaN passes through, as in torch.

The affine map of a batch norm inside a kernel, and Welford's running mean and squared deviation, lane by lane.
normed = scale * (x - centre) + shift with scale = weight * rsqrt(var + eps), centre = mean, shift = bias. The mean is
subtracted first: scale * x + (bias - scale * mean) loses digits where the mean is large against the deviation.
All fp32.
A pointer that is None stands for an absent argument; this is decided when the kernel is compiled.

The maximum of many values as in torch.amax: if a value is NaN, the maximum is NaN. All fp32.
"""

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
    """grad * ACT'(h). Where the derivative is 0 the result is 0, for every gradient, as in torch."""
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


@triton.jit
def norm_scale(weight_ptr, var_ptr, c, C, eps):
    """weight * rstd of channels c; finite where c >= C, for every eps."""
    scale = tl.rsqrt(tl.load(var_ptr + c, mask=c < C, other=1.0) + eps)
    if weight_ptr is not None:
        scale *= tl.load(weight_ptr + c, mask=c < C, other=0.0)
    return scale


@triton.jit
def norm_mean(m, weight_ptr, bias_ptr, mean_ptr, var_ptr, c, C, eps):
    """The mean of a normalised map from the mean m of the raw one: m itself where mean_ptr is None.

    m and c have the same shape, or c broadcasts to m; 0 where c >= C and m is 0.
    """
    if mean_ptr is not None:
        centre = tl.load(mean_ptr + c, mask=c < C, other=0.0)
        m = norm_scale(weight_ptr, var_ptr, c, C, eps) * (m - centre)
        if bias_ptr is not None:
            m += tl.load(bias_ptr + c, mask=c < C, other=0.0)
    return m


@triton.jit
def welford_step(mean, m2, x, step, valid):
    """Add one value to each lane, the step-th (from 1); lanes that are not valid do not change."""
    delta = tl.where(valid, x - mean, 0.0)
    mean += delta * (1.0 / step)
    return mean, m2 + delta * (x - mean)


@triton.jit
def welford_total(mean, m2, count, total, axis: tl.constexpr):
    """Chan's formula over lanes: mean and squared deviation of all `total` values. count, fp32, broadcasts to mean."""
    mean_all = tl.sum(mean * count, axis=axis) / total
    delta = mean - tl.expand_dims(mean_all, axis)
    return mean_all, tl.sum(m2 + count * delta * delta, axis=axis)


@triton.jit
def peak_step(peak, x, valid):
    """Add one value to the maximum of each lane, which starts at -inf; lanes that are not valid do not change."""
    return tl.maximum(peak, tl.where(valid, x, float("-inf")), propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def peak_total(peak, axis: tl.constexpr):
    """The maximum over lanes. tl.max ignores NaN, so NaN is replaced first and added at the end."""
    is_nan = peak != peak
    return tl.max(tl.where(is_nan, float("-inf"), peak), axis=axis) + tl.sum(tl.where(is_nan, peak, 0.0), axis=axis)
