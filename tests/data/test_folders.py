"""One lister for every command: which folders are splits and classes, which files are images."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from seattn.core.errors import UserError
from seattn.core.files import is_one_line
from seattn.data.folders.files import list_files
from seattn.data.folders.linking import link_splits
from seattn.data.folders.reading import read_folder
from seattn.data.folders.splits import check_out, find_splits, split_folder


def save(path, colour="red", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path, **options)


def names(files):
    return [path.name for path in files.paths]


def test_every_image_suffix_counts_in_any_case_and_other_files_are_counted_in_one_line(tmp_path, caplog):
    for suffix in ("jpg", "JPEG", "jfif", "gif", "avif", "webp", "png", "tif", "bmp", "ppm", "jp2", "tga"):
        save(tmp_path / "cat" / f"x.{suffix}")
    for name in ("a.pdf", "b.h5", "c.mpg", "d.txt", "e.txt", "README"):
        (tmp_path / "cat" / name).write_text("")
    for _ in range(2):
        assert len(list_files(tmp_path)) == 12
    (record,) = caplog.records
    assert record.getMessage() == (
        f"files in {tmp_path} without a suffix of images are ignored: .txt 2, .pdf 1, .h5 1, .mpg 1, no suffix 1"
    ) or set(record.getMessage().split(": ")[1].split(", ")) == {".txt 2", ".pdf 1", ".h5 1", ".mpg 1", "no suffix 1"}


def test_hidden_files_and_copies_of_tools_are_skipped_at_every_level(tmp_path, caplog):
    save(tmp_path / "cat" / "x.png")
    save(tmp_path / "dog" / "deeper" / "y.png")
    for folder in (".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "#recycle"):
        for parent in ("", "cat", "dog/deeper"):
            save(tmp_path / parent / folder / "copy.png")
    save(tmp_path / "cat" / "._x.png", format="png")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "cat" / name).write_text("")
    files = list_files(tmp_path)
    assert (files.class_names, names(files)) == (("cat", "dog"), ["x.png", "y.png"])
    assert not caplog.records


def test_a_linked_folder_is_followed_and_a_loop_ends(tmp_path):
    for i in range(3):
        save(tmp_path / "data" / "cat" / f"{i}.png")
        save(tmp_path / "elsewhere" / f"far{i}.png")
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data" / "cat")
    (tmp_path / "data" / "cat" / "self").symlink_to(tmp_path / "data" / "cat")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    files = list_files(tmp_path / "data")
    assert sorted(names(files)) == sorted(["0.png", "1.png", "2.png", "far0.png", "far1.png", "far2.png"] * 2)
    assert files.labels.bincount().tolist() == [6, 6]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("Training", "Testing"), {"train": "Training", "test": "Testing"}),
        (("TRAIN", "Val", "Test"), {"train": "TRAIN", "validation": "Val", "test": "Test"}),
        (("seg_train/seg_train", "seg_test/seg_test"), {"train": "seg_train/seg_train", "test": "seg_test/seg_test"}),
        (("training-set", "test set"), {"train": "training-set", "test": "test set"}),
        (("train", "valid", "val"), {"train": "train", "validation": "val"}),
        (("trains", "cars"), {}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_known_names_of_splits_in_any_case_are_splits(tmp_path, folders, expected):
    for folder in folders:
        for name in ("cat", "dog"):
            save(tmp_path / folder / name / "x.png")
    assert find_splits(tmp_path) == {split: tmp_path / folder for split, folder in expected.items()}
    if "train" in expected:
        images = read_folder(tmp_path, skip_bad=False)
        assert images.class_names == ("cat", "dog")
        assert split_folder(tmp_path, "training") == tmp_path / expected["train"]


@pytest.mark.parametrize("split", ["train", "val", "validation", "fold1"])
def test_of_a_folder_of_classes_only_the_test_split_is_all_images(tmp_path, split):
    for name in ("cat", "dog"):
        save(tmp_path / name / "x.png")
    assert split_folder(tmp_path, "test") == split_folder(tmp_path, "testing") == tmp_path
    with pytest.raises(UserError, match=f"{tmp_path} holds classes and no splits, so it has no split '{split}'; leave"):
        split_folder(tmp_path, split)


def test_folders_that_hold_only_folders_are_refused_with_what_was_found_and_what_would_be_right(tmp_path):
    for fold in ("fold1", "fold2"):
        for name in ("cat", "dog"):
            save(tmp_path / fold / name / "x.png")
    message = (
        rf"the folders fold1, fold2 in {tmp_path} hold only folders, as fold1 holds cat, dog: if they are splits, call "
        "them train, validation and test; if one of them holds the classes, give that folder; if they are the classes"
    )
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path, skip_bad=False)
    with pytest.raises(UserError, match=message):
        split_folder(tmp_path, "test")
    assert split_folder(tmp_path, "fold1") == tmp_path / "fold1"
    (tmp_path / "train").mkdir()
    for fold in ("fold1", "fold2"):
        (tmp_path / fold).rename(tmp_path / "train" / fold)
    assert read_folder(tmp_path, skip_bad=False).class_names == ("fold1", "fold2")


@pytest.mark.parametrize("inner", ["images", ""], ids=["every class in one folder more", "one class"])
def test_images_deeper_in_a_class_folder_stay_images(tmp_path, inner):
    save(tmp_path / "cat" / "session 1" / "x.png")
    save(tmp_path / "dog" / inner / "y.png")
    assert read_folder(tmp_path, skip_bad=False).counts() == [1, 1]


def test_class_names_that_are_not_utf_8_are_shown_with_replacement_characters(tmp_path):
    for name in (b"caf\xe9", b"cat"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        for i in range(3):
            path.mkdir(exist_ok=True)
            with (path / f"{i}.png").open("wb") as file:
                Image.new("RGB", (8, 8)).save(file, "png")
    images = read_folder(tmp_path, skip_bad=False)
    assert images.class_names == ("caf\ufffd", "cat")
    link_splits(images, tmp_path / "links", 0)
    assert list_files(tmp_path / "links" / "train").labels.bincount().tolist() == [1, 1]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe8")).mkdir()
    with pytest.raises(UserError, match="are both shown as 'caf\ufffd'; rename one in UTF-8"):
        list_files(tmp_path)


def test_links_of_files_whose_flat_names_are_the_same_are_numbered(tmp_path):
    for name in ("cat", "dog"):
        for i, colour in enumerate(("red", "green", "blue")):
            save(tmp_path / "data" / name / f"a{'/' if i else '__'}b.png", colour) if i < 2 else None
            save(tmp_path / "data" / name / f"{i}.png", colour)
    images = read_folder(tmp_path / "data", skip_bad=False)
    link_splits(images, tmp_path / "links", 0)
    linked = {path.resolve() for path in (tmp_path / "links").rglob("*.png")}
    assert linked == {path.resolve() for path in images.splits["train"].paths}
    assert not any(path.is_dir() for path in (tmp_path / "links").glob("*/*/*"))


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    save(tmp_path / "cat" / "x.png")
    (tmp_path / "cat" / "locked").mkdir()
    listed = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=rf"cannot list the folder {tmp_path}/cat/locked: Permission denied"):
        list_files(tmp_path)


def test_a_set_keeps_its_choice_about_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 4)).save(tmp_path / "cat" / "x.jpg", exif=exif)
    files = list_files(tmp_path, exif=False).subset(torch.tensor([0]))
    assert files.read(0, "RGB").size == (8, 4)
    assert list_files(tmp_path).read(0, "RGB").size == (4, 8)


def test_a_folder_of_runs_is_no_class_and_no_run_is_started_among_the_images(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name / "x.png")
    for run in ("runs/photos-s0", "runs/deeper/study", "dog/run"):
        save(tmp_path / run / "data" / "train" / "cat" / "y.png")
        for file in ("recipe.yaml", "summary.csv"):
            (tmp_path / run / file).write_text("")
    (tmp_path / "cat" / "recipe.yaml").write_text("")  # one of the names is no run
    files = list_files(tmp_path)
    assert (files.class_names, names(files)) == (("cat", "dog"), ["x.png", "x.png"])
    check_out(tmp_path.parent / "run", tmp_path)
    (tmp_path.parent / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "run", tmp_path / "cat" / ".." / "run", tmp_path.parent / "link" / "run"):
        with pytest.raises(UserError, match=f"is inside --data-dir {tmp_path}; give a folder outside of the images"):
            check_out(out, tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path):
    for name in ("car", "train", "truck"):
        save(tmp_path / "vehicles" / name / "0.png")
    assert find_splits(tmp_path / "vehicles") == {}
    assert list_files(split_folder(tmp_path / "vehicles", "test")).class_names == ("car", "train", "truck")
    save(tmp_path / "contest" / "train" / "cat" / "0.png")
    save(tmp_path / "contest" / "test" / "0.png")  # a test split without labels
    assert sorted(find_splits(tmp_path / "contest")) == ["test", "train"]
    save(tmp_path / "mixed" / "train" / "cat" / "0.png")
    save(tmp_path / "mixed" / "samples" / "0.png")
    assert sorted(find_splits(tmp_path / "mixed")) == ["train"]


@pytest.mark.parametrize(
    "name", ["\u06af\u0631\u0628\u0647\u200c\u0647\u0627", "\u3000cat", "a\u00a0b", "\U0001f468\u200d\U0001f469"]
)
def test_names_with_the_spaces_and_joiners_of_all_languages_are_classes(tmp_path, name):
    save(tmp_path / name / "0.png")
    assert list_files(tmp_path).class_names == (name,)
    assert is_one_line(name)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[0m", "a\u2028b"])
def test_a_class_folder_with_a_control_character_is_refused_before_training(tmp_path, name):
    save(tmp_path / name / "0.png")
    with pytest.raises(UserError, match="has a control character in its name; rename it"):
        list_files(tmp_path)
