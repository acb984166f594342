"""Each fused class against the class that it replaces: values, every gradient, statistics."""

import copy

import pytest
import torch
from timm.layers import EcaModule, EffectiveSEModule, SEModule, activations, activations_me
from timm.layers.cbam import CbamModule
from timm.models import resnet, senet
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.ops import SqueezeExcitation

import seattn
from seattn.blocks.fused.base import fused, fused_class, fused_types

C = 16
ACTS = [
    nn.ReLU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Identity,
    activations.Swish,
    activations.GELU,
    activations.HardSwish,
    activations_me.SwishMe,
    activations_me.HardSwishMe,
]
GATES = [nn.Sigmoid, nn.Hardsigmoid, activations.Sigmoid, activations.HardSigmoid, activations_me.HardSigmoidMe]


def legacy(block):
    return block(C, C // 4 if block.expansion == 4 else C, 1, 4)


MODULES = {
    **{f"SE, {act.__module__}.{act.__name__}": lambda act=act: SEModule(C, act_layer=act) for act in ACTS},
    **{f"SE, {gate.__module__}.{gate.__name__}": lambda gate=gate: SEModule(C, gate_layer=gate) for gate in GATES},
    "SE without biases": lambda: SEModule(C, bias=False),
    "effective SE": lambda: EffectiveSEModule(C),
    "effective SE, sigmoid": lambda: EffectiveSEModule(C, gate_layer="sigmoid"),
    "ECA": lambda: EcaModule(C),
    "ECA, 5 taps": lambda: EcaModule(kernel_size=5, gate_layer="hard_sigmoid"),
    "EfficientNet's SE": lambda: SqueezeExcite(C, act_layer=nn.SiLU),
    "MobileNet's SE": lambda: SqueezeExcite(C, gate_layer="hard_sigmoid"),
    "legacy SE": lambda: senet.SEModule(C, 4),
    "torchvision's SE": lambda: SqueezeExcitation(C, 4),
    "torchvision's SE, MobileNet": lambda: SqueezeExcitation(C, 4, scale_activation=nn.Hardsigmoid),
    "CBAM": lambda: CbamModule(C, rd_ratio=1 / 4),
    "CBAM, 3 x 3, biases, SiLU": lambda: CbamModule(
        C, rd_ratio=1 / 4, spatial_kernel_size=3, mlp_bias=True, act_layer=nn.SiLU
    ),
    "BasicBlock": lambda: resnet.BasicBlock(C, C),
    "BasicBlock, SE": lambda: resnet.BasicBlock(C, C, attn_layer="se"),
    "BasicBlock, stride": lambda: resnet.BasicBlock(
        C, C, stride=2, downsample=resnet.downsample_avg(C, C, 1, stride=2), aa_layer="blur", attn_layer="eca"
    ),
    "Bottleneck": lambda: resnet.Bottleneck(C, C // 4),
    "Bottleneck, SE": lambda: resnet.Bottleneck(C, C // 4, attn_layer="se", cardinality=2, base_width=64),
    "legacy SEBottleneck": lambda: legacy(senet.SEBottleneck),
    "legacy SEResNetBottleneck": lambda: legacy(senet.SEResNetBottleneck),
    "legacy SEResNeXtBottleneck": lambda: senet.SEResNeXtBottleneck(C, C // 4, 4, 4, base_width=64),
    "legacy SEResNetBlock": lambda: legacy(senet.SEResNetBlock),
    "torchvision's BasicBlock": lambda: torchvision_resnet.BasicBlock(C, C),
    "torchvision's Bottleneck": lambda: torchvision_resnet.Bottleneck(C, C // 4),
}


BLOCKS = (
    resnet.BasicBlock,
    resnet.Bottleneck,
    senet.SEResNetBlock,
    senet.Bottleneck,
    torchvision_resnet.BasicBlock,
    torchvision_resnet.Bottleneck,
)


def build(name):
    torch.manual_seed(0)
    module = MODULES[name]().double()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return module


def run(module, x):
    x = x.clone().requires_grad_()
    y = module(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    found = {"y": y, "dx": x.grad} | {name: p.grad for name, p in module.named_parameters()}
    return found | {name: b.clone() for name, b in module.named_buffers()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_values_gradients_and_statistics_are_the_replaced_classes(name, training):
    plain = build(name).train(training)
    fast = copy.deepcopy(plain)
    found = seattn.acceleration_report(seattn.accelerate(fast, verbose=False))
    assert [row.name for row in found.replaced] == [""]
    assert type(fast) is fused_class(type(plain))
    x = torch.randn(3, C, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, got = run(plain, x), run(fast, x)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        # torch's own backwards of the hard activations have 1/6 rounded to fp32, also in float64
        torch.testing.assert_close(got[key], value, rtol=1e-6, atol=1e-7, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("name", MODULES)
def test_inference_gives_the_values_and_leaves_its_input(name, memory_format):
    plain = build(name).eval()
    fast = copy.deepcopy(plain)
    assert seattn.acceleration_report(seattn.accelerate(fast, verbose=False)).replaced
    for images in (1, 3):
        x = torch.randn(images, C, 5, 6, dtype=next(plain.parameters()).dtype).contiguous(memory_format=memory_format)
        before = x.clone()
        with torch.inference_mode():
            found, want = fast(x), plain(x)
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6)
        assert torch.equal(x, before)


@pytest.mark.parametrize("name", [name for name, make in MODULES.items() if not isinstance(make(), BLOCKS)])
def test_attention_under_autocast_on_a_cpu_is_the_plain_class_itself_in_inference_and_rounds_less_in_training(name):
    plain = build(name).float()
    fast = seattn.accelerate(copy.deepcopy(plain), verbose=False)
    x = torch.randn(1, C, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.bfloat16)
    exact = plain.eval()(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            assert torch.equal(fast.eval()(x), plain.eval()(x))
        found, rounded = fast(x), plain(x)
    assert (found.float() - exact).norm() <= (rounded.float() - exact).norm()


def test_every_fused_class_is_tried():
    assert {type(make()) for make in MODULES.values()} == set(fused_types())


@pytest.mark.parametrize("name", ["SE without biases", "CBAM", "ECA", "BasicBlock, SE"])
def test_a_hook_on_a_part_fires(name):
    module, seen = build(name), []
    seattn.accelerate(module, verbose=False)
    leaves = [m for m in module.modules() if not m._modules and type(m) is not nn.Identity]
    for leaf in leaves:
        leaf.register_forward_hook(lambda m, *_: seen.append(m))
    module(torch.randn(2, C, 6, 8, dtype=torch.float64))
    assert set(leaves) == set(seen)


@pytest.mark.parametrize("name", ["SE without biases", "CBAM", "BasicBlock", "BasicBlock, SE"])
def test_an_empty_batch(name):
    fast = build(name)
    seattn.accelerate(fast, verbose=False)
    assert fast(torch.randn(0, C, 6, 8, dtype=torch.float64)).shape == (0, C, 6, 8)


def test_a_part_that_is_exchanged_later_is_used():
    module = build("SE without biases")
    seattn.accelerate(module, verbose=False)
    module.gate = nn.Tanh()
    x = torch.randn(2, C, 6, 8, dtype=torch.float64)
    expected = module(x)
    seattn.restore(module)
    assert torch.equal(module(x), expected)


def test_a_class_is_replaced_by_one_class_only():
    with pytest.raises(ValueError, match="SEModule has a fused class already"):
        fused(SEModule)(type("Other", (fused_class(SEModule),), {}))
