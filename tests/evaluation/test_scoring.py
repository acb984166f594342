"""Scores against values computed by hand or another way; folders as users have them, good and bad."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.data.transforms import class_names
from seattn.evaluation.prediction import predict_logits
from seattn.evaluation.scoring import (
    ClassCounts,
    calibration_bins,
    evaluate,
    summarize,
    wilson_interval,
)
from seattn.models._datasets import DATASETS, superclasses
from seattn.models.load import load_model
from tests.helpers.cifar_files import LABELS, take_as_whole, write_cifar
from tests.helpers.colours import write_colours

RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)


class StrongestColour(nn.Module):
    """A classifier whose answers are known: the colour channel with the largest mean."""

    def __init__(self, label_names: tuple[str, ...] | None = ("red", "green", "blue"), in_chans: int = 3) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.num_classes, self.in_chans = 3, in_chans
        self.pretrained_cfg = {
            "input_size": (3, 8, 8),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "crop_pct": 1.0,
            "label_names": label_names,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (self.in_chans, 8, 8)
        return self.scale * x.mean((2, 3)).expand(-1, 3)  # (B, 3)


def save(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def wilson_by_formula(correct: int, n: int, z: float) -> tuple[float, float]:
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


@pytest.mark.parametrize(("correct", "n"), [(8, 10), (931, 1000), (1, 3)])
def test_wilson_interval_is_the_formulas(correct, n):
    assert wilson_interval(correct, n) == pytest.approx(wilson_by_formula(correct, n, 1.959963984540054))
    assert wilson_interval(correct, n, 0.9) == pytest.approx(wilson_by_formula(correct, n, 1.6448536269514722))


def test_wilson_interval_stays_inside_0_and_1():
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == 1
    assert 0 < wilson_interval(10, 10)[0] < 1


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(correct, n):
    with pytest.raises(ValueError, match=f"{correct} of {n}"):
        wilson_interval(correct, n)


def test_calibration_error_by_hand():
    # 15 bins; in (0.8, 0.87]: confidence 0.85, one of two right: gap 0.35; in (0.6, 0.67]: 0.65, right: gap 0.35;
    # in (0.93, 1]: 0.95, wrong: gap 0.95.
    probabilities = torch.tensor([[0.85, 0.15], [0.15, 0.85], [0.65, 0.35], [0.95, 0.05]], dtype=torch.float64)
    found = summarize(probabilities.log(), torch.tensor([0, 0, 0, 1]), "ab")
    assert found.ece == pytest.approx((2 * 0.35 + 0.35 + 0.95) / 4)


def test_a_confidence_on_a_bins_edge_belongs_to_the_bin_below():
    count, confidence, accuracy = calibration_bins(np.array([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1]), bins=2)
    assert count.tolist() == [1, 1]
    assert confidence.tolist() == [0.5, 0.75]
    assert accuracy.tolist() == [1, 0]


def test_summarize_by_hand():
    #                        a    b    c    d
    logits = torch.tensor(
        [
            [3.0, 0.0, 0.0, 0.0],  # a as a
            [0.0, 3.0, 0.0, 0.0],  # a as b
            [0.0, 3.0, 0.0, 0.0],  # b as b
            [0.0, 3.0, 0.0, 0.0],  # c as b
            [0.0, 2.0, 0.0, 0.0],  # c as b
        ]
    )
    result = summarize(logits, torch.tensor([0, 0, 1, 2, 2]), ["a", "b", "c", "d"])
    assert (result.n, result.top1, result.top5) == (5, 0.4, 1.0)
    assert (result.top1_low, result.top1_high) == pytest.approx(wilson_by_formula(2, 5, 1.959963984540054))
    z3, z2 = math.log(math.exp(3) + 3), math.log(math.exp(2) + 3)
    assert result.loss == pytest.approx(((z3 - 3) + z3 + (z3 - 3) + z3 + z2) / 5)
    scores = {s.name: (s.precision, s.recall, s.f1, s.support) for s in result.per_class}
    assert set(scores) == {"a", "b", "c"}  # d does not occur
    assert scores["a"] == pytest.approx((1.0, 0.5, 2 / 3, 2))
    assert scores["b"] == pytest.approx((0.25, 1.0, 0.4, 1))
    assert scores["c"] == pytest.approx((0.0, 0.0, 0.0, 2))
    assert result.confusion == ((1, 1, 0, 0), (0, 1, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0))
    assert result.worst_pairs() == [("c", "b", 2), ("a", "b", 1)]
    assert result.worst_pairs(1) == [("c", "b", 2)]


def test_top5_counts_the_fifth_and_not_the_sixth():
    logits = torch.tensor([[7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(2, 1)
    assert summarize(logits, torch.tensor([4, 5]), list("abcdefg")).top5 == 0.5


def test_an_evaluation_is_json():
    result = summarize(torch.eye(3), torch.arange(3), ["a", "b", "c"])
    again = json.loads(json.dumps(result.to_dict()))
    assert again["top1"] == 1.0
    assert again["per_class"][1] == {"name": "b", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert again["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 3), [0, 1], "logits must be"),
        ((3, 2), [0, 1], "logits must be"),
        ((0, 2), [], "logits must be"),
        ((1, 2), [-1], r"labels must be in 0\.\.1"),
        ((1, 2), [2], r"labels must be in 0\.\.1"),
    ],
    ids=["classes", "images", "empty", "negative", "too large"],
)
def test_summarize_refuses_shapes_and_labels_that_do_not_fit(shape, labels, message):
    with pytest.raises(ValueError, match=message):
        summarize(torch.zeros(shape), torch.tensor(labels), "ab")


def test_summarize_tells_of_broken_weights():
    with pytest.raises(UserError, match="not finite for 1 of 2 images"):
        summarize(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), torch.tensor([0, 1]), "ab")


@pytest.mark.parametrize("channels_last", [False, True])
def test_predict_logits_runs_in_eval_mode_and_restores_the_mode(channels_last):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.num_classes = 4
    net(torch.randn(8, 3, 9, 9))  # statistics that differ from a batch's own
    images = torch.randn(5, 3, 9, 9)
    net.train()
    found = predict_logits(net, images.split([2, 3]), channels_last=channels_last)
    assert net.training
    assert found.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(found, net.eval()(images), atol=1e-6, rtol=1e-6)
    assert predict_logits(net, []).shape == (0, 4)
    assert not net.training


@pytest.fixture
def colours(tmp_path):
    """Two of the model's three classes; one blue image lies in red's folder; sizes differ."""
    save(tmp_path / "red" / "0.png", RED, (8, 8))
    save(tmp_path / "red" / "1.jpg", BLUE, (33, 7))
    save(tmp_path / "red" / "2.PNG", RED, (1, 1))
    save(tmp_path / "green" / "deeper" / "0.png", GREEN, (50, 80))
    (tmp_path / "green" / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.mark.parametrize(("batch_size", "workers"), [(256, 0), (1, 1)])
def test_a_folder_with_some_of_the_classes_is_matched_by_name(colours, batch_size, workers):
    result = evaluate(StrongestColour(), colours, batch_size=batch_size, workers=workers)
    assert (result.n, result.top1) == (4, 0.75)
    assert result.class_names == ("red", "green", "blue")
    assert {s.name: s.support for s in result.per_class} == {"red": 3, "green": 1}
    assert result.confusion == ((2, 0, 1), (0, 1, 0), (0, 0, 0))


def test_views_are_averaged_in_an_evaluation(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4], pixels[:, 4:] = RED, BLUE
    (tmp_path / "red").mkdir()
    Image.fromarray(pixels).save(tmp_path / "red" / "0.png")
    net = StrongestColour()
    net.forward = lambda x: 5 * x[..., :4].mean((2, 3))  # the left half
    plain, flipped = (evaluate(net, tmp_path, workers=0, tta=tta) for tta in ("none", "flip"))
    assert plain.loss < 0.01
    # Red and blue are equally probable: each of them leads in one of two views.
    assert flipped.loss == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.parametrize("label_names", [("red", "green", "blue"), None])
def test_other_folder_names_are_matched_by_order_with_a_warning(tmp_path, caplog, label_names):
    for name, colour in zip("xyz", (RED, GREEN, GREEN), strict=True):
        save(tmp_path / name / "0.png", colour)
    result = evaluate(StrongestColour(label_names), tmp_path, workers=0)
    assert result.top1 == pytest.approx(2 / 3)
    assert result.worst_pairs() == [("z", "y", 1)]
    assert "'x' is not a class of the model" in caplog.text


def numbered(root):
    """Class folders "1", "2", "10" of red, green and blue images."""
    for name, colour in zip(("1", "2", "10"), (RED, GREEN, BLUE), strict=True):
        save(root / name / "0.png", colour)


def test_numbers_are_classes_by_value_and_the_other_order_is_named(tmp_path, caplog):
    numbered(tmp_path)
    result = evaluate(StrongestColour(), tmp_path, workers=0)
    assert (result.top1, result.class_names) == (1, ("1", "2", "10"))
    assert "by their order, 1 to 10 by number (as text, 10 would come before 2)" in caplog.text
    assert "--class-map FILE" in caplog.text


@pytest.mark.parametrize("mark", ["", "\ufeff"])  # the byte order mark of editors on Windows
def test_a_class_map_says_which_folder_is_which_class(tmp_path, caplog, mark):
    numbered(tmp_path / "data")
    (tmp_path / "map.txt").write_text(f"{mark}10\n2\n1\n", encoding="utf-8")
    result = evaluate(StrongestColour(), tmp_path / "data", workers=0, class_map=tmp_path / "map.txt")
    assert (result.top1, result.class_names) == (pytest.approx(1 / 3), ("10", "2", "1"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "has 2 different lines, and the model 3 classes"),
        ("1\n2\n2\n", "has 2 different lines, and the model 3 classes"),
        ("1\n2\n3\n", "class folder '10' is not in the class map"),
        (None, "the class map .*map.txt is not a file; give a text file"),
        (b"\xff", "class map .*map.txt is not text in UTF-8"),
    ],
)
def test_a_class_map_that_does_not_fit_is_refused(tmp_path, text, message):
    numbered(tmp_path / "data")
    if text is not None:
        (tmp_path / "map.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        evaluate(StrongestColour(), tmp_path / "data", workers=0, class_map=tmp_path / "map.txt")


def test_images_are_turned_by_their_exif_orientation_unless_asked_otherwise(tmp_path):
    exif, pixels = Image.Exif(), np.zeros((8, 8, 3), np.uint8)
    exif[0x0112] = 3  # stored upside down
    pixels[:4], pixels[4:] = RED, BLUE
    (tmp_path / "red").mkdir()
    Image.fromarray(pixels).save(tmp_path / "red" / "0.png", exif=exif)
    net = StrongestColour()
    net.forward = lambda x: x[:, :, :4].mean((2, 3))  # the upper half
    assert evaluate(net, tmp_path, workers=0, exif=False).top1 == 1
    assert evaluate(net, tmp_path, workers=0).confusion[0][2] == 1


def test_classes_that_do_not_fit_are_refused(tmp_path):
    save(tmp_path / "red" / "0.png", RED)
    save(tmp_path / "purple" / "0.png", BLUE)
    with pytest.raises(UserError, match=r"'purple' is not one of the model's 3 classes .*2 folders"):
        evaluate(StrongestColour(), tmp_path, workers=0)


def test_a_grey_model_gets_one_channel(colours):
    assert evaluate(StrongestColour(in_chans=1), colours, workers=0).n == 4


def test_other_channel_counts_are_refused(colours):
    with pytest.raises(UserError, match="takes 2 channels"):
        evaluate(StrongestColour(in_chans=2), colours, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_in_one_line(colours, workers):
    bad = colours / "red" / "1b.png"
    bad.write_bytes((colours / "red" / "0.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"cannot read image .*1b\.png") as error:
        evaluate(StrongestColour(), colours, batch_size=2, workers=workers)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("folder", [".", "data", "data/red"])
def test_a_missing_or_empty_folder_says_what_is_expected(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match=r"(no data folder|has no folders|no images in).*<class>/<image>"):
        evaluate(StrongestColour(), tmp_path / "data", workers=0)


def test_torchvisions_cifar_files_score_as_the_same_images_in_folders(tmp_path, monkeypatch, capsys):
    take_as_whole(monkeypatch)
    net = load_model("se_resnet20_cifar")
    pixels = write_cifar(tmp_path / "files", class_names(net))
    for i, label in enumerate(LABELS):
        path = tmp_path / "folders" / "test" / class_names(net)[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i].reshape(3, 32, 32).transpose(1, 2, 0)).save(path)
    files = evaluate(net, tmp_path / "files", workers=0)
    folders = evaluate(net, tmp_path / "folders", workers=0)
    assert (files.n, files.confusion, files.class_names) == (6, folders.confusion, folders.class_names)
    assert files.loss == pytest.approx(folders.loss, rel=1e-6)
    assert (
        main(["evaluate", "se_resnet20_cifar", "--data-dir", str(tmp_path / "files"), "--workers", "0", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["n"]) == (f"{tmp_path / 'files' / 'cifar-10-batches-py'}, test", 6)
    with pytest.raises(UserError, match=r"cifar-10-batches-py has no split 'validation'; it has train and test"):
        evaluate(net, tmp_path / "files", "validation")


def test_superclasses_of_cifar100():
    names = DATASETS["cifar100"].label_names
    groups = superclasses(names)
    assert Counter(groups) == dict.fromkeys(groups, 5)
    assert len(set(groups)) == 20
    reversed_names = tuple(reversed(names))
    assert superclasses(reversed_names) == tuple(reversed(groups))
    apple, mushroom, bear = (names.index(name) for name in ("apple", "mushroom", "bear"))
    confusion = [[10 * (i == j) for j in range(100)] for i in range(100)]
    confusion[apple][apple], confusion[apple][mushroom], confusion[apple][bear] = 3, 5, 2
    counts = ClassCounts()
    counts.class_names, counts.confusion = names, confusion
    assert counts.superclass_top1 == 0.998
    counts.class_names, counts.confusion = ("apple",), ((1,),)
    assert counts.superclass_top1 is None


def test_the_command_shows_superclasses(tmp_path, capsys):
    write_colours(tmp_path, dict.fromkeys(DATASETS["cifar100"].label_names, 0), {"test": [1] * 100})
    command = ["evaluate", "se_resnet20_cifar.cifar100", "--data-dir", str(tmp_path)]
    checkpoint = tmp_path / "weights.safetensors"
    save_file(timm.create_model("se_resnet20_cifar.cifar100").state_dict(), checkpoint)
    assert main([*command, "--checkpoint", str(checkpoint)]) == 0
    assert re.search(r"^top-1 of superclasses \d+\.\d\d%$", capsys.readouterr().out, re.MULTILINE)
    assert main([*command, "--checkpoint", str(checkpoint), "--json"]) == 0
    by_name = json.loads(capsys.readouterr().out)
    assert 0 <= by_name["superclass_top1"] <= 1
    for number, name in enumerate(DATASETS["cifar100"].label_names):
        (tmp_path / "test" / name).rename(tmp_path / "test" / f"{number:03}")
    assert main([*command, "--checkpoint", str(checkpoint), "--json"]) == 0  # matched by their order
    assert json.loads(capsys.readouterr().out)["superclass_top1"] == by_name["superclass_top1"]
