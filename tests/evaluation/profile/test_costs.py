"""What a profile counts: published numbers, formulas by hand, a real run of the same net."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import seattn
from seattn.evaluation.profile.costs import parameters_and_macs, profile
from seattn.evaluation.profile.passes import attention_layers
from seattn.ops._tail.run import as_in_large_batches


def meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


# From the papers: He et al. 2016 (CIFAR and ImageNet), 2016b (pre-activation), Zagoruyko 2016, Xie 2017, Hu 2018.
PARAMETERS = {
    "resnet20_cifar": (0.27e6, 0.005e6),
    "resnet56_cifar": (0.855e6, 0.006e6),
    "resnet110_cifar": (1.7e6, 0.05e6),
    "preact_resnet164_cifar": (1.70e6, 0.01e6),
    "wrn28_10_cifar": (36.48e6, 0.01e6),
    "resnext29_8x64d_cifar": (34.4e6, 0.05e6),
    "se_resnet50": (28.09e6, 0.01e6),
}
MACS = {
    "resnet18": (1.81e9, 1.82e9),
    "resnet50": (4.08e9, 4.14e9),
    "resnet20_cifar": (40.8e6, 41.3e6),
    "resnet56_cifar": (125e6, 127e6),
    "resnet110_cifar": (253e6, 256e6),
    "wrn28_10_cifar": (5.24e9, 5.25e9),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name):
    published, rounding = PARAMETERS[name]
    assert parameters_and_macs(meta(name))[0] == pytest.approx(published, abs=rounding)


@pytest.mark.parametrize("name", MACS)
def test_macs_are_the_published_ones(name):
    low, high = MACS[name]
    assert low <= parameters_and_macs(meta(name))[1] <= high


@pytest.mark.parametrize(
    ("name", "plain", "parameters", "macs"),
    [
        ("se_resnet50", "resnet50", (9.5, 10.5), (0.01, 1.0)),
        ("se_resnet18_cifar", "resnet18_cifar", (0.75, 0.85), (0, 0.1)),
    ],
)
def test_se_costs_the_published_share(name, plain, parameters, macs):
    own, base = parameters_and_macs(meta(name)), parameters_and_macs(meta(plain))
    share = [100 * (a / b - 1) for a, b in zip(own, base, strict=True)]
    assert parameters[0] <= share[0] <= parameters[1]
    assert macs[0] < share[1] <= macs[1]


@pytest.mark.parametrize(
    "name", ["se_resnet20_cifar", "se_resnet50", "se_wrn28_10_cifar", "se_mobilenetv2_cifar", "seresnet50"]
)
def test_the_macs_of_se_are_two_products_a_block(name):
    model = meta(name)
    layers = attention_layers(model).values()
    widths = [(layer.fc1.in_channels, layer.fc1.out_channels) for layer in layers]
    total = profile(model).total
    assert len(widths) == total.blocks
    assert total.attention_macs == sum(2 * c * r for c, r in widths)
    assert total.attention_parameters == sum(2 * c * r + c + r for c, r in widths)


def test_parts_are_named_and_add_up():
    model = timm.create_model("se_resnet20_cifar")
    found = profile(model)
    assert [stage.name for stage in found.stages] == ["stem", "layer1", "layer2", "layer3", "head"]
    assert [stage.parameters for stage in found.stages] == [
        sum(p.numel() for part in parts for p in getattr(model, part).parameters())
        for parts in (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("fc",))
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert found.total.macs == sum(stage.macs for stage in found.stages) == counter.get_total_flops() // 2
    assert [stage.macs for stage in found.stages][::4] == [9 * 3 * 16 * 32 * 32, 64 * 10]
    assert (found.total.parameters, found.total.macs) == parameters_and_macs(model)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("preact_resnet18_cifar", ["stem", "stages.0"], ["stages.3", "head"]),
        ("se_mobilenetv2_cifar", ["stem", "blocks.0"], ["blocks.6", "head"]),
        ("regnety_002", ["stem", "s1"], ["s4", "head"]),
        ("vit_tiny_patch16_224", ["patch_embed", "blocks"], ["norm", "head"]),
    ],
)
def test_any_net_has_parts(name, first, last):
    model = meta(name)
    found = profile(model)
    names = [stage.name for stage in found.stages]
    assert names[:2] == first
    assert names[-2:] == last
    assert found.total.parameters == sum(p.numel() for p in model.parameters())


def kept_in_a_real_run(model, x):
    storages = {}
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

    def pack(t):
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    with hooks, seattn.set_kernels("torch"), as_in_large_batches():
        y = model.train()(x)
    assert y.requires_grad
    return sum(size for pointer, size in storages.items() if pointer not in own)


@pytest.mark.parametrize(
    "name", ["se_resnet20_cifar", "cbam_resnet20_cifar", "eca_preact_resnet18_cifar", "seresnet18"]
)
def test_memory_is_what_a_real_step_keeps(name):
    model = timm.create_model(name)
    x = torch.randn(2, 3, 32, 32)
    expected = kept_in_a_real_run(model, x)
    assert profile(model, (3, 32, 32), batch=2).total.activation_bytes == expected


def test_memory_and_macs_grow_with_the_batch():
    model = meta("se_resnet20_cifar")
    one, two, five = (profile(model, batch=batch).total for batch in (1, 2, 5))
    assert five.macs == 5 * one.macs
    assert five.bytes_moved == 5 * one.bytes_moved
    assert five.activation_bytes - two.activation_bytes == 3 * (two.activation_bytes - one.activation_bytes)
    assert five.parameters == one.parameters


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "resnet18"])
def test_a_net_of_grey_images_is_counted_with_its_own_channels(name):
    net = timm.create_model(name, in_chans=1)
    found, side = profile(net), net.pretrained_cfg["input_size"][-1]
    assert found.input_size == (1, side, side)
    assert (found.total.parameters, found.total.macs) == parameters_and_macs(net)


def test_the_model_stays_as_it_is():
    model = timm.create_model("se_resnet20_cifar").eval()
    before = copy.deepcopy(model.state_dict())
    profile(model)
    assert not model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"input_size": (3, 0, 32)}, r"input_size must be three numbers of at least 1.*\(3, 0, 32\)"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        profile(meta("resnet20_cifar"), **options)


def test_a_net_without_a_size_asks_for_one():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.raises(ValueError, match="Sequential has no pretrained_cfg with an input_size; give input_size"):
        profile(net)
    assert profile(net, (3, 5, 7)).total.macs == 27 * 8 * 3 * 5
