"""What the app says is what `predict` and `explain` say, under the names that files had before the upload."""

import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from seattn.core.errors import UserError
from seattn.data.samples import MOST_EXAMPLES, example_files, load_sample
from seattn.deploy.app.answers import NO_GATES, Classifier, choices
from seattn.deploy.app.uploads import Upload, uploaded_files, uploaded_image
from seattn.evaluation.explanation import explain
from seattn.evaluation.prediction import Unreadable, predict
from seattn.models import models_with_weights
from seattn.models.checkpoints.folder import save_net
from seattn.models.load import load_model, set_temperature

ARCH = "se_resnet20_cifar"


@pytest.fixture
def classifier():
    return Classifier(choices(ARCH))


def test_the_answer_is_that_of_predict_and_explain(classifier, pictures):
    answer = classifier.answer(ARCH, Upload(pictures["frog"], "my frog (1).png"), 0.0)
    net = load_model(ARCH)
    assert answer.prediction == replace(predict(net, [pictures["frog"]])[0], image="my frog (1).png")
    explanation = explain(net, [pictures["frog"]])[0]
    assert np.array_equal(answer.picture[::8, ::8], explanation.picture)
    assert answer.heat.shape == answer.picture.shape == (256, 256, 3)
    assert f"mean {np.mean([layer.gates.mean() for layer in explanation.gates]):.2f}" in answer.gates.alt
    assert answer.notes == ()


def test_the_temperature_and_the_threshold_are_those_of_predict(classifier, pictures):
    upload = Upload(pictures["dog"], "dog.png")
    sharp = classifier.answer(ARCH, upload, 0.5).prediction
    set_temperature(classifier.load(ARCH), 100.0)
    flat = classifier.answer(ARCH, upload, 0.5).prediction
    assert (sharp.answer, flat.answer) == (sharp.labels[0], "unknown")
    assert flat.probabilities[0] < 0.2 < 0.5 < sharp.probabilities[0]
    with pytest.raises(UserError, match="must be a probability from 0 to 1, got 2"):
        classifier.answer(ARCH, upload, 2)


def test_many_images_are_answered_in_order_and_bad_ones_named(classifier, pictures, text):
    uploads = [Upload(path, f"{name}!.png") for name, path in pictures.items()]
    uploads.insert(2, Upload(text, "notes.png"))
    results = list(classifier.answer_each(ARCH, uploads, 0.0))
    assert [result.image for result in results] == [upload.name for upload in uploads]
    assert [i for i, result in enumerate(results) if isinstance(result, Unreadable)] == [2]
    assert results[2].reason == "cannot read image notes.png: cannot identify image file 'notes.png'"
    expected = predict(load_model(ARCH), list(pictures.values()))
    assert [r.labels for r in results if not isinstance(r, Unreadable)] == [p.labels for p in expected]


def test_without_grad_cam_the_classes_and_gates_stay(classifier, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    answer = classifier.answer(ARCH, Upload(pictures["frog"], "frog.png"), 0.0)
    assert answer.prediction.labels[0] == "frog"
    assert answer.heat is None
    assert answer.gates is not None
    assert 'pip install "seattn[explain]"' in answer.notes[0]


@pytest.mark.parametrize("arch", ["resnet20_cifar", "vit_tiny_patch16_224"])
def test_a_net_without_attention_has_no_gates_and_one_without_maps_says_so(arch, tmp_path, pictures):
    torch.manual_seed(0)
    size = {"img_size": 32} if arch.startswith("vit") else {}
    save_net(timm.create_model(arch, num_classes=3, **size), tmp_path, ("a", "b", "c"))
    answer = Classifier({"mine": str(tmp_path)}).answer("mine", Upload(pictures["frog"], "frog.png"), 0.0)
    assert set(answer.prediction.labels) == {"a", "b", "c"}
    assert answer.gates is None
    assert answer.notes[-1] == NO_GATES
    assert (answer.heat is None) == arch.startswith("vit")
    assert len(answer.notes) == (2 if arch.startswith("vit") else 1)


def test_a_net_is_described_and_loaded_once(classifier, monkeypatch):
    facts = classifier.describe(ARCH)
    assert (facts.parameters, facts.size, facts.temperature) == (274_847, (32, 32), 1.0)
    assert facts.classes == load_sample("cifar10").class_names
    assert classifier.load(ARCH) is classifier.load(ARCH)
    with pytest.raises(UserError, match="there are no weights 'other' here; there are se_resnet20_cifar, "):
        classifier.load("other")


def test_threads_do_not_see_each_others_images(classifier, pictures):
    uploads = {name: Upload(path, name) for name, path in pictures.items()}
    alone = {name: classifier.answer(ARCH, upload, 0.0) for name, upload in uploads.items()}
    together = {}

    def ask(name, upload):
        together[name] = classifier.answer(ARCH, upload, 0.0)

    threads = [threading.Thread(target=ask, args=item) for item in uploads.items()]
    for thread in threads:
        thread.start()
    results = list(classifier.answer_each(ARCH, list(uploads.values()), 0.0))
    for thread in threads:
        thread.join()
    for name, result in zip(uploads, results, strict=True):
        assert result.labels == together[name].prediction.labels == alone[name].prediction.labels
        assert np.array_equal(together[name].heat, alone[name].heat)


def test_the_choice_begins_with_the_given_model_and_has_all_packaged_weights():
    assert list(choices(ARCH)) == [ARCH, *(name for name in models_with_weights() if name != f"{ARCH}.cifar10")]
    assert list(choices(f"{ARCH}.cifar10")).count(f"{ARCH}.cifar10") == 1
    assert list(choices("runs/mine")) == ["runs/mine", *models_with_weights()]
    with pytest.raises(UserError, match="has no tag 'cifar11'"):
        choices(f"{ARCH}.cifar11")


def test_uploads_have_the_names_that_their_owner_gave_and_are_in_the_folder(tmp_path):
    file = {"path": f"{tmp_path}/0a/photo 1.png", "orig_name": "photo (1).png", "size": 3}
    assert uploaded_image(file, tmp_path) == Upload(tmp_path / "0a" / "photo 1.png", "photo (1).png")
    assert uploaded_image({"path": f"{tmp_path}/x.png", "orig_name": None}, tmp_path).name == "x.png"
    assert uploaded_image(None, tmp_path) is None
    assert uploaded_image({"path": None}, tmp_path) is None
    assert uploaded_files(None, tmp_path) == []
    assert [upload.name for upload in uploaded_files([file, file], tmp_path)] == ["photo (1).png"] * 2
    (tmp_path / "link").symlink_to("/etc")
    for path in ("/etc/passwd", f"{tmp_path}/../secret.png", f"{tmp_path}/link/passwd", f"{tmp_path}x/secret.png"):
        with pytest.raises(UserError, match="was not uploaded to this page"):
            uploaded_image({"path": path}, tmp_path)


def test_examples_are_readable_and_few(pictures, text):
    folder = pictures["frog"].parent
    assert example_files(folder) == sorted(pictures.values())
    assert len(pictures) == 7
    with pytest.raises(UserError, match=r"cannot read image .*text\.png"):
        example_files(text.parent)
    for number in range(MOST_EXAMPLES + 1):
        (text.parent / f"{number}.png").touch()
    with pytest.raises(UserError, match="has 26 images; an app shows at most 24"):
        example_files(text.parent)
    with pytest.raises(UserError, match="No such file"):
        example_files(folder / "none")


def test_without_gradio_the_command_says_what_to_install(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert 'the app needs gradio, which is not installed: pip install "seattn[app]"' in fails("app")
