"""Widths of pruned nets: a net is built again with them, tells timm its new channels, and refuses wrong ones."""

import pytest
import timm
import torch
from torch import nn

from seattn.blocks.narrowing import find_widths
from seattn.core.errors import UserError
from seattn.evaluation.profile.costs import parameters_and_macs
from seattn.models.load import load_model

NETS = {  # name and options: every family, kind of block, attention layer and placement
    "se": ("se_resnet20_cifar", {}),
    "plain": ("resnet20_cifar", {}),
    "pre": ("se_resnet20_cifar", {"attn_placement": "pre"}),
    "identity": ("se_resnet20_cifar", {"attn_placement": "identity"}),
    "eca": ("eca_resnet20_cifar", {}),
    "cbam": ("cbam_resnet20_cifar", {}),
    "deep stem": ("se_resnet14_deep_cifar", {}),
    "preact": ("se_preact_resnet18_cifar", {}),
    "depthwise": ("se_mobilenetv2_cifar", {}),
    "groups": ("se_resnext29_8x64d_cifar", {}),
    "imagenet": ("se_resnet18", {}),
}
SLOW = ("groups", "imagenet", "preact")


def pruned(name, options, ratio=0.4):
    """A net with random weights and statistics, pruned, and its widths."""
    pruning = pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=7, **options)
    net(torch.randn(4, 3, 32, 32))  # statistics that differ by channel
    net.eval()
    x = torch.randn(2, 3, 32, 32)
    importance = pruning.importance.GroupMagnitudeImportance(p=2)
    pruner = pruning.pruner.BasePruner(
        net, x, importance=importance, pruning_ratio=ratio, ignored_layers=[net.get_classifier()]
    )
    pruner.step()
    with torch.device("meta"):
        full = timm.create_model(name, num_classes=7, **options)
    return net, find_widths(net, full)


def _geometry(conv):
    return conv.in_channels, conv.out_channels, conv.groups


@pytest.mark.parametrize(
    ("name", "options"),
    [pytest.param(*NETS[key], id=key, marks=[pytest.mark.slow] if key in SLOW else []) for key in NETS],
)
def test_a_pruned_net_is_built_again_from_its_widths(name, options):
    net, widths = pruned(name, options)
    again = timm.create_model(name, num_classes=7, widths=widths, **options).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(again(x), net(x), rtol=0, atol=0)
    for (path, module), other in zip(net.named_modules(), again.modules(), strict=True):
        if isinstance(module, nn.Conv2d):
            assert _geometry(other) == _geometry(module), path
    before = sum(p.numel() for p in timm.create_model(name, num_classes=7, **options).parameters())
    assert sum(p.numel() for p in again.parameters()) < 0.7 * before
    assert again.num_features == again.forward_features(x).shape[1]

    levels = timm.create_model(name, widths=widths, features_only=True, **options).eval()
    assert [level.shape[1] for level in levels(x)] == levels.feature_info.channels()
    other = timm.create_model(name, num_classes=3, widths=widths, **options).train()
    other(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in other.parameters())
    other.reset_classifier(5)
    assert other(x).shape == (2, 5)


def test_a_layer_keeps_its_first_channels_and_its_class():
    torch.manual_seed(0)
    full = timm.create_model("se_resnet20_cifar")
    torch.manual_seed(0)
    widths = {"layer1.0.conv1": [5, 16], "layer1.0.bn1": [5], "layer1.0.conv2": [16, 5]}
    net = timm.create_model("se_resnet20_cifar", widths=widths)
    conv, norm = net.layer1[0].conv1, net.layer1[0].bn1
    assert (type(conv), conv.in_channels, conv.out_channels) == (nn.Conv2d, 16, 5)
    assert torch.equal(conv.weight, full.layer1[0].conv1.weight[:5])
    assert type(norm) is type(full.layer1[0].bn1)
    assert norm.num_features == len(norm.running_mean) == len(norm.bias) == 5
    assert net.layer1[0].conv2.weight.shape == (16, 5, 3, 3)
    assert (net.num_features, net.fc.in_features) == (64, 64)


def test_a_layer_of_one_input_is_not_a_depthwise_one():
    widths = {"conv1": [16, 1], "layer1.0.se.fc2": [16, 1]}
    net = timm.create_model("se_resnet20_cifar", in_chans=1, widths=widths)
    assert _geometry(net.conv1) == (1, 16, 1)
    assert _geometry(net.layer1[0].se.fc2) == (1, 16, 1)
    assert parameters_and_macs(net) == parameters_and_macs(timm.create_model("se_resnet20_cifar", in_chans=1))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"layer9": [1, 1]}, "widths has 'layer9', which is not a layer with a weight"),
        ({"layer1": [1, 1]}, "widths has 'layer1', which is not a layer with a weight"),
        ({"conv1": [17, 3]}, r"widths of conv1 must be 2 numbers from 1 to \[16, 3\], got \[17, 3\]"),
        ({"conv1": [0, 3]}, r"widths of conv1 must be 2 numbers from 1 to"),
        ({"conv1": [8]}, r"widths of conv1 must be 2 numbers from 1 to"),
        ({"bn1": "16"}, r"widths of bn1 must be 1 numbers from 1 to \[16\], got '16'"),
        ({"conv1": [8, 3]}, "widths do not fit together"),
    ],
)
def test_wrong_widths_are_refused(widths, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("se_resnet20_cifar", widths=widths)


def test_wrong_widths_in_a_folder_are_one_line(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"architecture": "se_resnet20_cifar", "model_args": {"widths": {"conv1": [8, 3]}}, "pretrained_cfg": {}}'
    )
    with pytest.raises(UserError, match="does not describe a model that can be built: widths do not fit together"):
        load_model(str(tmp_path), pretrained=False)
