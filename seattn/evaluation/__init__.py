"""The scores, predictions, gates, explanations and costs of a net, and statistics of them."""

from typing import TYPE_CHECKING

from seattn.core.lazy import lazily

if TYPE_CHECKING:
    from seattn.evaluation.explanation import explain
    from seattn.evaluation.prediction import predict
    from seattn.evaluation.scoring import evaluate

__all__ = ["evaluate", "explain", "predict"]

__getattr__ = lazily(__name__, {"evaluate": "scoring", "explain": "explanation", "predict": "prediction"})
