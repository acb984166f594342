"""Checkpoints of other projects: each layout computes in our net what it computed in theirs, or is refused by name."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.ops import SqueezeExcitation

import seattn
from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.layers import SqueezeExcite, get_attn
from seattn.models.checkpoints.foreign import load_foreign, remap_checkpoint
from seattn.models.resnet_cifar import ThreeStageResNetCifar
from tests.helpers.foreign_nets import NAMES, Net, randomised

SE = get_attn("se")


def ours(block="basic", attn_layer="se", **kwargs):
    """Our CIFAR net with one or two blocks a stage."""
    torch.manual_seed(5)
    net = ThreeStageResNetCifar(block, (2, 1, 1), (16, 32, 64), **kwargs)
    if attn_layer is not None:
        seattn.add_attention(net, attn_layer, start="paper", inplace=True)
    return net.eval()


def ours_with(**kwargs):
    """Our net with other arguments of its squeeze-excite."""
    net = ours()
    for stage in (net.layer1, net.layer2, net.layer3):
        for block in stage:
            block.se = SqueezeExcite(block.conv2.out_channels, **kwargs)
    return net


def ours_after_relu():
    """Our net with a ReLU before each squeeze-excite."""
    net = ours()
    for stage in (net.layer1, net.layer2, net.layer3):
        for block in stage:
            block.se = nn.Sequential(nn.ReLU(), block.se)
    return net


def timms(block=BasicBlock, attn=SE, **kwargs):
    """timm's ResNet with ImageNet's stem and four thin stages."""
    channels = (16, 16, 32, 32)
    return ResNet(block, (1, 1, 1, 1), 10, channels=channels, block_args={"attn_layer": attn}, **kwargs).eval()


def without_pool(net):
    net.maxpool = nn.Identity()
    return net


def with_pool(net):
    net.maxpool = nn.MaxPool2d(3, 2, 1)
    return net


def attention_on(net, channels):
    net.layer1[0].se = SqueezeExcite(channels)
    return net


def strided_first(net):
    """`net` with the strides of its bottlenecks where Caffe's nets have them."""
    for block in (net.layer2[0], net.layer3[0]):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return net


def theirs(layout, **kwargs):
    torch.manual_seed(1)
    return randomised(Net(NAMES[layout], **kwargs))


def theirs_imagenet(layout, **kwargs):
    shape = {"blocks": (1, 1, 1, 1), "widths": (16, 16, 32, 32), "big_stem": True, "stem_width": 64}
    torch.manual_seed(1)
    return randomised(Net(NAMES[layout], **shape, **kwargs), 64)


def assert_computes_the_same(net, model, side=32):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    remapped = remap_checkpoint(net.state_dict(), model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.eval().load_state_dict(remapped, strict=True)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=1e-5)


LOADS = {
    "pytorchcv": ("pytorchcv", {}, ours, "pytorchcv"),
    "pytorchcv_plain": ("pytorchcv", {"attn": None}, partial(ours, attn_layer=None), "pytorchcv"),
    "pytorchcv_bottleneck": ("pytorchcv", {"bottleneck": True}, partial(ours, "bottleneck"), "pytorchcv"),
    "pytorch-cifar100_plain": (
        "pytorch-cifar100",
        {"attn": None},
        partial(ours, attn_layer=None),
        "pytorch-cifar100's ResNet",
    ),
    "pytorch-cifar100_plain_bottleneck": (
        "pytorch-cifar100",
        {"attn": None, "bottleneck": True},
        partial(ours, "bottleneck", attn_layer=None),
        "pytorch-cifar100's ResNet",
    ),
    "pytorch-cifar100_into_a_net_with_its_relu": (
        "pytorch-cifar100-se",
        {"attn": "linear", "conv_bias": True, "relu_before_attn": True},
        ours_after_relu,
        "pytorch-cifar100's SE-ResNet",
    ),
    "pytorch-cifar_plain": ("pytorch-cifar", {"attn": None}, partial(ours, attn_layer=None), "pytorch-cifar"),
    "pytorch-cifar": ("pytorch-cifar", {}, ours, "pytorch-cifar"),
    "moskomule": ("se.fc.0", {"attn": "linear", "attn_bias": False}, ours, "moskomule/senet.pytorch"),
    "moskomule_without_biases": (
        "se.fc.0",
        {"attn": "linear", "attn_bias": False},
        partial(ours_with, bias=False),
        "moskomule/senet.pytorch",
    ),
    **{
        f"{layout}_{attn}_{'bias' if bias else 'no_bias'}": (
            layout,
            {"attn": attn, "attn_bias": bias},
            ours,
            "a ResNet with torchvision's names",
        )
        for layout, attn, bias in [
            ("attention.fc.0", "linear", True),
            ("fc.0", "linear", False),
            ("fc.0", "conv", True),
            ("se_module.fc1", "conv", False),
            ("se_module.fc1", "linear", True),
            ("attn.conv_reduce", "conv", True),
        ]
    },
    "hard_sigmoid": (
        "se.fc.reduce",
        {"gate": nn.functional.hardsigmoid},
        partial(ours_with, gate="hard_sigmoid"),
        "a ResNet with torchvision's names",
    ),
}


@pytest.mark.parametrize("case", LOADS)
def test_a_layout_computes_the_same_in_our_net_and_is_named(case, caplog):
    layout, options, model, name = LOADS[case]
    with caplog.at_level(logging.INFO, "seattn"):
        assert_computes_the_same(theirs(layout, **options), model())
    assert caplog.messages == [f"this state: read as {name}"]


@pytest.mark.parametrize(
    ("layout", "options", "block"),
    [
        ("pytorchcv-imagenet", {}, BasicBlock),
        ("se.fc.0", {"attn": "linear", "attn_bias": False}, BasicBlock),
        ("se.fc.0", {"attn": "linear", "attn_bias": False, "bottleneck": True}, Bottleneck),
    ],
    ids=["pytorchcv", "moskomule", "moskomule_bottleneck"],
)
def test_imagenet_nets_load_into_timms(layout, options, block):
    assert_computes_the_same(theirs_imagenet(layout, **options), timms(block), 64)


def test_torchvisions_squeeze_excitation_inside_its_resnet():
    class Block(torchvision_resnet.BasicBlock):
        def __init__(self, inplanes, planes, *args, **kwargs):
            super().__init__(inplanes, planes, *args, **kwargs)
            self.attention = SqueezeExcitation(planes, planes // 16)

        def forward(self, x):
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            shortcut = x if self.downsample is None else self.downsample(x)
            return self.relu(self.attention(y) + shortcut)

    torch.manual_seed(1)
    net = randomised(torchvision_resnet.ResNet(Block, [1, 1, 1, 1], num_classes=10), 64)
    model = ResNet(BasicBlock, (1, 1, 1, 1), 10, block_args={"attn_layer": SE}).eval()
    assert_computes_the_same(net, model, 64)


def test_pytorchcvs_own_net():
    pytest.importorskip("pytorchcv")
    from pytorchcv.models.seresnet_cifar import seresnet20_cifar10

    torch.manual_seed(1)
    assert_computes_the_same(randomised(seresnet20_cifar10(pretrained=False)), timm.create_model("se_resnet20_cifar"))


REFUSED = {
    "relu_before_attention": (
        partial(theirs, "pytorch-cifar100-se", attn="linear", relu_before_attn=True),
        ours,
        "a ReLU is between its last norm and its squeeze-excite, here there is none",
    ),
    "no_relu_before_attention": (partial(theirs, "pytorchcv"), ours_after_relu, "no ReLU is between"),
    "gate": (partial(theirs, "pytorchcv"), partial(ours_with, gate="two_sigmoid"), "is sigmoid, here two_sigmoid"),
    "hard_gate": (
        partial(theirs, "se.fc.reduce"),
        ours,
        "the gate of its squeeze-excite is hard_sigmoid, here sigmoid",
    ),
    "activation_of_the_gate": (partial(theirs, "pytorchcv"), partial(ours_with, act="silu"), "is relu, here silu"),
    "bottlenecks_of_unknown_stride": (
        partial(theirs_imagenet, "pytorchcv-imagenet", bottleneck=True),
        partial(timms, Bottleneck),
        "its keys do not show whether bottlenecks stride in the first 1 x 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_net_whose_attention_computes_something_else_is_refused_by_the_difference(case):
    net, model, message = REFUSED[case]
    with pytest.raises(UserError) as error:
        remap_checkpoint(net().state_dict(), model())
    assert message in str(error.value)
    assert str(error.value).startswith("this state is refused for ")


WARNED = {
    "activation": (
        partial(theirs, "pytorchcv"),
        partial(ours, act_layer="silu"),
        "layer1.0.act1 is SiLU, not ReLU",
    ),
    "eps": (
        partial(theirs_imagenet, "pytorchcv-imagenet"),
        partial(timms, norm_layer=partial(nn.BatchNorm2d, eps=1e-3)),
        "bn1.eps is 0.001, not 1e-05",
    ),
    "stem_without_pool": (
        partial(theirs_imagenet, "pytorchcv-imagenet"),
        lambda: without_pool(timms()),
        "the stem has no max-pool",
    ),
    "stem_with_pool": (
        partial(theirs, "pytorchcv", attn=None),
        lambda: with_pool(ours(attn_layer=None)),
        "the stem has a max-pool",
    ),
    "stride_in_the_first_convolution": (
        partial(theirs, "pytorchcv", bottleneck=True),
        lambda: strided_first(ours("bottleneck")),
        "layer2.0 strides in its first 1 x 1 convolution, not in the 3 x 3",
    ),
}


@pytest.mark.parametrize("case", WARNED)
def test_a_model_that_is_unlike_the_nets_of_the_project_is_warned_of(case, caplog):
    net, model, message = WARNED[case]
    remap_checkpoint(net().state_dict(), model())
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message in warning
    assert "outputs will differ" in warning


DO_NOT_FIT = {
    "option_A": (
        partial(theirs, "pytorch-cifar", attn=None, shortcut="A"),
        partial(ours, attn_layer=None),
        "missing layer2.0.downsample.0.weight",
    ),
    "option_A_into_attention": (
        partial(theirs, "pytorch-cifar", shortcut="A"),
        ours,
        "missing layer2.0.downsample.0.weight",
    ),
    "projection_without_norm": (
        partial(theirs, "se.fc.0", attn="linear", attn_bias=False, shortcut="bare"),
        ours,
        "missing layer2.0.downsample.1.weight",
    ),
    "projection_after_pooling": (
        partial(theirs, "se.fc.0", attn="linear", attn_bias=False, shortcut="pooled"),
        ours,
        "layer2.0.downsample.1.weight",
    ),
    "pooling_here": (
        partial(theirs_imagenet, "se.fc.0", attn="linear"),
        partial(timms, avg_down=True),
        "layer2.0.downsample.1.weight",
    ),
    "pre-activation": (
        partial(theirs, "pytorch-cifar", pre=True, shortcut="bare"),
        ours,
        "size mismatch for layer2.0.bn1.weight",
    ),
    "biases_that_have_no_place": (
        partial(theirs, "fc.0", attn="linear"),
        partial(ours_with, bias=False),
        "unexpected layer1.0.fc.0.bias",
    ),
    "channels_of_the_attention": (
        partial(theirs, "se.fc.0", attn="linear", bottleneck=True),
        lambda: attention_on(ours("bottleneck"), 16),
        "size mismatch for layer1.0.se.fc1.weight",
    ),
}


@pytest.mark.parametrize("case", DO_NOT_FIT)
def test_blocks_of_another_kind_are_refused_by_their_keys(case):
    net, model, message = DO_NOT_FIT[case]
    with pytest.raises(UserError, match=r"^this state does not hold weights of ") as error:
        remap_checkpoint(net().state_dict(), model())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weight: (100 * weight).to(torch.int8),
            "conv1.weight has int8 values, ThreeStageResNetCifar needs floating point",
        ),
        (lambda weight: weight.to_sparse(), "conv1.weight is a sparse tensor; save conv1.weight.to_dense() instead"),
        (lambda weight: weight.to("meta"), "conv1.weight is a tensor without values, on the device meta"),
        (lambda weight: torch.nested.as_nested_tensor([weight]), "conv1.weight is a nested tensor"),
        (lambda weight: weight.to(torch.complex64), "conv1.weight has complex64 values"),
    ],
    ids=["integer", "sparse", "meta", "nested", "complex"],
)
def test_tensors_of_another_kind_are_refused_by_name(change, message):
    model = ours()
    before = model.conv1.weight.clone()
    state = {**model.state_dict(), "conv1.weight": change(model.conv1.weight.detach())}
    with pytest.raises(UserError, match=r"^this state: ") as error:
        load_foreign(model, state)
    assert message in str(error.value)
    assert torch.equal(model.conv1.weight, before)


@pytest.mark.parametrize(
    "prefix", ["model.", "timm_model.", "backbone.", "encoder.", "model.module.", "module.model.", "student.0.", "net."]
)
def test_prefixes_of_wrappers_and_counters_of_tools(prefix, tmp_path):
    expected, model = ours(), ours()
    for p in expected.parameters():
        nn.init.normal_(p)
    state = {f"{prefix}{key}": value for key, value in expected.state_dict().items()}
    state |= {f"{prefix}total_ops": torch.zeros(1), f"{prefix}layer1.0.total_params": torch.zeros(1)}
    state["n_averaged"] = torch.tensor(3)
    metrics = {"acc": np.float64(0.5), "best": np.float32(0.5), "epoch": np.int64(3), "ema": np.bool_(True)}
    metrics |= {"curve": np.zeros(3), "data": Path("images")}
    torch.save({"state_dict": state, **metrics}, tmp_path / "theirs.ckpt")
    load_foreign(model, tmp_path / "theirs.ckpt")
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in model.state_dict().items())


def prefixed(prefix, model):
    return {f"{prefix}{key}": value for key, value in model.state_dict().items()}


def test_a_net_beside_other_modules_is_found_and_the_log_names_what_is_left_out(caplog):
    expected, model = ours(), ours()
    state = {**prefixed("model.", expected), "criterion.weight": torch.ones(10), "val_acc.tp": torch.zeros(10)}
    with caplog.at_level(logging.INFO, "seattn"):
        load_foreign(model, {"state_dict": state, "pytorch-lightning_version": "2.5"})
    assert "only the tensors under model. are loaded, not criterion.weight, val_acc.tp" in caplog.text
    assert torch.equal(model.fc.weight, expected.fc.weight)


def test_two_nets_in_one_state_are_refused_by_their_prefixes():
    state = {**prefixed("student.", ours()), **prefixed("teacher.", ours())}
    with pytest.raises(UserError, match=r"holds 2 such nets, under student\., teacher\.; keep one of them"):
        load_foreign(ours(), state)


def test_pytorch_cifar100s_relu_is_put_into_the_net_that_loads_its_se_resnet(caplog):
    caplog.set_level(logging.INFO, "seattn")
    net, model = theirs("pytorch-cifar100-se", attn="linear", conv_bias=True, relu_before_attn=True), ours()
    load_foreign(model, net.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=1e-5)
    assert "a ReLU is now before each block's squeeze-excite" in caplog.text


def test_a_refused_checkpoint_leaves_the_net_without_that_relu():
    net, model = theirs("pytorch-cifar100-se", attn="linear", relu_before_attn=True), ours("bottleneck")
    before = str(model)
    with pytest.raises(UserError):
        load_foreign(model, net.state_dict())
    assert str(model) == before


def test_cadenes_nets_are_sent_to_timms_legacy_ones():
    state = timm.create_model("legacy_seresnet50").state_dict()
    with pytest.raises(UserError, match=r"this state is refused for seresnet50: its max-pool rounds up .* legacy_se"):
        remap_checkpoint(state, timm.create_model("seresnet50"))


def without_counters(state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net", "checkpoint", "weights"])
def test_wrappers_prefixes_and_missing_counters(wrapper, tmp_path):
    net, model = theirs("pytorchcv"), ours()
    state = {f"module.{key}": value for key, value in without_counters(net.state_dict()).items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3, "acc": 95.5}
    torch.save(content, tmp_path / "theirs.pth")
    x = torch.randn(2, 3, 32, 32)
    for source in (content, tmp_path / "theirs.pth", str(tmp_path / "theirs.pth")):
        load_foreign(model, source)
        with torch.no_grad():
            torch.testing.assert_close(model(x), net(x), atol=1e-5, rtol=1e-5)
        model = ours()


def test_our_own_weights_pass_as_they_are(caplog):
    model = ours()
    with caplog.at_level(logging.INFO, "seattn"):
        remapped = remap_checkpoint(without_counters(model.state_dict()), model)
    assert not caplog.messages
    model.load_state_dict(remapped, strict=True)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in remapped.items())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            partial(theirs, "pytorchcv", blocks=(3, 1, 1)),
            r"unexpected features\.stage1\.unit3\.body\.conv1\.conv\.weight, .* more \(read as pytorchcv\)$",
        ),
        (partial(theirs, "pytorchcv", blocks=(1, 1, 1)), r"missing layer1\.1\.conv1\.weight, .*\(read as pytorchcv\)$"),
        (partial(theirs, "pytorchcv", attn=None), r"missing layer1\.0\.se\.fc1\.weight, .*\(read as pytorchcv\)$"),
        (partial(theirs, "pytorchcv", classes=100), r"size mismatch for fc\.weight, .*\(read as pytorchcv\)$"),
        (partial(nn.Sequential, nn.Linear(2, 2)), r"missing conv1\.weight, missing bn1\.weight, .* and \d+ more$"),
    ],
    ids=["deeper", "shallower", "plain", "classes", "unknown"],
)
def test_what_does_not_fit_is_told_by_its_first_keys(net, message):
    with pytest.raises(UserError, match=f"^this state does not hold weights of ThreeStageResNetCifar: {message}"):
        remap_checkpoint(net().state_dict(), ours())


def test_a_bias_that_is_lost_is_not_taken_for_zero():
    state = theirs("fc.0", attn="linear").state_dict()
    del state["layer2.0.fc.0.bias"]
    with pytest.raises(UserError, match=r"missing layer2\.0\.se\.fc1\.bias$"):
        remap_checkpoint(state, ours())


def test_attention_of_another_block_is_not_taken():
    state = theirs("fc.0", attn="linear").state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("layer1.1.fc.")}
    model = ours()
    model.layer1[0].se = None
    with pytest.raises(UserError, match=r"missing layer1\.1\.se\.fc1\.weight"):
        remap_checkpoint(state, model)


def test_an_accelerated_model_loads_too():
    net = theirs("pytorchcv")
    model = timms()
    seattn.accelerate(model, verbose=False)
    with pytest.raises(UserError, match="does not hold weights of"):
        remap_checkpoint(net.state_dict(), model)
    assert_computes_the_same(theirs_imagenet("pytorchcv-imagenet"), model, 64)


def test_the_command_line_takes_them(tmp_path, capsys):
    net = theirs("pytorch-cifar", blocks=(3, 3, 3))
    torch.save({"net": {f"module.{key}": value for key, value in net.state_dict().items()}}, tmp_path / "ckpt.pth")
    image = tmp_path / "image.png"
    Image.new("RGB", (32, 32), "red").save(image)
    args = ["predict", str(image), "--model", "se_resnet20_cifar", "--json", "--checkpoint"]
    assert main([*args, str(tmp_path / "ckpt.pth")]) == 0
    assert capsys.readouterr().err == f"{tmp_path / 'ckpt.pth'}: read as pytorch-cifar\n"
    save_file(theirs("pytorch-cifar", blocks=(3, 3, 3), shortcut="A").state_dict(), tmp_path / "a.safetensors")
    assert main([*args, str(tmp_path / "a.safetensors")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{tmp_path / 'a.safetensors'} does not hold weights of se_resnet20_cifar: missing layer2.0.down" in err
