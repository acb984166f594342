import contextlib
import csv
import json
import logging
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

import seattn.data.images
import seattn.data.open
from seattn.__main__ import main
from seattn.core import device
from seattn.core.errors import UserError
from seattn.core.files import is_locked
from seattn.core.recipe import load_recipe
from seattn.evaluation.scoring import evaluate
from seattn.training.driver import train
from seattn.training.loop import TrainingRun
from seattn.training.run_dir import RunDir
from seattn.training.update import Updater
from tests.helpers.colours import RECIPE, write_colours
from tests.helpers.locks import hold

CLASSES = {"blue": 2, "green": 1, "red": 0}
BASE = {**RECIPE, "seed": 3, "seattn": {"dataset": "colours", "holdout": 0.2}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"), CLASSES, {"train": (20, 20, 20), "test": (10, 10, 10)})


@pytest.fixture
def recipe(tmp_path):
    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**BASE, **changes}))
        return path

    return write


def summary(run):
    with (run / "summary.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("dataset", "named"), [("CIFAR-10", ""), ("colours", "colours")])
def test_a_row_names_a_known_data_set_only_if_the_classes_are_its(tmp_path, data_dir, recipe, caplog, dataset, named):
    path = recipe(epochs=1, seattn={**BASE["seattn"], "dataset": dataset})
    assert train(path, data_dir, tmp_path / "run", device="cpu").dataset == named
    assert ("has other classes than CIFAR-10 (seattn.dataset): the run's row names" in caplog.text) == (not named)


def test_learns_and_leaves_a_run_that_timm_loads(tmp_path, data_dir, recipe, caplog):
    caplog.set_level(logging.INFO, "seattn")
    run = tmp_path / "run"
    path = recipe(epochs=5, model_ema=True, model_ema_decay=0.9, model_ema_warmup=True)
    row = train(path, data_dir, run, device="cpu")
    assert row.top1 > 0.8
    assert f"test top-1 {100 * row.top1:.2f} % (95 % interval" in caplog.text
    assert str(run) in caplog.text.splitlines()[-1]
    assert (row.n, row.split, row.seed, row.epochs) == (30, "test", 3, 5)
    assert (row.train_images, row.held_out_images) == (48, 12)
    assert row.top1_low < row.top1 <= row.top1_high
    assert json.loads((run / "result.json").read_text())["top1"] == row.top1
    assert not [path for path in run.iterdir() if path.name.endswith(".part") or path.name.startswith("tmp")]

    model = timm.create_model(f"local-dir:{run}", pretrained=True)
    assert model.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    again = evaluate(model, data_dir / "test", workers=0, batch_size=8)
    assert again.top1 == pytest.approx(row.top1)
    assert again.loss == pytest.approx(row.loss, rel=1e-3)

    averaged = torch.load(run / "last.pth.tar", weights_only=True)["state_dict_ema"]
    for key, value in load_file(run / "model.safetensors").items():
        assert torch.equal(value, averaged[key]), key


def test_written_recipe_repeats_the_run_bit_for_bit(tmp_path, data_dir, recipe):
    train(recipe(), data_dir, tmp_path / "a", device="cpu")
    train(tmp_path / "a" / "recipe.yaml", data_dir, tmp_path / "b", device="cpu")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert summary(tmp_path / "a") == summary(tmp_path / "b")


def process_state():
    """What a library must leave to its caller's process: generators, threads, handlers, the environment."""
    numpy = np.random.get_state()
    return [
        [random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()],
        [torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()],
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        dict(os.environ),
    ]


@pytest.mark.parametrize("ends", ["well", "by an error"])
def test_the_callers_process_is_left_as_it_was(tmp_path, data_dir, recipe, monkeypatch, ends):
    monkeypatch.setattr(device, "keep_freed_memory", lambda: pytest.fail("the allocator is the caller's"))

    def stop(row):
        raise KeyError

    before = process_state()
    path = recipe(epochs=1, mixup=0.2, workers=0, seattn={**BASE["seattn"], "data": "folder"})
    with pytest.raises(KeyError) if ends == "by an error" else contextlib.nullcontext():
        train(path, data_dir, tmp_path / "run", device="cpu", on_epoch=stop if ends == "by an error" else None)
    assert process_state() == before


def test_another_seed_is_another_run_on_the_same_hold_out(tmp_path, data_dir, recipe, monkeypatch):
    held = []
    hold_out = seattn.data.open.hold_out
    monkeypatch.setattr(seattn.data.open, "hold_out", lambda *args: held.append(hold_out(*args)) or held[-1])
    rows = [
        train(recipe(epochs=1), data_dir, tmp_path / str(seed), device="cpu", overrides={"seed": seed})
        for seed in (0, 1)
    ]
    assert rows[0].loss != rows[1].loss
    assert held[0][1].paths == held[1][1].paths


def test_killed_run_resumes_to_the_same_weights(tmp_path, data_dir, recipe, one_thread, capsys):
    """kill -9 in the middle, then --resume in another process: same schedule, same batches, same bits."""
    path = recipe(epochs=3, model="se_resnet20_cifar", model_ema=True, model_ema_decay=0.9, drop=0.2, warmup_epochs=2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["train", str(path), "--data-dir", str(data_dir), "--device", "cpu", "--out"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: on more threads the sums are in another order
    killed = [sys.executable, "-m", "seattn", *command, str(broken)]
    first = subprocess.Popen(killed, env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (broken / "last.pth.tar").exists():
        assert first.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (broken / "result.json").exists()
    assert 1 <= len(summary(broken)) < 3
    assert main([*command, str(broken)]) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert main([*command, str(broken), "--resume"]) == 0
    assert main([*command, str(whole)]) == 0
    assert summary(broken) == summary(whole)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    checkpoints = [sorted(path.name for path in run.glob("*.pth.tar")) for run in (broken, whole)]
    assert checkpoints[0] == checkpoints[1]
    best = [torch.load(run / "model_best.pth.tar", weights_only=True)["epoch"] for run in (broken, whole)]
    assert best[0] == best[1] == max(summary(whole), key=lambda row: row["eval_top1"])["epoch"]


def test_one_cycle_in_timms_words_goes_up_then_straight_down(tmp_path, data_dir, recipe):
    train(
        recipe(sched="poly", decay_rate=1.0, warmup_epochs=2, warmup_prefix=True, epochs=3, warmup_lr=0.01),
        data_dir,
        tmp_path / "run",
        device="cpu",
    )
    steps = 48 // 8
    rates = [entry["lr"] for entry in summary(tmp_path / "run")]  # at the last step of each epoch
    up = [0.01 + (0.05 - 0.01) * (steps * e - 1) / (2 * steps) for e in (1, 2)]
    down = [0.05 * (1 - (steps * e - 1) / (3 * steps)) for e in (1, 2, 3)]
    assert rates == pytest.approx(up + down)


def test_adamw_on_a_cosine_with_warm_up(tmp_path, data_dir, recipe):
    path = recipe(
        opt="adamw", opt_betas=[0.9, 0.95], weight_decay=0.05, lr=0.002, epochs=3, warmup_epochs=1, min_lr=1e-4
    )
    row = train(path, data_dir, tmp_path / "run", device="cpu")
    steps, total = 48 // 8, 3 * 48 // 8
    last = [summary(tmp_path / "run")[epoch]["lr"] for epoch in range(3)]
    warm = 1e-5 + (0.002 - 1e-5) * (steps - 1) / steps
    cosine = [1e-4 + (0.002 - 1e-4) * (1 + math.cos(math.pi * (steps * e - 1) / total)) / 2 for e in (2, 3)]
    assert last == pytest.approx([warm, *cosine])
    groups = torch.load(tmp_path / "run" / "last.pth.tar", weights_only=True)["optimizer"]["param_groups"]
    assert {group["betas"] for group in groups} == {(0.9, 0.95)}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    assert math.isfinite(row.loss)


def test_test_split_is_read_once_and_after_training(tmp_path, data_dir, recipe, monkeypatch):
    events = []
    read, step = seattn.data.open._Opener._files, TrainingRun._train_epoch
    monkeypatch.setattr(
        seattn.data.open._Opener, "_files", lambda self, split: events.append(split) or read(self, split)
    )
    monkeypatch.setattr(TrainingRun, "_train_epoch", lambda self, e: events.append(e) or step(self, e))
    train(recipe(), data_dir, tmp_path / "run", device="cpu")
    assert events == ["train", 0, 1, "test"]


def test_validation_split_is_used_where_there_is_one(tmp_path, data_dir, recipe):
    root = tmp_path / "data"
    root.mkdir()
    for name, source in (("train", "train"), ("val", "test"), ("test", "test")):
        (root / name).symlink_to(data_dir / source)
    row = train(recipe(epochs=1), root, tmp_path / "run", device="cpu")
    assert (row.train_images, row.held_out_images) == (60, 30)


def test_for_choices_the_test_split_is_left_alone_and_need_not_be_there(tmp_path, data_dir, recipe):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(data_dir / "train")
    row = train(recipe(epochs=1), tmp_path / "data", tmp_path / "run", device="cpu", read_test=False)
    assert (row.split, row.n, row.top1) == ("held-out", 12, row.held_out_top1)
    with pytest.raises(UserError, match=f"no test split in {tmp_path / 'data'}"):  # before any training
        train(recipe(epochs=1), tmp_path / "data", tmp_path / "other", device="cpu")
    assert not (tmp_path / "other").exists()


def test_overrides_of_a_recipe_that_is_read_already_are_refused(tmp_path, data_dir, recipe):
    with pytest.raises(ValueError, match="give them to load_recipe"):
        train(load_recipe(recipe()), data_dir, tmp_path / "run", overrides={"lr": 1.0})
    assert not (tmp_path / "run").exists()


def test_what_on_epoch_raises_ends_the_run_and_resume_takes_it_up(tmp_path, data_dir, recipe):
    rows = []

    def stop(row):
        rows.append(row)
        raise KeyError

    with pytest.raises(KeyError):
        train(recipe(), data_dir, tmp_path / "run", device="cpu", on_epoch=stop)
    train(recipe(), data_dir, tmp_path / "run", device="cpu", resume=True, on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [0, 1]
    train(recipe(), data_dir, tmp_path / "whole", device="cpu")
    assert summary(tmp_path / "run") == summary(tmp_path / "whole")


def test_amp_and_channels_last_are_recorded(tmp_path, data_dir, recipe, monkeypatch):
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    options = {"amp": True, "amp_dtype": "bfloat16", "channels_last": True, "clip_grad": 1.0}
    path = recipe(epochs=1, model="se_resnet20_cifar", **options)
    row = train(path, data_dir, tmp_path / "run", device="cpu")
    assert (row.dtype, row.memory_format) == ("bfloat16", "channels_last")
    assert row.conditions.torch == torch.__version__
    assert row.conditions.date


def test_a_cpu_without_bfloat16_trains_in_float32_and_says_so(tmp_path, data_dir, recipe, monkeypatch, caplog):
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: False)
    bfloat16 = {"epochs": 1, "amp": True, "amp_dtype": "bfloat16"}
    row = train(recipe(**bfloat16), data_dir, tmp_path / "run", device="cpu")
    assert row.dtype == "float32"
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "this CPU has no bfloat16 and would be many times slower in it: computing in float32"
    ]
    written = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (written.amp, written.amp_dtype) == (True, "bfloat16")  # the recipe is still the one that was asked for
    train(recipe(epochs=1), data_dir, tmp_path / "plain", device="cpu")
    assert summary(tmp_path / "run") == summary(tmp_path / "plain")


def test_nan_loss_stops_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path, data_dir, recipe, monkeypatch):
    step, calls = Updater.__call__, []

    def broken(self, group):
        calls.append(None)
        return step(self, group) if len(calls) <= 8 else torch.tensor(float("nan"))

    monkeypatch.setattr(Updater, "__call__", broken)
    with pytest.raises(UserError, match=r"became nan at step 3 of epoch 2; lower lr"):
        train(recipe(), data_dir, tmp_path / "run", device="cpu")
    assert torch.load(tmp_path / "run" / "last.pth.tar", weights_only=True)["epoch"] == 0
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_full_disk_is_said_in_a_line_and_the_run_goes_on_from_the_epoch_before(
    tmp_path, data_dir, recipe, monkeypatch
):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    save, epochs = torch.save, []

    def on_a_small_disk(content, path, *args, **kwargs):
        epochs.append(content["epoch"])
        limit = 100_000 if len(epochs) == 2 else hard
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save(content, path, *args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    monkeypatch.setattr(torch, "save", on_a_small_disk)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run = tmp_path / "run"
    try:
        with pytest.raises(UserError, match=f"cannot write the checkpoint of epoch 2 into {run}: .*--resume"):
            train(recipe(), data_dir, run, device="cpu")
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert torch.load(run / "last.pth.tar", weights_only=True)["epoch"] == 0
    assert not list(run.glob("tmp*"))
    train(recipe(), data_dir, run, resume=True, device="cpu")
    train(recipe(), data_dir, tmp_path / "whole", device="cpu")
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_finished_run_is_not_overwritten_and_trains_more_epochs_where_asked(tmp_path, data_dir, recipe):
    run = tmp_path / "run"
    train(recipe(epochs=1), data_dir, run, device="cpu")
    first, weights = summary(run), (run / "model.safetensors").read_bytes()
    for resume in (False, True):
        with pytest.raises(UserError, match=r"is finished, with epochs: 1; .*--resume with more --epochs"):
            train(recipe(epochs=1), data_dir, run, resume=resume, device="cpu")
    with pytest.raises(UserError, match="is finished"):
        train(recipe(epochs=2, lr=0.01), data_dir, run, resume=True, device="cpu")
    assert json.loads((run / "result.json").read_text())["epochs"] == 1
    assert train(recipe(epochs=2), data_dir, run, resume=True, device="cpu").epochs == 2
    assert summary(run)[:1] == first
    assert len(summary(run)) == 2
    assert load_recipe(run / "recipe.yaml").epochs == 2
    assert (run / "model.safetensors").read_bytes() != weights


def test_a_run_that_stops_before_its_head_learns_continues_to_the_same_weights(data_dir, tmp_path, recipe):
    keys = recipe(epochs=1, seattn={**BASE["seattn"], "balanced_head_epochs": 1})
    train(keys, data_dir, tmp_path / "whole", device="cpu")

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(keys, data_dir, tmp_path / "parts", device="cpu", on_epoch=stop)
    train(keys, data_dir, tmp_path / "parts", device="cpu", resume=True)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_no_more_epochs_after_an_early_stop_or_a_second_stage(tmp_path, data_dir, recipe, monkeypatch):
    def ours(**keys):
        return {**BASE["seattn"], **keys}

    train(recipe(epochs=1, seattn=ours(balanced_head_epochs=1)), data_dir, tmp_path / "head", device="cpu")
    path = recipe(epochs=2, seattn=ours(balanced_head_epochs=1))
    with pytest.raises(UserError, match="ends with balanced_head_epochs, after which no other epochs can follow"):
        train(path, data_dir, tmp_path / "head", resume=True, device="cpu")
    train(recipe(epochs=1, seattn=ours(early_stop=1)), data_dir, tmp_path / "early", device="cpu")
    monkeypatch.setattr("seattn.training.run_dir.is_stale", lambda history, patience: True)
    with pytest.raises(UserError, match=r"stopped early, by seattn\.early_stop: 1: no more would be trained"):
        train(recipe(epochs=2, seattn=ours(early_stop=1)), data_dir, tmp_path / "early", resume=True, device="cpu")
    assert (tmp_path / "early" / "result.json").exists()


def test_resuming_where_no_run_is_names_the_runs_near_it(tmp_path, data_dir, recipe, fails):
    for name in ("birds-a", "birds-b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        for file in ("recipe.yaml", "last.pth.tar"):
            (tmp_path / "runs" / name / file).write_text("")
    out = tmp_path / "runs" / "birds"
    for command in (["train", recipe(epochs=1)], ["finetune", "resnet20_cifar"]):
        line = fails(*command, "--data-dir", data_dir, "--out", out, "--device", "cpu", "--resume")
        assert f"{out} holds no run to resume; runs near it: " in line
        assert f"{tmp_path}/runs/birds-a" in line
        assert f"{tmp_path}/runs/birds-b" in line
    out.mkdir()
    line = fails("train", recipe(epochs=1), "--data-dir", data_dir, "--out", out, "--device", "cpu", "--resume")
    assert "holds no run to resume" in line
    assert not list(out.glob("*.yaml"))


def test_a_run_among_the_images_is_refused(data_dir, recipe, fails):
    for command in (["train", recipe()], ["finetune", "resnet20_cifar"]):
        line = fails(*command, "--data-dir", data_dir, "--out", data_dir / "run", "--device", "cpu")
        assert f"--out {data_dir / 'run'} is inside --data-dir {data_dir}; give a folder outside of the images" in line
    assert not (data_dir / "run").exists()


@pytest.fixture
def table(tmp_path):
    """Writes a table of the images of `data_dir`/SPLIT."""

    def write(data_dir, split):
        path = tmp_path / f"{split}.csv"
        images = sorted((data_dir / split).glob("*/*.png"))
        lines = [f"{image.relative_to(data_dir / split)},{image.parent.name}" for image in images]
        path.write_text("\n".join(["filename,label", *lines]))
        return path

    return write


@pytest.mark.parametrize("with_test", [True, False], ids=["test table", "a tenth for the test"])
def test_a_table_of_labels_trains_as_class_folders_do(tmp_path, data_dir, recipe, table, with_test):
    test = table(data_dir, "test") if with_test else None
    labels, run = table(data_dir, "train"), tmp_path / "run"
    row = train(recipe(epochs=1), data_dir, run, device="cpu", labels=labels, test_labels=test)
    assert (row.train_images + row.held_out_images, row.n) == ((60, 30) if with_test else (54, 6))
    if with_test:
        train(recipe(epochs=1), data_dir, tmp_path / "folders", device="cpu")
        assert (run / "model.safetensors").read_bytes() == (tmp_path / "folders" / "model.safetensors").read_bytes()
    labels.unlink()  # a resumed run has its links
    assert train(recipe(epochs=2), data_dir, run, device="cpu", resume=True, labels=labels).epochs == 2


def test_a_table_that_does_not_fit_leaves_nothing(tmp_path, data_dir, recipe, table, fails):
    labels, run = table(data_dir, "train"), tmp_path / "run"
    options = ["--data-dir", data_dir, "--out", run, "--device", "cpu", "--labels", labels]
    with pytest.raises(UserError, match="did you mean 'sgd'"):
        train(recipe(opt="sdg"), data_dir, run, device="cpu", labels=labels)
    labels.write_text(labels.read_text() + "\nnone.png,red\n")
    for command in (["train", recipe()], ["finetune", "resnet20_cifar"]):
        assert "1 of the 61 images in labels" in fails(*command, *options)
    assert not run.exists()
    (run / "data").mkdir(parents=True)
    (run / "data" / "mine.txt").write_text("")
    assert "data exists, where links to the labelled images are made" in fails("train", recipe(), *options)
    assert (run / "data" / "mine.txt").exists()


def test_images_are_rotated_by_exif_unless_the_recipe_says_otherwise(tmp_path, data_dir, recipe, monkeypatch):
    seen = []
    read = seattn.data.images.read_image
    monkeypatch.setattr(
        seattn.data.images, "read_image", lambda path, mode, exif: seen.append(exif) or read(path, mode, exif=exif)
    )
    for exif in (True, False):
        seen.clear()
        keys = {**BASE["seattn"], "exif": exif}
        train(recipe(epochs=1, seattn=keys), data_dir, tmp_path / str(exif), device="cpu")
        assert set(seen) == {exif}


def test_a_second_training_in_a_folder_is_refused_until_the_first_process_ends(tmp_path, data_dir, recipe, fails):
    """The first process is killed, which leaves its lock file but not its lock."""
    run = tmp_path / "run"
    run.mkdir()
    holder = hold(run / ".lock")
    for more in ([], ["--resume"]):
        line = fails("train", recipe(epochs=1), "--data-dir", data_dir, "--out", run, "--device", "cpu", *more)
        assert f"another process trains in {run}; wait until it ends, or give another --out" in line
    holder.kill()
    holder.wait()
    assert train(recipe(epochs=1), data_dir, run, device="cpu") is not None
    assert not is_locked(run)


def test_resume_with_another_recipe_names_what_differs(tmp_path, data_dir, recipe, monkeypatch):
    monkeypatch.setattr(RunDir, "write_result", lambda *_: None)  # the run stays unfinished
    train(recipe(epochs=1), data_dir, tmp_path / "run", device="cpu")
    with pytest.raises(UserError, match=r"another recipe \(differs in epochs, lr\)|\(differs in lr, epochs\)"):
        train(recipe(epochs=2, lr=0.1), data_dir, tmp_path / "run", resume=True, device="cpu")


def test_a_run_older_than_a_key_of_recipes_resumes(tmp_path, data_dir, recipe, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_result", lambda *_: None)
        train(recipe(epochs=1), data_dir, run, device="cpu")
    recipe_keys = yaml.safe_load((run / "recipe.yaml").read_text())
    del recipe_keys["lr_cycle_limit"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe_keys))
    assert train(recipe(epochs=1), data_dir, run, resume=True, device="cpu") is not None


def test_damaged_checkpoint_is_named(tmp_path, data_dir, recipe, monkeypatch):
    monkeypatch.setattr(RunDir, "write_result", lambda *_: None)
    train(recipe(epochs=1), data_dir, tmp_path / "run", device="cpu")
    last = tmp_path / "run" / "last.pth.tar"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"cannot resume from {last}"):
        train(recipe(epochs=1), data_dir, tmp_path / "run", resume=True, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet21_cifar"}, "unknown model 'resnet21_cifar'; did you mean .*resnet20_cifar"),
        ({"model": "resnet20_cifar.cifar11"}, "no tag 'cifar11'; tags: resnet20_cifar.cifar10"),
        (
            {"model": "resnet32_cifar.cifar10", "pretrained": True},
            "has no pretrained weights yet; those that have: .*se_resnet20",
        ),
        ({"model": "resnet18", "pretrained": True}, "cannot load the weights of resnet18"),
        ({"num_classes": 10}, "has 3 classes, the model 10; set num_classes: 3"),
        ({"batch_size": 64}, "batch_size 64 is more than the 48 training images"),
        ({"opt": "sdg"}, "sdg"),
        ({"aa": "rand-x9"}, "aa 'rand-x9' is not a policy of timm; give rand-m9-mstd0.5"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_nothing(tmp_path, data_dir, recipe, changes, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    device = changes.pop("device", "cpu")
    with pytest.raises(UserError, match=message):
        train(recipe(**changes), data_dir, tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_unwritable_output_is_found_before_training(tmp_path, data_dir, recipe):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run"):
        train(recipe(), data_dir, tmp_path / "file" / "run", device="cpu")


@pytest.mark.parametrize(
    ("pretrained", "classes", "holdout", "warns"),
    [(True, 10, 0.2, True), (True, 10, 0, False), (False, 10, 0.2, False), (True, 3, 0.2, False)],
)
def test_weights_that_know_the_classes_may_have_seen_the_held_out_images(
    tmp_path, recipe, caplog, pretrained, classes, holdout, warns
):
    names = timm.get_pretrained_cfg("se_resnet20_cifar.cifar10").label_names if classes == 10 else CLASSES
    channels = {name: i % 3 for i, name in enumerate(names)}
    data = write_colours(tmp_path / "data", channels, {"train": [5] * classes, "test": [1] * classes})
    ours = {"dataset": "colours", "holdout": holdout}
    path = recipe(model="se_resnet20_cifar.cifar10", num_classes=classes, pretrained=pretrained, epochs=1, seattn=ours)
    train(path, data, tmp_path / "run", device="cpu")
    line = "the weights of se_resnet20_cifar.cifar10 were trained on these classes: if the 10 held-out images are among"
    assert (line in caplog.text) == warns
