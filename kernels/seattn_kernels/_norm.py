"""The affine map of a batch norm inside a kernel, and Welford's running mean and squared deviation, lane by lane.

normed = scale * (x - centre) + shift with scale = weight * rsqrt(var + eps), centre = mean, shift = bias. Centred
first: scale * x + (bias - scale * mean) cancels where the mean is large against the deviation. All fp32.
A pointer that is None stands for an argument that is not there, decided when the kernel is compiled.
"""

# ruff: noqa: N803  upper case marks sizes and compile-time constants, as Triton's own kernels do
# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import triton
import triton.language as tl


@triton.jit
def norm_scale(weight_ptr, var_ptr, c, C, eps):
    """weight * rstd of channels c; finite where c >= C, whatever eps is."""
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
    """One more value for each lane, the step-th (from 1); lanes that are not valid keep theirs."""
    delta = tl.where(valid, x - mean, 0.0)
    mean += delta * (1.0 / step)
    return mean, m2 + delta * (x - mean)


@triton.jit
def welford_total(mean, m2, count, total, axis: tl.constexpr):
    """Chan's formula over lanes: mean and squared deviation of all `total` values. count, fp32, broadcasts to mean."""
    mean_all = tl.sum(mean * count, axis=axis) / total
    delta = mean - tl.expand_dims(mean_all, axis)
    return mean_all, tl.sum(m2 + count * delta * delta, axis=axis)
