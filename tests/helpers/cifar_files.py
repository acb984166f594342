"""A handful of images in the form of torchvision's CIFAR-10 files."""

import pickle

import numpy as np

LABELS = [3, 1, 4, 1, 5, 9]


def write_cifar(path, label_names):
    """`path`/cifar-10-batches-py, every batch of it with the same images; their pixels (6, 3072)."""
    folder = path / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(len(LABELS), 3072), dtype=np.uint8)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": LABELS}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(label_names)}))
    return pixels


def take_as_whole(monkeypatch):
    """Let torchvision read them though they have not CIFAR-10's checksums."""
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
