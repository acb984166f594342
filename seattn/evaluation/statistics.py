"""Statistics of two classifiers on the same images, of confused classes, and of accuracies over seeds.

All intervals are of 95 %; a value that too few measurements cannot give is None.

An interval from three seeds is wide: the t interval reaches 4.3 standard errors to each side, so that a difference has
p < 0.05 only if it is 2.5 times the standard deviation of the paired differences. A bootstrap interval of three pairs
is too narrow, because it cannot leave the range of the three values. A wide interval does not show that there is no
difference.

Shapes: N images, K classes, R and S runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.stats import binomtest

from seattn.evaluation.scoring import FloatArray, wilson_interval

_DRAWS = 10_000


@dataclass(frozen=True)
class ImageDifference:
    """The accuracy `after` minus the accuracy `before`, on the same N images, with a 95 % interval.

    With one run before and one after, `gained` and `lost` count the images that changed, `p` is McNemar's exact p, and
    the interval is Newcombe's. With several runs these three are None, and the interval is a bootstrap over images.
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
        """The confusions in both directions."""
        return self.forward + self.backward


def paired_difference(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> ImageDifference:
    """Compare R runs before (R, N) with S runs after (S, N); the arrays say which of N images are right.

    Raises:
        ValueError: if the arrays are not of the same images, or of no image.
    """
    n = before.shape[1]
    if after.shape[1] != n or n == 0:
        raise ValueError(f"before and after must be of the same images, at least one, got {n} and {after.shape[1]}")
    if len(before) > 1 or len(after) > 1:
        low, high = _bootstrap_interval(after.mean(0) - before.mean(0))
        return ImageDifference(n, float(before.mean()), float(after.mean()), low, high)
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    low, high = newcombe_interval(gained, lost, int((before & after).sum()), n)
    return ImageDifference(n, float(before.mean()), float(after.mean()), low, high, gained, lost, mcnemar(gained, lost))


def _bootstrap_interval(steps: FloatArray) -> tuple[float, float]:
    """The interval of the mean of `steps` (N,) when the images are drawn again.

    Steps have few different values, so a draw of N images is a sample of a multinomial distribution.
    """
    values, counts = np.unique(steps, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(steps), counts / len(steps), size=_DRAWS) @ values / len(steps)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def newcombe_interval(gained: int, lost: int, both: int, n: int) -> tuple[float, float]:
    """Newcombe's score interval for the difference of two paired proportions, after minus before.

    Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10: the Wilson intervals of both accuracies, combined
    by the correlation phi of the two classifiers' answers.

    Args:
        gained, lost: images that only the classifier after, or only the one before, has right.
        both: images that both have right, of `n` images in all.
    """
    neither = n - both - gained - lost
    before, after = (both + lost) / n, (both + gained) / n
    (before_low, before_high), (after_low, after_high) = (wilson_interval(both + k, n) for k in (lost, gained))
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    product: float = both * neither - lost * gained
    if product > 0:  # Newcombe's continuity correction
        product = max(product - n / 2, 0)
    phi = product / sqrt(margins) if margins else 0.0
    down, up = after - after_low, before_high - before
    low = after - before - sqrt(down**2 - 2 * phi * down * up + up**2)
    down, up = before - before_low, after_high - after
    return low, after - before + sqrt(up**2 - 2 * phi * up * down + down**2)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: by chance, half of the images that changed would have gained."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def confused_pairs(confusion: npt.NDArray[np.floating]) -> list[Pair]:
    """All pairs of classes with confusions in counts (K, K) by [true][predicted], the most frequent first."""
    pairs = [_pair(confusion, first, second) for first, second in zip(*np.triu_indices(len(confusion), 1), strict=True)]
    return sorted((pair for pair in pairs if pair.total), key=lambda pair: -pair.total)


def changed_pairs(before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]) -> list[tuple[Pair, Pair]]:
    """Every pair of classes whose total differs, as (before, after), the largest change first."""
    total = before + before.T - after - after.T  # (K, K)
    places = np.argwhere(np.triu(total, 1))
    changed = [(_pair(before, first, second), _pair(after, first, second)) for first, second in places]
    return sorted(changed, key=lambda pairs: -abs(pairs[1].total - pairs[0].total))


def _pair(confusion: npt.NDArray[np.floating], first: np.integer, second: np.integer) -> Pair:
    return Pair(int(first), int(second), float(confusion[first, second]), float(confusion[second, first]))


def hardest_class(confusion: npt.NDArray[np.floating]) -> int:
    """The class of the lowest recall in counts (K, K), among those that have images."""
    support = confusion.sum(1)
    recall = np.where(support > 0, np.diag(confusion) / np.maximum(support, 1), np.inf)
    return int(recall.argmin())


CONFIDENCE = 0.95
_SAME = 1e-9  # points: smaller differences are rounding errors, from which a t-test would compute a tiny p
_RESAMPLES = 9999


@dataclass(frozen=True)
class Summary:
    """The mean of `n` values, their sample standard deviation (n - 1), and the t interval of the mean."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SeedDifference(Summary):
    """The summary of `n` paired differences.

    Args:
        p: p of the paired t-test with n - 1 degrees of freedom; None also where all differences are equal.
        boot_low, boot_high: the percentile bootstrap interval over the pairs.
        p_holm: p adjusted by `with_holm` for the number of comparisons; None before that.
    """

    p: float | None
    boot_low: float | None
    boot_high: float | None
    p_holm: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """The summary of one or more values."""
    x = np.asarray(values, dtype=float)  # (n,)
    if len(x) < 2:
        return Summary(len(x), float(x.mean()), None, None, None)
    mean, std = float(x.mean()), float(x.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(x) - 1)) * std / len(x) ** 0.5
    return Summary(len(x), mean, std, mean - half, mean + half)


def compare(values: Sequence[float], reference: Sequence[float]) -> SeedDifference:
    """The statistics of `values` minus `reference`, pair by pair.

    Raises:
        ValueError: if the lengths differ or are 0.
    """
    if len(values) != len(reference) or not values:
        raise ValueError(f"values must pair with the reference's, got {len(values)} and {len(reference)}")
    return difference(np.asarray(values, dtype=float) - np.asarray(reference, dtype=float))


def difference(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> SeedDifference:
    """The statistics of paired differences."""
    d = np.asarray(values, dtype=float)  # (n,)
    summary = summarize(d.tolist())
    if np.ptp(d) < _SAME:  # one pair, or equal differences: there is no spread to estimate an error from
        std = None if summary.std is None else 0.0
        return SeedDifference(summary.n, summary.mean, std, None, None, None, None, None)
    interval = stats.bootstrap(
        (d,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),  # the same values give the same interval
    ).confidence_interval
    return SeedDifference(
        n=summary.n,
        mean=summary.mean,
        std=summary.std,
        low=summary.low,
        high=summary.high,
        p=float(stats.ttest_1samp(d, 0.0).pvalue),  # on differences, this is the paired t-test
        boot_low=float(interval.low),
        boot_high=float(interval.high),
    )


def with_holm(differences: Sequence[SeedDifference | None]) -> list[SeedDifference | None]:
    """The differences with `p_holm`: Holm's step-down adjustment over all differences that have a p."""
    adjusted = iter(holm([d.p for d in differences if d is not None and d.p is not None]))
    return [d if d is None or d.p is None else replace(d, p_holm=next(adjusted)) for d in differences]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979).

    The smallest p is multiplied by the number of hypotheses, the next one by that number minus 1, and so on. An
    adjusted p is at most 1, and never smaller than that of a smaller p.
    """
    result, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        result[place] = highest
    return result
