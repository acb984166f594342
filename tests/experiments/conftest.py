"""Trainings that cost nothing, for tests of what studies and searches do with them."""

from dataclasses import asdict
from pathlib import Path

import pytest

from seattn.core import child
from seattn.experiments.search import trials
from seattn.experiments.study import queue
from tests.helpers.colours import write_colours
from tests.helpers.fake_training import FakeTraining
from tests.helpers.studies import CLASSES, ROW


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without a test split: reading it would fail."""
    return write_colours(tmp_path_factory.mktemp("colours"), CLASSES, {"train": (8, 8, 8)})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    """The program that takes the place of `seattn train`."""
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = FakeTraining(folder, asdict(ROW))
    monkeypatch.setattr(child, "COMMAND", fake.command)
    monkeypatch.setattr(queue, "POLL", 0.02)
    monkeypatch.setattr(trials, "POLL", 0.02)
    return fake
