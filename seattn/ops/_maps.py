"""Steps over a map in torch: sums, maxima, and products with one factor for each channel or each pixel.

They are written for what is slow on a CPU; other devices take one call of torch. Slow on a CPU are:
- a copy of the map, because its memory is touched for the first time: torch widens a whole 16-bit map before it sums it
  in fp32, so a sum goes through chunks that stay in cache;
- a reduction of a channels_last map with few channels, which torch does not vectorise;
- a 16-bit product with a factor that is broadcast along a short innermost axis, which torch does not vectorise: it is
  done on whole rows (factors of channels) or with the factors written out (factors of pixels);
- `addcmul` with two factors that are broadcast along the innermost axis: it is done as a product and a sum.
Shapes: maps (N, C, H, W) of any float dtype, dense in NCHW or channels_last, with one layout for all maps of a call;
factors of channels (N, C) and of pixels (N, H, W), of any float dtype.
"""

from collections.abc import Callable

import torch
from torch import Tensor

CHUNK = 1 << 18  # elements of a map that are worked on at a time: 1 MB in fp32, which stays in cache and is used again
_VECTORISED = 128  # bytes of an innermost axis from which torch's reductions are vectorised: four registers of AVX2
_SHORT = 32  # channels of a 16-bit map: fewer are less than a register of AVX-512


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of sums, statistics and gates: float32, or float64 for a float64 x."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def cast(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """t in `dtype`, or None. A call of `Tensor.to` that changes nothing takes as long as a step over a small map."""
    return t if t is None or t.dtype == dtype else t.to(dtype)


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
    """Maximum over H and W, (N, C); NaN if a pixel is NaN."""
    if not _reduction_is_slow(x):
        return x.amax((2, 3))
    images, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(images, height, width * channels).amax(1)  # vectorised over W * C
    return rows.view(images, width, channels).amax(1)


def max_channels(x: Tensor) -> Tensor:
    """Maximum over C, (N, H, W); NaN if a channel is NaN."""
    return (x.contiguous() if _reduction_is_slow(x) else x).amax(1)


def _by_images(x: Tensor, dtype: torch.dtype, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    if not x.is_cpu or x.dtype == dtype or x.numel() <= CHUNK:
        return reduce(x)
    step = max(1, CHUNK * x.shape[0] // x.numel())
    wide = torch.empty_like(x[:step], dtype=dtype)
    return torch.cat([reduce(wide[: len(part)].copy_(part)) for part in x.split(step)])


def _reduction_is_slow(x: Tensor) -> bool:
    return x.is_cpu and x.numel() > 0 and not x.is_contiguous() and x.shape[1] * x.element_size() < _VECTORISED


def column(v: Tensor, like: Tensor) -> Tensor:
    """(N, C) as (N, C, 1, 1) in the dtype of `like`."""
    v = v if v.dtype == like.dtype else v.to(like.dtype)
    return v.view(v.shape[0], v.shape[1], 1, 1)


def scale_channels(x: Tensor, scale: Tensor, *, out: Tensor | None = None) -> Tensor:
    """x * scale, laid out as x; `out` may be x."""
    if not _scaling_is_slow(x):
        return torch.mul(x, column(scale, x), out=out)
    y = torch.empty_like(x) if out is None else out
    torch.mul(_rows(x, x), _rows(scale, x), out=_rows(y, x))
    return y


def scale_add(base: Tensor, x: Tensor, scale: Tensor, *, out: Tensor | None = None) -> Tensor:
    """base + x * scale; base (N, C, H, W) or (N, C), scale (N, C); `out` may be x or base."""
    if _scaling_is_slow(x):
        result = torch.empty_like(x) if out is None else out
        torch.addcmul(_rows(base, x), _rows(x, x), _rows(scale, x), out=_rows(result, x))
        return result
    if base.dim() == 2 and x.is_cpu and x.is_contiguous():
        return torch.mul(x, column(scale, x), out=out).add_(column(base, x))
    return torch.addcmul(base if base.dim() == 4 else column(base, x), x, column(scale, x), out=out)


def weigh_pixels(out: Tensor, *terms: tuple[Tensor, Tensor], base: Tensor | None = None) -> Tensor:
    """Overwrite `out` with base + sum of map * factor over `terms`; base and factors are of pixels (N, H, W)."""
    if not _scaling_is_slow(out):
        factors = [factor.to(out.dtype).unsqueeze(1) for _, factor in terms]
        return _weigh(out, [x for x, _ in terms], factors, None if base is None else base.to(out.dtype).unsqueeze(1))
    step = max(1, CHUNK * out.shape[0] // out.numel())
    buffers = [torch.empty_like(out[:step]) for _ in range(len(terms) + (base is not None))]
    for begin in range(0, out.shape[0], step):
        part = slice(begin, begin + step)
        per_pixel = [factor[part] for _, factor in terms] + ([] if base is None else [base[part]])
        spread = [b[: len(v)].copy_(v.unsqueeze(1)) for b, v in zip(buffers, per_pixel, strict=True)]
        _weigh(out[part], [x[part] for x, _ in terms], spread[: len(terms)], spread[-1] if base is not None else None)
    return out


def _weigh(out: Tensor, maps: list[Tensor], factors: list[Tensor], base: Tensor | None) -> Tensor:
    if base is None:
        torch.mul(maps[0], factors[0], out=out)
    elif out.is_cpu and base.shape != out.shape and not out.is_contiguous():
        torch.mul(maps[0], factors[0], out=out).add_(base)
    else:
        torch.addcmul(base, maps[0], factors[0], out=out)
    for x, factor in zip(maps[1:], factors[1:], strict=True):
        out.addcmul_(x, factor)
    return out


def _scaling_is_slow(x: Tensor) -> bool:
    return x.is_cpu and x.element_size() == 2 and x.shape[1] < _SHORT and x.numel() > 0 and not x.is_contiguous()


def _rows(v: Tensor, x: Tensor) -> Tensor:
    """A channels_last map (N, C, H, W), or a value for each channel (N, C), as rows (N, H or 1, W * C)."""
    images, channels, height, width = x.shape
    if v.dim() == 4:
        return v.permute(0, 2, 3, 1).view(images, height, width * channels)
    return v.to(x.dtype).repeat(1, width).unsqueeze(1)
