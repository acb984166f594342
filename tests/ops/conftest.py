"""What all tests of ops share."""

import pytest

from seattn.ops._tail import run


@pytest.fixture(autouse=True)
def hand_written_norm_for_small_maps(monkeypatch):
    """The maps of these tests are small, and the hand-written tail is what they are about."""
    monkeypatch.setattr(run, "NORM_INSIDE_FROM", 0)
