"""Photographs as they are uploaded: examples of the sample, a text with an image's name."""

import pytest

from seattn.data.samples import write_examples


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Class -> the file of an image of the sample."""
    return {path.stem: path for path in write_examples(tmp_path_factory.mktemp("pictures"))}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a1b2" / "text.png"
    path.parent.mkdir()
    path.write_text("no image")
    return path
