"""The page on the Hub, word by word, against the server on this machine."""

import argparse
import json
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest
import timm
import torch

from seattn.cli.main import run
from seattn.evaluation.scoring import evaluate
from seattn.models.load import load_model
from tests.helpers.colours import write_colours
from tests.helpers.hub.user import NAME
from tests.helpers.runs import write_run

BIRDS = {"jay": 0, "rook": 1, "wren": 2}
PAGE = Path(__file__).parents[2] / "hub_cards" / "README.md"


def commands():
    """The lines of the page's block."""
    return [shlex.split(line, comments=True) for line in PAGE.read_text().split("```")[1].strip().splitlines()]


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder as the page assumes it: a run, a checkpoint of timm's train.py, images."""
    monkeypatch.chdir(tmp_path)
    write_colours(Path("DIR"), BIRDS, {"test": [20, 20, 20], "train": [1, 1, 1]})
    write_run(Path("runs/mine"), tuple(BIRDS))
    scores = asdict(evaluate(load_model("runs/mine"), Path("DIR/test"), workers=0))
    row = json.loads(Path("runs/mine/result.json").read_text())
    row |= {key: scores[key] for key in ("n", "top1", "top1_low", "top1_high")}
    Path("runs/mine/result.json").write_text(json.dumps(row))
    Path("run").mkdir()
    state = timm.create_model("se_resnet20_cifar").state_dict()
    args = argparse.Namespace(model="se_resnet20_cifar", num_classes=10, model_kwargs={})
    torch.save({"arch": "se_resnet20_cifar", "state_dict": state, "args": args}, "run/model_best.pth.tar")
    return tmp_path


def test_the_page_on_the_hub_works_word_by_word(hub, login, user):
    lines = commands()
    assert {line[2] for line in lines if line[1] == "hub"} == {"stage", "verify", "publish", "pull"}
    for line in lines:
        assert line[0] == "seattn"
        assert run([{"ORG": "org"}.get(word, word.replace("ORG/", "org/")) for word in line[1:]]) == 0, line
    assert list(hub.store.repositories) == ["org/my_model"]
    assert hub.store.repositories["org/my_model"].private
    assert run(["hub", "publish", NAME, "--org", "org"]) == 0
    assert timm.create_model(f"hf-hub:org/{NAME}", pretrained=True).num_classes == 10
