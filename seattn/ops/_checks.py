"""What the ops refuse, before anything is launched: ValueError with the shapes seen and wanted."""

from torch import Tensor

from seattn.ops._tail.excitation import Excitation, check_names

OUT_ACTS = ("relu", "identity")


def check_map(x: Tensor) -> None:
    """x is (B, C, H, W), floating point, with at least one channel and one pixel."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be (B, C, H, W) of a floating-point dtype; got {tuple(x.shape)} {x.dtype}")
    if x.shape[1] == 0 or x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"x must have at least one channel and one pixel; got {tuple(x.shape)}")


def check_shortcut(shortcut: Tensor, x: Tensor) -> None:
    """The shortcut has the shape of x: nothing is broadcast."""
    if not shortcut.is_floating_point() or shortcut.shape != x.shape:
        raise ValueError(
            f"shortcut must be floating point with the shape of x, {tuple(x.shape)}; got {tuple(shortcut.shape)} "
            f"{shortcut.dtype}"
        )
    check_device("shortcut", shortcut, x)


def check_out_act(out_act: str) -> None:
    """The name of the activation after the addition is known."""
    if out_act not in OUT_ACTS:
        raise ValueError(f"out_act must be one of {', '.join(OUT_ACTS)}; got {out_act!r}")


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """The tensor is where x is."""
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}; got {tensor.device}")


def check_vector(name: str, vector: Tensor | None, size: int, x: Tensor) -> None:
    """A vector of that size, or None."""
    if vector is None:
        return
    if vector.dim() != 1 or vector.shape[0] != size:
        raise ValueError(f"{name} must be ({size},) or None; got {tuple(vector.shape)}")
    check_device(name, vector, x)


def check_excitation(e: Excitation, x: Tensor) -> None:
    """Names are known, and the weights fit the channels of x."""
    check_names(e.act, e.gate)
    channels = x.shape[1]
    if e.kind == "none":
        return
    assert e.w1 is not None
    if e.kind == "se":
        _check_matrices(e, channels)
    elif e.kind == "ese":
        if e.w1.dim() != 2 or e.w1.shape[0] != channels or e.w1.shape[1] != channels:
            raise ValueError(f"weight must be ({channels}, {channels}); got {tuple(e.w1.shape)}")
        check_vector("bias", e.b1, channels, x)
    elif e.w1.dim() != 1 or e.w1.shape[0] % 2 == 0:
        raise ValueError(f"weight must be (k,) with k odd; got {tuple(e.w1.shape)}")
    names = ("w1", "b1", "w2", "b2") if e.kind == "se" else ("weight", "bias")
    device = x.device
    for name, tensor in zip(names, (e.w1, e.b1, e.w2, e.b2), strict=False):
        if tensor is not None and tensor.device != device:
            check_device(name, tensor, x)


def _check_matrices(e: Excitation, channels: int) -> None:
    assert e.w1 is not None
    assert e.w2 is not None
    first, second = e.w1.shape, e.w2.shape
    if len(first) != 2 or first[0] == 0 or first[1] != channels:
        raise ValueError(f"w1 must be (R, {channels}) with R > 0, for the {channels} channels of x; got {tuple(first)}")
    hidden = first[0]
    if second != (channels, hidden):
        raise ValueError(f"w2 must be ({channels}, {hidden}), the shape of w1 transposed; got {tuple(second)}")
    for name, bias, size in (("b1", e.b1, hidden), ("b2", e.b2, channels)):
        if bias is not None and bias.shape != (size,):
            raise ValueError(f"{name} must be ({size},) or None; got {tuple(bias.shape)}")
