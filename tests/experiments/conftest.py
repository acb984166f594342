"""Trainings that cost nothing, for tests of what studies and searches do with them."""

from dataclasses import asdict
from pathlib import Path

import pytest

from seattn.core import child
from seattn.experiments.study import queue
from tests.helpers.fake_training import FakeTraining
from tests.helpers.studies import ROW


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """The program that takes the place of `seattn train`."""
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = FakeTraining(folder, asdict(ROW))
    monkeypatch.setattr(child, "COMMAND", fake.command)
    monkeypatch.setattr(queue, "POLL", 0.02)
    return fake
