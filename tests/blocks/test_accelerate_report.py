"""What `accelerate` replaces, what it leaves alone and why, and what `restore` brings back."""

import pytest
import timm
import torch
import torchvision
from timm.layers import CecaModule, EcaModule, EffectiveSEModule, GlobalContext, SEModule
from timm.layers.cbam import CbamModule, LightCbamModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn
from torchvision.ops import SqueezeExcitation

import seattn
from tests.helpers.nets import NAMED, OWN, build, images


def report(model):
    return seattn.acceleration_report(seattn.accelerate(model, verbose=False))


class OwnSE(SEModule):
    pass


class OwnForward(SEModule):
    def __init__(self):
        super().__init__(8)
        self.forward = lambda x: x


def with_fc1(fc1):
    module = SEModule(8, rd_channels=4)
    module.fc1 = fc1
    return module


def with_gate_of_no_module():
    module = SEModule(8)
    del module.gate
    module.gate = torch.sigmoid
    return module


# Attention that is left alone: the module, the reason.
LEFT = {
    "function for a part": (with_gate_of_no_module, "its gate is not a module"),
    "norm inside": (lambda: SEModule(8, norm_layer=nn.BatchNorm2d), "BatchNorm2d inside the gate"),
    "add_maxpool": (lambda: SEModule(8, add_maxpool=True), "add_maxpool"),
    "activation": (lambda: SEModule(8, act_layer=nn.Tanh), "activation Tanh"),
    "tanh GELU": (lambda: SEModule(8, act_layer=lambda **_: nn.GELU("tanh")), "activation GELU"),
    "gate": (lambda: SEModule(8, gate_layer="tanh"), "gate Tanh"),
    "effective, gate": (lambda: EffectiveSEModule(8, gate_layer="tanh"), "gate Tanh"),
    "effective, add_maxpool": (lambda: EffectiveSEModule(8, add_maxpool=True), "add_maxpool"),
    "use_mlp": (lambda: EcaModule(8, use_mlp=True), "use_mlp"),
    "ECA, gate": (lambda: EcaModule(8, gate_layer="tanh"), "gate Tanh"),
    "circular": (lambda: CecaModule(8), "circular padding"),
    "torchvision, gate": (lambda: SqueezeExcitation(8, 2, scale_activation=nn.Tanh), "gate Tanh"),
    "EfficientNet, act": (lambda: SqueezeExcite(8, act_layer=nn.ELU), "activation ELU"),
    "wide convolution": (lambda: with_fc1(nn.Conv2d(8, 4, 3, padding=1)), "first convolution is not a plain 1 x 1"),
    "linear": (lambda: with_fc1(nn.Linear(8, 4)), "first convolution is not a plain 1 x 1"),
    "grouped": (lambda: with_fc1(nn.Conv2d(8, 4, 1, groups=2)), "first convolution is not a plain 1 x 1"),
    "CBAM, gate": (lambda: CbamModule(8, gate_layer="tanh"), "gate Tanh"),
    "light CBAM": (lambda: LightCbamModule(8), "no op computes it"),
    "global context": (lambda: GlobalContext(8), "no op computes it"),
    "subclass": (lambda: OwnSE(8), "subclass of SEModule"),
    "subclass of a block": (
        lambda: torchvision.models.quantization.resnet.QuantizableBasicBlock(8, 8),
        "subclass of BasicBlock",
    ),
    "forward of its own": (OwnForward, "subclass of SEModule"),
    "ours": (lambda: seattn.layers.SqueezeExcite(8), "a layer of seattn"),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_named_nets_are_replaced_throughout(name):
    model = timm.create_model(name, device="meta")
    found = report(model)
    assert (len(found.replaced), len(found.left)) == (NAMED[name], 0)
    modules = dict(model.named_modules())
    for row in found.replaced:
        assert type(modules[row.name]).__name__.startswith("Fused")
        assert type(modules[row.name]).__name__.endswith(row.kind.replace("SEModule", ""))


@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT)
def test_what_no_op_computes_is_left_alone_with_its_reason(make, reason):
    model = nn.ModuleDict({"inner": make()})
    kind = type(model["inner"])
    found = report(model)
    assert found.replaced == ()
    assert [(row.name, row.kind) for row in found.left] == [("inner", kind.__name__)]
    assert reason in found.left[0].note
    assert type(model["inner"]) is kind


def test_a_forward_set_on_the_instance_is_left_alone():
    model = nn.Sequential(SEModule(8))
    model[0].forward = lambda x: x
    assert report(model).left[0].note == "its forward was set on the instance"


def test_a_root_module_is_replaced_and_restored():
    model = SEModule(8)
    assert [row.name for row in report(model).replaced] == [""]
    assert type(model) is not SEModule
    seattn.restore(model)
    assert type(model) is SEModule


def test_attention_inside_a_block_is_reported_with_the_block():
    model = timm.create_model("seresnet18", device="meta")
    found = report(model)
    assert {row.kind for row in found.replaced} == {"BasicBlock"}
    assert {row.note for row in found.replaced} == {"batch norm + squeeze-excite + add + ReLU"}
    assert type(model.layer1[0].se) is SEModule


@pytest.mark.parametrize(
    ("name", "options", "note"),
    [
        ("resnet18", {}, "batch norm + add + ReLU"),
        ("resnet18", {"act_layer": "silu"}, "batch norm + add; activation SiLU by itself"),
        ("ecaresnet50t", {}, "batch norm + efficient channel attention + add + ReLU"),
        ("seresnet18", {"norm_layer": "groupnorm"}, "squeeze-excite + add + ReLU; norm GroupNorm by itself"),
        ("legacy_seresnet18", {}, "squeeze-excite + add + ReLU"),
    ],
)
def test_the_label_says_what_runs(name, options, note):
    found = report(timm.create_model(name, device="meta", **options))
    assert found.left == ()
    assert {row.note for row in found.replaced} == {note}


def test_stochastic_depth_is_in_the_label():
    rows = report(timm.create_model("seresnet18", drop_path_rate=0.1, device="meta")).replaced
    assert "stochastic depth" not in rows[0].note  # its rate is 0
    assert "in training, stochastic depth" in rows[-1].note


def test_a_block_whose_norm_and_attention_have_no_op_is_left_but_its_attention_is_not():
    cbam = report(timm.create_model("resnet18", block_args={"attn_layer": CbamModule}, device="meta"))
    assert {(row.kind, row.note) for row in cbam.left} == {
        ("BasicBlock", "CbamModule: no op computes it inside a tail")
    }
    assert [row.kind for row in cbam.replaced] == ["CbamModule"] * 8
    group = report(timm.create_model("resnet18", norm_layer="groupnorm", device="meta"))
    assert {row.note for row in group.left} == {"norm GroupNorm"}


def test_hooks_are_in_the_label():
    model = timm.create_model("seresnet18", device="meta")
    model.layer1[0].bn2.register_forward_hook(lambda *_: None)
    model.layer1[1].se.gate.register_forward_hook(lambda *_: None)
    notes = {row.name: row.note for row in report(model).replaced}
    assert notes["layer1.0"] == "squeeze-excite + add + ReLU; norm watched by a hook by itself"
    assert notes["layer1.1"] == "plain while hooks watch its parts"


@pytest.mark.parametrize("name", ["seresnet18", "mobilenetv3_small_100"])
def test_a_second_call_changes_nothing_and_reports_the_same(name):
    model = timm.create_model(name, device="meta")
    first = report(model)
    kinds = [type(module) for module in model.modules()]
    assert report(model) == first
    assert [type(module) for module in model.modules()] == kinds


def test_a_module_that_is_accelerated_before_its_block_is_part_of_it():
    model = build("seresnet18").eval()
    expected = model(images())
    report(model.layer1[0].se)
    assert len(report(model).replaced) == 8
    torch.testing.assert_close(model(images()), expected)
    seattn.restore(model)
    assert type(model.layer1[0].se) is SEModule


def test_the_table_is_printed_unless_asked_not_to(capsys):
    model = timm.create_model("seresnet18", device="meta")
    assert seattn.accelerate(model) is model
    printed = capsys.readouterr().out
    assert printed == f"{seattn.acceleration_report(model)}\n"
    lines = printed.splitlines()
    assert lines[0] == "runs as one op: 8"
    assert lines[1].split() == [
        "layer1.0",
        "BasicBlock",
        *["batch", "norm", "+", "squeeze-excite", "+", "add", "+", "ReLU"],
    ]
    assert lines[-1] == "left alone: 0"
    seattn.accelerate(model, verbose=False)
    assert capsys.readouterr().out == ""


def test_the_report_of_a_net_that_is_not_accelerated_says_what_could_be():
    model = timm.create_model("seresnet18", device="meta")
    found = seattn.acceleration_report(model)
    assert found.replaced == ()
    assert {row.note for row in found.left} == {"an op can compute it: call seattn.accelerate"}
    assert len(found.left) == 8
    assert seattn.restore(seattn.accelerate(model, verbose=False)) is model
    assert seattn.acceleration_report(model) == found


def test_a_model_without_attention_gives_an_empty_report():
    assert str(report(nn.Linear(2, 2))) == "runs as one op: 0\nleft alone: 0"


@pytest.mark.parametrize("name", ["seresnet18", "mobilenetv3_small_100", "legacy_seresnet18"])
def test_restore_brings_back_the_classes_and_every_bit(name):
    model = build(name).eval()
    kinds, before = [type(module) for module in model.modules()], model(images())
    attributes = [sorted(module.__dict__) for module in model.modules()]
    report(model)
    assert [type(module) for module in model.modules()] != kinds
    seattn.restore(model)
    assert [type(module) for module in model.modules()] == kinds
    assert [sorted(module.__dict__) for module in model.modules()] == attributes
    assert torch.equal(model(images()), before)
    seattn.restore(model)


@pytest.mark.parametrize("name", OWN)
def test_our_own_nets_are_built_so_and_stay_so(name):
    model = timm.create_model(name, device="meta")
    kinds = [type(module) for module in model.modules()]
    found = report(model)
    fused = 0 if name.startswith("cbam") else 9
    assert len(found.replaced) == fused
    seattn.restore(model)
    assert [type(module) for module in model.modules()] == kinds
