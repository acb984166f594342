"""What an exported file says about its net: the name, how an image becomes an input, and the names of the classes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from seattn.core.errors import UserError
from seattn.core.records import explain
from seattn.data.transforms import PREPROCESSING, class_names, data_config
from seattn.models.checkpoints.config import MOST_CLASSES, Channels, Label, Mean, Side, Std, Temperature
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


class _Preprocessing(BaseModel):
    """The preprocessing as JSON has it."""

    input_size: tuple[Channels, Side, Side]
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    mean: tuple[Mean, ...]
    std: tuple[Std, ...]
    crop_pct: Annotated[float, Field(ge=0.01, le=10)]
    crop_mode: Literal["center", "squash", "border"]

    @model_validator(mode="after")
    def _fits(self) -> "_Preprocessing":
        if {len(self.mean), len(self.std)} - {1, self.input_size[0]}:
            raise ValueError(f"mean and std must have a number for each of {self.input_size[0]} channels")
        return self


class _File(BaseModel):
    """The fields of `Metadata` as JSON has them."""

    model_config = ConfigDict(protected_namespaces=())  # pydantic keeps names with model_ for itself
    model: str
    preprocessing: _Preprocessing
    class_names: Annotated[list[Label], Field(min_length=1, max_length=MOST_CLASSES)]
    temperature: Temperature = 1.0
    largest_batch: Annotated[int, Field(ge=1)] | None = None


def parse(text: str, path: Path) -> Metadata:
    """The metadata in the JSON text that `path` holds.

    Raises:
        UserError: if the text is not JSON, or naming a field that is missing, of a wrong type or out of bounds.
    """
    try:
        content = _File.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"the metadata in {path} are damaged ({explain(_File, error)}); export the net again"
        ) from error
    fields = content.model_dump()
    return Metadata(**{**fields, "class_names": tuple(content.class_names)})
