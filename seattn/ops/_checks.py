"""Checks of an op's arguments. Each raises ValueError with the value that was given and the one that would be right."""

from torch import Tensor

OUT_ACTS = ("relu", "identity")


def check_map(x: Tensor) -> None:
    """x must be (B, C, H, W), floating point, with at least one channel and one pixel."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be (B, C, H, W) of a floating-point dtype; got {tuple(x.shape)} {x.dtype}")
    if x.shape[1] == 0 or x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"x must have at least one channel and one pixel; got {tuple(x.shape)}")


def check_shortcut(shortcut: Tensor, x: Tensor) -> None:
    """The shortcut must have the shape of x: nothing is broadcast."""
    if not shortcut.is_floating_point() or shortcut.shape != x.shape:
        raise ValueError(
            f"shortcut must be floating point with the shape of x, {tuple(x.shape)}; got {tuple(shortcut.shape)} "
            f"{shortcut.dtype}"
        )
    check_device("shortcut", shortcut, x)


def check_out_act(out_act: str) -> None:
    """The activation after the addition must be a known name."""
    if out_act not in OUT_ACTS:
        raise ValueError(f"out_act must be one of {', '.join(OUT_ACTS)}; got {out_act!r}")


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """The tensor must be on the device of x."""
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}; got {tensor.device}")


def check_vector(name: str, vector: Tensor | None, size: int, x: Tensor) -> None:
    """The vector must be None, or (size,) on the device of x."""
    if vector is None:
        return
    if vector.dim() != 1 or vector.shape[0] != size:
        raise ValueError(f"{name} must be ({size},) or None; got {tuple(vector.shape)}")
    check_device(name, vector, x)
