"""What is particular to the post-activation ResNets for 32 x 32 images; the rest is in `test_contract.py`."""

import pytest
import timm
import torch
from timm.models._manipulate import group_with_matcher
from torch import nn

from seattn.models.resnet_cifar import ResNetCifar
from tests.models._zoo import create


def images(side=32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("se_resnet20_cifar", [1, 1, 2, 4]),
        ("se_resnet18_cifar", [1, 1, 2, 4, 8]),
        ("se_resnet18_deep_cifar", [1, 1, 2, 4, 8]),
        ("se_resnet18_stem7_cifar", [2, 4, 8, 16, 32]),
    ],
)
def test_strides(name, strides):
    assert create(name, device="meta", features_only=True).feature_info.reduction() == strides


@pytest.mark.parametrize(("coarse", "count"), [(True, 5), (False, 11)])
def test_groups_are_stem_stages_or_blocks_and_head(coarse, count):
    model = create("se_resnet20_cifar", device="meta")
    assert len(group_with_matcher(model.named_parameters(), model.group_matcher(coarse=coarse))) == count


def test_unknown_stem_raises():
    with pytest.raises(ValueError, match="conv3, deep, conv7; got '5x5'"):
        ResNetCifar("basic", (1, 1), (16, 32), stem="5x5")


@pytest.mark.parametrize("side", [1, 33, 64])
def test_other_sizes(side):
    assert create("se_resnet20_cifar").eval()(images(side=side)).shape == (2, 10)


def test_trunk_has_timms_parameter_names():
    ours, timm_net = (
        create("resnet18_cifar", device="meta"),
        timm.create_model("resnet18", num_classes=10, device="meta"),
    )
    assert list(ours.state_dict()) == list(timm_net.state_dict())


def test_initial_residual_branches_are_zero():
    model = create("se_resnet20_cifar")
    assert all(not block.bn2.weight.any() for stage in (model.layer1, model.layer2, model.layer3) for block in stage)
    assert create("se_resnet20_cifar", zero_init_last=False).layer1[0].bn2.weight.all()
    assert isinstance(model.layer1[0].bn2, nn.BatchNorm2d)
