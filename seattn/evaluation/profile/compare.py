"""A named model beside its plain twin: what attention costs, in percent."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, split_model_name_tag
from torch import nn

from seattn.core.errors import UserError, first_line
from seattn.evaluation.profile.costs import Profile, Stage, profile
from seattn.models._family import split_attn
from seattn.models.listing import check_name

NO_TWIN = "none"
COMPARED = ("parameters", "macs", "activation_bytes", "bytes_moved")
_ATTENTION_OPTIONS = ("rd_ratio", "rd_divisor", "attn_stages", "attn_placement", "gate")  # a plain net refuses them

InputSize = tuple[int, int, int]


@dataclass(frozen=True)
class Named:
    """A model's name, the options it was built with, and its profile."""

    name: str
    options: dict[str, Any]
    profile: Profile

    def stages(self) -> dict[str, Stage]:
        """The parts by name, and the total."""
        return {stage.name: stage for stage in (*self.profile.stages, self.profile.total)}

    def to_dict(self) -> dict[str, Any]:
        """The name, the options and the profile as plain values, for JSON."""
        return {"model": self.name, "model_kwargs": self.options, **self.profile.to_dict()}


@dataclass(frozen=True)
class Comparison:
    """A model, and the model that it is compared with, if there is one."""

    model: Named
    against: Named | None

    def percent(self) -> dict[str, dict[str, float | None]]:
        """How much more the model has than the other, for each of `COMPARED`, in percent, by part and in total.

        Only parts of both nets are compared; a value is None where the other net has 0.
        """
        if self.against is None:
            return {}
        others = self.against.stages()
        return {name: _percent(stage, others[name]) for name, stage in self.model.stages().items() if name in others}

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain values, for JSON."""
        if self.against is None:
            return {**self.model.to_dict(), "against": None}
        return {**self.model.to_dict(), "against": self.against.to_dict(), "percent": self.percent()}


def _percent(stage: Stage, other: Stage) -> dict[str, float | None]:
    def more(field: str) -> float | None:
        own, base = getattr(stage, field), getattr(other, field)
        return 100 * (own / base - 1) if base else None

    return {field: more(field) for field in COMPARED}


def compare(
    spec: str, *, against: str | None = None, input_size: InputSize | None = None, options: Mapping[str, Any]
) -> Comparison:
    """Profile the model `spec` and the model that it is compared with, on images of one size.

    Args:
        spec: `arch` or `arch.tag` of any model of timm's registry.
        against: another one, "none", or None for the plain twin of a se_, eca_ or cbam_ net.
        input_size: (channels, height, width); by default that of the model.
        options: keyword arguments of the model; a twin gets those that are not about attention.

    Raises:
        UserError: if a name is unknown, an option is wrong, or the size does not suit a model.
    """
    other = twin(spec) if against is None else None if against == NO_TWIN else against
    check_name(spec)
    if other is not None:
        check_name(other)
    model = _profile(spec, input_size, dict(options))
    if other is None:
        return Comparison(model, None)
    plain = {} if against else {key: value for key, value in options.items() if key not in _ATTENTION_OPTIONS}
    return Comparison(model, _profile(other, model.profile.input_size, plain))


def twin(spec: str) -> str | None:
    """The plain net of a name with attention, with its tag if it has that tag; None if there is no plain net."""
    arch, tag = split_model_name_tag(spec)
    attention, plain = split_attn(arch)
    if attention is None or not timm.is_model(plain):
        return None
    return f"{plain}.{tag}" if tag and f"{plain}.{tag}" in get_arch_pretrained_cfgs(plain) else plain


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options from pairs `key=value`; a value is a Python literal or else a string, as in timm's `--model-kwargs`.

    Raises:
        UserError: if a text is not such a pair.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"unexpected {pair!r}; options of the model are key=value after --model-kwargs")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def _profile(name: str, input_size: InputSize | None, options: dict[str, Any]) -> Named:
    cfg = get_pretrained_cfg(name)
    if input_size is not None and cfg is not None and cfg.input_size[0] != input_size[0]:
        options = {"in_chans": input_size[0], **options}
    try:
        model = _create(name, options)
    except Exception as error:  # a net may refuse options with any error
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise UserError(f"{name} cannot be built with {given}: {first_line(error)}") from error
    try:
        return Named(name, options, profile(model, input_size))
    except Exception as error:  # and also images that are too small for it
        size = "its own size" if input_size is None else f"size {'x'.join(map(str, input_size))}"
        raise UserError(f"{name} cannot be run on images of {size}: {first_line(error)}") from error


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):  # the weights are not read
            model: nn.Module = timm.create_model(name, **options)
    except (NotImplementedError, RuntimeError):  # some nets compute with weights while they are built
        model = timm.create_model(name, **options)
    return model
