"""What a net costs by part: parameters, MACs, memory, passes over maps."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.evaluation.profile.costs import profile

__all__ = ["profile"]

__getattr__ = lazily(__name__, {"profile": "costs"})
