"""A new attention layer is one file and one line: it is added to a copy of the package, and every command knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import seattn

PACKAGE = Path(seattn.__file__).parent

LAYER = """
from torch import nn
from seattn.layers._registry import Paper, register_attn

@register_attn("toy", Paper("toy attention", "Nobody 2020", "https://example.org/toy", "@misc{nobody2020toy}"))
class Toy(nn.Module):
    def __init__(self, channels, *, gate="sigmoid", device=None, dtype=None):
        super().__init__()
        self.scale = nn.Conv2d(channels, channels, 1, groups=channels, device=device, dtype=dtype)

    def forward(self, x):
        return x * self.scale(x.mean((2, 3), keepdim=True)).sigmoid()
"""

CODE = """
import timm, torch
import seattn
from seattn.__main__ import main
from timm.models import get_pretrained_cfg
from seattn.hub.card import render_card
from seattn.hub.facts import packaged_facts
from seattn.layers import get_attn

x = torch.randn(2, 3, 32, 32)
for net in (
    timm.create_model("toy_resnet20_cifar"),
    timm.create_model("toy_mobilenetv2_cifar.cifar100"),
    seattn.add_attention(timm.create_model("resnet18"), "toy", start="paper"),
):
    assert sum(isinstance(module, get_attn("toy")) for module in net.modules()) in (8, 9, 17)
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
assert timm.create_model("toy_resnet50", device="meta").num_classes == 1000
print(render_card(packaged_facts("se_resnet20_cifar.cifar10"), get_pretrained_cfg("toy_resnet20_cifar.cifar10")))
assert main(["list", "toy_*", "--json"]) == 0
assert main(["list", "toy_wrn"]) == 0
assert main(["profile", "toy_resnet20_cifar"]) == 0
"""


def test_a_layer_is_one_file_and_one_line(tmp_path):
    package = shutil.copytree(
        PACKAGE, tmp_path / "seattn", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    (package / "layers" / "toy.py").write_text(LAYER)
    init = package / "layers" / "__init__.py"
    init.write_text(init.read_text() + "from seattn.layers.toy import Toy\n")
    path = os.pathsep.join([str(tmp_path), str(PACKAGE.parent), str(PACKAGE.parent / "kernels")])
    env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "150"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "with toy attention ([Nobody 2020](https://example.org/toy))" in " ".join(done.stdout.split())
    assert "@misc{nobody2020toy}" in done.stdout
    assert '"name": "toy_resnet18_cifar"' in done.stdout
    assert "toy_wrn28_10_cifar" in done.stdout
    assert "resnet20_cifar" in done.stdout.rpartition("toy_wrn")[2]  # the profile's plain twin
