"""The table of a recipe's keys, and `seattn recipe keys` as its users meet it."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.core.recipe import OurKeys, Recipe, parse_recipe
from seattn.core.recipe import keys as model
from seattn.core.recipe.table import markdown_table, recipe_keys

KEYS = {key.key: key for key in recipe_keys()}


def test_every_key_of_the_model_has_a_row_with_its_default():
    ours = [f"seattn.{field.name}" for field in dataclasses.fields(OurKeys)]
    timms = [field.name for field in dataclasses.fields(Recipe) if field.name != "seattn"]
    assert list(KEYS) == [*timms, *ours]
    assert [key.key for key in KEYS.values() if key.required] == ["model", "lr"]
    plain = parse_recipe({"model": "resnet20_cifar", "lr": 0.1}).to_dict()
    values = plain | {f"seattn.{name}": value for name, value in plain["seattn"].items()}
    assert {name: values[name] for name, key in KEYS.items() if not key.required} == {
        name: key.default for name, key in KEYS.items() if not key.required
    }


def test_every_meaning_is_the_string_below_its_key():
    """Whole sentences, each once: nothing is said of a key anywhere else."""
    tree = ast.parse(Path(model.__file__).read_text(encoding="utf-8"))
    below = {}
    for record in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        prefix = "seattn." if record.name == "OurKeys" else ""
        for node, after in zip(record.body, record.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
                below[prefix + node.target.id] = " ".join(after.value.value.split())
    assert below.pop("seattn")
    assert {name: key.meaning for name, key in KEYS.items()} == below
    assert [text for text in below.values() if not re.fullmatch(r"(?s)[A-Z`t].*\.", text)] == []
    assert len(set(below.values())) == len(below)


@pytest.mark.parametrize(
    ("name", "kind", "default", "bounds"),
    [
        ("model", "text", "required", ""),
        ("lr", "number", "required", "above 0"),
        ("batch_size", "integer", "128", "2 to 1,000,000"),
        ("seed", "integer", "42", "at least 0, below 4,294,967,296"),
        ("weight_decay", "number", "2e-05", "at least 0"),
        ("smoothing", "number", "0.1", "at least 0, below 1"),
        ("model_kwargs", "mapping", "{}", ""),
        ("opt_betas", "[number, number] or null", "null", ""),
        ("decay_milestones", "[integer, …]", "[90, 180, 270]", "0 to 1,000,000"),
        ("scale", "[number, number]", "[0.08, 1]", "above 0; 0 to 1"),
        ("ratio", "[number, number]", "[0.75, 1.33333]", "above 0"),
        ("sched", "text", "cosine", "one of cosine, multistep, poly, step, tanh"),
        ("amp", "true or false", "false", ""),
        ("kd_model_name", "text or null", "null", ""),
        ("seattn.policy", "text", '""', 'one of "", cifar10, imagenet, randaugment, trivial'),
        ("seattn.class_weights", "text or mapping", "none", "one of none, balanced, effective; above 0"),
        ("seattn.resize", "[[integer, integer], …]", "[]", "1 to 1,000,000"),
    ],
)
def test_a_row_in_words(name, kind, default, bounds):
    assert KEYS[name].cells()[:4] == (name, kind, default, bounds)


NUMBERS = [key for key in KEYS.values() if key.bounds and not key.required and isinstance(key.default, int | float)]


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: key.key)
def test_the_bounds_are_those_that_the_recipe_holds(key):
    """The value at a bound, and one beyond it."""
    numbers = [float(text.replace(",", "")) for text in re.findall(r"[\d,.]*\d", key.bounds)]
    for number, side in zip(numbers, (-1, 1), strict=False):
        inside = number - side * (1 if key.type == "integer" else 1e-3)
        refused = number + side * (1 if key.type == "integer" else 1e-3)
        if ("above" in key.bounds and side < 0) or ("below" in key.bounds and side > 0):
            refused = number
        for value, right in ((inside, True), (refused, False)):
            raw = {"model": "m", "lr": 0.1, "epochs": 1}
            group = raw.setdefault("seattn", {}) if key.key.startswith("seattn.") else raw
            group[key.key.removeprefix("seattn.")] = int(value) if key.type == "integer" else value
            if right:
                parse_recipe(raw)
            else:
                with pytest.raises(UserError, match=re.escape(key.key)):
                    parse_recipe(raw)


def test_a_filter_is_a_pattern_or_a_part_of_the_name():
    assert [key.key for key in recipe_keys("lr*")] == ["lr", "lr_cycle_mul", "lr_cycle_decay", "lr_cycle_limit"]
    assert [key.key for key in recipe_keys("cutout")] == ["seattn.cutout"]
    assert len(recipe_keys("seattn.")) == len(dataclasses.fields(OurKeys))


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("lrr*", "no key of a recipe fits 'lrr*'; did you mean 'lr'?"),
        ("hold_out", "did you mean 'seattn.holdout'?"),
        ("epohcs", "did you mean 'epochs'?"),
        ("qqq", "no key of a recipe fits 'qqq'; `seattn recipe keys` shows all"),
        ("[", "no key of a recipe fits '['"),
    ],
)
def test_a_mistyped_filter_gets_one_line(fails, pattern, hint):
    assert hint in fails("recipe", "keys", pattern)
    assert hint in fails("recipe", "keys", pattern, "--json")


def test_the_command_fits_a_narrow_terminal_and_shows_everything(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["recipe", "keys"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert re.search(r"warmup_lr +number; default 1e-05; at least 0 *\n +The learning rate at the start", out)
    words = " ".join(out.split())
    assert all(key.key in words and key.meaning in words for key in KEYS.values())


def test_json_has_the_exact_defaults(capsys):
    assert main(["recipe", "keys", "ratio", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "key": "ratio",
        "type": "[number, number]",
        "required": False,
        "default": [3 / 4, 4 / 3],
        "bounds": "above 0",
        "meaning": "The least and the largest width over height of a random crop.",
    }
    assert main(["recipe", "keys", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(KEYS)


def test_the_markdown_table_has_a_line_for_each_key():
    head, rule, *lines = markdown_table(KEYS.values()).splitlines()
    assert (head, rule) == ("| key | type | default | bounds | meaning |", "| --- | --- | --- | --- | --- |")
    assert len(lines) == len(KEYS)
    assert all(line.count("|") - line.count("\\|") == 6 for line in lines)
    assert lines[1] == "| `lr` | number | required | above 0 | The highest learning rate of the schedule. |"
