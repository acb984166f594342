"""What tools do to the parts of a layer counts: pruned, parametrised, exchanged and watched parts are called."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from seattn.layers import create_attn

# A part of each layer, whose weight is read in the ordinary way.
PARTS = {"se": ("fc1", "fc2"), "eca": ("conv",), "cbam": ("channel.fc1", "channel.fc2", "spatial.conv")}
CASES = [(name, part) for name, parts in PARTS.items() for part in parts]


def layer(name):
    torch.manual_seed(0)
    return create_attn(name, 16, **({} if name == "eca" else {"rd_channels": 4}))


def images(count=2):
    return torch.randn(count, 16, 5, 7, generator=torch.Generator().manual_seed(1))


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Adapter(nn.Module):
    """A low-rank adapter, as peft puts one in the place of a layer: what it adds is not in `weight`."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.weight, self.bias = base.weight, base.bias
        self.added = copy.deepcopy(base)

    def forward(self, x):
        return self.base(x) + self.added(x)


def doubled(module, name, part):
    """The layer whose part has twice the weight, written into the weight."""
    expected = copy.deepcopy(module)
    with torch.no_grad():
        expected.get_submodule(part).weight.mul_(2)
    return expected


CHANGES = {
    "prune": lambda conv: prune.random_unstructured(conv, "weight", amount=0.5),
    "parametrize": lambda conv: parametrize.register_parametrization(conv, "weight", Double()),
    "weight norm": weight_norm,
    "weight norm, parametrised": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_computed_weight_is_computed_in_every_step(name, part, change):
    module = layer(name)
    CHANGES[change](module.get_submodule(part))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):  # the second backward would go through the first step's weight
        optimizer.zero_grad()
        module(images()).square().sum().backward()
        grads = [p.grad for p in module.get_submodule(part).parameters()]
        assert grads
        assert all(grad is not None for grad in grads)
        optimizer.step()


@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_parametrised_weight_counts(name, part):
    module = layer(name).eval()
    expected = doubled(module, name, part)(images())
    parametrize.register_parametrization(module.get_submodule(part), "weight", Double())
    torch.testing.assert_close(module(images()), expected)
    if hasattr(module, "gate"):
        torch.testing.assert_close(module(images()), images() * module.gate(images())[:, :, None, None])


@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_part_that_a_tool_exchanged_is_called(name, part):
    module = layer(name).eval()
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.bias is not None:
            nn.init.zeros_(conv.bias)
    expected = doubled(module, name, part)(images())
    module.set_submodule(part, Adapter(module.get_submodule(part)))
    torch.testing.assert_close(module(images()), expected)


@pytest.mark.parametrize(("name", "part"), [*CASES, ("cbam", "spatial.bn")])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_a_hook_on_a_part_fires_and_changes_no_value(name, part, hook):
    module, seen = layer(name), []
    plain = copy.deepcopy(module)
    getattr(module.get_submodule(part), hook)(lambda *_: seen.append(part))
    y = module(images())
    torch.testing.assert_close(y, plain(images()))
    y.sum().backward()
    assert seen


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("se_resnet20_cifar", ["fc1", "fc2"]),
        ("cbam_resnet20_cifar", ["fc1", "fc2", "spatial.conv"]),
        ("se_preact_resnet18_cifar", ["fc1"]),
    ],
)
def test_a_low_rank_adapter_of_peft_counts_learns_and_can_be_merged(name, parts):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = timm.create_model(name, rd_ratio=0.5, zero_init_last=False).eval()
    x = torch.randn(2, 3, 32, 32)
    before = model(x).detach()
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=parts, r=2))
    torch.testing.assert_close(adapted(x), before)  # an adapter starts at zero
    added = {key: p for key, p in adapted.named_parameters() if p.requires_grad}
    assert len(added) >= 2 * len(parts)
    for key, parameter in added.items():
        if "lora_B" in key:
            nn.init.normal_(parameter, std=0.1)
    after = adapted(x)
    assert not torch.allclose(after, before, rtol=0, atol=1e-4)
    after.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in added.values())
    torch.testing.assert_close(adapted.merge_and_unload()(x), after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "cbam_resnet20_cifar", "eca_mobilenetv2_cifar"])
def test_a_net_whose_channels_are_pruned_goes_on(name):
    pruning = pytest.importorskip("torch_pruning")
    model = timm.create_model(name).eval()
    x = torch.randn(1, 3, 32, 32)
    before = sum(p.numel() for p in model.parameters())
    pruner = pruning.pruner.MetaPruner(
        model,
        x,
        importance=pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[model.get_classifier()],
    )
    pruner.step()
    assert sum(p.numel() for p in model.parameters()) < 0.6 * before
    y = model.train()(torch.randn(4, 3, 32, 32))
    assert y.shape == (4, 10)
    y.sum().backward()
