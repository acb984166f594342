"""Searches whose trials really train, as a user starts them."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

import seattn.data.open
from seattn.cli.main import run
from tests.helpers.colours import write_colours
from tests.helpers.searches import write_search

CLASSES = {"blue": 2, "green": 1, "red": 0}
SPACE = {"lr": {"choice": [0.02, 0.05]}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"), CLASSES, {"train": (8, 8, 8)})


def table(out):
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def log(run_dir):
    with (run_dir / "summary.csv").open() as file:
        return [
            {key: float(value) for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)
        ]


def test_the_best_recipe_trains_and_no_test_split_is_read(tmp_path, data_dir, monkeypatch, one_thread):
    read = []
    list_files = seattn.data.open.list_files
    monkeypatch.setattr(seattn.data.open, "list_files", lambda folder: read.append(folder.name) or list_files(folder))
    out = tmp_path / "out"
    search = write_search(tmp_path, space=SPACE, recipe={"epochs": 1}, sampler="grid")
    folders = ["--data-dir", str(data_dir), "--device", "cpu", "--out"]
    assert run(["search", str(search), *folders, str(out), "--trials", "2"]) == 0
    assert set(read) == {"train"}
    (best,) = [row for row in table(out) if row == max(table(out), key=lambda row: float(row["held_out_top1"]))][:1]
    assert run(["train", str(out / "best.yaml"), *folders, str(tmp_path / "again"), "--no-test"]) == 0
    assert log(tmp_path / "again") == log(out / f"trial-000{best['trial']}")
    assert float(best["held_out_top1"]) == log(tmp_path / "again")[-1]["eval_top1"]


def start(*command):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    args = [sys.executable, "-m", "seattn", "search", *map(str, command)]
    return subprocess.Popen(args, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(tmp_path, data_dir, one_thread):
    search = write_search(tmp_path, space=SPACE, recipe={"epochs": 6}, sampler="grid", pruner="none")
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [str(search), "--data-dir", str(data_dir), "--device", "cpu", "--trials", "2", "--out"]
    process = start(*command, out)
    deadline = time.monotonic() + 200
    while not (out / "trial-0001" / "last.pth.tar").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 1 <= len(log(out / "trial-0001")) < 6
    for folder in (out, whole):
        assert run(["search", *command, str(folder)]) == 0
    assert [log(out / f"trial-000{i}") for i in (0, 1)] == [log(whole / f"trial-000{i}") for i in (0, 1)]
    for i in (0, 1):
        name = f"trial-000{i}/model.safetensors"
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert [row["state"] for row in table(out)] == ["complete"] * 2


@pytest.mark.slow
def test_jobs_share_one_study(tmp_path, data_dir):
    search = write_search(tmp_path, recipe={"epochs": 2}, pruner="none")
    out = tmp_path / "out"
    process = start(search, "--data-dir", data_dir, "--device", "cpu", "--trials", "4", "--out", out, "--jobs", "2")
    _, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert [row["state"] for row in table(out)] == ["complete"] * 4
    assert len({row["lr"] for row in table(out)}) == 4
    for i in range(4):
        assert f"trial {i}: epoch 2/2" in err
    assert err.splitlines()[-1].startswith("no importance yet")


@pytest.mark.slow
def test_a_failure_in_a_job_is_one_line(tmp_path, data_dir):
    """No process can make this optimizer."""
    search = write_search(tmp_path, recipe={"opt": "sgdd"})
    out = tmp_path / "out"
    process = start(search, "--data-dir", data_dir, "--device", "cpu", "--trials", "9", "--out", out, "--jobs", "2")
    _, err = process.communicate(timeout=250)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("seattn: 3 trials in a row failed, trial ")
    assert "Traceback" not in err
    assert {row["state"] for row in table(out)} == {"fail"}
