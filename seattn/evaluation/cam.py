"""Where a net looks for a class: Grad-CAM and its kin, by the package grad-cam.

Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391. Shapes: C channels, h x w the layer's map, H x W pixels.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seattn.core.errors import UserError, first_line

METHODS = ("gradcam", "gradcam++", "hirescam", "layercam")
_CLASSES = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "hirescam": "HiResCAM", "layercam": "LayerCAM"}


def find_layer(model: nn.Module, x: torch.Tensor, name: str | None = None) -> tuple[str, tuple[int, int]]:
    """The layer whose map is explained, and the map's size (h, w) for the input x (1, C, H, W).

    Without a name it is the last stage as timm's feature_info says, else the last module that gives a map.

    Raises:
        UserError: if there is no such layer, or it gives no map.
    """
    modules = dict(model.named_modules())
    if name is None:
        wanted = _last_stage(model, modules)
        shapes = _shapes(model, x, modules if wanted is None else {wanted: modules[wanted]})
        if wanted is None:
            wanted = next(reversed([key for key, shape in shapes.items() if _is_map(shape)]), None)
            later = list(shapes.values())[list(shapes).index(wanted) + 1 :] if wanted is not None else []
            if wanted is None or any(len(shape) == 3 for shape in later):  # patches became tokens
                raise UserError(f"{_kind(model)} has no feature map, only tokens: there is nothing to draw Grad-CAM on")
        name = wanted
        if not _is_map(shapes.get(name, ())):
            raise UserError(
                f"{_kind(model)}'s last stage {name} gives {_words(shapes.get(name))}, not a feature map: Grad-CAM "
                "needs a convolutional net, or a --layer that gives one"
            )
        return name, _map_size(model, shapes[name])
    if name not in modules or not name:
        near = difflib.get_close_matches(name, modules, n=3) or [key for key in modules if key][-3:]
        raise UserError(f"{_kind(model)} has no layer {name!r}; it has {', '.join(near)} …")
    shape = _shapes(model, x, {name: modules[name]}).get(name)
    if shape is None or not _is_map(shape):
        raise UserError(f"--layer {name} gives {_words(shape)}, not a feature map (images, channels, height, width)")
    return name, _map_size(model, shape)


def class_map(model: nn.Module, x: torch.Tensor, *, layer: str, target: int, method: str) -> npt.NDArray[np.float32]:
    """(H, W), 0 to 1, brought smoothly from the layer's map to the size of x (1, C, H, W); all 0 where nothing speaks.

    Args:
        layer: of `find_layer`.
        target: the class, an index into the model's outputs.
        method: one of METHODS.

    Raises:
        UserError: if the method is unknown, or the package grad-cam is not there or cannot be loaded.
    """
    if method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {method!r}")
    package = import_grad_cam()
    module = dict(model.named_modules())[layer]
    training = model.training
    # A copy of what the hook sees: a ReLU in place would write into it. The input's gradient keeps frozen nets going.
    cam = getattr(package, _CLASSES[method])(model, [module], reshape_transform=_as_channels_first(model))
    cam.compute_input_gradient = True
    try:
        with torch.enable_grad():
            found = cam(x, [_Output(target)])[0]  # (H, W)
    finally:
        cam.activations_and_grads.release()
        model.zero_grad()
        model.train(training)
    heat: npt.NDArray[np.float32] = np.asarray(found, dtype=np.float32)
    return heat


def import_grad_cam() -> Any:
    """The package.

    Raises:
        UserError: saying what to install, if it is missing or its OpenCV needs libraries that this machine has not.
    """
    try:
        import pytorch_grad_cam
    except ModuleNotFoundError as error:
        raise UserError(
            f'Grad-CAM needs {error.name}, which is not installed: pip install "seattn[explain]"'
        ) from error
    except ImportError as error:  # opencv-python on a machine without a display
        raise UserError(
            f"Grad-CAM's OpenCV cannot be loaded ({first_line(error)}): pip uninstall opencv-python, then "
            "pip install --force-reinstall opencv-python-headless"
        ) from error
    return pytorch_grad_cam


class _Output:
    """The logit that is explained."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[self.index]


def _as_channels_first(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def copy(map_: torch.Tensor) -> torch.Tensor:  # (1, C, h, w)
        return (map_.permute(0, 3, 1, 2) if _channels_last(model, tuple(map_.shape)) else map_).clone()

    return copy


def _channels_last(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a map of this shape is (1, h, w, C), as Swin's are."""
    return str(getattr(model, "output_fmt", "NCHW")) == "NHWC" and not (shape[2] == shape[3] != shape[1])


def _map_size(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[1], shape[2]) if _channels_last(model, shape) else (shape[2], shape[3])


def _last_stage(model: nn.Module, modules: Mapping[str, nn.Module]) -> str | None:
    info = getattr(model, "feature_info", None)
    stages = getattr(info, "info", info) or []
    name = stages[-1].get("module") if stages else None
    return name if name in modules else None


@torch.no_grad()
def _shapes(model: nn.Module, x: torch.Tensor, modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """What each module gives for x, in order of use."""
    found: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                found[name] = tuple(output.shape)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] * shape[3] > 1


def _words(shape: tuple[int, ...] | None) -> str:
    return "no tensor" if not shape else f"a tensor of {' x '.join(map(str, shape))}"


def _kind(model: nn.Module) -> str:
    return str((getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__)
