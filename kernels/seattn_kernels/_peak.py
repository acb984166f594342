"""The maximum of many values as torch.amax takes it: a NaN among them is the maximum. All fp32."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call,import-untyped"
# (a kernel's arguments are Triton values, for which there are no types)

import triton
import triton.language as tl


@triton.jit
def peak_step(peak, x, valid):
    """One more value for each lane; lanes that are not valid keep theirs. Starts from -inf."""
    return tl.maximum(peak, tl.where(valid, x, float("-inf")), propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def peak_total(peak, axis: tl.constexpr):
    """The maximum over lanes. tl.max ignores NaN, so NaN is taken out first and added at the end."""
    is_nan = peak != peak
    return tl.max(tl.where(is_nan, float("-inf"), peak), axis=axis) + tl.sum(tl.where(is_nan, peak, 0.0), axis=axis)
