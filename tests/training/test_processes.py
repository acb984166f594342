"""Many processes of one run, as torchrun starts them: the same result as one process, and a clear end when one dies."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from seattn.training.driver import train
from tests.helpers.colours import write_colours

# Group norm: batch statistics would differ between the halves of a batch, and torch synchronises them on CUDA alone.
RECIPE = {
    "model": "se_resnet20_cifar",
    "model_kwargs": {"norm_layer": "groupnorm1"},
    "num_classes": 3,
    "lr": 0.02,
    "batch_size": 16,
    "epochs": 2,
    "warmup_epochs": 0,
    "sched_on_updates": True,
    "smoothing": 0.0,
    "color_jitter": None,
    "model_ema": True,
    "model_ema_decay": 0.9,
    "seed": 3,
    "seattn": {"dataset": "colours", "holdout": 0.2, "crop_padding": 4},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    counts = {"train": (20, 20, 20), "test": (4, 4, 4)}
    return write_colours(tmp_path_factory.mktemp("colours"), {"red": 0, "green": 1, "blue": 2}, counts)


def command(recipe, data_dir, run, processes, *more):
    launch = [sys.executable, "-m"]
    if processes > 1:
        launch += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    return [*launch, "seattn", "train", str(recipe), "--data-dir", str(data_dir), "--out", str(run), *more]


def write(path, **changes):
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_two_processes_train_as_one_does_at_the_same_global_batch(tmp_path, data_dir):
    one, two = tmp_path / "one", tmp_path / "two"
    whole = write(tmp_path / "one.yaml")
    halves = write(tmp_path / "two.yaml", batch_size=8)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launched = {**ENV, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}  # as torchrun sets them
    args = command(halves, data_dir, two, 1, "--device", "cpu")
    workers = [
        subprocess.Popen(args, env={**launched, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    train(whole, data_dir, one, device="cpu")
    logs = [worker.communicate(timeout=280)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], logs
    assert logs[0].count("epoch 2/2: train loss") == 1
    assert "train loss" not in logs[1]  # the first process alone writes
    ours, theirs = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, atol=2e-4, rtol=2e-3, err_msg=key)
    rows = [json.loads((run / "result.json").read_text()) for run in (one, two)]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-3)
    losses = [[float(r["train_loss"]) for r in csv.DictReader((run / "summary.csv").open())] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_line_and_resume_goes_on(tmp_path, data_dir):
    run, recipe = tmp_path / "run", write(tmp_path / "r.yaml", batch_size=8, epochs=30)
    args = command(recipe, data_dir, run, 2, "--device", "cpu")
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(args, env=ENV, stderr=log, stdout=log)
        deadline = time.monotonic() + 200
        while not (run / "last.pth.tar").exists():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(worker_of(first.pid, rank=1), signal.SIGKILL)
        assert first.wait(timeout=120) != 0
    log = (tmp_path / "log").read_text()
    assert "seattn: " in log or "SIGKILL" in log or "Signal 9" in log, log[-2000:]
    write(recipe, batch_size=8, epochs=30)
    done = subprocess.run([*args, "--resume"], env=ENV, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed from" in done.stderr
    assert (run / "result.json").exists()


def worker_of(launcher, rank):
    """The process id of that rank among the launcher's children."""
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environ = (entry / "environ").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if parent == launcher and f"\0RANK={rank}\0".encode() in b"\0" + environ + b"\0":
            return int(entry.name)
    raise AssertionError("no such worker")
