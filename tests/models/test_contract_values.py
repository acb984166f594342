"""timm's contract where it needs values: on the cheapest nets of each family and kind by default, in `make test-slow`
on every registered name.
"""

import copy
import json
import pickle

import pytest
import timm
import torch
from timm.layers import set_scriptable
from timm.models import create_feature_extractor
from timm.utils import ModelEmaV3

import seattn
from tests.models._zoo import RUN, TRACED, TRUNKS, attention, build, create, each, images, kind, name_of


@pytest.fixture(scope="module", params=each(RUN))
def net(request):
    """A net in eval mode; tests leave it as it is."""
    return build(request.param)


@pytest.fixture(scope="module", params=each(TRUNKS))
def trunk(request):
    """A net of another trunk, in eval mode; tests leave it as it is."""
    return build(request.param)


@pytest.fixture(scope="module", params=each(TRACED))
def traced(request):
    """A net for compilers, in eval mode and float64, where the order of rounding hides nothing; left as it is."""
    return build(request.param).double()


def train_step(model):
    """Outputs and every gradient."""
    y = model.train()(images(name_of(model)))
    y.square().mean().backward()
    return y.detach(), {name: p.grad for name, p in model.named_parameters()}


def equal(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_forward_is_its_parts(net):
    x = images(name_of(net))
    with torch.no_grad():
        y = net(x)
        features = net.forward_features(x)
        assert torch.equal(net.forward_head(features), y)
        pooled = net.forward_head(features, pre_logits=True)
        weight, bias = (
            net.get_classifier().weight.flatten(1),
            net.get_classifier().bias,
        )  # a 1 x 1 convolution in ResNetV2
        torch.testing.assert_close(pooled @ weight.T + bias, y, atol=1e-4, rtol=1e-4)
    assert y.std() > 0
    assert y.isfinite().all()


def test_checkpointing_changes_no_output_and_every_parameter_has_a_gradient(net):
    straight, saving = copy.deepcopy(net), copy.deepcopy(net)
    saving.set_grad_checkpointing(True)
    (y, grads), (again, saved) = train_step(straight), train_step(saving)
    assert torch.equal(again, y)
    for name, grad in grads.items():
        assert grad is not None, name
        assert grad.isfinite().all(), name
        assert torch.equal(saved[name], grad), name


def test_features_only_are_the_intermediates(trunk):
    name, x = name_of(trunk), images(name_of(trunk))
    with torch.no_grad():
        features = build(name, features_only=True)(x)
        final, levels = trunk.forward_intermediates(x)
        assert torch.equal(final, trunk.forward_features(x))
        assert equal(features, levels[: len(features)])
        only = trunk.forward_intermediates(x, indices=[1, 2], intermediates_only=True, stop_early=True)
        assert equal(only, levels[1:3])
        assert torch.equal(trunk.forward_intermediates(x, indices=1)[1][0], levels[-1])
    with pytest.raises((ValueError, AssertionError)):
        trunk.forward_intermediates(x, output_fmt="NLC")


def test_intermediates_under_checkpointing(trunk):
    model, x = copy.deepcopy(trunk).train(), images(name_of(trunk))
    straight = model.forward_intermediates(x, intermediates_only=True)
    model.set_grad_checkpointing(True)
    assert equal(model.forward_intermediates(x, intermediates_only=True), straight)


def test_pruned_nets_keep_the_levels_that_were_asked_for_and_train(trunk):
    x = images(name_of(trunk))
    with torch.no_grad():
        expected, levels = trunk(x), trunk.forward_intermediates(x, intermediates_only=True)
    whole = copy.deepcopy(trunk)
    whole.prune_intermediate_layers([len(levels) - 1], prune_head=False)
    with torch.no_grad():
        assert torch.equal(whole(x), expected)
    for i, level in enumerate(levels):
        pruned = copy.deepcopy(trunk)
        assert pruned.prune_intermediate_layers([i], prune_norm=True) == [i]
        assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in trunk.parameters())
        if i < len(levels) - 1:
            assert pruned.num_features == level.shape[1]
        with torch.no_grad():
            assert torch.equal(pruned.forward_intermediates(x, indices=[i], intermediates_only=True)[0], level)
            if i < len(levels) - 1:  # what is left ends there; the last level may be followed by a head of its own
                assert torch.equal(pruned.forward_features(x), level)
        pruned.train().forward_features(x).sum().backward()
        assert [key for key, p in pruned.named_parameters() if p.grad is None] == []


def test_channels_last_gives_the_same_answer(net):
    x = images(name_of(net))
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = net(x)
        assert (last(x.to(memory_format=torch.channels_last)) - expected).norm() < 1e-4 * expected.norm()


def test_bfloat16_is_near_float32(net):
    x = images(name_of(net))
    half = copy.deepcopy(net).to(torch.bfloat16)
    with torch.no_grad():
        y, levels = half.forward_intermediates(x.bfloat16())
        expected = net.forward_intermediates(x, indices=[1])[1][0]
        assert half(x.bfloat16()).isfinite().all()
        assert half.float()(x).dtype == torch.float32
    assert y.dtype == torch.bfloat16
    # Of the first stage: through a whole net of random weights the rounding grows as it does in timm's own.
    assert (levels[1].float() - expected).norm() < 0.1 * expected.norm()


def test_copies_and_pickles_are_the_same_net(net):
    x = images(name_of(net))
    with torch.no_grad():
        for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert list(again.state_dict()) == list(net.state_dict())
            assert torch.equal(again(x), net(x))


def test_ema_averages_every_value(trunk):
    model = copy.deepcopy(trunk)
    ema = ModelEmaV3(model, decay=0.75)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.01)
    ema.update(model)
    for name, value in ema.module.named_parameters():
        torch.testing.assert_close(value, trunk.get_parameter(name) + 0.0025)
    with torch.no_grad():
        assert ema.module(images(name_of(trunk))).isfinite().all()


def test_save_for_hf_and_local_dir_give_the_same_net(net, tmp_path):
    timm.models.save_for_hf(net, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == name_of(net)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = images(name_of(net))
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


# Compilers: one net of each family by default.


def test_torchscript(traced):
    with set_scriptable(True):
        model = create(name_of(traced)).double().eval()
    model.load_state_dict(traced.state_dict())
    x = images(name_of(traced)).double()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), traced(x), atol=1e-8, rtol=1e-6)


def test_fx_graph_computes_the_same_forward_and_backward(traced):
    model = copy.deepcopy(traced)
    last, x = model.pretrained_cfg["classifier"], images(name_of(traced)).double()
    graph = create_feature_extractor(model, [last])
    with torch.no_grad():
        torch.testing.assert_close(graph(x)[last].flatten(1), traced(x), atol=1e-8, rtol=1e-6)
    graph.train()
    graph(x)[last].square().mean().backward()
    assert [name for name, p in graph.named_parameters() if p.grad is None] == []
    calls = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
    ops = {"se": "squeeze_excite", "cbam": "cbam_channel_gate"}  # whole in the graph: which kernel runs is chosen later
    if kind(name_of(traced)) in ops:
        op = ops[kind(name_of(traced))]
        assert sum(call in (op, f"{op}_add_act") for call in calls) == len(attention(traced))


@pytest.mark.parametrize(
    "name", ["se_preact_resnet18_cifar", "eca_wrn16_8_cifar", "se_mobilenetv2_cifar", "regnetx_002"]
)
def test_fx_graph_of_a_block_with_one_op_at_its_end_has_the_same_bits_and_every_parameter(name):
    model = create(name)
    if not attention(model):
        seattn.add_attention(model, "se", inplace=True)
    x, last = torch.randn(2, 3, 32, 32), model.pretrained_cfg["classifier"]
    graph = create_feature_extractor(model.eval(), [last])
    with torch.no_grad():
        assert torch.equal(graph(x)[last].flatten(1), model(x))
    assert {name for name, _ in graph.named_parameters()} == {name for name, _ in model.named_parameters()}
    copy.deepcopy(model)
    again = copy.deepcopy(graph)
    again.train()(x)[last].square().mean().backward()
    assert [name for name, p in again.named_parameters() if p.grad is None] == []


def test_compiles_whole(traced):
    torch._dynamo.reset()
    compiled, x = torch.compile(traced, fullgraph=True, backend="eager"), images(name_of(traced)).double()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), traced(x), atol=1e-8, rtol=1e-6)


@pytest.mark.slow
def test_trains_compiled_whole(traced):
    torch._dynamo.reset()
    straight, model = copy.deepcopy(traced), copy.deepcopy(traced)
    x = images(name_of(traced)).double()
    for run in (straight.train(), torch.compile(model.train(), fullgraph=True, backend="aot_eager")):
        run(x).square().mean().backward()
    for name, p in straight.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, p.grad, atol=1e-8, rtol=1e-5)


def test_exports_saves_and_loads(traced, tmp_path):
    x = images(name_of(traced)).double()
    torch.export.save(torch.export.export(traced, (x,)), tmp_path / "net.pt2")
    with torch.no_grad():
        again = torch.export.load(tmp_path / "net.pt2").module()(x)
        torch.testing.assert_close(again, traced(x), atol=1e-8, rtol=1e-6)
