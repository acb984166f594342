"""A repository on the Hugging Face Hub: its files, its card, publishing and checking it."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.hub.publishing import publish, pull
    from seattn.hub.staging import stage
    from seattn.hub.verification import verify

__all__ = ["publish", "pull", "stage", "verify"]

__getattr__ = lazily(
    __name__, {"publish": "publishing", "pull": "publishing", "stage": "staging", "verify": "verification"}
)
