"""Files of records: what cannot be read is refused in one line that names the file."""

import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from seattn.core.errors import UserError
from seattn.core.recipe import load_recipe
from seattn.core.records import LARGEST, append_rows, parse, read_json, read_rows, read_yaml


@dataclass(frozen=True)
class Place:
    city: str
    height: float | None


@dataclass(frozen=True)
class Stay:
    name: str
    nights: int
    where: Place
    paid: bool = True


STAYS = [Stay("a, b", 3, Place("Bern", 540.5)), Stay("c", 1, Place("", None), paid=False)]
TEXT = 'name,nights,paid,city,height\n"a, b",3,True,Bern,540.5\nc,1,False,,\n'


def recipe(path):
    return load_recipe(path)


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)
READERS = {"yaml": recipe, "json": read_json, "csv": lambda path: read_rows(Stay, path)}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_is_not_a_plain_text_file_of_sane_size_is_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST + 1)
    for path, message in (
        (tmp_path / "pipe", "is not a plain file"),
        (Path("/dev/zero"), "is not a plain file"),
        (tmp_path, "is not a plain file"),
        (tmp_path / "large", "has 16,777,217 bytes, more than the 16,777,216"),
        (tmp_path / "binary", "is not text in UTF-8"),
    ):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} {message}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must be a mapping of keys to values, for example 'model: x'"),
        ("", "must be a mapping"),
        ("model: [", "is not valid YAML"),
        ("day: 2024-13-45", "is not valid YAML: month must be in 1..12"),
        ("[" * 3000, "is not valid YAML"),
        ("lr: 1\nmodel: x\nlr: 2\n", r"the key 'lr' occurs twice; remove one in .*line 3"),
        ("seattn:\n  cutout: 1\n  cutout: 2\n", r"the key 'cutout' occurs twice"),
        ("a: &a {lr: 1, lr: 2}\n", r"the key 'lr' occurs twice"),
        ("a: &a [1, *a]\n", "aliases stand for more than 100,000 values"),
        ("a: &a {b: *a}\n", "aliases stand for more than 100,000 values"),
        (BOMB, "aliases stand for more than 100,000 values"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=f"recipe {path}.*{message}") as caught:
        read_yaml(path, "recipe", "model: x")
    assert "\n" not in str(caught.value)


def test_a_merged_key_may_be_replaced(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("base: &base {lr: 1, seed: 2}\nrun: {<<: *base, lr: 3}\n")
    assert read_yaml(path, "recipe", "")["run"] == {"lr": 3, "seed": 2}


def test_missing_files_are_named_and_no_rows_are_no_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot read recipe .*no\.yaml: No such file"):
        load_recipe(tmp_path / "no.yaml")
    with pytest.raises(UserError, match=r"cannot read .*no\.json: No such file"):
        read_json(tmp_path / "no.json")
    assert read_rows(Stay, tmp_path / "no.csv") == []


def test_rows_read_back_as_they_were_written(tmp_path):
    path = tmp_path / "rows.csv"
    for row in STAYS:
        append_rows(Stay, path, [row])
    assert path.read_text() == TEXT
    assert read_rows(Stay, path) == STAYS
    path.write_text("name,nights,city,height\na,3,Bern,\n")  # from before the column that has a default
    assert read_rows(Stay, path) == [Stay("a", 3, Place("Bern", None))]
    with pytest.raises(UserError, match=f"{path} has other columns than Stay; give another file"):
        append_rows(Stay, path, STAYS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nights", "days", "has other columns than Stay: nights is missing, days is unknown"),
        (",3,", ",three,", "line 2, is not a valid Stay: nights must be a whole number, got 'three'"),
        (",3,", ",,", "line 2, is not a valid Stay: nights must be a whole number, got ''"),
        ("540.5", "high", "line 2, is not a valid Stay: where.height must be a number, got 'high'"),
        ("False", "maybe", "line 3, is not a valid Stay: paid must be true or false, got 'maybe'"),
        ("False,,", "False", "line 3, has too many cells or too few"),
        ("False,,", "False,,,,", "line 3, has too many cells or too few"),
    ],
)
def test_damaged_rows_are_named(tmp_path, old, new, message):
    path = tmp_path / "rows.csv"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError, match=f"{path},? {message}"):
        read_rows(Stay, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nights": 3.0}, "nights must be a whole number, got 3.0"),
        ({"nights": "3"}, "nights must be a whole number, got '3'"),
        ({"paid": 1}, "paid must be true or false, got 1"),
        ({"where": 3}, "where must be a mapping of keys to values, got 3"),
        ({"where": {"city": "Bern", "hight": 3}}, "unknown key 'where.hight'; did you mean 'where.height'"),
        ({"where": {"city": "Bern"}}, "the key 'where.height' is missing"),
    ],
)
def test_a_record_of_json_is_strict(change, message):
    whole = {"name": "a", "nights": 3, "where": {"city": "Bern", "height": 540}}
    assert parse(Stay, whole, "x.json") == Stay("a", 3, Place("Bern", 540.0))
    with pytest.raises(UserError, match=f"x.json is not a valid Stay: {message}"):
        parse(Stay, {**whole, **change}, "x.json")
    with pytest.raises(UserError, match=r"x.json is not a valid Stay: the content must be a mapping"):
        parse(Stay, [], "x.json")


def deep(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["\ud800", deep(300), date(2026, 11, 30), {"a", "b"}, b"\xff", 2 + 1j, float("nan")])
def test_values_of_any_kind_are_refused_in_one_line(value):
    """Those that JSON escapes or YAML's tags can make, and one that neither has."""
    whole = {"name": "a", "nights": value, "where": {"city": "Bern", "height": 540}}
    with pytest.raises(UserError, match=r"x.yaml is not a valid Stay: ") as error:
        parse(Stay, whole, "x.yaml")
    assert "\n" not in str(error.value)
