"""The steps over a map in `seattn.ops._maps` agree with plain torch in float64."""

import pytest
import torch

from seattn.ops import _maps

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = ((5, 3, 7, 5), (3, 40, 4, 6), (1, 16, 1, 1), (0, 8, 3, 3), (2, 1, 9, 2))
LARGE = ((9, 16, 64, 60), (9, 40, 40, 40))  # more than a chunk, and no multiple of one
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_format = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
each_shape = pytest.mark.parametrize("shape", SHAPES + LARGE, ids=str)


def map_of(shape, dtype, memory_format):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64).to(dtype).contiguous(memory_format=memory_format)


def wide_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def close(found, want, dtype, steps):
    """Within `steps` roundings of `dtype` of the largest number."""
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), want, rtol=0, atol=steps * torch.finfo(dtype).eps * (1 + _peak(want)))


def _peak(t):
    return float(t.abs().max()) if t.numel() else 0.0


def test_large_maps_go_in_chunks():
    for shape in LARGE:
        elements = torch.Size(shape).numel()
        assert elements > _maps.CHUNK
        assert elements % _maps.CHUNK


@pytest.mark.cover(2)
@each_shape
@each_format
@each_dtype
def test_reductions(dtype, memory_format, shape):
    x = map_of(shape, dtype, memory_format)
    wide, acc = x.double(), wide_dtype(dtype)
    sums = {
        "sum_pixels": wide.sum((2, 3)),
        "mean_pixels": wide.mean((2, 3)),
        "sum_channels": wide.sum(1),
        "mean_channels": wide.mean(1),
    }
    for name, want in sums.items():
        close(getattr(_maps, name)(x, acc), want, acc, 64)
    assert torch.equal(_maps.max_pixels(x), x.amax((2, 3)))
    assert torch.equal(_maps.max_channels(x), x.amax(1))


@each_format
@each_dtype
def test_not_a_number_is_seen(dtype, memory_format):
    x = map_of((2, 5, 4, 3), dtype, memory_format)
    x[1, 2, 3, 1] = torch.nan
    for found in (_maps.max_pixels(x), _maps.sum_pixels(x, wide_dtype(dtype))):
        assert torch.equal(found.isnan().nonzero(), torch.tensor([[1, 2]]))
    for found in (_maps.max_channels(x), _maps.mean_channels(x, wide_dtype(dtype))):
        assert torch.equal(found.isnan().nonzero(), torch.tensor([[1, 3, 1]]))


@pytest.mark.cover(2)
@each_shape
@each_format
@each_dtype
def test_factors_of_channels(dtype, memory_format, shape):
    x, base = map_of(shape, dtype, memory_format), map_of(shape, dtype, memory_format).flip(0)
    scale, shift = (torch.rand(shape[:2], dtype=wide_dtype(dtype)) for _ in range(2))
    base = base.contiguous(memory_format=memory_format)
    column = scale.to(dtype).double()[:, :, None, None]
    product = x.double() * column
    results = {
        "product": (_maps.scale_channels(x, scale), product),
        "onto a map": (_maps.scale_add(base, x, scale), base.double() + product),
        "onto numbers": (
            _maps.scale_add(shift, x, scale),
            shift.to(dtype).double()[:, :, None, None] + product,
        ),
    }
    out = torch.full_like(x, torch.nan)
    results["in place"] = (_maps.scale_add(shift, x, scale, out=out), results["onto numbers"][1])
    assert results["in place"][0].data_ptr() == out.data_ptr() or not out.numel()
    for found, want in results.values():
        close(found, want, dtype, 2)
        assert found.stride() == x.stride()


@pytest.mark.cover(2)
@each_shape
@each_format
@each_dtype
@pytest.mark.parametrize("with_base", [False, True], ids=["", "base"])
@pytest.mark.parametrize("terms", [1, 2])
def test_factors_of_pixels(terms, with_base, dtype, memory_format, shape):
    maps = [map_of(shape, dtype, memory_format), map_of(shape, dtype, memory_format) * 2]
    pixels = (shape[0], *shape[2:])
    factors = [torch.rand(pixels, dtype=wide_dtype(dtype)) for _ in range(3)]
    rounded = [factor.to(dtype).double().unsqueeze(1) for factor in factors]
    pairs = list(zip(maps, factors, strict=False))[:terms]
    want = rounded[2] if with_base else torch.zeros(shape, dtype=torch.float64)
    for (x, _), factor in zip(pairs, rounded, strict=False):
        want = want + x.double() * factor
    out = torch.full_like(maps[0], torch.nan)
    found = _maps.weigh_pixels(out, *pairs, base=factors[2] if with_base else None)
    assert found is out
    close(found, want, dtype, 3)
