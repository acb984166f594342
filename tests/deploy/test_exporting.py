"""`seattn export`: files that compute what the net computes, say how to use them, and are whole or absent."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import seattn.deploy
import seattn.deploy.exporting
from seattn.__main__ import main
from seattn.data.transforms import class_names, data_config
from seattn.deploy.formats import FORMATS
from seattn.models.load import load_model
from tests.deploy.conftest import ARCH, WEIGHTS
from tests.helpers import core_ml
from tests.helpers.runs import write_run

SECOND_FILES = {
    "onnx": [],
    "openvino": ["net.bin"],
    "torch": ["net.pt2.json"],
    "torchscript": ["net.pt.json"],
    "executorch": ["net.pte.json"],
    "coreml": [],
}
CAN_RUN = [name for name, target in FORMATS.items() if target.runs_here]


@pytest.fixture(scope="module")
def net():
    return load_model(ARCH)


@pytest.mark.parametrize("to", CAN_RUN)
def test_a_file_computes_what_the_net_computes_for_any_number_of_images(to, exported, net):
    done, file = exported(to)
    run, _ = FORMATS[to].load(file)
    for count in (1, 7, 65):
        x = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            torch.testing.assert_close(run(x), net(x), rtol=0, atol=1e-4)
    assert done.difference < 1e-5
    assert done.images == 59
    assert done.top1_before == done.top1_after > 0.8


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_is_left_beside_the_files(to, exported):
    done, file = exported(to)
    assert sorted(path.name for path in file.parent.iterdir()) == sorted([file.name, *SECOND_FILES[to]])
    assert done.bytes == sum(path.stat().st_size for path in file.parent.rglob("*") if path.is_file())


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_has_the_preprocessing_and_the_classes(to, exported, net):
    _, file = exported(to)
    _, text = FORMATS[to].load(file)
    metadata = json.loads(text or Path(f"{file}.json").read_text())
    assert metadata["model"] == ARCH
    assert tuple(metadata["class_names"]) == class_names(net)
    config = data_config(net)
    assert {key: tuple(config[key]) for key in ("input_size", "mean", "std")} == {
        key: tuple(metadata["preprocessing"][key]) for key in ("input_size", "mean", "std")
    }
    assert {key: metadata["preprocessing"][key] for key in ("interpolation", "crop_pct", "crop_mode")} == {
        key: config[key] for key in ("interpolation", "crop_pct", "crop_mode")
    }


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch", "executorch", "coreml"])
def test_a_file_does_not_name_source_files_of_this_machine(to, exported):
    _, file = exported(to)
    folder = str(Path(seattn.deploy.exporting.__file__).parents[2]).encode()
    assert all(folder not in path.read_bytes() for path in file.parent.rglob("*") if path.is_file())


def test_an_executorch_file_takes_as_many_images_as_its_metadata_say_and_xnnpack_computes_all_of_it(exported):
    from executorch.runtime import Runtime

    _, file = exported("executorch")
    program = Runtime.get().load_program(file)
    method = program.load_method("forward")
    largest = json.loads(Path(f"{file}.json").read_text())["largest_batch"]
    assert method.metadata.input_tensor_meta(0).sizes() == (largest, 3, 32, 32)
    assert method.execute([torch.zeros(largest, 3, 32, 32)])[0].shape == (largest, 10)
    with pytest.raises(RuntimeError):
        method.execute([torch.zeros(largest + 1, 3, 32, 32)])
    assert b"XnnpackBackend" in file.read_bytes()
    assert b"aten::" not in file.read_bytes()  # the names of operators that XNNPACK leaves to ExecuTorch


def test_operators_and_weights_of_a_core_ml_package_are_those_of_the_net(exported, net):
    _, file = exported("coreml")
    x = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(core_ml.logits(file, x), net(x), rtol=0, atol=1e-4)


def test_a_core_ml_package_takes_as_many_images_as_its_metadata_say(exported):
    import coremltools

    _, file = exported("coreml")
    description = coremltools.utils.load_spec(str(file)).description
    batch = description.input[0].type.multiArrayType.shapeRange.sizeRanges[0]
    largest = json.loads(description.metadata.userDefined["seattn"])["largest_batch"]
    assert (batch.lowerBound, batch.upperBound) == (1, largest)


@pytest.fixture
def core_ml_runs(monkeypatch):
    """As on macOS: the export is checked, and Core ML computes what the function that is set here returns."""
    import coremltools

    def compute(wrong: float = 0):
        monkeypatch.setattr(
            coremltools.models.MLModel,
            "predict",
            lambda self, inputs: {
                "logits": core_ml.logits(Path(self.package_path), torch.from_numpy(inputs["images"])).numpy() + wrong
            },
        )
        replace(monkeypatch, "coreml", platform=None)

    return compute


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_a_core_ml_package_is_not_said_to_be_checked_where_it_cannot_run(exported, tmp_path, photos, capsys, fails):
    args = ["export", ARCH, "--to", "coreml", "--out", str(tmp_path / "net.mlpackage"), "--checkpoint", str(WEIGHTS)]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "\nnot checked: a file of the format coreml can be compared with PyTorch on macOS only\n" in out
    assert "difference" not in out
    assert err == ""
    done, _ = exported("coreml")
    assert (done.to_dict()["difference"], done.images, done.top1_before) == (None, 0, None)
    line = fails(*args, "--data-dir", photos)
    assert "a file of the format coreml can be compared with PyTorch on macOS only: omit --data-dir" in line


def test_a_core_ml_package_is_checked_where_it_can_run(core_ml_runs, tmp_path, photos):
    core_ml_runs()
    done = seattn.deploy.export_model(ARCH, "coreml", tmp_path / "net.mlpackage", data_dir=photos)
    assert done.difference < 1e-5
    assert done.images == 59
    assert done.top1_before == done.top1_after > 0.8


def test_a_core_ml_package_replaces_ours_only_if_it_computes_what_the_net_computes(
    core_ml_runs, exported, tmp_path, fails
):
    package = tmp_path / "net.mlpackage"
    shutil.copytree(exported("coreml")[1], package)
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    core_ml_runs(wrong=1e-2)
    args = ["export", ARCH, "--to", "coreml", "--out", package, "--checkpoint", WEIGHTS]
    assert "differs from PyTorch by" in fails(*args)
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before
    core_ml_runs()
    assert main([str(arg) for arg in args]) == 0
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}.keys() == before.keys()
    assert (package / "Manifest.json").read_bytes() != before[package / "Manifest.json"]  # it has random identifiers
    assert list(tmp_path.iterdir()) == [package]


def foreign_folder(package, ours):
    (package / "photos").mkdir(parents=True)


def package_with_more(package, ours):
    shutil.copytree(ours, package)
    (package / "notes.txt").write_text("mine")


def foreign_package(package, ours):
    shutil.copytree(ours, package)
    model = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model.write_bytes(model.read_bytes().replace(b"seattn", b"others"))


def file_in_its_place(package, ours):
    package.write_text("mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (foreign_folder, "a folder that something else made is there; remove it, or give another path"),
        (package_with_more, "a folder that something else made is there; remove it, or give another path"),
        (foreign_package, "a folder that something else made is there; remove it, or give another path"),
        (file_in_its_place, "it is not a folder; give another path"),
    ],
)
def test_a_core_ml_package_replaces_nothing_else(make, message, exported, tmp_path, fails):
    package = tmp_path / "net.mlpackage"
    make(package, exported("coreml")[1])
    before = sorted(tmp_path.rglob("*"))
    line = fails("export", ARCH, "--to", "coreml", "--out", package, "--checkpoint", WEIGHTS)
    assert line == f"seattn: cannot write {package}: {message}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_files_for_torch_load_without_seattn_and_timm(exported, net, tmp_path):
    program, script = (str(exported(to)[1]) for to in ("torch", "torchscript"))
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_file({"x": x}, tmp_path / "input")
    code = (
        "import sys; sys.modules.update(seattn=None, timm=None); import torch; "
        "from safetensors.torch import load_file, save_file; x = load_file('input')['x']; "
        f"nets = {{'torch': torch.export.load({program!r}).module(), 'torchscript': torch.jit.load({script!r})}}; "
        "save_file({name: net(x).detach() for name, net in nets.items()}, 'logits')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path)
    for logits in load_file(tmp_path / "logits").values():
        torch.testing.assert_close(logits, net(x), rtol=0, atol=1e-4)


def test_the_command_exports_the_folder_of_a_run_under_its_name(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "mine", ("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    assert main(["export", f"local-dir:{tmp_path / 'mine'}", "--to", "torchscript"]) == 0
    assert json.loads((tmp_path / "mine.pt.json").read_text())["class_names"] == ["cat", "dog"]
    out = capsys.readouterr().out
    assert out.startswith("mine.pt and mine.pt.json: 1.")
    assert "on random inputs: " in out
    assert "top-1" not in out


def test_nets_for_cifar10_are_compared_on_the_images_of_the_package(tmp_path, capsys):
    file = tmp_path / "net.pt"
    assert main(["export", ARCH, "--checkpoint", str(WEIGHTS), "--to", "torchscript", "--out", str(file)]) == 0
    out = capsys.readouterr().out
    assert "on random inputs and 1,000 images: " in out
    assert re.search(r"top-1 on 1,000 images: (9\d\.\d\d%) in PyTorch, \1 in the file", out)
    assert re.search(r"one image: \d+\.\d\d ms in PyTorch \(eager\), \d+\.\d\d ms in the file", out)


def test_the_command_prints_json_with_the_accuracies(tmp_path, photos, capsys):
    args = ("export", ARCH, "--to", "torchscript", "--out", tmp_path / "net.pt", "--data-dir", photos, "--json")
    assert main([str(arg) for arg in args]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["files"] == [str(tmp_path / "net.pt"), str(tmp_path / "net.pt.json")]
    assert (done["images"], done["top1_before"]) == (59, done["top1_after"])


def replace(monkeypatch, to, **changes):
    monkeypatch.setitem(FORMATS, to, dataclasses.replace(FORMATS[to], **changes))


@pytest.mark.parametrize("error", [1e-2, float("nan")])
def test_a_file_that_computes_something_else_is_an_error_and_not_kept(error, monkeypatch, fails, tmp_path):
    load = FORMATS["torchscript"].load
    replace(monkeypatch, "torchscript", load=lambda path: (lambda x: load(path)[0](x) + error, None))
    (tmp_path / "net.pt").write_text("from before")
    line = fails("export", ARCH, "--to", "torchscript", "--out", tmp_path / "net.pt", "--checkpoint", WEIGHTS)
    assert "differs from PyTorch by" in line
    assert "no file was written" in line
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("net.pt", "from before")]


class Branching(nn.Module):
    """A net that torch.export cannot write: what it computes depends on the values of its inputs."""

    num_classes = 2
    in_chans = 3

    def __init__(self):
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 8)}
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.mean((2, 3))[:, :2] * (self.scale if x.sum() > 0 else 0)


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch", "executorch", "coreml"])
def test_a_net_that_a_format_cannot_hold_is_one_line(to, monkeypatch, fails, tmp_path):
    monkeypatch.setattr(seattn.deploy.exporting, "load_model", lambda *args, **kwargs: Branching())
    file = tmp_path / "new" / f"net{FORMATS[to].suffix}"
    line = fails("export", "branching", "--to", to, "--out", file)
    assert line.startswith(f"seattn: branching cannot be written in the format {to}: ")
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "onx"], "unknown format 'onx'; did you mean 'onnx'?"),
        (["--to", "tflite"], "unknown format 'tflite'; known: onnx, openvino, torch, torchscript, executorch, coreml"),
        (["--to", "torch", "--out", "net.onnx"], "the format torch has files called NAME.pt2, got net.onnx"),
        (["--to", "executorch", "--out", "net.pt"], "the format executorch has files called NAME.pte, got net.pt"),
        (["--to", "coreml", "--out", "net.mlmodel"], "the format coreml has files called NAME.mlpackage, got net.mlm"),
        (["--to", "executorch", "--int8", "--data-dir", "d"], "--int8 is for --to onnx or openvino or torch"),
        (["--to", "torchscript", "--data-dir", "nowhere"], "no data folder nowhere"),
    ],
)
def test_bad_input_is_one_line(args, message, monkeypatch, fails, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in fails("export", ARCH, *args, "--checkpoint", WEIGHTS)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_one_line(fails):
    assert "unknown model 'se_resnet20_cifr'; did you mean" in fails("export", "se_resnet20_cifr", "--to", "torch")


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "onnxscript", "deploy"),
        ("onnx", "onnxruntime", "deploy"),
        ("openvino", "openvino", "deploy"),
        ("executorch", "executorch", "mobile"),
        ("coreml", "coremltools", "mobile"),
    ],
)
def test_a_package_that_is_not_installed_is_one_line(to, package, extra, monkeypatch, fails):
    monkeypatch.setitem(sys.modules, package, None)
    line = fails("export", ARCH, "--to", to)
    assert line == f'seattn: the format {to} needs {package}, not installed here: pip install "seattn[{extra}]"\n'


def test_a_package_for_8_bits_that_is_not_installed_is_one_line(monkeypatch, photos, fails):
    monkeypatch.setitem(sys.modules, "nncf", None)
    line = fails("export", ARCH, "--to", "openvino", "--int8", "--data-dir", photos)
    assert (
        line == 'seattn: the format openvino in 8 bits needs nncf, not installed here: pip install "seattn[deploy]"\n'
    )


@pytest.mark.parametrize(("to", "name", "second"), [("openvino", "a.xml", "a.bin"), ("torch", "a.pt2", "a.pt2.json")])
def test_a_second_file_that_is_of_something_else_is_not_replaced(to, name, second, tmp_path, fails):
    (tmp_path / second).write_text("mine")
    line = fails("export", ARCH, "--to", to, "--out", tmp_path / name, "--checkpoint", WEIGHTS)
    assert (
        f"{tmp_path / second} exists, which is not of an earlier export to {tmp_path / name}; move it, or give" in line
    )
    assert (tmp_path / second).read_text() == "mine"


def test_ctrl_c_is_no_error_of_an_exporter(tmp_path, monkeypatch):
    """torch's exporter to ONNX wraps every exception."""

    def write(net, x, path, metadata):
        try:
            raise KeyboardInterrupt
        except BaseException as error:
            raise RuntimeError("step 2/3 failed") from error

    replace(monkeypatch, "onnx", write=write)
    with pytest.raises(KeyboardInterrupt):
        seattn.deploy.export_model(ARCH, "onnx", tmp_path / "net.onnx", checkpoint=WEIGHTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--split", "--class-map"])
def test_options_for_images_need_images(option, tmp_path, fails):
    line = fails("export", ARCH, "--to", "onnx", "--out", tmp_path / "net.onnx", option, "val")
    assert "--split and --class-map are for labelled images; give --data-dir, too" in line
