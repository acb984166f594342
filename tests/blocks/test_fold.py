"""Batch norms folded into convolutions, `seattn.accelerate(model, fold=True)`, against the same net unfolded."""

import copy
import io
import pickle
import threading
import warnings

import pytest
import torch
from timm.models._features_fx import create_feature_extractor
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

import seattn
import seattn.blocks.fused.residual
from seattn.blocks.folded.kernel import OneDNNConv, TorchConv
from seattn.blocks.folded.layers import fold_of
from tests.helpers.nets import NAMED, OWN, build, distance, images, measure

# Norms after a Conv2dSame, of attention layers, and after an addition.
LEFT = {"tf_efficientnetv2_s": 5, "cbam_resnet20_cifar": 9, "se_wrn16_8_cifar": 6, "se_preact_resnet18_cifar": 9}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
TINY = {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 16)}


def folded(model):
    return seattn.accelerate(copy.deepcopy(model), fold=True, verbose=False)


def tiny(name="seresnet18"):
    return build(name, num_classes=7, **TINY).eval().to(memory_format=torch.channels_last)


def tiny_images(count=2):
    return images(count, side=40).to(memory_format=torch.channels_last)


def outputs(model, x):
    with torch.no_grad():
        return model(x)


def assert_same(found, expected, rtol=1e-5):
    torch.testing.assert_close(found, expected, rtol=0, atol=rtol * float(expected.abs().max()))


MORE = ("mobilenetv2_cifar", "se_wrn16_8_cifar", "se_preact_resnet18_cifar", "se_resnet18", "se_resnet14_deep_cifar")
MORE += ("resnet18_stem7_cifar",)


@pytest.mark.parametrize(
    "name", [*NAMED, *OWN, *MORE, pytest.param("se_resnext29_8x64d_cifar", marks=pytest.mark.slow)]
)
def test_a_folded_net_computes_what_the_net_computes(name):
    model, x = build(name).eval(), images(side=32)
    exact = outputs(copy.deepcopy(model).double(), x.double())
    assert_same(outputs(folded(copy.deepcopy(model).double()), x.double()), exact, 1e-12)
    fast = folded(model)
    report = seattn.acceleration_report(fast)
    assert report.folded
    assert sum(row.note.startswith("not folded") for row in report.left) == LEFT.get(name, 0)
    for layout in LAYOUTS.values():
        model.to(memory_format=layout)
        fast.to(memory_format=layout)
        inputs = x.to(memory_format=layout)
        y = outputs(fast, inputs)
        # Rounding is amplified by up to 100 layers: the yardstick is the plain net's own distance from float64.
        plain_error = distance({"y": outputs(model, inputs).double()}, {"y": exact}, "y")
        assert distance({"y": y.double()}, {"y": exact}, "y") <= 2 * plain_error + 1e-6


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "resnet20_cifar", "mobilenetv2_cifar"])
def test_one_small_image_takes_torch_where_a_call_of_onednn_costs_more(name):
    model = build(name).eval().to(memory_format=torch.channels_last)
    fast = folded(copy.deepcopy(model))
    x = images(1, side=32).to(memory_format=torch.channels_last)
    exact = outputs(copy.deepcopy(model).double(), x.double())
    for _ in range(2):  # the second call takes the plans
        y = outputs(fast, x)
        plain_error = distance({"y": outputs(model, x).double()}, {"y": exact}, "y")
        assert distance({"y": y.double()}, {"y": exact}, "y") <= 2 * plain_error + 1e-6
    folds = {id(fold): fold for module in fast.modules() if (fold := fold_of(module)) is not None}
    kinds = [type(conv) for fold in folds.values() for conv in fold._packed._convs.values()]
    assert set(kinds) == {TorchConv, OneDNNConv}
    outputs(fast, images(3, side=32).to(memory_format=torch.channels_last))
    more = [type(fold._packed._convs[key]) for fold in folds.values() for key in fold._packed._convs if key[1][0] == 3]
    assert set(more) == {OneDNNConv}


@pytest.mark.parametrize(
    ("layout", "autocast", "made"), [("channels_last", False, 8), ("channels_last", True, 0), ("nchw", False, 0)]
)
def test_blocks_make_their_plans_once_and_only_for_inputs_that_a_plan_takes(monkeypatch, layout, autocast, made):
    """Making a plan takes longer than a block of one image."""
    plans = []
    make = seattn.blocks.fused.residual._plan
    monkeypatch.setattr(seattn.blocks.fused.residual, "_plan", lambda *args: plans.append(args) or make(*args))
    model = build("resnet18").eval().to(memory_format=LAYOUTS[layout])
    fast = folded(model)
    x = images(1, side=64).to(memory_format=LAYOUTS[layout])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for _ in range(3):
            outputs(fast, x)
    assert len(plans) == made


@pytest.mark.parametrize("name", ["seresnet18", "resnet18", "efficientnet_b0"])
def test_autocast_rounds_no_worse_than_the_plain_net(name):
    model = build(name).eval().to(memory_format=torch.channels_last)
    x = images(side=32).to(memory_format=torch.channels_last)
    exact = outputs(model, x)
    fast = folded(model)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = outputs(fast, x), outputs(model, x)
    assert found.dtype == plain.dtype
    assert (found - exact).norm() <= 1.5 * (plain - exact).norm()


def test_the_state_dict_stays_and_restore_leaves_nothing_behind():
    model = tiny()
    types = {name: type(module) for name, module in model.named_modules()}
    buffers = [name for name, _ in model.named_buffers()]
    fast = folded(model)
    assert list(fast.state_dict()) == list(model.state_dict())
    for key, value in model.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[key], value, rtol=0, atol=0)
    expected = outputs(fast, tiny_images())
    first = str(seattn.acceleration_report(fast))
    seattn.accelerate(fast, fold=True, verbose=False)
    assert str(seattn.acceleration_report(fast)) == first
    torch.testing.assert_close(outputs(fast, tiny_images()), expected, rtol=0, atol=0)
    seattn.restore(fast)
    assert {name: type(module) for name, module in fast.named_modules()} == types
    assert [name for name, _ in fast.named_buffers()] == buffers
    assert not any(key.startswith("_seattn") for module in fast.modules() for key in module.__dict__)
    assert seattn.acceleration_report(fast).folded == ()
    torch.testing.assert_close(outputs(fast, tiny_images()), outputs(model, tiny_images()), rtol=0, atol=0)


def test_the_report_names_what_is_folded():
    report = seattn.acceleration_report(folded(tiny()))
    notes = {row.name: row.note for row in report.folded}
    assert notes["bn1"] == notes["layer1.0.bn1"] == "convolution + BatchNorm2d + relu"
    assert notes["layer1.0.bn2"] == notes["layer2.0.downsample.1"] == "convolution + BatchNorm2d"
    assert "folded for inference: 13" in str(report)
    assert "folded" not in str(seattn.acceleration_report(tiny()))


def test_a_net_in_training_mode_is_left_alone_with_a_reason():
    model = tiny().train()
    report = seattn.acceleration_report(seattn.accelerate(model, fold=True, verbose=False))
    assert report.folded == ()
    reasons = [row.note for row in report.left if row.kind == "BatchNorm2d"]
    assert len(reasons) == 13
    assert set(reasons) == {"not folded: training mode: call model.eval() first"}


def test_train_says_what_to_do_and_trains_as_the_plain_net():
    model, fast = tiny(), folded(tiny())
    outputs(fast, tiny_images())  # blocks have their plans
    with pytest.warns(UserWarning, match=r"seattn\.restore\(model\)"):
        fast.train()
    found, expected = measure(fast, tiny_images()), measure(seattn.accelerate(model, verbose=False), tiny_images())
    buffers = [name for name in found if "_folded_" in name]
    for name in buffers:
        del found[name]
    assert found.keys() == expected.keys()
    for name, value in expected.items():  # the eval output too: after the step the folds have new statistics
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()) + 1e-6, msg=name)


def test_gradients_in_evaluation_mode_are_those_of_the_plain_net():
    model, fast = tiny(), folded(tiny())
    for net in (model, fast):
        net(tiny_images()).square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), fast.parameters(), strict=True):
        assert_same(q.grad, p.grad, 1e-4), name


@pytest.mark.parametrize(
    "place", ["conv1", "bn1", "act1", "layer1.0.conv1", "layer1.0.bn2", "layer1.0.se.fc1", "layer2.0"]
)
def test_a_hook_sees_what_the_plain_module_gives(place):
    model, fast = tiny(), folded(tiny())
    outputs(fast, tiny_images())
    seen = {}
    for key, net in (("plain", model), ("fast", fast)):
        net.get_submodule(place).register_forward_hook(lambda m, i, o, key=key: seen.__setitem__(key, o.clone()))
    y = outputs(fast, tiny_images())
    assert_same(y, outputs(model, tiny_images()))
    assert_same(seen["fast"], seen["plain"])


def in_place(net):
    for p in net.parameters():
        with torch.no_grad():
            p.mul_(1.1)


def by_load_state_dict(net):
    net.load_state_dict({k: v * 1.1 if v.is_floating_point() else v for k, v in net.state_dict().items()})


def by_assignment(net):
    net.load_state_dict({k: v * 1.1 if v.is_floating_point() else v for k, v in net.state_dict().items()}, assign=True)


def statistics(net):
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.mul_(1.2)


def by_conversion(net):
    net.double().float()


def new_parameter(net):
    net.layer1[0].conv2.weight = nn.Parameter(net.layer1[0].conv2.weight.detach() * 2)


def new_attention(net):
    net.layer1[0].se = nn.Sigmoid()


def no_attention(net):
    net.layer1[0].se = None


def adapter(net):
    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def forward(self, x):
            return self.base(x) + 0.1 * self.base(x).flip(1)

    net.layer1[0].conv2 = Adapter(net.layer1[0].conv2)


def own_forward(net):
    conv = net.layer1[0].conv2
    conv.forward = lambda x: 2 * nn.Conv2d.forward(conv, x)


def parametrized(net):
    class Double(nn.Module):
        def forward(self, w):
            return 2 * w

    parametrize.register_parametrization(net.layer1[0].conv2, "weight", Double())


def other_activation(net):
    net.layer1[0].act1 = nn.Tanh()


CHANGES = [
    in_place, by_load_state_dict, by_assignment, statistics, by_conversion, new_parameter, new_attention, no_attention,
    adapter, own_forward, parametrized, other_activation,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_net_is_noticed(change):
    model, fast = tiny(), folded(tiny())
    before = outputs(fast, tiny_images())
    change(model)
    change(fast)
    after = outputs(fast, tiny_images())
    assert_same(after, outputs(model, tiny_images()))
    assert change is by_conversion or not torch.allclose(after, before, rtol=1e-3)


class Odd(nn.Module):
    """A convolution and a norm, in a forward that a subclass changes."""

    def __init__(self, conv=None, norm=None):
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 6, 3, bias=True)
        self.norm = norm or nn.BatchNorm2d(6)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class Twice(Odd):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class Shared(Odd):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm(self.conv(x) + 1)


class AfterAdd(Odd):
    def forward(self, x):
        return self.norm(self.conv(x) + 1)


class Branches(Odd):
    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > 0 else self.norm(self.conv(x) + 1)


class Scaled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Shifted(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 1


def hooked():
    net = Odd()
    net.conv.register_forward_hook(lambda m, i, o: 3 * o)
    return net


def in_inference_mode():
    with torch.inference_mode():
        return Odd()


REFUSED = {
    "something else takes": Twice,
    "called more than once": Shared,
    "does not follow": AfterAdd,
    "torch.fx cannot follow": Branches,
    "does not follow a plain nn.Conv2d": lambda: Odd(conv=Scaled(3, 6, 3)),
    "subclass of BatchNorm2d: Shifted": lambda: Odd(norm=Shifted(6)),
    "no running statistics": lambda: Odd(norm=nn.BatchNorm2d(6, track_running_stats=False)),
    "hooks watch its convolution": hooked,
    "but a ParametrizedConv2d": lambda: Odd(conv=nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3))),
    "inference mode": in_inference_mode,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_folded_is_left_alone_with_a_reason(reason):
    torch.manual_seed(0)
    net = REFUSED[reason]().eval()
    x = images(2, side=9)
    expected = outputs(net, x)
    fast = seattn.accelerate(net, fold=True, verbose=False)
    report = seattn.acceleration_report(fast)
    assert report.folded == ()
    (row,) = [row for row in report.left if row.name == "norm"]
    assert reason in row.note
    torch.testing.assert_close(outputs(fast, x), expected, rtol=0, atol=0)


CONVS = {
    "plain": nn.Conv2d(3, 6, 3),
    "groups": nn.Conv2d(3, 6, 3, groups=3, bias=False),
    "stride, dilation": nn.Conv2d(3, 6, (3, 2), stride=2, dilation=2, padding=(2, 1)),
    "same": nn.Conv2d(3, 6, 3, padding="same"),
    "reflect": nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Tanh, nn.Identity])
@pytest.mark.parametrize("conv", CONVS)
def test_every_kind_of_convolution_and_activation(conv, act, layout):
    torch.manual_seed(0)
    net = Odd(copy.deepcopy(CONVS[conv]))
    net.act = act()
    nn.init.normal_(net.norm.running_mean)
    nn.init.uniform_(net.norm.running_var, 0.5, 2)
    nn.init.normal_(net.norm.weight)
    nn.init.normal_(net.norm.bias)
    net.eval().to(memory_format=LAYOUTS[layout])
    fast = folded(net)
    assert len(seattn.acceleration_report(fast).folded) == 1
    with pytest.raises(ValueError, match="expected 4D input"):
        fast(torch.randn(3, 9, 9))
    for shape in ((2, 3, 9, 7), (1, 3, 9, 7), (5, 3, 8, 8), (0, 3, 8, 8)):
        x = 3 * torch.randn(shape).to(memory_format=LAYOUTS[layout])
        y, expected = outputs(fast, x), outputs(net, x)
        assert y.shape == expected.shape
        assert y.stride() == expected.stride()
        if y.numel():
            assert_same(y, expected, 2e-6)


def test_copies_and_pickles_are_folded_nets_of_their_own():
    fast, x = folded(tiny()), tiny_images()
    expected = outputs(fast, x)
    stream = io.BytesIO()
    torch.save(fast, stream)
    stream.seek(0)
    copies = [copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), torch.load(stream, weights_only=False)]
    for copied in copies:
        assert len(seattn.acceleration_report(copied).folded) == 13
        torch.testing.assert_close(outputs(copied, x), expected, rtol=0, atol=0)
        hook = copied.layer1[0].conv1.register_forward_hook(lambda m, i, o: 0 * o)
        assert not torch.allclose(outputs(copied, x), expected)
        hook.remove()
        in_place(copied)
        assert not torch.allclose(outputs(copied, x), expected)
    torch.testing.assert_close(outputs(fast, x), expected, rtol=0, atol=0)


def test_export_has_no_norm_and_the_same_outputs():
    fast, x = folded(tiny()), tiny_images()
    program = torch.export.export(fast, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)
    for count in (2, 3):
        assert_same(outputs(program.module(), tiny_images(count)), outputs(fast, tiny_images(count)))


def test_the_onnx_model_has_no_norm():
    pytest.importorskip("onnxscript")
    fast, x = folded(tiny()), tiny_images()
    program = torch.onnx.export(fast, (x,), dynamo=True, verbose=False)
    assert not any("BatchNorm" in node.op_type for node in program.model.graph)
    ort = pytest.importorskip("onnxruntime")
    stream = io.BytesIO()
    program.save(stream)
    session = ort.InferenceSession(stream.getvalue())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.contiguous().numpy()})
    assert_same(torch.from_numpy(y), outputs(fast, x))


@pytest.mark.parametrize("how", ["compile", "trace", "script", "fx", "features"])
def test_graphs_of_a_folded_net(how):
    model, fast, x = tiny(), folded(tiny()), tiny_images()
    expected = outputs(model, x)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        if how == "compile":
            graph = torch.compile(fast, fullgraph=True, backend="eager")
        elif how == "trace":
            graph = torch.jit.trace(fast, x)
        elif how == "script":
            graph = torch.jit.script(fast)
        elif how == "fx":
            graph = torch.fx.symbolic_trace(fast)
        else:
            extract = create_feature_extractor(fast, ["layer4"])
            assert_same(extract(x)["layer4"], create_feature_extractor(model, ["layer4"])(x)["layer4"])
            return
        assert_same(graph(x), expected)


def test_vmap_over_a_folded_net_gives_the_outputs_of_the_plain_net():
    model, fast, x = tiny(), folded(tiny()), tiny_images()
    with torch.no_grad():
        each = torch.func.vmap(lambda image: fast(image.unsqueeze(0)).squeeze(0))(x)
    assert_same(each, outputs(model, x))


def test_a_compiled_graph_sees_weights_that_are_loaded():
    model, fast, x = tiny(), folded(tiny()), tiny_images()
    graph = torch.compile(fast, backend="eager")
    outputs(graph, x)
    for net in (model, fast):
        by_load_state_dict(net)
    assert_same(outputs(graph, x), outputs(model, x))


def test_threads_share_a_folded_net():
    fast, x = folded(tiny()), tiny_images()
    expected = outputs(fast, x)
    found = []
    threads = [threading.Thread(target=lambda: found.append(outputs(fast, x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for y in found:
        torch.testing.assert_close(y, expected, rtol=0, atol=0)


def test_operations_are_counted_as_before():
    counts = []
    for net in (tiny(), folded(tiny())):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(tiny_images())
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
