import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import seattn.data
from seattn.data import Batches, ImageSet, has_split, hold_out, load_folder, load_split, random_crop, random_hflip
from seattn.errors import UserError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image_set(count=40, classes=4, side=8):
    images = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=generator())
    return ImageSet(images, torch.arange(count) % classes, tuple("abcd"[:classes]))


def write_folder(root, classes=("cat", "dog"), count=3, size=(8, 8)):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_folder_gives_exact_pixels_and_labels_in_sorted_order(tmp_path):
    write_folder(tmp_path, ("dog", "cat"))
    data = load_folder(tmp_path, (8, 8))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with Image.open(tmp_path / "dog" / "1.png") as image:
        assert np.array_equal(data.images[4].numpy(), np.asarray(image))


def test_images_of_other_size_and_mode_are_converted(tmp_path):
    write_folder(tmp_path, count=1, size=(20, 11))
    Image.new("L", (5, 9), 77).save(tmp_path / "cat" / "gray.png")
    data = load_folder(tmp_path, (8, 6))
    assert data.images.shape == (3, 8, 6, 3)
    assert data.images[1].unique().tolist() == [77]


def test_validation_is_found_by_timms_spellings(tmp_path):
    write_folder(tmp_path / "val")
    assert has_split(tmp_path, "validation")
    assert not has_split(tmp_path, "test")
    assert len(load_split(tmp_path, "validation", (8, 8))) == 6


def test_cifar_files_are_read_as_torchvision_reads_them(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(6, 3072), dtype=np.uint8)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 1, 4, 1, 5, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.raises(UserError, match=r"missing or altered"):
        load_split(tmp_path, "train", (32, 32))
    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    train, test = load_split(tmp_path, "train", (32, 32)), load_split(tmp_path, "test", (32, 32))
    assert (len(train), len(test)) == (30, 6)
    assert test.labels.tolist() == [3, 1, 4, 1, 5, 9]
    assert np.array_equal(test.images[0].permute(2, 0, 1).flatten().numpy(), pixels[0])
    assert not has_split(tmp_path, "validation")
    with pytest.raises(UserError, match="32 x 32, the model's input is 224 x 224"):
        load_split(tmp_path, "train", (224, 224))


def test_missing_folder_and_split_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no data folder .*nowhere"):
        load_split(tmp_path / "nowhere", "train", (8, 8))
    with pytest.raises(UserError, match=rf"no train split in {tmp_path}"):
        load_split(tmp_path, "train", (8, 8))


def test_empty_folder_is_named(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"no images in {tmp_path}/train"):
        load_split(tmp_path, "train", (8, 8))


@pytest.mark.parametrize("damage", ["text", "truncated"])
def test_unreadable_image_is_named(tmp_path, damage):
    write_folder(tmp_path, size=(64, 64))
    path = tmp_path / "dog" / "1.png"
    path.write_bytes(b"not an image" if damage == "text" else path.read_bytes()[:500])
    with pytest.raises(UserError, match=rf"cannot read image {path}") as caught:
        load_folder(tmp_path, (64, 64))
    assert "\n" not in str(caught.value)


def test_set_too_large_for_memory_is_refused_before_decoding(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setattr(seattn.data, "_MEMORY_LIMIT", 6 * 8 * 8 * 3 - 1)
    with pytest.raises(UserError, match=r"6 images of 8 x 8 .* in memory"):
        load_folder(tmp_path, (8, 8))


def test_hold_out_is_stratified_disjoint_complete_and_repeatable():
    data = image_set(40)
    kept, held = hold_out(data, 0.25, 7)
    assert (len(kept), len(held)) == (30, 10)
    assert held.labels.bincount().max() - held.labels.bincount().min() <= 1
    rows = {tuple(image.flatten().tolist()) for image in torch.cat([kept.images, held.images])}
    assert len(rows) == 40
    again = hold_out(data, 0.25, 7)[1]
    assert torch.equal(held.images, again.images)
    assert not torch.equal(held.images, hold_out(data, 0.25, 8)[1].images)


def test_hold_out_of_too_few_images_is_named():
    with pytest.raises(UserError, match=r"cannot hold out 0.1 of 4"):
        hold_out(image_set(4), 0.1, 0)


def test_crop_shifts_over_black_and_reaches_every_offset():
    images = torch.full((4000, 4, 4, 3), 9, dtype=torch.uint8)
    images[:, 1, 2] = 200
    cropped = random_crop(images, 1, generator())
    positions = (cropped[..., 0] == 200).nonzero()
    assert len(positions) == 4000  # the bright pixel never leaves
    offsets = {tuple(p) for p in (positions[:, 1:] - torch.tensor([1, 2])).tolist()}
    assert offsets == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    counts = torch.stack([positions[:, 1], positions[:, 2]], 1).unique(dim=0, return_counts=True)[1]
    assert counts.min() > 0.8 * 4000 / 9
    assert set(cropped.unique().tolist()) == {0, 9, 200}


def test_crop_without_padding_changes_nothing():
    images = image_set().images
    assert torch.equal(random_crop(images, 0, generator()), images)


def test_flip_mirrors_about_the_given_share():
    images = image_set(2000).images
    flipped = random_hflip(images, 0.25, generator())
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(2)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 0.2 < mirrored.float().mean() < 0.3
    assert torch.equal(random_hflip(images, 0.0, generator()), images)
    assert torch.equal(random_hflip(images, 1.0, generator()), images.flip(2))


def test_batches_are_normalised_like_timms_transform_and_channels_last():
    from timm.data import create_transform

    data, mean, std = image_set(5, side=32), (0.49, 0.48, 0.44), (0.24, 0.25, 0.26)
    batches = list(Batches(data, 2, mean, std).in_order())
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert batches[0].is_contiguous(memory_format=torch.channels_last)
    transform = create_transform((3, 32, 32), crop_pct=1.0, interpolation="bicubic", mean=mean, std=std)
    expected = torch.stack([transform(Image.fromarray(image.numpy())) for image in data.images])
    torch.testing.assert_close(torch.cat(batches), expected, atol=1e-5, rtol=1e-5)


def test_an_epoch_is_a_permutation_in_full_batches_and_repeats_with_its_generator():
    data = image_set(40)
    batches = Batches(data, 16, (0.0,) * 3, (1.0,) * 3)
    assert len(batches) == 2

    def epoch(seed):
        return [*batches.shuffled(generator(seed), padding=0, hflip=0.0)]

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert [len(target) for _, target in first] == [16, 16]
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    seen = torch.cat([x for x, _ in first]).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    known = {tuple(image.flatten().tolist()): int(label) for image, label in zip(data.images, data.labels, strict=True)}
    labels = torch.cat([target for _, target in first])
    keys = [tuple(image.flatten().tolist()) for image in seen]
    assert len(set(keys)) == 32
    assert [known[key] for key in keys] == labels.tolist()
