"""A recipe and images become a run: weights, scores, one row."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.training.driver import train
    from seattn.training.finetuning import finetune

__all__ = ["finetune", "train"]

__getattr__ = lazily(__name__, {"finetune": "finetuning", "train": "driver"})
