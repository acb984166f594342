"""Checkpoints of timm's script and of our runs become folders that timm loads; nothing in a pickle is executed."""

import argparse
import json
from fractions import Fraction

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3

from seattn.cli.main import run
from seattn.models.load import load_model
from tests.helpers.colours import write_colours
from tests.helpers.runs import write_run

ARCH = "se_resnet20_cifar"


def args(**given):
    """What timm's train.py carries of its command line, in part."""
    known = {"model": ARCH, "num_classes": 3, "in_chans": None, "gp": None, "model_kwargs": {}, "lr": 0.1}
    data = {"img_size": None, "input_size": None, "mean": None, "std": None, "interpolation": "", "crop_pct": None}
    return argparse.Namespace(**{**known, **data, **given})


def checkpoint(folder, namespace, **options):
    """model_best.pth.tar as timm's own saver writes it, and its nets: as trained, averaged."""
    torch.manual_seed(0)
    net = timm.create_model(ARCH, num_classes=3, **options)
    ema = ModelEmaV3(net)
    with torch.no_grad():
        ema.module.fc.bias += 1
    folder.mkdir(exist_ok=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    saver = CheckpointSaver(net, optimizer, args=namespace, model_ema=ema, checkpoint_dir=str(folder))
    saver.save_checkpoint(0, metric=50.0)
    return net, ema.module


def labels(tmp_path, *names):
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(names) + "\n")
    return str(path)


def same(model, expected):
    found, wanted = model.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_timms_checkpoint_becomes_a_folder_that_timm_loads(tmp_path, what):
    given = args(mean=(0.5, 0.4, 0.3), crop_pct=0.9, model_kwargs={"rd_ratio": 0.5})
    trained, averaged = checkpoint(tmp_path / "run", given, rd_ratio=0.5)
    source = tmp_path / "run" / "model_best.pth.tar" if what == "file" else tmp_path / "run"
    names = labels(tmp_path, "jay", "rook", "wren")
    assert run(["import", str(source), str(tmp_path / "out"), "--labels", names]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert same(model, averaged)
    assert not same(model, trained)
    assert tuple(model.pretrained_cfg["label_names"]) == ("jay", "rook", "wren")
    assert tuple(model.pretrained_cfg["mean"]) == (0.5, 0.4, 0.3)
    assert model.pretrained_cfg["crop_pct"] == 0.9
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_args"]["rd_ratio"] == 0.5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_the_weights_as_trained_where_asked(tmp_path):
    trained, _ = checkpoint(tmp_path / "run", args())
    assert run(["import", str(tmp_path / "run"), str(tmp_path / "out"), "--no-ema"]) == 0
    model = load_model(str(tmp_path / "out"))
    assert same(model, trained)
    assert tuple(model.pretrained_cfg["label_names"]) == ("class 0", "class 1", "class 2")


def test_a_run_of_timms_whose_checkpoint_says_nothing_is_read_with_its_args_yaml(tmp_path):
    _, averaged = checkpoint(tmp_path / "run", None)
    (tmp_path / "run" / "args.yaml").write_text(yaml.safe_dump(vars(args())))
    assert run(["import", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert same(load_model(str(tmp_path / "out")), averaged)


def test_our_run_keeps_its_classes(tmp_path):
    folder = write_run(tmp_path / "run", ("jay", "rook"), {"model_kwargs": {"rd_ratio": 0.5}})
    assert run(["import", str(folder), str(tmp_path / "out")]) == 0
    model = load_model(str(tmp_path / "out"))
    assert same(model, load_model(str(folder)))
    assert tuple(model.pretrained_cfg["label_names"]) == ("jay", "rook")


def test_safetensors_and_the_names_of_a_tag(tmp_path, caplog):
    net = timm.create_model(f"{ARCH}.cifar10")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    arguments = ["import", str(tmp_path / "w.safetensors"), str(tmp_path / "out"), "--model", f"{ARCH}.cifar10"]
    assert run(arguments) == 0
    model = load_model(str(tmp_path / "out"))
    assert same(model, net)
    assert model.pretrained_cfg["label_names"][0] == "airplane"


def test_an_import_can_be_evaluated(tmp_path):
    data = write_colours(tmp_path / "data", {"jay": 0, "rook": 1, "wren": 2}, {"test": [2, 2, 2]})
    checkpoint(tmp_path / "run", args())
    names = labels(tmp_path, "jay", "rook", "wren")
    assert run(["import", str(tmp_path / "run"), str(tmp_path / "out"), "--labels", names]) == 0
    assert run(["evaluate", str(tmp_path / "out"), "--data-dir", str(data), "--workers", "0"]) == 0


def _plain(folder):
    torch.save(timm.create_model(ARCH).state_dict(), folder / "c.pth")


def _nan(folder):
    state = timm.create_model(ARCH).state_dict()
    state["fc.bias"][0] = float("nan")
    torch.save({"state_dict": state, "args": args()}, folder / "c.pth")


def _other(folder):
    torch.save({"state_dict": timm.create_model("resnet20_cifar").state_dict(), "args": args()}, folder / "c.pth")


def _loader(folder):
    given = args(model_kwargs={"pretrained_cfg_overlay": {"file": "/etc/passwd"}})
    torch.save({"state_dict": timm.create_model(ARCH).state_dict(), "args": given}, folder / "c.pth")


def _huge(folder):
    given = args(model_kwargs={"rd_ratio": "much"})
    torch.save({"state_dict": timm.create_model(ARCH).state_dict(), "args": given}, folder / "c.pth")


def _nameless(folder):
    torch.save({"state_dict": timm.create_model(ARCH).state_dict(), "args": args(model=7)}, folder / "c.pth")


def _numpy(folder):
    torch.save({"state_dict": {"w": np.ones(3)}}, folder / "c.pth")


def _fraction(folder):
    torch.save({"state_dict": timm.create_model(ARCH).state_dict(), "best": Fraction(1, 2)}, folder / "c.pth")


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (_plain, [], "does not name its model; give --model"),
        (_plain, ["--model", "se_resnet20_cifr"], "unknown model"),
        (_plain, ["--model", f"{ARCH}.moths"], "has no tag 'moths'"),
        (_plain, ["--model", ARCH, "--labels", "two.txt"], "2 labels for 10 outputs"),
        (
            _plain,
            ["--model", ARCH, "--labels", "twice.txt"],
            "a different name on each line, without control characters; it has 1 different in 2",
        ),
        (_plain, ["--model", ARCH, "--labels", "gone.txt"], "cannot read gone.txt"),
        (_nan, [], "c.pth: fc.bias has NaN or infinite values"),
        (_other, [], "c.pth does not hold weights of se_resnet20_cifar"),
        (_loader, [], "pretrained_cfg_overlay is not a property of a net"),
        (_huge, [], "does not describe a net that can be built"),
        (_nameless, [], "c.pth: the arguments name no model and its model_kwargs; the file is not of timm's train.py"),
        (_numpy, ["--model", ARCH], "holds no weights"),
        (_fraction, [], "holds other objects than weights, which are never unpickled"),
        (lambda folder: (folder / "c.pth").write_bytes(b"PK\3\4 no zip"), [], "c.pth"),
        (lambda folder: None, [], "no such checkpoint"),
        (lambda folder: (folder / "c.pth").mkdir(), [], "holds no weights: none of model_best.pth.tar"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, fails, write, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("jay\nrook\n")
    (tmp_path / "twice.txt").write_text("jay\njay\n")
    write(tmp_path)
    assert message in fails("import", "c.pth", "out", *options)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_in_use_is_left_alone(tmp_path, fails):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    checkpoint(tmp_path / "run", args())
    assert "exists; give another folder" in fails("import", tmp_path / "run", tmp_path / "out")
