"""Images of CIFAR-10 in class folders, and each format's file of one trained net, written once."""

from functools import cache
from pathlib import Path

import pytest
from PIL import Image

import seattn.models
from seattn.data.samples import load_sample
from seattn.deploy import export_model
from seattn.deploy.exporting import Export
from seattn.deploy.formats import FORMATS

ARCH = "se_resnet20_cifar"
WEIGHTS = Path(seattn.models.__file__).parent / "weights" / f"{ARCH}.cifar10.safetensors"  # no line about their source


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """60 labelled photographs, as train and as test."""
    folder = tmp_path_factory.mktemp("photos")
    sample = load_sample("cifar10")
    for i in range(0, 1000, 17):
        for split in ("train", "test"):
            path = folder / split / sample.class_names[sample.labels[i]] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.images[i]).save(path)
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory, photos):
    """A function: the export of the trained net in a format, and its file; on images if this machine can run it."""

    @cache
    def export(to: str) -> tuple[Export, Path]:
        file = tmp_path_factory.mktemp(to) / f"net{FORMATS[to].suffix}"
        return export_model(ARCH, to, file, data_dir=photos if FORMATS[to].runs_here else None), file

    return export
