import logging
import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

import seattn.data.open
from seattn.core.errors import UserError
from seattn.core.recipe import parse_recipe
from seattn.data.folders.files import list_files
from seattn.data.folders.reading import read_folder
from seattn.data.folders.splits import has_split
from seattn.data.images import ImageSet, decode, hold_out, load_cifar, read_image
from seattn.data.loader import FolderEval
from seattn.data.memory import MemoryTrain
from seattn.data.open import open_data, warn_of_shared_files
from seattn.data.sampling import epoch_order, long_tail
from tests.helpers.cifar_files import LABELS, take_as_whole, write_cifar

CPU = torch.device("cpu")
CFG = {
    "input_size": (3, 8, 8),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": (0.49, 0.48, 0.44),
    "std": (0.24, 0.25, 0.26),
}


def recipe(seattn=None, **keys):
    plain = {"model": "resnet20_cifar", "lr": 0.1, "batch_size": 4, "workers": 0, "color_jitter": 0.0, "seed": 1}
    return parse_recipe({**plain, **keys, "seattn": {"crop_padding": 1, "holdout": 0.25, **(seattn or {})}})


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
    data = decode(list_files(tmp_path), (8, 8))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with Image.open(tmp_path / "dog" / "1.png") as image:
        assert np.array_equal(data.images[4].numpy(), np.asarray(image))


def test_images_of_other_size_and_mode_are_converted(tmp_path):
    write_folder(tmp_path, count=1, size=(20, 11))
    Image.new("L", (5, 9), 77).save(tmp_path / "cat" / "gray.png")
    data = decode(list_files(tmp_path), (8, 6))
    assert data.images.shape == (3, 8, 6, 3)
    assert data.images[1].unique().tolist() == [77]


def test_cifar_files_are_read_as_torchvision_reads_them(tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path, "abcdefghij")
    with pytest.raises(UserError, match=r"missing or altered"):
        load_cifar(tmp_path, "train")
    take_as_whole(monkeypatch)
    train, test = load_cifar(tmp_path, "train"), load_cifar(tmp_path, "test")
    assert torch.equal(load_cifar(tmp_path / "cifar-10-batches-py", "test").images, test.images)  # the folder itself
    (tmp_path / "cifar-10-batches-py").rename(tmp_path / "mine")
    (tmp_path / "cifar-10-batches-py").symlink_to(tmp_path / "mine")
    for folder in (tmp_path, tmp_path / "cifar-10-batches-py"):  # a link's own name says which set it is
        assert torch.equal(load_cifar(folder, "test").images, test.images)
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(UserError, match=r"has the files of CIFAR-10 and of CIFAR-100; give .*-py or .*-100-python"):
        has_split(tmp_path, "train")
    assert has_split(tmp_path / "cifar-100-python", "train")
    with pytest.raises(UserError, match="holds CIFAR's own files; this command takes folders of images"):
        read_folder(tmp_path / "cifar-10-batches-py", skip_bad=False)
    (tmp_path / "cifar-100-python").rmdir()
    assert (len(train), len(test)) == (30, 6)
    assert test.labels.tolist() == LABELS
    assert np.array_equal(test.images[0].permute(2, 0, 1).flatten().numpy(), pixels[0])
    assert not has_split(tmp_path, "validation")
    with pytest.raises(UserError, match="32 x 32, the model's input is 224 x 224"):
        load_cifar(tmp_path, "train", (224, 224))


def test_missing_folder_split_and_images_are_named(tmp_path):
    for folder, message in (
        (tmp_path / "nowhere", "no data folder .*nowhere"),
        (tmp_path, f"no train split in {tmp_path}"),
    ):
        with pytest.raises(UserError, match=message):
            open_data(recipe(), folder, CFG, CPU)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"no images in {tmp_path}/train"):
        open_data(recipe(), tmp_path, CFG, CPU)


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


@pytest.fixture
def tree(tmp_path):
    """train/, test/ with 8 and 3 images a class, all different."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def batches(data, epoch=0, **options):
    return [(x.clone(), target.clone()) for x, target in data.train.epoch(epoch, **options)]


def equal(first, second):
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_memory_path_has_the_promised_form(tree):
    data = open_data(recipe(), tree, CFG, CPU)
    assert (data.path, data.class_names) == ("memory", ("cat", "dog"))
    assert (len(data.train), len(data.held_out), data.train.batches()) == (12, 4, 3)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    found = batches(data)
    assert len(found) == 3
    for x, target in found:
        assert (x.shape, x.dtype, target.shape, target.dtype) == ((4, 3, 8, 8), torch.float32, (4,), torch.int64)
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.cat([target for _, target in found]).bincount().tolist() == [6, 6]
    test = data.test()
    assert (len(test), test.labels.tolist(), test.class_names) == (6, [0, 0, 0, 1, 1, 1], ("cat", "dog"))


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_an_epoch_is_of_seed_and_epoch_alone_and_leaves_the_global_generators_alone(tree, path):
    everything = {"vflip": 0.5, "color_jitter": 0.4, "reprob": 0.5, "seattn": {"cutout": 2, "data": path}}
    data, again = (open_data(recipe(**everything), tree, CFG, CPU) for _ in range(2))
    first = batches(data, 0)
    torch.manual_seed(5)
    random.seed(9)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert equal(batches(again, 1), batches(data, 1))
    assert equal(first, batches(again, 0))
    assert not equal(first, batches(data, 1))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(before[2], torch.get_rng_state())  # dropout draws from it
    other = open_data(recipe(seed=2, **everything), tree, CFG, CPU)
    assert not equal(first, batches(other, 0))


ALL = {
    "crop, cutout, erasing": {"seattn": {"cutout": 2}, "reprob": 0.7, "recount": 2, "color_jitter": 0.4},
    "resized crop": {"seattn": {"crop_padding": None}, "remode": "rand", "reprob": 0.7},
    "policy": {"seattn": {"policy": "cifar10"}, "vflip": 0.5, "remode": "const", "reprob": 0.7},
    "balanced": {"seattn": {"sampling": "balanced"}},
    "files": {"seattn": {"data": "folder", "cutout": 2}, "aa": "rand-m9-mstd0.5", "reprob": 0.5, "vflip": 0.5},
}


@pytest.mark.parametrize("keys", ALL.values(), ids=ALL)
def test_two_processes_see_what_one_with_the_global_batch_sees(tree, keys):
    one = batches(open_data(recipe(**keys, batch_size=4), tree, CFG, CPU))
    two = [batches(open_data(recipe(**keys, batch_size=2), tree, CFG, CPU, rank=rank, world=2)) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1]) == 3
    assert equal(one, [tuple(torch.cat(pair) for pair in zip(*ranks, strict=True)) for ranks in zip(*two, strict=True)])


def test_memory_images_are_the_files_where_nothing_is_drawn(tree):
    data = open_data(recipe({"crop_padding": 0}, hflip=0.0), tree, CFG, CPU)
    transform = create_transform(**{**CFG, "input_size": (3, 8, 8)})
    expected = {}
    for path in (tree / "train").rglob("*.png"):
        with Image.open(path) as image:
            expected[tuple(transform(image).mul(1e3).round().flatten().tolist())] = ("cat", "dog").index(
                path.parent.name
            )
    for x, target in batches(data):
        keys = [tuple(image.contiguous().mul(1e3).round().flatten().tolist()) for image in x]
        assert [expected[key] for key in keys] == target.tolist()


def test_training_at_another_side(tree):
    for padding in (1, None):
        data = open_data(recipe({"crop_padding": padding, "cutout": 4}, reprob=0.5), tree, CFG, CPU)
        assert {tuple(x.shape) for x, _ in batches(data, size=6)} == {(4, 3, 6, 6)}
        assert [target.tolist() for _, target in batches(data, size=6)] == [t.tolist() for _, t in batches(data)]
    data = open_data(recipe({"crop_padding": 0, "cutout": 4}, hflip=0.0), tree, CFG, CPU)
    erased = [int((image == 0).all(0).sum()) for x, _ in batches(data, size=4) for image in x]
    assert max(erased) <= 4  # the square's side shrinks with the image's


@pytest.mark.parametrize("counts", [(50, 7, 3), (1, 1, 1), (5, 0, 9)], ids=str)
def test_balanced_epoch_has_every_class_equally_often_and_every_image_before_any_again(counts):
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    order = epoch_order(labels, torch.Generator().manual_seed(0), balanced=True)
    assert len(order) == sum(counts)
    drawn = labels[order].bincount(minlength=3)[torch.tensor(counts) > 0]
    assert drawn.max() - drawn.min() <= 1
    for label in labels.unique().tolist():
        times = order[labels[order] == label].bincount(minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1


def test_balanced_is_the_recipes_unless_asked_otherwise(tree):
    for i in range(6):
        (tree / "train" / "dog" / f"{i}.png").unlink()
    drawn = {}
    for sampling in ("shuffle", "balanced"):
        data = open_data(recipe({"sampling": sampling, "holdout": 0.2}, batch_size=2), tree, CFG, CPU)
        for balanced in (None, True, False):
            labels = torch.cat([target for _, target in batches(data, balanced=balanced)])
            drawn[sampling, balanced] = labels.bincount(minlength=2).tolist()
    assert len({tuple(drawn[key]) for key in (("balanced", None), ("balanced", True), ("shuffle", True))}) == 1
    assert drawn["balanced", None] == [4, 4]
    assert drawn["shuffle", None] == drawn["balanced", False]
    assert drawn["shuffle", None][1] <= 2


def test_evaluation_is_timms_transform_of_any_image(tmp_path):
    cfg = {**CFG, "crop_pct": 0.7}
    for split in ("train", "val", "test"):
        write_folder(tmp_path / split, size=(13, 9), count=4)
    data = open_data(recipe({"data": "memory"}), tmp_path, cfg, CPU)
    transform = create_transform(**cfg)
    for split, name in ((data.held_out, "val"), (data.test(), "test")):
        expected = [transform(Image.open(path)) for path in sorted((tmp_path / name).rglob("*.png"))]
        found = torch.cat(list(split.in_order()))
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_images_that_do_not_fit_are_read_as_files(tree, monkeypatch):
    whole = torch.cat(list(open_data(recipe(), tree, CFG, CPU).test().in_order()))
    data = open_data(recipe(), tree, CFG, CPU)
    monkeypatch.setattr(seattn.data.open, "_MEMORY_LIMIT", 0)
    test = data.test()
    assert isinstance(test, FolderEval)
    torch.testing.assert_close(torch.cat(list(test.in_order())), whole, atol=1e-5, rtol=1e-5)


def test_auto_takes_memory_where_it_does_the_same(tree, monkeypatch):
    def path(seattn=None, cfg=CFG, **keys):
        return open_data(recipe(seattn, **keys), tree, cfg, CPU).path

    assert path() == path({"crop_padding": None}) == "memory"
    assert path(aa="rand-m9") == path({"data": "folder"}) == "folder"
    small = {**CFG, "input_size": (3, 6, 6)}
    assert path(cfg=small) == "memory"
    assert path({"crop_padding": None}, small) == "folder"  # a crop of what was made small first shows less
    assert path({"crop_padding": None, "data": "memory"}, small) == "memory"
    monkeypatch.setattr(seattn.data.open, "_MEMORY_LIMIT", 16 * 8 * 8 * 3 - 1)
    assert path() == "folder"
    assert path(cfg={**CFG, "input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}) == "memory"
    with pytest.raises(UserError, match=r"16 images of 8 x 8 in .* in memory; .* seattn.data: folder"):
        path({"data": "memory"})


def test_aa_is_refused_in_memory_and_beside_a_policy(tree):
    with pytest.raises(UserError, match=r"aa 'rand-m9' needs seattn.data 'folder'; .* seattn.policy"):
        open_data(recipe({"data": "memory"}, aa="rand-m9"), tree, CFG, CPU)
    for path in ("folder", "auto"):
        with pytest.raises(UserError, match="two policies"):
            open_data(recipe({"data": path, "policy": "trivial"}, aa="rand-m9"), tree, CFG, CPU)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("path", ["memory", "folder"])
def test_grey_and_four_channel_images_are_read_augmented_normalised_and_evaluated(tree, path, channels):
    """A config as timm makes it: one mean and one deviation for every channel."""
    config = {**CFG, "input_size": (channels, 8, 8), "mean": (0.4,) * channels, "std": (0.2,) * channels}
    plain = open_data(recipe({"data": path, "crop_padding": 0}, hflip=0.0, batch_size=12), tree, config, CPU)
    ((x, _),) = batches(plain)
    mode = {1: "L", 4: "RGBA"}[channels]
    expected = [np.array(read_image(file, mode)).reshape(8, 8, channels) for file in (tree / "train").rglob("*.png")]
    expected = {tuple(pixels.transpose(2, 0, 1).flatten()) for pixels in expected}
    assert {tuple((image * 0.2 + 0.4).mul(255).round().int().flatten().tolist()) for image in x} <= expected
    augmented = {"color_jitter": 0.4, "reprob": 0.9, "vflip": 0.5, "seattn": {"cutout": 2, "data": path}}
    for padding in (1, None):
        keys = {**augmented, "seattn": {**augmented["seattn"], "crop_padding": padding}}
        data = open_data(recipe(**keys), tree, config, CPU)
        assert all(x.shape == (4, channels, 8, 8) and x.isfinite().all() for x, _ in batches(data))
    assert torch.cat(list(data.test().in_order())).shape == (6, channels, 8, 8)


def test_other_channels_and_policies_of_coloured_images_are_refused(tree):
    def opened(channels, seattn=None, **keys):
        config = {**CFG, "input_size": (channels, 8, 8), "mean": (0.4,) * channels, "std": (0.2,) * channels}
        return open_data(recipe(seattn, **keys), tree, config, CPU)

    with pytest.raises(UserError, match="the model takes 2 channels; image files give 1"):
        opened(2)
    with pytest.raises(UserError, match=r"seattn\.policy 'trivial' is for images of 3 channels, the model takes 1"):
        opened(1, {"policy": "trivial"})
    with pytest.raises(UserError, match="aa 'rand-m9' is for images of 3 channels, the model takes 4"):
        opened(4, aa="rand-m9")


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_class_folders_must_agree_and_train_has_no_empty_one(tree, path):
    def opened():
        return open_data(recipe({"data": path}), tree, CFG, CPU)

    (tree / "test" / "emu").mkdir()
    with pytest.raises(UserError, match=r"test has a class folder 'emu', which .*train does not have"):
        opened()
    (tree / "train" / "emu").mkdir()
    with pytest.raises(UserError, match=r"class folder .*train/emu holds no images"):
        opened()
    Image.new("RGB", (8, 8)).save(tree / "train" / "emu" / "a.png")
    Image.new("RGB", (8, 8), "red").save(tree / "train" / "emu" / "b.png")
    (tree / "val" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"val has no class folder 'dog', which .*train has; an empty folder is enough"):
        opened()
    (tree / "val" / "dog").mkdir()
    (tree / "val" / "emu").mkdir()
    Image.new("RGB", (8, 8)).save(tree / "val" / "cat" / "a.png")
    data = opened()
    assert data.held_out.labels.tolist() == [0]  # an empty class of a validation or test split is no error
    assert data.test().class_names == ("cat", "dog", "emu")


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_missing_test_split_is_named_when_it_is_read(tree, path):
    (tree / "test").rename(tree / "other")
    data = open_data(recipe({"data": path}), tree, CFG, CPU)
    with pytest.raises(UserError, match=f"no test split in {tree}"):
        data.test()


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_unreadable_image_stops_unless_it_is_to_be_skipped(tree, path, caplog):
    for name, damaged in (("train/cat/3.png", b"text"), ("train/dog/0.png", None), ("test/dog/1.png", b"text")):
        (tree / name).write_bytes(damaged or (tree / name).read_bytes()[:100])
    with pytest.raises(UserError, match=r"cannot read image .*train/(cat/3|dog/0).png: .* with --skip-bad") as caught:
        batches(open_data(recipe({"data": path, "holdout": 0.125}, batch_size=14), tree, CFG, CPU))
    assert "\n" not in str(caught.value)
    data = open_data(recipe({"data": path}), tree, CFG, CPU, skip_bad=True)
    assert len(data.train) + len(data.held_out) == 14
    assert len(batches(data)) == data.train.batches()
    assert len(data.test()) == 5
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"2 of 16 train images cannot be read and are left out: {tree}/train/cat/3.png, {tree}/train/dog/0.png",
        f"1 of 6 test images cannot be read and are left out: {tree}/test/dog/1.png",
    ]
    caplog.clear()
    open_data(recipe({"data": path}, batch_size=2), tree, CFG, CPU, rank=1, world=2, skip_bad=True)
    assert not caplog.records


def test_a_split_of_unreadable_images_is_named(tree):
    for path in (tree / "train").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 16 train images can be read; the first is .*train/cat/0.png"):
        open_data(recipe(), tree, CFG, CPU, skip_bad=True)


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_test_images_that_stand_in_train_are_warned_of_when_test_is_read(tree, path, caplog):
    data = open_data(recipe({"data": path}), tree, CFG, CPU)
    data.test()
    assert not caplog.records
    for name, source in (("cat/9.png", "dog/2.png"), ("dog/1.png", "dog/5.png")):
        (tree / "test" / name).write_bytes((tree / "train" / source).read_bytes())
    data = open_data(recipe({"data": path}), tree, CFG, CPU)
    assert not caplog.records
    data.test()
    (record,) = caplog.records
    assert record.getMessage() == (
        "2 of 7 test images are also in train, by content: the score is too high; the first is "
        f"{tree}/test/cat/9.png, in train {tree}/train/dog/2.png"
    )


def test_files_that_only_begin_alike_are_not_doubles(tmp_path, caplog):
    files = [tmp_path / name for name in "abc"]
    for path, end in zip(files, (b"1", b"2", b"1"), strict=True):
        path.write_bytes(bytes(2**17) + end)
    warn_of_shared_files(files[:1], files[1:2])
    assert not caplog.records
    warn_of_shared_files(files[:1], files[1:])
    assert "1 of 1 test images are also in train" in caplog.text
    assert f"the first is {files[0]}, in train {files[2]}" in caplog.text


def test_cifar_files_are_opened_whole_and_their_duplicates_found(tmp_path, monkeypatch, caplog):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(256, size=(26, 32, 32, 3), dtype=np.uint8))
    images[23] = images[7]
    sets = {"train": ImageSet(images[:20], torch.arange(20) % 2, ("a", "b"))}
    sets["test"] = ImageSet(images[20:], torch.arange(6) % 2, ("a", "b"))
    (tmp_path / "cifar-10-batches-py").mkdir()
    monkeypatch.setattr(seattn.data.open, "load_cifar", lambda data_dir, split, size, mode: sets[split])
    cfg = {**CFG, "input_size": (3, 32, 32), "crop_pct": 0.8}
    data = open_data(recipe(), tmp_path, cfg, CPU)
    assert (data.path, len(data.train), len(data.held_out)) == ("memory", 15, 5)
    test = data.test()
    assert "1 of 6 test images are also in train, by content" in caplog.text
    assert "the first is image 3, in train image 7" in caplog.text
    transform = create_transform(**cfg)
    expected = torch.stack([transform(Image.fromarray(image.numpy())) for image in images[20:]])
    torch.testing.assert_close(torch.cat(list(test.in_order())), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="holds CIFAR files; use 'memory'"):
        open_data(recipe({"data": "folder"}), tmp_path, cfg, CPU)
    with pytest.raises(UserError, match=r"needs seattn.data 'folder'"):
        open_data(recipe(aa="rand-m9"), tmp_path, cfg, CPU)


def test_alternating_flips_show_both_sides_in_two_epochs(tmp_path):
    """Each image is mirrored in one of two successive epochs; about half of them in the first."""
    shape = (64, 4, 4, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageSet(images, torch.arange(64), tuple("abcdefgh" * 8))
    ours = {"flips": "alternate", "crop_padding": 0}
    recipe = parse_recipe(
        {"model": "se_resnet20_cifar", "lr": 0.1, "batch_size": 16, "color_jitter": 0, "seattn": ours}
    )
    train = MemoryTrain(data, recipe, {"mean": (0.0,) * 3, "std": (1.0,) * 3}, torch.device("cpu"))
    mirrored = []
    for epoch in range(3):
        seen = torch.zeros(64, dtype=torch.bool)
        for x, index in train.epoch(epoch):
            shown = (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
            plain = (shown == images[index]).flatten(1).all(1)
            assert torch.equal(torch.where(plain[:, None, None, None], shown, shown.flip(2)), images[index])
            seen[index] = ~plain
        mirrored.append(seen)
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])
    assert 16 < mirrored[0].sum() < 48


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_a_long_tail_thins_the_train_split_and_nothing_else(path, tmp_path):
    for split in ("train", "test"):
        write_folder(tmp_path / split, ("a", "b", "c"), count=20)
    keys = {"data": path, "holdout": 0.2}
    whole = open_data(recipe(keys), tmp_path, CFG, CPU)
    thin = open_data(recipe({**keys, "long_tail": 16}), tmp_path, CFG, CPU)
    assert torch.bincount(whole.train.labels).tolist() == [16, 16, 16]
    assert torch.bincount(thin.train.labels).tolist() == [16, 4, 1]
    for split, count in ((thin.held_out, 4), (thin.test(), 20)):
        assert torch.bincount(split.labels).tolist() == [count] * 3


def test_a_long_tail_keeps_an_image_of_each_class_and_never_makes_one_larger():
    labels = torch.tensor([0] * 3 + [1] * 50 + [2] * 50)
    kept = long_tail(labels, 1000.0, 0)
    assert torch.bincount(labels[kept]).tolist() == [3, 2, 1]
    assert torch.equal(kept, long_tail(labels, 1000.0, 0))
    assert not torch.equal(kept, long_tail(labels, 1000.0, 1))
    assert long_tail(torch.zeros(5, dtype=torch.long), 10.0, 0).tolist() == [0, 1, 2, 3, 4]
