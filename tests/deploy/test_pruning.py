"""`seattn prune`: a smaller net in the folder of a run, which every command and timm use; or one line and no folder."""

import json
import shutil
import sys

import pytest
import timm
import torch
import yaml

from seattn.__main__ import main
from seattn.data import images
from seattn.evaluation.profile.costs import parameters_and_macs
from seattn.models.load import load_model
from tests.deploy.conftest import ARCH, WEIGHTS
from tests.helpers.colours import write_colours
from tests.helpers.runs import write_run

COLOURS = {"blue": 2, "green": 1, "red": 0}
FAST = ["--epochs", "1", "--batch-size", "8", "--set", "workers=0", "--device", "cpu"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("images") / "colours", COLOURS, {"train": (8,) * 3, "test": (4,) * 3})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run whose net has the classes of the images."""
    return write_run(tmp_path_factory.mktemp("source") / "net", tuple(COLOURS), {"model_kwargs": {"rd_ratio": 0.25}})


@pytest.fixture(scope="module")
def small(colours, source, tmp_path_factory):
    """The folder of the pruned net."""
    run = tmp_path_factory.mktemp("small") / "net"
    assert main(["prune", str(source), "--ratio", "0.5", "--data-dir", str(colours), "--out", str(run), *FAST]) == 0
    return run


def size(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_timm_builds_the_smaller_net_from_the_folder(small, source):
    net = timm.create_model(f"local-dir:{small}", pretrained=True).eval()
    assert size(net) < 0.3 * size(load_model(str(source)))
    assert net.conv1.weight.shape == (8, 3, 3, 3)
    assert net.layer1[0].se.fc1.weight.shape[:2] == (2, 8)
    assert net.fc.weight.shape == (3, 32)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), load_model(str(small))(x), rtol=0, atol=0)
    args = json.loads((small / "config.json").read_text())["model_args"]
    assert args["rd_ratio"] == 0.25
    assert args["widths"]["conv1"] == [8, 3]


def test_the_run_has_the_comparison_and_the_recipe(small, colours, source):
    done = json.loads((small / "pruning.json").read_text())
    assert (done["run"], done["model"], done["ratio"], done["images"]) == (str(small), str(source), 0.5, 12)
    before, after = done["before"], done["after"]
    assert before["parameters"] == size(load_model(str(source)))
    assert after["parameters"] == size(load_model(str(small)))
    assert after["macs"] < 0.4 * before["macs"]
    assert after["top1"] == json.loads((small / "result.json").read_text())["top1"]
    assert min(before["milliseconds"], after["milliseconds"]) > 0
    recipe = yaml.safe_load((small / "recipe.yaml").read_text())
    assert (recipe["layer_decay"], recipe["epochs"], recipe["model"]) == (None, 1, ARCH)


def test_a_net_whose_attention_has_one_hidden_channel_is_pruned_and_compared(colours, tmp_path):
    source = write_run(tmp_path / "net", tuple(COLOURS), {})
    assert load_model(str(source)).layer1[0].se.fc2.in_channels == 1
    where = ["--data-dir", str(colours), "--out", str(tmp_path / "run")]
    assert main(["prune", str(source), "--ratio", "0.3", *where, *FAST]) == 0
    after = json.loads((tmp_path / "run" / "pruning.json").read_text())["after"]
    assert 0 < after["macs"] < parameters_and_macs(load_model(str(source)))[1]


def test_the_smaller_net_is_not_tested_on_images_that_the_larger_one_was_trained_on(tmp_path):
    data = write_colours(tmp_path, COLOURS, {"images": (20,) * 3}) / "images"
    first, run = tmp_path / "first", tmp_path / "run"
    start = ["finetune", ARCH, "--from-scratch", "--set", "model_kwargs.rd_ratio=0.25", "--seed", "3"]
    assert main([*start, "--data-dir", str(data), "--out", str(first), *FAST]) == 0
    assert main(["prune", str(first), "--ratio", "0.5", "--data-dir", str(data), "--out", str(run), *FAST]) == 0
    tested = [{path.resolve() for path in (folder / "data" / "test").rglob("*.png")} for folder in (first, run)]
    assert tested[0] == tested[1] != set()


def test_the_smaller_net_starts_from_the_largest_channels_of_the_weights(colours, source, tmp_path):
    """At a learning rate near 0 the run keeps what it started from: weights of the source, channel by channel."""
    run = tmp_path / "run"
    frozen = ["--set", "lr=1.0e-9", "--set", "model_ema=false", "--set", "warmup_epochs=0", "--set", "weight_decay=0.0"]
    command = ["prune", str(source), "--ratio", "0.5", "--data-dir", str(colours), "--out", str(run), *FAST, *frozen]
    assert main(command) == 0
    before, after = load_model(str(source)).conv1.weight.flatten(1), load_model(str(run)).conv1.weight.flatten(1)
    distances = torch.cdist(after, before)  # (8, 16)
    assert distances.min(1).values.max() < 1e-4
    kept = distances.argmin(1)
    assert len(set(kept.tolist())) == 8
    assert kept.tolist() == sorted(kept.tolist())


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "{small}", "--data-dir", "{colours}", "--workers", "0", "--json"],
        ["predict", "{image}", "--model", "{small}"],
        ["export", "{small}", "--to", "torchscript", "--out", "{out}/net.pt", "--data-dir", "{colours}"],
        ["report", "{small}", "--data-dir", "{colours}", "--out", "{out}/report.html"],
        ["finetune", "{small}", "--data-dir", "{colours}", "--out", "{out}/tuned", *FAST],
        ["hub", "stage", "{small}", "{out}/staged", "--name", "se_resnet20_cifar.colours"],
        ["prune", "{small}", "--ratio", "0.3", "--data-dir", "{colours}", "--out", "{out}/smaller", *FAST],
    ],
    ids=lambda command: " ".join(command[:2]) if command[0] == "hub" else command[0],
)
def test_other_commands_take_the_smaller_net(command, small, colours, tmp_path, capsys):
    image = colours / "test" / "red" / "0.png"
    assert main([arg.format(small=small, colours=colours, image=image, out=tmp_path) for arg in command]) == 0, (
        capsys.readouterr().err
    )


def test_the_command_prints_the_comparison_as_json(colours, source, tmp_path, capsys):
    command = ["prune", source, "--ratio", "0.2", "--data-dir", colours, "--out", tmp_path / "run", *FAST, "--json"]
    assert main(list(map(str, command))) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == json.loads((tmp_path / "run" / "pruning.json").read_text())


def test_both_nets_are_scored_on_the_same_images(colours, source, tmp_path, monkeypatch, capsys):
    """Images that cannot be read are left out for both, and both see EXIF orientation as the recipe says."""
    folder = shutil.copytree(colours, tmp_path / "images")
    (folder / "test" / "red" / "bad.png").write_bytes(b"no image")
    seen, read = set(), images.read_image
    monkeypatch.setattr(images, "read_image", lambda path, mode, exif: seen.add(exif) or read(path, mode, exif=exif))
    where = ["--data-dir", str(folder), "--out", str(tmp_path / "run")]
    options = ["--ratio", "0.5", "--skip-bad", "--set", "seattn.exif=false", "--json"]
    assert main(["prune", str(source), *options, *where, *FAST]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12
    assert seen == {False}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{source}", "--ratio", "0"], "--ratio is the share of channels to remove, above 0 and below 1, got 0"),
        (["{source}", "--ratio", "1"], "above 0 and below 1, got 1"),
        (["{source}", "--ratio", "nan"], "above 0 and below 1, got nan"),
        (["{source}", "--ratio", "half"], "Invalid value for '--ratio'"),
        (["{source}", "--ratio", "0.99"], "--ratio 0.99 would leave no channel in a layer of"),
        (
            ["se_resnet20_cifar", "--ratio", "0.5", "--checkpoint", str(WEIGHTS)],
            "are not the classes of se_resnet20_cifar (airplane",
        ),
        (["se_resnet110_cifar", "--ratio", "0.5"], "has no trained weights"),
        (["nonsense", "--ratio", "0.5"], "unknown model 'nonsense'"),
        (["{source}", "--ratio", "0.5", "--epochs", "0"], "--epochs"),
        (["{source}", "--ratio", "0.5", "--set", "lrr"], "--set takes KEY=VALUE"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(args, message, colours, source, tmp_path, fails):
    run = tmp_path / "new" / "run"
    line = fails("prune", *(arg.format(source=source) for arg in args), "--data-dir", colours, "--out", run)
    assert message in line
    assert not run.parent.exists()


def test_a_folder_in_use_or_without_images_is_one_line(colours, source, tmp_path, fails):
    command = ("prune", source, "--ratio", "0.5", "--out", tmp_path / "run")
    assert "no data folder" in fails(*command, "--data-dir", tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    assert f"{tmp_path / 'run'} exists; give another --out" in fails(*command, "--data-dir", colours)


def test_a_net_of_timm_is_one_line(colours, tmp_path, fails):
    write_run(tmp_path / "net", tuple(COLOURS), {"model": "test_resnet"})
    line = fails("prune", tmp_path / "net", "--ratio", "0.5", "--data-dir", colours, "--out", tmp_path / "run")
    assert "seattn prune is for the nets of this package" in line
    assert "test_resnet is not one of them" in line


def test_the_package_that_is_not_installed_is_one_line(colours, source, monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    line = fails("prune", source, "--ratio", "0.5", "--data-dir", colours)
    assert line == 'seattn: seattn prune needs torch-pruning, not installed here: pip install "seattn[deploy]"\n'
