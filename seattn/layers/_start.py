"""A start at the identity: gates that are exactly 1 and can learn.

2 * sigmoid is 1 at a logit of 0, where its slope is greatest; a plain sigmoid reaches 1 only where it is saturated.
"""


def require_two_sigmoid(gate: str) -> None:
    """Raise ValueError unless zero logits make this gate 1."""
    if gate != "two_sigmoid":
        raise ValueError(f"a start at the identity needs gate='two_sigmoid' (1 at zero, able to learn); got {gate!r}")
