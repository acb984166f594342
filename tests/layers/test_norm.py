import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seattn.layers._norm import batch_norm_of

CASES = {
    "default": {},
    "momentum": {"momentum": 0.3},
    "cumulative average": {"momentum": None},
    "untracked": {"track_running_stats": False},
    "no parameters": {"affine": False},
    "eps": {"eps": 0.1},
}


def through(bn, x):
    """What an op does with the arguments."""
    n = batch_norm_of(bn)
    return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, n.training, n.momentum, n.eps)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("mode", ["train", "eval", "train, then eval"])
def test_the_arguments_make_batch_norm_do_what_the_module_does(options, mode):
    plain = nn.BatchNorm2d(3, **options)
    ours = copy.deepcopy(plain)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for bn in (plain, ours):
            bn.train(mode == "train" or (mode != "eval" and step < 3))
        x = torch.randn(4, 3, 5, 7, generator=generator) * (step + 1)
        assert torch.equal(through(ours, x), plain(x))
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_switching_off_the_tracking_later_keeps_the_statistics_but_not_their_use():
    plain = nn.BatchNorm2d(3)
    ours = copy.deepcopy(plain)
    x = torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    for bn in (plain, ours):
        bn.track_running_stats = False
    assert torch.equal(through(ours, x), plain(x))
    assert torch.equal(through(ours.eval(), x), plain.eval()(x))
    assert ours.num_batches_tracked == plain.num_batches_tracked == 0


def test_only_a_batch_that_is_tracked_is_counted():
    bn = nn.BatchNorm2d(3, momentum=None)
    assert batch_norm_of(bn).momentum == 1.0
    assert batch_norm_of(bn).momentum == 0.5
    assert bn.num_batches_tracked == 2
    assert batch_norm_of(bn.eval()).momentum == 0.0
    assert bn.num_batches_tracked == 2
    assert not batch_norm_of(bn).training
    bn.running_mean = bn.running_var = None
    assert batch_norm_of(bn).training  # without statistics there are only the batch's
