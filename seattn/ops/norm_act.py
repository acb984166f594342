"""The tail of a plain residual block: batch norm, addition, activation.

Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167. Shapes: B images, C channels, H x W pixels.
"""

from torch import Tensor

from seattn.ops._operator import definition
from seattn.ops._tail.excitation import NO_EXCITATION
from seattn.ops._tail.norm import BatchNorm
from seattn.ops._tail.run import Tail, reference, tail_op


@tail_op
def batch_norm_add_act(
    x: Tensor,
    shortcut: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    out_act: str = "relu",
) -> Tail:
    """y = out_act(batch_norm(x) + shortcut); arguments, result and errors as in `batch_norm_squeeze_excite_add_act`."""
    norm = BatchNorm(running_mean, running_var, weight, bias, training, momentum, eps)
    return Tail(x, shortcut, NO_EXCITATION, norm, out_act)


batch_norm_add_act_reference = definition(batch_norm_add_act, reference)
