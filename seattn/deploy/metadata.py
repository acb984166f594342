"""What an exported file says about its net: the name, how an image becomes an input, and the names of the classes."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from seattn.core.errors import UserError, first_line
from seattn.data.transforms import PREPROCESSING, class_names, data_config
from seattn.models.load import model_temperature

KEY = "seattn"  # the key of the JSON text in the metadata of ONNX and OpenVINO
INPUT = "images"  # the name of the input in ONNX and OpenVINO


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported net.

    Args:
        preprocessing: timm's data config: input_size (C, H, W), interpolation, mean, std, crop_pct and crop_mode.
        class_names: the names of the K outputs.
        temperature: the number by which logits are divided before the softmax; 1 for a net that was not calibrated.
        largest_batch: the largest number of images that the file takes at a time; None is any number.
    """

    model: str
    preprocessing: Mapping[str, Any]
    class_names: tuple[str, ...]
    temperature: float = 1.0
    largest_batch: int | None = None

    def to_json(self) -> str:
        """The fields as one JSON object."""
        return json.dumps(asdict(self))


def metadata_file(path: Path) -> Path:
    """The JSON file with the metadata of `path`, for formats that cannot hold metadata."""
    return Path(f"{path}.json")


def describe(net: nn.Module, name: str) -> Metadata:
    """The metadata of `net`."""
    config = data_config(net)
    preprocessing = {key: config[key] for key in PREPROCESSING}
    return Metadata(name, preprocessing, class_names(net), model_temperature(net))


def parse(text: str, path: Path) -> Metadata:
    """The metadata in the JSON text that `path` holds.

    Raises:
        UserError: if the text is not JSON, or a field is missing or has a value of the wrong type.
    """
    try:
        content = json.loads(text)
        preprocessing = {key: content["preprocessing"][key] for key in PREPROCESSING}
        for key in ("input_size", "mean", "std"):
            preprocessing[key] = tuple(preprocessing[key])
        channels, height, width = map(int, preprocessing["input_size"])
        if min(channels, height, width) < 1 or not content["class_names"]:
            raise ValueError("an image or the list of classes is empty")
        temperature = float(content.get("temperature", 1.0))
        if not 0 < temperature < math.inf:
            raise ValueError(f"the temperature is {temperature}")
        largest = content.get("largest_batch")
        if largest is not None and (not isinstance(largest, int) or largest < 1):
            raise ValueError(f"the largest batch is {largest!r}")
        names = tuple(map(str, content["class_names"]))
        return Metadata(str(content["model"]), preprocessing, names, temperature, largest)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the metadata in {path} are damaged ({first_line(error)}); export the net again") from error
