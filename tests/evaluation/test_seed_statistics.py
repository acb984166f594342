"""The statistics of studies against values worked by hand, and against scipy by other ways."""

import warnings

import numpy as np
import pytest
from scipy import stats

from seattn.evaluation.statistics import compare, difference, holm, summarize, with_holm

T = 4.302652729911275  # Student's t at 97.5 %, 2 degrees of freedom


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_three_values_by_hand():
    s = summarize([88.0, 90.0, 92.0])
    assert (s.n, s.mean, s.std) == (3, 90.0, 2.0)
    assert s.low == pytest.approx(90 - T * 2 / 3**0.5)
    assert s.high == pytest.approx(90 + T * 2 / 3**0.5)


def test_three_pairs_by_hand():
    d = compare([91.0, 93.0, 95.0], [90.0, 91.0, 92.0])  # 1, 2, 3: t = 2 sqrt(3), and p = 1 - t / sqrt(2 + t^2)
    assert (d.n, d.mean, d.std) == (3, 2.0, 1.0)
    assert d.p == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert (d.low, d.high) == pytest.approx((2 - T / 3**0.5, 2 + T / 3**0.5))
    assert (d.boot_low, d.boot_high) == pytest.approx((1, 3))  # 1 of 27 resamples is all ones: 3.7 % > 2.5 %


@pytest.mark.parametrize("n", [2, 3, 7, 33])
def test_pairs_as_scipys_own_paired_test_has_them(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, n)
    d, scipys = compare(a.tolist(), b.tolist()), stats.ttest_rel(a, b)
    interval = scipys.confidence_interval(0.95)
    assert d.p == pytest.approx(scipys.pvalue)
    assert (d.low, d.high) == pytest.approx((interval.low, interval.high))
    assert (a - b).min() <= d.boot_low <= d.boot_high <= (a - b).max()


def test_the_same_pairs_give_the_same_bootstrap():
    assert difference([0.1, 0.7, -0.2, 0.4]) == difference([0.1, 0.7, -0.2, 0.4])


def test_the_bootstrap_covers_the_mean_of_many_pairs():
    rng = np.random.default_rng(1)
    found = [difference(rng.normal(1.0, 2.0, 40)) for _ in range(60)]
    assert sum(d.boot_low <= 1.0 <= d.boot_high for d in found) >= 50


def test_one_value_has_a_mean_and_nothing_else():
    assert summarize([90.0]) == summarize([90.0])
    s, d = summarize([90.0]), compare([91.0], [90.0])
    assert (s.n, s.mean, s.std, s.low, s.high) == (1, 90.0, None, None, None)
    assert (d.n, d.mean, d.std, d.low, d.high, d.p, d.boot_low, d.boot_high) == (1, 1.0, *(None,) * 6)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_equal_differences_have_no_p_whatever_their_rounding(shift):
    reference = [90.1, 91.3, 92.7]
    d = compare([value + shift for value in reference], reference)  # 0.4 and its neighbours in floating point
    assert d.mean == pytest.approx(shift)
    assert (d.std, d.low, d.high, d.p) == (0.0, None, None, None)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 0.04 alone would be 0.04: it may not fall below the one before
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([0.04, 0.01], [0.04, 0.02]),
        ([], []),
    ],
)
def test_holms_adjustment_by_hand(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)


def test_holm_counts_comparisons_that_have_a_p():
    some, alike = difference([1.0, 2.0, 3.0]), difference([1.0, 1.0])
    one, nothing, equal, two = with_holm([some, None, alike, some])
    assert nothing is None
    assert equal.p_holm is None
    assert one.p_holm == two.p_holm == pytest.approx(2 * some.p)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_does_not_pair_is_refused(a, b):
    with pytest.raises(ValueError, match=f"got {len(a)} and {len(b)}"):
        compare(a, b)
