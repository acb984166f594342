"""The references of squeeze_excite: the definition, in eager mode and in TorchScript. test_attn_tail.py has the op."""

import pytest
import timm.layers
import torch
import torch.nn.functional as F

from seattn.ops import squeeze_excite, squeeze_excite_gate_reference, squeeze_excite_reference
from seattn.ops._tail.activations import ACTS, GATES


def inputs(shape=(3, 7, 5, 3), hidden=4, dtype=torch.float32) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    sizes = ((hidden, shape[1]), (hidden,), (shape[1], hidden), (shape[1],))
    return [torch.randn(s, generator=rng, dtype=torch.float64).to(dtype) for s in (shape, *sizes)]


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("act", ACTS)
def test_reference_equals_timms_module_with_the_same_weights(act, gate):
    x, w1, b1, w2, b2 = inputs()
    act_layer = timm.layers.create_act.get_act_layer(act)
    module = timm.layers.SEModule(7, rd_channels=4, act_layer=act_layer, gate_layer=gate)
    state = {"fc1.weight": w1[:, :, None, None], "fc1.bias": b1, "fc2.weight": w2[:, :, None, None], "fc2.bias": b2}
    module.load_state_dict(state, strict=True)
    torch.testing.assert_close(squeeze_excite_reference(x, w1, b1, w2, b2, act, gate), module(x))


def test_two_sigmoid_is_one_at_zero():
    x, w1, b1, w2, _ = inputs()
    assert torch.equal(squeeze_excite(x, w1, b1, 0 * w2, None, gate="two_sigmoid"), x)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_gate_reference_is_the_factor_of_every_channel(act, gate):
    x, *weights = inputs(dtype=torch.bfloat16)
    scale = squeeze_excite_gate_reference(x, *weights, act, gate)
    assert scale.dtype == torch.float32
    want = (x.float() * scale[:, :, None, None]).bfloat16()
    assert torch.equal(squeeze_excite_reference(x, *weights, act, gate), want)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("act", ACTS)
def test_gradients_of_the_reference(act, gate):
    leaves = [t.requires_grad_() for t in inputs((2, 3, 2, 2), hidden=2, dtype=torch.float64)]
    fn = lambda *t: squeeze_excite_reference(*t, act, gate)  # noqa: E731
    assert torch.autograd.gradcheck(fn, leaves, check_forward_ad=True)


@pytest.mark.parametrize("act", ["silu", "gelu"])
def test_second_gradients_of_the_reference(act):
    leaves = [t.requires_grad_() for t in inputs((2, 3, 2, 2), hidden=2, dtype=torch.float64)]
    assert torch.autograd.gradgradcheck(lambda *t: squeeze_excite_reference(*t, act), leaves)


@pytest.mark.parametrize("fn", [squeeze_excite, squeeze_excite_reference])
def test_autocast_leaves_the_result_in_fp32_precision(fn, device):
    x, *weights = (t.to(device) for t in inputs())
    x = x.bfloat16()
    plain = fn(x, *weights)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(fn(x, *weights), plain)
        assert fn(x.float(), *weights).dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_torchscript_gives_the_same_result_under_autocast_too(bias):
    x, w1, b1, w2, b2 = inputs()
    if not bias:
        b1 = b2 = None
    scripted = torch.jit.script(squeeze_excite_reference)
    want = squeeze_excite_reference(x, w1, b1, w2, b2, "hard_swish", "two_sigmoid")
    torch.testing.assert_close(scripted(x, w1, b1, w2, b2, "hard_swish", "two_sigmoid"), want)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):  # the first calls profile, later ones run optimised
            torch.testing.assert_close(scripted(x, w1, b1, w2, b2, "hard_swish", "two_sigmoid"), want)


def test_reference_raises_for_unknown_names():
    with pytest.raises(ValueError, match="got tanh"):
        squeeze_excite_reference(*inputs(), "tanh")
    with pytest.raises(ValueError, match="got softmax"):
        squeeze_excite_reference(*inputs(), "relu", "softmax")


def test_hard_sigmoid_is_relu6_of_z_plus_3_over_6():
    x, _, _, _, b2 = inputs((1, 7, 1, 1))
    w = torch.zeros(7, 7)
    got = squeeze_excite_gate_reference(x, w, None, w, 4 * b2, "relu", "hard_sigmoid")
    torch.testing.assert_close(got[0], F.relu6(4 * b2 + 3) / 6)
