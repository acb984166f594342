"""Training: a recipe and a data folder give a run, which has weights, scores and one row of results."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.training.driver import train
    from seattn.training.finetuning import finetune
    from seattn.training.pretraining import pretrain

__all__ = ["finetune", "pretrain", "train"]

__getattr__ = lazily(__name__, {"finetune": "finetuning", "pretrain": "pretraining", "train": "driver"})
