"""Sums and maxima of a map in torch, written for what a CPU is slow at. Other devices reduce in one call.

Two things cost a CPU more than the arithmetic: a copy of the map (torch widens a 16-bit map whole before it sums it in
fp32), because its memory is touched for the first time; and a reduction of a channels_last map with few channels, which
torch does not vectorise.
Shapes: x (N, C, H, W), of any float dtype, dense in NCHW or channels_last.
"""

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 1 << 18  # elements of a map that are worked on at a time: 1 MB in fp32, which stays in cache and is used again
_VECTORISED = 128  # bytes of an innermost axis from which torch's reductions are vectorised: four registers of AVX2


def sum_pixels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over H and W in `dtype`, (N, C)."""
    return _by_images(x, dtype, lambda part: part.sum((2, 3), dtype=dtype))


def mean_pixels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean over H and W in `dtype`, (N, C)."""
    return _by_images(x, dtype, lambda part: part.mean((2, 3), dtype=dtype))


def sum_channels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over C in `dtype`, (N, H, W)."""
    return _by_images(x, dtype, lambda part: part.sum(1, dtype=dtype))


def mean_channels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean over C in `dtype`, (N, H, W)."""
    return _by_images(x, dtype, lambda part: part.mean(1, dtype=dtype))


def max_pixels(x: Tensor) -> Tensor:
    """Maximum over H and W, (N, C); NaN where there is one."""
    if not _reduction_is_slow(x):
        return x.amax((2, 3))
    images, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(images, height, width * channels).amax(1)  # vectorised over W * C
    return rows.view(images, width, channels).amax(1)


def max_channels(x: Tensor) -> Tensor:
    """Maximum over C, (N, H, W); NaN where there is one."""
    return (x.contiguous() if _reduction_is_slow(x) else x).amax(1)


def _by_images(x: Tensor, dtype: torch.dtype, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    if not x.is_cpu or x.dtype == dtype or x.numel() <= CHUNK:
        return reduce(x)
    step = max(1, CHUNK * x.shape[0] // x.numel())
    wide = torch.empty_like(x[:step], dtype=dtype)
    return torch.cat([reduce(wide[: len(part)].copy_(part)) for part in x.split(step)])


def _reduction_is_slow(x: Tensor) -> bool:
    return x.is_cpu and x.numel() > 0 and not x.is_contiguous() and x.shape[1] * x.element_size() < _VECTORISED
