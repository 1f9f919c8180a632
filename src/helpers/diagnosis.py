"""Where the axes come apart, and what that means for a suite of benchmarks.

Every finding is a row with its evidence, an interval where one exists, a p-value and a false-discovery
adjusted q-value. A claim that says several things at once ("high performance overlap AND low signature AND
low semantic AND low neural similarity") is tested by intersection and union: its p-value is the LARGEST of
the parts' (Berger 1982), so one weak part is enough to keep silent. Absence of a flag is not evidence of
absence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from statsmodels.stats.proportion import proportion_confint

from helpers import inference, maps, questions
from helpers.errors import DataError, nearest

COLUMNS = ("kind", "a", "b", "axis", "estimate", "low", "high", "p", "q", "flagged", "tested", "evidence")
KINDS = {
    "misleading agreement": "scores go together, but nothing else says that the two benchmarks are alike",
    "hidden kinship": "signature, meaning or traces say alike, but the scores do not go together",
    "orthogonal": "surely alike to no other benchmark of the suite",
    "outlier": "mean similarity to the others far from the rest of the suite",
    "format-driven": "more than half of the performance overlap goes when the models' skill with the format "
    "is held fixed",
    "scale-driven": "more than half of the performance overlap goes when model scale is held fixed",
    "contaminated": "the two benchmarks share questions",
}
LIMIT = 1 - 1e-9
EXACT_WORK = 2e9  # similarities that an exact search may look at, some ten seconds
FAR = 3.5  # robust z of an outlier, the rule of Iglewicz and Hoaglin (1993)


def adafilter(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test that ALL parts of each claim hold, with false-discovery control that does not pay for hopeless
    claims.

    Parameters
    ----------
    parts : ndarray (n_parts, n_claims)
        One-sided p-values; NaN = not tested.

    Returns
    -------
    p, q : ndarray (n_claims,)
        p is the largest of a claim's parts. q follows AdaFilter (Wang, Gui, Su, Sabatti and Owen 2022): a
        claim counts as tried at level g only when its other parts already pass, ``q(g) = g #{second largest <
        g} / #{p <= g}``, minimised over g from the claim's p upwards. Under Benjamini-Hochberg the hundreds
        of pairs that fail two parts would be paid for as if they could have been flagged. Valid when parts
        err independently.

    >>> p, q = adafilter(np.array([[0.001, 0.9, 0.8], [0.01, 0.7, 0.001]]))
    >>> q.round(3).tolist()
    [0.02, 0.9, 0.9]
    """
    known = np.isfinite(parts).all(axis=0)
    p, q = np.full(parts.shape[1], np.nan), np.full(parts.shape[1], np.nan)
    order = np.sort(parts[:, known], axis=0)
    largest = order[-1]
    second = order[-2] if len(order) > 1 else np.zeros_like(largest)
    by_level = np.argsort(largest, kind="stable")
    level = largest[by_level]
    tried = np.searchsorted(np.sort(second), level, side="right")
    passed = np.searchsorted(level, level, side="right")
    raw = level * tried / np.maximum(passed, 1)
    adjusted = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    result = np.empty_like(adjusted)
    result[by_level] = adjusted
    p[known], q[known] = largest, np.maximum(result, 0.0)
    return p, q


# --- pairs on which the axes disagree ---------------------------------------------------------------------


def exceeds(axes: maps.Axes, axis: str, threshold: float, side: str) -> np.ndarray:
    """One-sided p-values (n, n) that each pair's true similarity lies above or below `threshold`.

    Normal theory on Fisher's z with the half of the 95 % interval that faces the threshold as 1.96 standard
    errors. An axis without intervals is taken at its word: p is 0 or 1 (the caller must say so to the
    reader). A pair without interval on an axis that has some gives NaN.
    """
    value = np.arctanh(np.clip(axes[axis].to_numpy(), -LIMIT, LIMIT))
    level = np.arctanh(np.clip(threshold, -LIMIT, LIMIT))
    sign = {"above": 1.0, "below": -1.0}[side]
    gap = sign * (value - level)
    if axis not in axes.low or axis not in axes.high:
        return np.where(gap > 0, 0.0, 1.0)
    bound = (axes.low if side == "above" else axes.high)[axis].to_numpy(float)
    error = np.abs(value - np.arctanh(np.clip(bound, -LIMIT, LIMIT))) / maps.Z95
    with np.errstate(divide="ignore", invalid="ignore"):
        p = norm.sf(gap / error)
    p = np.where(error == 0, np.where(gap > 0, 0.0, 1.0), p)
    return np.where(np.isfinite(bound), p, np.nan)


def other_axes(axes: maps.Axes, target: str = "performance") -> list[str]:
    """Return the axes to hold against the target: signature (cross-fitted first), semantic, neural."""
    signature = [a for a in ("signature-crossfit", "signature") if a in axes.values][:1]
    return [a for a in (*signature, "semantic", "neural") if a in axes.values and a != target]


def thresholds(axes: maps.Axes) -> dict[str, float]:
    """Return, for each axis, the similarity from which on a pair counts as alike.

    It is half way, on Fisher's z, between the median pair and the median benchmark's nearest neighbour: a
    pair above it is closer to what neighbours are than to what any two benchmarks of this suite are. It needs
    no labels, and it is relative: where all scores go together, only pairs that do so even more count as
    alike.
    """
    levels = {}
    for axis, matrix in axes.values.items():
        z = np.arctanh(np.clip(matrix.to_numpy(), -LIMIT, LIMIT))
        typical = np.median(z[np.triu_indices(len(z), 1)])
        np.fill_diagonal(z, -np.inf)
        levels[axis] = float(np.tanh((typical + np.median(z.max(axis=1))) / 2))
    return levels


def divergent(
    axes: maps.Axes | Mapping[str, pd.DataFrame],
    kind: str,
    *,
    target: str = "performance",
    others: Sequence[str] | None = None,
    levels: Mapping[str, float] | None = None,
    at_least: int | None = None,
    alpha: float = 0.05,
    method: str = "adafilter",
) -> pd.DataFrame:
    """Find pairs whose scores and whose other axes contradict each other.

    ``misleading agreement``
        performance above its level, and at least `at_least` (default: all) others below theirs.
    ``hidden kinship``
        performance below its level, and at least `at_least` (default: two thirds, rounded up) others above
        theirs.

    Parameters
    ----------
    axes : Axes or dict of DataFrames
        Pairs that not all of target and others hold are not tested.
    levels : dict of axis to float, optional
        What counts as alike; default :func:`thresholds`. Levels are taken as fixed numbers.
    alpha, method : float, {'adafilter', 'bh', 'by'}
        False-discovery rate and procedure: :func:`adafilter`, Benjamini-Hochberg over all pairs, or 'by',
        which holds under any dependence and is the strictest.

    Returns
    -------
    DataFrame
        One row a tested pair, most certain first: :data:`COLUMNS` (``estimate`` is the gap between the
        pair's percentile on the target and its mean percentile on the others, in [-1, 1]), every axis'
        value, and ``without_interval``: axes taken at their word because they have no interval. Partial
        conjunction p-values follow Benjamini and Heller (2008): ``(n - u + 1) p_(u)`` for "at least u of n".
    """
    axes = maps.check(axes)
    if target not in axes.values:
        raise DataError(f"No axis '{target}'; {nearest(target, axes.values)}")
    others = list(others) if others is not None else other_axes(axes, target)
    if not others:
        raise DataError(f"Only '{target}' is here; a divergence needs at least one other axis.")
    if kind not in ("misleading agreement", "hidden kinship"):
        raise ValueError(f"kind is '{kind}'; expected 'misleading agreement' or 'hidden kinship'.")
    misleading = kind == "misleading agreement"
    need = at_least or (len(others) if misleading else math.ceil(2 * len(others) / 3))
    if need > len(others):
        raise ValueError(f"at_least is {need} but there are {len(others)} other axes.")
    table = maps.pairs(axes.subset([target, *others])).dropna(subset=[target, *others]).reset_index(drop=True)
    levels = thresholds(axes.subset([target, *others])) | dict(levels or {})

    def part(axis: str, above: bool) -> np.ndarray:
        p = exceeds(axes, axis, levels[axis], "above" if above else "below")
        frame = pd.DataFrame(p, index=axes[axis].index, columns=axes[axis].index)
        rows, columns = frame.index.get_indexer(table["a"]), frame.columns.get_indexer(table["b"])
        return frame.to_numpy()[rows, columns]

    first = part(target, misleading)
    rest = np.sort(np.stack([part(axis, not misleading) for axis in others]), axis=0)
    if need == len(others):
        parts = np.vstack([first, rest])
    else:
        parts = np.stack([first, np.minimum((len(others) - need + 1) * rest[need - 1], 1.0)])
    p, q = adafilter(parts)
    result = table[["a", "b"]].copy()
    result.insert(0, "kind", kind)
    result["axis"] = target
    result["estimate"] = table[f"{target}_rank"] - table[[f"{a}_rank" for a in others]].mean(axis=1)
    result["low"], result["high"] = np.nan, np.nan
    result["p"] = p
    result["q"] = q if method == "adafilter" else inference.adjust(p, method)
    result["flagged"] = result["q"] <= alpha
    result["tested"] = int(np.isfinite(p).sum())
    for axis in (target, *others):
        for suffix in ("", "_low", "_high"):
            result[axis + suffix] = table[axis + suffix]
    result["evidence"] = _phrases(table, [target, *others], levels)
    without = [a for a in (target, *others) if a not in axes.low]
    result["without_interval"] = ", ".join(without)
    return result.sort_values(["p", "estimate"], ascending=[True, not misleading], ignore_index=True)


def _phrases(table: pd.DataFrame, axes: Sequence[str], levels: Mapping[str, float]) -> list[str]:
    """One line of evidence a pair: every axis with its value, its interval and what counts as alike."""
    columns = []
    for axis in axes:
        title = maps.TITLES.get(axis, axis)
        value, low, high = table[axis], table[f"{axis}_low"], table[f"{axis}_high"]
        bounds = [f" [{lo:.2f}, {hi:.2f}]" if np.isfinite(lo) else "" for lo, hi in zip(low, high)]
        columns.append([f"{title} {v:.2f}{b} (alike from {levels[axis]:.2f})" for v, b in zip(value, bounds)])
    return ["; ".join(parts) for parts in zip(*columns)]


# --- benchmarks that stand alone --------------------------------------------------------------------------


def standing(axes: maps.Axes | Mapping[str, pd.DataFrame], axis: str, alpha: float = 0.05) -> pd.DataFrame:
    """Find orthogonal and outlying benchmarks on one axis.

    ``orthogonal``: every pair of the benchmark lies below the axis' level (:func:`thresholds`); p is the
    largest of its pairs' (intersection-union), ``estimate`` the similarity to its nearest neighbour, with
    that pair's interval.
    ``outlier``: mean similarity to the others against the other benchmarks' by robust z (median and scaled
    MAD), flagged beyond :data:`FAR`; a rule of thumb, not a test (p and q are NaN): mean similarities are
    skewed and few.

    Returns one row a benchmark and kind with :data:`COLUMNS`; ``b`` names the nearest neighbour.
    """
    axes = maps.check(axes)
    matrix = axes[axis]
    names, array = list(matrix.index), matrix.to_numpy().copy()
    np.fill_diagonal(array, -np.inf)
    near = array.argmax(axis=1)
    n = len(names)
    level = thresholds(axes.subset([axis]))[axis]
    p = exceeds(axes, axis, level, "below")
    np.fill_diagonal(p, 0.0)
    title = maps.TITLES.get(axis, axis)
    bounds = [s[axis].to_numpy()[range(n), near] if axis in s else np.full(n, np.nan) for s in (axes.low, axes.high)]
    exact = "" if axis in axes.low else "; no interval on this axis: taken at its word"
    alone = pd.DataFrame({"kind": "orthogonal", "a": names, "b": [names[j] for j in near]})
    alone["estimate"], alone["low"], alone["high"] = array[range(n), near], *bounds
    alone["p"] = p.max(axis=1)
    alone["evidence"] = [
        f"nearest on the {title} axis is {b} at {v:.2f}; pairs count as alike from {level:.2f}{exact}"
        for b, v in zip(alone["b"], alone["estimate"])
    ]
    np.fill_diagonal(array, 0.0)
    mean = array.sum(axis=1) / (n - 1)
    centre = np.median(mean)
    spread = 1.4826 * np.median(np.abs(mean - centre))
    z = (mean - centre) / spread if spread > 0 else np.zeros(n)
    far = alone[["a", "b"]].assign(kind="outlier", estimate=mean, low=np.nan, high=np.nan, p=np.nan, z=z)
    far["evidence"] = [
        f"mean similarity to the others on the {title} axis {m:.2f}, median of the suite {centre:.2f} "
        f"(robust z {s:+.1f})"
        for m, s in zip(mean, z)
    ]
    parts = []
    for part in (alone, far):
        part["axis"], part["tested"] = axis, len(part)
        part["q"] = inference.adjust(part["p"])
        part["flagged"] = part["q"] <= alpha if part is alone else part["z"].abs() > FAR
        part = part.sort_values("p" if part is alone else "z", key=lambda c: c if c.name == "p" else -c.abs())
        parts.append(part.reindex(columns=COLUMNS).reset_index(drop=True))
    return pd.concat(parts, ignore_index=True)


# --- pairs that a nuisance holds together -----------------------------------------------------------------


def driven(
    scores: pd.DataFrame,
    kind: str,
    *,
    scale: pd.Series | None = None,
    formats: pd.Series | None = None,
    groups: Sequence | None = None,
    minimum: float = 0.3,
    bootstraps: int = 300,
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Find pairs whose performance overlap rests on model scale or on a shared answer format.

    For each pair: rho, the Spearman correlation of the scores over models, and rho given c, the partial one
    with the nuisance c held fixed. Flagged when rho > `minimum` AND rho > 2 rho_given (more than half goes),
    both beyond bootstrap error (models resampled by `groups`); p and q as in :func:`adafilter`.

    Parameters
    ----------
    scores : DataFrame (n_benchmarks, n_models)
        NaN = not measured; a pair uses the models that both have.
    kind : {'scale-driven', 'format-driven'}
        ``scale-driven``: c = `scale` (one number a model, for example log parameters); models without are
        left out.
        ``format-driven``: pairs of one format; c = the models' mean standardised rank on the OTHER
        benchmarks of that format (the pair itself left out) minus their mean on benchmarks of other formats.
        Where formats and skills are confounded in the suite, c holds both.
    formats : Series, optional
        Format of each benchmark; formats with fewer than 4 benchmarks are not tested.

    Returns
    -------
    DataFrame
        :data:`COLUMNS` (``estimate`` = rho - rho_given with its interval) plus ``rho`` and ``rho_given``.
    """
    if kind == "scale-driven":
        if scale is None:
            raise ValueError("kind 'scale-driven' needs scale: one number a model.")
        scale = scale.reindex(scores.columns)
        scores = scores.loc[:, scale.notna().to_numpy()]
        if groups is not None:
            groups = [g for g, known in zip(groups, scale.notna()) if known]
        scale = scale.dropna()
        if scores.shape[1] < inference.MIN_MODELS:
            raise DataError(f"Scale is known for {scores.shape[1]} models; at least {inference.MIN_MODELS} are needed.")
        if scale.nunique() < 3:
            raise DataError(f"Scale takes {scale.nunique()} values; with fewer than 3 it cannot be held fixed.")
        todo = list(itertools.combinations(range(len(scores)), 2))
    elif kind == "format-driven":
        if formats is None:
            raise ValueError("kind 'format-driven' needs formats: one a benchmark.")
        formats = formats.reindex(scores.index)
        sizes = formats.value_counts()
        big = set(sizes[sizes >= 4].index)
        if len(sizes) < 2 or not big:
            raise DataError(
                f"Formats found: {sizes.to_dict()}; at least two, one of them with 4 benchmarks, are needed."
            )
        code = formats.to_numpy()
        todo = [
            (i, j) for i, j in itertools.combinations(range(len(scores)), 2) if code[i] == code[j] and code[i] in big
        ]
    else:
        raise ValueError(f"kind is '{kind}'; expected 'scale-driven' or 'format-driven'.")
    values = scores.to_numpy(float)
    weights = inference.bootstrap_weights(groups, values.shape[1], bootstraps, seed)
    if kind == "scale-driven":
        found = _driven_by_scale(values, scale.to_numpy(float), weights, todo, minimum)
    else:
        found = _driven_by_format(values, formats.to_numpy(), weights, todo, minimum)
    return _driven_table(found, scores.index, kind, minimum, alpha)


def _driven_by_scale(values, scale, weights, todo, minimum) -> dict[str, np.ndarray]:
    """``drawn`` marks the pairs that have bootstrap draws: one below the minimum can never be flagged."""
    stacked = np.vstack([values, scale])
    i, j = np.array(todo).T
    one = inference.spearman(stacked, minimum=3)
    drawn = one[i, j] > minimum
    a, b = i[drawn], j[drawn]
    rho, given = [], []
    step = max(1, 20_000_000 // len(stacked) ** 2)
    for start in range(0, len(weights), step):
        many = inference.spearman(stacked, weights[start : start + step], minimum=3)
        rho.append(many[:, a, b])
        given.append(inference.partial_from_matrix(many, 1)[:, a, b])
    return {
        "i": i,
        "j": j,
        "rho": one[i, j],
        "given": inference.partial_from_matrix(one, 1)[i, j],
        "drawn": drawn,
        "rho_draws": np.concatenate(rho),
        "given_draws": np.concatenate(given),
    }


def _driven_by_format(values, formats, weights, todo, minimum) -> dict[str, np.ndarray]:
    ranks = pd.DataFrame(values).rank(axis=1)
    z = ranks.sub(ranks.mean(axis=1), axis=0).div(ranks.std(axis=1, ddof=0), axis=0).to_numpy()
    known = np.isfinite(z)
    if known.all():
        return _driven_by_format_complete(values, z, formats, weights, np.array(todo), minimum)
    filled = np.where(known, z, 0.0)
    found: dict[str, list] = {k: [] for k in ("i", "j", "rho", "given", "drawn", "rho_draws", "given_draws")}
    plain = inference.spearman(values, minimum=3)
    for i, j in todo:
        found["i"].append(i)
        found["j"].append(j)
        found["rho"].append(plain[i, j])
        same, other = formats == formats[i], formats != formats[i]
        same[[i, j]] = False
        count = np.stack([known[same].sum(axis=0), known[other].sum(axis=0)])
        usable = (count > 0).all(axis=0) & known[i] & known[j]
        found["drawn"].append(plain[i, j] > minimum and usable.sum() >= inference.MIN_MODELS)
        if not found["drawn"][-1]:
            found["given"].append(np.nan)
            continue
        contrast = filled[same].sum(axis=0) / np.maximum(count[0], 1)
        contrast = np.round(contrast - filled[other].sum(axis=0) / np.maximum(count[1], 1), 9)
        rows = np.vstack([values[i], values[j], contrast])[:, usable]
        one, many = inference.spearman(rows), inference.spearman(rows, weights[:, usable])
        found["given"].append(inference.partial_from_matrix(one, 1)[0, 1])
        found["rho_draws"].append(many[:, 0, 1])
        found["given_draws"].append(inference.partial_from_matrix(many, 1)[:, 0, 1])
    return {
        k: np.array(v).reshape(-1, len(weights)).T if k.endswith("draws") else np.array(v) for k, v in found.items()
    }


def _driven_by_format_complete(values, z, formats, weights, todo, minimum) -> dict[str, np.ndarray]:
    """The same for scores without gaps, many pairs at a time.

    A pair that keeps half of its overlap or more by its point estimate has p of at least 1/2 for "more than
    half goes": only its rho is bootstrapped (``rho_error``), for all pairs in one go.
    """
    i, j = todo.T
    rho = inference.spearman(values, minimum=3)[i, j]
    given = np.full(len(i), np.nan)
    tall = np.flatnonzero(rho > minimum)
    ranks = rankdata(values, axis=1)
    kinds, code = np.unique(formats.astype(str), return_inverse=True)
    count = np.bincount(code)
    total = np.stack([z[code == k].sum(axis=0) for k in range(len(kinds))])

    def contrast(chosen: np.ndarray) -> np.ndarray:
        a, b, kind = i[chosen], j[chosen], code[i[chosen]]
        same = (total[kind] - z[a] - z[b]) / (count[kind] - 2)[:, None]
        other = (total.sum(axis=0) - total[kind]) / (len(z) - count[kind])[:, None]
        return np.round(same - other, 9)  # sums of ranks have ties, which rounding errors would break

    def unit(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))

    rows = unit(ranks)
    for chosen in np.array_split(tall, max(1, len(tall) // 20_000)):
        held = unit(rankdata(contrast(chosen), axis=1))
        one, other = (rows[i[chosen]] * held).sum(axis=1), (rows[j[chosen]] * held).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            given[chosen] = (rho[chosen] - one * other) / np.sqrt((1 - one**2) * (1 - other**2))
    drawn = (rho > minimum) & (rho > 2 * given)
    error = np.full(len(i), np.nan)
    sums = np.zeros((3, len(tall)))
    step = max(1, 20_000_000 // len(values) ** 2)
    for start in range(0, len(weights), step):
        many = inference.spearman(values, weights[start : start + step], minimum=3)[:, i[tall], j[tall]]
        ok = np.isfinite(many)
        many = np.where(ok, many, 0.0)
        sums += np.stack([ok.sum(axis=0), many.sum(axis=0), (many**2).sum(axis=0)])
    enough = sums[0] >= len(weights) / 2
    n, first, second = sums[:, enough]
    error[tall[enough]] = np.sqrt(np.maximum(second - first**2 / n, 0) / (n - 1))
    rho_draws, given_draws = [], []
    for chosen in np.flatnonzero(drawn):
        block = np.vstack([values[i[chosen]], values[j[chosen]], contrast(np.array([chosen]))])
        many = inference.spearman(block, weights)
        rho_draws.append(many[:, 0, 1])
        given_draws.append(inference.partial_from_matrix(many, 1)[:, 0, 1])
    draws = {"rho_draws": rho_draws, "given_draws": given_draws}
    return {"i": i, "j": j, "rho": rho, "given": given, "drawn": drawn, "rho_error": error} | {
        k: np.array(v).reshape(-1, len(weights)).T for k, v in draws.items()
    }


def _driven_table(found, names, kind, minimum, alpha) -> pd.DataFrame:
    rho, given = found["rho"], found["given"]

    drawn = np.flatnonzero(found["drawn"])

    def tail(estimate: np.ndarray, draws: np.ndarray) -> np.ndarray:
        known = np.isfinite(draws).sum(axis=0) >= draws.shape[0] / 2
        error = np.full(len(estimate), np.nan)
        error[drawn[known]] = np.nanstd(draws[:, known], axis=0, ddof=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return norm.sf(estimate / error)

    if "rho_error" in found:
        with np.errstate(divide="ignore", invalid="ignore"):
            over = norm.sf((rho - minimum) / found["rho_error"])
    else:
        over = tail(rho - minimum, found["rho_draws"])
    lost = tail(rho - 2 * given, found["rho_draws"] - 2 * found["given_draws"])
    # tested and lost, whatever the partial correlation is
    if "rho_error" in found:
        lost = np.where((rho > minimum) & (rho <= 2 * given), 1.0, lost)  # at least 1/2, so never flagged
    over, lost = np.where(rho <= minimum, 1.0, over), np.where(rho <= minimum, 1.0, lost)
    p, q = adafilter(np.stack([over, lost]))
    low, high = np.full(len(rho), np.nan), np.full(len(rho), np.nan)
    if len(drawn):
        low[drawn], high[drawn] = inference.interval(found["rho_draws"] - found["given_draws"])
    names = np.asarray(names, object)
    what = "model scale" if kind == "scale-driven" else "skill with the format"
    table = pd.DataFrame({"kind": kind, "a": names[found["i"]], "b": names[found["j"]], "axis": "performance"})
    table["estimate"], table["low"], table["high"], table["p"] = rho - given, low, high, p
    table["q"] = q
    table["flagged"] = table["q"] <= alpha
    table["tested"] = int(np.isfinite(p).sum())
    table["rho"], table["rho_given"] = rho, given
    table["evidence"] = [f"performance overlap {r:.2f}, {g:.2f} with {what} held fixed" for r, g in zip(rho, given)]
    return table.sort_values("p", ignore_index=True)


def contaminated(table: pd.DataFrame, minimum: float = 0.01, **options) -> pd.DataFrame:
    """Find pairs of benchmarks that share questions (``questions.shared`` on the study's
    ``questions.parquet``).

    A count, not a sample: ``estimate`` is the shared part of the smaller benchmark, p and q are NaN, flagged
    from a share of `minimum` on. Only counts are reported, never texts. The interval is Wilson's, for the
    reading "the questions here are a sample of a larger benchmark".
    """
    found = questions.shared(table, **options)
    sizes = table["benchmark"].value_counts()
    size = found[["a", "b"]].apply(lambda c: c.map(sizes)).min(axis=1).to_numpy(float)
    share = found["share"].to_numpy(float)
    low, high = proportion_confint(share * size, size, method="wilson")
    result = found[["a", "b"]].copy()
    result["kind"], result["axis"] = "contaminated", "questions"
    result["estimate"], result["low"], result["high"] = share, low, high
    result["p"] = result["q"] = np.nan
    result["flagged"] = share >= minimum
    count = table["benchmark"].nunique()
    result["tested"] = count * (count - 1) // 2
    result["evidence"] = [
        f"{near} of {int(n)} questions shared ({exact} word for word)"
        for near, exact, n in zip(found["near"], found["exact"], size)
    ]
    return result.reindex(columns=COLUMNS)


def diagnose(
    axes: maps.Axes | Mapping[str, pd.DataFrame],
    *,
    scores: pd.DataFrame | None = None,
    benchmarks: pd.DataFrame | None = None,
    scale: pd.Series | None = None,
    groups: Sequence | None = None,
    question_table: pd.DataFrame | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run every diagnosis that the study has the data for.

    Returns
    -------
    findings : DataFrame
        The flagged rows, :data:`COLUMNS`; this is ``diagnosis.csv``.
    done : DataFrame
        One row a kind (and axis): ``kind``, ``axis``, ``tested``, ``flagged``, ``note``. What could not be
        looked for is listed with ``tested`` 0 and the reason, so that an empty finding is not read as a
        clean bill.
    """
    axes = maps.check(axes)
    results, done = [], []

    def add(kind: str, axis: str, make) -> None:
        try:
            table = make()
        except DataError as error:
            done.append({"kind": kind, "axis": axis, "tested": 0, "flagged": 0, "note": str(error)})
            return
        for name, part in table.groupby("kind", sort=False) if len(table) else [(kind, table)]:
            note = str(part["without_interval"].iloc[0]) if "without_interval" in part and len(part) else ""
            note = f"no interval, taken at its word: {note}" if note else ""
            tested = int(part["tested"].iloc[0]) if len(part) else 0
            row = {"kind": name, "axis": axis, "tested": tested, "flagged": int(part["flagged"].sum())}
            done.append(row | {"note": note})
        results.append(table[table["flagged"].astype(bool)].reindex(columns=COLUMNS))

    if "performance" in axes.values:
        for kind in ("misleading agreement", "hidden kinship"):
            add(kind, "performance", lambda kind=kind: divergent(axes, kind, alpha=alpha))
    for axis in axes:
        add("orthogonal", axis, lambda axis=axis: standing(axes, axis, alpha))
    formats = None if benchmarks is None else _formats(benchmarks)
    for kind, driver in (("scale-driven", scale), ("format-driven", formats)):
        if scores is None or driver is None:
            done.append({"kind": kind, "axis": "performance", "tested": 0, "flagged": 0, "note": "no data given"})
            continue
        side = {"scale": driver} if kind == "scale-driven" else {"formats": driver}
        add(
            kind,
            "performance",
            lambda k=kind, s=side: driven(scores, k, groups=groups, alpha=alpha, seed=seed, **s),
        )
    if question_table is None:
        done.append({"kind": "contaminated", "axis": "questions", "tested": 0, "flagged": 0, "note": "none given"})
    else:
        inside = question_table[question_table["benchmark"].isin(axes.names)]
        add("contaminated", "questions", lambda: contaminated(inside))
        if done[-1]["kind"] == "contaminated" and not done[-1]["tested"]:
            count = inside["benchmark"].nunique()
            done[-1]["tested"] = count * (count - 1) // 2
    results = [r for r in results if len(r)]
    findings = pd.concat(results, ignore_index=True) if results else pd.DataFrame(columns=list(COLUMNS))
    return findings, pd.DataFrame(done, columns=["kind", "axis", "tested", "flagged", "note"])


def _formats(benchmarks: pd.DataFrame) -> pd.Series | None:
    return benchmarks.set_index("benchmark")["format"] if "format" in benchmarks.columns else None


# --- which benchmarks a suite can do without --------------------------------------------------------------


def coverage_loss(matrix: np.ndarray, kept: Sequence[int]) -> float:
    """Return how much of the suite the kept benchmarks no longer stand for, from 0 (all kept).

    ``mean over i of (1 - max over kept j of s_ij)``: every benchmark is represented by its most similar kept
    one (facility location). A loss of 0.3 says: on average the best stand-in has similarity 0.7.

    >>> coverage_loss(np.array([[1, 0.8], [0.8, 1]]), [0]).item()
    0.1
    """
    return (1 - np.asarray(matrix)[:, list(kept)].max(axis=1)).mean().round(12)


def redundancy(
    axes: maps.Axes | Mapping[str, pd.DataFrame],
    objective: str | Sequence[str] | None = None,
    *,
    exact_limit: int = 200_000,
    draws: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Say which benchmarks a suite can do without, and what each size of suite loses on every axis.

    Benchmarks are dropped one at a time, always the one whose loss (:func:`coverage_loss`, mean over the
    objective axes) is smallest; sizes with at most `exact_limit` possible suites, and no more than
    :data:`EXACT_WORK` similarities to look at, are also solved exactly. Only benchmarks on all objective axes take part.

    Parameters
    ----------
    objective : axis or axes to protect; default all given axes.
    draws : int
        Matrices drawn from the 95 % intervals for ``low`` and ``high`` of the loss of the SAME suite (axes
        without intervals contribute no spread; see :func:`helpers.maps.draws_from_intervals`); large suites
        make do with ``maps.WORK / n squared``, at least 20, and with an interval at every hundredth part of
        their size.

    Returns
    -------
    DataFrame
        One row a size and method: ``size``, ``method`` (greedy, exact), ``dropped`` (greedy: the one dropped
        to reach this size), ``kept`` (names joined by "; "), ``loss``, ``low``, ``high``, ``loss_<axis>``
        for all axes.
    """
    axes = maps.check(axes)
    objective = [objective] if isinstance(objective, str) else list(objective or axes)
    chosen = axes.subset(objective)
    names = [n for n in axes.names if all(n in m.index for m in chosen.values.values())]
    if len(names) < maps.MINIMUM:
        raise DataError(
            f"{len(names)} benchmarks are on all of {', '.join(objective)}; at least {maps.MINIMUM} needed."
        )
    stack = np.stack([m.loc[names, names].to_numpy() for m in chosen.values.values()])
    everywhere = {a: m.reindex(index=names, columns=names).to_numpy() for a, m in axes.values.items()}
    draws = min(draws, max(20, maps.WORK // len(names) ** 2))
    spread, every = _drawn_stack(chosen, names, draws, seed), max(1, len(names) // 100)
    rows = [_suite(list(range(len(names))), "greedy", None, stack, everywhere, spread, names)]
    kept = list(range(len(names)))
    while len(kept) > 1:
        out = _cheapest(stack, kept)
        kept = [k for k in kept if k != out]
        drawn = spread if len(kept) % every == 0 else None
        rows.append(_suite(kept, "greedy", names[out], stack, everywhere, drawn, names))
        ways = math.comb(len(names), len(kept))
        if ways <= exact_limit and ways * len(kept) * stack[:, :, 0].size <= EXACT_WORK:
            best = _best_suite(stack, len(kept))
            rows.append(_suite(best, "exact", None, stack, everywhere, spread, names))
    return pd.DataFrame(rows)


def _cheapest(stack: np.ndarray, kept: list[int]) -> int:
    """Return the kept benchmark whose removal costs least: only those it stands for need a second best."""
    part = stack[:, :, kept]
    order = np.argpartition(part, -2, axis=2) if len(kept) > 2 else np.argsort(part, axis=2)
    axis, row = np.ogrid[: part.shape[0], : part.shape[1]]
    best, first = order[:, :, -1], part[axis, row, order[:, :, -1]]
    second = part[axis, row, order[:, :, -2]]
    cost = np.zeros(len(kept))
    np.add.at(cost, best.ravel(), (first - second).ravel())
    return kept[int(cost.argmin())]


def _best_suite(stack: np.ndarray, size: int) -> list[int]:
    n = stack.shape[1]
    combos = np.fromiter(
        itertools.chain.from_iterable(itertools.combinations(range(n), size)), int, math.comb(n, size) * size
    ).reshape(-1, size)
    best, value = combos[0], -np.inf
    step = max(1, 4_000_000 // (stack.shape[0] * n * size))
    for start in range(0, len(combos), step):
        block = combos[start : start + step]
        gain = stack[:, :, block].max(axis=3).mean(axis=(0, 1))
        if gain.max() > value + 1e-12:
            best, value = block[gain.argmax()], gain.max()
    return best.tolist()


def _drawn_stack(axes: maps.Axes, names: list[str], draws: int, seed: int) -> np.ndarray | None:
    """Draws (draws, n_axes, n, n) from the intervals, or None where no axis has any."""
    if not any(a in axes.low for a in axes):
        return None
    layers = []
    for number, (axis, matrix) in enumerate(axes.values.items()):
        where = matrix.index.get_indexer(names)
        drawn = maps.draws_from_intervals(axes, axis, draws, seed + number)
        if drawn is None:
            layers.append(np.repeat(matrix.to_numpy()[np.ix_(where, where)][None], draws, axis=0))
        else:
            layers.append(np.stack([d[np.ix_(where, where)] for d in drawn]))
    return np.stack(layers, axis=1)


def _suite(kept, method, dropped, stack, everywhere, spread, names) -> dict:
    row = {"size": len(kept), "method": method, "dropped": dropped, "kept": "; ".join(names[k] for k in kept)}
    row["loss"] = float(np.mean([coverage_loss(layer, kept) for layer in stack]))
    row["low"] = row["high"] = np.nan
    if spread is not None:
        losses = (1 - spread[..., kept].max(axis=-1)).mean(axis=(1, 2))
        row["low"], row["high"] = map(float, inference.interval(losses))
    for axis, matrix in everywhere.items():
        present = np.isfinite(matrix.diagonal())
        inside = [k for k in kept if present[k]]
        row[f"loss_{axis}"] = float((1 - matrix[np.ix_(present, inside)].max(axis=1)).mean()) if inside else np.nan
    return row


def adds_most(
    axes: maps.Axes | Mapping[str, pd.DataFrame],
    suite: Sequence[str] | None = None,
    objective: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rank benchmarks by what each adds: to a `suite`, or (default) to all the others.

    ``gain`` is the coverage loss without the benchmark minus the loss with it (mean over the objective
    axes), and
    ``stand_in`` its most similar benchmark in the suite (mean over those axes), ``similarity`` that mean.
    With a suite, candidates are the benchmarks outside it. Unknown names raise DataError.
    """
    axes = maps.check(axes)
    chosen = axes.subset(list(objective or axes))
    names = [n for n in axes.names if all(n in m.index for m in chosen.values.values())]
    stack = np.stack([m.loc[names, names].to_numpy() for m in chosen.values.values()])
    for name in suite or []:
        if name not in names:
            raise DataError(f"No benchmark '{name}' on all of {', '.join(chosen)}; {nearest(name, names)}")
    inside = [names.index(n) for n in suite] if suite else None
    if suite is not None and not inside:
        raise DataError("The suite is empty; name at least one benchmark, or leave it out.")
    mean = stack.mean(axis=0)
    rows = []
    for k, name in enumerate(names):
        if inside is not None and k in inside:
            continue
        base = inside if inside is not None else [j for j in range(len(names)) if j != k]
        gain = np.mean([coverage_loss(layer, base) - coverage_loss(layer, [*base, k]) for layer in stack])
        stand_in = base[int(mean[k, base].argmax())]
        rows.append({"benchmark": name, "gain": gain, "stand_in": names[stand_in], "similarity": mean[k, stand_in]})
    return pd.DataFrame(rows).sort_values("gain", ascending=False, ignore_index=True)


# --- a suite in which everything is known -----------------------------------------------------------------


def planted(
    seed: int = 0,
    *,
    models: int = 96,
    domains: int = 6,
    per_domain: int = 4,
    error: float = 0.1,
    bootstraps: int = 200,
) -> dict:
    """Simulate a suite with planted cases, to measure how often the diagnoses are right.

    Every domain has as many ``cloze`` benchmarks, whose scores load 0.93 on the domain's skill, as ``choice``
    ones, which load 0.42 on the skill and 0.85 on a common answer format. Two cloze benchmarks of different
    domains measure only model scale, one measures something of its own, and one (``alone``) belongs to no
    domain. Signature, semantic and neural similarity know the domain alone (0.6 within, 0 across), with
    normal error on Fisher's z of sd `error` and honest 95 % intervals; performance is measured from the
    scores of the `models`. What is true is worked out by applying the definitions of this module to the
    population's matrices, before any noise.

    Returns
    -------
    dict
        ``axes`` (:class:`helpers.maps.Axes`), ``scores``, ``benchmarks``, ``scale``, ``truth`` (``kind``,
        ``a``, ``b``).
    """
    random = np.random.default_rng(seed)
    names = [f"d{d}-{k}" for d in range(domains) for k in range(per_domain)] + ["alone"]
    domain = np.array([d for d in range(domains) for _ in range(per_domain)] + [-1])
    style = np.array(["cloze" if n == "alone" or int(n[-1]) % 2 else "choice" for n in names])
    loadings = pd.DataFrame(0.0, index=names, columns=[f"skill {d}" for d in range(domains)])
    loadings[["format", "scale", "own d0-1", "own alone"]] = 0.0
    for name, d, kind in zip(names, domain, style):
        if name in ("d1-1", "d2-1"):
            loadings.loc[name, "scale"] = 0.93
        elif name in ("d0-1", "alone"):
            loadings.loc[name, f"own {name}"] = 0.93
        elif kind == "cloze":
            loadings.loc[name, f"skill {d}"] = 0.93
        else:
            loadings.loc[name, [f"skill {d}", "format"]] = 0.42, 0.85
    weight = loadings.to_numpy()
    factors = random.normal(size=(weight.shape[1], models))
    noise = np.sqrt(1 - (weight**2).sum(axis=1))[:, None] * random.normal(size=(len(names), models))
    scores = pd.DataFrame(weight @ factors + noise, index=names, columns=[f"m{i}" for i in range(models)])
    values = {"performance": pd.DataFrame(inference.spearman(scores), names, names)}
    low, high = inference.bootstrap_models(scores, bootstraps=bootstraps, seed=seed)
    lows, highs = {"performance": low}, {"performance": high}
    kin = (domain[:, None] == domain[None]) & (domain[:, None] >= 0)
    pearson = weight @ weight.T
    np.fill_diagonal(pearson, 1.0)
    true = {"performance": 6 / np.pi * np.arcsin(pearson / 2)}  # Spearman's rho of normal scores
    for axis in ("signature-crossfit", "semantic", "neural"):
        true[axis] = np.where(kin, 0.6, 0.0)
        np.fill_diagonal(true[axis], 1.0)
        shake = np.triu(random.normal(size=kin.shape) * error, 1)
        z = np.arctanh(np.clip(true[axis], -LIMIT, LIMIT)) + shake + shake.T
        for side, shift in ((values, 0), (lows, -1), (highs, 1)):
            array = np.tanh(z + shift * maps.Z95 * error)
            np.fill_diagonal(array, 1.0)
            side[axis] = pd.DataFrame(array, names, names)
    return {
        "axes": maps.Axes(values, lows, highs),
        "scores": scores,
        "benchmarks": pd.DataFrame({"benchmark": names, "function": [f"domain {d}" for d in domain], "format": style}),
        "scale": pd.Series(factors[list(loadings.columns).index("scale")], index=scores.columns),
        "truth": _population_truth(true, names, loadings, style),
    }


def _population_truth(true, names, loadings, style) -> pd.DataFrame:
    """Apply the definitions to the noise-free matrices of :func:`planted`."""
    exact = maps.Axes({a: pd.DataFrame(m, names, names) for a, m in true.items()})
    # without intervals the axes are taken at their word, so that p is 0 exactly where a definition holds
    rows = [
        table.loc[table["p"] == 0, ["kind", "a", "b"]]
        for table in (divergent(exact, "misleading agreement"), divergent(exact, "hidden kinship"))
    ]
    for axis in exact:
        table = standing(exact, axis)
        rows.append(table.loc[(table["kind"] == "orthogonal") & (table["p"] == 0), ["kind", "a", "b"]])
    rows.append(pd.DataFrame({"kind": ["outlier"], "a": ["alone"], "b": [None]}))
    pearson = loadings.to_numpy() @ loadings.to_numpy().T
    for kind, column in (("format-driven", "format"), ("scale-driven", "scale")):
        load = loadings[column].to_numpy()
        rest = (pearson - np.outer(load, load)) / np.sqrt(np.outer(1 - load**2, 1 - load**2))
        i, j = np.triu_indices(len(names), 1)
        same = (style[i] == style[j]) | (kind == "scale-driven")
        real = same & (pearson[i, j] > 0.3) & (pearson[i, j] > 2 * rest[i, j])
        label = np.array(names, object)
        rows.append(pd.DataFrame({"kind": kind, "a": label[i[real]], "b": label[j[real]]}))
    return pd.concat(rows, ignore_index=True).drop_duplicates(["kind", "a", "b"], ignore_index=True)


def precision_recall(findings: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Compare flagged rows with the truth, kind by kind.

    Columns: ``kind``, ``true``, ``flagged``, ``correct``, ``precision`` (NaN when nothing was flagged),
    ``recall`` (NaN when nothing was true). Pairs count whichever way round; a benchmark-level kind is
    matched on ``a`` alone.
    """

    def keys(table: pd.DataFrame, kind: str) -> set:
        part = table[table["kind"] == kind]
        if kind in ("orthogonal", "outlier"):
            return set(part["a"])
        return {frozenset(p) for p in zip(part["a"], part["b"])}

    rows = []
    for kind in [k for k in KINDS if k in set(truth["kind"]) | set(findings["kind"])]:
        real, found = keys(truth, kind), keys(findings, kind)
        hit = len(real & found)
        row = {"kind": kind, "true": len(real), "flagged": len(found), "correct": hit}
        row["precision"] = hit / len(found) if found else np.nan
        row["recall"] = hit / len(real) if real else np.nan
        rows.append(row)
    return pd.DataFrame(rows, columns=["kind", "true", "flagged", "correct", "precision", "recall"])


def trials(worlds: int = 6, *, models: int = 96, alpha: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Measure precision and recall of every diagnosis, redundancy included, over several planted suites.

    Each world is :func:`planted` with another seed, to which are added: simulated question texts in which
    three pairs of benchmarks share every tenth question (half of those lightly reworded), and a copy of one
    benchmark, measured again on every axis, which redundancy has to drop first (it, or its original).

    Returns
    -------
    DataFrame
        One row a kind: ``kind``, ``worlds``, ``true``, ``flagged``, ``correct``, ``precision`` and ``recall``
        with 95 % intervals ``precision_low`` to ``recall_high`` (percentile bootstrap over worlds, since
        flags of one world err together; Wilson's where all worlds say 0 or all say 1).
    """
    counts = []
    for world_seed in range(seed, seed + worlds):
        world = planted(world_seed, models=models)
        random = np.random.default_rng([world_seed, 1])
        asked, shared = _planted_questions(world["axes"].names, random)
        findings, _ = diagnose(
            world["axes"],
            scores=world["scores"],
            benchmarks=world["benchmarks"],
            scale=world["scale"],
            question_table=asked,
            alpha=alpha,
            seed=world_seed,
        )
        table = precision_recall(findings, pd.concat([world["truth"], shared], ignore_index=True))
        original, axes = _with_copy(world["axes"], random)
        first = redundancy(axes, exact_limit=0, draws=2)["dropped"].iloc[1]
        hit = int(first in (original, "copy"))
        row = {"kind": "redundant", "true": 1, "flagged": 1, "correct": hit}
        counts.append(pd.concat([table, pd.DataFrame([row])], ignore_index=True).assign(world=world_seed))
    every = pd.concat(counts, ignore_index=True)
    rows = []
    draw = np.random.default_rng(seed).integers(worlds, size=(1000, worlds))
    for kind, part in every.groupby("kind", sort=False):
        part = part.set_index("world").reindex(range(seed, seed + worlds)).fillna({"true": 0, "flagged": 0})
        numbers = part[["true", "flagged", "correct"]].fillna(0).to_numpy(int)
        row = {
            "kind": kind,
            "worlds": worlds,
            **dict(zip(("true", "flagged", "correct"), numbers.sum(axis=0))),
        }
        resampled = numbers[draw].sum(axis=1)
        for name, column in (("precision", 1), ("recall", 0)):
            row |= rate_with_interval(
                name, row["correct"], numbers[:, column].sum(), resampled[:, 2], resampled[:, column]
            )
        rows.append(row)
    return pd.DataFrame(rows)


def rate_with_interval(name: str, hits: int, total: int, drawn_hits: np.ndarray, drawn_total: np.ndarray) -> dict:
    """A rate with its 95 % interval over resampled worlds, or Wilson's interval where the rate is 0 or 1."""
    if not total:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    if hits in (0, total):
        low, high = proportion_confint(int(hits), int(total), method="wilson")
    else:
        known = drawn_total > 0
        low, high = inference.interval(drawn_hits[known] / drawn_total[known])
    return {name: hits / total, f"{name}_low": float(low), f"{name}_high": float(high)}


def _planted_questions(names: Sequence[str], random: np.random.Generator, size: int = 40):
    """Simulated questions of every benchmark, and the three pairs that share every tenth one."""
    words = np.array([f"w{k}" for k in range(5000)])
    texts = {n: [list(random.choice(words, 18)) for _ in range(size)] for n in names}
    chosen = random.choice(len(names), 6, replace=False)
    pairs = [(names[a], names[b]) for a, b in chosen.reshape(3, 2)]
    for a, b in pairs:
        for number, k in enumerate(range(0, size, 10)):
            copied = list(texts[a][k])
            if number % 2:
                copied[int(random.integers(4))] = "reworded"
            texts[b][k] = copied
    rows = [
        {"benchmark": n, "question_id": f"{n}-{k}", "prompt": " ".join(text), "format": "generation"}
        for n, items in texts.items()
        for k, text in enumerate(items)
    ]
    asked = pd.DataFrame(rows).assign(choices=[[]] * len(rows), answer="")
    asked["text"] = asked["prompt"]
    return asked, pd.DataFrame(pairs, columns=["a", "b"]).assign(kind="contaminated")


def _with_copy(axes: maps.Axes, random: np.random.Generator, error: float = 0.1) -> tuple[str, maps.Axes]:
    """Add ``copy``: one benchmark of a domain measured a second time, with similarity 0.9 to its original."""
    original = str(random.choice([n for n in axes.names if n != "alone"]))
    values = {}
    for axis, matrix in axes.values.items():
        z = np.arctanh(np.clip(matrix[original].to_numpy(), -LIMIT, LIMIT)) + error * random.normal(size=len(matrix))
        again = pd.Series(np.tanh(z), matrix.index)
        again[original] = 0.9
        wide = matrix.copy()
        wide["copy"] = again
        wide.loc["copy"] = [*again, 1.0]
        values[axis] = wide
    return original, maps.Axes(values)
