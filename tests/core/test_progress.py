"""A progress bar appears on a terminal, for work that takes a while, and nowhere else."""

import io

import pytest

from seattn.core import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "delay", "shown", "bar"),
    [
        (Terminal, 0.0, True, True),
        (Terminal, 60.0, True, False),
        (Terminal, 0.0, False, False),
        (io.StringIO, 0.0, True, False),
    ],
    ids=["terminal", "quick", "not wanted", "pipe"],
)
def test_a_bar_is_shown(monkeypatch, stream, delay, shown, bar):
    stderr = stream()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(progress, "DELAY", delay)
    items = progress.progress_bar(iter("abc"), "scoring", total=3, shown=shown)
    assert list(items) == ["a", "b", "c"]
    assert ("scoring" in stderr.getvalue()) == bar
