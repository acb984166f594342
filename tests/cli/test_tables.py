"""`seattn list` and `seattn profile` as their users meet them."""

import json
import re

import pytest

from seattn.__main__ import main

ARCH = "se_resnet20_cifar"


def test_list_shows_families_with_costs_tags_and_weights(capsys):
    assert main(["list"]) == 0
    everything = capsys.readouterr().out
    assert "resnet_cifar: tags .cifar10, .cifar100" in everything
    assert re.search(rf"{ARCH} +0\.27 M +40\.8 M +3x32x32 +cifar10:", everything)
    assert re.search(r"se_resnet50 +28\.09 M +4\.09 G +3x224x224 +none", everything)
    assert "efficientnet" not in everything
    assert main(["list", "--pretrained"]) == 0
    assert "none" not in capsys.readouterr().out


def test_list_as_json(capsys):
    assert main(["list", "se_resnet2*", "--family", "resnet_cifar", "--json"]) == 0
    (net,) = json.loads(capsys.readouterr().out)
    assert net == {
        "name": ARCH,
        "family": "resnet_cifar",
        "parameters": 274847,
        "macs": 40815200,
        "input_size": [3, 32, 32],
        "weights": {"cifar10": "package", "cifar100": "package"},
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--family", "resnet"], "unknown family 'resnet'; families: mobilenetv2_cifar, preact_resnet_cifar"),
        (["vgg"], "no net matches the pattern 'vgg'; `seattn list` shows all nets"),
        (["wrn", "--pretrained"], "no net matches the pattern 'wrn' and trained weights"),
    ],
)
def test_list_refuses_what_matches_nothing(fails, args, message):
    assert message in fails("list", *args)


def test_profile_beside_the_plain_twin(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["profile", f"{ARCH}.cifar10"]) == 0
    out = capsys.readouterr().out
    assert f"{ARCH}.cifar10, 3x32x32" in out
    assert re.search(r"layer1 +14,163 +147 +14\.2 M +96 +0\.79 +4/7 +11/18 +2\.16", out)
    assert "against resnet20_cifar.cifar10" in out
    assert re.search(r"total +\+0\.87 % +\+0\.00 %", out)
    assert all(len(line) <= 80 for line in out.splitlines())


def test_profile_as_json_with_options_of_the_model(capsys):
    args = ["--model-kwargs", "attn_placement=pre", "rd_ratio=0.125", "--model-kwargs", "num_classes=100", "--json"]
    assert main(["profile", ARCH, *args]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model_kwargs"] == {"attn_placement": "pre", "rd_ratio": 0.125, "num_classes": 100}
    assert [stage["name"] for stage in found["stages"]] == ["stem", "layer1", "layer2", "layer3", "head"]
    assert found["total"]["macs"] == sum(stage["macs"] for stage in found["stages"])
    assert found["against"]["model"] == "resnet20_cifar"
    assert found["against"]["model_kwargs"] == {"num_classes": 100}
    own, other = found["total"]["parameters"], found["against"]["total"]["parameters"]
    assert found["percent"]["total"]["parameters"] == pytest.approx(100 * (own / other - 1))
    assert found["percent"]["head"] == {"parameters": 0, "macs": 0, "activation_bytes": 0, "bytes_moved": None}


def test_profile_of_another_size_and_another_rival(capsys):
    args = ["profile", "resnet20_cifar", "--input-size", "1", "64", "64", "--json", "--against"]
    assert main([*args, "none"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["against"] is None
    assert alone["input_size"] == [1, 64, 64]
    assert main([*args, "resnet18"]) == 0
    assert json.loads(capsys.readouterr().out)["against"]["input_size"] == [1, 64, 64]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_profile_draws_a_plot(tmp_path, suffix):
    paths = [tmp_path / "new" / f"{number}{suffix}" for number in (1, 2)]
    for path in paths:
        assert main(["profile", ARCH, "--plot", str(path)]) == 0
    content = paths[0].read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert content == paths[1].read_bytes()
    assert sorted(paths[0].parent.iterdir()) == paths


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["se_resnet20_cifr"], "unknown model 'se_resnet20_cifr'; did you mean se_resnet20_cifar"),
        ([ARCH, "--against", "resnet20_cifr"], "unknown model 'resnet20_cifr'; did you mean resnet20_cifar"),
        ([f"{ARCH}.imagenet"], "no tag 'imagenet'"),
        ([ARCH, "more"], "unexpected 'more'; options of the model are key=value after --model-kwargs"),
        ([ARCH, "--model-kwargs", "rd_ration=0.5"], "cannot be built with rd_ration=0.5: "),
        ([ARCH, "--model-kwargs", "attn_placement=before"], "placement must be one of standard, pre, post, identity"),
        (["resnet20_cifar", "--model-kwargs", "gate=sigmoid"], "has no attention for gate to act on"),
        ([ARCH, "--input-size", "3", "0", "32"], "of at least 1, (C, H, W); got (3, 0, 32)"),
        (["vit_tiny_patch16_224", "--input-size", "3", "32", "32"], "cannot be run on images of size 3x32x32: "),
        ([ARCH, "--input-size", "3", "a", "32"], "--input-size"),
    ],
)
def test_profile_refuses_bad_input(fails, tmp_path, args, message):
    assert message in fails("profile", *args, "--plot", tmp_path / "out" / "plot.png")
    assert list(tmp_path.rglob("*.png*")) == []


def test_profile_finds_a_plot_that_cannot_be_written_first(fails, tmp_path):
    assert "must end in .png or .svg" in fails("profile", "no_such_model", "--plot", tmp_path / "plot.pdf")
    (tmp_path / "folder.png").mkdir()
    assert "it is a folder" in fails("profile", "no_such_model", "--plot", tmp_path / "folder.png")
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in fails("profile", "no_such_model", "--plot", tmp_path / "file" / "plot.png")
