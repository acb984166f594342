import ast
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from timm.optim import list_optimizers
from timm.scheduler import create_scheduler_v2

import seattn  # noqa: F401  registers the models
from seattn.core.errors import UserError
from seattn.core.recipe import CYCLIC, OurKeys, Recipe, Scheduler, load_recipe, parse_recipe
from seattn.core.recipe.foreign import NEAREST
from seattn.training.build import create_schedule

CONFIGS = sorted((Path(__file__).parents[3] / "zoo_configs").glob("*.yaml"))
BASE = {"model": "se_resnet20_cifar.cifar10", "lr": 0.1}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.skipif("TIMM_SCRIPTS" not in os.environ, reason="TIMM_SCRIPTS names no checkout of timm with its train.py")
def test_every_key_but_ours_is_one_of_timms_train_script(path):
    tree = ast.parse((Path(os.environ["TIMM_SCRIPTS"]) / "train.py").read_text())
    known = {
        argument.value.lstrip("-").replace("-", "_")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant) and argument.value.startswith("--")
    }
    assert set(yaml.safe_load(path.read_text())) - {"seattn"} <= known
    assert {*Recipe.__dataclass_fields__} - {"seattn"} <= known


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"qqqqqq": 3}, "unknown key 'qqqqqq'; known: .*model"),
        ({"seattn": {"hold_out": 0.1}}, "unknown key 'seattn.hold_out'; did you mean 'seattn.holdout'?"),
        ({"seattn": 3}, "seattn must be a mapping of keys to values, got 3"),
        ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"amp": "yes"}, "amp must be true or false, got 'yes'"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"lr": True}, "lr must be a number, got True"),
        ({"lr": math.inf}, "lr must be a finite number, got inf"),
        ({"weight_decay": "1e400"}, "weight_decay must be a finite number, got inf"),
        ({"scale": "wide"}, "scale must be a list, got 'wide'"),
        ({"device_modules": "seattn"}, "device_modules must be a list, got 'seattn'"),
        ({"opt_betas": [0.9]}, r"opt_betas must have at least 2 values, got \[0.9\]"),
        ({"opt_betas": [0.9, 0.9, 0.9]}, r"opt_betas must have at most 2 values, got \[0.9, 0.9, 0.9\]"),
        ({"model_kwargs": 3}, "model_kwargs must be a mapping of keys to values, got 3"),
        ({"lr": 0}, "lr must be greater than 0, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"batch_size": 10**9}, "batch_size must be at most 1000000, got 1000000000"),
        ({"epochs": 10**9}, "epochs must be at most 1000000, got 1000000000"),
        ({"workers": 10**5}, "workers must be at most 1024, got 100000"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"sched": "cubic"}, "sched must be 'cosine', .*'poly'.*, got 'cubic'"),
        ({"sched": "exponential"}, "sched has no 'exponential'; the nearest is step with decay_epochs: 1"),
        ({"sched": "OneCycleLR"}, "sched has no 'OneCycleLR'; the nearest is poly with decay_rate: 1.0"),
        ({"opt": "ranger"}, "opt has no 'ranger'; the nearest is lookahead_radam"),
        ({"seattn": {"loss": "ohem"}}, "seattn.loss has no 'ohem'; the nearest is cross_entropy with hardest"),
        (
            {"loss": "ohem"},
            "unknown key 'loss'; did you mean 'seattn.loss'. The nearest to 'ohem' is cross_entropy with hardest",
        ),
        ({"seattn": {"loss": "asl"}}, "seattn.loss has no 'asl'; the nearest is focal"),
        ({"seattn": {"long_tail": 0.5}}, "seattn.long_tail must be at least 1, got 0.5"),
        ({"seattn": {"hardest": 0}}, "seattn.hardest must be greater than 0, got 0"),
        ({"seattn": {"hardest": 1.5}}, "seattn.hardest must be at most 1, got 1.5"),
        ({"cutout": 8}, "unknown key 'cutout'; did you mean 'seattn.cutout'"),
        ({"opt_kwargs": {"a": [1, {"b": math.nan}]}}, "opt_kwargs must hold finite numbers, got .*nan"),
        ({"model_kwargs": {"rd_ratio": math.inf}}, "model_kwargs must hold finite numbers, got .*inf"),
        ({"smoothing": 1.0}, "smoothing must be less than 1, got 1.0"),
        ({"amp_dtype": "float64"}, "amp_dtype must be 'bfloat16' or 'float16', got 'float64'"),
        ({"mixup": 0.2, "batch_size": 9}, "batch_size must be even where mixup or cutmix is on"),
        ({"seattn": {"resize": [[16, 200], [24, 200]]}}, "seattn.resize must be within the 300 epochs"),
        ({"seattn": {"resize": [[0, 200]]}}, "seattn.resize.0.0 must be at least 1, got 0"),
        ({"lr_cycle_limit": 0}, "lr_cycle_limit must be at least 1, got 0"),
        ({"lr_cycle_limit": 100, "lr_cycle_mul": 100}, "lr_cycle_limit must be so low that the run has .* got 100"),
        (
            {"cooldown_epochs": 10**6},
            "cooldown_epochs must be so low that the run has at most 1,000,000 epochs, got 1000000",
        ),
        ({"epochs": 10**6, "warmup_prefix": True}, "epochs must be so low that the run has at most 1,000,000 epochs"),
        (
            {"lr_cycle_limit": 2, "sched": "step"},
            "lr_cycle_limit must be 1 where sched is not one of cosine, poly, tanh, got 2",
        ),
        ({"lr_cycle_mul": 0}, "lr_cycle_mul must be greater than 0, got 0"),
        ({"lr_cycle_decay": 1.5}, "lr_cycle_decay must be at most 1, got 1.5"),
        ({"seattn": {"loss": "focall"}}, "seattn.loss must be 'cross_entropy' or 'focal', got 'focall'"),
        ({"seattn": {"loss": "focal"}, "bce_loss": True}, "seattn.loss must be cross_entropy where bce_loss is true"),
        (
            {"seattn": {"class_weights": "cat"}},
            "seattn.class_weights must be 'none', 'balanced' or 'effective', got 'cat'",
        ),
        ({"seattn": {"class_weights": {"cat": 0}}}, "seattn.class_weights.cat must be greater than 0, got 0"),
        ({"seattn": {"class_weights": {"cat": "big"}}}, "seattn.class_weights.cat must be a number, got 'big'"),
        ({"seattn": {"class_weights": 2}}, "seattn.class_weights must be 'none', .* got 2"),
        ({"seattn": {"holdout": 1.0}}, "seattn.holdout must be less than 1, got 1.0"),
        ({"seattn": {"holdout": 0, "early_stop": 3}}, "seattn.early_stop must be omitted where holdout is 0"),
        ({"seattn": {"flips": "alternate"}, "hflip": 0.3}, "hflip must be 0.5 where seattn.flips is alternate"),
        (
            {"seattn": {"flips": "alternate", "data": "folder"}},
            "seattn.flips must be random where seattn.data is folder",
        ),
        ({"seattn": {"crop_border": "white"}}, "seattn.crop_border must be 'black' or 'reflect', got 'white'"),
    ],
)
def test_bad_value_is_named_in_one_line(raw, message):
    with pytest.raises(UserError, match=f"^here.yaml: {message}") as caught:
        parse_recipe({**BASE, **raw}, source="here.yaml")
    assert "\n" not in str(caught.value)


def test_missing_key_is_named():
    with pytest.raises(UserError, match="the key 'lr' is missing"):
        parse_recipe({"model": "se_resnet20_cifar"})


def test_numbers_may_be_whole_or_in_yamls_text_form():
    recipe = parse_recipe({"model": "x", "lr": 1, "weight_decay": "5e-4"})
    assert (recipe.lr, recipe.weight_decay) == (1.0, 5e-4)
    assert isinstance(recipe.lr, float)


def test_defaults_are_timms():
    recipe = parse_recipe(BASE)
    assert (recipe.batch_size, recipe.epochs, recipe.smoothing, recipe.sched) == (128, 300, 0.1, "cosine")


def test_is_frozen():
    with pytest.raises(AttributeError):
        parse_recipe(BASE).lr = 1


def test_replaced_values_are_checked_and_recipe_yaml_stays_the_same():
    recipe = parse_recipe(BASE)
    assert replace(recipe, epochs=3).epochs == 3
    assert yaml.safe_dump(replace(recipe, seed=recipe.seed).to_dict()) == yaml.safe_dump(recipe.to_dict())
    with pytest.raises(UserError, match=r"^epochs must be at least 1, got 0$"):
        replace(recipe, epochs=0)


def test_written_recipe_reads_back_equal(tmp_path):
    recipe = parse_recipe({**BASE, "opt_betas": [0.9, 0.99], "seattn": {"crop_padding": 2}})
    recipe.write(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert recipe.seattn == OurKeys(crop_padding=2)


def test_overrides_replace_keys_at_any_depth_and_are_checked(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**BASE, "seattn": {"cutout": 8, "crop_padding": 4}}))
    recipe = load_recipe(path, {"seattn.cutout": 16, "model_kwargs.rd_ratio": 0.125})
    assert recipe.seattn == OurKeys(cutout=16, crop_padding=4)
    assert recipe.model_kwargs == {"rd_ratio": 0.125}
    assert load_recipe(path, {"epochs": 2}).epochs == 2
    for key, value, message in (
        ("seattn.cutuot", 16, "unknown key 'seattn.cutuot'; did you mean 'seattn.cutout'"),
        ("epochs", 0, "epochs must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=f"{path}: {message}"):
            load_recipe(path, {key: value})


def test_growing_images_may_take_the_whole_run_with_a_prefixed_warm_up():
    raw = {**BASE, "epochs": 3, "warmup_epochs": 2, "warmup_prefix": True}
    assert parse_recipe({**raw, "seattn": {"resize": [[16, 5]]}}).seattn.resize == ((16, 5),)
    with pytest.raises(UserError, match=r"seattn\.resize must be within the 5 epochs"):
        parse_recipe({**raw, "seattn": {"resize": [[16, 6]]}})


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_every_scheduler_that_a_recipe_may_name_is_one_of_timms(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, epochs = create_scheduler_v2(optimizer, sched=name, num_epochs=3)
    scheduler.step(1)  # timm answers None to a name that it does not know
    assert epochs == 3


@pytest.mark.parametrize(
    ("mul", "limit", "total"), [(1.0, 1, 24), (1.0, 3, 58), (0.36, 2, 30), (2.0, 2, 58), (0.5, 3, 36)]
)
@pytest.mark.parametrize("on_updates", [False, True])
@pytest.mark.parametrize("sched", CYCLIC)
def test_a_run_with_warm_restarts_is_as_long_as_timm_says(sched, on_updates, mul, limit, total):
    cycles = {"lr_cycle_mul": mul, "lr_cycle_limit": limit}
    lengths = {"epochs": 17, "warmup_epochs": 5, "warmup_prefix": True, "cooldown_epochs": 2}
    recipe = parse_recipe({**BASE, **cycles, **lengths, "sched": sched, "sched_on_updates": on_updates})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert create_schedule(recipe, optimizer, 7)[1] == recipe.scheduled_epochs == total


def test_each_cycle_starts_lower_and_ends_at_zero():
    keys = {"sched": "poly", "decay_rate": 1.0, "warmup_epochs": 0, "epochs": 8}
    recipe = parse_recipe({**BASE, **keys, "lr_cycle_mul": 0.5, "lr_cycle_decay": 0.25, "lr_cycle_limit": 2})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule, epochs = create_schedule(recipe, optimizer, 10)
    rates = []
    for epoch in range(epochs):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * (1 - e / 8) for e in range(8)] + [0.025 * (1 - e / 4) for e in range(4)])


def test_what_is_near_another_projects_name_is_there():
    optimizers = list_optimizers()
    for field, hints in NEAREST.items():
        for names, right in hints.items():
            first = right.replace(",", " ").split()[0].removeprefix("lookahead_")
            assert first in (*optimizers, *get_args(Scheduler), "cross_entropy", "focal") or ":" in right, right
            assert not set(names.split()) & {*(optimizers if field == "opt" else ()), *get_args(Scheduler)}
