"""The reasons for a prediction: where the net looks (Grad-CAM), and which channels its attention layers let through.

Shapes: C channels, H x W pixels of the net's input, h x w of a layer's map.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from seattn.core.errors import UserError, did_you_mean
from seattn.core.files import printable
from seattn.core.progress import progress_bar
from seattn.data.images import read_image
from seattn.data.transforms import class_names, eval_transform, image_mode
from seattn.evaluation.cam import METHODS, class_map, find_layer, import_grad_cam
from seattn.evaluation.gates import LayerGates, collect_gates, collect_spatial_gates, gate_differences
from seattn.evaluation.prediction import Prediction, as_seen, most_probable, predict_scores


@dataclass(frozen=True, eq=False)
class Explanation:
    """The explanation of one image.

    Args:
        prediction: the five most probable classes.
        target: the class that `heat` explains; `probability` is the net's probability of that class.
        layer: the layer of the map; `map_size` is the map's (h, w).
        picture: (H, W, 3) uint8, the image as the net sees it.
        heat: (H, W), 0 to 1; 0 everywhere where nothing in the layer counts for the class.
        gates: the channel gates of each attention layer, in order of use.
        spatial: the spatial gates (h, w) of each CBAM layer, in order of use.
    """

    prediction: Prediction
    target: str
    probability: float
    method: str
    layer: str
    map_size: tuple[int, int]
    picture: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32]
    gates: tuple[LayerGates, ...]
    spatial: tuple[LayerGates, ...]

    @property
    def peak(self) -> tuple[int, int] | None:
        """Row and column of the hottest pixel of the net's input; None where the map is empty."""
        row, column = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return (int(row), int(column)) if self.heat.any() else None


def explain(
    model: nn.Module,
    paths: Sequence[str | Path],
    *,
    class_name: str | None = None,
    layer: str | None = None,
    method: str = "gradcam",
    unknown_below: float = 0.0,
    progress: bool = False,
) -> list[Explanation]:
    """Explain image files of any size, with any net that has a feature map.

    The model's train or eval mode is restored.

    Args:
        class_name: the class to explain, by name or by index of the model's outputs; None is the predicted class of
            each image.
        layer: path of a module that returns a map; None is the last stage.
        method: "gradcam", "gradcam++", "hirescam" (Draelos and Carin, 2020) or "layercam" (Jiang et al., 2021).
        unknown_below: the answer for an image is "unknown" if no class reaches this probability; the class that is
            explained stays the most probable one.
        progress: show a progress bar on stderr.

    Raises:
        UserError: if a file, class, layer or method does not exist, the net has no map, its outputs are not finite, or
            the package grad-cam is missing.
    """
    if method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {method!r}")
    import_grad_cam()
    names = class_names(model)
    target = None if class_name is None else _class_index(class_name, names)
    mode, transform, training = image_mode(model), eval_transform(model), model.training
    device = next(model.parameters()).device
    explanations = []
    model.eval()
    try:
        for path in progress_bar(paths, "explaining", shown=progress):
            x = transform(read_image(Path(path), mode))[None].to(device)  # (1, C, H, W)
            layer, map_size = find_layer(model, x, layer)
            probabilities = predict_scores(model, [x]).softmax(1)[0]  # (K,)
            prediction = most_probable(printable(path), probabilities, names, 5, unknown_below)
            index = prediction.indices[0] if target is None else target
            explanations.append(
                Explanation(
                    prediction=prediction,
                    target=names[index],
                    probability=float(probabilities[index]),
                    method=method,
                    layer=layer,
                    map_size=map_size,
                    picture=as_seen(model, x)[0],
                    heat=class_map(model, x, layer=layer, target=index, method=method),
                    gates=tuple(collect_gates(model, x)),
                    spatial=tuple(collect_spatial_gates(model, x)),
                )
            )
    finally:
        model.train(training)
    return explanations


def to_dict(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """The numbers as plain values, for `seattn explain --json`; gates are summarised by mean, spread and range."""
    differences = gate_differences(
        [explanation.gates for explanation in explanations],
        [explanation.prediction.indices[0] for explanation in explanations],
    )
    return {
        "images": [
            {
                **explanation.prediction.to_dict(),
                "class": explanation.target,
                "probability": explanation.probability,
                "method": explanation.method,
                "layer": explanation.layer,
                "map_size": list(explanation.map_size),
                "input_size": list(explanation.heat.shape),
                "peak": None if explanation.peak is None else list(explanation.peak),
                "gates": [_statistics(layer) for layer in explanation.gates],
                "spatial_gates": [_statistics(layer) for layer in explanation.spatial],
            }
            for explanation in explanations
        ],
        "gate_differences": [asdict(row) for row in differences],
    }


def _statistics(layer: LayerGates) -> dict[str, Any]:
    return {
        "layer": layer.name,
        "shape": list(layer.gates.shape),
        "mean": float(layer.gates.mean()),
        "std": float(layer.gates.std()),
        "min": float(layer.gates.min()),
        "max": float(layer.gates.max()),
    }


def _class_index(name: str, names: Sequence[str]) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    hint = did_you_mean(name, names)
    raise UserError(f"the model has no class {name!r} (a name, or an index from 0 to {len(names) - 1}); {hint}")
