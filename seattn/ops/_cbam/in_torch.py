"""The passes of CBAM's spatial gate over a map, in torch: the four functions of `seattn_kernels.cbam_spatial`.

Shapes and dtypes are in `seattn/ops/_cbam/spatial.py`.
"""

import torch
from torch import Tensor

from seattn.ops._maps import compute_dtype, max_channels, mean_channels, sum_channels, weigh_pixels
from seattn.ops._tail.activations import gate_fn, gate_grad
from seattn_kernels.arguments import Norm


def pool_channels(x: Tensor, max_first: bool) -> Tensor:
    """(N, 2, H, W): maximum and mean over channels, in that order where max_first."""
    dtype = compute_dtype(x)
    peak, mean = max_channels(x).to(dtype), mean_channels(x, dtype)
    return torch.stack([peak, mean] if max_first else [mean, peak], 1)


def pixel_gate(x: Tensor, z: Tensor, norm: Norm, gate: str) -> tuple[Tensor, Tensor]:
    """(y, scale) with scale = gate(norm(z))."""
    logits = z
    if norm.mean is not None and norm.var is not None:
        rstd = (norm.var + norm.eps).rsqrt()
        factor = rstd if norm.weight is None else rstd * norm.weight
        centred = z - norm.mean
        logits = centred.mul_(factor) if norm.bias is None else torch.addcmul(norm.bias, centred, factor)
    scale = gate_fn(logits, gate)
    return weigh_pixels(torch.empty_like(x), (x, scale)), scale


def reduce_channels(
    dy: Tensor, x: Tensor, scale: Tensor, pooled: Tensor, gate: str, max_first: bool
) -> tuple[Tensor, Tensor]:
    """(dlogits, a buffer of the size of x, which `pixel_gate_grad` writes its result to)."""
    product = dy * x
    return gate_grad(sum_channels(product, scale.dtype), scale, gate), product


def pixel_gate_grad(
    dy: Tensor, x: Tensor, scale: Tensor, pooled: Tensor, dpooled: Tensor, buffer: Tensor, max_first: bool
) -> Tensor:
    """dx, in the memory of `buffer`: through the product, the mean and the maximum."""
    peak_plane, mean_plane = (0, 1) if max_first else (1, 0)
    # Ones and zeros in the dtype of x are made and summed 8 times faster on a CPU than a mask of bools.
    at_peak = torch.eq(x, pooled[:, peak_plane, None].to(x.dtype), out=torch.empty_like(x))
    share = dpooled[:, peak_plane] / sum_channels(at_peak, scale.dtype)  # (N, H, W)
    return weigh_pixels(buffer, (dy, scale), (at_peak, share), base=dpooled[:, mean_plane] / x.shape[1])
