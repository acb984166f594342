"""`seattn predict --runtime`: the classes of an exported file are those of the net; other files are one line."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import timm

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.deploy.metadata import KEY, describe, parse
from seattn.models.load import load_model, model_temperature, set_temperature
from tests.deploy.conftest import ARCH

FILES = {"onnx": "net.onnx", "openvino": "net.xml", "executorch": "net.pte"}


def predictions(capsys, *args):
    capsys.readouterr()
    assert main(["predict", *map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("runtime", FILES)
def test_an_exported_file_predicts_the_classes_of_the_net(runtime, exported, photos, capsys):
    _, file = exported(runtime)
    images = photos / "test" / "cat"
    found = predictions(capsys, "--runtime", runtime, file, images)
    expected = predictions(capsys, images, "--model", ARCH)
    assert len(found) == len(expected) > 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["image"] == theirs["image"]
        assert [c["label"] for c in ours["predictions"]] == [c["label"] for c in theirs["predictions"]]
        assert [c["probability"] for c in ours["predictions"]] == pytest.approx(
            [c["probability"] for c in theirs["predictions"]], abs=1e-5
        )


def test_an_exported_file_keeps_the_temperature(exported, photos, tmp_path, capsys):
    _, file = exported("onnx")
    images = photos / "test" / "cat"
    model = onnx.load(file)
    (text,) = [entry for entry in model.metadata_props if entry.key == KEY]
    temperature = json.loads(text.value)["temperature"]
    assert temperature == model_temperature(load_model(ARCH))
    text.value = json.dumps(json.loads(text.value) | {"temperature": 2 * temperature})
    onnx.save(model, tmp_path / "soft.onnx")
    plain = predictions(capsys, "--runtime", "onnx", file, images)
    soft = predictions(capsys, "--runtime", "onnx", tmp_path / "soft.onnx", images)
    for one, other in zip(plain, soft, strict=True):
        first, second = (c["probability"] for c in one["predictions"][:2])
        softer, lower = (c["probability"] for c in other["predictions"][:2])
        assert softer / lower == pytest.approx((first / second) ** 0.5, rel=1e-3)


def test_the_temperature_of_a_calibrated_net_is_exported():
    net = timm.create_model(ARCH)
    set_temperature(net, 1.5)
    text = describe(net, ARCH).to_json()
    assert parse(text, Path("net.onnx")).temperature == 1.5
    for wrong in (0, -1, "NaN", "hot"):
        with pytest.raises(UserError, match=r"the metadata in net\.onnx are damaged"):
            parse(json.dumps(json.loads(text) | {"temperature": wrong}), Path("net.onnx"))


def test_an_image_that_cannot_be_read_is_reported_and_the_others_are_classified(exported, photos, tmp_path, capsys):
    _, file = exported("onnx")
    (tmp_path / "bad.png").write_text("no image")
    photo = next((photos / "test" / "cat").iterdir())
    assert main(["predict", "--runtime", "onnx", str(file), str(tmp_path / "bad.png"), str(photo)]) == 1
    out, err = capsys.readouterr()
    assert str(photo) in out
    assert err.count("\n") == 1


@pytest.fixture
def photo(photos):
    return next((photos / "test" / "cat").iterdir())


def test_an_onnx_file_of_something_else_is_one_line(exported, photo, tmp_path, fails):
    _, file = exported("onnx")
    model = onnx.load(file)
    del model.metadata_props[:]
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    line = fails("predict", "--runtime", "onnx", other, photo)
    assert f"{other} has no preprocessing and class names: it was not written by seattn export --to onnx; " in line


def test_an_executorch_file_without_its_metadata_is_one_line(exported, photo, tmp_path, fails):
    (tmp_path / "net.pte").write_bytes(exported("executorch")[1].read_bytes())
    line = fails("predict", "--runtime", "executorch", tmp_path / "net.pte", photo)
    assert "net.pte.json, which has the preprocessing and class names, is missing; move both files together, or" in line
    (tmp_path / "net.pte.json").write_text('{"model": "a"}')
    line = fails("predict", "--runtime", "executorch", tmp_path / "net.pte", photo)
    assert f"the metadata in {tmp_path / 'net.pte.json'} are damaged" in line
    (tmp_path / "net.pte.json").write_bytes(b"\xff")
    line = fails("predict", "--runtime", "executorch", tmp_path / "net.pte", photo)
    assert "net.pte.json is not text in UTF-8" in line


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        '{"model": "a", "class_names": [], "preprocessing": {}}',
        200_000 * "[",
        '{"model": 1e999}',
    ],
)
def test_damaged_metadata_are_one_line(text, exported, photo, tmp_path, fails):
    _, file = exported("onnx")
    model = onnx.load(file)
    onnx.helper.set_model_props(model, {KEY: text})
    onnx.save(model, tmp_path / "net.onnx")
    line = fails("predict", "--runtime", "onnx", tmp_path / "net.onnx", photo)
    assert f"the metadata in {tmp_path / 'net.onnx'} are damaged" in line


@pytest.mark.parametrize("runtime", FILES)
def test_a_file_that_is_not_of_the_format_or_not_there_is_one_line(runtime, photo, tmp_path, fails):
    file = tmp_path / FILES[runtime]
    file.write_text("nothing")
    assert f"{runtime} cannot read {file}: " in fails("predict", "--runtime", runtime, file, photo)
    assert "no such exported file: " in fails("predict", "--runtime", runtime, tmp_path / "nowhere", photo)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--runtime", "tensorrt", "{file}", "{photo}"],
            "unknown runtime 'tensorrt'; give one of onnx, openvino, executorch",
        ),
        (["--runtime", "onnx", "{file}"], "give an exported file and images"),
        (["--runtime", "onnx", "{file}", "{photo}", "--model", "se_resnet50"], "omit --model"),
        (["--runtime", "onnx", "{file}", "{photo}", "--model", "se_resnet18_cifar"], "omit --model"),
        (["--runtime", "onnx", "{file}", "{photo}", "--device", "cuda"], "omit --model, --checkpoint and --device"),
    ],
)
def test_arguments_that_do_not_fit_a_runtime_are_one_line(args, message, photo, tmp_path, fails):
    file = tmp_path / "net.onnx"
    file.write_text("nothing")
    assert message in fails("predict", *(arg.format(file=file, photo=photo) for arg in args))


@pytest.mark.parametrize(
    ("runtime", "module", "extra"),
    [
        ("onnx", "onnxruntime", "deploy"),
        ("openvino", "openvino", "deploy"),
        ("executorch", "executorch.runtime", "mobile"),
    ],
)
def test_a_runtime_that_is_not_installed_is_one_line(runtime, module, extra, monkeypatch, photo, tmp_path, fails):
    monkeypatch.setitem(sys.modules, module, None)
    file = tmp_path / "net"
    file.write_text("nothing")
    line = fails("predict", "--runtime", runtime, file, photo)
    package = module.partition(".")[0]
    assert f'the runtime {runtime} needs {package}, which is not installed: pip install "seattn[{extra}]"' in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b"]}, "has outputs of shape (1, 10) for 1 images, and 2 names of classes"),
        ({"class_names": "ab"}, "class_names must be"),
        ({"class_names": ["a\nb"] * 10}, "label_names must be names that are each on one line"),
        ({"temperature": 1e-300}, "temperature must be"),
        ({"temperature": 10**400}, "temperature must be"),
        ({"preprocessing.input_size": [3, 1e999, 32]}, "input_size.1 must be"),
        ({"preprocessing.interpolation": "foo"}, "preprocessing.interpolation must be"),
        ({"preprocessing.crop_pct": 1e-9}, "preprocessing.crop_pct must be"),
        ({"preprocessing.crop_pct": "x"}, "preprocessing.crop_pct must be"),
        ({"preprocessing.crop_mode": "zz"}, "preprocessing.crop_mode must be"),
        ({"preprocessing.mean": ["a", 0, 0]}, "preprocessing.mean.0 must be"),
        ({"preprocessing.mean": [0, 0]}, "mean and std must have a number for each of 3 channels"),
        ({"preprocessing.std": [0, 1, 1]}, "preprocessing.std.0 must be"),
        ({"largest_batch": 0}, "largest_batch must be"),
    ],
)
def test_metadata_out_of_bounds_are_named(changes, message, exported, photo, tmp_path, fails):
    _, file = exported("onnx")
    model = onnx.load(file)
    content = json.loads(next(item.value for item in model.metadata_props if item.key == KEY))
    for key, value in changes.items():
        *outer, last = key.split(".")
        (content[outer[0]] if outer else content)[last] = value
    onnx.helper.set_model_props(model, {KEY: json.dumps(content).replace("Infinity", "1e999")})
    onnx.save(model, tmp_path / "net.onnx")
    assert message in fails("predict", "--runtime", "onnx", tmp_path / "net.onnx", photo)
