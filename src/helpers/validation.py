"""Whole pipelines against chance and on models they never saw: screening is always inside the loop.

A signature is chosen from many thousand units by its fit to a few dozen models. Judged on the same models
anything fits. The functions here therefore repeat everything, screening included, on permuted scores
(:func:`permutation_r2`, :func:`null_overlap`) or without the models that judge (:func:`cross_validated_r2`).

Surprisal is (n_units, n_models) in nats per unit, scores are (n_benchmarks, n_models), NaN = not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import RidgeCV

from helpers import inference, overlap, screening, selection
from helpers.errors import DataError, nearest

ALPHAS = tuple(10.0 ** np.arange(-2, 5))


def permute_scores(scores: np.ndarray, rng: np.random.Generator, scheme: str = "joint") -> np.ndarray:
    """Break the link between scores and models.

    "joint": one permutation of the models for all benchmarks, so that the benchmarks' correlations with each
    other stay and only their relation to surprisal goes. "independent": one permutation a benchmark; nothing
    stays. Missing values move with the scores.
    """
    if scheme == "joint":
        return scores[:, rng.permutation(scores.shape[1])]
    if scheme == "independent":
        return rng.permuted(scores, axis=1)
    raise ValueError(f"scheme is '{scheme}'; {nearest(str(scheme), ['joint', 'independent'])}")


def null_overlap(
    surprisal,
    scores,
    compute: Callable[..., pd.DataFrame],
    *,
    permutations: int = 20,
    scheme: str = "joint",
    seed: int = 0,
    **options,
) -> np.ndarray:
    """Overlap matrices of the whole pipeline when no unit is related to any score.

    ``compute(surprisal, scores, **options)`` is :func:`overlap.in_sample`,
    :func:`overlap.crossfit_signature` or any function of that form. Returns (permutations, n_benchmarks,
    n_benchmarks). Under the joint scheme a sound measure is centred on 0 for every pair; a circular one
    shows the benchmarks' performance correlation.
    """
    y, _, _ = inference.as_rows(scores, "scores")
    x = np.asarray(surprisal)
    rng = np.random.default_rng(seed)
    return np.stack([np.asarray(compute(x, permute_scores(y, rng, scheme), **options)) for _ in range(permutations)])


def permutation_r2(
    surprisal,
    scores,
    sizes: Sequence[int] = (3, 5, 10, 25),
    *,
    ratio: float = 0.01,
    permutations: int = 20,
    exclude=None,
    seed: int = 0,
) -> pd.DataFrame:
    """In-sample R2 of forward AIC against the same on permuted scores, screening included.

    Parameters
    ----------
    sizes : numbers of terms at which R2 is read off one path; where AIC stops earlier, its last R2 stands.
    permutations : permuted score tables (each benchmark permuted on its own).
    exclude : as in :func:`overlap.select`: units that are a benchmark's own text.

    Returns
    -------
    DataFrame, one row a benchmark and size: `benchmark`, `size`, `r2`, `null` (mean), `null_high` (95th
    percentile), `p`, `terms` (where AIC stopped, capped at the largest size), `null_terms`.
    """
    x = np.asarray(surprisal)
    y, names, _ = inference.as_rows(scores, "scores")
    rng = np.random.default_rng(seed)
    real, terms = _aic_paths(x, y, sizes, ratio, exclude)
    null, null_terms = zip(
        *(_aic_paths(x, permute_scores(y, rng, "independent"), sizes, ratio, exclude) for _ in range(permutations))
    )
    null, null_terms = np.stack(null), np.stack(null_terms)
    rows = []
    for i, name in enumerate(names):
        for j, size in enumerate(sizes):
            draws = null[:, i, j]
            p = inference.permutation_p(draws, real[i, j], "greater")
            rows.append(
                (
                    name,
                    size,
                    real[i, j],
                    draws.mean(),
                    np.quantile(draws, 0.95),
                    p,
                    terms[i],
                    null_terms[:, i].mean(),
                )
            )
    columns = ["benchmark", "size", "r2", "null", "null_high", "p", "terms", "null_terms"]
    return pd.DataFrame(rows, columns=columns)


def _aic_paths(x, y, sizes, ratio, exclude) -> tuple[np.ndarray, np.ndarray]:
    r2, terms = np.empty((len(y), len(sizes))), np.empty(len(y), dtype=int)
    barred = selection.barred_units(exclude, (len(x), len(y)))
    statistic = selection.screening_statistic(x, y, selection.Mode(), barred)
    for i, units in enumerate(screening.screen(statistic, ratio)):
        known = ~np.isnan(y[i])
        features, score = x[units][:, known].T.astype(np.float64), y[i, known]
        features = features[:, ~np.isnan(features).any(axis=0)]
        fit = selection.forward_aic(features, score, max_size=min(max(sizes), len(score) - 2))
        r2[i] = [fit.r2_path[min(size, len(fit)) - 1] for size in sizes]
        terms[i] = len(fit)
    return r2, terms


def cross_validated_r2(
    surprisal,
    scores,
    groups=None,
    *,
    methods: Sequence[str] = ("ridge", "pls2", "forward_aic"),
    k: int | None = None,
    terms: int = 3,
    folds: int | None = None,
    exclude=None,
    permute: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Out-of-sample R2 of scores from surprisal; screening and selection see only the fold's models.

    Parameters
    ----------
    groups : lineage of each model, left out together; None leaves out single models.
    methods : "ridge" (on the k best screened units, penalty chosen inside the fold), "pls2" (partial least
        squares, two components, same units), "forward_aic" (`terms` terms from the same units).
    k : units kept by screening, default ``min(200, n_units // 5)``.
    folds : put the groups in this many folds at random; None: one fold a group.
    exclude : as in :func:`overlap.select`: units that are a benchmark's own text.
    permute : permute the scores first (one draw of the null).

    Returns
    -------
    DataFrame, one row a benchmark and method: `benchmark`, `method`, `r2` (1 - squared error / squared error
    of the training mean, so 0 is "no better than the mean" and negative is worse), `spearman` of prediction
    and score, `models`, `folds`.
    """
    known_methods = ["ridge", "pls2", "forward_aic"]
    for method in methods:
        if method not in known_methods:
            raise ValueError(f"method is '{method}'; {nearest(str(method), known_methods)}")
    x = np.asarray(surprisal)
    y, names, _ = inference.as_rows(scores, "scores")
    if x.shape[1] != y.shape[1]:
        raise DataError(f"scores have {y.shape[1]} models, surprisal has {x.shape[1]}; columns must correspond.")
    if np.isnan(x).any():
        raise DataError("cross_validated_r2 needs complete surprisal; leave out units or models with missing values.")
    rng = np.random.default_rng(seed)
    if permute:
        y = permute_scores(y, rng, "independent")
    k = min(200, len(x) // 5) if k is None else k
    codes = inference.group_codes(groups, y.shape[1])
    if folds is not None:
        codes = overlap.partition(codes, y.shape[1], folds, rng, minimum=1)
    predicted = np.full((len(methods), *y.shape), np.nan)
    baseline = np.full(y.shape, np.nan)
    for fold in np.unique(codes):
        test = codes == fold
        train = ~test
        chosen = overlap.select(x[:, train], y[:, train], k, "top", exclude=exclude)
        for i, c in enumerate(chosen):
            here = np.flatnonzero(train & ~np.isnan(y[i]))
            if c is None or len(here) < inference.MIN_MODELS - 1:
                continue
            baseline[i, test] = y[i, here].mean()
            features = x[c[0]].T.astype(np.float64)
            centre, scale = features[here].mean(axis=0), features[here].std(axis=0)
            features = (features - centre) / np.where(scale > 0, scale, 1.0)
            for m, method in enumerate(methods):
                predicted[m, i, test] = _predict(method, features[here], y[i, here], features[test], terms)
    rows = []
    for i, name in enumerate(names):
        for m, method in enumerate(methods):
            both = ~np.isnan(predicted[m, i]) & ~np.isnan(y[i])
            error = np.sum((y[i, both] - predicted[m, i, both]) ** 2)
            spread = np.sum((y[i, both] - baseline[i, both]) ** 2)
            r = np.nan
            if both.sum() >= 3:
                r = inference.spearman_by_row(y[i, both], predicted[m, i, both])[0]
            rows.append((name, method, 1 - error / spread if spread > 0 else np.nan, r, int(both.sum())))
    table = pd.DataFrame(rows, columns=["benchmark", "method", "r2", "spearman", "models"])
    return table.assign(folds=len(np.unique(codes)))


def _predict(method: str, train: np.ndarray, y: np.ndarray, test: np.ndarray, terms: int) -> np.ndarray:
    if method == "ridge":
        return RidgeCV(alphas=np.array(ALPHAS)).fit(train, y).predict(test)
    if method == "pls2":
        return PLSRegression(n_components=2, scale=False).fit(train, y).predict(test).ravel()
    return selection.forward_aic(train, y, max_size=min(terms, len(y) - 2)).predict(test)


# --- what the numbers depend on ---------------------------------------------------------------------------


def ratio_stability(
    surprisal,
    scores,
    ratios: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.2),
    *,
    method: str = "screened",
    bootstraps: int = 200,
    **options,
) -> pd.DataFrame:
    """Agreement (Spearman over pairs) of the signature overlap at each screening ratio with the one before.

    Columns `ratio`, `next_ratio`, `units` (mean signature size at `ratio`), `value`, `low`, `high`.
    """
    matrices = [overlap.in_sample(surprisal, scores, method=method, ratio=r, **options) for r in ratios]
    rows = []
    for a, b, one, other in zip(ratios, ratios[1:], matrices, matrices[1:]):
        rows.append((a, b, np.mean(one.attrs["sizes"]), *inference.agreement(one, other, bootstraps=bootstraps)))
    return pd.DataFrame(rows, columns=["ratio", "next_ratio", "units", "value", "low", "high"])


def regulariser_agreement(
    surprisal,
    scores,
    methods: Sequence[str] = ("forward_aic", "lasso", "elastic_net", "random"),
    *,
    bootstraps: int = 200,
    **options,
) -> tuple[pd.DataFrame, dict[str, list[int]]]:
    """Agreement of the signature overlap between ways to select, and the signature sizes of each.

    Options go to :func:`overlap.in_sample`. Returns (table with `a`, `b`, `value`, `low`, `high`,
    `benchmarks` that have a signature both ways; sizes). NaN where fewer than 5 benchmarks have one (a
    penalty can leave nothing).
    """
    matrices = {m: overlap.in_sample(surprisal, scores, method=m, **options) for m in methods}
    rows = []
    for i, a in enumerate(methods):
        for b in methods[i + 1 :]:
            good = [n for n in matrices[a].index if matrices[a].loc[n, n] == 1 and matrices[b].loc[n, n] == 1]
            pair = [matrices[m].loc[good, good] for m in (a, b)]
            enough = len(good) >= inference.MIN_BENCHMARKS
            value = inference.agreement(*pair, bootstraps=bootstraps) if enough else [np.nan] * 3
            rows.append((a, b, *value, len(good)))
    table = pd.DataFrame(rows, columns=["a", "b", "value", "low", "high", "benchmarks"])
    return table, {m: matrices[m].attrs["sizes"] for m in methods}


def corpus_halves(
    surprisal,
    scores,
    documents=None,
    *,
    repeats: int = 5,
    exclude=None,
    seed: int = 0,
    bootstraps: int = 200,
    **options,
) -> pd.DataFrame:
    """Agreement of the signature overlap between two halves of the corpus, cut between documents.

    `documents` names the document of each unit (None: units are cut singly); `exclude` is as in
    :func:`overlap.select`. Returns one row a repeat.
    """
    x = np.asarray(surprisal)
    codes = inference.group_codes(documents, len(x))
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(repeats):
        half = overlap.partition(codes, len(x), 2, rng)
        own = None if exclude is None else np.asarray(exclude, dtype=bool)
        barred = [None if own is None else own[half == h] for h in (0, 1)]
        pair = [overlap.in_sample(x[half == h], scores, exclude=b, **options) for h, b in zip((0, 1), barred)]
        rows.append(inference.agreement(*pair, bootstraps=bootstraps))
    return pd.DataFrame(rows)


def population_curve(
    surprisal,
    scores,
    labels,
    sizes: Sequence[int],
    compute: Callable[..., pd.DataFrame],
    *,
    repeats: int = 5,
    pairs=None,
    seed: int = 0,
    **options,
) -> pd.DataFrame:
    """AUC of same-label against other-label pairs when only some of the models are used.

    ``compute(surprisal, scores, **options)`` gives the overlap. Columns `models`, `repeat`, `auc`,
    `difference`. A draw in which a benchmark's scores are constant is drawn again (at most 20 times, then
    DataError).
    """
    x = np.asarray(surprisal)
    y, names, _ = inference.as_rows(scores, "scores")
    rng = np.random.default_rng(seed)
    rows = []
    for size in sizes:
        for repeat in range(repeats if size < y.shape[1] else 1):
            for _ in range(20):
                models = np.sort(rng.choice(y.shape[1], size=size, replace=False))
                if all(overlap.orders_models(row) for row in y[:, models]):
                    break
            else:
                raise DataError(f"with {size} models some benchmark's scores are always constant; use more models.")
            matrix = compute(x[:, models], y[:, models], **options)
            c = inference.within_between(
                pd.DataFrame(np.asarray(matrix), names, names),
                labels,
                pairs=pairs,
                bootstraps=0,
                permutations=0,
                pair_bootstraps=0,
            )
            rows.append((size, repeat, c.auc, c.difference))
    return pd.DataFrame(rows, columns=["models", "repeat", "auc", "difference"])


def ratio_curve(
    surprisal,
    scores,
    labels,
    ratios: Sequence[float],
    groups=None,
    *,
    repeats: int = 3,
    seed: int = 0,
    **options,
) -> pd.DataFrame:
    """AUC of same-label against other-label pairs at several screening ratios.

    At each ratio a signature is the best ``2 x ratio x n_units`` screened units (the best of both tails
    together), signed: on all models ("signature, same models", one row) and cross-fitted ("signature,
    cross-fitted", one row for each of `repeats` sets of splits). Options go to :func:`overlap.in_sample` and
    :func:`overlap.crossfit_signature` alike. Columns `ratio`, `units`, `measure`, `repeat`, `auc`.
    """
    x = np.asarray(surprisal)
    y, names, _ = inference.as_rows(scores, "scores")
    rows = []
    for ratio in ratios:
        k = max(2, int(2 * ratio * len(x)))
        found = [("signature, same models", 0, overlap.in_sample(x, y, k, "top", signed=True, **options))]
        for repeat in range(repeats):
            matrix = overlap.crossfit_signature(x, y, groups, k=k, splits=2, seed=seed + repeat, **options)
            found.append(("signature, cross-fitted", repeat, matrix))
        for measure, repeat, matrix in found:
            frame = pd.DataFrame(np.asarray(matrix), names, names)
            c = inference.within_between(frame, labels, bootstraps=0, permutations=0, pair_bootstraps=0)
            rows.append((ratio, k, measure, repeat, c.auc))
    return pd.DataFrame(rows, columns=["ratio", "units", "measure", "repeat", "auc"])


def level_spread(surprisal, scores, documents, *, chunk: int = 30, exclude=None) -> pd.DataFrame:
    """Spread of the units' correlation with each benchmark at three levels: unit, chunk of units, document.

    `documents` names the document of each unit, units being in reading order; a chunk is `chunk` consecutive
    units of a document. Surprisal is averaged within chunks and documents. Columns `benchmark`, `level`,
    `units`, `sd` (of Spearman's rho between surprisal and score over units), `chance_sd` (the same with
    permuted scores, one draw). The paper reports that the unit ("token") level is the widest. `exclude` is as
    in :func:`overlap.select`; a chunk or document with a barred unit is barred too.
    """
    x = np.asarray(surprisal, dtype=np.float64)
    y, names, _ = inference.as_rows(scores, "scores")
    codes = inference.group_codes(documents, len(x))
    place = pd.Series(codes).groupby(codes).cumcount().to_numpy() // chunk
    chunks = pd.factorize(pd.MultiIndex.from_arrays([codes, place]))[0]
    shuffled = permute_scores(y, np.random.default_rng(0))
    rows = []
    for level, by in (("unit", None), ("chunk", chunks), ("document", codes)):
        values = x if by is None else pd.DataFrame(x).groupby(by).mean().to_numpy()
        if len(values) < 3:
            continue
        m = (~np.isnan(y)).sum(axis=1)
        scale = 6 / (m * (m**2 - 1))
        real, chance = (screening.thrush(values, table) * scale for table in (y, shuffled))
        if exclude is not None:
            own = np.asarray(exclude, dtype=bool)
            own = own if by is None else pd.DataFrame(own).groupby(by).any().to_numpy()
            real, chance = np.where(own, np.nan, real), np.where(own, np.nan, chance)
        spread = zip(names, np.nanstd(real, axis=0), np.nanstd(chance, axis=0))
        rows += [(name, level, len(values), one, other) for name, one, other in spread]
    return pd.DataFrame(rows, columns=["benchmark", "level", "units", "sd", "chance_sd"])


def screening_agreement(
    surprisal, scores, ratio: float = 0.01, ties: screening.Ties = "name", exclude=None
) -> np.ndarray:
    """Share of the units that Thrush screening (with the given ties) keeps and Spearman's rho would keep too.

    Returns one share a benchmark. Without ties the two are the same statistic. `exclude` is as in
    :func:`overlap.select`.
    """
    x = np.asarray(surprisal)
    y, _, _ = inference.as_rows(scores, "scores")
    shares = []
    for i, row in enumerate(y):
        known = ~np.isnan(row)
        statistic = screening.thrush(x[:, known], row[None, known], ties=ties)
        own = np.zeros(len(x), dtype=bool) if exclude is None else np.asarray(exclude, dtype=bool)[:, i]
        kept = screening.screen(np.where(own[:, None], np.nan, statistic), ratio)[0]
        rho = inference.spearman_by_row(x[:, known], row[known])
        rho[own] = np.nan
        other = screening.screen(rho[:, None], ratio)[0]
        shares.append(len(np.intersect1d(kept, other)) / len(kept))
    return np.array(shares)
