"""timm's contract, on every net of the family. The cheap nets run forward; the deep ones are built on meta."""

import copy
import json
import pickle

import pytest
import timm
import torch
from timm.layers import set_scriptable
from timm.models import create_feature_extractor
from timm.models._manipulate import group_parameters, group_with_matcher
from timm.models.resnet import BasicBlock, Bottleneck
from timm.optim import param_groups_weight_decay
from torch import nn

from seattn.layers import Cbam, EfficientChannelAttn, SqueezeExcite
from seattn.models.resnet_cifar import ResNetCifar

PLAIN = [f"resnet{depth}_cifar" for depth in (18, 20, 32, 34, 44, 50, 56, 110)]
PLAIN += [
    "resnet18_stem7_cifar",
    "resnet18_deep_cifar",
    "resnet14_deep_cifar",
    "resnet14_cifar",
    "resnext29_8x64d_cifar",
]
NETS = [f"{kind}{net}" for net in PLAIN for kind in ("", "se_", "eca_", "cbam_")]
SMALL = [f"{kind}resnet20_cifar" for kind in ("", "se_", "eca_", "cbam_")]
RUN = [*SMALL, "se_resnet18_cifar", "se_resnet50_cifar"]  # three stages, four stages, bottlenecks
LAYERS = {"se": SqueezeExcite, "eca": EfficientChannelAttn, "cbam": Cbam}


def build(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def images(count=2, chans=3, side=32, seed=1):
    return torch.randn(count, chans, side, side, generator=torch.Generator().manual_seed(seed))


def test_timm_lists_every_net():
    assert sorted(NETS) == sorted(timm.list_models("*_cifar", module="resnet_cifar"))


def test_every_net_has_a_tag_for_each_data_set():
    tags = {f"{n}.{t}" for n in NETS for t in ("cifar10", "cifar100")}
    for name in tags:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.num_classes == {"cifar10": 10, "cifar100": 100}[cfg.tag]
        assert len(cfg.label_names) == len(set(cfg.label_names)) == cfg.num_classes
        assert cfg.input_size == (3, 32, 32)
        assert cfg.crop_pct == 1.0
        assert (cfg.first_conv, cfg.classifier) == ("conv1.0" if "deep" in name else "conv1", "fc")
        assert list(cfg.label_names) == sorted(cfg.label_names)  # the data sets' own order is alphabetical


# He et al.'s nets with projection shortcuts; SE with exact r = 16 and biases; at 10 classes, as published.
PARAMETERS = {
    "resnet20_cifar": 272_474,
    "resnet32_cifar": 466_906,
    "resnet56_cifar": 855_770,
    "resnet110_cifar": 1_730_714,
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet50_cifar": 23_520_842,
    "se_resnet20_cifar": 274_847,
    "se_resnet56_cifar": 862_889,
    "se_resnet110_cifar": 1_744_952,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    model = build(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", NETS)
def test_each_block_has_its_own_layer_of_the_named_kind_and_no_other(name):
    model = build(name, device="meta")
    kind = name.split("res")[0].rstrip("_")
    blocks = [m for m in model.modules() if isinstance(m, (BasicBlock, Bottleneck))]
    assert blocks
    found = [type(block.se) for block in blocks]
    assert found == [LAYERS.get(kind, type(None))] * len(blocks)
    if kind:
        assert len({id(block.se) for block in blocks}) == len(blocks)


@pytest.mark.parametrize("name", NETS)
def test_meta_device_and_dtype_reach_everything(name):
    model = build(name, device="meta", dtype=torch.bfloat16)
    for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
        assert tensor.is_meta
        assert tensor.dtype == torch.bfloat16


@pytest.mark.parametrize("name", RUN)
def test_forward_matches_its_parts_and_pool_size(name):
    model = build(name).eval()
    x = images()
    features = model.forward_features(x)
    assert tuple(features.shape[-2:]) == tuple(model.pretrained_cfg["pool_size"])
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features)
    assert torch.equal(model.fc(pooled), model(x))
    assert model(x).shape == (2, 10)


@pytest.mark.parametrize("name", RUN)
def test_every_parameter_gets_a_finite_gradient(name):
    model = build(name, zero_init_last=False)
    model(images(4)).square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "se_resnet18_cifar"])
def test_grad_checkpointing_changes_no_output_and_no_gradient(name):
    plain, saved = build(name), build(name)
    saved.set_grad_checkpointing(True)
    outputs = [model(images()) for model in (plain, saved)]
    for output in outputs:
        output.square().mean().backward()
    assert torch.equal(*outputs)
    assert torch.equal(plain.conv1.weight.grad, saved.conv1.weight.grad)


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "resnet18_cifar"])
def test_classifier_can_be_replaced_and_removed(name):
    model = build(name, num_classes=7).eval()
    assert model(images()).shape == (2, 7)
    assert model.get_classifier() is model.fc
    assert model.get_classifier(name_only=True) == model.pretrained_cfg["classifier"] == "fc"
    model.reset_classifier(3)
    assert model(images()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(images()).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert model(images()).shape == (2, model.num_features, *model.pretrained_cfg["pool_size"])
    assert build(name, num_classes=0, global_pool="").eval()(images()).ndim == 4


@pytest.mark.parametrize("chans", [1, 4])
def test_in_chans(chans):
    model = build("se_resnet20_cifar", in_chans=chans).eval()
    assert model.conv1.weight.shape[1] == chans
    assert model(images(chans=chans)).shape == (2, 10)


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "se_resnet18_cifar", "cbam_resnet50_cifar"])
def test_features_only_has_true_channels_and_strides(name):
    net = build(name, features_only=True).eval()
    levels = net(images(side=32))
    assert len(levels) == (4 if "20" in name else 5)
    assert net.feature_info.reduction() == [1, 1, 2, 4, 8][: len(levels)]
    for level, channels, stride in zip(levels, net.feature_info.channels(), net.feature_info.reduction(), strict=True):
        assert tuple(level.shape) == (2, channels, 32 // stride, 32 // stride)


def test_features_only_takes_indices():
    net = build("se_resnet20_cifar", features_only=True, out_indices=(1, 3)).eval()
    assert [tuple(level.shape[1:]) for level in net(images())] == [(16, 32, 32), (64, 8, 8)]


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "eca_resnet18_cifar"])
def test_forward_intermediates_agrees_with_the_features(name):
    model, x = build(name).eval(), images()
    final, levels = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    features = build(name, features_only=True).eval()(x)
    assert len(levels) == len(features)
    for ours, theirs in zip(levels, features, strict=True):
        assert torch.equal(ours, theirs)
    only = model.forward_intermediates(x, indices=[1, 2], intermediates_only=True, stop_early=True)
    assert all(torch.equal(a, b) for a, b in zip(only, levels[1:3], strict=True))
    assert torch.equal(model.forward_intermediates(x, indices=1)[1][0], levels[-1])
    with pytest.raises(ValueError, match="NCHW"):
        model.forward_intermediates(x, output_fmt="NLC")


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "se_resnet18_cifar"])
def test_forward_intermediates_under_checkpointing(name):
    model, x = build(name).train(), images()
    plain = model.forward_intermediates(x, intermediates_only=True)
    model.set_grad_checkpointing(True)
    saved = model.forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, saved, strict=True))


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "se_resnet18_cifar"])
@pytest.mark.parametrize("last", [0, 1, 2])
def test_pruning_keeps_the_levels_that_were_asked_for(name, last):
    model, x = build(name).eval(), images()
    level = model.forward_intermediates(x, indices=[last], intermediates_only=True)[0]
    before = sum(p.numel() for p in model.parameters())
    assert model.prune_intermediate_layers([last]) == [last]
    assert sum(p.numel() for p in model.parameters()) < before
    assert model.num_features == level.shape[1]
    assert torch.equal(model.forward_intermediates(x, indices=[last], intermediates_only=True)[0], level)
    assert torch.equal(model(x), level)  # what is left ends there


def test_pruning_at_the_last_level_may_keep_the_head():
    model, x = build("se_resnet20_cifar").eval(), images()
    before = model(x)
    model.prune_intermediate_layers([3], prune_head=False)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("coarse", [True, False])
def test_group_matcher_puts_every_parameter_into_an_ordered_group(coarse):
    model = build("se_resnet20_cifar", device="meta")
    groups = group_with_matcher(model.named_parameters(), model.group_matcher(coarse=coarse))
    assert len(groups) == (5 if coarse else 11)  # stem, 3 stages or 9 blocks, head
    grouped = [name for names in groups.values() for name in names]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())
    assert group_parameters(model, model.group_matcher(coarse=coarse))


@pytest.mark.parametrize("name", RUN)
def test_timms_optimizer_decays_every_matrix_and_nothing_else(name):
    model = build(name, device="meta")
    assert not hasattr(model, "no_weight_decay")  # as timm's ResNet: there is nothing to name
    spared, decayed = param_groups_weight_decay(model, weight_decay=0.1)
    assert {spared["weight_decay"], decayed["weight_decay"]} == {0.0, 0.1}
    assert {id(p) for p in decayed["params"]} == {id(p) for p in model.parameters() if p.ndim > 1}
    assert len(spared["params"]) + len(decayed["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "se_resnet18_cifar"])
def test_bfloat16(name):
    model = build(name, dtype=torch.bfloat16).eval()
    y = model(images().bfloat16())
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()
    assert build(name).eval().to(torch.bfloat16)(images().bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", RUN)
def test_torchscript(name):
    with set_scriptable(True):
        model = build(name).eval()
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(images()), model(images()))


@pytest.mark.parametrize("name", [*SMALL, "se_resnet18_cifar"])
def test_fx_graph_computes_the_same_and_keeps_the_op_whole(name):
    model = build(name).eval()
    graph = create_feature_extractor(model, {"layer3": "layer3"})
    torch.testing.assert_close(graph(images())["layer3"], model.forward_intermediates(images(), indices=[3])[1][0])
    calls = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
    assert calls.count("squeeze_excite") == ({"se_resnet20_cifar": 9, "se_resnet18_cifar": 6}.get(name, 0))


def test_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="reduction"):
        build("se_resnet20_cifar", reduction=8)


def test_attention_cannot_be_changed_by_keyword():
    with pytest.raises(TypeError, match="attn_layer"):
        build("resnet20_cifar", attn_layer="se")


def test_unknown_stem_raises():
    with pytest.raises(ValueError, match="conv3, deep, conv7; got '5x5'"):
        ResNetCifar("basic", (1, 1), (16, 32), stem="5x5")


def test_drop_rates_act_in_training_only():
    model = build("se_resnet20_cifar", drop_rate=0.5, drop_path_rate=0.5)
    assert any(block.drop_path is not None for block in model.layer3)
    x = images()
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("side", [1, 33, 64])
def test_other_sizes(side):
    assert build("se_resnet20_cifar").eval()(images(side=side)).shape == (2, 10)


def test_copies_and_pickles():
    model, x = build("se_resnet20_cifar").eval(), images()
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_channels_last_gives_the_same_answer():
    model, x = build("se_resnet20_cifar").eval(), images()
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)


def test_save_for_hf_and_local_dir_give_the_same_net(tmp_path):
    model = build("se_resnet20_cifar", num_classes=4).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "se_resnet20_cifar"
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(again(images()), model(images()))


def test_trunk_has_timms_parameter_names():
    ours, theirs = build("resnet18_cifar", device="meta"), timm.create_model("resnet18", num_classes=10, device="meta")
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("name", ["resnet20_cifar", "se_resnet20_cifar"])
def test_compiles_whole(name):
    model = build(name).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), model(images()))


def test_exports_saves_and_loads(tmp_path):
    model, x = build("se_resnet20_cifar").eval(), images()
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "net.pt2").module()(x), model(x))


def test_initial_residual_branches_are_zero():
    model = build("se_resnet20_cifar")
    assert all(not block.bn2.weight.any() for stage in (model.layer1, model.layer2, model.layer3) for block in stage)
    assert build("se_resnet20_cifar", zero_init_last=False).layer1[0].bn2.weight.all()
    assert isinstance(model.layer1[0].bn2, nn.BatchNorm2d)
