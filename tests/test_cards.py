"""Cards and the README's table are what the rows say, and rows are what runs wrote."""

import dataclasses
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from benchmarks._record import append_run, read_rows
from benchmarks.record import ship
from benchmarks.render import RESULTS, render_cards, render_readme, render_results
from seattn.cards import render_card, render_table
from seattn.errors import UserError
from seattn.models import models_with_weights
from seattn.recipe import load_recipe
from seattn.rows import AccuracyRow, Conditions

ROOT = Path(__file__).parent.parent
ROW = AccuracyRow(
    name="se_resnet20_cifar.cifar10",
    dataset="CIFAR-10",
    split="test",
    n=200,
    top1=0.5,
    top1_low=0.4313,
    top1_high=0.5687,
    top5=0.9,
    loss=1.25,
    ece=0.03,
    seed=4,
    epochs=7,
    train_images=900,
    held_out_images=100,
    held_out_top1=0.51,
    params=274_847,
    train_seconds=4000.0,
    dtype="bfloat16",
    memory_format="channels_last",
    conditions=Conditions("a processor", 2, "3.11.7", "2.15.0", "1.0.31", "", "0.1.0", "abc1234", "2026-01-02"),
)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(asdict(ROW)))
    return folder


def test_row_of_a_run_reads_back_equal(tmp_path, run):
    path = tmp_path / "results" / "accuracy.csv"
    assert append_run(run, path) == ROW
    assert read_rows(path) == [ROW]


def test_rows_are_appended_and_none_twice(tmp_path, run):
    path = tmp_path / "accuracy.csv"
    append_run(run, path)
    with pytest.raises(UserError, match=r"stands in .* already"):
        append_run(run, path)
    other = dataclasses.replace(ROW, seed=5)
    (run / "result.json").write_text(json.dumps(asdict(other)))
    append_run(run, path)
    assert read_rows(path) == [ROW, other]


def test_shipped_weights_are_copied_and_recorded_with_their_digest(tmp_path, run):
    (tmp_path / "index.json").write_text('{"z": {"file": "z.safetensors", "sha256": "0"}}')
    (run / "model.safetensors").write_bytes(b"weights")
    ship(run, ROW.name, tmp_path)
    assert (tmp_path / f"{ROW.name}.safetensors").read_bytes() == b"weights"
    index = json.loads((tmp_path / "index.json").read_text())
    assert list(index) == [ROW.name, "z"]
    assert index[ROW.name] == {
        "file": f"{ROW.name}.safetensors",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }


def test_unfinished_run_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no finished run"):
        append_run(tmp_path, tmp_path / "accuracy.csv")
    assert not (tmp_path / "accuracy.csv").exists()


def test_card_says_what_the_row_says():
    card = render_card(ROW, load_recipe(ROOT / "zoo_configs" / f"{ROW.name}.yaml"))
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-classification"
    assert "transformers" not in front["tags"]
    result = front["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == 0.5
    assert result["dataset"]["split"] == "test"
    for fact in ("50.00 %", "43.13 to 56.87", "| 200 |", "seed 4", "7 epochs of 900 images", "1 h 7 min", "abc1234"):
        assert fact in card


def test_table_has_a_line_a_row():
    table = render_table([ROW, ROW])
    assert table.count("`se_resnet20_cifar.cifar10`") == 2
    assert "50.00 (43.13 to 56.87)" in table


def test_committed_cards_are_the_rendered_ones():
    cards = render_cards()
    assert sorted(path.stem for path in cards) == models_with_weights()
    for path, text in cards.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} differs from its rows: make cards"
    assert set((ROOT / "hub_cards").glob("*.md")) == set(cards)


def test_committed_readme_table_is_the_rendered_one():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert render_readme(text) == text, "README.md differs from the rows: make cards"
    assert render_results() == RESULTS.read_text(encoding="utf-8"), f"{RESULTS} differs from the rows: make cards"
    assert all(f"`{name}`" in text for name in models_with_weights())


def test_every_row_was_measured_on_a_whole_test_split_and_its_interval_holds_its_top1():
    sizes = {"CIFAR-10": 10_000, "CIFAR-100": 10_000}
    for row in read_rows():
        assert row.n == sizes[row.dataset]
        assert row.split == "test"
        assert row.top1_low < row.top1 < row.top1_high
        assert row.conditions.commit
        assert not row.conditions.commit.endswith("+")
