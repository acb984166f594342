"""Predictions equal a forward pass written out by hand; files that are no images are refused by name."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

import seattn  # noqa: F401  # registers the models
from seattn.core.errors import UserError
from seattn.data.images import read_image
from seattn.data.transforms import class_names, eval_transform
from seattn.evaluation.explanation import explain
from seattn.evaluation.prediction import Prediction, Unreadable, find_images, predict, predict_each
from seattn.evaluation.probabilities.views import views


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("se_resnet20_cifar").eval()


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_prediction_is_the_forward_pass_by_hand(model, photo):
    cfg = model.pretrained_cfg
    pixels = np.asarray(Image.open(photo)).astype(np.float32) / 255
    x = torch.tensor((pixels - cfg["mean"]) / cfg["std"], dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model(x).exp()[0]
    expected = (expected / expected.sum()).tolist()
    order = sorted(range(10), key=lambda i: -expected[i])

    (found,) = predict(model, [photo], topk=3)
    assert found.image == str(photo)
    assert list(found.indices) == order[:3]
    assert found.labels == tuple(cfg["label_names"][i] for i in order[:3])
    assert found.probabilities == pytest.approx([expected[i] for i in order[:3]], rel=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
@pytest.mark.parametrize("size", [(1, 1), (7, 33), (300, 200)])
def test_every_size_and_mode_of_image_is_taken(model, tmp_path, mode, size):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new(mode, size).save(path)
    (found,) = predict(model, [path])
    assert sum(found.probabilities) <= 1 + 1e-6
    assert len(found.labels) == 5


def test_each_image_has_its_own_prediction_in_any_batch_size(model, photo, tmp_path):
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    paths = [photo, tmp_path / "white.png", photo]
    together, apart = predict(model, paths), predict(model, paths, batch_size=1)
    for a, b in zip(together, apart, strict=True):
        assert a.indices == b.indices
        assert a.probabilities == pytest.approx(b.probabilities, rel=1e-4)
    assert together[0].probabilities == pytest.approx(together[2].probabilities, rel=1e-4)
    assert together[0].probabilities != pytest.approx(together[1].probabilities, rel=1e-2)


def test_topk_above_the_number_of_classes_gives_all(model, photo):
    (found,) = predict(model, [photo], topk=99)
    assert sorted(found.indices) == list(range(10))
    assert sum(found.probabilities) == pytest.approx(1)


def test_topk_below_one_is_refused(model, photo):
    with pytest.raises(UserError, match="topk must be at least 1, got 0"):
        predict(model, [photo], topk=0)


def test_a_grey_model_normalises_one_channel_with_the_mean_statistics(photo):
    grey = timm.create_model("se_resnet20_cifar", in_chans=1).eval()
    x = eval_transform(grey)(Image.new("L", (32, 32), 255))
    cfg = grey.pretrained_cfg
    assert x.shape == (1, 32, 32)
    assert x.unique().item() == pytest.approx((1 - sum(cfg["mean"]) / 3) / (sum(cfg["std"]) / 3), rel=1e-5)
    assert len(predict(grey, [photo])) == 1


@pytest.mark.parametrize("content", [None, b"", b"not an image", "truncated"], ids=["missing", "empty", "text", "cut"])
def test_a_file_that_is_no_image_is_named(model, photo, tmp_path, content):
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(photo.read_bytes()[:200] if content == "truncated" else content)
    with pytest.raises(UserError, match=r"(no such image file: |cannot read image ).*bad\.png"):
        predict(model, [photo, bad])


def test_without_label_names_that_fit_classes_are_numbered():
    assert class_names(timm.create_model("se_resnet20_cifar", num_classes=2)) == ("class 0", "class 1")


def test_label_names_may_be_a_mapping_from_some_outputs():
    net = timm.create_model("se_resnet20_cifar", num_classes=3)
    for labels, expected in (
        ({"2": "c", "0": "a"}, ("a", "class 1", "c")),
        ({0: "a", 1: "b", 2: "c"}, ("a", "b", "c")),
        ({"n01": "a", "n02": "b", "n03": "c"}, ("a", "b", "c")),
        ({"n01": "a"}, ("class 0", "class 1", "class 2")),
    ):
        net.pretrained_cfg = {**net.pretrained_cfg, "label_names": labels}
        assert class_names(net) == expected


def test_a_prediction_as_json_has_it():
    found = Prediction("a.png", ("cat", "dog"), (3, 5), (0.75, 0.25)).to_dict()
    assert found == {
        "image": "a.png",
        "answer": "cat",
        "predictions": [
            {"label": "cat", "index": 3, "probability": 0.75},
            {"label": "dog", "index": 5, "probability": 0.25},
        ],
    }


def test_below_the_threshold_the_answer_is_unknown(model, photo):
    (found,) = predict(model, [photo])
    highest = found.probabilities[0]
    assert found.answer == found.labels[0]
    for threshold, answer in ((highest, found.labels[0]), (min(1, highest * 1.001), "unknown")):
        (again,) = predict(model, [photo], unknown_below=threshold)
        assert (again.answer, again.to_dict()["answer"]) == (answer, answer)
        assert again.probabilities == found.probabilities
    with pytest.raises(UserError, match=r"must be a probability from 0 to 1, got 1.5"):
        predict(model, [photo], unknown_below=1.5)


@pytest.mark.parametrize("tta", ["flip", "crops"])
def test_views_are_averaged_as_by_hand(model, photo, tta):
    x = eval_transform(model)(read_image(photo))[None]
    wide = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    windows = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    views = [x, x.flip(-1)] if tta == "flip" else [wide[:, :, y : y + 32, z : z + 32] for y, z in windows]
    with torch.no_grad():
        expected = torch.cat([model(view).softmax(1) for view in views]).mean(0)
    (found,) = predict(model, [photo], topk=10, tta=tta)
    assert found.probabilities == pytest.approx(expected.sort(descending=True).values.tolist(), rel=1e-4)
    assert found.probabilities != pytest.approx(predict(model, [photo], topk=10)[0].probabilities, rel=1e-3)
    with pytest.raises(UserError, match="--tta must be one of none, flip, crops, got 'mirror'"):
        predict(model, [photo], tta="mirror")


@pytest.mark.parametrize("size", [(1, 1), (1, 33), (7, 5), (64, 32)])
def test_views_have_the_size_of_the_image(size):
    x = torch.rand(2, 3, *size)
    assert {tuple(view(x).shape) for tta in ("none", "flip", "crops") for view in views(tta)} == {tuple(x.shape)}


def test_images_are_read_batch_by_batch_and_predicted_as_they_come(model, photo, tmp_path, monkeypatch):
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [photo, tmp_path / "bad.png", photo, photo, tmp_path / "nowhere.png", photo]
    read = []

    def read_and_remember(path, mode, *, exif):
        read.append(path.name)
        return read_image(path, mode, exif=exif)

    monkeypatch.setattr("seattn.evaluation.prediction.read_image", read_and_remember)
    results = predict_each(model, paths, batch_size=2)
    first = next(results)
    assert len(read) == 2
    results = [first, *results]
    unreadable = [isinstance(result, Unreadable) for result in results]
    assert unreadable == [False, True, False, False, True, False]
    assert [result.image for result in results] == [str(path) for path in paths]
    assert results[-1].probabilities == pytest.approx(predict(model, [photo])[0].probabilities, rel=1e-4)


def test_folders_and_patterns_are_their_images(photo, tmp_path):
    for name in ("a/2.png", "a/1.JPG", "a/.hidden/3.png", "a/text.txt", "[b].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo.read_bytes())
    folder = tmp_path / "a"
    assert find_images([folder, tmp_path / "[b].png"]) == [folder / "1.JPG", folder / "2.png", tmp_path / "[b].png"]
    found = find_images([str(tmp_path / "*")])  # the pattern matches the folder
    assert {folder / "1.JPG", folder / "2.png"} < set(found)
    assert all(path.is_file() for path in found)
    assert find_images([str(folder / "*.txt"), "nowhere.png"]) == [folder / "text.txt", Path("nowhere.png")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images in .*empty; an image is a file such as"):
        find_images([tmp_path / "empty"])


def test_a_name_that_is_too_long_for_the_system_is_one_unreadable_image(model, photo):
    name = f"{'x' * 300}.png"
    bad, good = predict_each(model, find_images([name, photo]))
    assert bad == Unreadable(name, f"cannot read image {name}: File name too long")
    assert good.image == str(photo)


@pytest.mark.parametrize("function", [predict, explain])
def test_a_model_with_broken_weights_is_refused(photo, function):
    broken = timm.create_model("se_resnet20_cifar")
    broken.fc.weight.data[3, 5] = float("nan")
    with pytest.raises(UserError, match=f"the model's outputs for {photo} are not finite"):
        function(broken, [photo])


def test_python_callers_may_give_one_path_half_precision_or_a_net_of_another_library(photo):
    net = timm.create_model("se_resnet20_cifar.cifar10").eval()
    (one,) = predict(net, str(photo))
    assert predict(net, [photo]) == [one]
    assert len(predict(net.bfloat16(), photo)[0].labels) == 5
    with pytest.raises(UserError, match="give one model or more"):
        predict({}, [photo])
    with pytest.raises(UserError, match=r"the model has outputs of shape \(1, 7\) for 1 images, and 0 classes by its"):
        predict(torchvision.models.resnet18(num_classes=7), [photo])
