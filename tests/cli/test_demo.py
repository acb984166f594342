"""The sample is the one that was chosen, bit for bit; the demo runs on it, prints its scores and leaves a report."""

import csv
import hashlib
import io
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from timm.models._hub import save_for_hf

from seattn.cli.demo import run_demo
from seattn.cli.nets import DEFAULT_MODEL
from seattn.core.errors import UserError
from seattn.data.samples import load_sample
from seattn.hub.facts import packaged_facts

MODEL = "se_resnet20_cifar"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture
def untrained(tmp_path):
    torch.manual_seed(0)
    save_for_hf(timm.create_model(MODEL), tmp_path / "run", safe_serialization=True)
    return str(tmp_path / "run")


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


def test_the_samples_pixels_are_those_of_the_source():
    # Taken from the 1,000 unpacked PNG files of CIFAR-10 themselves, not from the mosaic.
    digest = "894edf979f8193bf32b0bd3683e2828857fbafa23d914f09cd5ebdbf5b71a1ba"
    images = load_sample("cifar10").images
    assert (images.shape, images.dtype) == ((1000, 32, 32, 3), np.uint8)
    assert hashlib.sha256(images.tobytes()).hexdigest() == digest


def test_the_sample_has_100_images_of_each_class_under_distinct_names():
    sample = load_sample("cifar10")
    assert sample.class_names == CLASSES
    assert Counter(sample.labels.tolist()) == dict.fromkeys(range(10), 100)
    assert len(set(sample.names)) == 1000
    text = (files("seattn.data.samples") / "cifar10.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["class"] for row in rows] == [CLASSES[label] for label in sample.labels]
    assert tuple(row["name"] for row in rows) == sample.names


def test_an_unknown_sample_is_refused():
    with pytest.raises(ValueError, match="unknown sample 'mnist'; there is: cifar10"):
        load_sample("mnist")


def test_the_demo_prints_scores_and_writes_the_report(untrained, console, tmp_path):
    evaluation = run_demo(untrained, tmp_path / "out", console=console)
    assert evaluation.n == 1000
    assert sum(map(sum, evaluation.confusion)) == 1000
    assert {s.name: s.support for s in evaluation.per_class} == dict.fromkeys(CLASSES, 100)
    printed = console.file.getvalue()
    assert printed.startswith("se_resnet20_cifar, 274,847 parameters\n")
    assert f"top-1 {evaluation.top1:.2%} (95% interval " in printed
    assert all(name in printed for name in CLASSES)
    assert "most frequent confusions" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert f"{evaluation.top1:.1%}" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_classes_in_another_order_are_matched_by_name(console, tmp_path):
    model = timm.create_model(MODEL)
    torch.nn.init.zeros_(model.fc.weight)
    with torch.no_grad():
        model.fc.bias.zero_()[9] = 5  # always says its last class, which is airplane
    config = {"label_names": CLASSES[::-1]}
    save_for_hf(model, tmp_path / "run", model_config=config, safe_serialization=True)
    evaluation = run_demo(str(tmp_path / "run"), tmp_path / "out", console=console)
    assert evaluation.class_names == CLASSES[::-1]
    assert {s.name: s.recall for s in evaluation.per_class} == {**dict.fromkeys(CLASSES, 0.0), "airplane": 1.0}


def test_a_model_of_other_classes_is_refused_before_anything_is_written(console, tmp_path):
    save_for_hf(timm.create_model(MODEL, num_classes=10), tmp_path / "run", safe_serialization=True)
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace("airplane", "aeroplane"))
    with pytest.raises(UserError, match="does not know the classes of CIFAR-10"):
        run_demo(str(tmp_path / "run"), tmp_path / "out", console=console)
    assert not (tmp_path / "out").exists()
    assert console.file.getvalue() == ""


def test_an_output_folder_that_cannot_be_made_is_found_before_the_model_is_loaded(console, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        run_demo("no_such_model", tmp_path / "file" / "out", console=console)


def test_the_shipped_model_agrees_with_its_recorded_accuracy(console, tmp_path):
    evaluation = run_demo(DEFAULT_MODEL, tmp_path, console=console)
    recorded = packaged_facts(f"{DEFAULT_MODEL}.cifar10").row
    assert evaluation.top1_low <= recorded.top1 <= evaluation.top1_high
    assert evaluation.ece < 0.1
    assert min(score.recall for score in evaluation.per_class) > 0.7
