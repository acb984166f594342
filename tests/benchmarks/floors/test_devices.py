"""The arithmetic of floors, on examples worked out by hand from the limits in the vendors' documents."""

import pytest

from benchmarks.floors.devices import DEVICES
from benchmarks.floors.rows import Limits, limits

A100, H100, H200, MI300X = DEVICES


@pytest.mark.parametrize(
    ("device", "num_warps", "registers", "shared", "resident"),
    [
        # A warp takes 40 * 32 = 1,280 of a scheduler's 16,384 registers: 12 warps each, 48 on four, 12 programs of 4.
        (H200, 4, 40, 0, 12),
        (H200, 4, 41, 0, 10),  # in steps of 8: 48 * 32 = 1,536, 10 warps each
        (H200, 4, 32, 0, 16),  # 16 warps each would be 64, the most
        (H200, 4, 16, 0, 16),  # more registers are left, but no more warps
        (H200, 1, 16, 0, 32),  # the most programs
        (H200, 16, 64, 0, 2),
        (H200, 8, 128, 0, 2),
        (H200, 4, 32, 48 * 1024, 4),  # 228 KB / (48 + 1) KB, for the system takes 1 KB
        (A100, 4, 32, 48 * 1024, 3),  # 164 KB / 49 KB
        # A wavefront takes 104 * 64 = 6,656 of a SIMD's 32,768: 4 each, 16 on four.
        (MI300X, 4, 100, 0, 4),
        (MI300X, 4, 32, 0, 8),  # 32 wavefronts at most
        (MI300X, 2, 32, 0, 16),
        (MI300X, 4, 32, 20_000, 3),  # 64 KB / 20,480 bytes
        (H200, 32, 255, 0, 0),  # 32 warps of 255 registers fit on none
    ],
)
def test_programs_at_once(device, num_warps, registers, shared, resident):
    assert device.resident(num_warps, registers, shared) == resident


def test_limits_of_a_launch():
    moved = 3 * 256 * 256 * 56 * 56 * 2  # reads x and shortcut, writes y: 1,233,125,376 bytes at 4.8 TB/s
    found = limits(H200, programs=100_352, num_warps=4, registers=40, shared=0, bytes_moved=moved)
    assert found == Limits(
        resident=12, occupancy=0.75, waves=63.35, cached=False, memory_us=256.9, launch_us=0.5
    )  # 100,352 programs, 12 * 132 at once


def test_a_small_launch_is_marked_as_one_that_caches_may_serve():
    found = limits(A100, programs=8, num_warps=4, registers=32, shared=0, bytes_moved=4_078_000)
    assert found.cached
    assert (found.memory_us, found.waves) == (2.0, 0.00463)


def test_a_program_that_fits_nowhere_is_named():
    with pytest.raises(ValueError, match="32 warps, 255 registers, 0 bytes fits on no H200"):
        limits(H200, programs=1, num_warps=32, registers=255, shared=0, bytes_moved=1)
