"""Labels in a file: delimiter, header and columns are found, and what does not fit is refused by line or name."""

import pytest
from PIL import Image

from seattn.core.errors import UserError
from seattn.data.folders.files import list_files
from seattn.data.folders.linking import link_splits
from seattn.data.labels import read_labelled, read_labels

ANIMALS = {"a": "dog", "b": "cat", "c": "dog", "d": "cat"}


@pytest.fixture
def folder(tmp_path):
    """Five images in two folders, of which the tables name four."""
    for i, name in enumerate([*ANIMALS, "e"]):
        path = tmp_path / "photos" / ("one" if i < 2 else "two") / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(path)
    return tmp_path / "photos"


def write(tmp_path, *lines):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(form):
    return [form.format(name=name, animal=animal) for name, animal in ANIMALS.items()]


TABLES = {
    "filename, label": ["filename,label", *rows("{name}.jpg,{animal}")],
    "without a header": rows("{name}.jpg,{animal}"),
    "without a suffix, the class first": ["breed;id", *rows("{animal};{name}")],
    "without a suffix or a header": rows("{name}\t{animal}"),
    "more columns": [",image_id,dx,age", *rows('0,{name},{animal},"3,5"')],
    "with a byte order mark and sep=": ["\ufeffsep=;", "Class Name;File", *rows("{animal};{name}.jpg")],
    "folders, quotes, spaces": ["image_path , category", *rows('"photos/one/../{name}.jpg" , "{animal}"')],
    "another system's paths": ["path|target", *rows("C:\\data\\{name}.jpg|{animal}")],
    "text of one space": rows("{name}.jpg {animal}"),
    "numbers that are names of other images": ["index,filename,label", *rows("e,{name}.jpg,{animal}")],
    "a blank line": ["filename,label", "", *rows("{name}.jpg,{animal}")],
}


@pytest.mark.parametrize("lines", TABLES.values(), ids=TABLES)
def test_a_table_of_any_form_gives_each_image_its_class(tmp_path, folder, lines):
    files = read_labels(write(tmp_path, *lines), folder)
    assert files.class_names == ("cat", "dog")
    assert {
        path.stem: files.class_names[label] for path, label in zip(files.paths, files.labels, strict=True)
    } == ANIMALS


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [f"x{i}.jpg,cat" for i in range(4)],
            "4 of the 8 images in labels .* are not in .*: x0.jpg, x1.jpg, x2.jpg, …;",
        ),
        (["a.jpg,cat", "two/c,dog"], r"2 rows have an image that another row has: line 6: a.jpg, as in line 2; line 7"),
        (["a.jpg,"], "1 row has no class: line 6"),
        ([",cat", " ,dog"], "2 rows have no image: line 6; line 7"),
        (["a.jpg,cat,1"], "1 row has other than 2 cells: line 6: 3 cells"),
        (["a.jpg,../cat"], "1 row has a class that cannot be the name of a folder: line 6: '../cat'"),
        (["a.jpg,.cat"], "line 6: '.cat'"),
        (["a.jpg," + 300 * "x"], "cannot be the name of a folder"),
    ],
    ids=["missing", "twice", "no class", "no image", "cells", "slash", "hidden", "long"],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, folder, lines, message):
    file = write(tmp_path, *TABLES["filename, label"], *lines)
    with pytest.raises(UserError, match=message) as caught:
        read_labels(file, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is not a table of images and classes"),
        (["a.jpg", "b.jpg"], "is not a table of images and classes"),
        (["filename,label"], "has a header and no rows"),
        (["name,age,height", "a,3,4"], "has no column of classes among name, age, height; call that column label"),
    ],
)
def test_what_is_not_a_table_of_images_and_classes_is_refused(tmp_path, folder, lines, message):
    with pytest.raises(UserError, match=message):
        read_labels(write(tmp_path, *lines), folder)


def test_of_two_images_with_a_name_the_one_in_the_folder_of_the_split_is_meant(tmp_path, folder):
    for name in ("train", "test"):
        (folder.parent / "both" / name).mkdir(parents=True)
        for path in folder.rglob("*.jpg"):
            (folder.parent / "both" / name / path.name).write_bytes(path.read_bytes())
    table = write(tmp_path, *TABLES["filename, label"])
    for split in ("train", "test"):
        found = read_labels(table, folder.parent / "both", split)
        assert {path.parent.name for path in found.paths} == {split}
    (folder.parent / "both" / "train").rename(folder.parent / "both" / "elsewhere")
    with pytest.raises(UserError, match=r"or their name fits several files: a\.jpg, b\.jpg, c\.jpg, …"):
        read_labels(table, folder.parent / "both", "train")


def test_labelled_images_are_linked_into_class_folders_and_the_test_table_is_kept(tmp_path, folder):
    train = write(tmp_path, "filename,label", "a,dog", "b,cat")
    test = tmp_path / "test.csv"
    test.write_text("id,label\nc,dog\n")
    images = read_labelled(folder, train, test, skip_bad=False)
    link_splits(images, tmp_path / "links", 0, needed=())
    assert list_files(tmp_path / "links" / "train").labels.tolist() == [0, 1]
    linked = list_files(tmp_path / "links" / "test")
    assert (linked.class_names, [path.resolve().name for path in linked.paths]) == (("cat", "dog"), ["c.jpg"])
    test.write_text("id,label\nc,cow\n")
    with pytest.raises(UserError, match=r"have the class 'cow', which .*labels\.csv do not have"):
        read_labelled(folder, train, test, skip_bad=False)
    with pytest.raises(UserError, match="all images have one class, 'cow'"):
        read_labelled(folder, test, None, skip_bad=False)
