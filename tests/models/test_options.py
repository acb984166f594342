"""The options that every net takes: each changes what it says, wrong values raise, and a config.json holds them."""

import itertools

import pytest
import timm
import torch
from torch import nn

from seattn.blocks.attended.base import PLACEMENTS
from seattn.blocks.attended.insert import find_stages
from seattn.layers import list_attn
from tests.models._zoo import CHEAPEST, NETS, attention, build, create, images, kind, name_of

SE = [f"se_{net}" for net in CHEAPEST]


def by_stage(model):
    """Of each stage, the attention layers of its blocks, or None for a block without."""
    layers = attention(model)
    return [[layers.get(site.place) for site in stage] for stage in find_stages(model)]


def hidden(model):
    """Of each stage, the pairs (C, R) of its SE layers."""
    return [{(se.fc1.in_channels, se.fc1.out_channels) for se in stage} for stage in by_stage(model)]


@pytest.mark.parametrize("name", SE)
def test_rd_ratio_is_one_number_or_one_a_stage(name):
    default = hidden(create(name, device="meta"))
    assert default == [{(c, max(1, int(c / 16 + 0.5))) for c, _ in stage} for stage in default]
    halved = hidden(create(name, device="meta", rd_ratio=0.5))
    assert halved == [{(c, c // 2) for c, _ in stage} for stage in default]
    ratios = [1 / (2 + i) for i in range(len(default))]
    for given in (ratios, tuple(ratios)):
        each = hidden(create(name, device="meta", rd_ratio=given))
        assert each == [{(c, int(c * r + 0.5)) for c, _ in stage} for stage, r in zip(default, ratios, strict=True)]


@pytest.mark.parametrize("name", [*SE, "cbam_resnet20_cifar"])
def test_rd_divisor_rounds_the_hidden_width(name):
    model = create(name, device="meta", rd_divisor=8)
    widths = [
        module.out_channels
        for place, layer in attention(model).items()
        for key, module in layer.named_modules(prefix=place)
        if key.endswith("fc1")
    ]
    assert widths
    assert all(width % 8 == 0 for width in widths)


@pytest.mark.parametrize("name", SE)
@pytest.mark.parametrize("stages", [[1], (2, 3), []], ids=str)
def test_attn_stages_names_those_that_carry_it(name, stages):
    found = by_stage(create(name, device="meta", attn_stages=stages))
    assert {number for number, layers in enumerate(found, 1) if all(layers)} == set(stages)
    assert {number for number, layers in enumerate(found, 1) if any(layers)} == set(stages)


@pytest.mark.parametrize("name", [name for name in NETS if name.endswith(CHEAPEST) and kind(name)])
@pytest.mark.parametrize("gate", ["sigmoid", "two_sigmoid", "hard_sigmoid"])
def test_gate(name, gate):
    model = create(name, device="meta", gate=gate)
    names = {module.gate_name for module in model.modules() if hasattr(module, "gate_name")}
    assert names == {gate}


def test_gates_compute_what_their_names_say():
    torch.manual_seed(0)
    x, gates = torch.randn(2, 16, 5, 5), {}
    for gate in ("sigmoid", "two_sigmoid", "hard_sigmoid"):
        layer = create("se_resnet20_cifar", gate=gate).layer1[0].se
        logits = layer.fc2(layer.fc1(x.mean((2, 3), keepdim=True)).relu())
        gates[gate] = layer(x) / x, logits
    torch.testing.assert_close(gates["sigmoid"][0], gates["sigmoid"][1].sigmoid().expand_as(x), atol=1e-4, rtol=1e-4)
    expected = 2 * gates["two_sigmoid"][1].sigmoid()
    torch.testing.assert_close(gates["two_sigmoid"][0], expected.expand_as(x), atol=1e-4, rtol=1e-4)
    expected = (gates["hard_sigmoid"][1] / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(gates["hard_sigmoid"][0], expected.expand_as(x), atol=1e-4, rtol=1e-4)


# What a block of each family computes, written from its parts: (what the branch sees, branch, shortcut, end).
def _post_act(b):
    def branch(v):
        return b.bn2(b.conv2(b.act1(b.bn1(b.conv1(v)))))

    def end(v):
        return v.relu()

    return (lambda x: x), branch, (b.downsample or nn.Identity()), end


def _pre_act(b):
    def enter(x):
        return b.norm1(x)

    def branch(v):
        return b.conv2(b.norm2(b.conv1(v)))

    return enter, branch, None, lambda v: v


def _inverted(b):
    def branch(v):
        return b.bn3(b.conv_pwl(b.bn2(b.conv_dw(b.bn1(b.conv_pw(v))))))

    return (lambda x: x), branch, nn.Identity() if b.has_skip else None, lambda v: v


BLOCKS = {
    "se_resnet20_cifar": (("layer1.1", "layer2.0"), _post_act),
    "se_resnet18": (("layer1.1", "layer2.0"), _post_act),
    "se_preact_resnet18_cifar": (("stages.0.blocks.1", "stages.1.blocks.0"), _pre_act),
    "se_mobilenetv2_cifar": (("blocks.1.1", "blocks.2.0"), _inverted),
}


def written_out(block, parts, attn, placement, x):
    """SENet's figure 5, of this block."""
    enter, branch, shortcut, end = parts(block)
    inner = enter(x)
    if parts is _pre_act:  # the shortcut of a block that changes shape branches off after the norm
        s = x if block.downsample is None else block.downsample(inner)
    else:
        s = None if shortcut is None else shortcut(x)
    f = branch(attn(inner) if placement == "pre" else inner)
    if placement == "standard":
        f = attn(f)
    if placement == "identity" and s is not None:
        s = attn(s)
    y = end(f if s is None else f + s)
    return attn(y) if placement == "post" else y


@pytest.mark.parametrize(("name", "placement"), [*itertools.product(BLOCKS, PLACEMENTS)])
def test_placement_is_the_equation_of_its_name(name, placement):
    places, parts = BLOCKS[name]
    model = build(name, attn_placement=placement)
    for place in places:
        block = model.get_submodule(place)
        layer = attention(model).get(f"{place}.se") or attention(model).get(f"{place}.attn")
        if layer is None:  # nowhere to go: this one has no shortcut
            assert placement == "identity"
            assert not block.has_skip
            layer = nn.Identity()
        first = next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1)
        x = torch.randn(2, first.in_channels, 6, 6, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = written_out(block, parts, layer, placement, x.clone())
            torch.testing.assert_close(block(x.clone()), expected, atol=1e-5, rtol=1e-4)


def test_placements_differ():
    x = images("se_resnet20_cifar")
    with torch.no_grad():
        outputs = [build("se_resnet20_cifar", attn_placement=placement)(x) for placement in PLACEMENTS]
    for a, b in itertools.combinations(outputs, 2):
        assert not torch.allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("name", SE)
def test_drop_rates_act_in_training_only(name):
    for option in ("drop_rate", "drop_path_rate"):
        model = build(name, **{option: 0.5})
        x = images(name)
        with torch.no_grad():
            assert torch.equal(model(x), model(x))
            for module in model.train().modules():  # batch statistics would differ from step to step by themselves
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            assert not torch.equal(model(x), model(x))


WRONG = {
    "rd_ratio": [(-0.5, "rd_ratio must be above 0"), ([0.5], "one for each of the"), ("half", "rd_ratio must be")],
    "rd_divisor": [(0, "rd_divisor must be at least 1")],
    "attn_stages": [
        ([0], "numbers from 1 to"),
        ([9], "numbers from 1 to"),
        (["a"], "numbers from 1 to"),
        (2, "from 1 to"),
    ],
    "attn_placement": [("before", ", ".join(PLACEMENTS)), ("", ", ".join(PLACEMENTS))],
    "gate": [("tanh", "sigmoid.*two_sigmoid.*hard_sigmoid")],
}


@pytest.mark.parametrize("name", SE)
@pytest.mark.parametrize(("option", "value", "says"), [(k, v, s) for k, rows in WRONG.items() for v, s in rows])
def test_wrong_values_raise_and_name_the_choices(name, option, value, says):
    with pytest.raises(ValueError, match=says):
        create(name, device="meta", **{option: value})


@pytest.mark.parametrize("option", [*WRONG])
@pytest.mark.parametrize("name", [net for net in CHEAPEST if net in NETS])
def test_a_net_without_attention_refuses_its_options(name, option):
    value = {"rd_ratio": 0.5, "rd_divisor": 8, "attn_stages": [1], "attn_placement": "pre", "gate": "sigmoid"}[option]
    with pytest.raises(ValueError, match=rf"{name} has no attention for {option} to act on; se_{name} has"):
        create(name, device="meta", **{option: value})


@pytest.mark.parametrize("option", ["rd_ratio", "rd_divisor"])
def test_eca_has_no_hidden_width(option):
    with pytest.raises(TypeError, match=rf"attention 'eca' takes no '{option}'; it takes kernel_size, gate"):
        create("eca_resnet20_cifar", device="meta", **{option: 1})


OPTIONS = {"rd_ratio": [0.5, 0.25, 0.125], "rd_divisor": 4, "attn_stages": [1, 3], "attn_placement": "pre"}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_options_survive_save_for_hf(tmp_path, placement):
    options = {**OPTIONS, "attn_placement": placement, "gate": "hard_sigmoid", "drop_rate": 0.1, "drop_path_rate": 0.1}
    model = build("se_resnet20_cifar", **options)
    timm.models.save_for_hf(model, tmp_path, model_args=options, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = images(name_of(model))
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]


def test_every_kind_takes_the_options_of_all():
    for layer in list_attn():
        model = create(
            f"{layer}_resnet20_cifar", device="meta", attn_stages=[2], attn_placement="post", gate="two_sigmoid"
        )
        assert {place.partition(".")[0] for place in attention(model)} == {"layer2"}
