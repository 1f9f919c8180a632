"""What the axes say, as tests: do they agree, which one explains performance, do the paper's claims hold.

Statistics are those of :mod:`helpers.inference`; this module only brings a study's axes to them and puts the
answers side by side: as measured and corrected for unreliability, with and without model scale held fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from helpers import inference, maps, overlap
from helpers.errors import DataError


def shared(axes: maps.Axes, wanted: Collection[str] | None = None) -> list[str]:
    """Return the benchmarks that all the wanted axes hold, in the axes' order."""
    chosen = [axes[a] for a in (wanted or axes)]
    return [n for n in axes.names if all(n in m.index for m in chosen)]


def corrected(axes: maps.Axes, axis: str) -> pd.DataFrame | None:
    """Return an axis with each pair divided by the root of the two reliabilities, or None without
    reliabilities.

    Benchmarks with an unknown or non-positive reliability are left out; corrected values may exceed 1 (see
    ``inference.disattenuate``), so this matrix is for tests, not for maps.
    """
    if axis not in axes.reliability:
        return None
    reliability = axes.reliability[axis].reindex(axes[axis].index)
    reliability = reliability[reliability > 0]
    if len(reliability) < maps.MINIMUM:
        return None
    r = reliability.to_numpy(float)
    matrix = axes[axis].loc[reliability.index, reliability.index]
    values = inference.disattenuate(matrix.to_numpy(), r[:, None], r[None])
    np.fill_diagonal(values, 1.0)
    return pd.DataFrame(values, matrix.index, matrix.columns)


def agreement(axes: maps.Axes | Mapping[str, pd.DataFrame], permutations: int = 999, seed: int = 0) -> pd.DataFrame:
    """Compare every two axes over the benchmarks they share: Mantel, raw and corrected, and Procrustes on the
    maps.

    Columns: ``a``, ``b``, ``n`` benchmarks, ``rho`` (Spearman over pairs, Mantel), ``p`` (permutation of
    benchmarks),
    ``p_holm`` (Holm over the rows), ``rho_corrected`` (the same on disattenuated matrices; NaN where an axis
    has no reliabilities), ``m2`` (Procrustes distance of the two maps). Axes that share fewer than 5
    benchmarks have NaN.
    """
    axes = maps.check(axes)
    embedded = maps.embed_together(axes)
    rows = []
    for a, b in itertools.combinations(axes, 2):
        names = shared(axes, [a, b])
        row = {
            "a": a,
            "b": b,
            "n": len(names),
            "rho": np.nan,
            "p": np.nan,
            "rho_corrected": np.nan,
            "m2": np.nan,
        }
        if len(names) >= maps.MINIMUM:
            test = inference.mantel(
                axes[a].loc[names, names], axes[b].loc[names, names], permutations=permutations, seed=seed
            )
            row |= {"rho": test.statistic, "p": test.p}
            row["m2"] = maps.protest(embedded[a].points, embedded[b].points, permutations=1, seed=seed)["m2"]
            sides = [corrected(axes, a), corrected(axes, b)]
            if all(s is not None for s in sides):
                both = sides[0].index.intersection(sides[1].index)
                if len(both) >= maps.MINIMUM:
                    row["rho_corrected"] = inference.matrix_spearman(*(s.loc[both, both] for s in sides))
        rows.append(row)
    table = pd.DataFrame(rows, columns=["a", "b", "n", "rho", "p", "rho_corrected", "m2"])
    table["p_holm"] = inference.adjust(table["p"], "holm")
    return table[["a", "b", "n", "rho", "p", "p_holm", "rho_corrected", "m2"]]


def covariates(benchmarks: pd.DataFrame, names: list[str], lengths: pd.Series | None = None) -> dict[str, pd.DataFrame]:
    """Return the nuisance matrices that the benchmarks allow: same format, same family, like length (1 =
    same).

    A nuisance that does not vary over the pairs, or for which a benchmark has no entry, is left out.
    """
    facts = benchmarks.drop_duplicates("benchmark").set_index("benchmark").reindex(names)
    found = {}
    for column in ("format", "family"):
        if column in facts.columns and facts[column].notna().all():
            same = (facts[column].to_numpy()[:, None] == facts[column].to_numpy()[None]).astype(float)
            found[f"same {column}"] = pd.DataFrame(same, names, names)
    if lengths is not None and lengths.reindex(names).notna().all():
        size = np.log(lengths.reindex(names).to_numpy(float))
        found["like length"] = pd.DataFrame(-np.abs(size[:, None] - size[None]), names, names)
    upper = np.triu_indices(len(names), 1)
    return {k: m for k, m in found.items() if np.ptp(m.to_numpy()[upper]) > 0}


def scale_free(scores: pd.DataFrame, scale: pd.Series, names: list[str]) -> pd.DataFrame | None:
    """Return performance overlap with model scale held fixed (partial Spearman), over models of known scale.

    None when scale is known for fewer than 10 models or takes fewer than 3 values. Benchmarks that lose a
    pair by the smaller number of models are left out.
    """
    scale = scale.reindex(scores.columns).dropna()
    if len(scale) < 10 or scale.nunique() < 3:
        return None
    part = scores.loc[names, scale.index]
    part = part[part.nunique(axis=1) > 1]
    matrix = overlap.performance(part, covariate=scale.to_numpy(float), undefined="nan")
    kept, _ = maps.finite_core(matrix)
    return matrix.loc[kept, kept] if len(kept) >= maps.MINIMUM else None


def explain(
    axes: maps.Axes,
    predictors: list[str],
    *,
    nuisances: Mapping[str, pd.DataFrame] | None = None,
    scaled: pd.DataFrame | None = None,
    permutations: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Regress performance overlap on the other axes and nuisances by MRQAP, in up to three readings.

    ``as measured``; ``scale held fixed`` (target: the `scaled` matrix); ``corrected for reliability`` (target
    and axes disattenuated where they have reliabilities; nuisances as they are). Columns: ``reading``,
    ``predictor``,
    ``coef`` (standardised ranks), ``p``, ``p_holm`` (within the reading, over axes and nuisances),
    ``partial_r``,
    ``unique_r2``, ``r2``, ``n``. A reading that cannot be computed is one row with the reason in
    ``predictor``.
    """
    nuisances = dict(nuisances or {})
    readings = {"as measured": (axes["performance"], {p: axes[p] for p in predictors})}
    if scaled is not None:
        readings["scale held fixed"] = (scaled, readings["as measured"][1])
    target = corrected(axes, "performance")
    if target is not None:
        readings["corrected for reliability"] = (
            target,
            {p: fixed if (fixed := corrected(axes, p)) is not None else axes[p] for p in predictors},
        )
    tables = []
    for reading, (y, x) in readings.items():
        names = [n for n in y.index if all(n in m.index for m in (*x.values(), *nuisances.values()))]
        block = {k: m.loc[names, names] for k, m in (x | nuisances).items()}
        upper = np.triu_indices(len(names), 1)
        block = {k: m for k, m in block.items() if len(names) >= 2 and np.ptp(m.to_numpy()[upper]) > 0}
        try:
            table = inference.mrqap(y.loc[names, names], block, permutations=permutations, seed=seed)
        except DataError as error:
            tables.append(pd.DataFrame({"reading": [reading], "predictor": [f"not possible: {error}"]}))
            continue
        r2, n = table.attrs["r2"], table.attrs["n"]
        table["p_holm"] = inference.adjust(table["p"], "holm")
        table = table.rename_axis("predictor").reset_index().assign(reading=reading, r2=r2, n=n)
        tables.append(table)
    columns = ["reading", "predictor", "coef", "p", "p_holm", "partial_r", "unique_r2", "r2", "n"]
    return pd.concat(tables, ignore_index=True).reindex(columns=columns)


# --- the paper's claims -----------------------------------------------------------------------------------


def twins(names: Collection[str], benchmarks: pd.DataFrame) -> dict[str, str]:
    """Return the benchmarks that ask the questions of another one of `names`: {twin: the one to keep}.

    Known from the column ``same_items_as`` of the study's benchmarks, or from a name with ``_cot`` (the same
    items with chain of thought). Two prompts for one set of questions are no two benchmarks of a function:
    counted as such they make every axis look as if it knew the function.

    >>> twins(["gsm8k", "gsm8k_cot", "b", "c"], pd.DataFrame({"benchmark": ["b", "c"], "same_items_as": [None, "b"]}))
    {'gsm8k_cot': 'gsm8k', 'c': 'b'}
    """
    names = list(names)
    same = {n: n.removesuffix("_cot") for n in names if n.endswith("_cot")}
    if "same_items_as" in benchmarks.columns:
        known = benchmarks.dropna(subset="same_items_as").drop_duplicates("benchmark")
        same |= dict(zip(known["benchmark"], known["same_items_as"]))
    return {n: same[n] for n in names if same.get(n) in names}


def without_twins(axes: maps.Axes, benchmarks: pd.DataFrame) -> tuple[maps.Axes, dict[str, str]]:
    """Return the axes without :func:`twins`, and those left out; an axis that lacks the original keeps its twin."""
    gone: dict[str, str] = {}
    sides: list[dict[str, pd.DataFrame]] = [{}, {}, {}]
    for axis, matrix in axes.values.items():
        doubles = twins(matrix.index, benchmarks)
        gone |= doubles
        kept = [n for n in matrix.index if n not in doubles]
        for side, full in zip(sides, (axes.values, axes.low, axes.high)):
            if axis in full:
                side[axis] = full[axis].loc[kept, kept]
    return maps.check(maps.Axes(*sides, dict(axes.reliability), axes.missing, axes.interval)), gone


# --- a second world against the first, weakened to match --------------------------------------------------


def matched_control(
    main: overlap.Tables,
    variant: overlap.Tables,
    *,
    repeats: int = 4,
    k: int = 200,
    splits: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare a population with the main one, and with the main one weakened to its reliability and text.

    A second population can differ from the first in more than what was done to it: its benchmarks may be less
    reliable and its corpus shorter, and both alone lower every AUC. So the main population is weakened to
    match, `repeats` times: normal noise is added to each benchmark's scores (in the main population's own
    ranks of models) until its reliability is that of the same benchmark in the variant, and whole documents
    are drawn until the corpus has as many units. What the variant falls short of the weakened main
    population is not reliability and not corpus size. Model shapes and amounts learned are NOT matched.

    Parameters
    ----------
    main, variant : Tables
        Benchmarks of one name are taken for the same; only those are compared.
    k, splits : units of a signature and splits of ``overlap.crossfit_signature``.

    Returns
    -------
    DataFrame
        ``population`` (main, main weakened, variant), ``axis`` (performance, signature cross-fitted), ``pairs``
        (``all``: same function against other; ``hard``: same function in another format against another
        function in the same format), ``auc``, ``low``, ``high`` (95 % interval from resampling benchmarks;
        for the weakened one the mean AUC and the extremes of the repeats' intervals), ``reliability`` (median
        over benchmarks) and ``units``.
    """
    names = [b for b in main.scores.index if b in variant.scores.index]
    if len(names) < maps.MINIMUM:
        raise DataError(f"The two populations share {len(names)} benchmarks; at least {maps.MINIMUM} needed.")
    facts = main.benchmarks.loc[names]
    rng = np.random.default_rng(seed)
    goal = inference.score_reliability(variant.scores.loc[names], variant.stderr.loc[names, variant.scores.columns])
    have = inference.score_reliability(main.scores.loc[names], main.stderr.loc[names, main.scores.columns])
    noise = np.sqrt(np.maximum(have / np.clip(goal, 0.05, 1) - 1, 0))
    rows = []

    def measure(population: str, tables: overlap.Tables, scores: pd.DataFrame, units, reliability) -> None:
        where = tables.scores.index.get_indexer(names)
        barred = tables.exclude[:, where][units]
        signature = overlap.crossfit_signature(
            np.asarray(tables.surprisal)[units],
            scores,
            tables.groups,
            k=k,
            splits=splits,
            seed=seed,
            exclude=barred,
        )
        for axis, matrix in (
            ("performance", overlap.performance(scores)),
            ("signature (cross-fitted)", pd.DataFrame(np.asarray(signature), names, names)),
        ):
            for pairs in ("all", "hard"):
                c = _contrast(matrix, facts, pairs, seed)
                row = {"population": population, "axis": axis, "pairs": pairs, "auc": c.auc, "low": c.auc_low}
                row |= {
                    "high": c.auc_high,
                    "reliability": float(np.median(reliability)),
                    "units": int(units.sum()),
                }
                rows.append(row)

    every = np.ones(len(main.surprisal), bool)
    measure("main", main, main.scores.loc[names], every, have)
    for _ in range(repeats):
        scores = main.scores.loc[names]
        spread = scores.std(axis=1, ddof=1).to_numpy()[:, None] * noise[:, None]
        noisy = scores + spread * rng.normal(size=scores.shape)
        reached = have / (1 + noise**2)
        units = _documents(main.units, len(variant.surprisal), rng)
        measure("main, weakened to match", main, noisy, units, reached)
    measure("variant", variant, variant.scores.loc[names], np.ones(len(variant.surprisal), bool), goal)
    keys = ["population", "axis", "pairs"]
    summary = {"auc": "mean", "low": "min", "high": "max", "reliability": "median", "units": "median"}
    return pd.DataFrame(rows).groupby(keys, sort=False).agg(summary).reset_index()


def _contrast(matrix: pd.DataFrame, facts: pd.DataFrame, pairs: str, seed: int) -> inference.Contrast:
    function, form = facts["function"].to_numpy(), facts["format"].to_numpy()
    chosen = None
    if pairs == "hard":
        chosen = (function[:, None] == function[None]) != (form[:, None] == form[None])
    return inference.within_between(
        matrix, facts["function"], pairs=chosen, bootstraps=200, permutations=0, pair_bootstraps=0, seed=seed
    )


def _documents(units: pd.DataFrame, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mark whole documents, drawn at random, that hold at least `count` units together (all where fewer)."""
    codes, names = pd.factorize(units["doc_id"])
    order = rng.permutation(len(names))
    sizes = np.bincount(codes)[order]
    enough = int(np.searchsorted(np.cumsum(sizes), count)) + 1
    return np.isin(codes, order[:enough])


def block_contrast(
    matrix: pd.DataFrame,
    functions: pd.Series,
    left: Collection[str],
    right: Collection[str] | None,
    permutations: int = 999,
    seed: int = 0,
) -> dict:
    """Compare the similarity between two sets of functions with the other cross-function pairs.

    ``difference`` = mean over pairs (one benchmark in `left`, the other in `right`, different functions)
    minus the mean over all other pairs of benchmarks of different functions; `right` None means everything
    outside `left`. p is two-sided by permuting benchmarks (functions keep their sizes), ``low``/``high`` a 95
    % interval by resampling benchmarks. Returns also ``inside``, ``outside`` (the two means), ``pairs``,
    ``n``; NaN where either set has fewer than 2 benchmarks.
    """
    functions = functions.reindex(matrix.index)
    if functions.isna().any():
        raise DataError(
            f"Benchmark '{functions.index[functions.isna()][0]}' has no function; give every benchmark one."
        )
    label = functions.astype(str).to_numpy()
    one = np.isin(label, list(left))
    two = ~one if right is None else np.isin(label, list(right))
    result = dict.fromkeys(("difference", "low", "high", "p", "inside", "outside"), np.nan)
    result |= {"pairs": 0, "n": len(matrix), "left": int(one.sum()), "right": int(two.sum())}
    if one.sum() < 2 or two.sum() < 2:
        return result
    i, j = np.triu_indices(len(matrix), 1)
    array = matrix.to_numpy(float)
    values = array[i, j]
    cross = label[i] != label[j]
    block = ((one[i] & two[j]) | (two[i] & one[j])) & cross
    rest = cross & ~block
    if not block.any() or not rest.any():
        return result

    def difference(v: np.ndarray, weight: np.ndarray | None = None) -> float:
        w = np.ones(len(v)) if weight is None else weight
        if w[block].sum() == 0 or w[rest].sum() == 0:
            return np.nan
        return float(np.average(v[block], weights=w[block]) - np.average(v[rest], weights=w[rest]))

    observed = difference(values)
    random = np.random.default_rng(seed)
    null, draws = [], []
    for _ in range(permutations):
        order = random.permutation(len(array))
        null.append(difference(array[order[i], order[j]]))
        count = random.multinomial(len(array), np.full(len(array), 1 / len(array)))
        draws.append(difference(values, (count[i] * count[j]).astype(float)))
    low, high = inference.interval(draws)
    result |= {"difference": observed, "low": float(low), "high": float(high), "pairs": int(block.sum())}
    result |= {"p": inference.permutation_p(null, observed), "inside": float(values[block].mean())}
    return result | {"outside": float(values[rest].mean())}


def verdict(row: Mapping, expected: str, alpha: float = 0.05) -> str:
    """Put a contrast in words: does the data say what the claim says (`expected` 'lower' or 'higher')?

    >>> verdict({"difference": -0.2, "p": 0.01}, "lower")
    'supported'
    >>> verdict({"difference": float("nan"), "p": float("nan")}, "lower")
    'cannot be judged here'
    """
    if not np.isfinite(row["difference"]) or not np.isfinite(row["p"]):
        return "cannot be judged here"
    if row["p"] > alpha:
        return "not decided"
    return "supported" if (row["difference"] < 0) == (expected == "lower") else "contradicted"


def level(matrix: pd.DataFrame, bootstraps: int = 999, seed: int = 0) -> dict[str, float]:
    """Return the median pair, and the shares of pairs above 0.5 and 0.8, with intervals (benchmarks resampled)."""
    i, j = np.triu_indices(len(matrix), 1)
    values = matrix.to_numpy(float)[i, j]
    order = np.argsort(values)

    def summary(weight: np.ndarray) -> list[float]:
        total = np.cumsum(weight[order])
        median = values[order[np.searchsorted(total, total[-1] / 2)]]
        return [median, weight[values > 0.5].sum() / total[-1], weight[values > 0.8].sum() / total[-1]]

    random = np.random.default_rng(seed)
    draws = []
    for _ in range(bootstraps):
        count = random.multinomial(len(matrix), np.full(len(matrix), 1 / len(matrix)))
        weight = (count[i] * count[j]).astype(float)
        if weight.sum() > 0:
            draws.append(summary(weight))
    low, high = inference.interval(draws)
    result: dict[str, float] = {"pairs": len(values)}
    for k, key in enumerate(("median", "above_0.5", "above_0.8")):
        result |= {
            key: float(summary(np.ones(len(values)))[k]),
            f"{key}_low": float(low[k]),
            f"{key}_high": float(high[k]),
        }
    return result


CODING = ("code", "coding", "programming")
KNOWLEDGE = ("knowledge",)
REASONING = ("reasoning", "logic", "math", "mathematics", "commonsense", "world modeling", "world modelling")


def claims(axes: maps.Axes, functions: pd.Series, permutations: int = 999, seed: int = 0) -> pd.DataFrame:
    """Judge two of the paper's claims on every axis: coding stands apart; knowledge and reasoning overlap.

    Which function names count as coding, knowledge and reasoning is in :data:`CODING`, :data:`KNOWLEDGE` and
    :data:`REASONING`. p-values are Holm-corrected over the axes of a claim (``p_holm``) and ``verdict`` uses
    those.
    """
    rows = []
    for claim, left, right, expected in (
        ("coding stands apart from the other functions", CODING, None, "lower"),
        ("knowledge and reasoning overlap more than other functions", KNOWLEDGE, REASONING, "higher"),
    ):
        part = []
        for axis, matrix in axes.values.items():
            row = block_contrast(matrix, functions, left, right, permutations, seed)
            part.append({"claim": claim, "axis": axis, "expected": expected} | row)
        table = pd.DataFrame(part)
        table["p_holm"] = inference.adjust(table["p"], "holm")
        table["verdict"] = [
            verdict({"difference": d, "p": p}, expected) for d, p in zip(table["difference"], table["p_holm"])
        ]
        rows.append(table)
    return pd.concat(rows, ignore_index=True)
