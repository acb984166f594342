"""The answers of the app: classes, Grad-CAM and gates for one image, classes for many; `page.py` shows them.

Shapes: H x W pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from seattn.core.errors import UserError
from seattn.core.files import printable
from seattn.data.images import read_image
from seattn.data.transforms import class_names, data_config, eval_transform, image_mode
from seattn.deploy.app.uploads import Upload
from seattn.evaluation.explanation import explain
from seattn.evaluation.figures import Pixels, enlarged, gates_plot, overlay
from seattn.evaluation.gates import collect_gates
from seattn.evaluation.prediction import Prediction, Unreadable, as_seen, predict, predict_each
from seattn.evaluation.style import Plot
from seattn.models import models_with_weights
from seattn.models._pretrained import weight_source
from seattn.models.listing import check_name
from seattn.models.load import load_model, model_temperature

NO_GATES = "This net has no attention layer that is known here, so there are no gates."
_FIGURE_WIDTH = 5.0  # inches: the names of the layers can be read on a phone too


@dataclass(frozen=True)
class Description:
    """The facts about a net; `size` is the (H, W) of its input."""

    parameters: int
    size: tuple[int, int]
    classes: tuple[str, ...]
    temperature: float


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one image.

    Args:
        prediction: the five most probable classes.
        picture: the image as the net sees it.
        heat: the image in grey under the map of Grad-CAM for the most probable class; None if it cannot be drawn.
        gates: the channel gates by depth; None for a net without attention.
        notes: why there is no map or there are no gates.
    """

    prediction: Prediction
    picture: Pixels
    heat: Pixels | None
    gates: Plot | None
    notes: tuple[str, ...]


def choices(first: str) -> dict[str, str]:
    """The nets to choose from: `first`, which `load_model` takes, then the other weights that this package holds.

    The result maps each name to what `load_model` takes, which is the name itself.

    Raises:
        UserError: if `first` has an architecture that is known and a tag that is not.
    """
    names = [name for name in models_with_weights() if "file" in weight_source(name)]
    if timm.is_model(first):
        check_name(first)
        cfg = get_pretrained_cfg(first)
        same = f"{first}.{cfg.tag}" if cfg is not None else first
        names = [name for name in names if name != same]
    return {first: first, **{name: name for name in names if name != first}}


class Classifier:
    """Nets by name, each loaded at its first use and then kept; threads may share the object.

    Args:
        models: name -> what `load_model` takes.
        device: where to compute.
    """

    def __init__(self, models: Mapping[str, str], *, device: str = "cpu") -> None:
        self.names = tuple(models)
        self._models, self._device = dict(models), device
        self._nets: dict[str, nn.Module] = {}
        self._lock = Lock()  # a map is drawn by hooks, which must not see another thread's image

    def load(self, name: str) -> nn.Module:
        """The net called `name`.

        Raises:
            UserError: if there is no such net, or it cannot be loaded.
        """
        if name not in self._models:
            raise UserError(f"there are no weights {name!r} here; there are {', '.join(self.names)}")
        with self._lock:
            if name not in self._nets:
                self._nets[name] = load_model(self._models[name], device=self._device)
            return self._nets[name]

    def describe(self, name: str) -> Description:
        """The facts about the net called `name`."""
        net = self.load(name)
        _, height, width = data_config(net)["input_size"]
        count = sum(parameter.numel() for parameter in net.parameters())
        return Description(count, (height, width), class_names(net), model_temperature(net))

    def answer(self, name: str, upload: Upload, unknown_below: float) -> Answer:
        """The answer of the net called `name` to one image, as `predict` gives it, with its reasons.

        Raises:
            UserError: if the image cannot be read, or the net cannot be loaded or has broken weights.
        """
        net = self.load(name)
        try:
            with self._lock:
                prediction = predict(net, [upload.path], unknown_below=unknown_below)[0]
                answer = _explained(net, upload.path, prediction)
        except UserError as error:
            raise UserError(_renamed(str(error), upload)) from error
        return replace(answer, prediction=replace(prediction, image=upload.name))

    def answer_each(
        self, name: str, uploads: Sequence[Upload], unknown_below: float
    ) -> Iterator[Prediction | Unreadable]:
        """The five most probable classes of each image, in order, batch by batch; or why it cannot be read.

        Raises:
            UserError: if the net cannot be loaded or has broken weights.
        """
        paths = [upload.path for upload in uploads]
        results = predict_each(self.load(name), paths, unknown_below=unknown_below)
        for upload in uploads:
            with self._lock:
                result = next(results)
            if isinstance(result, Unreadable):
                yield Unreadable(upload.name, _renamed(result.reason, upload))
            else:
                yield replace(result, image=upload.name)


def _explained(net: nn.Module, path: Path, prediction: Prediction) -> Answer:
    notes = []
    try:
        explanation = explain(net, [path])[0]
        picture, gates = explanation.picture, explanation.gates
        heat = overlay(picture, explanation.heat)
        if explanation.peak is None:
            notes.append(
                f"The map is empty: no position of {explanation.layer} raises the score of {explanation.target}."
            )
    except UserError as error:  # grad-cam is not installed, or the net has no map: the gates need neither
        notes.append(f"No map of where the net looks: {error}.")
        x = eval_transform(net)(read_image(path, image_mode(net)))[None]  # (1, C, H, W)
        picture, heat, gates = as_seen(net, x)[0], None, tuple(collect_gates(net, x))
    if not gates:
        notes.append(NO_GATES)
    plot = gates_plot([(prediction.answer, gates)], width=_FIGURE_WIDTH) if gates else None
    return Answer(prediction, enlarged(picture), heat, plot, tuple(notes))


def _renamed(message: str, upload: Upload) -> str:
    """`message` with the name that the user gave the file in place of its path here."""
    return message.replace(printable(upload.path), upload.name)
