"""Comparisons of recipes: what ships reads, what is wrong is named."""

from pathlib import Path

import pytest
import timm
import yaml

import seattn  # noqa: F401  registers the models
from seattn.ablation import load_ablation
from seattn.errors import UserError

FOLDER = Path(__file__).parent.parent / "zoo_configs" / "ablations"
BASE = {"model": "resnet20_cifar", "lr": 0.1, "seattn": {"cutout": 8}}


@pytest.fixture
def write(tmp_path):
    def ablation(**changes):
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
        raw = {"base": "base.yaml", "seeds": [0, 1], "variants": {"a": {}, "b": {"lr": 0.2}}, **changes}
        path = tmp_path / "x.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}))
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
    assert len({recipe.model for recipe in variants.values()}) == 5


def test_every_variant_runs_with_every_seed(write):
    runs = [(name, recipe.seed, recipe.lr) for name, recipe in load_ablation(write()).runs()]
    assert runs == [("a", 0, 0.1), ("b", 0, 0.2), ("a", 1, 0.1), ("b", 1, 0.2)]


def test_dotted_keys_change_one_key_below(write):
    changes = {"a": {}, "b": {"seattn.crop_padding": 4, "model_kwargs.rd_ratio": 0.5}}
    recipe = load_ablation(write(variants=changes)).variants["b"]
    assert (recipe.seattn.cutout, recipe.seattn.crop_padding, recipe.model_kwargs) == (8, 4, {"rd_ratio": 0.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bases": "x"}, "unknown key 'bases'; known: base, seeds, variants"),
        ({"seeds": None}, "the key 'seeds' is missing or empty"),
        ({"seeds": [0, 0]}, "seeds must differ"),
        ({"seeds": ["a"]}, "seeds must be a list of whole numbers"),
        ({"variants": {"a": 1}}, "variants must map a name to the keys"),
        ({"variants": {"a": {"lrr": 1}}}, "variant a: .*unknown key 'lrr'; did you mean 'lr'"),
        ({"base": "no.yaml"}, "cannot read .*no.yaml: No such file"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(write, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        load_ablation(write(**changes))
    assert "\n" not in str(caught.value)
