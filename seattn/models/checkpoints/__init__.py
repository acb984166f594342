"""Files of weights: ours, timm's and those of other code, read, recognised and converted."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.models.checkpoints.foreign import load_foreign

__all__ = ["load_foreign"]

__getattr__ = lazily(__name__, {"load_foreign": "foreign"})
