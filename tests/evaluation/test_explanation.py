"""`seattn explain` as its user meets it, and its numbers against Grad-CAM written out by hand."""

import json
import re
import sys
from functools import partial

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models import save_for_hf
from torch import nn

import seattn
from seattn.__main__ import main
from seattn.data.images import read_image
from seattn.evaluation import explanation
from seattn.evaluation.cam import METHODS, class_map, find_layer
from seattn.evaluation.explanation import explain
from seattn.evaluation.figures import overlay
from seattn.evaluation.gates import LayerGates, collect_gates, collect_spatial_gates, gate_differences
from tests.helpers.page import Page
from tests.helpers.report_runs import write_images

ARCH = "se_resnet20_cifar"


def learned(arch, **options):
    """A net whose gates and norms are not those of a fresh one, in eval mode."""
    torch.manual_seed(0)
    net = timm.create_model(arch, **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        net.train()(torch.randn(16, 3, 32, 32))
    return net.eval()


def by_hand(net, x, layer, target, *, hires=False):
    """Selvaraju et al., equations 1 and 2, with autograd; scaled to 0..1 and brought to the size of x."""
    outputs = []
    hook = net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output) or None)
    x = x.clone().requires_grad_()
    logit = net(x)[0, target]
    hook.remove()
    (gradient,) = torch.autograd.grad(logit, outputs)  # (1, C, h, w)
    activation = outputs[0].detach()
    weight = gradient if hires else gradient.mean((2, 3), keepdim=True)
    cam = (weight * activation).sum(1, keepdim=True).relu()  # (1, 1, h, w)
    cam = (cam - cam.min()) / (cam.max() - cam.min())
    cam = F.interpolate(cam, size=x.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    return ((cam - cam.min()) / (cam.max() - cam.min())).numpy()


@pytest.mark.parametrize("kernels", ["torch", "reference"])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3", "layer2.1.conv2"])
@pytest.mark.parametrize("arch", [ARCH, "cbam_resnet20_cifar", "resnet20_cifar"])
def test_grad_cam_through_the_fused_tails_is_the_references(arch, layer, kernels):
    net, x = learned(arch), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with seattn.set_kernels("reference"):
        expected = by_hand(net, x, layer, 3)
    with seattn.set_kernels(kernels):
        found = class_map(net, x, layer=layer, target=3, method="gradcam")
    assert 0 < (expected > 0.5).mean() < 0.9
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_hirescam_weighs_pixel_by_pixel():
    net, x = learned(ARCH), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = class_map(net, x, layer="layer2", target=3, method="hirescam")
    np.testing.assert_allclose(found, by_hand(net, x, "layer2", 3, hires=True), atol=2e-4)
    assert np.abs(found - class_map(net, x, layer="layer2", target=3, method="gradcam")).max() > 0.01


def test_grad_cam_of_an_accelerated_net_is_the_same():
    net, x = learned("resnet18", num_classes=5, block_args={"attn_layer": "se"}), torch.randn(1, 3, 64, 64)
    expected = by_hand(net, x, "layer2", 3)
    seattn.accelerate(net)
    np.testing.assert_allclose(class_map(net, x, layer="layer2", target=3, method="gradcam"), expected, atol=2e-4)


def test_a_layer_before_a_relu_in_place_is_seen_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
    net = nn.Sequential(*net, nn.Flatten(), nn.Linear(4, 2)).eval()
    x = torch.randn(1, 3, 16, 16)
    found = class_map(net, x, layer="1", target=1, method="gradcam")
    plain = nn.Sequential(*net)
    plain[2] = nn.ReLU()
    np.testing.assert_allclose(found, by_hand(plain, x, "1", 1), atol=2e-4)
    assert find_layer(net, x) == ("2", (14, 14))


def test_the_map_is_hot_where_the_class_is():
    net = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.ones_(net[0].weight)
    x = torch.zeros(1, 3, 16, 16)
    x[:, :, 10:14, 2:6] = 1
    heat = class_map(net, x, layer="1", target=0, method="gradcam")
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (10 <= row < 14, 2 <= column < 6) == (True, True)
    assert heat[:8].max() == 0
    picture = np.full((16, 16, 3), 128, dtype=np.uint8)
    assert overlay(picture, np.zeros((16, 16), np.float32)).reshape(-1, 3).tolist()[0] == [128] * 3
    hot = overlay(picture, heat)
    assert hot.shape == (256, 256, 3)
    assert int(np.ptp(hot[12 * 16 - 8, 4 * 16 - 8])) > 60  # coloured


def test_the_net_is_left_as_it_was():
    net, x = learned(ARCH).train(), torch.randn(1, 3, 32, 32)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.eval()
    with torch.no_grad():
        layer, size = find_layer(net, x)
        assert class_map(net, x, layer=layer, target=0, method="gradcam").max() > 0
    assert (layer, size) == ("layer3", (8, 8))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def assert_factors(net, x, gates, suffix):
    """Each module whose name ends in `suffix` multiplies its input by the gates (C,) or (H, W) of that name."""
    calls = {}

    def record(name, module, inputs, output):
        calls[name] = inputs[0].clone(), output.clone()  # a block may change the output in place

    for name, module in net.named_modules():
        if name.endswith(suffix) and list(module.children()):
            module.register_forward_hook(partial(record, name))
    with torch.no_grad():
        net(x)
    assert [layer.name for layer in gates] == list(calls)
    for layer in gates:
        before, after = calls[layer.name]
        factors = torch.tensor(layer.gates)
        assert factors.std() > 0
        factors = factors[:, None, None] if factors.ndim == 1 else factors
        torch.testing.assert_close(after[0], before[0] * factors, atol=1e-4, rtol=1e-3)


def test_spatial_gates_are_what_the_layer_multiplies_by():
    net, x = learned("cbam_resnet20_cifar"), torch.randn(1, 3, 32, 32)
    gates = collect_spatial_gates(net, x)
    assert [layer.gates.shape for layer in gates] == [(32, 32)] * 3 + [(16, 16)] * 3 + [(8, 8)] * 3
    assert_factors(net, x, gates, ".spatial")


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        (ARCH, {}),
        ("resnet18", {"block_args": {"attn_layer": "se"}}),
        ("resnet18", {"block_args": {"attn_layer": "eca"}}),
        ("mobilenetv3_small_050", {}),
    ],
)
def test_channel_gates_are_what_the_layer_multiplies_by(arch, options):
    net, x = learned(arch, **options), torch.randn(1, 3, 64, 64)
    assert_factors(net, x, collect_gates(net, x), ".se")


@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_each_layer_has_a_gate_for_each_channel_and_the_net_stays_as_it_was(kind):
    model = timm.create_model(f"{kind}_resnet20_cifar").train()
    gates = collect_gates(model, torch.randn(1, 3, 32, 32))
    assert model.training
    assert [len(layer.gates) for layer in gates] == [16] * 3 + [32] * 3 + [64] * 3
    assert len({layer.name for layer in gates}) == 9
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_gated_layer_inside_a_gated_layer_is_not_a_row_of_its_own():
    class Gated(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.weight = inner, nn.Parameter(torch.ones(()))

        def gate(self, x):
            return x.mean((2, 3))

        def forward(self, x):
            return self.inner(x)

    model = nn.Sequential(Gated(Gated(nn.Identity())), nn.Identity())
    found = collect_gates(model, torch.full((1, 2, 3, 3), 0.5))
    assert [layer.name for layer in found] == ["0"]
    assert found[0].gates.tolist() == [0.5, 0.5]


def test_gate_differences_by_hand():
    def image(*layers):
        return [LayerGates(f"layer{i}", np.array(gates, dtype=np.float32)) for i, gates in enumerate(layers)]

    images = [image([0.5, 0.5], [0.0]), image([0.5, 0.7], [0.0]), image([0.5, 0.5], [1.0])]
    first, second = gate_differences(images, [3, 3, 4])
    assert (first.layer, second.layer) == ("layer0", "layer1")
    np.testing.assert_allclose([first.same_class, first.other_class], [0.1, 0.05], atol=1e-6)
    np.testing.assert_allclose([second.same_class, second.other_class], [0.0, 1.0], atol=1e-6)
    assert gate_differences(images[:2], [0, 1])[0].same_class is None
    assert gate_differences(images[:1], [0]) == gate_differences([[], []], [0, 1]) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a net, which is read without a message."""
    folder = tmp_path_factory.mktemp("net")
    save_for_hf(timm.create_model(ARCH), str(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = write_images(tmp_path_factory.mktemp("images"), {"some": 2}, ("a", "b<i>"), size=40)
    return sorted(root.rglob("*.png"))


def test_the_page_shows_image_map_classes_and_gates(pictures, tmp_path, capsys):
    assert main(["explain", ARCH, *map(str, pictures[1:3]), "--out", str(tmp_path), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    page = Page((tmp_path / "explain.html").read_text(encoding="utf-8"))
    assert page.stands_alone()
    assert "<i>" not in page.html
    assert {path.name for path in tmp_path.iterdir()} == {
        *("explain.html", "gates.png", "gate-differences.png", "image-1-1.png", "image-2-0.png"),
    }
    assert "gradcam on layer3, 8 x 8, resized smoothly to the input's 32 x 32" in page.text
    assert len(numbers["images"]) == 2
    for one, path in zip(numbers["images"], pictures[1:3], strict=True):
        assert one["image"] == str(path)
        assert (one["layer"], one["map_size"], one["class"]) == ("layer3", [8, 8], one["predictions"][0]["label"])
        assert len(one["predictions"]) == 5
        assert f"{one['class']}{one['probability']:.1%}" in page.text
        assert [layer["shape"] for layer in one["gates"]] == [[16]] * 3 + [[32]] * 3 + [[64]] * 3
    assert len(numbers["gate_differences"]) == 9
    again = tmp_path / "again"
    assert main(["explain", ARCH, *map(str, pictures[1:3]), "--out", str(again)]) == 0
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_the_page_and_the_line_say_unknown(pictures, tmp_path, capsys):
    assert main(["explain", ARCH, str(pictures[0]), "--out", str(tmp_path), "--unknown-below", "1"]) == 0
    assert re.search(r"0\.png: unknown \(\w+ \d+\.\d%\); gradcam for \w+", capsys.readouterr().out)
    assert "unknownno class reaches 100.0%" in Page((tmp_path / "explain.html").read_text(encoding="utf-8")).text


def test_a_class_can_be_asked_for_by_name_or_index(pictures):
    net = timm.create_model(ARCH, pretrained=True).eval()
    by_name, by_index = (explain(net, pictures[:1], class_name=name)[0] for name in ("ship", "8"))
    own = explain(net, pictures[:1])[0]
    assert by_name.target == by_index.target == "ship"
    np.testing.assert_array_equal(by_name.heat, by_index.heat)
    assert own.target == own.prediction.labels[0]
    assert own.prediction == by_name.prediction
    assert by_name.picture.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("arch", "method"), [("resnet20_cifar", "gradcam"), *(("cbam_resnet20_cifar", name) for name in METHODS)]
)
def test_each_method_works_with_and_without_gates(arch, method, pictures, tmp_path):
    save_for_hf(learned(arch), str(tmp_path / "net"), safe_serialization=True)
    out = tmp_path / "out"
    assert main(["explain", str(tmp_path / "net"), str(pictures[0]), "--method", method, "--out", str(out)]) == 0
    page = Page((out / "explain.html").read_text(encoding="utf-8"))
    assert page.stands_alone()
    assert ("no attention layer" in page.text) == (arch == "resnet20_cifar")
    assert ("Spatial gates" in page.text) == (arch != "resnet20_cifar")


@pytest.mark.parametrize(("arch", "size"), [("test_efficientnet", (160, 160)), ("test_resnet", (160, 160))])
def test_other_nets_of_timm(arch, size, pictures):
    found = explain(timm.create_model(arch), pictures[:1])[0]
    assert found.heat.shape == size
    assert found.map_size == (5, 5)
    assert 0 <= found.heat.min() <= found.heat.max() <= 1


def test_maps_with_channels_last_are_understood(pictures):
    net = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=24, num_classes=3)
    found = explain(net, pictures[:1])[0]
    assert (found.layer, found.map_size, found.heat.shape) == ("layers.3", (7, 7), (224, 224))


def test_what_cannot_be_explained_is_one_line(pictures, saved, tmp_path, fails, monkeypatch):
    image, out = pictures[0], ("--out", tmp_path / "out")
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_vit", num_classes=3), str(tmp_path / "vit"), safe_serialization=True)
    assert "returns a tensor of 1 x 101 x 64, not a feature map" in fails("explain", tmp_path / "vit", image, *out)
    assert "has no class 'sheep' (a name, or an index from 0 to 9); did you mean 'ship'?" in fails(
        "explain", saved, image, "--class", "sheep", *out
    )
    assert "has no class '10'" in fails("explain", saved, image, "--class", "10", *out)
    assert "has no layer 'layer4'; did you mean 'layer" in fails("explain", saved, image, "--layer", "layer4", *out)
    assert "the layer fc of" in fails("explain", saved, image, "--layer", "fc", *out)
    assert "--method must be one of gradcam" in fails("explain", saved, image, "--method", "magic", *out)
    assert "no such image file" in fails("explain", saved, tmp_path / "none.png", *out)
    (tmp_path / "text.png").write_text("text")
    assert "text.png: cannot identify image file" in fails("explain", saved, tmp_path / "text.png", *out)
    assert "unknown model" in fails("explain", "se_resnet21_cifar", image, *out)
    (tmp_path / "file").write_text("in the way")
    assert "cannot write to" in fails("explain", saved, image, "--out", tmp_path / "file" / "out")
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    assert 'pip install "seattn[explain]"' in fails("explain", saved, image, *out)
    assert not (tmp_path / "out").exists()


def test_images_are_read_one_by_one(pictures, monkeypatch):
    done = []
    monkeypatch.setattr(explanation, "read_image", lambda *args: done.append("read") or read_image(*args))
    monkeypatch.setattr(explanation, "class_map", lambda *args, **kw: done.append("drawn") or class_map(*args, **kw))
    explain(timm.create_model(ARCH), pictures[:3])
    assert done == ["read", "drawn"] * 3


def test_a_folder_of_images_is_explained_and_refused_weights_leave_no_folder(pictures, saved, tmp_path, fails):
    broken, out = tmp_path / "broken.pth", tmp_path / "out"
    broken.write_text("no weights")
    folder = pictures[0].parent
    assert "broken.pth is a text that begins" in fails("explain", ARCH, folder, "--checkpoint", broken, "--out", out)
    assert not out.exists()
    assert main(["explain", str(saved), str(folder), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} >= {"explain.html", "image-1-0.png", "image-2-1.png"}


def test_opencv_without_libgl_is_one_line(pictures, saved, tmp_path, fails, monkeypatch):
    class NoLibGL:
        def find_spec(self, name, path=None, target=None):
            if name == "pytorch_grad_cam":
                raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch_grad_cam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoLibGL(), *sys.meta_path])
    line = fails("explain", saved, pictures[0], "--out", tmp_path / "out")
    assert "libGL.so.1" in line
    assert "opencv-python-headless" in line


def test_a_grey_image_is_read_too(tmp_path):
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(tmp_path / "grey.png")
    assert explain(timm.create_model(ARCH, pretrained=True), [tmp_path / "grey.png"])[0].picture.shape == (32, 32, 3)
