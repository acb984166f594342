"""Search files: what ships reads, what is wrong is named in one line before anything runs."""

from pathlib import Path

import pytest

from seattn.core.errors import UserError
from seattn.experiments.search.space import load_search
from tests.helpers.searches import SPACE, write_search

FOLDER = Path(__file__).parents[3] / "zoo_configs" / "searches"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_reads(path):
    search = load_search(path)
    assert len(search.space) >= 5
    assert f"#   seattn search zoo_configs/searches/{path.name} --data-dir DIR --trials " in path.read_text()
    for key, dimension in search.space.items():
        for end in dimension.ends():
            search.recipe_of({key: end})


def test_a_trials_values_replace_those_of_base_and_set(tmp_path):
    space = {"opt": {"choice": ["sgd", "adamw"]}, "scale": {"choice": [[0.35, 1.0], [0.5, 1.0]]}, **SPACE}
    path = write_search(tmp_path, space=space, set={"seattn.crop_padding": 2, "model_kwargs.rd_ratio": 0.5})
    search = load_search(path)
    recipe = search.recipe_of({"lr": 0.3, "seattn.cutout": 4, "scale": "[0.35, 1.0]"})
    assert (recipe.lr, recipe.seattn.cutout, recipe.scale) == (0.3, 4, (0.35, 1.0))
    assert (recipe.seattn.crop_padding, recipe.model_kwargs, recipe.smoothing) == (2, {"rd_ratio": 0.5}, 0.0)
    assert recipe.seattn.holdout == 0.2


def test_numbers_without_a_dot_are_numbers(tmp_path):
    path = write_search(tmp_path, space={"lr": {"float": ["1e-3", "1"], "log": True}})
    assert load_search(path).space["lr"].ends() == (0.001, 1.0)


def test_the_command_line_goes_before_the_file(tmp_path):
    path = write_search(tmp_path, sampler="random", pruner="none", seed=4)
    search = load_search(path)
    assert (search.sampler, search.pruner, search.seed) == ("random", "none", 4)
    search = load_search(path, sampler="tpe", pruner="hyperband", seed=0)
    assert (search.sampler, search.pruner, search.seed) == ("tpe", "hyperband", 0)


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        ({"float": [0.0, 0.3], "step": 0.1}, (0.0, 0.1, 0.2, 0.3)),
        ({"int": [2, 8], "step": 3}, (2, 5, 8)),
        ({"int": [0, 2]}, (0, 1, 2)),
    ],
)
def test_a_grid_has_both_ends(tmp_path, dimension, values):
    key = "seattn.cutout" if "int" in dimension else "smoothing"
    search = load_search(write_search(tmp_path, space={key: dimension}, sampler="grid"))
    assert search.space[key].count() == len(values)
    assert search.space[key].ends() == (values[0], values[-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spaces": {}}, "unknown key 'spaces'; did you mean 'space'"),
        ({"space": {}}, "space must have 1 or more values"),
        ({"space": None}, "the key 'space' is missing"),
        ({"base": None}, "the key 'base' is missing"),
        ({"base": "no.yaml"}, "s.yaml: cannot read recipe .*no.yaml: No such file"),
        ({"space": [1]}, "space must be a mapping of keys to values, got .1."),
        ({"set": 3}, "set must be a mapping of keys to values, got 3"),
        ({"set": {"lrr": 1}}, "unknown key 'lrr'; did you mean 'lr'"),
        ({"sampler": "tpee"}, "sampler must be 'tpe', 'random' or 'grid', got 'tpee'"),
        ({"pruner": "mean"}, "pruner must be 'median', 'hyperband' or 'none', got 'mean'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"set": {"lr": 0.1}}, "lr in space and lr replace the same key"),
        ({"sampler": "grid"}, "a grid needs a finite number of values; give lr a step"),
        (
            {"sampler": "grid", "space": {"weight_decay": {"float": [0, 1], "step": 1e-6}}},
            "a grid of 1,000,001 points is too large",
        ),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        load_search(write_search(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "dimension", "message"),
    [
        ("lrr", {"float": [0.1, 1.0]}, "unknown key 'lrr'; did you mean 'lr'"),
        ("seatn.cutout", {"int": [0, 8]}, "unknown key 'seatn'; did you mean 'seattn'"),
        ("seattn.cutut", {"int": [0, 8]}, "unknown key 'seattn.cutut'; did you mean 'seattn.cutout'"),
        ("smoothing", {"float": [0.0, 1.2]}, "smoothing must be less than 1, got 1.2"),
        ("batch_size", {"float": [16.0, 32.5]}, "batch_size must be a whole number, got 16.0"),
        ("opt", {"choice": ["sgd", 3]}, "opt must be text, got 3"),
        ("lr", {"float": [1.0, 0.1]}, "lr must be .low, high. with low below high, got .1.0, 0.1."),
        ("lr", {"float": [0.1, 0.1]}, "with low below high"),
        ("lr", {"float": [0.1]}, r"float must have at least 2 values, got \[0.1\]"),
        ("lr", {"float": ["a", 1]}, "float.0 must be a number, got 'a'"),
        ("lr", {"float": [0.1, float("inf")]}, "float.1 must be a finite number, got inf"),
        ("lr", {"float": [True, 2]}, "float.0 must be a number, got True"),
        ("seattn.cutout", {"int": [0, 1.5]}, "int.1 must be a whole number, got 1.5"),
        ("weight_decay", {"float": [0, 1], "log": True}, "is not possible: `low > 0` must hold for `log=True`"),
        ("weight_decay", {"float": [0.1, 1], "log": "yes"}, "log must be true or false, got 'yes'"),
        (
            "lr",
            {"float": [0.1, 0.5], "log": True, "step": 0.1},
            "is not possible: The parameter `step` is not supported when `log` is true",
        ),
        ("smoothing", {"float": [0, 0.5], "step": 0.2}, "step must divide the 0.5 between 0 and 0.5, got 0.2"),
        ("smoothing", {"float": [0, 0.5], "step": 0}, "is not possible: `step > 0` must hold"),
        ("lr", {"float": [0.1, 1], "logg": True}, "unknown key 'logg'; did you mean 'log'"),
        ("opt", {"choice": ["a", "b"], "log": True}, "unknown key 'log'; known: choice"),
        ("opt", {"choice": []}, "choice must have 2 or more values"),
        ("opt", {"choice": ["sgd", "sgd"]}, "the values of choice must differ"),
        ("lr", [0.1, 1.0], "space, lr must be {float: "),
        ("lr", {"float": [0.1, 1], "int": [1, 2]}, "space, lr must be {float: "),
        ("seattn.holdout", {"float": [0.1, 0.2]}, "all trials must be scored on the same images"),
        ("seed", {"int": [0, 9]}, "space has seed, but the best seed is chance"),
    ],
)
def test_a_wrong_range_is_one_line_that_names_the_key(tmp_path, key, dimension, message):
    with pytest.raises(UserError, match=message) as caught:
        load_search(write_search(tmp_path, space={key: dimension}))
    assert "\n" not in str(caught.value)
    assert "s.yaml" in str(caught.value)


def test_a_key_and_one_below_it_exclude_each_other(tmp_path):
    space = {"model_kwargs": {"choice": [{}, {"rd_ratio": 0.5}]}, "model_kwargs.rd_ratio": {"float": [0.1, 0.5]}}
    with pytest.raises(UserError, match=r"replace the same key"):
        load_search(write_search(tmp_path, space=space))


def test_a_recipe_is_told_from_a_search(tmp_path):
    write_search(tmp_path)
    with pytest.raises(UserError, match=r"base\.yaml is a recipe; a search is a file with base: base\.yaml and space:"):
        load_search(tmp_path / "base.yaml")
