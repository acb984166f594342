"""The classes of modules that belong to a fold; if the fold cannot be used, a module computes as its plain class.

Parameters, buffers and names stay, so the state dict has the weights as they were before folding.
"""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from timm.layers import BatchNormAct2d, activations
from torch import Tensor, fx, jit, nn

from seattn.blocks.folded.fold import BIAS, WEIGHT, Fold
from seattn.blocks.folded.plan import PLAN
from seattn.blocks.fused.base import renamed

Class = TypeVar("Class", bound=type["Folded"])

_FOLD = "_seattn_fold"  # the attribute of a module that holds its fold
FOLDED: dict[type[nn.Module], type["Folded"]] = {}  # the class that modules of exactly this type get


class Folded:
    """A module of a fold. A subclass also inherits from the plain class, whose `forward` is `_plain`."""

    _kind: type[nn.Module]  # the plain class
    _plain: Any

    def forward(self, x: Tensor) -> Tensor:
        if jit.is_scripting():
            return self._plain(x)
        else:  # TorchScript does not compile this branch
            return _forward(self, x)

    def _folded(self, fold: Fold, x: Tensor) -> Tensor:
        return x  # the convolution has already computed this module's step


def _folds(plain: type[nn.Module]) -> Callable[[Class], Class]:
    """Class decorator: modules of exactly the type `plain` get this class where they are folded."""

    def register(cls: Class) -> Class:
        cls._kind, cls._plain = plain, renamed(plain.forward)
        FOLDED[plain] = cls
        return cls

    return register


def _forward(module: Any, x: Any) -> Any:
    fold: Fold | None = module.__dict__.get(_FOLD)
    if isinstance(x, fx.Proxy):  # one node of the graph: whether the fold is usable is decided when the graph runs
        tracer: Any = x.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(module), (x,), {})
    if fold is None or x.dim() != 4 or not fold.usable():  # a norm refuses other inputs
        return module._plain(x)
    return module._folded(fold, x)


class _HasWeights(Folded):
    """A module from whose parameters the folded weight is computed."""

    def _load_from_state_dict(self: Any, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[misc]
        if (fold := fold_of(self)) is not None:
            fold.refresh()

    def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (fold := fold_of(self)) is not None:
            fold.forget()
        return super()._apply(*args, **kwargs)  # type: ignore[misc]


@_folds(nn.Conv2d)
class FoldedConv2d(_HasWeights, nn.Conv2d):
    """Computes convolution, norm and activation."""

    def train(self, mode: bool = True) -> "FoldedConv2d":
        if mode and not self.training:
            warnings.warn(
                "this net's batch norms are folded for inference: while it is in training mode they run as usual; "
                "seattn.restore(model) takes the folds out",
                stacklevel=2,
            )
        return super().train(mode)

    def _folded(self, fold: Fold, x: Tensor) -> Tensor:
        return fold(x)


@_folds(nn.BatchNorm2d)
class FoldedBatchNorm2d(_HasWeights, nn.BatchNorm2d):
    """Returns its input."""


@_folds(BatchNormAct2d)
class FoldedBatchNormAct2d(_HasWeights, BatchNormAct2d):
    """Returns its input; computes its own activation only if the convolution did not."""

    def _folded(self, fold: Fold, x: Tensor) -> Tensor:
        if fold.act_name == "identity":
            x = self.act(self.drop(x))
        return x


@_folds(nn.ReLU)
class FoldedReLU(Folded, nn.ReLU):
    """Returns its input."""


@_folds(nn.ReLU6)
class FoldedReLU6(Folded, nn.ReLU6):
    """Returns its input."""


@_folds(nn.SiLU)
class FoldedSiLU(Folded, nn.SiLU):
    """Returns its input."""


@_folds(nn.GELU)
class FoldedGELU(Folded, nn.GELU):
    """Returns its input."""


@_folds(activations.GELU)
class FoldedTimmGELU(Folded, activations.GELU):
    """Returns its input."""


@_folds(nn.Hardswish)
class FoldedHardswish(Folded, nn.Hardswish):
    """Returns its input."""


def put_in(fold: Fold) -> None:
    """Give the modules of the fold their new classes."""
    for _, _, module in fold.places:
        if type(module) in FOLDED:  # the parts inside of a norm with activation keep their class
            module.__dict__[_FOLD] = fold
            module.__class__ = FOLDED[type(module)]


def take_out(module: nn.Module) -> None:
    """Give the module its own class back if it belongs to a fold, and forget a block's plan."""
    module.__dict__.pop(PLAN, None)
    if isinstance(module, Folded):
        module.__dict__.pop(_FOLD, None)
        if _is_registered(module):  # a parametrisation may have given it another class since, which stays
            module.__class__ = module._kind  # type: ignore[assignment]
        for name in (WEIGHT, BIAS):
            module._buffers.pop(name, None)
            module._non_persistent_buffers_set.discard(name)


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The class of the module, or the plain class if the module belongs to a fold."""
    return module._kind if isinstance(module, Folded) and _is_registered(module) else type(module)


def _is_registered(module: Any) -> bool:
    return type(module) in FOLDED.values()


def fold_of(module: nn.Module | None) -> Fold | None:
    """The fold that the module belongs to, or None."""
    return None if module is None else module.__dict__.get(_FOLD)
