"""Core ML packages computed by PyTorch, operator by operator, on systems that cannot run them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def logits(package: Path, x: Tensor) -> Tensor:
    """The output of a package of one of our ResNets, for x (B, C, H, W).

    Raises:
        KeyError: for an operator that those nets do not have.
    """
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load  # the package as operators

    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    function = load(spec, spec.specificationVersion, model.weights_dir).functions["main"]
    ((name, _),) = function.inputs.items()
    values = {name: x}

    def value(var: Any) -> Any:
        if var.name in values:
            return values[var.name]
        return torch.from_numpy(var.val) if getattr(var.val, "ndim", 0) > 1 else var.val

    for op in function.operations:
        if op.op_type != "const":
            inputs = {key: value(var) for key, var in op.inputs.items() if not isinstance(var, list | tuple)}
            values[op.outputs[0].name] = _OPERATORS[op.op_type](**inputs)
    return values["logits"]


def _conv(
    x: Any, weight: Any, strides: Any, pad_type: str, pad: Any, groups: int, dilations: Any, bias: Any = None
) -> Tensor:
    assert pad_type in ("custom", "valid")
    assert list(dilations) == [1, 1]
    if pad_type == "custom":
        top, bottom, left, right = map(int, pad)
        x = F.pad(x, (left, right, top, bottom))
    bias = None if bias is None else torch.as_tensor(bias)
    return F.conv2d(x, weight, bias, tuple(map(int, strides)), groups=int(groups))


def _expand(x: Tensor, axes: Any) -> Tensor:
    for axis in axes:
        x = x.unsqueeze(int(axis))
    return x


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: torch.as_tensor(x) + torch.as_tensor(y),
    "conv": _conv,
    "expand_dims": _expand,
    "linear": lambda x, weight, bias: F.linear(x, torch.as_tensor(weight), torch.as_tensor(bias)),
    "mul": lambda x, y: torch.as_tensor(x) * torch.as_tensor(y),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(tuple(map(int, axes)), keepdim=bool(keep_dims)),
    "relu": torch.relu,
    "reshape": lambda x, shape: x.reshape(tuple(map(int, shape))),
    "sigmoid": torch.sigmoid,
}
