"""`seattn ablate` trains what is missing, once, whatever happens to it on the way."""

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml
from filelock import FileLock

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.experiments.study import workers
from seattn.experiments.study.ablation import ablate
from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.runs import runs_of
from seattn.experiments.study.workers import Watch
from tests.helpers.studies import finish, write_data, write_study

HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(99)
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def trained(monkeypatch):
    """Training replaced by a result: the seeds and rates that were asked for, in order."""
    asked = []

    def train(recipe, data_dir, folder, **kwargs):
        assert (kwargs["read_test"], kwargs["resume"]) == (False, True)
        asked.append((recipe.lr, recipe.seed))
        for epoch in range(2):
            kwargs["on_epoch"]({"epoch": epoch, "eval_top1": 90.0})
        (run,) = (run for run in train.runs if run.folder == folder)
        finish(run, 0.9)

    train.asked = asked
    monkeypatch.setattr(workers, "train", train)
    return train


def losses(run):
    with (run.folder / "summary.csv").open() as file:
        return [(row["train_loss"], row["eval_loss"], row["eval_top1"]) for row in csv.DictReader(file)]


def test_a_study_trains_and_the_second_time_is_only_read(tmp_path, data_dir, out, capsys, one_thread):
    study = write_study(tmp_path, seeds=[0], set={"epochs": 1})
    command = ["ablate", str(study), "--data-dir", str(data_dir), "--out", str(out), "--device", "cpu"]
    assert main(command) == 0
    shown, log = capsys.readouterr()
    assert "table and plot:" in shown
    assert "run 2 of 2: b, seed 0, epoch 1 of 1: held-out" in log
    assert "train loss" not in log
    runs = runs_of(load_ablation(study), out)
    results = [json.loads((run.folder / "result.json").read_text()) for run in runs]
    assert [(result["split"], result["n"], result["train_images"]) for result in results] == [("held-out", 24, 24)] * 2
    stamps = [(run.folder / "result.json").stat().st_mtime_ns for run in runs]
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    assert stamps == [(run.folder / "result.json").stat().st_mtime_ns for run in runs]
    assert logging.getLogger("seattn").level == logging.NOTSET


def test_a_study_cut_off_goes_on_to_the_same_weights(tmp_path, data_dir, out, one_thread, monkeypatch, capsys):
    study = write_study(tmp_path, seeds=[0], set={"epochs": 2}, variants={"a": {"lr": 0.02}})
    write, rows = Watch.epoch, []

    def cut(self, run, row):
        rows.append(row)
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "epoch", cut)
    command = ["ablate", str(study), "--data-dir", str(data_dir), "--out", str(out), "--device", "cpu"]
    assert main(command) == 130
    (run,) = runs_of(load_ablation(study), out)
    assert (len(rows), run.epochs_done(), run.finished(), run.is_claimed()) == (1, 1, False, False)
    monkeypatch.setattr(Watch, "epoch", write)
    capsys.readouterr()
    assert main(command) == 0
    assert "run 1 of 1: a, seed 0, goes on after 1 of 2 epochs" in capsys.readouterr().err
    ablate(study, data_dir, tmp_path / "whole", device="cpu")
    (whole,) = runs_of(load_ablation(study), tmp_path / "whole")
    assert losses(run) == losses(whole)
    assert (run.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def start(study, data_dir, out, *more):
    command = [sys.executable, "-m", "seattn", "ablate", study, "--data-dir", data_dir, "--out", out, "--device", "cpu"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(part) for part in [*command, *more]], env=env, text=True, stderr=subprocess.PIPE)


def wait_until(condition, process):
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_killed_goes_on_to_the_same_weights(tmp_path, data_dir, out, jobs, one_thread):
    study = write_study(tmp_path, seeds=[0], set={"epochs": 6})
    runs = runs_of(load_ablation(study), out)
    command = start(study, data_dir, out, "--jobs", jobs)
    wait_until((runs[0].folder / "last.pth.tar").exists, command)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    deadline = time.monotonic() + 60
    while any(run.is_claimed() for run in runs):  # the processes of a killed command end with it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not all(run.finished() for run in runs)
    assert 1 <= runs[0].epochs_done() < 6
    again = start(study, data_dir, out, "--jobs", jobs)
    log = again.communicate()[1]
    assert again.returncode == 0, log
    assert "a, seed 0, goes on after" in log
    ablate(study, data_dir, tmp_path / "whole", device="cpu")
    for run, whole in zip(runs, runs_of(load_ablation(study), tmp_path / "whole"), strict=True):
        assert losses(run) == losses(whole)
        assert (run.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_commands_at_once_train_each_run_once(tmp_path, data_dir, out):
    study = write_study(tmp_path, seeds=[0, 1], set={"epochs": 2})
    commands = [start(study, data_dir, out) for _ in range(2)]
    logs = [command.communicate()[1] for command in commands]
    assert [command.returncode for command in commands] == [0, 0], logs
    epochs = [line for log in logs for line in log.splitlines() if "epoch 1 of 2" in line]
    assert len(epochs) == 4, logs
    assert ablate(study, None, out).missing == ()


@pytest.mark.slow
def test_jobs_are_processes_and_one_that_dies_or_fails_is_named(tmp_path, data_dir, out):
    study = write_study(tmp_path, seeds=[0], variants={"a": {"epochs": 300}, "bad": {"opt": "sdg"}, "c": {"epochs": 1}})
    victim, _, other = runs_of(load_ablation(study), out)
    command = start(study, data_dir, out, "--jobs", 2)
    wait_until((victim.folder / "last.pth.tar").exists, command)
    children = subprocess.run(["ps", "--ppid", str(command.pid), "-o", "pid="], capture_output=True, text=True).stdout
    holders = [pid for pid in children.split() if holds(pid, victim)]
    assert len(holders) == 1
    wait_until(other.finished, command)
    os.kill(int(holders[0]), signal.SIGKILL)
    log = command.communicate()[1]
    assert command.returncode == 2
    last = log.splitlines()[-1]
    assert last.startswith("seattn: 2 of 3 runs failed: ")
    assert "a, seed 0: its process ended by itself, by signal SIGKILL" in last
    assert "bad, seed 0: cannot make the optimizer 'sdg'" in last
    assert other.finished()
    assert "Traceback" not in log


def holds(pid, run):
    return any(
        os.path.realpath(f"/proc/{pid}/fd/{fd}").endswith(f"{run.name}.lock") for fd in os.listdir(f"/proc/{pid}/fd")
    )


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, data_dir, out, trained, capsys, monkeypatch):
    study = write_study(tmp_path, variants={"a": {}, "b": {"lr": 0.02}, "c": {"lr": 0.03}})
    trained.runs, fake = runs_of(load_ablation(study), out), workers.train

    def fails(recipe, *args, **kwargs):
        if recipe.lr == 0.02:
            raise UserError("the loss became nan")
        if (recipe.lr, recipe.seed) == (0.03, 0):
            raise RuntimeError("out of memory\nat line 3")
        fake(recipe, *args, **kwargs)

    monkeypatch.setattr(workers, "train", fails)
    assert main(["ablate", str(study), "--data-dir", str(data_dir), "--out", str(out)]) == 2
    assert trained.asked == [(0.05, 0), (0.05, 1), (0.03, 1)]
    shown, log = capsys.readouterr()
    assert log.splitlines()[-1] == (
        "seattn: 3 of 6 runs failed: b, seed 0, b, seed 1: the loss became nan; c, seed 0: RuntimeError: out of memory"
    )
    assert "Traceback" in log  # of what is no fault of the user's
    assert "missing: b, seed 0" in shown
    assert "table and plot" in shown


def test_what_the_command_is_given_reaches_every_run(tmp_path, data_dir, out, trained, monkeypatch):
    study = write_study(tmp_path)
    fake, given = workers.train, []

    def train(recipe, data, folder, **kwargs):
        given.append((data, kwargs["device"], kwargs["skip_bad"]))
        fake(recipe, data, folder, **kwargs)

    monkeypatch.setattr(workers, "train", train)
    more = ["--device", "cpu", "--skip-bad", "--seeds", "3"]
    trained.runs = runs_of(replace(load_ablation(study), seeds=(3,)), out)
    assert main(["ablate", str(study), "--data-dir", str(data_dir), "--out", str(out), *more]) == 0
    assert given == [(data_dir, "cpu", True)] * 2
    assert [seed for _, seed in trained.asked] == [3, 3]


def test_a_run_that_another_command_trains_waits_and_is_taken_over_when_that_dies(
    tmp_path, data_dir, out, trained, monkeypatch, capsys
):
    study = write_study(tmp_path)
    trained.runs = runs = runs_of(load_ablation(study), out)
    out.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, out / f".{runs[0].name}.lock"], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    monkeypatch.setattr(workers, "POLL", 0.05)
    waited, say = [], Watch.wait_for

    def kill(self, left):
        waited.append([run.name for run in left])
        say(self, left)
        holder.kill()
        holder.wait()

    monkeypatch.setattr(Watch, "wait_for", kill)
    assert main(["ablate", str(study), "--no-train", "--out", str(out)]) == 0
    assert "missing: a, seed 0, in training now" in capsys.readouterr().out
    assert main(["ablate", str(study), "--data-dir", str(data_dir), "--out", str(out)]) == 0
    assert waited == [[runs[0].name]]
    assert trained.asked == [(0.02, 0), (0.05, 1), (0.02, 1), (0.05, 0)]
    assert "waiting for a, seed 0, which another command trains" in capsys.readouterr().err


def test_a_run_that_another_command_finished_meanwhile_is_not_trained(tmp_path, data_dir, out, trained, monkeypatch):
    study = write_study(tmp_path)
    trained.runs = runs = runs_of(load_ablation(study), out)
    begin = Watch.begin

    def finished_elsewhere(self, run):
        begin(self, run)
        if run.name == runs[1].name:
            finish(run, 0.8)

    monkeypatch.setattr(Watch, "begin", finished_elsewhere)
    ablate(study, data_dir, out)
    assert trained.asked == [(0.05, 0), (0.05, 1), (0.02, 1)]


def test_rows_from_elsewhere_are_not_trained_again(tmp_path, data_dir, out, trained):
    study = write_study(tmp_path)
    for run in runs_of(load_ablation(study), tmp_path / "there")[:3]:
        finish(run, 0.8)
    ablate(study, None, tmp_path / "there")
    trained.runs = runs_of(load_ablation(study), out)
    result = ablate(study, data_dir, out, rows=tmp_path / "there" / "x" / "rows.csv")
    assert trained.asked == [(0.02, 1)]
    assert sorted(row.result.top1 for row in result.rows) == [0.8, 0.8, 0.8, 0.9]


def test_a_run_shared_by_two_studies_is_trained_once(tmp_path, data_dir, out, trained):
    one, two = (
        write_study(tmp_path, "one"),
        write_study(tmp_path, "two", variants={"c": {"lr": 0.02}, "d": {"lr": 0.3}}),
    )
    for study in (one, two):
        trained.runs = runs_of(load_ablation(study), out)
        ablate(study, data_dir, out)
    assert trained.asked == [(0.05, 0), (0.02, 0), (0.05, 1), (0.02, 1), (0.3, 0), (0.3, 1)]


def test_an_unfinished_run_of_another_recipe_is_refused_before_anything_is_trained(
    fails, tmp_path, data_dir, out, trained
):
    study = write_study(tmp_path)
    run = runs_of(load_ablation(study), out)[3]
    finish(run, 0.9)
    (run.folder / "result.json").rename(run.folder / "last.pth.tar")
    changed = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump({**changed, "hflip": 0.1}))
    line = fails("ablate", study, "--data-dir", data_dir, "--out", out)
    assert f"{run.folder} holds a run of another recipe" in line
    assert trained.asked == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--data-dir", "EMPTY"], "no train split in"),
        (["--out", "FILE/out"], "cannot write to .*FILE/out"),
    ],
)
def test_what_would_fail_every_run_fails_before_the_first(tmp_path, data_dir, trained, args, message, capsys):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("")
    args = [str(tmp_path / arg) if arg.split("/")[0] in ("EMPTY", "FILE") else arg for arg in args]
    study = write_study(tmp_path)
    given = {"--data-dir": str(data_dir), "--out": str(tmp_path / "out"), args[0]: args[1]}
    assert main(["ablate", str(study), *[word for pair in given.items() for word in pair]]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message.split(".*")[0] in err
    assert trained.asked == []


def test_progress_says_the_place_and_what_is_left(tmp_path, out, caplog):
    runs = runs_of(load_ablation(write_study(tmp_path)), out)  # 4 runs of 2 epochs
    finish(runs[0], 0.9)
    now = iter([0.0, 10.0, 20.0, 20.0, 50.0])
    watch = Watch(runs, runs[1:], 1, clock=lambda: next(now))
    with caplog.at_level(logging.INFO, logger="seattn"):
        watch.begin(runs[1])
        watch.epoch(runs[1], {"epoch": 0, "eval_top1": 50.0})
        assert watch.seconds_left() == 5 * 10
        watch.epoch(runs[1], {"epoch": 1, "eval_top1": 60.0})
        watch.finished(runs[1])
        watch.begin(runs[2])
        watch.epoch(runs[2], {"epoch": 0, "eval_top1": 70.0})
    assert watch.seconds_left() == 30 + 2 * 10  # of each variant its own epochs
    assert caplog.messages[0] == "run 2 of 4: b, seed 0"
    assert caplog.messages[1] == "run 2 of 4: b, seed 0, epoch 1 of 2: held-out 50.00 %; about 0:00:50 left"
    assert caplog.messages[-1] == "run 3 of 4: a, seed 1, epoch 1 of 2: held-out 70.00 %; about 0:00:50 left"


def test_a_lock_left_behind_by_a_dead_process_claims_nothing(tmp_path, out):
    run = runs_of(load_ablation(write_study(tmp_path)), out)[0]
    out.mkdir()
    (out / f".{run.name}.lock").write_text("4711")
    assert not run.is_claimed()
    with FileLock(out / f".{run.name}.lock"):
        assert run.is_claimed()
