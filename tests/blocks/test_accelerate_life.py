"""An accelerated model in a model's life: weights saved and loaded, EMA, copies, compilers, hooks, a new classifier."""

import copy
import io
import pickle

import pytest
import timm
import torch
from timm.models import create_feature_extractor
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.checkpoint import checkpoint

import seattn
from tests.helpers.nets import build, images

NETS = ["seresnet18", "mobilenetv3_small_100"]


def accelerated(name="seresnet18", **kwargs):
    model = build(name, **kwargs)
    seattn.accelerate(model, verbose=False)
    return model


def step(model, optimizer):
    optimizer.zero_grad()
    model(images()).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", NETS)
def test_state_dict_and_parameters_are_the_same_objects(name):
    model = build(name)
    state, parameters = model.state_dict(keep_vars=True), list(model.parameters())
    seattn.accelerate(model, verbose=False)
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(state)
    assert all(after[key] is state[key] for key in state)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_weights_go_to_and_fro_between_an_accelerated_and_a_plain_model(name, tmp_path):
    fast, plain = accelerated(name).eval(), build(name, seed=5).eval()
    torch.save(fast.state_dict(), tmp_path / "weights.pt")
    plain.load_state_dict(torch.load(tmp_path / "weights.pt"), strict=True)
    torch.testing.assert_close(plain(images()), fast(images()), rtol=1e-4, atol=1e-4)
    other = accelerated(name, seed=7).eval()
    other.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(other(images()), fast(images()))


@pytest.mark.parametrize("name", NETS)
def test_copies_and_pickles_are_accelerated_too(name):
    model = accelerated(name).eval()
    kinds = [type(module) for module in model.modules()]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert [type(module) for module in again.modules()] == kinds
        assert torch.equal(again(images()), model(images()))
        seattn.restore(again)
        assert not any(type(module).__module__.startswith("seattn") for module in again.modules())


@pytest.mark.parametrize("name", NETS)
def test_ema_follows_as_it_follows_the_plain_model(name):
    averages = []
    for model in (accelerated(name).double(), build(name).double()):
        ema = ModelEmaV3(model, decay=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(2):
            torch.manual_seed(0)
            optimizer.zero_grad()
            model(images(dtype=torch.float64)).square().mean().backward()
            optimizer.step()
            ema.update(model)
        averages.append(ema.module.state_dict())
        assert ema.module.eval()(images(dtype=torch.float64)).isfinite().all()
    for key, value in averages[1].items():
        torch.testing.assert_close(averages[0][key], value, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", NETS)
def test_classifier_can_be_replaced(name):
    model = accelerated(name).eval()
    model.reset_classifier(3)
    assert model(images()).shape == (4, 3)
    assert len(seattn.acceleration_report(seattn.accelerate(model, verbose=False)).replaced) == len(
        seattn.acceleration_report(seattn.accelerate(build(name), verbose=False)).replaced
    )


def test_train_eval_and_dtype_reach_everything():
    model = accelerated()
    assert all(not module.training for module in model.eval().modules())
    assert all(module.training for module in model.train().modules())
    y = model.to(torch.bfloat16).eval()(images(dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["seresnet18", "resnet18"])
def test_an_optimizer_made_before_goes_on(name):
    model = build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    step(model, optimizer)
    before = model.conv1.weight.detach().clone()
    seattn.accelerate(model, verbose=False)
    step(model, optimizer)
    assert not torch.equal(model.conv1.weight, before)


class Checkpointed(nn.Module):
    """A block that is computed again in the backward."""

    def __init__(self, block, use_reentrant):
        super().__init__()
        self.block, self.use_reentrant = block, use_reentrant

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=self.use_reentrant)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("attn_layer", ["se", "cbam"])
def test_gradient_checkpointing_moves_the_statistics_as_in_the_plain_net(attn_layer, use_reentrant, momentum):
    """Without re-entrance the second forward ends early: what follows the last saved value does not run."""
    torch.manual_seed(0)
    small = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "block_args": {"attn_layer": attn_layer}}
    plain = timm.create_model("resnet18", num_classes=3, **small)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    fast = seattn.accelerate(copy.deepcopy(plain), verbose=False)
    for net in (plain, fast):
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            stage[0] = Checkpointed(stage[0], use_reentrant)
        net.train()(images(2, 32)).square().mean().backward()
    assert any(module.num_batches_tracked == 2 for module in plain.modules() if isinstance(module, nn.BatchNorm2d))
    for (name, want), found in zip(plain.named_buffers(), fast.buffers(), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    for want, found in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(found.grad, want.grad, rtol=1e-4, atol=1e-6)


def test_hooks_fire_on_blocks_and_on_their_parts_and_see_what_they_saw():
    seen = {}
    for kind in ("plain", "fast"):
        model = build("seresnet18").double().eval()
        if kind == "fast":
            seattn.accelerate(model, verbose=False)
        seen[kind] = found = []
        for name in ("layer1.0", "layer1.1.bn2", "layer2.0.se", "layer2.1.se.fc1", "layer3.0.act2", "layer4.1"):
            model.get_submodule(name).register_forward_hook(lambda _m, _x, y, f=found: f.append(y.clone()))
        model(images(dtype=torch.float64))
    assert len(seen["plain"]) == len(seen["fast"]) == 6
    for fast, plain in zip(seen["fast"], seen["plain"], strict=True):
        torch.testing.assert_close(fast, plain)


def test_synchronised_batch_norm_runs_by_itself_and_is_reported():
    fast, plain = build("seresnet18").double(), build("seresnet18").double()
    seattn.accelerate(fast, verbose=False)  # before the conversion: the block finds out when it runs
    fast, plain = (nn.SyncBatchNorm.convert_sync_batchnorm(model).eval() for model in (fast, plain))
    x = images(dtype=torch.float64)
    torch.testing.assert_close(fast(x), plain(x))
    for model in (fast, plain):
        notes = {row.note for row in seattn.acceleration_report(seattn.accelerate(model, verbose=False)).replaced}
        assert notes == {"squeeze-excite + add + ReLU; norm SyncBatchNorm by itself"}
    torch.testing.assert_close(plain(x), fast(x))
    left = seattn.acceleration_report(
        seattn.accelerate(nn.SyncBatchNorm.convert_sync_batchnorm(build("resnet18")), verbose=False)
    ).left
    assert {row.note for row in left} == {"norm SyncBatchNorm"}


@pytest.mark.parametrize("training", [True, False])
def test_stochastic_depth_and_dropout_draw_what_they_drew(training):
    model = build("seresnet18", drop_path_rate=0.5).double().train(training)
    fast = copy.deepcopy(model)
    seattn.accelerate(fast, verbose=False)
    outputs = []
    for net in (model, fast):
        torch.manual_seed(3)
        outputs.append(net(images(8, dtype=torch.float64)))
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("name", ["seresnet18", "legacy_seresnet18", "mobilenetv3_small_100"])
def test_torchscript_takes_the_plain_forward(name):
    model = accelerated(name).eval()
    torch.testing.assert_close(torch.jit.script(model)(images()), model(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "node"), [("seresnet18", "layer4"), ("mobilenetv3_small_100", "blocks.5")])
def test_fx_has_the_modules_as_nodes(name, node):
    fast, plain = (create_feature_extractor(m.eval(), {node: "y"}) for m in (accelerated(name), build(name)))
    torch.testing.assert_close(fast(images())["y"], plain(images())["y"], rtol=1e-4, atol=1e-4)
    assert [n.target for n in fast.graph.nodes] == [n.target for n in plain.graph.nodes]


@pytest.mark.parametrize("training", [True, False])
def test_compiles_whole(training):
    models = [build("se_resnet20_cifar").double().train(training) for _ in range(2)]
    x = images(side=16, dtype=torch.float64)
    compiled = torch.compile(models[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), models[1](x))
    for key, value in models[1].state_dict().items():
        torch.testing.assert_close(models[0].state_dict()[key], value)


def test_an_accelerated_net_compiles_whole():
    model = accelerated("mobilenetv3_small_050").eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)


def test_exports_saves_and_loads(tmp_path):
    model = accelerated("seresnet18").eval()
    torch.export.save(torch.export.export(model, (images(),)), tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(again(images()), model(images()), rtol=1e-4, atol=1e-4)


def test_a_device_context_does_not_switch_the_op_off():
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    module = timm.layers.SEModule(8)
    seattn.accelerate(module, verbose=False)
    with torch.device("cpu"):
        y = module(x)
    assert "MulBackward" not in y.grad_fn.name()
