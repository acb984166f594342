"""`seattn export --int8`: a smaller file of about the same accuracy, or one line and no file."""

import dataclasses
import json
from functools import cache

import onnx
import openvino
import pytest
import torch
from PIL import Image
from torch._inductor import config as inductor
from torch._inductor.utils import run_and_get_code

import seattn.deploy.exporting
import seattn.deploy.formats
from seattn.__main__ import main
from tests.deploy.conftest import ARCH, WEIGHTS

FILES = {"onnx": ["net.onnx"], "openvino": ["net.bin", "net.xml"], "torch": ["net.pt2", "net.pt2.json"]}


@pytest.fixture(scope="module")
def quantized(photos, tmp_path_factory):
    """A function: the result of the command in a format, and its file."""

    @cache
    def quantize(to):
        file = tmp_path_factory.mktemp("int8") / f"net{seattn.deploy.formats.FORMATS[to].suffix}"
        return seattn.deploy.exporting.export_model(ARCH, to, file, data_dir=photos, int8=True), file

    return quantize


@pytest.mark.parametrize("to", FILES)
def test_an_8_bit_file_is_smaller_and_the_accuracy_stays(to, quantized):
    done, file = quantized(to)
    assert sorted(path.name for path in file.parent.iterdir()) == FILES[to]
    most = 0.7 if to == "torch" else 0.6  # half of the 8-bit file is the program
    assert done.bytes == sum(path.stat().st_size for path in file.parent.iterdir()) < most * done.float_bytes
    assert done.images == 59
    assert abs(done.top1_before - done.top1_after) < 0.05
    assert 1e-4 < done.difference < 0.2
    assert min(done.milliseconds_before, done.milliseconds_after) > 0


def test_weights_and_activations_of_onnx_have_8_bits(quantized):
    _, file = quantized("onnx")
    graph = onnx.load(file).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    sources = {node.output[0]: node for node in graph.node}
    assert len(convolutions) > 19
    for node in convolutions:
        image, weight = (sources[name] for name in node.input[:2])
        assert image.op_type == weight.op_type == "DequantizeLinear"
        assert types[weight.input[0]] == onnx.TensorProto.INT8


def test_weights_and_activations_of_openvino_have_8_bits(quantized):
    _, file = quantized("openvino")
    convolutions = [op for op in openvino.Core().read_model(file).get_ops() if op.get_type_name() == "Convolution"]
    assert len(convolutions) > 19
    for convolution in convolutions:
        image, scaled = (value.get_node() for value in convolution.input_values())
        assert image.get_type_name() == "FakeQuantize"
        weight = scaled.input_value(0).get_node().input_value(0)  # before the scale and the conversion to float32
        assert weight.get_element_type() == openvino.Type.i8
        assert abs(weight.get_node().get_data()).max() <= 64


def test_weights_and_activations_of_torch_have_8_bits(quantized):
    _, file = quantized("torch")
    program = torch.export.load(file)
    convolutions = [node for node in program.graph.nodes if node.target is torch.ops.aten.conv2d.default]
    assert len(convolutions) > 19
    for node in convolutions:
        assert all("dequantize" in str(source.target) for source in node.args[:2])
    kept = {name: value.dtype for name, value in program.state_dict.items() if value.ndim == 4}
    assert list(kept.values()).count(torch.int8) == len(convolutions)
    assert all(".se." in name for name, dtype in kept.items() if dtype != torch.int8)  # products of vectors
    assert program.module()(torch.zeros(3, 3, 32, 32)).shape == (3, 10)


@pytest.mark.slow
def test_torch_compile_computes_the_8_bit_file_in_8_bits(quantized):
    from torchao.quantization.pt2e.inductor_passes.x86 import quant_lift_up  # what the quantizer's import sets

    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = torch.export.load(quantized("torch")[1]).module()
    with torch.no_grad(), inductor.patch(freezing=True, pre_grad_custom_pass=quant_lift_up):
        expected = net(x)
        y, code = run_and_get_code(torch.compile(net), x)
    assert (y - expected).abs().max() < 0.1 * expected.abs().max()
    assert "qconv" in "".join(code)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_metadata_stay_and_the_file_predicts(to, quantized, exported, photos, capsys):
    _, file = quantized(to)
    texts = [seattn.deploy.formats.FORMATS[to].load(path)[1] for path in (file, exported(to)[1])]
    assert texts[0] == texts[1]
    assert main(["predict", "--runtime", to, str(file), str(photos / "test" / "ship"), "--json"]) == 0
    labels = [result["predictions"][0]["label"] for result in json.loads(capsys.readouterr().out)]
    assert labels.count("ship") > len(labels) / 2


@pytest.fixture
def quick(monkeypatch, exported):
    """Exports that copy the file of the module's net, so that a test waits for the quantisation only."""
    _, file = exported("onnx")
    target = seattn.deploy.formats.FORMATS["onnx"]

    def copy(net, x, path, metadata):
        path.write_bytes(file.read_bytes())

    monkeypatch.setitem(seattn.deploy.formats.FORMATS, "onnx", dataclasses.replace(target, write=copy))


def export(out, data, *args):
    command = ["export", ARCH, "--to", "onnx", "--int8", "--out", out / "net.onnx", "--data-dir", data, *args]
    return [str(arg) for arg in [*command, "--checkpoint", WEIGHTS]]


def test_calibration_images_are_any_folder_of_images(quick, photos, tmp_path, capsys):
    assert main([*export(tmp_path / "out", photos), "--calibrate", str(photos / "train" / "cat")]) == 0
    out = capsys.readouterr().out
    assert "MB before quantisation" in out
    assert "top-1 on 59 images: " in out


def test_no_image_is_used_for_calibration_and_scored(quick, photos, tmp_path, capsys, fails, caplog):
    for args in (("--calibrate", photos / "test" / "cat"), ("--split", "train")):
        line = fails(*export(tmp_path / "out", photos, *args))
        assert "are all among those that are scored; give --calibrate DIR with other images" in line
        assert not (tmp_path / "out").exists()
    assert main(export(tmp_path / "out", photos, "--calibrate", photos)) == 0
    assert "59 images for calibration are among the scored ones and are left out" in caplog.text


def test_too_large_a_loss_is_one_line_and_leaves_no_file(quick, photos, tmp_path, fails):
    """Black images show no range of activations."""
    Image.new("RGB", (9, 40)).save(tmp_path / "black.png")
    line = fails(*export(tmp_path / "out", photos), "--calibrate", tmp_path)
    assert "over 5 points less; no file was written; give --calibrate DIR" in line
    assert not (tmp_path / "out").exists()


def test_without_a_train_split_calibration_images_are_asked_for(photos, tmp_path, fails):
    line = fails(*export(tmp_path / "out", photos / "test"))
    assert "has no train split to calibrate the 8-bit net on; give --calibrate DIR" in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "openvino", "--int8"], "--int8 needs labelled images"),
        (["--to", "coreml", "--int8", "--data-dir", "d"], "--int8 is for --to onnx or openvino or torch, got coreml"),
        (["--to", "onnx", "--calibrate", "d"], "--calibrate is for --int8"),
        (["--to", "onnx", "--int8", "--data-dir", "nowhere"], "no data folder nowhere"),
        (["--to", "onnx", "--int8", "--data-dir", "d", "--calibrate", "nowhere"], "no such folder: nowhere"),
    ],
)
def test_options_that_do_not_fit_are_one_line(args, message, fails):
    assert message in fails("export", ARCH, *args)
