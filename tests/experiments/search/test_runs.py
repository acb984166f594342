"""Searches whose trials really train, as a user starts them. There is no test split: reading it would fail."""

import pytest

from seattn.cli.main import run
from seattn.core.files import is_locked
from tests.helpers.commands import read_csv, start, wait_until
from tests.helpers.searches import write_search

SPACE = {"lr": {"choice": [0.02, 0.05]}}
pytestmark = pytest.mark.slow


def table(out):
    return read_csv(out / "trials.csv")


def log(run_dir):
    rows = read_csv(run_dir / "summary.csv")
    return [{key: float(value) for key, value in row.items() if "second" not in key} for row in rows]


def test_a_killed_search_ends_as_one_that_was_not_and_its_best_recipe_trains(tmp_path, data_dir, one_thread):
    search = write_search(tmp_path, space=SPACE, recipe={"epochs": 6}, sampler="grid", pruner="none")
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = ["search", str(search), "--data-dir", str(data_dir), "--device", "cpu", "--trials", "2", "--jobs", "2"]
    process = start(*command, "--out", out)
    wait_until((out / "trial-0001" / "last.pth.tar").exists, process)
    process.kill()
    process.wait()
    wait_until(lambda: not is_locked(out / "trial-0001"))  # a training ends with the command that started it
    assert 1 <= len(log(out / "trial-0001")) < 6
    for folder in (out, whole):
        assert run([*command, "--out", str(folder)]) == 0
    rates = [{row["lr"]: log(folder / f"trial-000{row['trial']}") for row in table(folder)} for folder in (out, whole)]
    assert rates[0] == rates[1]
    assert set(rates[0]) == {"0.02", "0.05"}
    assert [row["state"] for row in table(out)] == ["complete"] * 2
    folders = ["--data-dir", str(data_dir), "--device", "cpu", "--out"]
    assert run(["train", str(out / "best.yaml"), *folders, str(tmp_path / "again"), "--no-test"]) == 0
    best = max(table(out), key=lambda row: float(row["held_out_top1"]))
    assert log(tmp_path / "again") in rates[0].values()
    assert float(best["held_out_top1"]) == log(tmp_path / "again")[-1]["eval_top1"]


def test_a_failure_in_a_training_is_one_line(tmp_path, data_dir):
    """No process can make this optimizer."""
    search = write_search(tmp_path, recipe={"opt": "sgdd"})
    out = tmp_path / "out"
    process = start("search", search, "--data-dir", data_dir, "--device", "cpu", "--trials", "9", "--out", out)
    _, err = process.communicate(timeout=250)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("seattn: 3 trials in a row failed, trial ")
    assert "cannot make the optimizer 'sgdd'" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert {row["state"] for row in table(out)} <= {"failed", "paused"}
