"""`seattn ablate` trains what is missing, once, whatever happens to it on the way."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from seattn.__main__ import main
from seattn.core import child
from seattn.experiments.study.ablation import ablate
from seattn.experiments.study.design import load_ablation
from seattn.experiments.study.progress import Progress
from seattn.experiments.study.runs import runs_of
from tests.helpers.commands import interrupt, read_csv, start, wait_until
from tests.helpers.locks import hold
from tests.helpers.studies import finish, write_study


def asked(trained):
    """The rates and seeds of the trainings that were started, in order."""
    return [(call["recipe"]["lr"], call["recipe"]["seed"]) for call in trained.calls()]


def losses(folder):
    return [(row["train_loss"], row["eval_loss"], row["eval_top1"]) for row in read_csv(folder / "summary.csv")]


def command(study, data_dir, out, *more):
    parts = ["ablate", study, "--data-dir", data_dir, "--out", out, "--device", "cpu", *more]
    return [str(part) for part in parts]


def test_a_study_trains_and_the_second_time_is_only_read(tmp_path, data_dir, out, capsys, one_thread):
    study = write_study(tmp_path, seeds=[0], set={"epochs": 1}, variants={"a": {"lr": 0.02}})
    (run,) = runs_of(load_ablation(study), out)
    assert main(command(study, data_dir, out)) == 0
    shown, log = capsys.readouterr()
    assert "run 1 of 1: a, seed 0, epoch 1 of 1: held-out" in log
    assert "train loss" not in log
    assert "table and plot:" in shown
    result = json.loads((run.folder / "result.json").read_text())
    assert (result["split"], result["n"], result["train_images"]) == ("held-out", 12, 12)
    assert main(command(study, data_dir, out)) == 0
    assert capsys.readouterr().err == ""
    assert json.loads((run.folder / "result.json").read_text()) == result


@pytest.mark.slow
def test_a_killed_study_continues_to_the_same_weights(tmp_path, data_dir, out, one_thread, capsys):
    study = write_study(tmp_path, seeds=[0], set={"epochs": 6}, variants={"a": {"lr": 0.02}})
    (run,) = runs_of(load_ablation(study), out)
    process = start(*command(study, data_dir, out))
    wait_until((run.folder / "last.pth.tar").exists, process)
    process.kill()
    process.communicate()
    wait_until(lambda: not run.is_locked())  # a training ends with the command that started it
    assert 1 <= run.epochs_done() < 6
    assert not run.finished()
    assert main(command(study, data_dir, out)) == 0
    assert "run 1 of 1: a, seed 0, continues after" in capsys.readouterr().err
    whole = tmp_path / "whole"
    folders = ("--data-dir", str(data_dir), "--out", str(whole))
    assert main(["train", str(run.folder / "recipe.yaml"), *folders, "--device", "cpu", "--no-test"]) == 0
    assert losses(run.folder) == losses(whole)
    assert (run.folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def start_fake(trained, *arguments):
    """The command in a process of its own, with the fake training."""
    code = (
        "import json, sys; from seattn.core import child; child.COMMAND = json.loads(sys.argv.pop(1)); "
        "from seattn.__main__ import main; sys.exit(main())"
    )
    return start(json.dumps(trained.command), *arguments, python=("-c", code))


@pytest.mark.slow
def test_two_commands_train_each_run_once(tmp_path, data_dir, out, trained):
    trained.score("time.sleep(0.1) or 90.0")
    study = write_study(tmp_path, seeds=[0, 1, 2])
    processes = [start_fake(trained, *command(study, data_dir, out)) for _ in range(2)]
    logs = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert sum(len(call["epochs"]) for call in trained.calls()) == 12, logs
    assert ablate(study, None, out).missing == ()


def test_ctrl_c_ends_the_trainings(tmp_path, data_dir, out, trained):
    trained.score("time.sleep(99)")
    study = write_study(tmp_path)
    runs = runs_of(load_ablation(study), out)
    process = start_fake(trained, *command(study, data_dir, out, "--jobs", 2))
    wait_until(lambda: all(run.is_locked() for run in runs[:2]), process)
    log = interrupt(process)
    assert process.returncode == 130, log
    assert set(asked(trained)) == {(0.05, 0), (0.02, 0)}
    assert not any(run.is_locked() for run in runs)


def test_a_training_that_is_killed_is_named_and_the_others_go_on(tmp_path, data_dir, out, trained, capsys):
    trained.score("os.kill(os.getpid(), 9) if recipe['lr'] == 0.02 else 90.0")
    study = write_study(tmp_path, seeds=[0], variants={"a": {}, "b": {"lr": 0.02}, "c": {"lr": 0.03}})
    assert main(command(study, data_dir, out, "--jobs", 2)) == 2
    log = capsys.readouterr().err
    assert log.splitlines()[-1] == (
        "seattn: 1 of 3 runs failed: b, seed 0: its process was ended by SIGKILL; "
        "is there enough memory for so many jobs?"
    )
    assert [run.finished() for run in runs_of(load_ablation(study), out)] == [True, False, True]


def test_runs_that_fail_are_named_and_the_others_go_on(tmp_path, data_dir, out, trained, capsys):
    study = write_study(tmp_path, variants={"a": {}, "b": {"lr": 0.02}, "c": {"lr": 0.03}})
    trained.score(
        "'the loss became nan' if recipe['lr'] == 0.02 else "
        "1 / 0 if (recipe['lr'], recipe['seed']) == (0.03, 0) else 90.0"
    )
    assert main(command(study, data_dir, out)) == 2
    assert asked(trained) == [(0.05, 0), (0.02, 0), (0.03, 0), (0.05, 1), (0.02, 1), (0.03, 1)]
    shown, log = capsys.readouterr()
    assert "run 2 of 6: b, seed 0 failed, the other runs continue: the loss became nan" in log
    assert log.splitlines()[-1] == (
        "seattn: 3 of 6 runs failed: b, seed 0, b, seed 1: the loss became nan; "
        "c, seed 0: ZeroDivisionError: division by zero"
    )
    assert "Traceback" not in log
    assert "missing: b, seed 0" in shown
    assert "table and plot" in shown
    (failed,) = (run for run in runs_of(load_ablation(study), out) if run.title == "c, seed 0")
    assert "Traceback" in (failed.folder / "train.log").read_text()


def test_what_the_command_is_given_reaches_every_run(tmp_path, data_dir, out, trained):
    study = write_study(tmp_path)
    assert main(command(study, data_dir, out, "--skip-bad", "--seeds", "3")) == 0
    assert asked(trained) == [(0.05, 3), (0.02, 3)]
    for call in trained.calls():
        folder = call["arguments"][3]
        given = ["--data-dir", str(data_dir), "--out", folder, "--no-test", "--device", "cpu", "--skip-bad"]
        assert call["arguments"] == given
        assert os.path.dirname(folder) == str(out)


def test_an_unfinished_run_is_resumed(tmp_path, data_dir, out, trained):
    study = write_study(tmp_path)
    trained.score("'stop' if epoch else 90.0")
    assert main(command(study, data_dir, out)) == 2
    trained.forget()
    trained.score("90.0")
    assert main(command(study, data_dir, out)) == 0
    assert [("--resume" in call["arguments"], call["epochs"]) for call in trained.calls()] == [(True, [1])] * 4


def test_a_run_that_another_command_trains_waits_and_is_taken_over_when_that_dies(
    tmp_path, data_dir, out, trained, monkeypatch, capsys
):
    study = write_study(tmp_path)
    runs = runs_of(load_ablation(study), out)
    runs[0].folder.mkdir(parents=True)
    holder = hold(runs[0].folder / ".lock")
    waited, wait_for = [], Progress.wait_for

    def kill(self, left):
        waited.append([run.name for run in left])
        wait_for(self, left)
        holder.kill()
        holder.wait()

    monkeypatch.setattr(Progress, "wait_for", kill)
    assert main(["ablate", str(study), "--no-train", "--out", str(out)]) == 0
    assert "missing: a, seed 0, in training now" in capsys.readouterr().out
    assert main(command(study, data_dir, out)) == 0
    assert waited == [[runs[0].name]]
    assert asked(trained) == [(0.02, 0), (0.05, 1), (0.02, 1), (0.05, 0)]
    assert "waiting for a, seed 0, which another command trains" in capsys.readouterr().err


def test_a_run_that_another_command_finished_meanwhile_is_not_trained(tmp_path, data_dir, out, trained, monkeypatch):
    study = write_study(tmp_path)
    runs, begin = runs_of(load_ablation(study), out), Progress.begin

    def finished_elsewhere(self, run):
        begin(self, run)
        if not runs[1].finished():
            finish(runs[1], 0.8)

    monkeypatch.setattr(Progress, "begin", finished_elsewhere)
    ablate(study, data_dir, out)
    assert asked(trained) == [(0.05, 0), (0.05, 1), (0.02, 1)]


def test_rows_from_elsewhere_are_not_trained_again(tmp_path, data_dir, out, trained):
    study = write_study(tmp_path)
    for run in runs_of(load_ablation(study), tmp_path / "there")[:3]:
        finish(run, 0.8)
    ablate(study, None, tmp_path / "there")
    trained.score("90.0")
    result = ablate(study, data_dir, out, rows=tmp_path / "there" / "x" / "rows.csv")
    assert asked(trained) == [(0.02, 1)]
    assert sorted(row.result.top1 for row in result.rows) == [0.8, 0.8, 0.8, 0.9]


def test_a_run_shared_by_two_studies_is_trained_once(tmp_path, data_dir, out, trained):
    ablate(write_study(tmp_path, "one"), data_dir, out)
    ablate(write_study(tmp_path, "two", variants={"c": {"lr": 0.02}, "d": {"lr": 0.3}}), data_dir, out)
    assert asked(trained) == [(0.05, 0), (0.02, 0), (0.05, 1), (0.02, 1), (0.3, 0), (0.3, 1)]


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
    assert trained.calls() == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--data-dir", "EMPTY"], "no train split in"),
        (["--out", "FILE/out"], "cannot write to "),
    ],
)
def test_what_would_fail_every_run_fails_before_the_first(tmp_path, data_dir, trained, args, message, fails):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("")
    args = [str(tmp_path / arg) if arg.split("/")[0] in ("EMPTY", "FILE") else arg for arg in args]
    given = {"--data-dir": str(data_dir), "--out": str(tmp_path / "out"), args[0]: args[1]}
    line = fails("ablate", write_study(tmp_path), *[word for pair in given.items() for word in pair])
    assert message in line
    assert args[1] in line
    assert trained.calls() == []


def test_progress_says_the_place_and_what_is_left(tmp_path, out, caplog):
    runs = runs_of(load_ablation(write_study(tmp_path)), out)  # 4 runs of 2 epochs
    finish(runs[0], 0.9)
    now = iter([0.0, 10.0, 20.0, 20.0, 50.0])
    progress = Progress(runs, runs[1:], 1, clock=lambda: next(now))
    with caplog.at_level("INFO", logger="seattn"):
        progress.begin(runs[1])
        progress.epoch(runs[1], {"epoch": 0, "eval_top1": 50.0})
        assert progress.seconds_left() == 5 * 10
        progress.epoch(runs[1], {"epoch": 1, "eval_top1": 60.0})
        progress.finished(runs[1])
        progress.begin(runs[2])
        progress.epoch(runs[2], {"epoch": 0, "eval_top1": 70.0})
    assert progress.seconds_left() == 30 + 2 * 10  # of each variant its own epochs
    assert caplog.messages[0] == "run 2 of 4: b, seed 0"
    assert caplog.messages[1] == "run 2 of 4: b, seed 0, epoch 1 of 2: held-out 50.00 %; about 0:00:50 left"
    assert caplog.messages[-1] == "run 3 of 4: a, seed 1, epoch 1 of 2: held-out 70.00 %; about 0:00:50 left"


def test_a_lock_file_that_a_dead_process_left_locks_nothing(tmp_path, out):
    run = runs_of(load_ablation(write_study(tmp_path)), out)[0]
    run.folder.mkdir(parents=True)
    (run.folder / ".lock").write_text("4711")
    assert not run.is_locked()


def test_a_child_has_its_threads_its_priority_the_code_of_a_checkout_and_a_group_of_its_own(tmp_path, monkeypatch):
    code = (
        "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['PYTHONPATH'], os.getcwd(), os.nice(0), "
        "os.getpgid(0) == os.getpid())"
    )
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-c", code))
    nice = os.nice(0)
    running = child.Child([], tmp_path / "log", threads=3, code=tmp_path, nice=1)
    assert running.failure() is None
    path = os.pathsep.join([str(tmp_path), str(tmp_path / "kernels")])
    assert (tmp_path / "log").read_text() == f"3 {path} {tmp_path} {min(nice + 1, 19)} True\n"


def test_a_child_ends_where_its_parent_does_not_live(tmp_path):
    arguments = [sys.executable, child.__file__, str(os.getpid() + 1), "--help"]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
