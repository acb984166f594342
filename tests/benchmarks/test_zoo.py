"""The queue of trainings: a bad entry is one line; killed runs end with the weights of a run that was not killed."""

import hashlib
import io
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import yaml
from PIL import Image
from rich.console import Console

from benchmarks.evidence.rows import read_rows, read_run
from benchmarks.zoo import __main__ as zoo
from benchmarks.zoo import entries as zoo_entries
from benchmarks.zoo import training as zoo_training
from benchmarks.zoo.entries import QUEUE, Entry, check_data, read_queue
from benchmarks.zoo.states import look, seconds_left, status
from benchmarks.zoo.training import code_for
from seattn.core.errors import UserError
from seattn.core.recipe import load_recipe
from seattn.data.samples import load_sample
from tests.helpers.locks import hold

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {"recipe": "resnet20_cifar.cifar10.cpu", "seed": 0, "data": "images", "holdout": 0.1, "floor": 50}
NAME = "resnet20_cifar.cifar10.cpu-s0-h0.1"


def recorded():
    """A row of accuracy.csv whose run held out no image."""
    return next(row for row in read_rows() if row.recipe == "se_resnet20_cifar.cifar10.zoo")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder that holds images/{train,test}/<class>/<name>: 16 and 2 images of each class of the packaged sample."""
    root = tmp_path_factory.mktemp("data")
    sample = load_sample("cifar10")
    for label, name in enumerate(sample.class_names):
        members = (sample.labels == label).nonzero()[0]
        for split, chosen in {"train": members[:16], "test": members[16:18]}.items():
            folder = root / "images" / split / name
            folder.mkdir(parents=True)
            for i in chosen:
                Image.fromarray(sample.images[i]).save(folder / f"{i}.png")
    return root


@pytest.fixture
def queue(tmp_path):
    def write(*entries):
        path = tmp_path / "queue.yaml"
        path.write_text(yaml.safe_dump({"entries": list(entries)}))
        return path

    return write


@pytest.fixture
def fails(command_fails, queue, data, tmp_path):
    def call(*entries):
        line = command_fails(zoo, "--queue", queue(*entries), "--data", data, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return line

    return call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "resnet20_cifar.cifar10.zo"}, "10.zo.yaml; did you mean 'resnet20_cifar.cifar10.zoo'?"),
        ({"recipe": "resnet20_cifar.cifar10.cpu.yaml"}, "recipe must be the name of a file of zoo_configs, without"),
        ({"recipe": "../zoo_configs/resnet20_cifar.cifar10.cpu"}, "recipe must be the name of a file of zoo_configs"),
        ({"recipe": "a\nb"}, r"without folder and suffix, got 'a\nb'"),
        ({"recipe": "a\0b"}, r"without folder and suffix, got 'a\x00b'"),
        ({"recipe": date(2026, 11, 30)}, "there is no recipe"),
        ({"recipe": "resnet20_cifar.cifar100"}, "images has 10 classes, the recipe has num_classes 100"),
        ({"data": "nowhere", "seed": 1}, "queue entry resnet20_cifar.cifar10.cpu-s1-h0.1: no data folder"),
        ({"seed": -1}, "entry 2 is not a valid Entry: seed must be at least 0, got -1"),
        ({"seed": "one"}, "entry 2 is not a valid Entry: seed must be a whole number, got 'one'"),
        ({"holdout": 1.5}, "entry 2 is not a valid Entry: holdout must be less than 1, got 1.5"),
        ({"holdout": float("nan")}, "entry 2 is not a valid Entry: holdout must be less than 1, got nan"),
        ({"floor": 0.95}, "floor must be in per cent, above 1 and at most 100, got 0.95"),
        ({"floor": float("nan")}, "floor must be in per cent, above 1 and at most 100, got nan"),
        ({"floor": 200}, "floor must be in per cent, above 1 and at most 100, got 200"),
        ({"floor": date(2026, 11, 30)}, "entry 2 is not a valid Entry: floor must be a number, got '2026-11-30'"),
        ({"flor": 3}, "unknown key 'flor'; did you mean 'floor'?"),
        ({"cores": 0}, "entry 2 is not a valid Entry: cores must be at least 1, got 0"),
        ({}, "the entry resnet20_cifar.cifar10.cpu-s0-h0.1 occurs more than once"),
    ],
    ids=lambda value: "-".join(value) or "twice" if isinstance(value, dict) else "",
)
def test_a_bad_entry_is_one_line_before_anything_trains(fails, change, message):
    assert message in fails(ENTRY, {**ENTRY, **change})


def test_a_missing_key_and_an_empty_queue_are_named(fails):
    assert "the key 'floor' is missing" in fails({key: value for key, value in ENTRY.items() if key != "floor"})
    assert "must have a list of entries" in fails()


def test_a_key_beside_the_entries_is_refused(tmp_path):
    (tmp_path / "queue.yaml").write_text(yaml.safe_dump({"entries": [ENTRY], "floor": 3}))
    with pytest.raises(UserError, match="unknown key 'floor'; its only key is 'entries'"):
        read_queue(tmp_path / "queue.yaml")


def test_images_of_other_classes_are_refused_also_where_their_number_is_right(tmp_path):
    for name in [*load_sample("cifar10").class_names[1:], "tiger"]:
        for split in ("train", "test"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"queue entry .* classes that resnet20_cifar.cifar10 does not know: tiger; it k"
    ):
        check_data(Entry(**ENTRY), tmp_path)
    own = Entry(**ENTRY)
    own.__dict__["resolved"] = replace(own.resolved, model="resnet20_cifar")  # without a tag, for any ten classes
    check_data(own, tmp_path)
    (tmp_path / "images" / "cifar-100-python").mkdir()
    other = Entry(**ENTRY)
    other.__dict__["resolved"] = replace(other.resolved, model="se_resnet18.butterfly100", num_classes=None)
    with pytest.raises(UserError, match=r"that se_resnet18.butterfly100 does not know: apple, .*; it knows ADONIS"):
        check_data(other, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "{run}/summary.csv",
            b"epoch\n0\n",
            "summary.csv is damaged: images_per_second of its last line should be above 0",
        ),
        ("{run}/summary.csv", b"images_per_second,train_seconds\n3,inf\n", "train_seconds of its last line should be"),
        ("{run}/result.json", b"{}", "is not a valid AccuracyRow"),
        ("{run}.failed", b"\xff", "is not text in UTF-8"),
    ],
)
def test_a_damaged_run_is_one_line_of_the_table(tmp_path, name, content, message):
    (tmp_path / NAME).mkdir()
    (tmp_path / name.format(run=NAME)).write_bytes(content)
    state = look(Entry(**ENTRY), tmp_path)
    assert state.word == "damaged"
    assert message in state.reason
    assert zoo.run_queue([Entry(**ENTRY)], tmp_path, tmp_path, 1) == [NAME]  # it fails with this reason
    assert message in (tmp_path / f"{NAME}.failed").read_text()


def test_the_queue_that_ships_names_recipes_that_exist():
    entries = read_queue(QUEUE)
    for entry in entries:
        assert replace(load_recipe(entry.path), seed=entry.seed) == entry.resolved, "its row could not name its recipe"


def test_a_run_that_another_process_trains_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_PATIENCE", 0.0)
    folder = tmp_path / NAME
    folder.mkdir()
    holder = hold(folder / ".lock")
    try:
        assert look(Entry(**ENTRY), tmp_path).word == "running"
        assert zoo.run_queue([Entry(**ENTRY)], tmp_path, tmp_path, 1) == []
        assert [path.name for path in folder.iterdir()] == [".lock"]
    finally:
        holder.kill()
        holder.wait()
    assert look(Entry(**ENTRY), tmp_path).word == "waiting"


def test_the_classes_of_every_form_of_a_data_folder_are_compared(tmp_path):
    for name in ("train_set/a", "train_set/b", "test_set/a", "test_set/b"):
        (tmp_path / "named" / name).mkdir(parents=True)
    with pytest.raises(UserError, match="named has 2 classes, the recipe has num_classes 10"):
        check_data(Entry(**ENTRY | {"data": "named"}), tmp_path)
    (tmp_path / "own" / "cifar-100-python").mkdir(parents=True)
    with pytest.raises(UserError, match="own has 100 classes, the recipe has num_classes 10"):
        check_data(Entry(**ENTRY | {"data": "own"}), tmp_path)
    check_data(Entry(**ENTRY | {"data": "own", "recipe": "resnet20_cifar.cifar100"}), tmp_path)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "cifar-10-batches-py").symlink_to(tmp_path / "own")
    check_data(Entry(**ENTRY | {"data": "linked"}), tmp_path)


def test_entries_that_are_finished_need_no_images(queue, tmp_path, capsys):
    row = recorded()
    entry = {"recipe": row.recipe, "seed": row.seed, "data": "nowhere", "holdout": 0, "floor": None}
    out = tmp_path / "out"
    assert zoo.main(["--queue", str(queue(entry)), "--data", str(tmp_path), "--out", str(out)]) == 0
    assert not (out / "code").exists()


def test_a_recipe_that_is_not_committed_is_refused_before_the_run_begins(fails, monkeypatch, tmp_path):
    monkeypatch.setattr(zoo_training, "_git", lambda *arguments: f"?? {arguments[-1]}")
    message = f"queue entry {NAME}: {zoo_entries.CONFIGS / ENTRY['recipe']}.yaml has changes that are not committed"
    assert message in fails(ENTRY)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "last.pth.tar").write_bytes(b"")
    zoo_training.check_committed(Entry(**ENTRY), tmp_path)  # goes on with the recipe of its first commit


def test_a_recipe_that_is_edited_meanwhile_stops_nothing(tmp_path, monkeypatch):
    entry = Entry(**ENTRY)
    assert look(entry, tmp_path).planned == 10
    monkeypatch.setattr(zoo_entries, "CONFIGS", tmp_path)
    assert look(entry, tmp_path).planned == 10


def test_a_run_follows_its_own_recipe_when_the_entry_has_a_shorter_one_now(tmp_path):
    entry = Entry(**ENTRY)
    folder = tmp_path / NAME
    folder.mkdir()
    columns = "epoch,train_loss,eval_loss,eval_top1,lr,images_per_second,data_images_per_second,train_seconds"
    (folder / "summary.csv").write_text("\n".join([columns, *(f"{i},2,1.5,40,0.1,500,9000,90" for i in range(12))]))
    replace(entry.resolved, epochs=entry.resolved.epochs + 5).write(folder / "recipe.yaml")
    state = look(entry, tmp_path)
    assert (state.word, state.epochs, state.planned, state.seconds_left) == ("stopped", 12, 15, 270)
    (folder / "recipe.yaml").write_text("a_key_of_another_version: 1")
    state = look(entry, tmp_path)
    assert (state.epochs, state.planned, state.seconds_left) == (12, 10, 0)


def test_a_run_that_cannot_begin_is_shown_and_the_others_are_trained(tmp_path, monkeypatch):
    def training(entry, *_):
        if entry.seed == 0:
            raise UserError("git worktree failed: [/no] room")
        (tmp_path / "trained").touch()
        raise UserError("done")

    monkeypatch.setattr(zoo, "Training", training)
    entries = [Entry(**ENTRY | {"seed": seed}) for seed in (0, 1)]
    assert zoo.run_queue(entries, tmp_path, tmp_path, 1) == [entry.name for entry in entries]
    assert (tmp_path / "trained").exists()
    text = io.StringIO()
    Console(file=text, width=160).print(status(entries, tmp_path))
    assert "failed: git worktree failed: [/no] room" in text.getvalue()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository in the place of this project's; called, it commits a new version and returns its name."""
    root = tmp_path / "checkout"
    (root / "seattn").mkdir(parents=True)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    monkeypatch.setattr(zoo_training, "ROOT", root)

    def commit(version):
        (root / "seattn" / "version").write_text(version)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", version], check=True)

    return commit


def test_a_run_keeps_the_commit_of_its_start_and_a_new_one_takes_the_newest(checkout, tmp_path):
    checkout("1")
    begun, new = tmp_path / "begun", tmp_path / "new"
    begun.mkdir()
    first = code_for(begun, tmp_path)
    (begun / "last.pth.tar").touch()
    checkout("2")
    assert code_for(begun, tmp_path) == first
    assert (first / "seattn" / "version").read_text() == "1"
    assert (code_for(new, tmp_path) / "seattn" / "version").read_text() == "2"


def test_a_worktree_that_a_killed_command_left_unfinished_is_made_again(checkout, tmp_path):
    checkout("1")
    worktree = code_for(tmp_path / "run", tmp_path)
    (worktree / "seattn" / "version").unlink()
    assert code_for(tmp_path / "run", tmp_path) == worktree
    assert (worktree / "seattn" / "version").read_text() == "1"
    for file in worktree.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert (code_for(tmp_path / "run", tmp_path) / "seattn" / "version").read_text() == "1"
    inside = tmp_path / "checkout" / "runs"
    inside.mkdir()
    (inside / "code" / worktree.name).mkdir(parents=True)  # git would say that nothing differs: it asks the checkout
    assert (code_for(inside / "run", inside) / "seattn" / "version").read_text() == "1"


def test_where_the_code_does_not_fit_the_first_error_of_git_and_the_free_room_are_named(
    checkout, tmp_path, monkeypatch
):
    """git prints a line for each file that it cannot write: hundreds, on a full disk."""
    checkout("1")
    run = subprocess.run

    def full(command, **options):
        if "add" not in command:
            return run(command, **options)
        errors = "".join(f"error: unable to write file {i}\n" for i in range(500))
        return subprocess.CompletedProcess(command, 128, "", f"Preparing worktree\n{errors}fatal: Could not reset")

    monkeypatch.setattr(subprocess, "run", full)
    with pytest.raises(UserError, match=r"^git worktree failed: error: unable to write file 0; \S+ is for the code, "):
        code_for(tmp_path / "run", tmp_path)


def test_the_time_left_counts_the_pixels_of_the_epochs_to_come():
    recipe = Entry("resnet20_cifar.cifar10.zoo", 0, "cifar10", 0, 92.0).resolved  # 45 epochs at 24 pixels, 45 at 32
    epoch = {"train_seconds": 90.0}
    assert seconds_left(recipe, [epoch] * 44) == pytest.approx(90 + 45 * 160)
    assert seconds_left(recipe, [epoch] * 46) == 44 * 90
    assert seconds_left(recipe, [epoch] * 90) == 0


def test_a_row_below_its_floor_is_marked(tmp_path):
    row = recorded()
    entries = [Entry(row.recipe, row.seed, "data", 0, floor) for floor in (100 * row.top1, 100 * row.top1 + 0.1)]
    lines = []
    for entry in entries:
        text = io.StringIO()
        Console(file=text, width=160).print(status([entry], tmp_path))
        lines.append("missed" in text.getvalue())
    assert lines == [False, True]


def test_a_run_with_a_row_on_record_is_not_trained_again(tmp_path, monkeypatch):
    row = recorded()
    entry = Entry(recipe=row.recipe, seed=row.seed, data="cifar10", holdout=0, floor=92.6)
    state = look(entry, tmp_path)
    assert (state.word, state.test, state.epochs) == ("finished", 100 * row.top1, 90)
    monkeypatch.setattr(zoo, "Training", None)  # a training would fail
    assert zoo.run_queue([entry], tmp_path, tmp_path, 1) == []
    assert look(replace(entry, seed=row.seed + 1), tmp_path).word == "waiting"
    assert look(replace(entry, holdout=0.1), tmp_path).word == "waiting"


def test_a_run_gets_the_cores_that_are_free_up_to_its_own_number(tmp_path, monkeypatch):
    started, ended = [], []

    class Training:
        """Ends at the second look after it was started."""

        def __init__(self, entry, data, out, nice, threads):
            self.entry, self.threads, self.looks = entry, threads, 0
            started.append((entry.seed, threads, len(started) - len(ended)))

        def is_running(self):
            self.looks += 1
            if self.looks == 2 + self.entry.seed:
                ended.append(self.entry.seed)
            return self.looks < 2 + self.entry.seed

        def note_failure(self):
            return False

    monkeypatch.setattr(zoo, "Training", Training)
    monkeypatch.setattr(zoo, "_POLL", 0.0)
    cores = [1, 2, 3, 8]  # on three cores: 1 and 2 start together, then 3 with the core that the first leaves
    entries = [Entry(**ENTRY | {"seed": seed, "cores": count}) for seed, count in enumerate(cores)]
    assert zoo.run_queue(entries, tmp_path, tmp_path, 3) == []
    assert started == [(0, 1, 0), (1, 2, 1), (2, 1, 1), (3, 2, 1)]


def test_the_table_shows_what_runs_have_reached(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    columns = "epoch,train_loss,eval_loss,eval_top1,lr,images_per_second,data_images_per_second,train_seconds"
    (folder / "summary.csv").write_text(f"{columns}\n0,2,1.5,40.25,0.1,500,9000,90\n1,1,1.2,51.5,0.1,480,9000,95\n")
    (tmp_path / "resnet20_cifar.cifar10.cpu-s1-h0.1.failed").write_text("seattn: no space left\n")
    text = io.StringIO()
    entries = [Entry(**{**ENTRY, "seed": seed}) for seed in (0, 1, 2)]
    Console(file=text, width=160).print(status(entries, tmp_path))
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines() if NAME[:-7] in line
    ]
    assert rows[0] == [NAME, "stopped", "2/10", "480", "51.50", "0:12:40", "", "50.0"]
    assert rows[1][1:3] == ["failed: seattn: no space left", "0/10"]
    assert rows[2][1:3] == ["waiting", "0/10"]
    narrow = io.StringIO()
    Console(file=narrow, width=80).print(status(entries, tmp_path))
    assert all(entry.name in narrow.getvalue() for entry in entries)  # names differ in their ends


def start(queue, data, out):
    command = [sys.executable, "-m", "benchmarks.zoo", "--queue", str(queue), "--data", str(data), "--out", str(out)]
    return subprocess.Popen([*command, "--jobs", "1"], cwd=ROOT, stdout=subprocess.PIPE)


def digest(out):
    return hashlib.sha256((out / NAME / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_kills_at_random_moments_give_the_weights_of_an_unkilled_run(queue, data, tmp_path):
    path = queue(ENTRY)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(path, data, whole).wait() == 0
    seconds = read_run(whole / NAME).train_seconds
    moments = random.Random()
    for _ in range(3):
        process = start(path, data, killed)
        while not (killed / NAME / "recipe.yaml").exists() and process.poll() is None:
            time.sleep(0.1)
        time.sleep(moments.uniform(0, seconds / 2))
        process.kill()
        process.wait()
    assert start(path, data, killed).wait() == 0
    assert digest(killed) == digest(whole)
    assert look(Entry(**ENTRY), killed).word == "finished"
    assert start(path, data, killed).wait() == 0  # nothing is left to do


@pytest.mark.slow
def test_a_run_that_fails_is_shown_and_the_others_go_on(queue, data, tmp_path, capsys):
    """The folder of the first run holds a checkpoint without its recipe."""
    other = {**ENTRY, "seed": 1}
    out = tmp_path / "out"
    (out / NAME).mkdir(parents=True)
    (out / NAME / "last.pth.tar").write_bytes(b"no checkpoint")
    assert zoo.main(["--queue", str(queue(ENTRY, other)), "--data", str(data), "--out", str(out), "--jobs", "1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"zoo: {NAME} failed: ")
    assert look(Entry(**other), out).word == "finished"
