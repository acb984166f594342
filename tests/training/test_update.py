"""One update: accumulation, clipping, sharpness-aware minimisation, against the same by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seattn.training.update import Updater

CPU = torch.device("cpu")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def batches(count=1, size=8):
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 3, 8, 8, generator=g), torch.randint(3, (size,), generator=g)) for _ in range(count)]


def loss(logits, target, x):
    return F.cross_entropy(logits, target)


def updater(model, lr=0.1, **options):
    return Updater(model, torch.optim.SGD(model.parameters(), lr), loss, CPU, **options)


def test_one_batch_is_a_plain_step():
    model, plain = net(), net()
    (x, target), *_ = group = batches()
    value = updater(model)(group)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    expected = F.cross_entropy(plain(x), target)
    expected.backward()
    optimizer.step()
    torch.testing.assert_close(value, expected.detach())
    for value, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(value, expected)


def test_a_group_is_one_step_on_the_mean_of_its_batches():
    whole, parts = net(), net()
    for model in (whole, parts):
        model[1].eval()  # statistics of a batch would differ
    group = batches(4)
    updater(whole)([(torch.cat([x for x, _ in group]), torch.cat([t for _, t in group]))])
    updater(parts)(group)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("mode", "limit"), [("norm", 1e-3), ("value", 1e-4)])
def test_gradients_are_clipped(mode, limit):
    model = net()
    before = copy.deepcopy(model)
    updater(model, lr=1.0, clip_grad=limit, clip_mode=mode)(batches())
    steps = [a - b for a, b in zip(before.parameters(), model.parameters(), strict=True)]
    if mode == "norm":
        assert torch.cat([s.detach().flatten() for s in steps]).norm() == pytest.approx(limit, rel=1e-2)
    else:
        assert max(float(s.detach().abs().max()) for s in steps) == pytest.approx(limit, rel=1e-2)


def test_sharpness_aware_step_uses_the_gradient_at_the_ascended_weights():
    rho, lr = 0.05, 0.1
    model, by_hand = net(), net()
    (x, target), *_ = group = batches()
    updater(model, lr, sam_rho=rho)(group)

    start = [p.detach().clone() for p in by_hand.parameters()]
    grads = torch.autograd.grad(F.cross_entropy(by_hand(x), target), list(by_hand.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm()
    running = by_hand[1].running_mean.clone()
    with torch.no_grad():
        for p, g in zip(by_hand.parameters(), grads, strict=True):
            p.add_(rho * g / norm)
    grads = torch.autograd.grad(F.cross_entropy(by_hand(x), target), list(by_hand.parameters()))
    for ours, value, g in zip(model.parameters(), start, grads, strict=True):
        torch.testing.assert_close(ours, value - lr * g, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model[1].running_mean, running)  # of the first look alone
    assert model[1].momentum == 0.1


def test_bfloat16_autocast_keeps_fp32_weights():
    model = net()
    assert updater(model, amp=torch.bfloat16)(batches()).isfinite()
    assert all(p.dtype == torch.float32 for p in model.parameters())
