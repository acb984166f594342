"""Attention modules of timm and torchvision whose `forward` is one op, on the module's own parameters."""

from typing import Any

from timm.layers import EcaModule, EffectiveSEModule, SEModule
from timm.models import senet
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor
from torchvision.ops import SqueezeExcitation

from seattn.blocks.excitation import LABELS, Reason, add_reader, excitation_of
from seattn.blocks.fused.base import Fused, fused, plain_class
from seattn.layers._skip import may_skip
from seattn.ops._kernel import is_cpu_inference
from seattn.ops._tail.run import run


class _Attention(Fused):
    """x * gate(excite(mean(x)))."""

    def _run_fused(self: Any, x: Tensor) -> Tensor:
        # In inference on a CPU nothing can be saved, and code that no other layer runs finds the caches cold.
        if is_cpu_inference(x):
            return self._plain(x)  # type: ignore[no-any-return]
        e = excitation_of(self)
        if isinstance(e, Reason) or not may_skip(*self._modules.values()):  # changed since it was accelerated
            return self._plain(x)  # type: ignore[no-any-return]
        return run(x, None, e, None, "identity")

    @staticmethod
    def _why_not(module: Any) -> Reason | None:
        e = excitation_of(module)
        return e if isinstance(e, Reason) else None

    @staticmethod
    def _label(module: Any) -> str:
        e = excitation_of(module)
        assert not isinstance(e, Reason)
        watched = "" if may_skip(*module._modules.values()) else "; plain while hooks watch its parts"
        return LABELS[e.kind] + watched


@fused(SEModule)
class FusedSEModule(_Attention, SEModule):
    """timm's SE: ResNets, RegNets, ..."""


@fused(EffectiveSEModule)
class FusedEffectiveSEModule(_Attention, EffectiveSEModule):
    """timm's effective SE: VoVNets."""


@fused(EcaModule)
class FusedEcaModule(_Attention, EcaModule):
    """timm's ECA."""


@fused(SqueezeExcite)
class FusedSqueezeExcite(_Attention, SqueezeExcite):
    """timm's SE of EfficientNets and MobileNets."""


@fused(senet.SEModule)
class FusedLegacySEModule(_Attention, senet.SEModule):
    """timm's SE of the legacy SENets."""


@fused(SqueezeExcitation)
class FusedSqueezeExcitation(_Attention, SqueezeExcitation):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's SE."""


for _kind in (
    FusedSEModule,
    FusedEffectiveSEModule,
    FusedEcaModule,
    FusedSqueezeExcite,
    FusedLegacySEModule,
    FusedSqueezeExcitation,
):
    _plain_kind = plain_class(_kind)
    assert _plain_kind is not None
    add_reader(_kind, like=_plain_kind)  # a block's tail may meet one
