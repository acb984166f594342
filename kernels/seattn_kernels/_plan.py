"""Which plan an operator takes: a pure function of sizes, with its numbers in one place.

"sample": one program a sample that reads a map twice, the second time from cache (`_sample.py`).
"passes": a kernel for each pass over a map and small ones between them (`_passes.py`), for everything.
"""

from typing import NamedTuple

from seattn_kernels._layout import Layout


class SampleLimits(NamedTuple):
    """What the plan "sample" takes; anything else goes to "passes"."""

    images: int  # at least: with fewer programs, too few of the GPU's multiprocessors work
    channels: int  # at most: one program computes the gate of all channels
    hidden: int  # at most: one block in registers
    sample_bytes: int  # at most: one map of one image, so that those being worked on stay in L2 together


# For an H200: 132 multiprocessors, two programs of 16 warps on each, 40 of the 60 MB of L2 (the maps that stream past
# take the rest). 96 images leave a quarter of it idle, but save three launches. Set by reckoning, not tuned on a GPU.
SAMPLE_LIMITS = SampleLimits(images=96, channels=512, hidden=64, sample_bytes=40_000_000 // (2 * 132))


def plan_for(layout: Layout, itemsize: int, hidden: int, kind: str, norm: str, backward: bool) -> str:
    """ "sample" or "passes"."""
    limits = SAMPLE_LIMITS
    # The batch's own statistics need all samples before the first is gated; a frozen norm has gradients over the batch.
    norm_fits = norm == "none" or (norm == "frozen" and not backward)
    fits = (
        kind == "se"
        and norm_fits
        and layout.images >= limits.images
        and layout.channels <= limits.channels
        and hidden <= limits.hidden
        and layout.channels * layout.pixels * itemsize <= limits.sample_bytes
    )
    return "sample" if fits else "passes"
