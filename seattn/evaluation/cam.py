"""Where a net looks for a class: Grad-CAM and related methods, computed by the package grad-cam.

Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391. Shapes: C channels, h x w the layer's map, H x W pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seattn.core.errors import UserError, did_you_mean, first_line
from seattn.evaluation.hooks import recorded

# The names for --method and the classes of the package.
CLASSES = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM"}
METHODS = tuple(CLASSES)

Shape = tuple[int, ...]


def find_layer(model: nn.Module, x: torch.Tensor, name: str | None = None) -> tuple[str, tuple[int, int]]:
    """The name of the layer to explain and the size (h, w) of its map for the input x (1, C, H, W).

    By default this is the last stage in timm's `feature_info`, or the last module that returns a map where a net has
    no `feature_info`.

    Raises:
        UserError: if there is no such layer, or it returns no map.
    """
    modules = dict(model.named_modules())
    shapes = _shapes(model, x, modules)
    if name is None:
        name = _last_stage(model, modules) or _last_map(model, shapes)
    elif name not in modules or not name:
        raise UserError(
            f"{_kind(model)} has no layer {name!r}; {did_you_mean(name, list(filter(None, modules))[::-1])}"
        )
    shape = shapes.get(name, ())
    if not _is_map(shape):
        returned = f"a tensor of {' x '.join(map(str, shape))}" if shape else "no tensor"
        raise UserError(
            f"the layer {name} of {_kind(model)} returns {returned}, not a feature map (images, channels, height, "
            "width): Grad-CAM needs a convolutional net, or a --layer that returns a map"
        )
    return name, (shape[1], shape[2]) if _channels_last(model, shape) else (shape[2], shape[3])


def class_map(model: nn.Module, x: torch.Tensor, *, layer: str, target: int, method: str) -> npt.NDArray[np.float32]:
    """The map (H, W) from 0 to 1 of how much each pixel of x (1, C, H, W) counts for a class.

    The layer's map is resized smoothly to the size of x. It is 0 everywhere where nothing in the layer counts for the
    class.

    Args:
        layer: a name that `find_layer` returned.
        target: the class, an index into the model's outputs.
        method: one of METHODS.

    Raises:
        UserError: if the method is unknown, or the package grad-cam is not installed or cannot be loaded.
    """
    if method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {method!r}")
    method_class = getattr(import_grad_cam(), CLASSES[method])
    training = model.training

    def copied(activation: torch.Tensor) -> torch.Tensor:
        """A copy in the order (1, C, h, w): a ReLU that works in place would change the original."""
        last = _channels_last(model, tuple(activation.shape))
        return (activation.permute(0, 3, 1, 2) if last else activation).clone()

    cam = method_class(model, [model.get_submodule(layer)], reshape_transform=copied)
    cam.compute_input_gradient = True  # a net whose parameters are frozen has a gradient only with this
    try:
        with torch.enable_grad():
            heat = cam(x, [lambda logits: logits[target]])[0]  # (H, W)
    finally:
        cam.activations_and_grads.release()
        model.zero_grad()
        model.train(training)
    return np.asarray(heat, dtype=np.float32)


def import_grad_cam() -> Any:
    """The package pytorch_grad_cam.

    Raises:
        UserError: with the command to run, if the package is missing or its OpenCV cannot be loaded.
    """
    try:
        import pytorch_grad_cam
    except ModuleNotFoundError as error:
        raise UserError(
            f'Grad-CAM needs {error.name}, which is not installed: pip install "seattn[explain]"'
        ) from error
    except ImportError as error:  # opencv-python needs libraries that a machine without a display does not have
        raise UserError(
            f"Grad-CAM's OpenCV cannot be loaded ({first_line(error)}): pip uninstall opencv-python, then "
            "pip install --force-reinstall opencv-python-headless"
        ) from error
    return pytorch_grad_cam


def _last_stage(model: nn.Module, modules: Mapping[str, nn.Module]) -> str | None:
    info = getattr(model, "feature_info", None)
    stages = getattr(info, "info", info) or []
    name = stages[-1].get("module") if stages else None
    return name if name in modules else None


def _last_map(model: nn.Module, shapes: Mapping[str, Shape]) -> str:
    """The last module that returns a map; a net that turns its maps into tokens is refused."""
    names = list(shapes)
    last = max((place for place, name in enumerate(names) if _is_map(shapes[name])), default=None)
    if last is None or any(len(shapes[name]) == 3 for name in names[last + 1 :]):
        raise UserError(f"{_kind(model)} has no feature map, only tokens: there is nothing to draw Grad-CAM on")
    return names[last]


@torch.no_grad()
def _shapes(model: nn.Module, x: torch.Tensor, modules: Mapping[str, nn.Module]) -> dict[str, Shape]:
    """The shape of each module's output for x, in order of use; modules that return no tensor are omitted."""

    def shape(name: str, inputs: Any, output: Any) -> Shape | None:
        return tuple(output.shape) if isinstance(output, torch.Tensor) else None

    with recorded(modules, shape) as shapes:
        model(x)
    return {name: size for name, size in shapes if size is not None}


def _channels_last(model: nn.Module, shape: Shape) -> bool:
    """Whether a map of this shape is (1, h, w, C), as those of Swin are."""
    return str(getattr(model, "output_fmt", "NCHW")) == "NHWC" and not (shape[2] == shape[3] != shape[1])


def _is_map(shape: Shape) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


def _kind(model: nn.Module) -> str:
    return str((getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__)
