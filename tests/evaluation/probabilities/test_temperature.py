"""The temperature is found where it is known, stored, and used by every command; what has none is one line."""

import json
import re
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import seattn.reports.calibration
from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe
from seattn.data.transforms import class_names
from seattn.evaluation.prediction import predict
from seattn.evaluation.probabilities.temperature import calibrate, fit_temperature
from seattn.evaluation.scoring import evaluate, summarize
from seattn.hub.staging import stage
from seattn.models.checkpoints.folder import check_config, render_config
from seattn.models.load import load_model, model_temperature
from seattn.reports.calibration import calibrate_folder
from tests.helpers.page import Page
from tests.helpers.report_runs import ARCH, fake_run, write_images

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_true_temperature_is_found(true):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 7, generator=generator)
    labels = logits.softmax(1).multinomial(1, generator=generator).squeeze(1)  # right at temperature 1
    found = fit_temperature(true * logits, labels)
    assert found == pytest.approx(true, rel=0.03)
    loss = [float(cross_entropy(true * logits.double() / t, labels)) for t in (0.99 * found, found, 1.01 * found)]
    assert loss[1] < min(loss[0], loss[2])
    assert summarize(true * logits / found, labels, "abcdefg").ece < 0.015


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 2], "the net has all of the 3 images right"), ([1, 2, 0], "on the 3 images the net is no better")],
    ids=["all right", "all wrong"],
)
def test_images_that_determine_no_temperature_are_refused(labels, message):
    with pytest.raises(UserError, match=f"no temperature fits: .*{message}"):
        fit_temperature(5 * torch.eye(3), torch.tensor(labels))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"), {"train": 30, "validation": 20, "test": 2}, NAMES)


@pytest.fixture
def run(tmp_path, data):
    """A run whose net has about half of the validation images right, and is too sure of its answers."""
    path = fake_run(tmp_path / "run", NAMES, result=False)
    net = load_model(str(path))
    images = sorted(data.glob("validation/*/*.png"))
    answers = [prediction.indices[0] for prediction in predict(net, images)]
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        target = data / "validation" / NAMES[(answer + number % 2) % 3] / f"{number}-{image.name}"
        image.rename(target)
    return path


def test_a_run_is_calibrated_and_the_commands_use_the_temperature(run, data, tmp_path, capsys):
    net = load_model(str(run))
    plain, image = evaluate(net, data, "validation", workers=0), next(data.glob("test/a/*.png"))
    assert main(["calibrate", str(run), "--data-dir", str(data), "--workers", "0"]) == 0
    text = capsys.readouterr().out
    calibrated = load_model(str(run))
    temperature = model_temperature(calibrated)
    assert json.loads((run / "config.json").read_text())["temperature"] == temperature > 1
    assert f"temperature {temperature:.4f}, from 60 images: the validation split" in text

    scores = evaluate(calibrated, data, "validation", workers=0)
    assert scores.confusion == plain.confusion
    assert scores.loss < plain.loss
    assert f"calibration error {plain.ece:.2%} before, {scores.ece:.2%} after" in text
    logits = torch.tensor(predict(net, [image], topk=3)[0].probabilities).log() / temperature
    assert predict(calibrated, [image], topk=3)[0].probabilities == pytest.approx(logits.softmax(0).tolist(), rel=1e-3)

    assert main(["calibrate", str(run), "--data-dir", str(data), "--workers", "0", "--json"]) == 0  # again: the same
    found = json.loads(capsys.readouterr().out)
    assert found["temperature"] == temperature
    assert found["before"] == {"ece": pytest.approx(plain.ece), "loss": pytest.approx(plain.loss)}

    assert main(["report", str(run), "--data-dir", str(data), "--out", str(tmp_path / "page")]) == 0
    page = Page((tmp_path / "page" / "report.html").read_text(encoding="utf-8"))
    assert re.search(
        rf"is {scores.ece:.3f} with the temperature {temperature:.3f}, and {plain.ece:.3f} without it", page.text
    )
    check_config(run / "config.json")
    score = ["evaluate", str(run), "--data-dir", str(data), "--split", "validation", "--workers", "0"]
    for checkpoint, used in [([], True), (["--checkpoint", str(run / "model.safetensors")], False)]:
        assert main([*score, *checkpoint]) == 0
        sentence = f"; loss and ECE with the weights' temperature {temperature:g}"
        assert (sentence in " ".join(capsys.readouterr().out.split())) == used
        assert main([*score, *checkpoint, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["temperature"] == (temperature if used else 1)
    other = load_model(str(run), checkpoint=run / "model.safetensors")
    assert model_temperature(other) == 1


def test_a_larger_calibration_error_is_said(run, data, monkeypatch):
    """The temperature is that of the least loss, which is not always that of the least calibration error."""

    def worse(*args, **kwargs):
        done = calibrate(*args, **kwargs)
        return replace(done, after=replace(done.after, ece=done.before.ece + 0.1))

    monkeypatch.setattr(seattn.reports.calibration, "calibrate", worse)
    *_, warning = calibrate_folder(run, data, workers=0)
    assert "the calibration error on these 60 images is larger" in warning
    assert "more held-out images" in warning


def test_a_folder_without_a_run_is_calibrated_on_a_validation_split(run, data, fails, capsys, tmp_path):
    for name in ("summary.csv", "recipe.yaml"):
        (run / name).unlink()
    assert main(["calibrate", str(run), "--data-dir", str(data), "--workers", "0"]) == 0
    assert "the validation split" in capsys.readouterr().out
    train_only = write_images(tmp_path / "other", {"train": 1}, NAMES)
    assert (
        "is not the folder of a run, so the images that were held out are not known: no validation split in"
        in fails("calibrate", run, "--data-dir", train_only)
    )


def test_what_cannot_be_calibrated_is_one_line(data, tmp_path, fails):
    recipe = Recipe(model=ARCH, lr=0.1, epochs=3, warmup_epochs=0)
    everything = fake_run(
        tmp_path / "all", NAMES, result=False, recipe=replace(recipe, seattn=replace(recipe.seattn, holdout=0))
    )
    unsplit = write_images(tmp_path / "unsplit", {"train": 4}, NAMES)
    assert "was trained on all images, no images were held out" in fails("calibrate", everything, "--data-dir", unsplit)
    started = fake_run(tmp_path / "started", NAMES, finished=False)
    assert f"{started} has no config.json" in fails("calibrate", started, "--data-dir", data)
    assert "no such folder: se_resnet20_cifar" in fails("calibrate", "se_resnet20_cifar", "--data-dir", data)
    assert "--split must be one of held-out" in fails("calibrate", everything, "--data-dir", data, "--split", "train")
    stage("se_resnet20_cifar", tmp_path / "staged")
    assert "is staged for the Hub" in fails("calibrate", tmp_path / "staged", "--data-dir", data)


@pytest.mark.parametrize("value", ["0", "-1", '"warm"', "true", "Infinity"])
def test_a_temperature_that_is_none_is_refused(tmp_path, fails, value):
    path = fake_run(tmp_path / "run", NAMES)
    config = path / "config.json"
    config.write_text(config.read_text().rstrip().removesuffix("}") + f', "temperature": {value}}}')
    assert re.search("config.json: .*(temperature|Infinity)", fails("predict", "x.png", "--model", path))


def test_a_stage_of_a_calibrated_net_keeps_its_temperature(tmp_path):
    net = load_model("se_resnet20_cifar", pretrained=False)
    assert "temperature" not in json.loads(render_config(net, "se_resnet20_cifar.cifar10"))
    path = fake_run(tmp_path / "run", class_names(net))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "temperature": 1.5}))
    assert json.loads(render_config(load_model(str(path)), "x"))["temperature"] == 1.5
