"""timm's contract as far as it needs no values, on every registered name, on the meta device.

What needs values is in `test_contract_values.py`; `make test-timm` runs timm's own suite.
"""

import functools
import pkgutil
import re

import pytest
import timm
import torch
from timm.models._manipulate import group_parameters, group_with_matcher
from timm.optim import param_groups_layer_decay, param_groups_weight_decay

import seattn
from tests.models._zoo import KINDS, NETS, attention, create, family, kind, name_of, plain

# At 10 classes, at 1000 for 224: those of the papers, pytorchcv, timm, torchvision and pytorch-cifar where these have
# the net. He et al.'s have projection shortcuts here; SE has the exact r = 16 and biases. A new net is a row.
PARAMETERS = {
    "resnet20_cifar": 272_474,
    "resnet32_cifar": 466_906,
    "resnet44_cifar": 661_338,
    "resnet56_cifar": 855_770,
    "resnet110_cifar": 1_730_714,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50_cifar": 23_520_842,
    "resnet18_stem7_cifar": 11_181_642,
    "resnet18_deep_cifar": 11_200_874,
    "resnet14_deep_cifar": 2_804_586,
    "resnet14_cifar": 2_777_674,
    "resnext29_8x64d_cifar": 34_426_698,
    "preact_resnet18_cifar": 11_172_170,
    "preact_resnet164_cifar": 1_703_258,
    "wrn16_8_cifar": 10_961_370,
    "wrn28_10_cifar": 36_479_194,
    "mobilenetv2_cifar": 2_236_682,
    "se_resnet20_cifar": 274_847,
    "se_resnet56_cifar": 862_889,
    "se_resnet110_cifar": 1_744_952,
    "se_resnet18": 11_778_592,
    "se_resnet34": 21_958_868,
    "se_resnet50": 28_088_024,
    "se_resnet101": 49_326_872,
    "se_resnext50_32x4d": 27_559_896,
}


@pytest.fixture(scope="module", params=NETS)
def net(request):
    """Every net, in bfloat16; tests leave it as it is."""
    return create_meta(request.param)


@pytest.fixture(scope="module")
def passed(net):
    """The features of one forward pass, which takes a second on deep nets: the last, and all levels."""
    return net.forward_intermediates(on_meta(net))


def create_meta(name, **kwargs):
    return create(name, device="meta", dtype=torch.bfloat16, **kwargs).eval()


@functools.cache
def keys_of(name):
    return list(create(name, device="meta").state_dict())


def on_meta(model, chans=3):
    return torch.zeros(2, chans, *model.pretrained_cfg["input_size"][1:], device="meta", dtype=torch.bfloat16)


def test_every_module_of_nets_is_in_timms_registry():
    modules = set(seattn.models.__all__) - {"models_with_weights"}
    files = {m.name for m in pkgutil.iter_modules(seattn.models.__path__) if m.name.endswith(("_cifar", "_attn"))}
    assert {family(name) for name in NETS} == modules == files
    assert sorted(NETS) == sorted(name for module in modules for name in timm.list_models(module=module))


def test_every_kind_there_is_for_every_trunk():
    for trunk in {plain(name) for name in NETS}:
        kinds = {kind(name) for name in NETS if plain(name) == trunk}
        assert kinds == set(KINDS) - ({""} if family(f"se_{trunk}") == "resnet_attn" else set())
        assert timm.is_model(trunk)  # the plain nets for 224 are timm's own


def test_published_counts_are_of_every_plain_net():
    assert {plain(name) for name in NETS} <= {plain(name) for name in PARAMETERS}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    assert sum(p.numel() for p in create(name, device="meta").parameters()) == PARAMETERS[name]


SIDE_AND_CLASSES = {
    "": (224, 1000),
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "butterfly75": (160, 75),
    "butterfly100": (160, 100),
}


def test_cfgs(net, passed):
    name, state = name_of(net), net.state_dict()
    tags = [full for full in timm.list_models(module=family(name), include_tags=True) if full.split(".")[0] == name]
    cfgs = {tag.partition(".")[2]: timm.get_pretrained_cfg(tag) for tag in tags}
    large = family(name) == "resnet_attn"
    assert set(cfgs) == ({"", "butterfly75", "butterfly100"} if large else {"cifar10", "cifar100"})
    for tag, cfg in cfgs.items():
        side, classes = SIDE_AND_CLASSES[tag]
        assert (cfg.input_size, cfg.num_classes) == ((3, side, side), classes)
        if cfg.input_size == net.pretrained_cfg["input_size"]:
            assert cfg.pool_size == tuple(passed[0].shape[-2:])
        else:
            assert cfg.pool_size == (side // 32, side // 32)
        assert f"{cfg.first_conv}.weight" in state
        assert f"{cfg.classifier}.weight" in state
        assert cfg.license == "apache-2.0"
        if tag:
            assert len(set(cfg.label_names)) == cfg.num_classes
            assert list(cfg.label_names) == sorted(cfg.label_names)  # the order of the data sets' class folders
            assert cfg.crop_pct == 1.0


def test_device_and_dtype_reach_everything(net):
    for tensor in net.state_dict().values():
        assert tensor.is_meta
        assert tensor.dtype == (torch.bfloat16 if tensor.is_floating_point() else torch.int64)


def test_attention_is_what_the_plain_net_lacks(net):
    """One layer of the named kind in every residual block; nothing else is added, and nothing is renamed."""
    layers = attention(net)
    added = {f"{place}.{key}" for place, layer in layers.items() for key in layer.state_dict()}
    plain_keys = keys_of(plain(name_of(net)))
    assert {key for key in net.state_dict() if key not in added} == set(plain_keys)
    wanted = kind(name_of(net))
    assert {type(layer) for layer in layers.values()} == ({seattn.layers.get_attn(wanted)} if wanted else set())
    assert len({id(layer) for layer in layers.values()}) == len(layers)
    blocks = {found[1] for key in plain_keys if (found := re.fullmatch(r"(.+)\.(conv2|conv_pw)\.weight", key))}
    assert {place.rpartition(".")[0] for place in layers} == (blocks if wanted else set())


def test_an_unknown_keyword_is_a_type_error(net):
    for wrong in ("reduction", "attn_layer"):
        with pytest.raises(TypeError, match=wrong):
            create(name_of(net), device="meta", **{wrong: "se"})


def takes_images_of(model, chans, like):
    """Whether images of so many channels give the stem's level, shaped like that of the other net."""
    first = model.get_parameter(f"{model.pretrained_cfg['first_conv']}.weight")
    _, (stem,) = model.forward_intermediates(on_meta(model, chans), indices=[0], stop_early=True)
    return first.shape[1] == model.in_chans == chans and stem.shape == like.shape


def test_the_classifier_can_be_chosen_replaced_and_removed_at_one_channel(net, passed):
    features, levels = passed
    model = create_meta(name_of(net), num_classes=7, in_chans=1)
    assert takes_images_of(model, 1, levels[0])
    assert model.get_classifier() is model.get_submodule(model.pretrained_cfg["classifier"])
    assert model.forward_head(features).shape == (2, model.num_classes) == (2, 7)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    model.reset_classifier(3)
    assert model.forward_head(features).shape == (2, model.num_classes) == (2, 3)
    model.reset_classifier(0)
    assert model.forward_head(features).shape == (2, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert model.forward_head(features).shape == features.shape


def test_no_classifier_and_no_pooling_from_the_start_at_four_channels(net, passed):
    features, levels = passed
    model = create_meta(name_of(net), num_classes=0, global_pool="", in_chans=4)
    assert takes_images_of(model, 4, levels[0])
    assert model.num_classes == 0
    assert model.forward_head(features).shape == features.shape


def test_features_only_has_true_channels_and_strides(net, passed):
    x, levels = on_meta(net), passed[1]
    features = create_meta(name_of(net), features_only=True)
    info = features.feature_info
    assert len(levels) >= len(info) >= 4
    for level, channels, stride in zip(levels, info.channels(), info.reduction(), strict=False):
        assert tuple(level.shape) == (2, channels, x.shape[2] // stride, x.shape[3] // stride)
    if not kind(name_of(net)):  # with attention: in test_contract_values.py
        assert [level.shape for level in features(x)] == [level.shape for level in levels[: len(info)]]
        two = create_meta(name_of(net), features_only=True, out_indices=(1, 3))
        assert [level.shape for level in two(x)] == [levels[1].shape, levels[3].shape]


@pytest.mark.parametrize("coarse", [True, False])
def test_group_matcher_puts_every_parameter_into_a_group(net, coarse):
    groups = group_with_matcher(net.named_parameters(), net.group_matcher(coarse=coarse))
    assert len(groups) > 1
    grouped = [name for names in groups.values() for name in names]
    assert sorted(grouped) == sorted(name for name, _ in net.named_parameters())
    # Attention is in the group of its block: next to a convolution of the trunk.
    group_by_name = group_parameters(net, net.group_matcher(coarse=coarse), reverse=True)
    for place, layer in attention(net).items():
        block = place.rpartition(".")[0]
        trunk = {
            group_by_name[name]
            for name in group_by_name
            if name.startswith(f"{block}.") and not name.startswith(f"{place}.")
        }
        assert {group_by_name[f"{place}.{key}"] for key, _ in layer.named_parameters()} <= trunk


def test_layer_decay_grows_with_depth(net):
    groups = param_groups_layer_decay(net, weight_decay=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(net.parameters()))
    first = scale[id(net.get_parameter(f"{net.pretrained_cfg['first_conv']}.weight"))]
    assert first == min(scale.values()) < max(scale.values()) == 1.0
    assert scale[id(net.get_classifier().weight)] == 1.0


def test_timms_optimizer_decays_every_matrix_and_nothing_else(net):
    assert not set(getattr(net, "no_weight_decay", set)())  # as timm's: there is nothing to name
    spared, decayed = param_groups_weight_decay(net, weight_decay=0.1)
    assert {spared["weight_decay"], decayed["weight_decay"]} == {0.0, 0.1}
    assert {id(p) for p in decayed["params"]} == {id(p) for p in net.parameters() if p.ndim > 1}
    assert len(spared["params"]) + len(decayed["params"]) == len(list(net.parameters()))
