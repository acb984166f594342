"""What all tests of ops share."""

import pytest

from seattn.ops._tail.run import as_in_large_batches


@pytest.fixture(autouse=True)
def hand_written_norm_for_small_maps():
    """The maps of these tests are small, and the hand-written tail is what they are about."""
    with as_in_large_batches():
        yield
