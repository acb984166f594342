import ast
import os
from pathlib import Path

import pytest
import torch
import yaml
from timm.scheduler import create_scheduler_v2

import seattn  # noqa: F401  registers the models
from seattn.core.errors import UserError
from seattn.core.recipe import CYCLIC, SCHEDULERS, OurKeys, Recipe, load_recipe, parse_recipe
from seattn.training.build import create_schedule

CONFIGS = sorted((Path(__file__).parents[2] / "zoo_configs").glob("*.yaml"))
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
        ({"seattn": 3}, "seattn must be a mapping, got 3"),
        ({"epochs": 1.5}, "epochs must be int, got 1.5"),
        ({"epochs": True}, "epochs must be int, got True"),
        ({"amp": "yes"}, "amp must be bool, got 'yes'"),
        ({"lr": "fast"}, "lr must be float, got 'fast'"),
        ({"lr": True}, "lr must be float, got True"),
        ({"scale": "wide"}, r"scale must be tuple\[float, float\], got 'wide'"),
        ({"device_modules": "seattn"}, r"device_modules must be tuple\[str, ...\], got 'seattn'"),
        ({"opt_betas": [0.9]}, r"opt_betas must be .*, got \[0.9\]"),
        ({"lr": 0}, "lr must be a number above 0, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"sched": "onecycle"}, "sched must be one of .*poly.*, got 'onecycle'"),
        ({"sched": "none"}, "sched must be one of .*poly.*, got 'none'"),
        ({"smoothing": 1.0}, "smoothing must be"),
        ({"amp_dtype": "float64"}, "amp_dtype must be one of bfloat16, float16"),
        ({"mixup": 0.2, "batch_size": 9}, "batch_size must be even where mixup or cutmix is on"),
        ({"seattn": {"resize": [[16, 200], [24, 200]]}}, "seattn.resize must be within the 300 epochs"),
        ({"lr_cycle_limit": 0}, "lr_cycle_limit must be at least 1, got 0"),
        (
            {"lr_cycle_limit": 2, "sched": "step"},
            "lr_cycle_limit must be 1 where sched is none of cosine, poly, tanh, got 2",
        ),
        ({"lr_cycle_mul": 0}, "lr_cycle_mul must be above 0, got 0"),
        ({"lr_cycle_decay": 1.5}, "lr_cycle_decay must be above 0, at most 1, got 1.5"),
        ({"seattn": {"loss": "focall"}}, "seattn.loss must be one of cross_entropy, focal"),
        ({"seattn": {"loss": "focal"}, "bce_loss": True}, "seattn.loss must be cross_entropy where bce_loss is true"),
        (
            {"seattn": {"class_weights": "cat"}},
            "seattn.class_weights must be one of none, balanced, effective, got 'cat'",
        ),
        ({"seattn": {"class_weights": {"cat": 0}}}, "seattn.class_weights.cat must be a number above 0, got 0"),
        (
            {"seattn": {"class_weights": {"cat": "big"}}},
            "seattn.class_weights must be str .*float.*, got {'cat': 'big'}",
        ),
        ({"seattn": {"class_weights": 2}}, "seattn.class_weights must be str .*, got 2"),
        ({"seattn": {"holdout": 1.0}}, "seattn.holdout must be from 0 up to, not including, 1"),
        ({"seattn": {"holdout": 0, "early_stop": 3}}, "seattn.early_stop must be omitted where holdout is 0"),
        ({"seattn": {"flips": "alternate"}, "hflip": 0.3}, "hflip must be 0.5 where seattn.flips is alternate"),
        (
            {"seattn": {"flips": "alternate", "data": "folder"}},
            "seattn.flips must be random where seattn.data is folder",
        ),
        ({"seattn": {"crop_border": "white"}}, "seattn.crop_border must be one of black, reflect, got 'white'"),
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


def test_written_recipe_reads_back_equal(tmp_path):
    recipe = parse_recipe({**BASE, "opt_betas": [0.9, 0.99], "seattn": {"crop_padding": 2}})
    recipe.write(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert recipe.seattn == OurKeys(crop_padding=2)


def test_overrides_replace_keys_and_are_checked(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(BASE))
    assert load_recipe(path, {"epochs": 2}).epochs == 2
    with pytest.raises(UserError, match="epochs must be at least 1, got 0"):
        load_recipe(path, {"epochs": 0})


def test_overrides_reach_keys_within_keys(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**BASE, "seattn": {"cutout": 8, "crop_padding": 4}}))
    recipe = load_recipe(path, {"seattn.cutout": 16, "model_kwargs.rd_ratio": 0.125})
    assert recipe.seattn == OurKeys(cutout=16, crop_padding=4)
    assert recipe.model_kwargs == {"rd_ratio": 0.125}
    with pytest.raises(UserError, match=r"unknown key 'seattn.cutuot'; did you mean 'seattn.cutout'"):
        load_recipe(path, {"seattn.cutuot": 16})


def test_growing_images_may_take_the_whole_run_with_a_prefixed_warm_up():
    raw = {**BASE, "epochs": 3, "warmup_epochs": 2, "warmup_prefix": True}
    assert parse_recipe({**raw, "seattn": {"resize": [[16, 5]]}}).seattn.resize == ((16, 5),)
    with pytest.raises(UserError, match=r"seattn\.resize must be within the 5 epochs"):
        parse_recipe({**raw, "seattn": {"resize": [[16, 6]]}})


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a\n- b\n", "must be a mapping"), ("model: [", "not valid YAML"), ("", "must be a mapping")],
)
def test_what_is_no_recipe_is_named(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path}.*{message}") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_missing_recipe_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read recipe .*no\.yaml: No such file"):
        load_recipe(tmp_path / "no.yaml")


@pytest.mark.parametrize("name", SCHEDULERS)
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
