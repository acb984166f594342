"""What is particular to the other families than `resnet_cifar`; the rest is in `test_contract.py`."""

import pytest
import timm
import torch
from torch import nn

from tests.helpers.nets import settle
from tests.models._zoo import NETS, attention, build, create, family, images, kind


def settled(name):
    torch.manual_seed(0)
    return settle(timm.create_model(name), torch.randn(8, 3, 64, 64)).eval()


def test_timms_weights_load_into_the_trunk_of_the_nets_for_224():
    ours, plain = create("se_resnet18", device="meta"), create("resnet18", device="meta")
    missing = ours.load_state_dict(plain.state_dict(), strict=False, assign=True)
    assert not missing.unexpected_keys
    assert {key.rpartition(".se.")[0] for key in missing.missing_keys} == {
        p.rpartition(".")[0] for p in attention(ours)
    }


@pytest.mark.parametrize(("name", "timms"), [("se_resnet18", "seresnet18"), ("se_resnet50", "seresnet50")])
def test_nets_for_224_compute_what_timms_compute_with_its_width(name, timms):
    timm_net = settled(timms)
    ours = create(name, rd_divisor=8).eval()
    ours.load_state_dict(timm_net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(images(name)), timm_net(images(name)), atol=1e-3, rtol=1e-4)


def test_the_nets_that_the_readme_names_for_segmentation_have_strides_of_2_to_32():
    names = [name for name in NETS if kind(name) == "se"]
    nets = {name: create(name, features_only=True, device="meta") for name in names}
    fitting = {name for name, net in nets.items() if net.feature_info.reduction() == [2, 4, 8, 16, 32]}
    assert fitting == {name for name in names if family(name) == "resnet_attn" or "stem7" in name}


def test_mobilenetv2_is_timms_with_two_strides_less():
    timm_net = settled("mobilenetv2_100")
    timm_net.reset_classifier(10)
    ours = create("mobilenetv2_cifar").eval()
    ours.load_state_dict(timm_net.state_dict())
    timm_net.conv_stem.stride = timm_net.blocks[1][0].conv_dw.stride = (1, 1)
    with torch.no_grad():
        assert torch.equal(ours(images("mobilenetv2_cifar")), timm_net(images("mobilenetv2_cifar")))


def test_strides():
    for name, strides in {
        "se_mobilenetv2_cifar": [1, 2, 4, 8],
        "se_preact_resnet18_cifar": [1, 1, 2, 4, 8],
        "se_wrn16_8_cifar": [1, 1, 2, 4],
        "se_resnet18": [2, 4, 8, 16, 32],
    }.items():
        assert create(name, device="meta", features_only=True).feature_info.reduction() == strides, name


@pytest.mark.parametrize(("name", "norm"), [("preact_resnet18_cifar", "norm2"), ("preact_resnet164_cifar", "norm3")])
def test_block_drop_rate_drops_before_the_last_convolution_of_each_block(name, norm):
    model = create(name, block_drop_rate=0.3, device="meta")
    drops = {key: module.p for key, module in model.named_modules() if isinstance(module, nn.Dropout)}
    blocks = [key for key, _ in model.named_modules() if key.endswith(".norm1")]
    assert {key for key, p in drops.items() if p} == {key.replace("norm1", f"{norm}.drop") for key in blocks}
    assert {p for p in drops.values() if p} == {0.3}


def test_block_drop_rate_acts_in_training_only():
    model = build("preact_resnet18_cifar", block_drop_rate=0.5)
    plain = build("preact_resnet18_cifar")
    plain.load_state_dict(model.state_dict())
    x = images("preact_resnet18_cifar")
    with torch.no_grad():
        assert torch.equal(model(x), plain(x))
        assert not torch.equal(model.train()(x), model(x))
