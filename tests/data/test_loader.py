"""The folder path: timm's transforms, the same batches with any number of workers, damaged files."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from timm.data import create_transform

from seattn.core.errors import UserError
from seattn.core.recipe import parse_recipe
from seattn.data.loader import seeded
from seattn.data.open import open_data
from seattn.data.samples import load_sample
from seattn.data.transforms import eval_transform_uint8, train_transform

CPU = torch.device("cpu")
CFG = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
    "mean": (0.49, 0.48, 0.44),
    "std": (0.24, 0.25, 0.26),
}


def recipe(seattn=None, **keys):
    plain = {"model": "resnet20_cifar", "lr": 0.1, "batch_size": 4, "workers": 0, "seed": 1}
    return parse_recipe({**plain, **keys, "seattn": {"data": "folder", "holdout": 0.2, **(seattn or {})}})


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Forty training images and ten test images of two classes, from the sample, some enlarged."""
    root, sample = tmp_path_factory.mktemp("tree"), load_sample("cifar10")
    for i, image in enumerate(sample.images[:50]):
        path = root / ("train" if i < 40 else "test") / ("cat", "dog")[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image)
        (picture.resize((48, 40)) if i % 3 == 0 else picture).save(path)
    return root


def batches(data, epoch=0, **options):
    return [(x.clone(), target.clone()) for x, target in data.train.epoch(epoch, **options)]


def equal(first, second):
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


EVERYTHING = {"aa": "rand-m9-mstd0.5", "reprob": 0.5, "vflip": 0.5, "seattn": {"cutout": 6}}


def test_workers_and_what_came_before_change_no_bit(tree):
    alone = open_data(recipe(**EVERYTHING), tree, CFG, CPU)
    helped = open_data(recipe(**EVERYTHING, workers=2), tree, CFG, CPU)
    assert alone.path == helped.path == "folder"
    first = batches(alone, 0), batches(alone, 1)
    assert equal(batches(helped, 1), first[1])  # as after a resume: epoch 0 has not run
    assert equal(batches(helped, 0), first[0])
    assert equal(batches(helped, 1, size=20), batches(alone, 1, size=20))
    assert not equal(*first)
    assert len(first[0]) == alone.train.batches() == 8
    for x, target in first[0]:
        assert (x.shape, x.dtype, target.dtype) == ((4, 3, 32, 32), torch.float32, torch.int64)
        assert x.is_contiguous(memory_format=torch.channels_last)
    held = [torch.cat(list(data.held_out.in_order())) for data in (alone, helped)]
    assert torch.equal(*held)


def test_transform_is_timms_own(tree):
    theirs = create_transform(
        (3, 32, 32),
        is_training=True,
        scale=(0.5, 1.0),
        vflip=0.3,
        color_jitter=0.4,
        auto_augment="rand-m9-mstd0.5",
        interpolation="bicubic",
        mean=CFG["mean"],
        use_prefetcher=True,
    )
    keys = {"scale": [0.5, 1.0], "vflip": 0.3, "aa": "rand-m9-mstd0.5", "train_interpolation": "bicubic"}
    ours = train_transform(recipe(**keys), CFG, (32, 32))
    with Image.open(tree / "train" / "cat" / "00.png") as image:
        for i in range(20):
            with seeded(i):
                expected = theirs(image)
            with seeded(i):
                assert torch.equal(ours(image), expected)


def test_padded_crop_and_policy_take_the_place_of_timms(tree):
    with Image.open(tree / "train" / "dog" / "01.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        padded = torch.nn.functional.pad(pixels, (4, 4, 4, 4))
        crops = [padded[:, top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
        possible = {crop.contiguous().numpy().tobytes() for c in crops for crop in (c, c.flip(2))}
        one = train_transform(recipe({"crop_padding": 4}, color_jitter=0.0), CFG, (32, 32))
        found = set()
        for i in range(200):
            with seeded(i):
                found.add(one(image).contiguous().numpy().tobytes())
        assert found <= possible
        assert len(found) > 80
        changed = train_transform(recipe({"crop_padding": 0, "policy": "trivial"}, hflip=0.0), CFG, (32, 32))
        with seeded(0):
            assert changed(image).ne(pixels).any()
        assert train_transform(recipe({"crop_padding": 4}), CFG, (20, 20))(image).shape == (3, 20, 20)


def test_both_paths_train_on_the_same_law(tree):
    """Moments of an epoch's batches, everything on but what the image's size changes."""
    keys = {"reprob": 0.3, "remode": "const", "color_jitter": 0.4}
    own = {"crop_padding": 4, "cutout": 8, "policy": ""}
    means = []
    for path in ("memory", "folder"):
        data = open_data(recipe({**own, "data": path}, **keys), tree, CFG, CPU)
        assert data.path == path
        x = torch.cat([x for epoch in range(20) for x, _ in data.train.epoch(epoch)])  # (N, 3, 32, 32)
        means.append((x.mean((1, 2, 3)), x.std((1, 2, 3)), (x == 0).all(1).float().mean((1, 2))))
    for memory, folder in zip(*means, strict=True):
        assert ks_2samp(memory, folder).pvalue > 1e-4


def test_evaluation_is_timms_transform_in_the_files_order(tree):
    data = open_data(recipe(), tree, CFG, CPU)
    test, transform = data.test(), create_transform(**CFG)
    paths = sorted((tree / "test").rglob("*.png"))
    assert test.labels.tolist() == [("cat", "dog").index(path.parent.name) for path in paths]
    expected = torch.stack([transform(Image.open(path)) for path in paths])
    torch.testing.assert_close(torch.cat(list(test.in_order())), expected, atol=1e-5, rtol=1e-5)
    assert eval_transform_uint8(CFG)(Image.open(paths[0])).dtype == torch.uint8


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_is_named_in_one_line(tmp_path, tree, workers):
    for path in tree.rglob("*.png"):
        copy = tmp_path / path.relative_to(tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: 100 if path.name in ("06.png", "08.png", "44.png") else None])
    data = open_data(recipe({"holdout": 0.05}, batch_size=38, workers=workers), tmp_path, CFG, CPU)
    with pytest.raises(UserError, match=rf"cannot read image {tmp_path}/train/cat/0[68].png") as caught:
        batches(data)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=rf"cannot read image {tmp_path}/test/cat/44.png"):
        list(data.test().in_order())
