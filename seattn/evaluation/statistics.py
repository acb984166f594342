"""What differs between two classifiers on the same images, and which classes are taken for each other.

Shapes: N images, K classes, R and S runs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from seattn.evaluation.scoring import FloatArray

_DRAWS = 10_000


@dataclass(frozen=True)
class ImageDifference:
    """`after` minus `before`, shares of N images that are right, with a 95 % interval.

    Where both are single runs, `gained` and `lost` count the images that changed, `p` is McNemar's exact one, and the
    interval is the exact one of the same law: it contains 0 where p is above 0.05. Elsewhere a bootstrap over images.
    """

    n: int
    before: float
    after: float
    low: float
    high: float
    gained: int | None = None
    lost: int | None = None
    p: float | None = None

    @property
    def change(self) -> float:
        """After minus before."""
        return self.after - self.before


@dataclass(frozen=True)
class Pair:
    """Two classes by index, `first` < `second`, and how often each is taken for the other."""

    first: int
    second: int
    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Both directions."""
        return self.forward + self.backward


def paired_difference(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> ImageDifference:
    """R runs before and S after on N images: before (R, N), after (S, N) say which are right.

    Raises:
        ValueError: if they are not of the same images, or of none.
    """
    n = before.shape[1]
    if after.shape[1] != n or n == 0:
        raise ValueError(f"before and after must be of the same images, at least one, got {n} and {after.shape[1]}")
    steps = after.mean(0) - before.mean(0)  # (N,)
    means = float(before.mean()), float(after.mean())
    if len(before) > 1 or len(after) > 1:
        return ImageDifference(n, *means, *_bootstrap(steps))
    gained, lost = int((steps > 0).sum()), int((steps < 0).sum())
    return ImageDifference(n, *means, *_exact_interval(gained, lost, n), gained, lost, mcnemar(gained, lost))


def _bootstrap(steps: FloatArray) -> tuple[float, float]:
    """Of the mean of (N,): the images are drawn again. Steps take few values, so a draw is one of a multinomial law."""
    values, counts = np.unique(steps, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(steps), counts / len(steps), size=_DRAWS) @ values / len(steps)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _exact_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Of those that changed, the share that gained has Clopper and Pearson's interval."""
    changed = gained + lost
    if not changed:
        return 0.0, 0.0
    share = binomtest(gained, changed).proportion_ci(method="exact")
    return changed * (2 * float(share.low) - 1) / n, changed * (2 * float(share.high) - 1) / n


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: of the images that changed, half would have gained by chance."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def confused_pairs(confusion: npt.NDArray[np.floating]) -> list[Pair]:
    """All pairs that are ever confused in counts (K, K) by [true][predicted], the most frequent first."""
    k = len(confusion)
    pairs = [
        Pair(first, second, float(confusion[first, second]), float(confusion[second, first]))
        for first in range(k)
        for second in range(first + 1, k)
    ]
    return sorted((pair for pair in pairs if pair.total), key=lambda pair: -pair.total)


def changed_pairs(before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]) -> list[tuple[Pair, Pair]]:
    """Every pair whose total differs, (before, after), the largest change first."""
    k = len(before)
    found = []
    for first in range(k):
        for second in range(first + 1, k):
            pair = [
                Pair(first, second, float(one[first, second]), float(one[second, first])) for one in (before, after)
            ]
            if pair[0].total != pair[1].total:
                found.append((pair[0], pair[1]))
    return sorted(found, key=lambda both: -abs(both[1].total - both[0].total))


def hardest_class(confusion: npt.NDArray[np.floating]) -> int:
    """The class of the lowest recall in counts (K, K), among those that have images."""
    support = confusion.sum(1)
    recall = np.where(support > 0, np.diag(confusion) / np.maximum(support, 1), np.inf)
    return int(recall.argmin())
