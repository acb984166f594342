"""The recipes that ship: each one reads, names a net and a tag that exist, and drives timm's script too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import yaml
from timm.models import get_arch_pretrained_cfgs

import seattn  # noqa: F401  registers the models
from benchmarks.evidence.rows import read_rows
from seattn.core.recipe import load_recipe

CONFIGS = sorted((Path(__file__).parent.parent / "zoo_configs").glob("*.*.yaml"))  # queue.yaml is a list of them
STEMS = ("resnet18_cifar", "resnet18_stem7_cifar", "resnet18_deep_cifar", "resnet14_deep_cifar")
each_recipe = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
SCRIPTS = os.environ.get("TIMM_SCRIPTS")
with_scripts = pytest.mark.skipif(SCRIPTS is None, reason="TIMM_SCRIPTS names no checkout of timm with its train.py")


def expected():
    """The recipes of the issue, by name."""
    names = [f"{kind}resnet18_cifar.{tag}" for kind in ("", "se_", "eca_", "cbam_") for tag in ("cifar10", "cifar100")]
    small = ("resnet20_cifar", "resnet56_cifar", "resnet110_cifar")
    names += [f"{kind}{net}.{tag}" for kind in ("", "se_") for net in small for tag in ("cifar10", "cifar100")]
    names += [f"se_wrn28_10_cifar.{tag}" for tag in ("cifar10", "cifar100")]
    flies = ("se_resnet18", "se_resnet50", "cbam_resnet18")
    return names + [f"{net}.{tag}" for net in flies for tag in ("butterfly75", "butterfly100")]


@pytest.mark.parametrize("name", expected())
def test_there_is_one_for(name):
    assert name in {path.stem for path in CONFIGS}


@each_recipe
def test_reads_and_is_named_after_its_model(path):
    recipe = load_recipe(path)
    name = ".".join(path.stem.split(".")[:2])  # without .cpu, .zoo, .simclr
    assert recipe.model == name
    assert name in get_arch_pretrained_cfgs(name.partition(".")[0])
    assert timm.get_pretrained_cfg(name).num_classes == recipe.num_classes
    assert recipe.device_modules == ("seattn",)
    assert recipe.seattn.dataset
    assert recipe.val_split == ("test" if "cifar" in name else "validation")  # CIFAR has no other


@each_recipe
def test_head_gives_both_commands_and_what_to_expect(path):
    head = path.read_text().partition("device_modules")[0]
    assert f"#   seattn train zoo_configs/{path.name} --data-dir DIR\n" in head
    assert f"#   python train.py --config zoo_configs/{path.name} --data-dir DIR\n" in head
    measured = [f"Measured: {100 * row.top1:.2f} %" for row in read_rows() if row.recipe == path.stem]
    assert any(text in head for text in measured or ["not measured yet"]), measured


@each_recipe
def test_every_key_says_something_once(path):
    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    yaml.load(path.read_text(), Loader)


def test_recipes_of_the_stem_study_differ_in_nothing_but_the_net():
    recipes = [yaml.safe_load((CONFIGS[0].parent / f"{stem}.cifar10.yaml").read_text()) for stem in STEMS]
    assert [recipe.pop("model") for recipe in recipes] == [f"{stem}.cifar10" for stem in STEMS]
    assert all(recipe == recipes[0] for recipe in recipes)


def test_butterfly_tags_leave_the_untagged_net_as_it_was():
    assert timm.create_model("se_resnet18", device="meta").num_classes == 1000
    model = timm.create_model("se_resnet18.butterfly75", device="meta")
    assert (model.num_classes, model.pretrained_cfg["input_size"]) == (75, (3, 160, 160))
    many = timm.get_pretrained_cfg("cbam_resnet18.butterfly100").label_names
    few = model.pretrained_cfg["label_names"]
    assert (len(many), len(set(many)), list(many)) == (100, 100, sorted(many))
    assert {name.upper() for name in few} < {name.upper() for name in many}


@with_scripts
def test_timms_own_parser_takes_all_of_them():
    """Its values, not only its keys: each file through `train.py`'s parser, in one process."""
    code = (
        "import sys, importlib.util\n"
        "spec = importlib.util.spec_from_file_location('timm_train', sys.argv[1])\n"
        "script = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(script)\n"
        "for path in sys.argv[2:]:\n"
        "    sys.argv[1:] = ['--config', path, '--data-dir', 'd']\n"
        "    args, text = script._parse_args()\n"
        "    assert args.device_modules == ['seattn'], args.device_modules\n"
        "    assert args.model in path and args.data_dir == 'd'\n"
    )
    command = [sys.executable, "-c", code, str(Path(str(SCRIPTS)) / "train.py"), *map(str, CONFIGS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    unknown = [line for line in result.stderr.splitlines() if "nrecognized" in line or "nknown" in line]
    assert all("seattn" in line for line in unknown), unknown
