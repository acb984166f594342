"""What a recipe can ask of the training loop, each on a net of one block a stage and a few images of noise."""

import csv
import importlib.machinery
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from seattn.core.errors import UserError
from seattn.core.recipe import parse_recipe
from seattn.training.build import create_model, only_classifier_learns
from seattn.training.driver import train
from seattn.training.loop import TrainingRun
from seattn.training.losses import Teacher
from seattn.training.run_dir import AtomicSaver, RunDir
from seattn.training.update import Updater
from tests.helpers.colours import RECIPE, write_colours
from tests.helpers.runs import write_run

BASE = {
    **RECIPE,
    "model": "se_resnet20_cifar",
    "color_jitter": None,
    "seed": 3,
    "seattn": {"dataset": "colours", "holdout": 0.2, "crop_padding": 4},
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    counts = {"train": (24, 12, 6), "validation": (6, 6, 6), "test": (4, 4, 4)}  # uneven to train on
    return write_colours(tmp_path_factory.mktemp("colours"), {"blue": 0, "green": 1, "red": 2}, counts)


@pytest.fixture
def fit(tmp_path, data_dir):
    def run(ours=None, out="run", resume=False, data=data_dir, **changes):
        path = tmp_path / f"{out}.yaml"
        path.write_text(yaml.safe_dump({**BASE, **changes, "seattn": {**BASE["seattn"], **(ours or {})}}))
        return train(path, data, tmp_path / out, device="cpu", resume=resume)

    return run


def rows(run):
    with (run / "summary.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({"mixup": 0.2, "cutmix": 1.0, "mixup_off_epoch": 1, "smoothing": 0.1}, {}),
        ({"bce_loss": True, "bce_target_thresh": 0.2, "mixup": 0.2}, {}),
        ({"opt": "adamw", "lr": 1e-3, "layer_decay": 0.7, "clip_grad": 1.0, "clip_mode": "agc"}, {}),
        ({"opt": "lamb", "opt_eps": 1e-6, "sched": "step", "decay_epochs": 1}, {}),
        ({"torchcompile": "eager", "amp": True, "amp_dtype": "bfloat16", "channels_last": True}, {}),
        ({"reprob": 0.5, "remode": "pixel", "vflip": 0.5, "color_jitter": 0.2}, {"cutout": 8, "policy": "trivial"}),
        ({"epochs": 1}, {"loss": "focal", "class_weights": "effective", "sampling": "balanced"}),
        ({"epochs": 1, "grad_accum_steps": 2}, {"sam_rho": 0.05, "class_weights": "balanced"}),
        (
            {"epochs": 1, "workers": 0, "aa": "rand-m5-n1", "scale": [0.5, 1.0]},
            {"data": "folder", "crop_padding": None},
        ),
    ],
    ids=["mix", "bce", "adamw", "lamb", "compiled", "augment", "focal", "sam", "folder"],
)
def test_trains(fit, tmp_path, changes, ours):
    row = fit(ours, **changes)
    assert row.n == 12
    assert all(np.isfinite(r["train_loss"]) for r in rows(tmp_path / "run"))
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert written["seattn"]["dataset"] == "colours"
    timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)


def test_accumulation_makes_larger_updates_and_progressive_resizing_trains_small_first(fit, monkeypatch):
    updates, call = [], Updater.__call__

    def spied(self, group):
        updates.append([(len(x), x.shape[-1]) for x, _ in group])
        return call(self, group)

    monkeypatch.setattr(Updater, "__call__", spied)
    fit({"resize": [[16, 1], [24, 1]]}, epochs=3, grad_accum_steps=2)
    # 42 images are five full batches an epoch
    assert updates == [[(8, side)] * count for side in (16, 24, 32) for count in (2, 2, 1)]


def test_a_run_that_holds_out_no_image_knows_no_accuracy_before_the_end(fit, tmp_path, data_dir, monkeypatch):
    save, calls = AtomicSaver.save_checkpoint, []

    def dies(self, epoch, **kwargs):
        save(self, epoch, **kwargs)
        calls.append(epoch)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(AtomicSaver, "save_checkpoint", dies)
    root = tmp_path / "data"
    root.mkdir()
    for split in ("train", "test"):
        (root / split).symlink_to(data_dir / split)
    with pytest.raises(KeyboardInterrupt):
        fit({"holdout": 0}, data=root)
    row = fit({"holdout": 0}, data=root, resume=True)
    assert (row.train_images, row.held_out_images, row.held_out_top1) == (42, 0, None)
    assert [(math.isnan(r["eval_top1"]), math.isnan(r["eval_loss"])) for r in rows(tmp_path / "run")] == [
        (True, True)
    ] * 2
    with pytest.raises(UserError, match=r"seattn.holdout 0 leaves no image to score the run on"):
        train(tmp_path / "run.yaml", root, tmp_path / "other", device="cpu", read_test=False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Writes the run of an untrained net with the given classes and channels; returns its folder."""

    def write(class_names, channels=3):
        kwargs = {"model_kwargs": {"in_chans": channels}}
        return str(write_run(tmp_path_factory.mktemp("teacher") / "run", class_names, kwargs))

    return write


@pytest.mark.parametrize(
    "names", [("blue", "green", "red"), ("red", "blue", "green"), ()], ids=["same", "order", "none"]
)
def test_distillation_takes_the_teachers_output_of_each_class_by_name(fit, monkeypatch, teacher, names):
    """A teacher whose classes are in another order gives the outputs in the student's; without names, in its own."""
    outputs, init = [], Teacher.__init__
    monkeypatch.setattr(Teacher, "__init__", lambda self, *args: outputs.append(args[3]) or init(self, *args))
    run = teacher(names or ("a", "b", "c"))
    if not names:
        config = json.loads((Path(run) / "config.json").read_text())
        for place in (config, config["pretrained_cfg"]):
            place.pop("label_names", None)
        (Path(run) / "config.json").write_text(json.dumps(config))
    fit(epochs=1, kd_model_name=run, kd_temperature=2.0, task_loss_weight=0.5)
    assert outputs == [[names.index(name) for name in ("blue", "green", "red")] if names else [0, 1, 2]]


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        (("blue", "green"), 3, r"has 2 classes \(blue, green\), the data 3 \(blue, green, red\)"),
        (("blue", "green", "pink"), 3, r"has 3 classes \(blue, green, pink\), the data 3 \(blue, green, red\)"),
        (tuple("abcde"), 3, r"has 5 classes \(a, b, c, …\), the data 3"),
        (("blue", "green", "red"), 1, "takes images of 1 channels, the student of 3"),
    ],
    ids=["fewer", "others", "more", "grey"],
)
def test_a_teacher_that_does_not_fit_the_data_is_refused(fit, tmp_path, teacher, names, channels, message):
    with pytest.raises(UserError, match=message):
        fit(epochs=1, kd_model_name=teacher(names, channels))
    assert not (tmp_path / "run").exists()


def test_early_stopping_ships_the_best_epoch_of_the_held_out_images(fit, tmp_path, monkeypatch):
    scores = iter([0.3, 0.9, 0.5, 0.4, 0.4])
    evaluate = TrainingRun._evaluate

    def scored(self, data):
        result = evaluate(self, data)
        if len(data) == 12:  # the test split
            return result
        return type(result)(**{**vars(result), "top1": next(scores)})

    monkeypatch.setattr(TrainingRun, "_evaluate", scored)
    row = fit({"early_stop": 2}, epochs=9)
    run = tmp_path / "run"
    assert [r["eval_top1"] for r in rows(run)] == pytest.approx([30, 90, 50, 40])
    assert (row.epochs, row.held_out_top1) == (4, pytest.approx(0.9))
    best = torch.load(run / "model_best.pth.tar", weights_only=True)
    assert best["epoch"] == 1
    assert all(
        torch.equal(value, best["state_dict"][key]) for key, value in load_file(run / "model.safetensors").items()
    )


def test_a_run_that_had_stopped_early_trains_no_more_when_it_is_resumed(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("seattn.training.loop.is_stale", lambda history, patience: len(history) == 2)
    monkeypatch.setattr(RunDir, "write_result", lambda *_: None)  # the run ended before its result
    fit({"early_stop": 3}, epochs=9)
    before = rows(tmp_path / "run")
    fit({"early_stop": 3}, epochs=9, resume=True)
    assert rows(tmp_path / "run") == before


def test_the_second_stage_teaches_the_classifier_alone(fit, tmp_path, monkeypatch):
    trunks, begin = [], TrainingRun._begin_head

    def spied(self):
        begin(self)
        trunks.append({key: value.clone() for key, value in self.model.state_dict().items()})

    monkeypatch.setattr(TrainingRun, "_begin_head", spied)
    fit({"balanced_head_epochs": 2}, epochs=1, model_ema=True, model_ema_decay=0.5)
    run = tmp_path / "run"
    assert len(rows(run)) == 3
    after = load_file(run / "model.safetensors")
    changed = {key for key, value in trunks[0].items() if not torch.equal(value, after[key])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("model", "kwargs", "heads"),
    [
        ("test_vit", {"pretrained_cfg_overlay": {"input_size": [3, 32, 32]}}, ("head.",)),
        ("levit_128s", {"pretrained_cfg_overlay": {"input_size": [3, 32, 32]}}, ("head.", "head_dist.")),
    ],
)
def test_the_second_stage_teaches_the_classifiers_of_any_net(model, kwargs, heads):
    net = create_model(parse_recipe({**BASE, "model": model, "model_kwargs": kwargs}))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    only_classifier_learns(net)
    learning = {key for key, parameter in net.named_parameters() if parameter.requires_grad}
    assert learning == {key for key, _ in net.named_parameters() if key.startswith(heads)}
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert {f"{head}{'linear.' if model.startswith('levit') else ''}weight" for head in heads} <= changed <= learning


@pytest.mark.parametrize(
    ("model", "kwargs", "message"),
    [
        ("resnet20_cifar", {"global_pool": ""}, r"cannot take images of its input size \(3, 32, 32\): mat1 and mat2"),
        (
            "vit_tiny_patch16_224",
            {"img_size": 32, "depth": 1},
            r"cannot take images of its input size .*pretrained_cfg_overlay: {input_size",
        ),
        ("test_vit", {"global_pool": ""}, r"test_vit is not a classifier: it gives outputs of shape \(2, \d+, 3\)"),
        ("resnet20_cifar", {"features_only": True}, "is not a classifier: it gives a list of feature maps"),
    ],
)
def test_a_net_that_cannot_classify_its_images_is_refused_before_the_run(fit, tmp_path, model, kwargs, message):
    with pytest.raises(UserError, match=message):
        fit(model=model, model_kwargs=kwargs)
    assert not (tmp_path / "run").exists()


def test_a_run_that_ended_in_its_second_stage_resumes_there(fit, tmp_path, monkeypatch):
    ours = {"balanced_head_epochs": 2}
    fit(ours, out="whole", epochs=1)
    save, epochs = AtomicSaver.save_checkpoint, []

    def dies(self, epoch, **kwargs):
        save(self, epoch, **kwargs)
        epochs.append(epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(AtomicSaver, "save_checkpoint", dies)
    with pytest.raises(KeyboardInterrupt):
        fit(ours, out="broken", epochs=1)
    fit(ours, out="broken", epochs=1, resume=True)
    whole, broken = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "broken"))
    assert all(torch.equal(value, broken[key]) for key, value in whole.items())


def test_events_and_rates_are_written(fit, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit()
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "events"))
    events.Reload()
    logged = [event.value for event in events.Scalars("train_loss")]
    assert logged == pytest.approx([row["train_loss"] for row in rows(tmp_path / "run")], rel=1e-5)
    for row in rows(tmp_path / "run"):
        assert 0 < row["images_per_second"] < row["data_images_per_second"]


def test_weights_and_biases_gets_every_epoch(fit, tmp_path, monkeypatch):
    calls = []
    wandb = types.ModuleType("wandb")
    wandb.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    run = types.SimpleNamespace(log=lambda row, step: calls.append((step, row)), finish=lambda: calls.append("finish"))
    wandb.init = lambda **kwargs: calls.append(kwargs) or run
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    fit(log_wandb=True, wandb_project="zoo")
    begin, first, second, end = calls
    assert (begin["project"], begin["config"]["lr"]) == ("zoo", 0.05)
    assert (first[0], second[0], end) == (0, 1, "finish")
    assert second[1]["eval_top1"] == pytest.approx(rows(tmp_path / "run")[1]["eval_top1"])


def test_model_kwargs_reach_the_net_and_its_config(fit, tmp_path):
    kwargs = {"attn_placement": "pre", "rd_ratio": [0.5, 0.25, 0.25]}
    fit(epochs=1, model_kwargs=kwargs)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kwargs.items() <= config["model_args"].items()
    model = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)
    assert model.layer1[0].attn_placement == "pre"


@pytest.mark.parametrize(
    ("changes", "ours", "message"),
    [
        ({"amp": True}, {}, "amp_dtype float16 needs CUDA"),
        ({"model_kwargs": {"attn_placement": "before"}}, {}, "model_kwargs .*placement must be one of standard, pre"),
        ({"model_kwargs": {"atn": 1}}, {}, "model_kwargs .*atn"),
        ({"kd_model_name": "resnet21_cifar"}, {}, "unknown model 'resnet21_cifar'"),
        ({"kd_model_name": "resnet32_cifar"}, {}, "resnet32_cifar has no trained weights"),
        ({"kd_model_name": "resnet18"}, {}, "resnet18"),
        ({"initial_checkpoint": "nowhere.pth"}, {}, "nowhere.pth"),
        ({"log_wandb": True}, {}, "needs the package wandb"),
    ],
)
def test_what_cannot_be_is_said_in_a_line_and_leaves_nothing(fit, tmp_path, changes, ours, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "log_wandb" in changes:
        try:
            import wandb  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("wandb is installed")
    with pytest.raises(UserError, match=message):
        fit(ours, **changes)
    assert not Path(tmp_path / "run").exists()
