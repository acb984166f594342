"""Comparisons of recipes: what ships reads, what is wrong is named."""

import re
from pathlib import Path

import pytest
import timm
import yaml

import seattn  # noqa: F401  registers the models
from seattn.core.errors import UserError
from seattn.experiments.study.design import load_ablation, run_name

FOLDER = Path(__file__).parents[3] / "zoo_configs" / "ablations"
BASE = {"model": "resnet20_cifar", "lr": 0.1, "seattn": {"cutout": 8}}


TWO = {
    "se": {True: {"model": "se_resnet20_cifar"}, False: {}},
    "lr": {"high": {"lr": 0.3}, "mid": {}, "low": {"lr": 0.01}},
}


@pytest.fixture
def write(tmp_path):
    def ablation(**changes):
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
        raw = {"base": "base.yaml", "seeds": [0, 1], "variants": {"a": {}, "b": {"lr": 0.2}}, **changes}
        path = tmp_path / "x.yaml"
        kept = {key: value for key, value in raw.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return ablation


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_ships_reads_and_names_nets_that_exist(path):
    ablation = load_ablation(path)
    assert len(list(ablation.runs())) == len(ablation.seeds) * len(ablation.variants) >= 6
    assert all(timm.is_model(recipe.model) for recipe in ablation.variants.values())


def test_the_stem_study_differs_in_the_net_alone():
    variants = load_ablation(FOLDER / "stem.yaml").variants
    plain = [{**recipe.to_dict(), "model": ""} for recipe in variants.values()]
    assert all(recipe == plain[0] for recipe in plain)
    assert len({recipe.model for recipe in variants.values()}) == 6


def test_every_variant_runs_with_every_seed(write):
    runs = [(name, recipe.seed, recipe.lr) for name, recipe in load_ablation(write()).runs()]
    assert runs == [("a", 0, 0.1), ("b", 0, 0.2), ("a", 1, 0.1), ("b", 1, 0.2)]


def test_a_full_design_is_every_combination_the_first_levels_first(write):
    ablation = load_ablation(write(variants=None, factors=TWO, design="full"))
    recipes = {name: (recipe.model.partition("_")[0], recipe.lr) for name, recipe in ablation.variants.items()}
    assert recipes == {
        f"se={se}, lr={lr}": ({"yes": "se", "no": "resnet20"}[se], {"high": 0.3, "mid": 0.1, "low": 0.01}[lr])
        for se in ("yes", "no")
        for lr in ("high", "mid", "low")
    }
    assert ablation.reference == "se=yes, lr=high"
    assert [effect.name for effect in ablation.effects] == [
        "se: no against yes",
        "lr: mid against high",
        "lr: low against high",
    ]
    assert ablation.effects[2].pairs == tuple((f"se={se}, lr=low", f"se={se}, lr=high") for se in ("yes", "no"))


def test_one_removed_changes_one_factor_at_a_time(write):
    ablation = load_ablation(write(variants=None, factors=TWO, design="one_removed"))
    recipes = {name: (recipe.model, recipe.lr) for name, recipe in ablation.variants.items()}
    assert recipes == {
        "se=yes, lr=high": ("se_resnet20_cifar", 0.3),
        "se=no": ("resnet20_cifar", 0.3),
        "lr=mid": ("se_resnet20_cifar", 0.1),
        "lr=low": ("se_resnet20_cifar", 0.01),
    }
    assert ablation.effects == ()


def test_what_ships_keeps_the_names_of_its_runs():
    """Runs lie under them: another name would train them all again."""
    names = {
        name: run_name(recipe) for name, recipe in load_ablation(FOLDER / "se-dropout-augment.yaml").variants.items()
    }
    assert names == {
        "all": "se_resnet20_cifar.cifar10-1e923270-s0",
        "no_se": "resnet20_cifar.cifar10-df7468e6-s0",
        "no_dropout": "se_resnet20_cifar.cifar10-c0804b12-s0",
        "no_augmentation": "se_resnet20_cifar.cifar10-fb5b5128-s0",
    }


@pytest.mark.parametrize(
    "shared",
    [
        {
            "se-dropout-augment": "no_dropout",
            "attention": "se",
            "gate": "sigmoid",
            "placement": "standard",
            "reduction": "1/16",
        },
        {"attention": "cbam", "cbam-gate": "sigmoid"},
    ],
    ids=["se", "cbam"],
)
def test_studies_share_a_run(shared):
    runs = {run_name(load_ablation(FOLDER / f"{study}.yaml").variants[name]) for study, name in shared.items()}
    assert len(runs) == 1


def test_reductions_make_the_widths_that_the_file_says():
    head = (FOLDER / "reduction.yaml").read_text()
    for name, recipe in load_ablation(FOLDER / "reduction.yaml").variants.items():
        net = timm.create_model(recipe.model, device="meta", **recipe.model_kwargs)
        widths = dict.fromkeys(
            f"{stage}.{m.fc1.out_channels}"
            for stage in range(1, 4)
            for m in getattr(net, f"layer{stage}").modules()
            if hasattr(m, "fc1")
        )
        text = ", ".join(width.partition(".")[2] for width in widths)
        assert re.search(rf"{text}\s+(# )?at\s+(# )?{name}", head), (name, text)


def test_dotted_keys_change_one_key_below(write):
    changes = {"a": {}, "b": {"seattn.crop_padding": 4, "model_kwargs.rd_ratio": 0.5}}
    recipe = load_ablation(write(variants=changes)).variants["b"]
    assert (recipe.seattn.cutout, recipe.seattn.crop_padding, recipe.model_kwargs) == (8, 4, {"rd_ratio": 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bases": "x"}, "unknown key 'bases'; did you mean 'base'"),
        ({"seeds": None}, "the key 'seeds' is missing"),
        ({"seeds": [0, 0]}, "seeds must differ"),
        ({"seeds": ["a"]}, "seeds must be a list of whole numbers"),
        ({"seeds": 3}, "seeds must be a list, got 3"),
        ({"seeds": [True]}, "seeds must be a list of whole numbers"),
        ({"set": [1]}, "set must be a mapping of keys to values, got .1."),
        ({"set": {"seed": 1}}, "variant a: must not set seed; the key seeds of the file does"),
        ({"variants": None}, "give variants or factors: one of them, and not empty"),
        ({"variants": {"a": 1}}, "variants.a must be a mapping of keys to values, got 1"),
        ({"variants": {"a": {}, "b": {"seed": 4}}}, "variant b: must not set seed"),
        ({"variants": {"a": {}, "b": {3: 4}}}, "variant b: .*base.yaml: unknown key '3'"),
        ({"variants": {"a": {}, "b": {"lr": 0.1}}}, "variants a and b are the same recipe; each must change something"),
        ({"design": "full"}, "design needs factors; the file has none"),
        ({"factors": TWO}, "give variants or factors: one of them, and not empty"),
        ({"variants": None, "factors": TWO}, "factors need a design: full or one_removed"),
        ({"variants": None, "factors": TWO, "design": "half"}, "design must be 'full' or 'one_removed', got 'half'"),
        ({"variants": None, "factors": [1], "design": "full"}, "factors must be a mapping of keys to values, got .1."),
        ({"variants": None, "factors": {"f": {"a": {}}}, "design": "full"}, "factors.f must have 2 or more values"),
        (
            {"variants": None, "factors": {"f": {"a": {}, "b": 1}}, "design": "full"},
            "factors.f.b must be a mapping of keys to values, got 1",
        ),
        (
            {"variants": None, "factors": {**TWO, "g": {"a": {}, "b": {"lr": 1}}}, "design": "full"},
            "the factors lr and g both change lr; make them one factor",
        ),
        (
            {
                "variants": None,
                "factors": {
                    "f": {"a": {}, "b": {"model_kwargs": {"rd_ratio": 1}}},
                    "g": {"a": {}, "b": {"model_kwargs.rd_ratio": 2}},
                },
                "design": "one_removed",
            },
            "the factors f and g both change model_kwargs.rd_ratio",
        ),
        ({"variants": {"a": {"lrr": 1}}}, "variant a: .*unknown key 'lrr'; did you mean 'lr'"),
        ({"base": "no.yaml"}, "cannot read .*no.yaml: No such file"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(write, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        load_ablation(write(**changes))
    assert "\n" not in str(caught.value)
