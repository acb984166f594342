"""Training without labels: pairs of views, the loss, the folder of the run, and fine-tuning from it."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import seattn  # noqa: F401  registers the models
from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.core.recipe import load_recipe, parse_recipe
from seattn.data.open import open_data
from seattn.models.load import load_model
from seattn.training import finetune, pretrain
from seattn.training import loop as training_loop
from seattn.training.pretraining import ContrastiveLoss
from tests.helpers.colours import RECIPE, write_colours

pytestmark = pytest.mark.usefixtures("one_thread")
KEYS = {**RECIPE, "model": "se_resnet20_cifar", "batch_size": 4, "epochs": 2, "warmup_epochs": 0, "seed": 3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    counts = {"train": (10, 8, 4), "validation": (2, 2, 2), "test": (2, 2, 2)}
    return write_colours(tmp_path_factory.mktemp("colours"), {"blue": 0, "green": 1, "red": 2}, counts)


def recipe(path="memory", **changes):
    ours = {"dataset": "colours", "holdout": 0.2, "crop_padding": 4, "data": path}
    return parse_recipe({**KEYS, **changes, "seattn": ours})


@pytest.mark.parametrize("path", ["memory", "folder"])
def test_a_batch_has_each_of_its_images_twice_in_two_augmentations(path, data_dir):
    config = {"input_size": (3, 32, 32), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
    config |= {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    data = open_data(recipe(path, workers=0), data_dir, config, torch.device("cpu"))
    whole = data.train.batches()
    data.train.views = 2
    assert whole == len(data.train) // 4
    assert data.train.batches() == len(data.train) // 2
    for x, target in data.train.epoch(0):
        assert torch.equal(target[:2], target[2:])
        assert not torch.equal(x[:2], x[2:])
    seen = torch.cat([target[:2] for _, target in data.train.epoch(0)])
    assert torch.equal(seen.bincount(), data.train.labels.bincount())


def test_the_loss_is_equation_1():
    torch.manual_seed(0)
    z = torch.randn(6, 128)  # 3 images
    unit = z / z.norm(dim=1, keepdim=True)
    similar = (unit @ unit.t() / 0.5).exp()
    expected = 0.0
    for i in range(6):
        others = sum(float(similar[i, k]) for k in range(6) if k != i)
        expected -= math.log(float(similar[i, (i + 3) % 6]) / others) / 6
    assert float(ContrastiveLoss()(z, torch.zeros(6))) == pytest.approx(expected, rel=1e-5)


def test_a_killed_run_continues_to_the_same_weights_and_finetune_starts_from_them(tmp_path, data_dir, monkeypatch):
    whole = pretrain(recipe(), data_dir, tmp_path / "whole", device="cpu")
    assert {path.name for path in whole.iterdir()} >= {"model.safetensors", "config.json", "summary.csv", "recipe.yaml"}
    weights = load_file(whole / "model.safetensors")
    assert not [key for key in weights if key.startswith(("fc.", "projection"))]
    assert json.loads((whole / "config.json").read_text())["num_classes"] == 0
    assert load_recipe(whole / "recipe.yaml").batch_size == KEYS["batch_size"]

    with pytest.raises(UserError, match="whole is finished; give another --out to train again, or --resume with more"):
        pretrain(recipe(), data_dir, whole, device="cpu")

    record = training_loop.TrainingRun._record_epoch

    def killed(self, run_dir, epoch, loss, rates):
        if epoch == 1:
            raise KeyboardInterrupt
        return record(self, run_dir, epoch, loss, rates)

    with monkeypatch.context() as patch:
        patch.setattr(training_loop.TrainingRun, "_record_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe(), data_dir, tmp_path / "killed", device="cpu")
    again = pretrain(recipe(), data_dir, tmp_path / "killed", device="cpu", resume=True)
    resumed = load_file(again / "model.safetensors")
    assert all(torch.equal(resumed[key], value) for key, value in weights.items())

    done = finetune(str(whole), data_dir, tmp_path / "tuned", device="cpu", overrides={"epochs": 1, "lr": 1e-9})
    assert done.row.n == 6
    tuned = load_model(str(tmp_path / "tuned"))
    assert tuned.num_classes == 3
    close = [
        torch.allclose(tuned.state_dict()[key], value, atol=1e-4) for key, value in weights.items() if "conv" in key
    ]
    assert close
    assert all(close)


def test_no_key_mixes_the_views(tmp_path, data_dir):
    mixed = {"mixup": 0.2, "cutmix": 1.0, "cutmix_minmax": (0.2, 0.8)}
    plain = pretrain(recipe(epochs=1), data_dir, tmp_path / "plain", device="cpu")
    run = pretrain(recipe(epochs=1, **mixed), data_dir, tmp_path / "mixed", device="cpu")
    assert load_file(run / "model.safetensors")["conv1.weight"].equal(
        load_file(plain / "model.safetensors")["conv1.weight"]
    )


def test_labels_do_not_matter(tmp_path, data_dir):
    """One folder with all images, in the same order, gives the same weights."""
    one = tmp_path / "one"
    for i, path in enumerate(sorted((data_dir / "train").rglob("*.png"))):
        target = one / "train" / "all" / f"{i:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with_labels = pretrain(replace(recipe(), epochs=1), data_dir, tmp_path / "a", device="cpu")
    without = pretrain(replace(recipe(), epochs=1), one, tmp_path / "b", device="cpu")
    a, b = load_file(with_labels / "model.safetensors"), load_file(without / "model.safetensors")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 64}, "batch_size 64 is more than the 22 training images"),
        ({"model": "no_such_net"}, "no_such_net"),
        (
            {"model_kwargs": {"features_only": True}},
            "resnet20_cifar is not a classifier: it gives a list of feature maps",
        ),
        ({"amp": True}, "amp_dtype float16 needs CUDA"),
    ],
)
def test_what_cannot_be_pretrained_leaves_nothing_behind(changes, words, tmp_path, data_dir):
    with pytest.raises(UserError, match=words):
        pretrain(recipe(**changes), data_dir, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_comes_next_and_predict_refuses_a_net_without_classes(tmp_path, data_dir, capsys):
    run = tmp_path / "run"
    keys = ("epochs=1", "warmup_epochs=0", "batch_size=4", "seattn.resize=[]")
    settings = [f"--set={key}" for key in keys]
    assert (
        main(["pretrain", "resnet20_cifar.cifar10.simclr", "--data-dir", str(data_dir), "--out", str(run), *settings])
        == 0
    )
    assert capsys.readouterr().out.strip().endswith(f"next: seattn finetune {run} --data-dir DIR")
    photo = next((data_dir / "test").rglob("*.png"))
    for command in (["predict", str(photo), "--model"], ["evaluate", "--data-dir", str(data_dir)]):
        assert main([*command, str(run)]) == 2
        assert "has no classifier" in capsys.readouterr().err


def test_without_lightly_the_error_names_what_to_install(tmp_path, data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightly.loss", None)
    with pytest.raises(UserError, match=r"pip install 'seattn\[pretrain\]'"):
        pretrain(recipe(), data_dir, tmp_path / "run", device="cpu")


def test_images_without_classes_may_be_beside_a_test_split_with_classes(tmp_path):
    write_colours(tmp_path, {"all": 0}, {"train": (8,)})
    write_colours(tmp_path, {"blue": 0, "green": 1}, {"test": (2, 2)})
    write_colours(tmp_path, {"blue": 0, "green": 1}, {"validation": (2, 2)})
    run = pretrain(replace(recipe(), epochs=1), tmp_path, tmp_path.parent / f"{tmp_path.name}-run", device="cpu")
    assert (run / "model.safetensors").exists()


def test_a_folder_of_other_files_gets_no_run(tmp_path, data_dir):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="has other files than those of a run; give another --out"):
        pretrain(recipe(), data_dir, tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
