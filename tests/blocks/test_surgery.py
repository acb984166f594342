"""Attention put into nets without: nothing changes at the start, everything can learn, and it comes out again."""

import copy
import io
import itertools
import pickle
import socket

import pytest
import timm
import torch
import torch.multiprocessing as mp
import torchvision
from timm.layers import set_scriptable
from torch import nn

import seattn
from seattn.blocks.attended.base import PLACEMENTS
from seattn.blocks.attended.insert import find_stages
from seattn.layers import Cbam, EfficientChannelAttn, SqueezeExcite, get_attn
from tests.helpers.nets import settle

LAYERS = {"se": SqueezeExcite, "eca": EfficientChannelAttn, "cbam": Cbam}
# library/name: number of residual blocks
NETS = {
    "timm/resnet18": 8,
    "timm/resnet50": 16,
    "timm/resnext50_32x4d": 16,
    "timm/wide_resnet50_2": 16,
    "timm/regnetx_002": 13,
    "timm/mobilenetv2_100": 17,
    "timm/preact_resnet18_cifar": 8,
    "torchvision/resnet18": 8,
    "torchvision/resnext50_32x4d": 16,
    "torchvision/regnet_x_400mf": 22,
    "torchvision/mobilenet_v2": 17,
}
CHEAP = ["timm/resnet18", "timm/resnet20_cifar"]
GRID = list(itertools.product([*NETS, "timm/resnet20_cifar"], LAYERS, PLACEMENTS))


def images(count=4, side=32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def build(name, **kwargs):
    """As a pretrained net is: in eval mode, with statistics and scales that hide no branch."""
    library, _, arch = name.partition("/")
    torch.manual_seed(0)
    model = timm.create_model(arch, **kwargs) if library == "timm" else torchvision.models.get_model(arch, weights=None)
    return settle(model, images(8)).eval()


@pytest.fixture(scope="module", params=NETS)
def named(request):
    """A net without attention; tests leave it as it is."""
    model = build(request.param)
    return request.param, model


@pytest.fixture(scope="module")
def converted():
    """timm's ResNet-18 with SE that computes something: not at the identity; tests leave it as it is."""
    model = seattn.add_attention(build("timm/resnet18"), "se", placement="pre")
    return stir(model).eval()


def stir(model):
    """The model with random weights in its attention layers."""
    torch.manual_seed(3)
    for layer in attention(model).values():
        for p in layer.parameters():
            nn.init.normal_(p, std=0.3)
    return model


def attention(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, tuple(LAYERS.values()))}


def added(model):
    """Names of the parameters that attention brought."""
    return [f"{place}.{key}" for place, layer in attention(model).items() for key, _ in layer.named_parameters()]


def output(model, x):
    with torch.no_grad():
        return model(x)


def same_tensors(found, expected):
    return list(found) == list(expected) and all(torch.equal(found[key], expected[key]) for key in expected)


# The start.


def test_the_start_computes_what_the_net_computed(named):
    name, plain = named
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    model = seattn.add_attention(plain, "se")
    assert torch.equal(output(model, images()), output(plain, images()))
    layers = attention(model)
    assert len(layers) == NETS[name] == len({id(layer) for layer in layers.values()})
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith(tuple(layers))}
    assert same_tensors(kept, before)  # running means and variances too
    assert same_tensors(plain.state_dict(), before)
    assert not attention(plain)
    assert type(model) is type(plain)


@pytest.mark.parametrize(
    ("name", "layer", "placement"),
    [pytest.param(*case, marks=() if case[0] in CHEAP else pytest.mark.slow) for case in GRID],
)
def test_every_layer_at_every_place_starts_at_the_identity(name, layer, placement):
    model = build(name)
    expected = output(model, images())
    seattn.add_attention(model, layer, placement=placement, inplace=True)
    assert {type(found) for found in attention(model).values()} == {LAYERS[layer]}
    assert torch.equal(output(model, images()), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer", "placement"), GRID)
def test_every_layer_at_every_place_in_torchscript(name, layer, placement):
    with set_scriptable(True):
        model = stir(seattn.add_attention(build(name), layer, placement=placement)).double()
    # The order of rounding hides nothing in float64; norms with the statistics of other maps would amplify it by 1e11.
    x = images().double()
    settle(model, images(8).double()).eval()
    expected = output(model, x)
    assert (output(torch.jit.script(model), x) - expected).norm() < 1e-8 * expected.norm()


@pytest.mark.parametrize("layer", LAYERS)
def test_in_training_too_the_start_is_the_plain_net(layer):
    plain = build("timm/resnet18")
    model = seattn.add_attention(plain, layer)
    x = images()
    y, expected = model.train()(x), plain.train()(x)
    torch.testing.assert_close(y, expected)
    for net, value in ((model, y), (plain, expected)):
        value.square().mean().backward()
        assert net.conv1.weight.grad is not None
    for name, p in plain.named_parameters():
        grad = model.get_parameter(name).grad
        assert (grad - p.grad).norm() <= 1e-3 * p.grad.norm() + 1e-7, name


# Learning.


# The parameters that start at zero and make every logit zero: they learn from the first step on, the others later.
LAST = {
    "se": {"fc2.weight", "fc2.bias"},
    "eca": {"conv.weight"},
    "cbam": {"channel.fc2.weight", "channel.fc2.bias", "spatial.bn.weight", "spatial.bn.bias"},
}


def gates(layer, x):
    """Every factor that the layer applies, of each of its gates."""
    if isinstance(layer, Cbam):
        ones = torch.ones_like(x)
        return [layer.channel.gate(x), layer.spatial(ones)]
    return [layer.gate(x)]


@pytest.mark.parametrize("name", [*CHEAP, "torchvision/regnet_x_400mf", "timm/mobilenetv2_100"])
@pytest.mark.parametrize("layer", LAYERS)
def test_all_of_it_learns(name, layer):
    # At 16 channels the default is one hidden unit, which a ReLU may keep at zero.
    options = {} if layer == "eca" else {"rd_ratio": 0.25}
    model = seattn.add_attention(build(name), layer, **options).train()
    images_of_8, optimizer = images(8), torch.optim.SGD(model.parameters(), lr=0.01)
    had = set()
    for step in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images_of_8), torch.arange(8)).backward()
        had |= {key for key in added(model) if model.get_parameter(key).grad.any()}
        if step == 0:
            assert had == {f"{place}.{key}" for place in attention(model) for key in LAST[layer]}
        optimizer.step()
    assert had == set(added(model))
    channels = {place: site.kind._channels(site.block).outside for place, site in sites(model).items()}
    for place, found in attention(model).items():
        for factor in gates(found.eval(), torch.rand(2, channels[place], 5, 5)):
            assert (factor != 1).any(), place


def sites(model):
    return {site.place: site for stage in find_stages(model) for site in stage}


def test_start_paper_is_the_layers_own_and_changes_the_net():
    plain = build("timm/resnet18")
    model = seattn.add_attention(plain, "se", start="paper")
    assert {layer.gate_name for layer in attention(model).values()} == {"sigmoid"}
    assert not torch.allclose(output(model, images()), output(plain, images()), rtol=1e-2)


# A model's life.


@pytest.mark.parametrize(
    ("name", "placement"),
    [
        pytest.param(name, placement, marks=() if name in CHEAP or placement == PLACEMENTS[i % 4] else pytest.mark.slow)
        for (i, name), placement in itertools.product(enumerate([*NETS, "timm/resnet20_cifar"]), PLACEMENTS)
    ],
)
def test_remove_attention_undoes_it(name, placement):
    plain = build(name)
    model = seattn.add_attention(plain, "se", placement=placement)
    back = seattn.remove_attention(stir(model))
    assert attention(model)
    assert not attention(back)
    assert same_tensors(back.state_dict(), plain.state_dict())
    assert [type(m) for m in back.modules()] == [type(m) for m in plain.modules()]
    assert torch.equal(output(back, images()), output(plain, images()))
    seattn.remove_attention(model, inplace=True)
    assert not attention(model)
    seattn.add_attention(model, "eca", placement=placement, inplace=True)  # what is plain again takes another layer
    assert torch.equal(output(model, images()), output(plain, images()))


def test_the_layers_are_in_parameters_moved_and_saved(converted, tmp_path):
    names = added(converted)
    assert names
    assert set(names) <= {name for name, _ in converted.named_parameters()}
    assert set(names) <= set(converted.state_dict())
    moved = copy.deepcopy(converted).to("meta", torch.float64)
    assert all(moved.get_parameter(name).is_meta for name in names)
    assert all(moved.get_parameter(name).dtype == torch.float64 for name in names)
    torch.save(converted.state_dict(), tmp_path / "weights.pt")
    again = seattn.add_attention(build("timm/resnet18"), "se", placement="pre")
    again.load_state_dict(torch.load(tmp_path / "weights.pt"), strict=True)
    assert torch.equal(output(again, images()), output(converted, images()))


def test_layers_are_made_where_and_as_the_block_is():
    model = build("timm/resnet18").to(torch.bfloat16)
    seattn.add_attention(model, "se", inplace=True)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    meta = seattn.add_attention(timm.create_model("resnet18", device="meta"), "cbam")
    assert all(value.is_meta for value in meta.state_dict().values())
    for training in (False, True):
        model = seattn.add_attention(timm.create_model("resnet18", device="meta").train(training), "se")
        assert {layer.training for layer in attention(model).values()} == {training}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_copies_and_pickles(placement):
    model = stir(seattn.add_attention(build("timm/resnet20_cifar"), "cbam", placement=placement)).eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(output(again, images()), output(model, images()))
        assert not attention(seattn.remove_attention(again))


def test_an_accelerated_net_takes_attention_and_gives_it_back():
    plain = build("timm/resnet18")
    seattn.accelerate(plain, verbose=False)
    model = seattn.add_attention(plain, "se", placement="post")
    torch.testing.assert_close(output(model, images()), output(plain, images()), atol=1e-4, rtol=1e-4)
    back = seattn.remove_attention(model)
    assert [type(m) for m in back.modules()] == [type(m) for m in plain.modules()]


def test_compiles_whole_and_exports(tmp_path):
    torch._dynamo.reset()
    converted = stir(seattn.add_attention(build("timm/preact_resnet18_cifar"), "se", placement="post")).eval()
    x, expected = images(), output(converted, images())
    compiled = torch.compile(converted, fullgraph=True, backend="eager")
    torch.testing.assert_close(output(compiled, x), expected, atol=1e-4, rtol=1e-4)
    torch.export.save(torch.export.export(converted, (x,)), tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(output(again, x), expected, atol=1e-4, rtol=1e-4)


def freeze_statistics(model):
    """Norms in eval mode, so that the gradient of a batch is the mean of those of its halves."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def _converted_small():
    return freeze_statistics(stir(seattn.add_attention(build("timm/resnet20_cifar"), "se", placement="pre")))


def _gradients_of_half(rank, port, path):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = _converted_small()
    ddp = nn.parallel.DistributedDataParallel(model)
    ddp(images()[rank::2]).square().mean().backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, path)
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_gradients_of_half, (port, str(tmp_path / "grads.pt")), nprocs=2)
    model = _converted_small()
    model(images()).square().mean().backward()
    grads = torch.load(tmp_path / "grads.pt")
    assert set(added(model)) <= set(grads)
    for name, p in model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, rtol=1e-3, atol=1e-5)


# The other route, and arguments.


@pytest.mark.parametrize("layer", LAYERS)
def test_timms_own_route_gives_the_same_function(layer):
    """block_args={"attn_layer": ...} builds the net with the layer; add_attention puts it in."""
    built = stir(build("timm/resnet18", block_args={"attn_layer": get_attn(layer)})).eval()
    put = seattn.add_attention(build("timm/resnet18"), layer, start="paper")
    assert set(put.state_dict()) == set(built.state_dict())
    put.load_state_dict(built.state_dict())
    assert torch.equal(output(put, images()), output(built, images()))


def test_our_own_nets_are_the_plain_ones_converted():
    ours = build("timm/se_resnet20_cifar")
    plain = seattn.remove_attention(ours)
    assert list(plain.state_dict()) == list(build("timm/resnet20_cifar").state_dict())
    again = seattn.add_attention(plain, "se", start="paper")
    again.load_state_dict(ours.state_dict())
    assert torch.equal(output(again, images()), output(ours, images()))


def test_stages_ratio_and_further_options():
    model = seattn.add_attention(build("timm/resnet18"), "se", stages=[2, 4], rd_ratio=[1, 0.5, 1, 0.25], rd_divisor=8)
    layers = attention(model)
    assert {place.partition(".")[0] for place in layers} == {"layer2", "layer4"}
    widths = {(layer.fc1.in_channels, layer.fc1.out_channels) for layer in layers.values()}
    assert widths == {(128, 64), (512, 128)}
    eca = seattn.add_attention(build("timm/resnet20_cifar"), "eca", kernel_size=7)
    assert {layer.conv.kernel_size for layer in attention(eca).values()} == {(7,)}


@pytest.mark.parametrize("name", [name for name in NETS if "18" in name or "mobile" in name])
def test_num_classes_replaces_the_classifier(name):
    assert output(seattn.add_attention(build(name), "se", num_classes=5), images()).shape == (4, 5)


def test_inplace_is_the_model_itself():
    model = build("timm/resnet20_cifar")
    assert seattn.add_attention(model, "se") is not model
    assert not attention(model)
    assert seattn.add_attention(model, "se", inplace=True) is model
    assert seattn.remove_attention(model, inplace=True) is model


WRONG = {
    "layer": ({"layer": "sse"}, ValueError, "unknown attention layer 'sse'; registered: cbam, eca, se"),
    "placement": ({"placement": "before"}, ValueError, "standard, pre, post, identity; got 'before'"),
    "start": ({"start": "zero"}, ValueError, "start must be one of paper, identity; got 'zero'"),
    "gate": ({"gate": "sigmoid"}, ValueError, "needs gate='two_sigmoid'.*got 'sigmoid'"),
    "stage": ({"stages": [0]}, ValueError, "numbers from 1 to 3.*got 0"),
    "one stage": ({"stages": 2}, ValueError, "from 1 to 3.*got 2"),
    "ratios": ({"rd_ratio": [0.5]}, ValueError, "one for each of the 3 stages"),
    "ratio": ({"rd_ratio": -1}, ValueError, "rd_ratio must be above 0"),
    "option": ({"reduction": 16}, TypeError, "attention 'se' takes no 'reduction'; it takes rd_ratio"),
    "option of eca": ({"layer": "eca", "rd_ratio": 0.5}, TypeError, "attention 'eca' takes no 'rd_ratio'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_raise_name_the_choices_and_change_nothing(case):
    arguments, error, says = WRONG[case]
    model = build("timm/resnet20_cifar")
    keys = list(model.state_dict())
    with pytest.raises(error, match=says):
        seattn.add_attention(model, **{"layer": "se", **arguments}, inplace=True)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", ["seresnet18", "se_resnet18", "regnety_002"])
def test_a_net_with_attention_refuses_more(name):
    with pytest.raises(ValueError, match=r"has attention already: .* in .*; call seattn.remove_attention first"):
        seattn.add_attention(timm.create_model(name, device="meta"), "se")


def test_a_net_of_other_blocks_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"no residual block of a known kind; known: .*BasicBlock"):
        seattn.add_attention(timm.create_model("vit_tiny_patch16_224", device="meta"), "se")
    with pytest.raises(ValueError, match="no attention layer of seattn"):
        seattn.remove_attention(timm.create_model("seresnet18", device="meta"))


def test_a_net_without_a_classifier_of_a_known_kind_is_refused_unchanged():
    trunk = nn.Sequential(timm.create_model("resnet18", device="meta").layer1)
    with pytest.raises(ValueError, match="no classifier that num_classes could replace"):
        seattn.add_attention(trunk, "se", num_classes=3, inplace=True)
    assert not attention(trunk)
