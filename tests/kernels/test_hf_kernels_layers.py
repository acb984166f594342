"""`kernels.kernelize` puts the Hub kernel's forward into timm's squeeze-excite modules, and leaves others alone."""

import copy
import warnings

import pytest
import timm
import torch
from timm.layers import SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn

from kernels import (
    LocalLayerRepository,
    Mode,
    get_local_kernel,
    kernelize,
    replace_kernel_forward_from_hub,
    use_kernel_mapping,
)
from tests.kernels._hub_kernel import staged

# A net of timm for each of the two modules: a small ResNet, and one with hard sigmoids and two kinds of activation.
NETS = {
    "SEModule": ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "block_args": {"attn_layer": "se"}}),
    "SqueezeExcite": ("mobilenetv3_small_050", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return staged(tmp_path_factory.mktemp("hub") / "kernel")


@pytest.fixture
def put_in(folder):
    """Kernelizes a model of timm, whose classes are marked for the length of a test."""
    marked = (SEModule, SqueezeExcite)
    for kind in marked:
        replace_kernel_forward_from_hub(kind, "SqueezeExcite")
    repository = LocalLayerRepository(folder, layer_name="SqueezeExcite")

    def call(model, mode=Mode.TRAINING):
        with use_kernel_mapping({"SqueezeExcite": {"cpu": repository}}):
            return kernelize(model, mode=mode, device="cpu", use_fallback=False)

    yield call
    for kind in marked:
        del kind.kernel_layer_name, kind.kernel_condition


def attention(model):
    return [m for m in model.modules() if isinstance(m, (SEModule, SqueezeExcite))]


def values_and_gradients(model, x):
    x = x.detach().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


@pytest.mark.parametrize(
    ("name", "kernels"), [("SEModule", "torch"), ("SEModule", "triton"), ("SqueezeExcite", "torch")]
)
def test_timms_net_computes_the_same_with_the_same_gradients(put_in, folder, name, kernels):
    arch, options = NETS[name]
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=3, **options).eval()
    x = torch.randn(1, 3, 32, 32)
    want = values_and_gradients(copy.deepcopy(model).double(), x.double())
    names = list(model.state_dict())
    put_in(model)
    kernel = get_local_kernel(folder)
    modules = attention(model)
    assert modules
    assert {m.forward.__func__ for m in modules} == {kernel.layers.SqueezeExcite.forward}
    with kernel.set_kernels(kernels), warnings.catch_warnings():
        warnings.simplefilter("error")  # no module may keep its own forward
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"triton\.")  # 3.6's interpreter of numpy
        got = values_and_gradients(model, x)
    assert list(model.state_dict()) == names
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).norm() <= 1e-4 * b.norm()


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("act", ["relu", "silu", "gelu", "hard_swish"])
def test_every_activation_by_timms_name(put_in, act, gate):
    module = SEModule(12, act_layer=timm.layers.get_act_layer(act), gate_layer=gate, bias=act != "gelu")
    x = torch.randn(2, 12, 5, 3)
    want = values_and_gradients(module, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(values_and_gradients(put_in(module), x), want, rtol=1e-5, atol=1e-5)


def test_torch_compile_takes_a_swapped_module_whole(put_in):
    module = SEModule(8)
    x = torch.randn(2, 8, 5, 3)
    want = values_and_gradients(module, x)
    compiled = torch.compile(put_in(module, Mode.TRAINING | Mode.TORCH_COMPILE), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(values_and_gradients(compiled, x), want, rtol=1e-5, atol=1e-5)


class _Cubed(SEModule):
    def forward(self, x):
        return super().forward(x) ** 3


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: SEModule(8, add_maxpool=True), "the operator pools the mean only"),
        (lambda: SEModule(8, norm_layer=nn.BatchNorm2d), "BatchNorm2d inside the gate"),
        (lambda: SEModule(8, act_layer=nn.Tanh), "activation Tanh"),
        (lambda: SEModule(8, act_layer=nn.PReLU), "activation PReLU"),
        (lambda: SEModule(8, gate_layer=nn.Softsign), "gate Softsign"),
        (lambda: _Cubed(8), "only inherits the mark"),
    ],
    ids=["maximum", "norm", "tanh", "prelu", "gate", "subclass"],
)
def test_a_module_that_computes_something_else_keeps_its_forward_and_says_why(put_in, make, reason):
    module = make().eval()
    x = torch.randn(2, 8, 5, 3)
    want = module(x)
    put_in(module)
    with pytest.warns(UserWarning, match=reason):
        assert torch.equal(module(x), want)
    assert torch.equal(torch.compile(module, fullgraph=True, backend="eager")(x), want)


def test_the_layer_alone_says_what_it_is_for(folder):
    with pytest.raises(TypeError, match=r"a forward for other modules, see kernels\.kernelize"):
        get_local_kernel(folder).layers.SqueezeExcite()(torch.ones(1, 2, 3, 3))
