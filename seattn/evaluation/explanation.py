"""Why a net says what it says of an image: where it looks (Grad-CAM) and what its attention layers let through.

Shapes: C channels, H x W pixels of the net's input, h x w of a layer's map.
"""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.data.images import read_image
from seattn.data.transforms import class_names, eval_transform, image_mode
from seattn.evaluation.cam import METHODS, class_map, find_layer, import_grad_cam
from seattn.evaluation.gates import LayerGates, collect_gates, collect_spatial_gates, gate_differences
from seattn.evaluation.prediction import Prediction, as_seen, predict_logits


@dataclass(frozen=True, eq=False)
class Explanation:
    """Of one image.

    Args:
        prediction: the five most probable classes.
        target: the class that `heat` speaks of, `probability` the net's for it.
        layer: whose map it is, of `map_size` (h, w).
        picture: (H, W, 3) uint8, as the net sees the image.
        heat: (H, W), 0 to 1; all 0 where nothing in the layer speaks for the class.
        gates: of each attention layer in order of use; spatial: CBAM's, (h, w) each, with their names.
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
    spatial: tuple[tuple[str, npt.NDArray[np.float32]], ...]

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
) -> list[Explanation]:
    """Explain image files of any size, by any net with a feature map; the model is left in the mode that it is in.

    Args:
        class_name: what to explain, a name or an index of the model's outputs; None is what it predicts for each image.
        layer: path of a module that gives a map; None is the last stage.
        method: "gradcam", "gradcam++", "hirescam" (Draelos and Carin, 2020) or "layercam" (Jiang et al., 2021).

    Raises:
        UserError: naming the file, class, layer or method that is not there; if the net has no map; or if the package
            grad-cam is missing.
    """
    if method not in METHODS:
        raise UserError(f"--method must be one of {', '.join(METHODS)}, got {method!r}")
    import_grad_cam()
    names = class_names(model)
    wanted = None if class_name is None else _class_index(class_name, names)
    mode, transform = image_mode(model), eval_transform(model)
    device = next(model.parameters()).device
    inputs = [transform(read_image(Path(path), mode))[None] for path in paths]  # (1, C, H, W) each
    training = model.training
    model.eval()
    try:
        found = []
        for path, x in zip(paths, inputs, strict=True):
            probabilities = predict_logits(model, [x]).softmax(1)[0]  # (K,)
            top = probabilities.topk(min(5, len(names)))
            index = int(top.indices[0]) if wanted is None else wanted
            where, size = find_layer(model, x.to(device), layer)
            heat = class_map(model, x.to(device), layer=where, target=index, method=method)
            labels = tuple(names[i] for i in top.indices.tolist())
            found.append(
                Explanation(
                    prediction=Prediction(
                        printable(path), labels, tuple(top.indices.tolist()), tuple(top.values.tolist())
                    ),
                    target=names[index],
                    probability=float(probabilities[index]),
                    method=method,
                    layer=where,
                    map_size=size,
                    picture=as_seen(model, x)[0],
                    heat=heat,
                    gates=tuple(collect_gates(model, x)),
                    spatial=tuple(collect_spatial_gates(model, x.to(device))),
                )
            )
        return found
    finally:
        model.train(training)


def to_dict(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """The numbers in plain values, as `seattn explain --json` prints them; gates by their mean and spread."""
    differences = gate_differences(
        [one.gates for one in explanations], [one.prediction.indices[0] for one in explanations]
    )
    return {
        "images": [
            {
                **one.prediction.to_dict(),
                "class": one.target,
                "probability": one.probability,
                "method": one.method,
                "layer": one.layer,
                "map_size": list(one.map_size),
                "input_size": list(one.heat.shape),
                "peak": None if one.peak is None else list(one.peak),
                "gates": [_statistics(layer.name, layer.gates) for layer in one.gates],
                "spatial_gates": [_statistics(name, gate) for name, gate in one.spatial],
            }
            for one in explanations
        ],
        "gate_differences": [asdict(row) for row in differences],
    }


def _statistics(name: str, values: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {
        "layer": name,
        "shape": list(values.shape),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _class_index(wanted: str, names: Sequence[str]) -> int:
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    near = difflib.get_close_matches(wanted, names, n=3)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(names[:3])} …, or 0 to {len(names) - 1}"
    )
    raise UserError(f"the model has no class {wanted!r}; {hint}")
