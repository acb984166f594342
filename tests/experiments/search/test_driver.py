"""What a study does, with a training that costs nothing: test_runs.py trains."""

import csv
import json
import logging
import math
import multiprocessing
import os
import signal
import time

import optuna
import pytest
import yaml
from optuna.trial import TrialState

import seattn.experiments.search.driver as seattn_search
import seattn.experiments.search.figures as plots
import seattn.experiments.search.worker as worker
from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.core.recipe import load_recipe
from seattn.experiments.search.driver import run_search
from seattn.experiments.search.space import load_search
from tests.helpers.colours import write_colours
from tests.helpers.searches import SPACE, fake_train, write_search

CLASSES = {"blue": 2, "green": 1, "red": 0}
fork = multiprocessing.get_context("fork")  # the child has this process's fake training


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"), CLASSES, {"train": (2, 2, 2)})


@pytest.fixture(autouse=True)
def _few_figures(request, monkeypatch):
    if "figures" not in request.node.name:  # they take longer than all else here
        monkeypatch.setattr(plots, "write_plots", lambda *args: None)


@pytest.fixture
def trained(monkeypatch):
    """Put a fake training in place; the runs of this process as (folder's name, its epochs)."""

    def put(score=lambda recipe, epoch: 60 + 10 * math.log10(recipe.lr) + epoch):
        runs = []
        monkeypatch.setattr(worker, "train", fake_train(score, runs))
        return runs

    return put


def table(out):
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def values(out):
    return [(row["lr"], row["seattn.cutout"]) for row in table(out)]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_best_trial_is_a_recipe_and_a_second_call_goes_on(tmp_path, data_dir, trained, capsys, sampler):
    runs = trained()
    out = tmp_path / "out"
    command = ["search", write_search(tmp_path), "--data-dir", data_dir, "--out", out, "--sampler", sampler]
    command = [*map(str, command), "--device", "cpu", "--pruner", "none", "--trials"]
    assert run([*command, "4"]) == 0
    assert run([*command, "4"]) == 0
    assert [name for name, _ in runs] == [f"trial-000{i}" for i in range(4)]
    assert run([*command, "6"]) == 0
    rows = table(out)
    assert [row["state"] for row in rows] == ["complete"] * 6
    assert len({row["lr"] for row in rows}) == 6  # a call that goes on does not begin its draws anew
    best = max(rows, key=lambda row: float(row["held_out_top1"]))
    recipe = load_recipe(out / "best.yaml")
    assert (recipe.lr, recipe.seattn.cutout) == (float(best["lr"]), int(best["seattn.cutout"]))
    assert (recipe.epochs, recipe.seed, recipe.seattn.holdout) == (3, 42, 0.2)
    head = (out / "best.yaml").read_text()
    assert f"# Trial {best['trial']} of the search s: held-out top-1 {float(best['held_out_top1']):.2f} %" in head
    assert "The best of 6 trials, 6 of them whole, all judged on the same images: optimistic" in head
    said = capsys.readouterr()
    assert "6 trials: 6 whole" in said.err
    assert "best of 6 on the same images: optimistic" in said.out
    assert f"{float(best['held_out_top1']):.2f} " in said.out


def test_a_random_search_in_parts_draws_what_it_draws_in_one(tmp_path, data_dir, trained):
    trained()
    path = write_search(tmp_path, sampler="random", seed=5)
    run_search(path, data_dir, tmp_path / "whole", trials=3, device="cpu")
    for trials in (1, 3):
        run_search(path, data_dir, tmp_path / "parts", trials=trials, device="cpu")
    assert values(tmp_path / "whole") == values(tmp_path / "parts")
    run_search(load_search(path, seed=6), data_dir, tmp_path / "other", trials=1, device="cpu")
    assert values(tmp_path / "other") != values(tmp_path / "whole")[:1]


def test_a_grid_visits_every_point_once_and_ends_there(tmp_path, data_dir, trained, caplog):
    runs = trained()
    space = {"lr": {"choice": [0.1, 0.2]}, "seattn.cutout": {"int": [0, 16], "step": 8}}
    path, out = write_search(tmp_path, space=space, sampler="grid"), tmp_path / "out"
    caplog.set_level(logging.INFO, "seattn")
    run_search(path, data_dir, out, trials=4, device="cpu")
    run_search(path, data_dir, out, trials=100, device="cpu")
    assert len(runs) == 6
    assert sorted(values(out)) == [(lr, cutout) for lr in ("0.1", "0.2") for cutout in ("0", "16", "8")]
    assert "the grid has no more: all its 6 points were tried" in caplog.text
    run_search(path, data_dir, out, trials=100, device="cpu")
    assert len(runs) == 6


def test_choices_of_lists_reach_the_recipe(tmp_path, data_dir, trained):
    trained()
    space = {"scale": {"choice": [[0.35, 1.0], [0.5, 1.0]]}, "drop_path": {"choice": [None, 0.1]}}
    run_search(write_search(tmp_path, space=space, sampler="grid"), data_dir, tmp_path / "out", trials=4, device="cpu")
    assert load_recipe(tmp_path / "out" / "best.yaml").scale in ((0.35, 1.0), (0.5, 1.0))


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_pruning_ends_a_run_early(tmp_path, data_dir, trained, pruner):
    """Worse and worse trials: all but the first ones stand below the median."""
    count = iter(range(1000))
    scores = {}

    def score(recipe, epoch):
        return scores.setdefault(recipe.lr, 90 - 3 * next(count)) + epoch

    runs = trained(score)
    path = write_search(tmp_path, recipe={"epochs": 9}, sampler="random", pruner=pruner)
    run_search(path, data_dir, tmp_path / "out", trials=10, device="cpu")
    rows = table(tmp_path / "out")
    lengths = [len(epochs) for _, epochs in runs]
    if pruner == "none":
        assert lengths == [9] * 10
        return
    pruned = [int(row["trial"]) for row in rows if row["state"] == "pruned"]
    assert len(pruned) >= 3
    assert all(lengths[i] < 9 and not (tmp_path / "out" / f"trial-{i:04d}" / "result.json").exists() for i in pruned)
    assert [int(row["epochs"]) for row in rows] == lengths
    if pruner == "median":
        assert pruned == [5, 6, 7, 8, 9]  # none of the first five, nor before a third of the epochs
        assert lengths[5:] == [3] * 5


def test_the_last_epoch_prunes_nothing(tmp_path, data_dir, trained):
    count = iter(range(100))
    trained(lambda recipe, epoch: 90.0 - next(count))
    run_search(write_search(tmp_path, recipe={"epochs": 1}), data_dir, tmp_path / "out", trials=7, device="cpu")
    assert [row["state"] for row in table(tmp_path / "out")] == ["complete"] * 7


def test_only_the_best_keep_their_weights(tmp_path, data_dir, trained):
    trained()
    run_search(write_search(tmp_path), data_dir, tmp_path / "out", trials=6, device="cpu")
    best = sorted(table(tmp_path / "out"), key=lambda row: -float(row["held_out_top1"]))
    kept = {path.parent.name for path in (tmp_path / "out").glob("*/*.safetensors")}
    assert kept == {f"trial-000{row['trial']}" for row in best[:3]}
    assert kept == {path.parent.name for path in (tmp_path / "out").glob("*/last.pth.tar")}
    assert len(list((tmp_path / "out").glob("*/summary.csv"))) == 6


def test_a_trial_that_fails_says_why_and_is_made_up_for(tmp_path, data_dir, trained):
    calls = iter(range(1000))

    def score(recipe, epoch):
        if next(calls) == 4:
            raise UserError("the loss became nan at step 3 of epoch 1")
        return 50.0 + epoch

    trained(score)
    run_search(write_search(tmp_path), data_dir, tmp_path / "out", trials=3, device="cpu")
    rows = table(tmp_path / "out")
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    assert rows[1]["reason"] == "the loss became nan at step 3 of epoch 1"
    assert not list((tmp_path / "out" / "trial-0001").glob("*.pth.tar"))


def test_values_that_do_not_go_together_are_a_failed_trial(tmp_path, data_dir, trained):
    trained()
    space = {"batch_size": {"choice": [7, 8]}, "mixup": {"choice": [0.0, 0.2]}}
    run_search(write_search(tmp_path, space=space, sampler="grid"), data_dir, tmp_path / "out", trials=9, device="cpu")
    failed = [row for row in table(tmp_path / "out") if row["state"] == "fail"]
    assert [(row["batch_size"], row["mixup"]) for row in failed] == [("7", "0.2")]
    assert "batch_size must be even where mixup or cutmix is on, got 7" in failed[0]["reason"]


def test_three_failures_in_a_row_end_it_in_one_line(tmp_path, data_dir, trained, capsys):
    def score(recipe, epoch):
        raise UserError("image x.png cannot be read")

    runs = trained(score)
    out = tmp_path / "out"
    command = ["search", write_search(tmp_path), "--data-dir", data_dir, "--out", out, "--device", "cpu"]
    assert run([*map(str, command), "--trials", "9"]) == 2
    assert "seattn: 3 trials in a row failed" in capsys.readouterr().err.splitlines()[-1]
    assert len(runs) == 3
    with pytest.raises(
        UserError, match=r"3 trials in a row failed, trial 5 because image x\.png cannot be read; narrow"
    ):
        run_search(write_search(tmp_path), data_dir, out, trials=9, device="cpu")
    assert [row["state"] for row in table(out)] == ["fail"] * 6
    trained()
    run_search(write_search(tmp_path), data_dir, out, trials=2, device="cpu")
    assert [row["state"] for row in table(out)] == ["fail"] * 6 + ["complete"] * 2


def test_a_full_disk_ends_the_search_and_not_the_trial(tmp_path, data_dir, trained):
    def score(recipe, epoch):
        if epoch == 1:
            raise UserError("cannot write the checkpoint of epoch 1: No space left on device") from OSError()
        return 50.0

    trained(score)
    path, out = write_search(tmp_path), tmp_path / "out"
    with pytest.raises(UserError, match="No space left"):
        run_search(path, data_dir, out, trials=2, device="cpu")
    assert [row["state"] for row in table(out)] == ["running"]
    runs = trained()
    run_search(path, data_dir, out, trials=2, device="cpu")
    assert runs == [("trial-0000", [1, 2]), ("trial-0001", [0, 1, 2])]


def test_out_of_time_it_stops_after_an_epoch_and_goes_on_from_there(tmp_path, data_dir, trained):
    def score(recipe, epoch):
        time.sleep(0.1)
        return 50.0

    runs = trained(score)
    path, out = write_search(tmp_path, recipe={"epochs": 30}), tmp_path / "out"
    run_search(path, data_dir, out, trials=2, device="cpu", minutes=0.5 / 60)
    ((name, first),) = runs
    assert name == "trial-0000"
    assert 1 <= len(first) < 30
    trained_again = trained()
    run_search(path, data_dir, out, trials=1, device="cpu")
    assert trained_again == [("trial-0000", list(range(len(first), 30)))]


def start(path, data_dir, out, trials):
    def target():
        logging.getLogger("seattn").setLevel(logging.ERROR)
        run_search(path, data_dir, out, trials=trials, device="cpu")
        os._exit(0)  # not pytest's own end

    process = fork.Process(target=target)
    process.start()
    return process


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.is_alive(), "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_killed_trial_is_gone_on_with_once(tmp_path, data_dir, trained, sampler):
    """kill -9 in the second trial: the same values, from the epoch it had reached, and no third one for it."""

    def slow(recipe, epoch):
        time.sleep(0.05 if (tmp_path / "out" / "trial-0001").exists() else 0)
        return 50 + epoch

    trained(slow)
    space = {"lr": {"choice": [0.1, 0.2]}, "seattn.cutout": {"int": [0, 16], "step": 8}}
    path, out = write_search(tmp_path, recipe={"epochs": 20}, space=space, sampler=sampler), tmp_path / "out"
    process = start(path, data_dir, out, 3)
    wait_for((out / "trial-0001" / "last.pth.tar").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len((out / "trial-0001" / "summary.csv").read_text().splitlines()) - 1
    assert 1 <= done < 20
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{out / 'study.db'}")
    before = study.trials[1]
    assert before.state == TrialState.RUNNING
    runs = trained(lambda recipe, epoch: 50 + epoch)
    run_search(path, data_dir, out, trials=3, device="cpu")
    assert runs == [("trial-0001", list(range(done, 20))), ("trial-0002", list(range(20)))]
    assert study.trials[1].params == before.params
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert list(study.trials[1].intermediate_values) == list(range(1, 21))


def test_a_run_that_ended_before_the_study_knew_is_counted(tmp_path, data_dir, trained, monkeypatch):
    trained()
    path, out = write_search(tmp_path), tmp_path / "out"

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker.StudyDir, "end", die)
        with pytest.raises(KeyboardInterrupt):
            run_search(path, data_dir, out, trials=1, device="cpu")
    assert json.loads((out / "trial-0000" / "result.json").read_text())["n"] == 1000
    runs = trained()
    run_search(path, data_dir, out, trials=1, device="cpu")
    assert runs == []
    assert [row["state"] for row in table(out)] == ["complete"]


def test_processes_share_a_study_and_run_no_trial_twice(tmp_path, data_dir, trained):
    def score(recipe, epoch):
        time.sleep(0.05)
        return 60 + recipe.lr

    trained(score)
    path, out = write_search(tmp_path, sampler="random", pruner="none"), tmp_path / "out"
    processes = [start(path, data_dir, out, 10) for _ in range(2)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = table(out)
    assert [row["state"] for row in rows] == ["complete"] * 10
    assert len(set(values(out))) == 10
    assert all(int(row["epochs"]) == 3 for row in rows)


def test_a_trial_whose_process_dies_is_taken_up_by_the_one_that_waits(tmp_path, data_dir, trained):
    def slow(recipe, epoch):
        time.sleep(0.1)
        return 50.0

    trained(slow)
    path, out = write_search(tmp_path, recipe={"epochs": 30}), tmp_path / "out"
    first = start(path, data_dir, out, 1)
    wait_for((out / "trial-0000" / "last.pth.tar").exists, first)
    second = start(path, data_dir, out, 1)
    time.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    second.join(60)
    assert second.exitcode == 0
    assert [(row["state"], row["epochs"]) for row in table(out)] == [("complete", "30")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {**SPACE, "lr": {"float": [0.01, 0.5], "log": True}}}, "another space .lr: 0.01 to 1, log then, "),
        ({"space": {**SPACE, "drop": {"float": [0, 0.5]}}}, r"another space .drop: nothing then, 0 to 0.5 now"),
        ({"recipe": {"weight_decay": 0.1}}, "another recipe .weight_decay: 2e-05 then, 0.1 now.; undo that"),
        ({"set": {"seattn.crop_padding": 4}}, "another recipe .seattn.crop_padding: None then, 4 now"),
    ],
)
def test_a_study_of_another_search_is_refused_by_the_difference(tmp_path, data_dir, trained, changes, message):
    runs = trained()
    run_search(write_search(tmp_path), data_dir, tmp_path / "out", trials=1, device="cpu")
    with pytest.raises(UserError, match=message) as caught:
        run_search(write_search(tmp_path, **changes), data_dir, tmp_path / "out", trials=2, device="cpu")
    assert "\n" not in str(caught.value)
    assert len(runs) == 1


def test_a_study_of_other_data_is_refused(tmp_path, data_dir, trained):
    trained()
    path = write_search(tmp_path)
    run_search(path, data_dir, tmp_path / "out", trials=1, device="cpu")
    other = write_colours(tmp_path / "other", CLASSES, {"train": (2, 2, 3)})
    with pytest.raises(UserError, match=r"another data \(images: 6 to train, 0 to validate then, 7 to train"):
        run_search(path, other, tmp_path / "out", trials=1, device="cpu")


def test_the_same_search_with_another_sampler_goes_on(tmp_path, data_dir, trained):
    trained()
    path = write_search(tmp_path)
    for trials, sampler in enumerate(("random", "tpe"), 1):
        run_search(load_search(path, sampler=sampler), data_dir, tmp_path / "out", trials=trials, device="cpu")
    assert len(table(tmp_path / "out")) == 2


def test_ten_whole_trials_have_importances_and_figures(tmp_path, data_dir, trained):
    trained()
    path = write_search(tmp_path, recipe={"epochs": 1}, pruner="none")
    run_search(path, data_dir, tmp_path / "out", trials=12, device="cpu")
    names = {f"{stem}.{kind}" for stem in ("importance", "history", "slices") for kind in ("png", "svg")}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}")
    lr, cutout = plots.importances(load_search(tmp_path / "s.yaml"), study).mean(0)
    assert lr > 0.7 > 0.3 > cutout  # the score is of lr alone


def test_figures_of_what_has_no_importance_say_so(tmp_path, data_dir, trained, caplog):
    trained(lambda recipe, epoch: 50.0)
    caplog.set_level(logging.INFO, "seattn")
    path, out = write_search(tmp_path, recipe={"epochs": 1}), tmp_path / "out"
    for trials in (1, 10):
        run_search(path, data_dir, out, trials=trials, device="cpu")
    assert "no importance yet: it takes 10 whole trials, there are 1" in caplog.text
    assert "no importance: all whole trials have the same score" in caplog.text
    assert (out / "slices.png").exists()
    assert not (out / "importance.png").exists()


def test_figures_need_a_whole_trial(tmp_path, data_dir, trained, caplog):
    def score(recipe, epoch):
        raise UserError("the loss became nan")

    trained(score)
    caplog.set_level(logging.INFO, "seattn")
    with pytest.raises(UserError, match="3 trials in a row failed"):
        run_search(write_search(tmp_path), data_dir, tmp_path / "out", trials=5, device="cpu")
    assert not (tmp_path / "out" / "best.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", "0"), "trials"),
        (("--trials", "2", "--sampler", "tpee"), "sampler must be one of tpe, random, grid"),
        (("--trials", "2", "--device", "gpu"), "device 'gpu' cannot be used here"),
        (("--trials", "2", "--data-dir", "no/such"), "no data folder no/such"),
        (("--trials", "2", "--jobs", "0"), "jobs"),
        (("--trials", "2", "--timeout", "-1"), "timeout"),
        ((), "trials"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(tmp_path, data_dir, fails, arguments, message):
    out = tmp_path / "out"
    line = fails("search", write_search(tmp_path), "--data-dir", data_dir, "--out", out, *arguments)
    assert message in line
    assert not out.exists()


def test_data_of_other_classes_are_refused_before_the_first_trial(tmp_path, data_dir, fails):
    path = write_search(tmp_path, recipe={"num_classes": 4})
    line = fails("search", path, "--data-dir", data_dir, "--out", tmp_path / "out", "--trials", "2")
    assert "has 3 classes, the model 4; set num_classes: 3" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model": {"choice": ["resnet20_cifar", "resnet21_cifar"]}}, "resnet21_cifar"),
        ({"model_kwargs.rd_ratioo": {"float": [0.1, 0.5]}}, "model_kwargs .*rd_ratioo"),
    ],
)
def test_nets_that_cannot_be_built_are_found_before_the_first_trial(tmp_path, data_dir, space, message):
    with pytest.raises(UserError, match=message):
        run_search(write_search(tmp_path, space=space), data_dir, tmp_path / "out", trials=1, device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_is_refused(tmp_path, data_dir):
    out = tmp_path / "out"
    out.mkdir()
    (out / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match=r"holds no search but recipe\.yaml; give another --out"):
        run_search(write_search(tmp_path), data_dir, out, trials=1, device="cpu")
    (out / "recipe.yaml").rename(out / "study.db")
    (out / "study.db").write_text("this is no database, however long it may be " * 50)
    with pytest.raises(UserError, match=r"study\.db is no study that this Optuna can read"):
        run_search(write_search(tmp_path), data_dir, out, trials=1, device="cpu")


def test_a_folder_of_any_name(tmp_path, data_dir, trained):
    trained()
    out = tmp_path / "a {b} %20 #c ?d=1 ü"
    run_search(write_search(tmp_path), data_dir, out, trials=1, device="cpu")
    assert yaml.safe_load((out / "best.yaml").read_text())["model"] == "resnet20_cifar"
    assert (out / "study.db").stat().st_size > 0


def test_without_optuna_it_says_how_to_get_it(tmp_path, data_dir, fails, monkeypatch):
    find_spec = seattn_search.find_spec
    monkeypatch.setattr(seattn_search, "find_spec", lambda name: None if name == "optuna" else find_spec(name))
    line = fails("search", write_search(tmp_path), "--data-dir", data_dir, "--trials", "1", "--out", tmp_path / "o")
    assert line == "seattn: seattn search needs optuna; pip install 'seattn[search]'\n"
