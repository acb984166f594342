"""The arguments with which an op that contains batch norm computes the same as an nn.BatchNorm2d.

Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167.
"""

from torch import nn

from seattn.ops._tail.norm import BatchNorm


def batch_norm_of(bn: nn.BatchNorm2d) -> BatchNorm:
    """The arguments that `bn.forward` gives to `torch.nn.functional.batch_norm`. Call this once for each forward.

    As `bn.forward` does, this counts the batch in `num_batches_tracked` while `bn` trains and tracks statistics. The
    count gives the momentum of a cumulative average (momentum None).
    """
    momentum = 0.0 if bn.momentum is None else bn.momentum
    updates = bn.training and bn.track_running_stats
    if updates and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
        if bn.momentum is None:
            momentum = 1.0 / float(bn.num_batches_tracked)
    takes_running = bn.track_running_stats or not bn.training
    return BatchNorm(
        running_mean=bn.running_mean if takes_running else None,
        running_var=bn.running_var if takes_running else None,
        weight=bn.weight,
        bias=bn.bias,
        training=bn.training or (bn.running_mean is None and bn.running_var is None),
        momentum=momentum,
        eps=bn.eps,
    )
