"""config.json of a folder of a net: its values have bounds, which every image classifier is within."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from seattn.core.errors import UserError
from seattn.core.files import is_one_line
from seattn.core.records import explain, read_json

MOST_CLASSES = 100_000
_LARGEST_ARG = 10_000  # a depth of a billion would be built, even on "meta"


def _check_args(args: dict[str, Any]) -> dict[str, Any]:
    for key, value in args.items():
        limit = MOST_CLASSES if key == "num_classes" else _LARGEST_ARG
        if not _is_small(value, limit):
            raise ValueError(f"model_args has a number above {limit:,} in {key}, which no net needs; is it damaged?")
    if args.get("global_pool") == "":
        raise ValueError('model_args has global_pool: "", with which a net gives no score of a class for an image')
    return args


def _is_small(value: object, limit: int = _LARGEST_ARG) -> bool:
    if isinstance(value, dict):
        return all(map(_is_small, value.values()))
    if isinstance(value, list):
        return all(map(_is_small, value))
    return not isinstance(value, int | float) or abs(value) <= limit


def _check_label(name: str) -> str:
    if not name or not is_one_line(name):
        raise ValueError(f"label_names must be names that are each on one line; got {name[:60]!r}")
    return name


Classes = Annotated[int, Field(ge=0, le=MOST_CLASSES)]
Label = Annotated[str, AfterValidator(_check_label)]
Channels = Annotated[int, Field(ge=1, le=4096)]
Side = Annotated[int, Field(ge=1, le=4096)]
Crop = Annotated[float, Field(gt=0, le=10)]
Mean = Annotated[float, Field(allow_inf_nan=False)]
Std = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]  # the bounds of `seattn calibrate`


class _Preprocessing(BaseModel):
    """The fields of `pretrained_cfg` that are checked; in old files they are beside `architecture`."""

    model_config = ConfigDict(strict=True, extra="allow")
    num_classes: Classes | None = None
    label_names: list[Label] | dict[str, Label] | None = None
    input_size: tuple[Channels, Side, Side] | None = None
    test_input_size: tuple[Channels, Side, Side] | None = None
    mean: tuple[Mean, ...] | None = None
    std: tuple[Std, ...] | None = None
    crop_pct: Crop | None = None
    test_crop_pct: Crop | None = None


class _Config(_Preprocessing):
    model_config = ConfigDict(protected_namespaces=())  # pydantic keeps names with model_ for itself
    architecture: str
    temperature: Temperature | None = None
    num_features: Annotated[int, Field(ge=1)] | None = None
    model_args: Annotated[dict[str, Any], AfterValidator(_check_args)] = {}
    pretrained_cfg: _Preprocessing = _Preprocessing()


def read_config(path: Path) -> dict[str, Any]:
    """The content of a config.json, which may have other keys, too.

    Raises:
        UserError: if the file cannot be read, or naming a value that is missing, of a wrong type or out of bounds.
    """
    content = read_json(path)
    try:
        _Config.model_validate_json(json.dumps(content))  # in JSON a list fits a tuple
    except ValidationError as error:
        raise UserError(f"{path}: {explain(_Config, error)}") from error
    return content
