"""How sure we are: intervals and tests over patients.

Conventions: one value per patient, because cases of one patient are not independent. No value may be NaN. Every resampling has a
seed, so the same values give the same interval.

References: B. Efron, J. Am. Stat. Assoc. 82 (1987) 171 (BCa); B. Efron and R. Tibshirani, An Introduction to the Bootstrap
(1993), chapters 12 (bootstrap-t) and 14; C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404; F. Wilcoxon, Biometrics
Bulletin 1 (1945) 80; M. Hollander, D. A. Wolfe and E. Chicken, Nonparametric Statistical Methods (2014), section 3.2.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bedside.core.errors import UsageError
from bedside.core.evidence import Interval

Floats = NDArray[np.float64]
Values = Sequence[float] | Floats
EXACT_UP_TO = 200
_BLOCK = 1 << 20


def validate(values: Values, *, least: int = 1) -> Floats:
    """Return the values as an array, (n,).

    Raises:
        UsageError: there are fewer than `least`, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < least:
        raise UsageError(f"Give one value per patient, at least {least}.", code="METRIC_VALUES")
    if not np.isfinite(array).all():
        raise UsageError(
            "Every patient's value must be a finite number; a failure is charged, never left out.", code="METRIC_VALUES"
        )
    return array


def validate_level(level: float, what: str) -> float:
    """Return a level between 0 and 1, both excluded, or raise `UsageError`."""
    if not 0.0 < level < 1.0:
        raise UsageError(f"The {what} must lie between 0 and 1, not at {level:g}.", code="METRIC_LEVEL")
    return level


def bootstrap_interval(values: Values, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Confidence interval of the mean over patients by the bias-corrected and accelerated (BCa) bootstrap.

    Where the bootstrap has nothing to say it does not pretend: with one or two patients, or all values equal, the interval is
    the range of the values; where the correction is undefined (every resampled mean on one side of the mean) it is the plain
    percentile interval. `n` stands beside it. It agrees with `scipy.stats.bootstrap` to resampling error.

    Args:
        values: one per patient, (n,).
        confidence: of the two-sided interval.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        UsageError: no value, a value that is not finite, or a confidence outside 0 to 1.
    """
    array = validate(values)
    validate_level(confidence, "confidence")
    mean, tails = float(array.mean()), np.array([0.5 - confidence / 2, 0.5 + confidence / 2])
    if array.size < 3 or np.ptp(array) == 0.0:
        low, high = float(array.min()), float(array.max())
        return Interval(mean=low if low == high else mean, low=low, high=high, n=array.size, confidence=confidence)
    means = np.concatenate([array[block].mean(axis=1) for block in _resampled(array.size, resamples, seed)])
    low, high = np.quantile(means, _corrected(tails, means, array))
    return Interval(mean=mean, low=float(low), high=float(high), n=array.size, confidence=confidence)


def _resampled(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices of bootstrap samples in blocks (b, n) that need little memory."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // count)
    for start in range(0, resamples, rows):
        yield generator.integers(count, size=(min(rows, resamples - start), count))


def _corrected(tails: Floats, means: Floats, array: Floats) -> Floats:
    """Move the tail probabilities by bias and acceleration (Efron 1987, equation 3.9); unmoved where that is undefined."""
    below = (np.count_nonzero(means < array.mean()) + 0.5 * np.count_nonzero(means == array.mean())) / means.size
    if not 0.0 < below < 1.0:
        return tails
    bias, z = special.ndtri(below), special.ndtri(tails)
    deviations = array - array.mean()
    acceleration = (deviations**3).sum() / (6.0 * (deviations**2).sum() ** 1.5)  # the jackknife's, in closed form for a mean
    stretched = 1.0 - acceleration * (bias + z)
    if (stretched <= 0.0).any():
        return tails
    return np.asarray(special.ndtr(bias + (bias + z) / stretched))


def studentised_lower_bound(values: Values, *, alpha: float = 0.05, resamples: int = 10_000, seed: int = 0) -> float:
    """One-sided lower confidence bound of the mean by the bootstrap-t.

    Unlike the t interval it keeps its level for skewed values, and a few very bad patients pull it far down. Where resamples
    have no spread, their studentised mean is plus or minus infinity, which may make the bound minus infinity: that is the
    bootstrap saying that these values bound nothing. All values equal: the value itself.

    Args:
        values: one per patient, (n,), n >= 2.
        alpha: one minus the confidence.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        UsageError: fewer than two values, a value that is not finite, or an alpha outside 0 to 1.
    """
    array = validate(values, least=2)
    validate_level(alpha, "alpha")
    if np.ptp(array) == 0.0:
        return float(array[0])
    error = float(array.std(ddof=1)) / np.sqrt(array.size)
    studentised = np.concatenate([_studentised(array[block], array.mean()) for block in _resampled(array.size, resamples, seed)])
    return float(array.mean() - np.quantile(studentised, 1.0 - alpha, method="higher") * error)


def _studentised(samples: Floats, mean: float) -> Floats:
    """(mean of a sample - mean) / its standard error, for samples (b, n); infinite where a sample has no spread."""
    shift = samples.mean(axis=1) - mean
    error = samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])
    flat = np.ptp(samples, axis=1) == 0.0
    limit = np.where(shift == 0.0, 0.0, np.copysign(np.inf, shift))
    return np.where(flat, limit, shift / np.where(flat, 1.0, error))


def clopper_pearson_upper(events: int, count: int, *, confidence: float = 0.95) -> float:
    """One-sided upper confidence bound of a proportion, exact: never below its level.

    Args:
        events: how many of the patients.
        count: all patients, at least 1.
        confidence: of the bound.

    Raises:
        UsageError: the counts make no sense, or the confidence lies outside 0 to 1.
    """
    validate_level(confidence, "confidence")
    if count < 1 or not 0 <= events <= count:
        raise UsageError(f"{events} of {count} patients is not a proportion.", code="METRIC_VALUES")
    return 1.0 if events == count else float(special.betaincinv(events + 1, count - events, confidence))


def patients_needed(share: float, *, confidence: float = 0.95) -> int:
    """How many patients without a single event it takes to bound a proportion by `share` (29 for 10 % at 95 %)."""
    validate_level(share, "share")
    validate_level(confidence, "confidence")
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-share)))


def wilcoxon_statistic(values: Values, *, margin: float = 0.0) -> float:
    """Signed-rank statistic V of `values` + `margin`: the number of positive Walsh averages, half for those that are 0.

    Without zeros and ties this is the usual sum of positive ranks. In this form it can only grow with the margin, exactly, also
    in floating point.
    """
    array = np.sort(validate(values))
    first, second = np.triu_indices(array.size)
    pairs = array[first] + array[second]
    threshold = -2.0 * margin
    return float(np.count_nonzero(pairs > threshold) + 0.5 * np.count_nonzero(pairs == threshold))


def wilcoxon_p(values: Values, *, margin: float = 0.0) -> float:
    """One-sided p value of the signed-rank test that the values lie above -`margin`.

    The null distribution is the exact one without ties for up to `EXACT_UP_TO` patients, and the normal one with continuity
    correction above. SciPy and R drop zeros and switch to a normal approximation when values tie, so that a wider margin can
    raise their p value; here it cannot. Without zeros and ties the three agree.

    Args:
        values: one paired difference per patient, (n,), positive is better.
        margin: loss that is still accepted.
    """
    array = validate(values)
    statistic = np.floor(wilcoxon_statistic(array, margin=margin))
    count = array.size
    if count <= EXACT_UP_TO:
        return float(min(1.0, _signed_rank_tail(count)[int(statistic)]))
    mean, variance = count * (count + 1) / 4.0, count * (count + 1) * (2 * count + 1) / 24.0
    return float(special.ndtr(-(statistic - 0.5 - mean) / np.sqrt(variance)))


@lru_cache(maxsize=32)
def _signed_rank_tail(count: int) -> Floats:
    """P(V >= v) under the null hypothesis for v = 0 .. n(n+1)/2, (n(n+1)/2 + 1,)."""
    total = count * (count + 1) // 2
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for rank in range(1, count + 1):
        chance[rank:] = chance[rank:] + chance[: total + 1 - rank]
        chance /= 2.0
    tail = np.cumsum(chance[::-1])[::-1]
    tail.setflags(write=False)
    return tail
