"""Seconds of training to an accuracy, from what runs left behind."""

import json
import statistics
from dataclasses import asdict, replace

import pytest

from benchmarks import time_to_accuracy
from benchmarks.evidence.rows import RECIPES
from seattn.core import records
from seattn.core.recipe import load_recipe
from tests.helpers.runs import ROW

RECIPE = RECIPES / "se_resnet20_cifar.cifar10.yaml"


@pytest.fixture
def rows(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    monkeypatch.setattr(time_to_accuracy, "ROWS", path)
    return path


@pytest.fixture
def run(tmp_path):
    """Make a finished run whose epochs took 10, 20, 30 … seconds and ended at the given held-out per cents."""

    def make(seed, *top1, **changes):
        folder = tmp_path / f"run{seed}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        lines = [f"{i},{value},{10 * (i + 1)}" for i, value in enumerate(top1)]
        (folder / "summary.csv").write_text("\n".join(["epoch,eval_top1,train_seconds", *lines]) + "\n")
        (folder / "result.json").write_text(json.dumps(asdict(replace(ROW, seed=seed, held_out_top1=top1[-1] / 100))))
        replace(load_recipe(RECIPE), seed=seed, **changes).write(folder / "recipe.yaml")
        return str(folder)

    return make


def test_the_time_is_that_of_the_epochs_up_to_the_first_that_reaches_the_target(run, rows, capsys):
    runs = [run(0, 80, 94, 93, 96), run(1, 93.99, 92, 94.5, 95), run(2, 90, 91, 92, 93)]
    assert time_to_accuracy.main(["--target", "94", "--target", "95.5", *runs]) == 0
    written = records.read_rows(time_to_accuracy.TimeRow, rows)
    found = [(row.seed, row.target, row.epochs, row.seconds) for row in written]
    assert found == [
        (0, 0.94, 2, 30.0),
        (0, 0.955, 4, 100.0),
        (1, 0.94, 3, 60.0),
        (1, 0.955, None, None),
        (2, 0.94, None, None),
        (2, 0.955, None, None),
    ]
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"94 %: reached by 2 of 3 runs, 45.0 ± {statistics.stdev([30, 60]):.1f} s of training"
    assert second == "95.5 %: reached by 1 of 3 runs, 100.0 s of training"


def test_the_same_runs_again_append_nothing(run, rows):
    command = ["--target", "94", run(0, 80, 94), run(1, 80, 95)]
    assert time_to_accuracy.main(command) == 0
    once = rows.read_text()
    assert time_to_accuracy.main(command) == 0
    assert rows.read_text() == once


def test_none_reached_is_said(run, rows, capsys):
    assert time_to_accuracy.main(["--target", "100", run(0, 80)]) == 0
    assert capsys.readouterr().out == "100 %: reached by 0 of 1 runs\n"


@pytest.mark.parametrize("target", ["0", "101", "nan"])
def test_a_target_beyond_what_there_is_is_refused(run, rows, command_fails, target):
    assert "--target is top-1 in per cent" in command_fails(time_to_accuracy, "--target", target, run(0, 80))
    assert not rows.exists()


def test_runs_that_do_not_belong_together_are_refused(run, rows, command_fails):
    for other, message in ((run(0, 95), "the same seed"), (run(1, 95, lr=0.7), "followed no recipe")):
        assert message in command_fails(time_to_accuracy, "--target", "94", run(0, 95), other)
    assert not rows.exists()


@pytest.mark.parametrize("text", ["epoch,eval_top1,train_seconds\n0,9", "epoch,eval_top1,train_seconds\n0,x,1\n"])
def test_a_damaged_summary_is_named(run, rows, command_fails, tmp_path, text):
    folder = run(0, 80)
    (tmp_path / folder / "summary.csv").write_text(text)
    line = command_fails(time_to_accuracy, "--target", "94", folder)
    assert "summary.csv, line 2 is damaged: it should be 3 numbers" in line
