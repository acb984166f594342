"""What a search does with its trials, whose trainings cost nothing; test_runs.py trains."""

import json
import logging
import sqlite3
from itertools import pairwise

import matplotlib as mpl
import optuna
import pytest
import yaml
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from seattn.__main__ import main
from seattn.cli import experiments as cli_experiments
from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.core.files import is_locked
from seattn.core.recipe import load_recipe
from seattn.experiments.search import driver, study, trials
from seattn.experiments.search.driver import run_search
from seattn.experiments.search.figures import _label_values
from seattn.experiments.search.space import load_search
from seattn.experiments.search.trials import Stopped
from tests.helpers.colours import write_colours
from tests.helpers.commands import interrupt, read_csv, start, wait_until
from tests.helpers.searches import SPACE, write_search
from tests.helpers.studies import CLASSES

TRIAL = "int(out.name[-4:])"  # in the fake training's expressions
# A search in a process of its own, with the fake training.
CODE = """
import json, sys
import seattn.core.child, seattn.experiments.search.study as study, seattn.experiments.search.trials as trials
seattn.core.child.COMMAND, study.HEARTBEAT, trials.POLL = json.loads(sys.argv.pop(1)), 1, 0.02
from seattn.__main__ import main
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def _quick(request, monkeypatch):
    monkeypatch.setattr(study, "HEARTBEAT", 1)
    if "figures" not in request.node.name:  # they take longer than all else here
        monkeypatch.setattr(driver, "write_figures", lambda *args: None)


def table(out):
    return read_csv(out / "trials.csv")


def values(out):
    return [(row["lr"], row["seattn.cutout"]) for row in table(out)]


def states(out):
    return [row["state"] for row in table(out)]


def epochs(trained):
    """The trial and the epochs of each training, in the order of their starts."""
    return [(int(call["arguments"][3][-4:]), call["epochs"]) for call in trained.calls()]


def command(search, data_dir, out, *more):
    return [str(part) for part in ("search", search, "--data-dir", data_dir, "--out", out, "--device", "cpu", *more)]


def start_fake(trained, *arguments):
    return start(json.dumps(trained.command), *command(*arguments), python=("-c", CODE))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_best_trial_is_a_recipe_and_a_second_call_goes_on(tmp_path, data_dir, out, trained, capsys, sampler):
    trained.score("60 + 10 * math.log10(recipe['lr']) + epoch")
    options = ["--sampler", sampler, "--pruner", "none", "--trials"]
    arguments = command(write_search(tmp_path), data_dir, out, *options)
    assert run([*arguments, "4"]) == 0
    assert run([*arguments, "4"]) == 0
    assert epochs(trained) == [(i, [0, 1, 2]) for i in range(4)]
    assert run([*arguments, "6"]) == 0
    rows = table(out)
    assert states(out) == ["complete"] * 6
    assert len({row["lr"] for row in rows}) == 6  # a call that goes on does not repeat the first one's choices
    best = max(rows, key=lambda row: float(row["held_out_top1"]))
    recipe = load_recipe(out / "best.yaml")
    assert (recipe.lr, recipe.seattn.cutout) == (float(best["lr"]), int(best["seattn.cutout"]))
    assert (recipe.epochs, recipe.seed, recipe.seattn.holdout) == (3, 42, 0.2)
    head = (out / "best.yaml").read_text()
    assert f"# Trial {best['trial']} of the search s: held-out top-1 {float(best['held_out_top1']):.2f} % (95 %" in head
    assert "The best of 6 trials, 6 of them complete, all scored on the same images:\n# optimistic" in head
    printed = capsys.readouterr()
    assert "6 trials: 6 complete" in printed.err
    assert "best of 6 on the same images: optimistic" in printed.out
    assert f"{float(best['held_out_top1']):.2f} " in printed.out


def test_a_random_search_in_parts_draws_what_it_draws_in_one(tmp_path, data_dir, trained):
    path = write_search(tmp_path, sampler="random", seed=5)
    run_search(path, data_dir, tmp_path / "whole", trials=3, device="cpu")
    for wanted in (1, 3):
        run_search(path, data_dir, tmp_path / "parts", trials=wanted, device="cpu")
    assert values(tmp_path / "whole") == values(tmp_path / "parts")
    run_search(load_search(path, seed=6), data_dir, tmp_path / "other", trials=1, device="cpu")
    assert values(tmp_path / "other") != values(tmp_path / "whole")[:1]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_grid_visits_every_point_once_and_ends_there(tmp_path, data_dir, out, trained, caplog, jobs):
    space = {"lr": {"choice": [0.1, 0.2]}, "seattn.cutout": {"int": [0, 16], "step": 8}}
    path = write_search(tmp_path, space=space, sampler="grid")
    caplog.set_level(logging.INFO, "seattn")
    run_search(path, data_dir, out, trials=4, device="cpu", jobs=jobs)
    run_search(path, data_dir, out, trials=100, device="cpu", jobs=jobs)
    assert {(lr, cutout) for lr in ("0.1", "0.2") for cutout in ("0", "16", "8")} == set(values(out))
    if jobs == 1:  # at the end of a grid two jobs may choose the same point
        assert len(trained.calls()) == 6
    assert "the grid is complete: 6 points tried" in caplog.text
    trained.forget()
    run_search(path, data_dir, out, trials=100, device="cpu")
    assert trained.calls() == []


def test_choices_of_lists_reach_the_recipe(tmp_path, data_dir, out, trained):
    space = {"scale": {"choice": [[0.35, 1.0], [0.5, 1.0]]}, "drop_path": {"choice": [None, 0.1]}}
    run_search(write_search(tmp_path, space=space, sampler="grid"), data_dir, out, trials=4, device="cpu")
    assert load_recipe(out / "best.yaml").scale in ((0.35, 1.0), (0.5, 1.0))
    tried = {(str(call["recipe"]["scale"]), call["recipe"]["drop_path"]) for call in trained.calls()}
    assert tried == {(scale, drop) for scale in ("[0.35, 1.0]", "[0.5, 1.0]") for drop in (None, 0.1)}


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_pruning_ends_a_run_early(tmp_path, data_dir, out, trained, pruner):
    """Each trial is worse than the one before: all but the first ones are below the median."""
    trained.score(f"time.sleep(0.2) or 90 - 3 * {TRIAL} + epoch")
    path = write_search(tmp_path, recipe={"epochs": 9}, sampler="random", pruner=pruner)
    run_search(path, data_dir, out, trials=6 if pruner == "none" else 8, device="cpu")
    lengths = [len(trial_epochs) for _, trial_epochs in epochs(trained)]
    if pruner == "none":
        assert lengths == [9] * 6
        return
    pruned = [i for i, state in enumerate(states(out)) if state == "pruned"]
    assert len(pruned) >= 2
    assert all(lengths[i] < 9 and not (out / f"trial-{i:04d}" / "result.json").exists() for i in pruned)
    assert not any(is_locked(folder) for folder in out.glob("trial-*"))
    if pruner == "median":
        assert pruned == [5, 6, 7]  # none of the first five, nor before a third of the epochs
        assert all(3 <= length <= 6 for length in lengths[5:])


def test_the_last_epoch_prunes_nothing(tmp_path, data_dir, out, trained):
    trained.score(f"90.0 - {TRIAL}")
    run_search(write_search(tmp_path, recipe={"epochs": 1}), data_dir, out, trials=7, device="cpu")
    assert states(out) == ["complete"] * 7


def test_only_the_best_keep_their_weights(tmp_path, data_dir, out, trained):
    trained.score("recipe['lr']")
    run_search(write_search(tmp_path, recipe={"epochs": 1}), data_dir, out, trials=6, device="cpu")
    best = sorted(table(out), key=lambda row: -float(row["held_out_top1"]))
    with_weights = {path.parent.name for path in out.glob("*/*.safetensors")}
    assert with_weights == {f"trial-000{row['trial']}" for row in best[:3]}
    assert with_weights == {path.parent.name for path in out.glob("*/last.pth.tar")}
    assert len(list(out.glob("*/summary.csv"))) == 6


def test_a_trial_that_fails_says_why_and_is_replaced(tmp_path, data_dir, out, trained):
    trained.score(f"'the loss became nan at step 3' if {TRIAL} == 1 and epoch == 1 else 50.0")
    run_search(write_search(tmp_path), data_dir, out, trials=3, device="cpu")
    assert states(out) == ["complete", "failed", "complete", "complete"]
    assert table(out)[1]["reason"] == "the loss became nan at step 3"
    assert not list((out / "trial-0001").glob("*.pth.tar"))


def test_values_that_exclude_each_other_are_a_failed_trial(tmp_path, data_dir, out, trained):
    space = {"batch_size": {"choice": [7, 8]}, "mixup": {"choice": [0.0, 0.2]}}
    run_search(write_search(tmp_path, space=space, sampler="grid"), data_dir, out, trials=9, device="cpu")
    failed = [row for row in table(out) if row["state"] == "failed"]
    assert [(row["batch_size"], row["mixup"]) for row in failed] == [("7", "0.2")]
    assert "batch_size must be even where mixup or cutmix is on, got 7" in failed[0]["reason"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_three_failures_in_a_row_end_it_in_one_line(tmp_path, data_dir, out, trained, capsys, jobs):
    trained.score("'image x.png cannot be read'")
    arguments = command(write_search(tmp_path), data_dir, out, "--trials", "9", "--jobs", jobs)
    assert run(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("seattn: 3 trials in a row failed, trial ")
    assert "because image x.png cannot be read; narrow the space" in line
    assert states(out).count("failed") >= 3
    if jobs == "1":
        assert states(out) == ["failed"] * 3
        trained.score("50.0")
        run_search(write_search(tmp_path), data_dir, out, trials=2, device="cpu")
        assert states(out) == ["failed"] * 3 + ["complete"] * 2
        assert not (out / "trial-0000" / "result.json").exists()


def test_a_full_disk_ends_the_search_and_not_the_trial(tmp_path, data_dir, out, trained):
    trained.score("'cannot write the checkpoint of epoch 1: No space left on device' if epoch == 1 else 50.0")
    path = write_search(tmp_path)
    with pytest.raises(UserError, match="No space left"):
        run_search(path, data_dir, out, trials=2, device="cpu")
    assert states(out) == ["paused"]
    trained.forget()
    trained.score("50.0")
    run_search(path, data_dir, out, trials=2, device="cpu")
    assert [trial_epochs for _, trial_epochs in epochs(trained)] == [[1, 2], [0, 1, 2]]
    assert states(out) == ["complete"] * 2


@pytest.mark.parametrize("write", ["set_trial_intermediate_value", "set_trial_state_values"])
def test_a_database_that_cannot_be_written_is_one_line(tmp_path, data_dir, out, trained, capsys, monkeypatch, write):
    def full(*args, **kwargs):
        raise optuna.exceptions.StorageInternalError from sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(optuna.storages.RDBStorage, write, full)
    assert main(command(write_search(tmp_path), data_dir, out, "--trials", "2")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"seattn: cannot write {out / 'study.db'}: database or disk is full; ")


def test_a_database_that_is_a_device_is_refused(tmp_path, data_dir, out, fails):
    out.mkdir()
    (out / "study.db").symlink_to("/dev/full")
    line = fails(*command(write_search(tmp_path), data_dir, out, "--trials", "2"))
    assert f"cannot write {out / 'study.db'}: " in line


def test_out_of_time_it_stops_and_goes_on_from_there(tmp_path, data_dir, out, trained):
    trained.score("time.sleep(0.2) or 50.0")
    path = write_search(tmp_path, recipe={"epochs": 200})
    run_search(path, data_dir, out, trials=2, device="cpu", minutes=4 / 60)
    ((trial, first),) = epochs(trained)
    assert (trial, states(out)) == (0, ["paused"])
    assert 1 <= len(first) < 200
    trained.forget()
    trained.score("50.0")
    run_search(path, data_dir, out, trials=1, device="cpu")
    ((trial, second),) = epochs(trained)
    assert (trial, second[-1], states(out)) == (0, 199, ["complete"])
    assert second[0] in (len(first), len(first) + 1)  # the last epoch may not have been counted


def test_ctrl_c_pauses_the_trials(tmp_path, data_dir, out, trained):
    trained.score("time.sleep(0.1) or 50.0")
    path = write_search(tmp_path, recipe={"epochs": 500})
    process = start_fake(trained, path, data_dir, out, "--trials", 4, "--jobs", 2)
    wait_until((out / "trial-0001" / "last.pth.tar").exists, process)
    log = interrupt(process)
    assert process.returncode == 130, log
    assert "trial 0 is paused; run the same command to resume it" in log
    assert states(out) == ["paused"] * 2
    assert not any(is_locked(folder) for folder in out.glob("trial-*"))


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("grid", marks=pytest.mark.slow)])
def test_a_killed_trial_is_resumed_once(tmp_path, data_dir, out, trained, sampler):
    """kill -9 in the second trial: the same values, from the epoch it had reached, and no third one in its place."""
    trained.score(f"time.sleep(0.05 if {TRIAL} == 1 else 0) or 50 + epoch")
    space = {"lr": {"choice": [0.1, 0.2]}, "seattn.cutout": {"int": [0, 16], "step": 8}}
    path = write_search(tmp_path, recipe={"epochs": 20}, space=space, sampler=sampler)
    process = start_fake(trained, path, data_dir, out, "--trials", 3)
    wait_until((out / "trial-0001" / "last.pth.tar").exists, process)
    process.kill()
    process.wait()
    wait_until(lambda: not is_locked(out / "trial-0001"))  # a training ends with the command that started it
    done = len((out / "trial-0001" / "summary.csv").read_text().splitlines()) - 1
    assert 1 <= done < 20
    database = optuna.load_study(study_name="search", storage=f"sqlite:///{out / 'study.db'}")
    before = database.trials[1]
    assert before.state == TrialState.RUNNING
    trained.forget()
    run_search(path, data_dir, out, trials=3, device="cpu")
    assert sorted(trial_epochs for _, trial_epochs in epochs(trained)) == [list(range(20)), list(range(done, 20))]
    assert states(out) == ["complete"] * 3
    (after,) = [trial for trial in study.all_trials(database) if study.number_of(trial) == 1]
    assert after.params == before.params
    assert list(after.intermediate_values) == list(range(1, 21))


def test_a_run_that_ended_before_the_study_knew_is_counted(tmp_path, data_dir, out, trained, monkeypatch):
    path = write_search(tmp_path)

    def stop(*args):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(trials, "read_result", stop)
        run_search(path, data_dir, out, trials=1, device="cpu")
    assert states(out) == ["paused"]
    assert json.loads((out / "trial-0000" / "result.json").read_text())["n"] == 1000
    run_search(path, data_dir, out, trials=1, device="cpu")
    assert states(out) == ["complete"]
    assert len(trained.calls()) == 1


@pytest.mark.slow
def test_two_commands_share_a_study_and_train_no_trial_twice(tmp_path, data_dir, out, trained):
    trained.score("time.sleep(0.05) or 60 + recipe['lr']")
    path = write_search(tmp_path, sampler="random", pruner="none")
    processes = [start_fake(trained, path, data_dir, out, "--trials", 8, "--jobs", jobs) for jobs in (1, 2)]
    logs = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert 8 <= len(table(out)) <= 10  # each command may end while the other one trains
    assert set(states(out)) == {"complete"}
    assert len(set(values(out))) == len(table(out)) == len(trained.calls())
    assert all(int(row["epochs"]) == 3 for row in table(out))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {**SPACE, "lr": {"float": [0.01, 0.5], "log": True}}}, "another space .lr: 0.01 to 1, log then, "),
        ({"space": {**SPACE, "drop": {"float": [0, 0.5]}}}, r"another space .drop: nothing then, 0 to 0.5 now"),
        ({"recipe": {"weight_decay": 0.1}}, "another recipe .weight_decay: 2e-05 then, 0.1 now.; undo the change"),
        ({"set": {"seattn.crop_padding": 4}}, "another recipe .seattn.crop_padding: None then, 4 now"),
    ],
)
def test_a_study_of_another_search_is_refused_by_the_difference(tmp_path, data_dir, trained, changes, message):
    run_search(write_search(tmp_path), data_dir, tmp_path / "out", trials=1, device="cpu")
    with pytest.raises(UserError, match=message) as caught:
        run_search(write_search(tmp_path, **changes), data_dir, tmp_path / "out", trials=2, device="cpu")
    assert "\n" not in str(caught.value)
    assert len(trained.calls()) == 1


def test_a_study_of_other_data_is_refused(tmp_path, data_dir, trained):
    path = write_search(tmp_path)
    run_search(path, data_dir, tmp_path / "out", trials=1, device="cpu")
    other = write_colours(tmp_path / "other", CLASSES, {"train": (2, 2, 3)})
    with pytest.raises(UserError, match=r"another data \(images: 24 to train, 0 to validate then, 7 to train"):
        run_search(path, other, tmp_path / "out", trials=1, device="cpu")


def test_the_same_search_with_another_sampler_goes_on(tmp_path, data_dir, trained):
    path = write_search(tmp_path)
    for wanted, sampler in enumerate(("random", "tpe"), 1):
        run_search(load_search(path, sampler=sampler), data_dir, tmp_path / "out", trials=wanted, device="cpu")
    assert len(table(tmp_path / "out")) == 2


def test_ten_complete_trials_have_three_figures(tmp_path, data_dir, out, trained):
    trained.score("60 + recipe['lr']")
    path = write_search(tmp_path, recipe={"epochs": 1}, pruner="none")
    style = {key: value for key, value in mpl.rcParams.items() if key != "backend"}
    run_search(path, data_dir, out, trials=12, device="cpu")
    names = {f"{stem}.{kind}" for stem in ("importance", "history", "slices") for kind in ("png", "svg")}
    assert names <= {path.name for path in out.iterdir()}
    assert all(key in (out / "slices.svg").read_text() for key in SPACE)
    assert {key: value for key, value in mpl.rcParams.items() if key != "backend"} == style
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("low", "high", "labels"), [(30, 500, [50, 100, 200, 500]), (1e-5, 5e-3, [1e-5, 1e-4, 1e-3]), (0.01, 0.1, None)]
)
def test_logarithmic_axes_of_figures_have_few_labels_that_do_not_overlap(low, high, labels):
    figure = Figure(figsize=(3, 3))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _label_values(axes, FloatDistribution(low, high, log=True))
    figure.draw_without_rendering()
    ticks = axes.xaxis.get_major_ticks() + axes.xaxis.get_minor_ticks()
    shown = [tick.label1 for tick in ticks if 0.99 * low <= tick.get_loc() <= 1.01 * high and tick.label1.get_text()]
    boxes = sorted((label.get_window_extent().extents for label in shown), key=lambda extents: extents[0])
    assert all(left[2] < right[0] for left, right in pairwise(boxes))
    assert len(shown) >= 2
    assert labels is None or [float(label.get_text().replace("−", "-")) for label in shown] == pytest.approx(labels)


def test_figures_of_what_has_no_importance_say_so(tmp_path, data_dir, out, trained, caplog):
    trained.score("50.0")
    caplog.set_level(logging.INFO, "seattn")
    path = write_search(tmp_path, recipe={"epochs": 1})
    for wanted in (1, 10):
        run_search(path, data_dir, out, trials=wanted, device="cpu")
    assert "no importance yet: this takes 10 complete trials, there are 1" in caplog.text
    assert "no importance: all complete trials have the same score" in caplog.text
    assert (out / "slices.png").exists()
    assert not (out / "importance.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", "0"), "trials"),
        (
            ("--trials", "2", "--sampler", "tpee"),
            "'tpee' is not one of 'tpe', 'random', 'grid'",
        ),
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
    with pytest.raises(UserError, match=r"is not the folder of a search: it holds recipe\.yaml; give another --out"):
        run_search(write_search(tmp_path), data_dir, out, trials=1, device="cpu")
    (out / "recipe.yaml").rename(out / "study.db")
    (out / "study.db").write_text("this is no database, however long it may be " * 50)
    with pytest.raises(UserError, match=r"study\.db is not a study that this Optuna can read"):
        run_search(write_search(tmp_path), data_dir, out, trials=1, device="cpu")


def test_a_folder_of_any_name(tmp_path, data_dir, trained):
    out = tmp_path / "a {b} %20 #c ?d=1 ü"
    run_search(write_search(tmp_path), data_dir, out, trials=1, device="cpu")
    assert yaml.safe_load((out / "best.yaml").read_text())["model"] == "resnet20_cifar"
    assert (out / "study.db").stat().st_size > 0


def test_without_optuna_it_says_how_to_get_it(tmp_path, data_dir, fails, monkeypatch):
    monkeypatch.setattr(cli_experiments, "find_spec", lambda name: None)
    line = fails("search", write_search(tmp_path), "--data-dir", data_dir, "--trials", "1", "--out", tmp_path / "o")
    assert line == "seattn: seattn search needs optuna; pip install 'seattn[search]'\n"
