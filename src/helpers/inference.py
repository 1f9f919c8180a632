"""Statistics over benchmarks and models: nulls, bootstraps, reliability, matrix tests.

Nothing here knows what a token is. Rows are benchmarks, columns are models, a matrix is benchmark x
benchmark. Two facts shape every function: models of one lineage are not independent (resample *groups*), and
the pairs of a matrix are not independent (permute or resample *benchmarks*, never pairs).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from helpers.errors import DataError, nearest

Alternative = Literal["two-sided", "greater", "less"]
MIN_MODELS = 8  # fewer cannot carry a correlation over models
MIN_BENCHMARKS = 5
_CHUNK = 4_000_000  # numbers held at once by a resampling loop


# --- p-values and many tests ------------------------------------------------------------------------------


def permutation_p(null, observed: float, alternative: Alternative = "two-sided") -> float:
    """Return the permutation p-value ``(1 + count) / (1 + permutations)``.

    `null` holds the statistic under each permutation, `observed` the real one; NaN statistics of degenerate
    permutations count as at least as extreme (the careful side). Two-sided compares absolute values. Raises
    DataError for an empty null.

    >>> permutation_p([0.1, -0.3, 0.2], 0.25, "greater")
    0.25
    >>> permutation_p([0.1, -0.3, 0.2], 0.25)
    0.5
    """
    null = np.asarray(null, dtype=float).ravel()
    if null.size == 0:
        raise DataError("a permutation p-value needs at least one permutation; found none.")
    if np.isnan(observed):
        return float("nan")
    slack = 1e-12 * max(1.0, abs(observed))  # equal statistics computed in another order must count
    if alternative == "greater":
        extreme = null >= observed - slack
    elif alternative == "less":
        extreme = null <= observed + slack
    elif alternative == "two-sided":
        extreme = np.abs(null) >= abs(observed) - slack
    else:
        raise ValueError(f"alternative is '{alternative}'; {nearest(alternative, ['two-sided', 'greater', 'less'])}")
    return float((1 + np.sum(extreme | np.isnan(null))) / (1 + null.size))


def adjust(p, method: Literal["bh", "by", "holm"] = "bh") -> np.ndarray:
    """Adjust p-values for many tests; NaN (not tested) stays NaN and is not counted.

    Parameters
    ----------
    p : array of any shape, p-values in [0, 1].
    method : "bh" Benjamini-Hochberg false-discovery rate; "by" Benjamini-Yekutieli, valid under any dependence;
        "holm" family-wise error.

    Returns
    -------
    Array in the shape of `p`. Raises DataError for values outside [0, 1], ValueError for another method.

    >>> adjust([0.01, 0.02, float("nan"), 0.9]).round(3).tolist()
    [0.03, 0.03, nan, 0.9]
    >>> adjust([0.01, 0.02, float("nan"), 0.9], "holm").round(3).tolist()
    [0.03, 0.04, nan, 0.9]
    """
    if method not in ("bh", "by", "holm"):
        raise ValueError(f"method is '{method}'; {nearest(str(method), ['bh', 'by', 'holm'])}")
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    if not known.any():
        return adjusted
    tested = values[known]
    outside = (tested < -1e-9) | (tested > 1 + 1e-9)  # rounding is no error
    if outside.any():
        raise DataError(
            f"{int(outside.sum())} of {tested.size} p-values are not between 0 and 1, the first is "
            f"{tested[outside][0]:g}; give p-values, not statistics."
        )
    tested = tested.clip(0, 1)
    if method == "holm":
        adjusted[known] = multipletests(tested, method="holm")[1]
    else:
        adjusted[known] = stats.false_discovery_control(tested, method=method)
    return adjusted


# --- rank correlation of many rows at once ----------------------------------------------------------------


def as_rows(rows, what: str = "rows") -> tuple[np.ndarray, list, list]:
    """Return (values, row names, column names) of an array or DataFrame; infinite values are refused."""
    frame = rows if isinstance(rows, pd.DataFrame) else None
    values = np.asarray(rows, dtype=float)
    if values.ndim != 2:
        raise DataError(f"{what}: expected two dimensions (benchmarks, models), found shape {values.shape}.")
    names = list(frame.index) if frame is not None else list(range(values.shape[0]))
    columns = list(frame.columns) if frame is not None else list(range(values.shape[1]))
    twice = sorted({str(n) for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{what}: the name '{twice[0]}' is given to more than one row; names must be unique.")
    bad = np.argwhere(np.isinf(values))
    if len(bad):
        raise DataError(
            f"{what}: {len(bad)} infinite value(s), the first in row '{names[bad[0][0]]}', column "
            f"'{columns[bad[0][1]]}'. Use NaN for 'not measured'."
        )
    return values, names, columns


def spearman(rows, weights=None, *, minimum: int = 2) -> np.ndarray:
    """Spearman correlation between all pairs of rows, NaN left out pairwise, average ranks for ties.

    Parameters
    ----------
    rows : (n_rows, n_models) array or DataFrame, NaN = not measured.
    weights : optional (n_models,) or (n_resamples, n_models) counts. With integer counts the result is
        exactly the correlation of the sample in which model j appears ``weights[j]`` times: a bootstrap
        without loops.
    minimum : pairs with fewer shared models (of positive weight) are NaN; so are pairs with a constant row.

    Returns
    -------
    (n_rows, n_rows) float64, or (n_resamples, n_rows, n_rows) for two-dimensional weights.

    Notes
    -----
    Twice the centred average rank of model i is ``sum over j of w_j sign(x_i - x_j)``. One sort of a row gives
    it for every resample and every pattern of missing values, in memory that grows with the number of models.

    Examples
    --------
    >>> spearman([[1, 2, 3, 4], [1, 3, 2, 4]])[0, 1].item()
    0.8
    """
    x, _, _ = as_rows(rows)
    n = x.shape[1]
    single = weights is None or np.ndim(weights) == 1
    w = np.atleast_2d(np.ones(n) if weights is None else np.asarray(weights, dtype=float))
    if w.shape[1] != n:
        raise DataError(f"weights: expected {n} columns, one a model, found {w.shape[1]}.")
    known = ~np.isnan(x)
    if known.all():
        out = _spearman_complete(x, w)
        out[(w > 0).sum(axis=1) < minimum] = np.nan
    else:
        out = _spearman_pairwise(x, known, w)
        for matrix, weight in zip(out, w):
            matrix[(known * (weight > 0)).astype(float) @ known.T < minimum] = np.nan
    return out[0] if single else out


def _weighted_ranks(row: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Twice the centred average rank (n, k) of the n values of `row`, each counted `weights` (n, k) times."""
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    new = np.r_[True, ordered[1:] != ordered[:-1]]
    first = np.flatnonzero(new)
    total = np.zeros((len(row) + 1, weights.shape[1]))
    np.cumsum(weights[order], axis=0, out=total[1:])
    ranks = total[first] + total[np.r_[first[1:], len(row)]] - total[-1]  # weight below minus weight above
    out = np.empty(weights.shape)
    out[order] = ranks[np.cumsum(new) - 1]
    return out


def _spearman_complete(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    rows, n = x.shape
    out = np.empty((len(w), rows, rows))
    step = max(1, _CHUNK // max(1, rows * n))
    for start in range(0, len(w), step):
        block = w[start : start + step]
        ranks = np.stack([_weighted_ranks(row, block.T).T for row in x], axis=1)
        cross = (ranks * block[:, None, :]) @ ranks.transpose(0, 2, 1)
        out[start : start + step] = _scale(cross, np.einsum("waa->wa", cross))
    return out


def _spearman_pairwise(x: np.ndarray, known: np.ndarray, w: np.ndarray) -> np.ndarray:
    rows = len(x)
    out = np.empty((len(w), rows, rows))
    mask = known.astype(float)
    for k, weight in enumerate(w):
        # ranks[a, i, b]: rank of model i on row a among the models that a and b share
        shared = (weight[:, None] * mask.T)[None] * mask[:, :, None]
        ranks = np.stack([_weighted_ranks(row, own) for row, own in zip(x, shared)]) * mask[:, :, None]
        cross = np.einsum("i,aib,bia->ab", weight, ranks, ranks, optimize=True)
        square = np.einsum("i,bi,aib,aib->ab", weight, mask, ranks, ranks, optimize=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = cross / np.sqrt(square * square.T)
        out[k] = np.where((square > 0) & (square.T > 0), np.clip(value, -1, 1), np.nan)
    return out


def spearman_by_row(first, second) -> np.ndarray:
    """Spearman correlation of each row of `first` with the same row of `second`; average ranks for ties.

    Both (n_rows, n_models), or one of them (n_models,): then it is held against every row of the other. Complete
    rows only: NaN where a row holds one, and where a row is constant. Returns (n_rows,) float64.

    >>> spearman_by_row([[1, 2, 3, 4], [1, 1, 1, 1]], [1, 3, 2, 4]).tolist()
    [0.8, nan]
    """
    ranks = []
    for rows in (first, second):
        rows = np.asarray(rows, dtype=float)
        ranks.append(2 * stats.rankdata(rows, axis=-1) - (rows.shape[-1] + 1))  # whole numbers: sums are exact
    one, other = np.broadcast_arrays(*map(np.atleast_2d, ranks))
    scale = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    cross = (one * other).sum(axis=-1)
    return np.clip(np.divide(cross, scale, out=np.full(len(one), np.nan), where=scale > 0), -1, 1)


def _scale(cross: np.ndarray, square: np.ndarray) -> np.ndarray:
    scale = np.sqrt(square[:, :, None] * square[:, None, :])  # of the product: equal ranks give exactly 1
    scale[scale == 0] = np.nan
    cross = cross / scale
    return np.clip(cross, -1, 1, out=cross)


def partial_from_matrix(correlation: np.ndarray, covariates: int) -> np.ndarray:
    """Remove the last `covariates` rows of a correlation matrix (or stack) from the others.

    Returns the partial correlations of the remaining rows; NaN where the covariates explain a row entirely.

    >>> c = np.array([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]])
    >>> partial_from_matrix(c, 1)[0, 1].round(4).item()
    0.3333
    """
    stack = correlation[None] if correlation.ndim == 2 else correlation
    kept = stack.shape[1] - covariates
    aa, ac, cc = stack[:, :kept, :kept], stack[:, :kept, kept:], stack[:, kept:, kept:]
    out = np.full(aa.shape, np.nan)
    sound = np.isfinite(cc).all(axis=(1, 2))
    rest = aa[sound] - ac[sound] @ np.linalg.pinv(cc[sound]) @ ac[sound].transpose(0, 2, 1)
    square = np.einsum("waa->wa", rest).copy()
    square[square < 1e-10] = 0.0
    out[sound] = _scale(rest, square)
    return out[0] if correlation.ndim == 2 else out


# --- resampling models ------------------------------------------------------------------------------------


def group_codes(groups, n_models: int) -> np.ndarray:
    """Return integer codes of the models' groups; None makes every model its own group."""
    if groups is None:
        return np.arange(n_models)
    codes, _ = pd.factorize(pd.Series(list(groups)).astype(str))
    if len(codes) != n_models:
        raise DataError(f"groups: expected one a model ({n_models}), found {len(codes)}.")
    return codes


def bootstrap_weights(groups, n_models: int, bootstraps: int = 1000, seed: int = 0) -> np.ndarray:
    """Return (bootstraps, n_models) counts of a bootstrap that draws whole groups with replacement.

    >>> counts = bootstrap_weights(["a", "a", "b"], 3, bootstraps=4, seed=1)
    >>> bool((counts[:, 0] == counts[:, 1]).all())
    True
    """
    codes = group_codes(groups, n_models)
    count = codes.max() + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=bootstraps)
    return draws[:, codes].astype(float)


def bootstrap_models(
    rows,
    groups=None,
    *,
    covariate=None,
    bootstraps: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Percentile interval of the Spearman matrix of `rows`, resampling models by whole groups.

    Parameters
    ----------
    rows : (n_benchmarks, n_models) scores or signature activities, NaN = not measured.
    groups : lineage of each model; None resamples single models.
    covariate : optional (n_models,) or (q, n_models): partial correlations instead.

    Returns
    -------
    (low, high) : two DataFrames benchmark x benchmark; the diagonal is 1.

    Notes
    -----
    What was selected with the same models stays fixed: the interval is conditional on the selection.
    """
    values, names, _ = as_rows(rows)
    stacked, extra = with_covariate(values, covariate)
    weights = bootstrap_weights(groups, values.shape[1], bootstraps, seed)
    draws = spearman(stacked, weights, minimum=3)
    if extra:
        draws = partial_from_matrix(draws, extra)
    low, high = interval(draws, level)
    return pd.DataFrame(low, names, names), pd.DataFrame(high, names, names)


def with_covariate(values: np.ndarray, covariate) -> tuple[np.ndarray, int]:
    """Return the rows with the covariates' rows below them, and how many those are; DataError where they do not fit."""
    if covariate is None:
        return values, 0
    extra = np.atleast_2d(np.asarray(covariate, dtype=float))
    if extra.shape[1] != values.shape[1] or not np.isfinite(extra).all():
        raise DataError(
            f"covariate: expected {values.shape[1]} finite numbers, one a model, found shape {extra.shape} "
            f"with {int((~np.isfinite(extra)).sum())} not finite."
        )
    return np.vstack([values, extra]), len(extra)


INTERVALS = {
    "percentile": "2.5 and 97.5 % of the resampled values",
    "recentred": "the same, the resampled values moved so that their mean is the estimate",
    "recentred, Fisher z": "the same, moved on Fisher's z, so that the bounds stay within (-1, 1)",
    "spread of samples": "2.5 and 97.5 % of single samples: how far one sample can lie off, not how sure the mean is",
    "none": "no interval was computed",
}


def interval(draws, level: float = 0.95, *, estimate=None, fisher: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (low, high) from resampled values over the first axis; :data:`INTERVALS` names the kinds.

    Parameters
    ----------
    draws : (n_draws, ...) resampled values, NaN = undefined. Where fewer than half are defined the bounds are NaN.
    level : probability between the bounds.
    estimate : move the draws so that their mean is this estimate. For measures that resampling biases: a centroid
        of resampled questions is noisier than the centroid, so its cosines are nearer to zero. None: the
        percentiles themselves, right where the resampled statistic varies about the estimate (rank correlations
        and means over resampled models or benchmarks).
    fisher : move on Fisher's z = arctanh (values in [-1, 1]); only with `estimate`.

    >>> [round(float(b), 3) for b in interval([0.1, 0.2, 0.3, 0.4, 0.5], 0.5)]
    [0.2, 0.4]
    >>> [round(float(b), 3) for b in interval([0.1, 0.2, 0.3, 0.4, 0.5], 0.5, estimate=0.4)]
    [0.3, 0.5]
    """
    if fisher and estimate is None:
        raise ValueError("fisher=True moves draws onto an estimate; give estimate=.")
    draws = np.asarray(draws, dtype=float)
    tail = (1 - level) / 2
    enough = np.isfinite(draws).mean(axis=0) >= 0.5
    filled = np.where(enough, draws, 0.0)
    gaps = np.isnan(filled).any()
    if estimate is not None:
        estimate = np.where(enough, estimate, 0.0)
        if fisher:
            filled, estimate = (np.arctanh(np.clip(v, -0.999999, 0.999999)) for v in (filled, estimate))
        filled = filled - (np.nanmean(filled, axis=0) if gaps else filled.mean(axis=0)) + estimate
    low, high = (np.nanquantile if gaps else np.quantile)(filled, [tail, 1 - tail], axis=0)
    if fisher:
        low, high = np.tanh(low), np.tanh(high)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


# --- reliability ------------------------------------------------------------------------------------------


def spearman_brown(r, factor: float = 2.0):
    """Reliability of a measure `factor` times as long, from the correlation `r` of its parts (scalar or array).

    A correlation of zero or less stays as it is: parts that do not agree have no common measure to lengthen, and
    the formula has a pole at ``-1 / (factor - 1)`` (at factor 2 it would turn -0.5 into -2).

    >>> spearman_brown(0.6).round(6).item(), spearman_brown(-0.5).item()
    (0.75, -0.5)
    """
    r = np.asarray(r, dtype=float)
    return np.where(r > 0, factor * r / (1 + (factor - 1) * np.maximum(r, 0)), r)[()]


def reliability_table(draws, names: Sequence, factor: float = 2.0) -> pd.DataFrame:
    """Return `benchmark`, `reliability`, `low`, `high` from (n_draws, n_benchmarks) correlations of parts.

    The estimate is the median over draws, the bounds their 2.5 and 97.5 %, each stepped up by Spearman-Brown
    (`factor` 2: halves; 1: no step). NaN draws are left out; a benchmark without any has NaN.

    >>> reliability_table([[0.5, -0.5], [0.6, -0.5], [0.7, float("nan")]], ["a", "b"])["reliability"].round(3).tolist()
    [0.75, -0.5]
    """
    draws = np.asarray(draws, dtype=float)
    stepped = np.full((3, draws.shape[1]), np.nan)
    known = ~np.isnan(draws).all(axis=0)
    if known.any():
        stepped[:, known] = spearman_brown(np.nanquantile(draws[:, known], [0.5, 0.025, 0.975], axis=0), factor)
    return pd.DataFrame({"benchmark": list(names), "reliability": stepped[0], "low": stepped[1], "high": stepped[2]})


def split_half(parts, splits: int = 50, seed: int = 0) -> float:
    """Split-half reliability of a mean over parts, Spearman over models, stepped up by Spearman-Brown.

    `parts` is (n_parts, n_models): for a signature its signed z-scores, for a benchmark its item scores. The
    median over random halves; NaN with fewer than two parts.

    >>> split_half(np.tile(np.arange(10.0), (4, 1)))
    1.0
    """
    values, _, _ = as_rows(parts, "parts")
    n = len(values)
    if n < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    halves = np.zeros((splits, n))
    for row in halves:
        row[rng.permutation(n)[: n // 2]] = 1
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)

    def mean(which: np.ndarray) -> np.ndarray:
        count = which @ known
        return np.where(count > 0, which @ filled / np.maximum(count, 1), np.nan)

    one, other = mean(halves), mean(1 - halves)
    r = [spearman(np.vstack([a, b]), minimum=3)[0, 1] for a, b in zip(one, other)]
    return float(reliability_table(np.array(r)[:, None], ["parts"])["reliability"].iloc[0])


def score_reliability(scores, stderr) -> np.ndarray:
    """Share of the variance of scores over models that is not item sampling: ``1 - mean(stderr^2) / var``.

    Both (n_benchmarks, n_models); NaN where no standard error is known. May be negative: then the models do
    not differ by more than chance.

    >>> score_reliability([[0.0, 1.0, 2.0]], [[0.5, 0.5, 0.5]]).tolist()
    [0.75]
    """
    values, _, _ = as_rows(scores, "scores")
    error, _, _ = as_rows(stderr, "stderr")
    if values.shape != error.shape:
        raise DataError(f"scores have shape {values.shape}, stderr {error.shape}; they must be equal.")
    out = np.full(len(values), np.nan)
    for i, (y, s) in enumerate(zip(values, error)):
        both = ~np.isnan(y) & ~np.isnan(s)
        if both.sum() >= 3 and y[both].var(ddof=1) > 0:
            out[i] = 1 - np.mean(s[both] ** 2) / y[both].var(ddof=1)
    return out


def score_reliability_table(scores, stderr, groups=None, *, bootstraps: int = 200, seed: int = 0) -> pd.DataFrame:
    """Return :func:`score_reliability` with a percentile interval (models resampled by whole groups).

    Columns reliability, low, high; index: the benchmarks.
    """
    values, names, _ = as_rows(scores, "scores")
    error, _, _ = as_rows(stderr, "stderr")
    weights = bootstrap_weights(groups, values.shape[1], bootstraps, seed).astype(int)
    order = [np.repeat(np.arange(values.shape[1]), w) for w in weights]
    draws = np.array([score_reliability(values[:, o], error[:, o]) for o in order])
    low, high = interval(draws)
    return pd.DataFrame(
        {"reliability": score_reliability(values, error), "low": low, "high": high},
        index=pd.Index(names, name="benchmark"),
    )


def noise_ceiling(first, second):
    """Largest correlation that two noisy measures can show: ``sqrt(reliability_a * reliability_b)``.

    Scalars or arrays (broadcast). A reliability below 0 counts as 0: such a measure can show nothing.

    >>> noise_ceiling([0.25, -0.5], 1.0).tolist()
    [0.5, 0.0]
    """
    return np.sqrt(np.asarray(first, dtype=float).clip(min=0) * np.asarray(second, dtype=float).clip(min=0))


def disattenuate(value, reliability_a, reliability_b):
    """Correlation corrected for unreliability: ``value / noise_ceiling`` (Spearman 1904).

    Scalars or arrays. Reliabilities of 0 or less give NaN; values above 1 are kept: they say that a
    reliability is underestimated or that the errors of the two measures are shared.

    >>> round(float(disattenuate(0.4, 0.8, 0.8)), 6)
    0.5
    """
    ceiling = noise_ceiling(reliability_a, reliability_b)
    return np.asarray(value, dtype=float) / np.where(ceiling > 0, ceiling, np.nan)


# --- matrices ---------------------------------------------------------------------------------------------


def as_square(matrix, what: str = "matrix") -> tuple[np.ndarray, list]:
    """Return (values, names) of a symmetric benchmark x benchmark matrix; the diagonal is not looked at."""
    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise DataError(f"{what}: expected a square benchmark x benchmark matrix, found shape {values.shape}.")
    names = list(range(len(values)))
    if isinstance(matrix, pd.DataFrame):
        names = list(matrix.index)
        if len(set(names)) != len(names):
            raise DataError(f"{what}: benchmark names are not unique.")
        if names != list(matrix.columns):
            missing = [n for n in names if n not in set(matrix.columns)]
            if missing:
                raise DataError(f"{what}: row '{missing[0]}' has no column; {nearest(missing[0], matrix.columns)}")
            values = matrix[names].to_numpy(dtype=float)
    off = ~np.eye(len(values), dtype=bool)
    bad = np.argwhere(~np.isfinite(values) & off)
    if len(bad):
        raise DataError(
            f"{what}: {len(bad) // 2 or 1} pair(s) are not finite, the first '{names[bad[0][0]]}' with "
            f"'{names[bad[0][1]]}'. Leave out benchmarks whose overlap is not known."
        )
    gap = np.abs(values - values.T)[off].max(initial=0)
    if gap > 1e-6 * max(1.0, np.abs(values[off]).max(initial=0)):  # float32 products are symmetric to about 1e-7
        raise DataError(f"{what}: not symmetric (largest difference {gap:.3g}); average it with its transpose first.")
    return values, names


def align(matrices: Mapping[str, object], minimum: int = MIN_BENCHMARKS) -> tuple[dict[str, np.ndarray], list]:
    """Return the matrices restricted to their common benchmarks, in the order of the first, and the names.

    DataFrames are matched by label, arrays by position (then all must be arrays of one shape). Raises
    DataError when fewer than `minimum` benchmarks are shared, naming the nearest labels.
    """
    if not matrices:
        raise DataError("no matrix given.")
    checked = {}
    for name, matrix in matrices.items():
        if isinstance(matrix, pd.DataFrame) and set(matrix.index) == set(matrix.columns):
            checked[name] = matrix  # finiteness is asked of the common benchmarks only
        else:
            as_square(matrix, name)
            checked[name] = matrix
    labelled = [isinstance(m, pd.DataFrame) for m in checked.values()]
    if any(labelled) and not all(labelled):
        raise DataError("give either DataFrames (matched by label) or arrays (matched by position), not both.")
    if not all(labelled):
        shapes = {name: np.shape(m) for name, m in checked.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"matrices of different shapes cannot be matched by position: {shapes}.")
        names = list(range(next(iter(shapes.values()))[0]))
        values = {name: as_square(m, name)[0] for name, m in checked.items()}
    else:
        first = next(iter(checked.values()))
        common = set.intersection(*(set(m.index) for m in checked.values()))
        names = [n for n in first.index if n in common]
        if len(names) < minimum:
            other = next((m for m in checked.values() if set(m.index) != set(first.index)), first)
            lost = next((n for n in first.index if n not in common), first.index[0])
            raise DataError(
                f"{', '.join(checked)} share {len(names)} benchmark(s), at least {minimum} are needed. "
                f"'{lost}' is not in all of them; {nearest(str(lost), other.index)}"
            )
        values = {name: as_square(m.loc[names, names], name)[0] for name, m in checked.items()}
    if len(names) < minimum:
        raise DataError(f"{', '.join(checked)}: {len(names)} benchmarks, at least {minimum} are needed.")
    for name, m in values.items():
        if np.ptp(upper(m)) == 0:
            raise DataError(f"{name}: all pairs have the same value ({upper(m)[0]:.3g}); nothing can be tested.")
    return values, names


def upper(matrix) -> np.ndarray:
    """Return the pairs above the diagonal as a vector, row by row.

    >>> upper([[1, 2, 3], [2, 1, 4], [3, 4, 1]]).tolist()
    [2, 3, 4]
    """
    values = np.asarray(matrix)
    return values[..., *np.triu_indices(values.shape[-1], 1)]


def matrix_spearman(first, second) -> float:
    """Spearman correlation of two benchmark x benchmark matrices over their pairs; NaN pairs are left out.

    DataFrames are matched by label (common benchmarks only), arrays by position. Raises DataError for fewer than
    3 common pairs. The test is `mantel`, the interval `agreement`.

    >>> m = np.corrcoef(np.random.default_rng(0).normal(size=(8, 4)))
    >>> matrix_spearman(m, m**3)
    1.0
    """
    if isinstance(first, pd.DataFrame) and isinstance(second, pd.DataFrame):
        names = [n for n in first.index if n in second.index]
        first, second = first.loc[names, names], second.loc[names, names]
    pairs = np.stack([upper(np.asarray(m, dtype=float)) for m in (first, second)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3:
        raise DataError(f"{pairs.shape[1]} common pairs; at least 3 are needed for a correlation.")
    return float(spearman_by_row(*pairs)[0])


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def agreement(a, b, *, method: str = "spearman", bootstraps: int = 500, seed: int = 0) -> Estimate:
    """Correlation of two overlap matrices over their pairs, with a bootstrap over benchmarks.

    Arrays or DataFrames as in `mantel` (which gives the test). Pairs of a benchmark with its own copy in a
    resample are left out.

    >>> m = np.corrcoef(np.random.default_rng(0).normal(size=(8, 4)))
    >>> agreement(m, m).value
    1.0
    """
    if method not in ("spearman", "pearson"):
        raise ValueError(f"method is '{method}'; {nearest(method, ['spearman', 'pearson'])}")
    values, _ = align({"a": a, "b": b})
    return _bootstrap_pairs([values["a"], values["b"]], method, bootstraps, seed)


def summarise(
    matrix,
    statistic: str | float = "mean",
    *,
    labels=None,
    same: bool | None = None,
    bootstraps: int = 500,
    seed: int = 0,
) -> Estimate:
    """Mean, median or quantile (a number in (0, 1)) of the pairs of a matrix, bootstrap over benchmarks.

    With `labels` (one a benchmark) only pairs with the same label (``same=True``) or different ones.

    >>> summarise([[1, .2, .4], [.2, 1, .6], [.4, .6, 1]], "median", bootstraps=0).value
    0.4
    """
    values, names = as_square(matrix)
    keep = ~np.eye(len(names), dtype=bool)
    if labels is not None:
        codes = _codes(labels, names, "labels")
        keep &= (codes[:, None] == codes[None]) == bool(same)
    return _bootstrap_pairs([values, keep.astype(float)], statistic, bootstraps, seed)


def _bootstrap_pairs(matrices: list[np.ndarray], statistic: str | float, bootstraps: int, seed: int) -> Estimate:
    n = len(matrices[0])
    rows, columns = np.triu_indices(n, 1)

    def compute(order: np.ndarray) -> float:
        i, j = order[rows], order[columns]
        one, other = (m[i, j][i != j] for m in matrices)
        if statistic in ("spearman", "pearson"):
            if statistic == "spearman":
                return float(spearman_by_row(one, other)[0])
            one, other = one - one.mean(), other - other.mean()
            scale = np.sqrt((one @ one) * (other @ other))
            return float(one @ other / scale) if scale > 0 else np.nan
        one = one[other > 0]
        if not len(one):
            return np.nan
        return float(
            one.mean() if statistic == "mean" else np.quantile(one, 0.5 if statistic == "median" else statistic)
        )

    value = compute(np.arange(n))
    if not bootstraps:
        return Estimate(value, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    low, high = interval(np.array([compute(rng.integers(n, size=n)) for _ in range(bootstraps)]))
    return Estimate(value, float(low), float(high))


class Mantel(NamedTuple):
    """Result of a (partial) Mantel test: correlation of the pairs, permutation p-value, benchmarks used."""

    statistic: float
    p: float
    n: int


def mantel(
    a,
    b,
    permutations: int = 9999,
    method: Literal["spearman", "pearson"] = "spearman",
    *,
    alternative: Alternative = "two-sided",
    seed: int = 0,
) -> Mantel:
    """Mantel test: are two benchmark x benchmark matrices related? Benchmarks are permuted, not pairs.

    Parameters
    ----------
    a, b : symmetric arrays of one shape, or DataFrames (matched by label, common benchmarks only; `n` says
        how many). Diagonals are ignored. Similarities and distances are both accepted.

    Returns
    -------
    Mantel(statistic, p, n), ``p = (1 + count) / (1 + permutations)``.

    Raises
    ------
    DataError : fewer than 5 common benchmarks, not symmetric, not finite, constant.

    Notes
    -----
    Computed by scikit-bio (Mantel 1967). It says nothing about a third matrix that drives both: use `mrqap`.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(12, 3))
    >>> a = np.corrcoef(x)
    >>> mantel(a, a, permutations=99).p
    0.01
    """
    from skbio import DistanceMatrix  # imports in seconds; only the tests need it
    from skbio.stats.distance import mantel as skbio_mantel

    if method not in ("spearman", "pearson"):
        raise ValueError(f"method is '{method}'; {nearest(method, ['spearman', 'pearson'])}")
    values, _ = align({"a": a, "b": b})
    hollow = []
    for m in values.values():
        m = (m + m.T) / 2
        np.fill_diagonal(m, 0.0)
        hollow.append(DistanceMatrix(m))
    statistic, p, n = skbio_mantel(
        *hollow,
        method=method,
        permutations=permutations,
        alternative=alternative,
        seed=np.random.default_rng(seed),
    )
    return Mantel(float(statistic), float(p), int(n))


def partial_mantel(
    a,
    b,
    given,
    permutations: int = 9999,
    method: Literal["spearman", "pearson"] = "spearman",
    *,
    alternative: Alternative = "two-sided",
    seed: int = 0,
) -> Mantel:
    """Partial Mantel test of `a` with `b` when `given` is held constant (Smouse, Long and Sokal 1986).

    `given` is a matrix or a mapping of matrices. `a` is permuted. The test is liberal when `a` and `given`
    share structure; `mrqap` with double semi-partialling is the safer choice and the one the book uses.
    """
    extra = dict(given) if isinstance(given, Mapping) else {"given": given}
    values, names = align({"a": a, "b": b} | extra)
    if method == "spearman":
        values = {k: _rank_square(v) for k, v in values.items()}
    z = _basis([upper(values[k]) for k in extra])
    rb = _residual(upper(values["b"]), z)

    def correlate(block: np.ndarray) -> np.ndarray:
        ra = block - (block @ z) @ z.T
        return ra @ rb / np.sqrt((ra * ra).sum(axis=1) * (rb @ rb))

    observed = float(correlate(upper(values["a"])[None])[0])
    null = np.concatenate([correlate(block) for block in _permuted(values["a"], permutations, seed)])
    return Mantel(observed, permutation_p(null, observed, alternative), len(names))


def _rank_square(matrix: np.ndarray) -> np.ndarray:
    out = np.zeros_like(matrix)
    rows, columns = np.triu_indices(len(matrix), 1)
    out[rows, columns] = out[columns, rows] = stats.rankdata(matrix[rows, columns])
    return out


def _basis(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Orthonormal basis of a constant and the columns; a column the others explain adds nothing."""
    centred = [c - c.mean() for c in columns]
    scaled = [c / np.linalg.norm(c) for c in centred if np.linalg.norm(c) > 0]
    u, s, _ = np.linalg.svd(np.column_stack([np.full(len(columns[0]), len(columns[0]) ** -0.5), *scaled]), False)
    return u[:, s > s[0] * 1e-10]


def _residual(y: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return y - basis @ (basis.T @ y)


def _permuted(matrix: np.ndarray, permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of the upper triangle of `matrix` with rows and columns permuted together."""
    rng = np.random.default_rng(seed)
    n = len(matrix)
    rows, columns = np.triu_indices(n, 1)
    step = max(1, _CHUNK // len(rows))
    for start in range(0, permutations, step):
        order = rng.permuted(np.tile(np.arange(n), (min(step, permutations - start), 1)), axis=1)
        yield matrix[order[:, rows], order[:, columns]]


def mrqap(
    target,
    predictors: Mapping[str, object] | Sequence[object],
    permutations: int = 1999,
    *,
    rank: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Multiple regression of one matrix on others, tested by permutation with double semi-partialling.

    Parameters
    ----------
    target : symmetric benchmark x benchmark matrix.
    predictors : mapping name -> matrix (or a sequence, named x1, x2, ...); covariates such as "same format"
        are predictors too.
    rank : regress ranks of pairs on ranks of pairs (robust against curvature); False: raw values.

    Returns
    -------
    DataFrame, one row a predictor: `coef` (standardised), `t`, `p` (two-sided, ``(1 + count) / (1 + n)``),
    `partial_r`, `unique_r2` (what R2 loses without it). ``attrs``: `r2`, `n` benchmarks, `pairs`.

    Raises
    ------
    DataError : see `align`; also when one predictor is fully explained by the others.

    Notes
    -----
    Dekker, Krackhardt and Snijders (2007), "Sensitivity of MRQAP tests to collinearity and autocorrelation
    conditions": each predictor is replaced by its residual on the other predictors, that residual's rows and
    columns are permuted together, and the pivotal t of the refit is compared. Naive regression p-values of
    pairs are wrong by a factor of three to seven here (the pairs share benchmarks).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = np.corrcoef(rng.normal(size=(14, 5))), np.corrcoef(rng.normal(size=(14, 5)))
    >>> mrqap(a + 0.5 * b, {"a": a, "b": b}, permutations=199).p.to_dict()
    {'a': 0.005, 'b': 0.005}
    """
    if not isinstance(predictors, Mapping):
        predictors = {f"x{i + 1}": m for i, m in enumerate(predictors)}
    if not predictors:
        raise DataError("mrqap needs at least one predictor matrix.")
    if "target" in predictors:
        raise DataError("a predictor is named 'target'; give it another name.")
    values, names = align({"target": target} | dict(predictors))
    if rank:
        values = {k: _rank_square(v) for k, v in values.items()}
    y = upper(values["target"]).astype(float)
    y = (y - y.mean()) / y.std()
    x = {k: upper(values[k]) for k in predictors}
    full = _basis(list(x.values()))
    r2 = 1 - float(_residual(y, full) @ _residual(y, full)) / float(y @ y)
    rows = []
    for position, name in enumerate(predictors):
        others = [v for k, v in x.items() if k != name]
        basis = _basis(others) if others else np.full((len(y), 1), len(y) ** -0.5)
        residual = _residual(x[name], basis)
        if residual @ residual < 1e-10 * np.var(x[name]) * len(y):
            raise DataError(f"predictor '{name}' is fully explained by the others; leave one of them out.")
        ry = _residual(y, basis)
        df = len(y) - basis.shape[1] - 1

        def t_values(block: np.ndarray, basis=basis, ry=ry, df=df) -> np.ndarray:
            block = block - (block @ basis) @ basis.T
            cross, square = block @ ry, (block * block).sum(axis=1)
            rss = np.maximum(ry @ ry - cross**2 / square, 1e-300)
            return cross / np.sqrt(square * rss / df)

        observed = float(t_values(residual[None])[0])
        square = np.zeros((len(names), len(names)))
        square[np.triu_indices(len(names), 1)] = residual
        square += square.T
        null = np.concatenate([t_values(b) for b in _permuted(square, permutations, seed + position)])
        coef = float(residual @ ry / (residual @ residual)) * x[name].std()
        partial = float(residual @ ry / np.sqrt((residual @ residual) * (ry @ ry)))
        unique = float((residual @ ry) ** 2 / (residual @ residual) / (y @ y))
        rows.append((coef, observed, permutation_p(null, observed), partial, unique))
    table = pd.DataFrame(rows, index=list(predictors), columns=["coef", "t", "p", "partial_r", "unique_r2"])
    table.attrs = {"r2": r2, "n": len(names), "pairs": len(y), "rank": rank, "permutations": permutations}
    return table


def commonality(
    target,
    predictors: Mapping[str, object],
    *,
    rank: bool = True,
    bootstraps: int = 0,
    permutations: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """Split the explained variance of a matrix into what each set of predictors alone can explain.

    Parameters
    ----------
    target, predictors : as in `mrqap`, at most 6 predictors.
    bootstraps : resample benchmarks for an interval (pairs of a benchmark with itself are left out).
    permutations : permute the target's benchmarks; `null_high` is the 95th percentile of a share by chance.

    Returns
    -------
    DataFrame, one row a non-empty subset (``"a"`` unique to a, ``"a & b"`` common to a and b): `share` of
    the target's variance, `low`, `high`, `null_high`. Shares sum to R2 (``attrs["r2"]``) and may be negative
    where one predictor suppresses another (Newton and Spurrell 1967).

    >>> rng = np.random.default_rng(0)
    >>> a, b = np.corrcoef(rng.normal(size=(14, 5))), np.corrcoef(rng.normal(size=(14, 5)))
    >>> table = commonality(a + b, {"a": a, "b": b})
    >>> bool(abs(table.share.sum() - table.attrs["r2"]) < 1e-12)
    True
    """
    if len(predictors) > 6:
        raise DataError(f"commonality splits at most 6 predictors (2^k shares), found {len(predictors)}.")
    values, names = align({"target": target} | dict(predictors))
    if rank:
        values = {k: _rank_square(v) for k, v in values.items()}
    keys = list(predictors)
    subsets = [s for size in range(1, len(keys) + 1) for s in itertools.combinations(keys, size)]
    rows, columns = np.triu_indices(len(names), 1)

    def shares(y: np.ndarray, x: dict[str, np.ndarray], weight: np.ndarray | None = None):
        root = np.ones_like(y) if weight is None else np.sqrt(weight)
        y = root * (y - np.average(y, weights=root**2))
        fitted = {(): 0.0}
        for subset in subsets:
            z = [root * (x[k] - np.average(x[k], weights=root**2)) for k in subset]
            coef, *_ = np.linalg.lstsq(np.column_stack(z), y, rcond=1e-10)
            fitted[subset] = 1 - float(np.sum((y - np.column_stack(z) @ coef) ** 2) / (y @ y))
        out = []
        for subset in subsets:
            rest = tuple(k for k in keys if k not in subset)
            total = 0.0
            for size in range(len(subset) + 1):
                for part in itertools.combinations(subset, size):
                    inside = tuple(k for k in keys if k in rest or k in part)
                    total += (-1) ** (size + 1) * fitted[inside]
            out.append(total)
        return np.array(out), fitted[tuple(keys)]

    flat = {k: v[rows, columns] for k, v in values.items()}
    y = flat.pop("target")
    observed, r2 = shares(y, flat)
    table = pd.DataFrame({"share": observed}, index=[" & ".join(s) for s in subsets])
    table["low"] = table["high"] = table["null_high"] = np.nan
    rng = np.random.default_rng(seed)
    if bootstraps:
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=bootstraps)
        draws = [shares(y, flat, (c[rows] * c[columns]).astype(float))[0] for c in counts]
        table["low"], table["high"] = interval(np.array(draws))
    if permutations:
        blocks = _permuted(values["target"], permutations, seed + 1)
        null = [shares(row, flat)[0] for block in blocks for row in block]
        table["null_high"] = np.quantile(np.array(null), 0.95, axis=0)
    table.attrs = {"r2": r2, "n": len(names)}
    return table


# --- same label or other label ----------------------------------------------------------------------------


class Contrast(NamedTuple):
    """Pairs with the same label against pairs with different labels. Means, two intervals, two tests, AUC."""

    within: float
    between: float
    difference: float
    low: float
    high: float
    p: float
    pairs_low: float
    pairs_high: float
    pairs_p: float
    mann_whitney_p: float
    auc: float
    auc_low: float
    auc_high: float
    auc_p: float
    n_within: int
    n_between: int
    n: int


def within_between(
    matrix,
    labels,
    *,
    pairs=None,
    strata=None,
    alternative: Alternative = "two-sided",
    bootstraps: int = 2000,
    pair_bootstraps: int = 10_000,
    permutations: int = 1999,
    seed: int = 0,
) -> Contrast:
    """Compare pairs of benchmarks that share a label with pairs that do not, naively and rightly.

    Parameters
    ----------
    matrix : symmetric benchmark x benchmark overlap (array or DataFrame).
    labels : one a benchmark; a mapping or Series is matched by name. Missing labels are not allowed.
    pairs : optional boolean square matrix (or array) of the pairs to look at, e.g. those of one format.
    strata : optional label a benchmark (e.g. format); labels are then permuted only inside a stratum.
    alternative : of `p`, `auc_p`, `pairs_p` and `mann_whitney_p`.

    Returns
    -------
    Contrast with, for the difference of means: `low`, `high` (bootstrap of benchmarks) and `p` (permutation
    of benchmark labels), which respect that pairs share benchmarks; `pairs_low`, `pairs_high`, `pairs_p`: the
    paper's bootstrap of pairs as if they were independent; `mann_whitney_p`: the paper's test, same
    assumption; `auc`: probability that a within pair exceeds a between pair, with interval and permutation
    p. Everything is NaN but the counts when there is no pair of one kind.

    Examples
    --------
    >>> block = np.kron(np.eye(3), np.ones((4, 4)))
    >>> c = within_between(block, np.repeat(["x", "y", "z"], 4), permutations=99, pair_bootstraps=99)
    >>> c.auc, c.difference, c.n_within
    (1.0, 1.0, 18)
    """
    values, names = as_square(matrix)
    codes = _codes(labels, names, "labels")
    rows, columns = np.triu_indices(len(names), 1)
    if pairs is not None:
        chosen = np.asarray(pairs.loc[names, names] if isinstance(pairs, pd.DataFrame) else pairs, dtype=bool)
        if chosen.shape != values.shape:
            raise DataError(f"pairs: expected shape {values.shape}, found {chosen.shape}.")
        keep = chosen[rows, columns]
        rows, columns = rows[keep], columns[keep]
    v = values[rows, columns]
    same = codes[rows] == codes[columns]
    n1, n0 = int(same.sum()), int((~same).sum())
    if n1 == 0 or n0 == 0:
        return Contrast(
            *(v[same].mean() if n1 else np.nan, v[~same].mean() if n0 else np.nan),
            *([np.nan] * 12),
            n1,
            n0,
            len(names),
        )
    ranks = stats.rankdata(v)

    def means(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Difference of means and AUC for each row of a (k, pairs) boolean mask of within pairs."""
        count = mask.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            one = mask @ v / count
            other = (v.sum() - mask @ v) / (len(v) - count)
            auc = (mask @ ranks - count * (count + 1) / 2) / (count * (len(v) - count))
        return one - other, auc

    difference, auc = (float(part[0]) for part in means(same[None].astype(float)))
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(v))

    null = [np.empty((0, 2))]
    blocks = _codes(strata, names, "strata") if strata is not None else np.zeros(len(names), dtype=int)
    for start in range(0, permutations, step):
        shuffled = np.tile(codes, (min(step, permutations - start), 1))
        for block in np.unique(blocks):
            where = np.flatnonzero(blocks == block)
            shuffled[:, where] = rng.permuted(shuffled[:, where], axis=1)
        null.append(np.column_stack(means((shuffled[:, rows] == shuffled[:, columns]).astype(float))))
    null = np.vstack(null)
    centred = null - np.array([0.0, 0.5])
    p = permutation_p(centred[:, 0], difference, alternative) if permutations else np.nan
    auc_p = permutation_p(centred[:, 1], auc - 0.5, alternative) if permutations else np.nan

    order = np.argsort(v, kind="stable")
    ties = np.flatnonzero(np.r_[True, np.diff(v[order]) != 0])
    draws = [np.empty((0, 2))]
    for start in range(0, bootstraps, step):
        size = min(step, bootstraps - start)
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size)
        draws.append(_weighted_contrast(counts[:, rows] * counts[:, columns], v, same, order, ties))
    draws = np.vstack(draws)
    low, high = interval(draws) if bootstraps else (np.full(2, np.nan), np.full(2, np.nan))

    naive = []
    for start in range(0, pair_bootstraps, step):
        size = min(step, pair_bootstraps - start)
        one = rng.choice(v[same], size=(size, n1)).mean(axis=1)
        naive.append(one - rng.choice(v[~same], size=(size, n0)).mean(axis=1))
    naive = np.concatenate(naive) if naive else np.array([np.nan])
    pairs_low, pairs_high = interval(naive)
    tails = {"greater": np.mean(naive <= 0), "less": np.mean(naive >= 0)}
    tail = tails.get(alternative, min(1.0, 2 * min(tails.values())))
    u_test = stats.mannwhitneyu(v[same], v[~same], alternative=alternative)
    return Contrast(
        within=float(v[same].mean()),
        between=float(v[~same].mean()),
        difference=difference,
        low=float(low[0]),
        high=float(high[0]),
        p=p,
        pairs_low=float(pairs_low),
        pairs_high=float(pairs_high),
        pairs_p=float((1 + tail * len(naive)) / (1 + len(naive))) if pair_bootstraps else np.nan,
        mann_whitney_p=float(u_test.pvalue),
        auc=auc,
        auc_low=float(low[1]),
        auc_high=float(high[1]),
        auc_p=auc_p,
        n_within=n1,
        n_between=n0,
        n=len(names),
    )


def auc(matrix, labels, *, pairs=None, bootstraps: int = 1000, seed: int = 0) -> dict[str, float]:
    """How well similarity tells same-label pairs from other pairs: `auc`, `low`, `high`, `within`, `between`.

    The area and its interval are those of :func:`within_between` without its tests: the chance that a same-label
    pair is more similar than another (ties count half), benchmarks resampled. Here what is not known is left out:
    benchmarks without a label and pairs that are NaN.

    Parameters
    ----------
    matrix : symmetric benchmark x benchmark DataFrame.
    labels : Series or mapping by benchmark; may lack some.
    pairs : optional symmetric boolean DataFrame of the pairs to look at.

    >>> matrix = pd.DataFrame([[1, .9, 0], [.9, 1, .1], [0, .1, 1]], index=list("abc"), columns=list("abc"))
    >>> auc(matrix, pd.Series({"a": 1, "b": 1, "c": 2}), bootstraps=0)["auc"]
    1.0
    """
    known = {name: label for name, label in dict(labels).items() if pd.notna(label)}
    names = [n for n in matrix.index if n in known]
    values = matrix.loc[names, names]
    chosen = np.isfinite(values.to_numpy(dtype=float))
    if pairs is not None:
        chosen &= pairs.loc[names, names].to_numpy(dtype=bool)
    c = within_between(
        values.fillna(0.0), known, pairs=chosen, bootstraps=bootstraps, permutations=0, pair_bootstraps=0, seed=seed
    )
    return {"auc": c.auc, "low": c.auc_low, "high": c.auc_high, "within": c.n_within, "between": c.n_between}


def contrast_calibration(labels, *, simulations: int = 100, level: float = 0.05, seed: int = 0) -> pd.Series:
    """How often each test of :func:`within_between` rejects when labels mean nothing, for labels of these sizes.

    Each simulated matrix has benchmarks of different general level and position in a three-dimensional space,
    drawn without regard to the labels; two-sided tests at `level`. Returns the rejection rates
    `pairs_bootstrap` and `mann_whitney` (the paper's tests) and `label_permutation`; all should be `level`.
    """
    codes = pd.factorize(pd.Series(list(labels)).astype(str))[0]
    count = np.zeros(3)
    for run in range(simulations):
        rng = np.random.default_rng([seed, run])
        position, general = rng.normal(size=(len(codes), 3)), rng.normal(size=len(codes))
        matrix = general[:, None] + general - np.sqrt(((position[:, None] - position) ** 2).sum(axis=2))
        c = within_between(matrix, codes, permutations=199, bootstraps=0, pair_bootstraps=300, seed=seed + run)
        count += np.array([c.pairs_p, c.mann_whitney_p, c.p]) <= level
    return pd.Series(count / simulations, index=["pairs_bootstrap", "mann_whitney", "label_permutation"])


def _weighted_contrast(weight, v, same, order, ties) -> np.ndarray:
    """(k, 2): difference of weighted means and weighted AUC, for (k, pairs) weights."""
    weight = weight.astype(float)
    w1, w0 = weight * same, weight * ~same
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = w1 @ v / w1.sum(axis=1) - w0 @ v / w0.sum(axis=1)
        g1 = np.add.reduceat(w1[:, order], ties, axis=1)
        g0 = np.add.reduceat(w0[:, order], ties, axis=1)
        below = np.cumsum(g0, axis=1) - g0 / 2
        auc = (g1 * below).sum(axis=1) / (w1.sum(axis=1) * w0.sum(axis=1))
    return np.column_stack([difference, auc])


def _codes(labels, names: list, what: str) -> np.ndarray:
    if isinstance(labels, pd.Series | Mapping):
        table = dict(labels)
        missing = [n for n in names if n not in table]
        if missing:
            raise DataError(f"{what}: none for benchmark '{missing[0]}'; {nearest(str(missing[0]), table)}")
        labels = [table[n] for n in names]
    series = pd.Series(list(labels), dtype=object)
    if len(series) != len(names):
        raise DataError(f"{what}: expected one a benchmark ({len(names)}), found {len(series)}.")
    if series.isna().any():
        raise DataError(f"{what}: missing for benchmark '{names[int(np.flatnonzero(series.isna())[0])]}'.")
    return pd.factorize(series.astype(str))[0]


def group_means(matrix, labels) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean overlap of every pair of labels (the paper's function map) and the number of pairs behind it.

    The diagonal is the mean of within-label pairs, NaN for a label with a single benchmark.

    >>> mean, count = group_means([[1, .8, .1], [.8, 1, .3], [.1, .3, 1]], ["x", "x", "y"])
    >>> mean.loc["x", "y"].item(), count.loc["x", "x"].item()
    (0.2, 1)
    """
    values, names = as_square(matrix)
    _codes(labels, names, "labels")
    if isinstance(labels, pd.Series | Mapping):
        labels = [dict(labels)[n] for n in names]
    labels = pd.Index([str(x) for x in labels])
    kinds = sorted(set(labels))
    member = np.array([labels == k for k in kinds], dtype=float)
    off = np.where(np.eye(len(values), dtype=bool), 0.0, values)
    total, count = member @ off @ member.T, member @ (1 - np.eye(len(values))) @ member.T
    with np.errstate(invalid="ignore"):
        mean = total / count
    count = count.copy()
    count[np.diag_indices(len(kinds))] /= 2
    return pd.DataFrame(mean, kinds, kinds), pd.DataFrame(count.astype(int), kinds, kinds)


def maximum_clique(matrix, threshold: float) -> list:
    """Largest set of benchmarks whose every pair overlaps by at least `threshold` (ties: first by name).

    >>> maximum_clique([[1, .9, .1], [.9, 1, .2], [.1, .2, 1]], 0.5)
    [0, 1]
    """
    import networkx as nx

    values, names = as_square(matrix)
    graph = nx.Graph()
    graph.add_nodes_from(range(len(names)))
    graph.add_edges_from(zip(*np.nonzero(np.triu(values >= threshold, 1))))
    best = max(nx.find_cliques(graph), key=lambda c: (len(c), [-i for i in sorted(c)]))
    return [names[i] for i in sorted(best)]


def rank_reliability(scores, stderr, *, draws: int = 200, seed: int = 0) -> np.ndarray:
    """Rank correlation over models that a benchmark would show with itself on as many other items, by simulation.

    Both (n_benchmarks, n_models), float; NaN where no standard error is known. What is compared are ranks, and their
    reliability can be far from :func:`score_reliability`: where most models stand on one floor, a few high ones carry
    the variance while the order of the others is chance. True scores are taken to be the observed ones drawn together
    until their variance is that of the observed less that of the errors; two sets of normal errors are added to them,
    and the mean Spearman correlation of `draws` such pairs is returned.

    >>> rank_reliability([[0.1, 0.2, 0.3, 0.4]], [[0.001] * 4]).tolist()
    [1.0]
    """
    values, _, _ = as_rows(scores, "scores")
    error, _, _ = as_rows(stderr, "stderr")
    share = score_reliability(values, error)
    rng = np.random.default_rng(seed)
    out = np.full(len(values), np.nan)
    for i in np.flatnonzero(~np.isnan(share)):
        both = ~np.isnan(values[i]) & ~np.isnan(error[i])
        y, s = values[i, both], error[i, both]
        true = y.mean() + np.sqrt(max(share[i], 0.0)) * (y - y.mean())
        a, b = (
            stats.rankdata(true + s * rng.normal(size=(draws, y.size)), axis=1) - (y.size + 1) / 2 for _ in range(2)
        )
        scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        out[i] = np.mean(np.divide((a * b).sum(axis=1), scale, out=np.zeros(draws), where=scale > 0))
    return out
