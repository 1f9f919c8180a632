"""How much two benchmarks overlap: by performance, by signature, by profile; paper mode and cross-fitted.

Surprisal is (n_units, n_models) in nats per unit, which IS log-perplexity; scores are (n_benchmarks,
n_models), higher is better. NaN means *not measured* and is left out pairwise. Every result is a DataFrame
benchmark x benchmark; names come from the DataFrames given, or are positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from helpers import inference, provenance, screening, selection
from helpers.errors import DataError, nearest

if TYPE_CHECKING:
    from helpers.studies import Study

Level = Literal["log", "raw"]
Standardise = Literal["model", "unit", "none"]
Design = Literal["auto", "three-way", "two-way"]
MIN_PART = 4  # models in any part of a cross-fit
AXES = ("performance", "semantic", "signature", "signature-crossfit", "neural", "attention")


# --- performance ------------------------------------------------------------------------------------------


def performance(scores, *, covariate=None, minimum: int = inference.MIN_MODELS, undefined: str = "raise"):
    """Performance overlap: Spearman correlation of two benchmarks' scores over models (KNOWN, the paper).

    Parameters
    ----------
    scores : (n_benchmarks, n_models) array or DataFrame, NaN = not measured, left out pairwise.
    covariate : optional (n_models,) or (q, n_models), e.g. mean surprisal or log parameters: the partial
        (rank) correlation given it.
    minimum : least number of models that a pair must share.
    undefined : "raise", or "nan" to set a pair without enough models (or constant on them) to NaN and list it
        in ``attrs["undefined"]``.

    Returns
    -------
    DataFrame benchmark x benchmark, diagonal 1.

    Raises
    ------
    DataError : constant scores, fewer than `minimum` shared models, infinite values.

    Examples
    --------
    >>> performance([[1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 3, 4, 5, 6, 7, 8]]).iloc[0, 1].round(4).item()
    0.9762
    """
    values, names, _ = inference.as_rows(scores, "scores")
    _refuse_constant(values, names, "scores", undefined)
    return _correlate(values, names, "scores", covariate, minimum, undefined)


def _refuse_constant(values: np.ndarray, names: list, what: str, undefined: str) -> None:
    if undefined not in ("raise", "nan"):
        raise ValueError(f"undefined is '{undefined}'; {nearest(undefined, ['raise', 'nan'])}")
    for row, name in zip(values, names):
        known = row[~np.isnan(row)]
        if undefined == "raise" and len(known) and np.ptp(known) == 0:
            raise DataError(
                f"{what}: benchmark '{name}' has the same value ({known[0]:g}) for all {len(known)} models, so it "
                "orders no models. Leave it out (benchmarks.csv, 'usable')."
            )


def _correlate(values, names, what, covariate, minimum, undefined) -> pd.DataFrame:
    known = (~np.isnan(values)).astype(float)
    shared = (known @ known.T).astype(int)
    poor = np.argwhere(np.triu(shared < minimum))
    if len(poor) and undefined == "raise":
        a, b = poor[0]
        raise DataError(
            f"{what}: benchmarks '{names[a]}' and '{names[b]}' share {shared[a, b]} model(s), at least {minimum} are "
            f"needed for a correlation that means anything ({len(poor)} such pair(s)). Add models, leave the benchmark "
            "out, or pass undefined='nan'."
        )
    stacked, extra = inference.with_covariate(values, covariate)
    matrix = inference.spearman(stacked, minimum=max(minimum, 2 + extra))
    if extra:
        matrix = inference.partial_from_matrix(matrix, extra)
    lost = [(names[a], names[b]) for a, b in np.argwhere(np.triu(np.isnan(matrix)))]
    if lost and undefined == "raise":
        raise DataError(
            f"{what}: the overlap of '{lost[0][0]}' with '{lost[0][1]}' is undefined: on the models they share one of "
            "them is constant (or the covariate explains it entirely). Pass undefined='nan' to leave it open."
        )
    matrix[np.diag_indices(len(names))] = np.where(np.isnan(np.diag(matrix)), np.nan, 1.0)
    frame = pd.DataFrame(matrix, index=pd.Index(names), columns=pd.Index(names))
    if undefined == "nan":
        frame.attrs["undefined"] = [[str(a), str(b)] for a, b in lost]
    return frame


# --- signatures -------------------------------------------------------------------------------------------


def _check_surprisal(surprisal, level: Level) -> tuple[np.ndarray, list]:
    names = list(surprisal.columns) if isinstance(surprisal, pd.DataFrame) else None
    values = np.asarray(surprisal)
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(f"surprisal: expected (n_units, n_models), found shape {values.shape}.")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    names = names or list(range(values.shape[1]))
    bad = np.argwhere(np.isinf(values))
    if len(bad):
        raise DataError(
            f"surprisal: {len(bad)} infinite value(s), the first in unit row {bad[0][0]} for model "
            f"'{names[bad[0][1]]}': the model gave that unit probability zero. Extract again in float32, or set NaN."
        )
    if level not in ("log", "raw"):
        raise ValueError(f"level is '{level}'; {nearest(str(level), ['log', 'raw'])}")
    if level == "raw" and np.nanmax(values) > 700:
        raise DataError(
            f"surprisal reaches {np.nanmax(values):.0f} nats a unit, whose perplexity exp(surprisal) overflows; use "
            "level='log', or units smaller than this."
        )
    same = selection.duplicate_models(surprisal)
    if same:
        warnings.warn(
            f"models with exactly equal surprisal: {', '.join(' = '.join(map(str, t)) for t in same)}. They count as "
            "independent evidence that they are not; keep one of each.",
            stacklevel=3,
        )
    return values, names


class _Pool:
    """z-scores of selected units against each model's mean and sd over the whole matrix."""

    def __init__(self, surprisal, level: Level, standardise: Standardise = "model") -> None:
        self.values, self.models = _check_surprisal(surprisal, level)
        self.level = level
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a model without any value gives NaN, said below
            x = self._level(self.values)
            self.mean, self.sd = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
        for name, sd in zip(self.models, self.sd):
            if not sd > 0:
                raise DataError(
                    f"surprisal: model '{name}' has "
                    + ("no value" if np.isnan(sd) else "one value in all units")
                    + ", so its perplexity cannot be z-scored. Leave the model out."
                )

        if standardise not in ("model", "unit", "none"):
            raise ValueError(f"standardise is '{standardise}'; {nearest(str(standardise), ['model', 'unit', 'none'])}")
        self.standardise = standardise

    def _level(self, x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float64)
        return np.exp(x) if self.level == "raw" else x

    def z(self, units: np.ndarray, models=slice(None)) -> np.ndarray:
        x = self._level(self.values[units][:, models])
        if self.standardise == "none":
            return x
        if self.standardise == "model":
            return (x - self.mean[models]) / self.sd[models]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a unit that none of these models measured stays NaN
            mean, sd = np.nanmean(x, axis=1, keepdims=True), np.nanstd(x, axis=1, keepdims=True)
        return (x - mean) / np.where(sd > 0, sd, 1.0)

    def mean_z(self, units: np.ndarray, signs: np.ndarray | None, models=slice(None)) -> np.ndarray:
        z = self.z(units, models)
        if signs is not None:
            z = z * signs[:, None]
        if not np.isnan(z).any():
            return z.mean(axis=0)
        known = ~np.isnan(z)
        count = known.sum(axis=0)
        return np.where(count > 0, np.where(known, z, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def activity(
    surprisal,
    signatures: Mapping[Any, Any],
    *,
    level: Level = "log",
    signed: bool = False,
    standardise: Standardise = "model",
) -> pd.DataFrame:
    """Mean z-scored (log-)perplexity of each model on each benchmark's signature.

    ``u_i(S) = mean over j in S of (x_ij - mu_i) / sd_i`` with mu_i, sd_i over the WHOLE matrix of model i.
    Parameters as in :func:`signature`. Returns a DataFrame (n_benchmarks, n_models). With `signed`, units
    that fall as the score rises are turned round, so that a large u predicts a large score. Other ways than the
    paper's to put units and models on one scale: ``standardise="unit"`` z-scores each unit over the models, so that
    every unit weighs the same and each model's general level stays in; ``"none"`` takes plain (log-)perplexity.

    >>> x = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0]])
    >>> activity(x, {"a": [0], "b": [2]}).round(3).to_numpy().tolist()
    [[-1.225, -0.707], [1.225, 1.414]]
    """
    pool = _Pool(surprisal, level, standardise)
    index = pd.Index(list(signatures))
    rows = [pool.mean_z(*_members(n, s, len(pool.values), signed)) for n, s in signatures.items()]
    return pd.DataFrame(np.array(rows).reshape(len(index), len(pool.models)), index=index, columns=pool.models)


def _members(name, signature, n_units: int, signed: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Read one dict value: indices, or (indices, signs)."""
    signs = None
    if isinstance(signature, tuple) and len(signature) == 2 and all(np.ndim(part) == 1 for part in signature):
        signature, signs = signature
        signs = np.sign(np.asarray(signs, dtype=float))
    units = np.asarray(signature)
    if units.ndim != 1 or units.size == 0:
        raise DataError(f"signature of '{name}' is empty or not a flat list of unit positions (shape {units.shape}).")
    if units.dtype.kind not in "iu":
        raise DataError(f"signature of '{name}' holds {units.dtype} values; expected integer unit positions.")
    if units.min() < 0 or units.max() >= n_units:
        raise DataError(
            f"signature of '{name}' names unit {units.max() if units.max() >= n_units else units.min()}, but surprisal "
            f"has rows 0 to {n_units - 1}. Unit ids are turned into positions by overlap.from_table."
        )
    if len(np.unique(units)) < len(units):
        raise DataError(f"signature of '{name}' names a unit more than once.")
    if not signed:
        return units, None
    if signs is None:
        raise DataError(
            f"signed=True needs the sign of each unit's association with the benchmark: give '{name}' as a pair "
            "(indices, signs), for instance the units' Thrush statistics or coefficients."
        )
    if len(signs) != len(units) or not np.isin(signs, (-1, 1)).all():
        raise DataError(f"signature of '{name}': {len(units)} units need {len(units)} signs, none of them 0 or NaN.")
    return units, signs


def signature(
    surprisal,
    signatures: Mapping[Any, Any],
    pool: str = "matrix",
    level: Level = "log",
    signed: bool = False,
    *,
    covariate=None,
    minimum: int = inference.MIN_MODELS,
    undefined: str = "raise",
) -> pd.DataFrame:
    """Signature overlap in the paper's words: Spearman over models of the signatures' mean z-scores.

    Parameters
    ----------
    surprisal : (n_units, n_models) nats per unit (array or DataFrame), NaN = not measured.
    signatures : mapping benchmark -> unit positions, or -> (unit positions, signs); signs (any non-zero
        numbers: their sign counts) say whether surprisal rises (+) or falls (-) with the score.
    pool : "matrix": each model is z-scored over the whole matrix (INFERRED; the paper does not say). "pair"
        and "own" raise ValueError that says why they cannot be.
    level : "log": x = surprisal, that is log-perplexity (sane default); "raw": x = exp(surprisal), the
        paper's word, heavy-tailed.
    signed : turn units with a negative sign round before averaging; the paper's words leave it out, and both
        tails then partly cancel.
    covariate : as in :func:`performance`.

    Returns
    -------
    DataFrame benchmark x benchmark, diagonal 1.

    Raises
    ------
    DataError : empty signatures, unknown units, missing signs, infinite surprisal, fewer than `minimum`
    models.

    Warns
    -----
    UserWarning : two models with exactly equal surprisal.

    Notes
    -----
    Selected and compared on the same models this is circular (the units were chosen because they copy the
    scores of these models): see :func:`crossfit_signature`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 12))
    >>> signature(x, {"a": [1, 2, 3], "b": [1, 2, 3]}).loc["a", "b"].item()
    1.0
    """
    if pool == "pair":
        raise ValueError(
            "pool='pair' (z-scores over only the two signatures) gives exactly -1 for every pair of disjoint "
            "signatures of one size: the two means then sum to zero in every model, so one is minus the other. Use "
            "pool='matrix'."
        )
    if pool == "own":
        raise ValueError(
            "pool='own' (z-scores over each signature alone) is undefined: the mean of z-scores over the pool they "
            "were computed from is 0 in every model, and a constant has no rank correlation. Use pool='matrix'."
        )
    if pool != "matrix":
        raise ValueError(f"pool is '{pool}'; {nearest(str(pool), ['matrix'])}")
    u = activity(surprisal, signatures, level=level, signed=signed)
    return _correlate(u.to_numpy(), list(u.index), "signature", covariate, minimum, undefined)


def unit_reliability(
    surprisal, signatures: Mapping[Any, Any], *, level: Level = "log", signed: bool = False, splits: int = 20
) -> pd.Series:
    """Split-half reliability over the units of each signature, stepped up; NaN for fewer than 2 units.

    Parameters as in :func:`signature`. It says how well the units of one signature agree on the models, not
    whether other models would have led to the same units (see :func:`crossfit`).
    """
    pool = _Pool(surprisal, level)
    out = {}
    for name, value in signatures.items():
        units, signs = _members(name, value, len(pool.values), signed)
        z = pool.z(units) if signs is None else pool.z(units) * signs[:, None]
        out[name] = inference.split_half(z, splits=splits)
    return pd.Series(out, name="reliability")


def from_table(table: pd.DataFrame, unit_ids, *, method: str | None = None, fold=None) -> dict:
    """Turn ``signatures.parquet`` into ``{benchmark: (positions, signs)}`` for :func:`signature`.

    `table` has columns benchmark, unit_id, coef, order, method, fold; `unit_ids` are the surprisal rows' ids
    in order; `method` and `fold` choose rows. The sign is the sign of `coef`. Raises DataError for unknown
    methods, folds and units.

    >>> t = pd.DataFrame({"benchmark": ["a", "a"], "unit_id": [7, 9], "coef": [-0.1, 2.0]})
    >>> {k: (i.tolist(), s.tolist()) for k, (i, s) in from_table(t, [9, 8, 7]).items()}
    {'a': ([2, 0], [-1.0, 1.0])}
    """
    for column, wanted in (("method", method), ("fold", fold)):
        if wanted is not None:
            known = sorted(map(str, table[column].unique()))
            table = table[table[column].astype(str) == str(wanted)]
            if table.empty:
                raise DataError(f"signatures: no row with {column} '{wanted}'; {nearest(str(wanted), known)}")
    position = pd.Index(unit_ids).get_indexer(table["unit_id"])
    if (position < 0).any():
        raise DataError(f"signatures: unit {table['unit_id'].iloc[int(np.argmin(position))]} is not in surprisal.")
    table = table.assign(position=position, sign=np.sign(table["coef"]).astype(float))
    out = {}
    for name, rows in table.groupby("benchmark", sort=False):
        if rows["position"].duplicated().any():
            raise DataError(f"signatures: '{name}' names a unit twice; choose one method and one fold.")
        out[name] = (rows["position"].to_numpy(), rows["sign"].to_numpy())
    return out


def pick(statistic: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Take the k units (both tails, k/2 each) that agree best with each benchmark, with their signs.

    `statistic` is (n_units, n_benchmarks) from ``screening.thrush``. Returns (positions, signs) per
    benchmark, ready for :func:`signature`. Raises DataError when k is not between 2 and the number of units.

    >>> pick(np.array([[-3.0], [1.0], [2.0]]), 2)
    [(array([0, 2]), array([-1.,  1.]))]
    """
    n = len(statistic)
    if not 2 <= k <= n:
        raise DataError(f"k is {k}; expected between 2 and the number of units, {n}.")
    out = []
    for j, units in enumerate(screening.screen(statistic, ratio=k // 2 / n)):
        value = statistic[units, j]
        units, value = units[value != 0], value[value != 0]
        out.append((units, np.sign(value).astype(float)))
    return out


# --- cross-fitting ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossfit:
    """What :func:`crossfit` measured. DataFrames are benchmark x benchmark, Series per benchmark.

    - `overlap`, `low`, `high`: the cross-fitted signature overlap and its bootstrap interval; diagonal 1.
    - `prediction`: row's signature (selected on some models) against column's scores (on other models).
    - `reliability`: agreement of a benchmark with itself when two disjoint sets of models select its
      signature and a third compares them (three-way design), else split-half over its units; columns
      reliability, low, high (the interval only three-way).
    - `units_reliability`: split-half over the units of one selection, stepped up (Spearman-Brown).
    - `spread`: standard deviation of the overlap over splits (not a standard error: splits share models).
    - `details`: design, splits, models a part, what was left out and why.
    """

    overlap: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    prediction: pd.DataFrame
    reliability: pd.DataFrame
    units_reliability: pd.Series
    spread: pd.DataFrame
    details: dict = field(default_factory=dict)


def partition(groups, n_models: int, parts: int, rng: np.random.Generator, minimum: int = MIN_PART) -> np.ndarray:
    """Split models into `parts` of similar size without cutting a group; returns the part of each model.

    Raises DataError when no split leaves `minimum` models in each part.

    >>> p = partition(["a", "a", "b", "b"], 4, 2, np.random.default_rng(0), minimum=2)
    >>> bool(p[0] == p[1] and p[2] == p[3] and p[0] != p[2])
    True
    """
    codes = inference.group_codes(groups, n_models)
    sizes = np.bincount(codes)
    for _ in range(200):
        load = rng.random(parts) * 1e-6  # breaks ties at random
        part = np.empty(len(sizes), dtype=int)
        for g in rng.permutation(len(sizes)):
            part[g] = np.argmin(load)
            load[part[g]] += sizes[g]
        if np.round(load).min() >= minimum:
            return part[codes]
    shown = ", ".join(str(s) for s in sorted(sizes, reverse=True)[:8])
    raise DataError(
        f"{n_models} models in {len(sizes)} group(s) (sizes {shown}) cannot be split into {parts} parts of at least "
        f"{minimum} models without cutting a group. Use finer groups, more models, or design='two-way'."
    )


def _choose_design(design: Design, groups, n_models: int) -> str:
    if design not in ("auto", "three-way", "two-way"):
        raise ValueError(f"design is '{design}'; {nearest(str(design), ['auto', 'three-way', 'two-way'])}")
    if design != "auto":
        return design
    try:
        partition(groups, n_models, 3, np.random.default_rng(0))
    except DataError:
        return "two-way"
    return "three-way"


def select(
    surprisal: np.ndarray,
    scores: np.ndarray,
    k: int = 200,
    method: str = "top",
    *,
    ratio: float = 0.01,
    max_size: int | None = None,
    alpha: float = 0.01,
    statistic: screening.Statistic = "thrush",
    ties: screening.Ties = "average",
    exclude=None,
    seed: int = 0,
) -> list:
    """Choose signatures on the given models: a list of (positions, signs), None where scores order nothing.

    Parameters
    ----------
    surprisal : (n_units, n_models). scores : (n_benchmarks, n_models).
    method : "top": the `k` best screened units (see :func:`pick`). All others start from the units that
        screening keeps at `ratio` a tail: "screened" takes them all, "random" takes `k` of them at random
        (the paper's control), "forward_aic" (up to `max_size`), "lasso" and "elastic_net" (`alpha`) select.
        Units with a missing value are not offered to those three.
    statistic, ties : of screening; ``ties="name"`` goes by the order of the columns.
    """
    known = ["top", "screened", "random", "forward_aic", "lasso", "elastic_net"]
    if method not in known:
        raise ValueError(f"method is '{method}'; {nearest(str(method), known)}")
    out: list = [None] * len(scores)
    usable = np.flatnonzero([orders_models(row) for row in scores])
    if not len(usable):
        return out
    how = selection.Mode(statistic=statistic, ties=ties)
    barred = selection.barred_units(exclude, (len(surprisal), len(scores)))
    value = selection.screening_statistic(surprisal, scores[usable], how, barred[:, usable])
    if statistic == "preselect":
        value = 0.5 - value  # as Thrush: below zero where surprisal falls as the score rises
    if method == "top":
        chosen = pick(value, k)
    else:
        rng = np.random.default_rng(seed)
        chosen = []
        for j, units in enumerate(screening.screen(value, ratio)):
            if method == "random":
                units = np.sort(rng.choice(units, size=min(k, len(units)), replace=False))
            elif method != "screened":
                units = _regress(surprisal, scores[usable[j]], units, method, max_size, alpha)
            chosen.append((units, np.sign(value[units, j]).astype(float)))
    for position, (units, signs) in zip(usable, chosen):
        kept = np.isin(signs, (-1, 1))
        out[position] = (units[kept], signs[kept]) if kept.any() else None
    return out


def _regress(surprisal, score, units, method, max_size, alpha) -> np.ndarray:
    known = ~np.isnan(score)
    features = surprisal[units][:, known].T.astype(np.float64)
    complete = np.flatnonzero(~np.isnan(features).any(axis=0))
    features = features[:, complete]
    how = selection.Mode(method="forward" if method == "forward_aic" else method, alpha=alpha)
    cap = known.sum() - 2 if max_size is None else min(max_size, known.sum() - 2)
    fit = selection.fit_candidates(features, score[known], how, int(cap))
    return units[complete][np.asarray(fit.indices, dtype=int)]


def in_sample(
    surprisal,
    scores,
    k: int = 200,
    method: str = "forward_aic",
    *,
    level: Level = "log",
    signed: bool = False,
    covariate=None,
    **options,
) -> pd.DataFrame:
    """Signature overlap selected and compared on the SAME models: the paper's way, circular by construction.

    Options as in :func:`select`. ``attrs["sizes"]`` holds the size of each signature.
    """
    pool = _Pool(surprisal, level)
    y, names, _ = inference.as_rows(scores, "scores")
    _refuse_constant(y, names, "scores", "raise")
    chosen = select(pool.values, y, k, method, **options)
    rows = _activities(pool, chosen, np.arange(y.shape[1]), signed)
    empty = [str(n) for n, c in zip(names, chosen) if c is None]
    frame = _correlate(
        rows, names, f"signature ({method})", covariate, inference.MIN_MODELS, "nan" if empty else "raise"
    )
    frame.attrs |= {"sizes": [0 if c is None else len(c[0]) for c in chosen], "empty": empty}
    return frame


def orders_models(scores: np.ndarray) -> bool:
    """Return whether a row of scores can order models: at least :data:`MIN_PART` of them, not all alike.

    >>> orders_models(np.array([0.1, 0.1, 0.2, np.nan])), orders_models(np.array([0.1, 0.1, 0.2, 0.1]))
    (False, True)
    """
    known = scores[~np.isnan(scores)]
    return bool(len(known) >= MIN_PART and np.ptp(known) > 0)


def crossfit(
    surprisal,
    scores,
    groups=None,
    *,
    k: int | None = None,
    method: str = "top",
    splits: int = 20,
    design: Design = "auto",
    level: Level = "log",
    signed: bool = True,
    standardise: Standardise = "model",
    covariate=None,
    bootstraps: int = 200,
    seed: int = 0,
    **options,
) -> Crossfit:
    """Signature overlap whose selection and comparison never share a model, with all that qualifies it.

    Parameters
    ----------
    surprisal : (n_units, n_models) nats per unit. scores : (n_benchmarks, n_models).
    groups : lineage of each model; a lineage is never cut. None: each model stands alone. Models with equal
        surprisal are put in one group.
    k : units in a signature (both tails); default ``min(200, n_units // 5)``.
    method : "top" (default) or "forward_aic"; see :func:`select`.
    splits : random partitions averaged; every part takes every role once.
    design : "three-way": benchmark a selects on models A1, b on A2, they are compared on B, all disjoint.
        "two-way": both select on A and are compared on B. "auto": three-way where the groups allow it.
    signed : turn units round by their association (default; see :func:`signature`).
    standardise : "model": z-scores within each model, as the paper does; "unit" and "none" keep each model's
        general level (:func:`activity`).
    bootstraps : for the interval (0: none). Groups are resampled, single models where there are fewer than 8
        groups; the selection of each split stays fixed.

    Returns
    -------
    Crossfit

    Raises
    ------
    DataError : groups that cannot be split, fewer than 8 models, shapes that do not fit, infinite values.

    Notes
    -----
    Two-way is not enough: two benchmarks whose scores agree select the SAME units on A, and the same units
    agree on B whatever they mean, even when no unit is related to any score. Only disjoint selection removes
    that, at the price of smaller parts.
    """
    pool = _Pool(surprisal, level, standardise)
    y, names, _ = inference.as_rows(scores, "scores")
    n_units, n_models = pool.values.shape
    if y.shape[1] != n_models:
        raise DataError(f"scores have {y.shape[1]} models, surprisal has {n_models}; columns must correspond.")
    if isinstance(surprisal, pd.DataFrame) and isinstance(scores, pd.DataFrame):
        if list(surprisal.columns) != list(scores.columns):
            odd = next(a for a, b in zip(surprisal.columns, scores.columns) if a != b)
            raise DataError(f"surprisal and scores list models in different order, first at '{odd}'; reindex one.")
    if n_models < inference.MIN_MODELS:
        raise DataError(f"{n_models} models; at least {inference.MIN_MODELS} are needed to select and to compare.")
    _refuse_constant(y, names, "scores", "raise")
    k = min(200, n_units // 5) if k is None else k
    groups = _merge_duplicates(groups, pool)
    design = _choose_design(design, groups, n_models)
    rng = np.random.default_rng(seed)
    n = len(names)
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # models, activities of one, of the other selection
    predictions, unit_r, excluded = [], [], np.zeros(n, dtype=int)
    covariates = None if covariate is None else np.atleast_2d(np.asarray(covariate, dtype=float))
    by_name = np.arange(n_models)  # ties by name: the columns of every part in the order of the models' names
    if options.get("ties") == "name" and isinstance(surprisal, pd.DataFrame):
        by_name = np.argsort(surprisal.columns, kind="stable")
    for _ in range(splits):
        part = partition(groups, n_models, 3 if design == "three-way" else 2, rng)
        members = [by_name[part[by_name] == p] for p in range(part.max() + 1)]
        chosen = [select(pool.values[:, m], y[:, m], k, method, **options) for m in members]
        excluded += sum(np.array([c is None for c in part_choice]) for part_choice in chosen)
        for b, compare in enumerate(members):
            sources = [s for s in range(len(members)) if s != b]
            u = [_activities(pool, chosen[s], compare, signed) for s in sources]
            held.append((compare, u[0], u[-1]))
            for s, activities in zip(sources, u):
                predictions.append(
                    _cross(
                        _activities(pool, chosen[s], compare, True) if not signed else activities,
                        y[:, compare],
                        None,
                    )
                )
                unit_r.append(_unit_halves(pool, chosen[s], compare, signed, rng))

    def average(weights: np.ndarray | None) -> np.ndarray:
        return np.stack(
            [
                _symmetric(
                    _cross(
                        one,
                        other,
                        None if weights is None else weights[m],
                        None if covariates is None else covariates[:, m],
                    )
                )
                for m, one, other in held
            ]
        )

    each = average(None)
    overlap = _nanmean(each)
    by_units = _nanmean(np.stack(unit_r))
    codes = inference.group_codes(groups, n_models)
    by = groups if codes.max() + 1 >= 8 else None
    low, high = np.full((2, n, n), np.nan)
    if bootstraps:
        weights = inference.bootstrap_weights(by, n_models, bootstraps, seed + 1)
        low, high = inference.interval(_bootstrap(held, weights, covariates))
    index = pd.Index(names, name="benchmark")
    own = (overlap, low, high) if design == "three-way" else (np.diag(by_units), *np.full((2, n, n), np.nan))
    reliability = pd.DataFrame({c: np.diag(m).copy() for c, m in zip(("reliability", "low", "high"), own)}, index)
    for matrix in (overlap, low, high):
        matrix[np.diag_indices(n)] = 1.0
    index = pd.Index(names)
    details = {
        "design": design,
        "splits": splits,
        "k": k,
        "method": method,
        "level": level,
        "signed": signed,
        "statistic": options.get("statistic", "thrush"),
        "ties": options.get("ties", "average"),
        "standardise": standardise,
        "models": n_models,
        "groups": int(codes.max() + 1),
        "part_sizes": np.bincount(part).tolist(),
        "resampled": "groups" if by is not None else "models",
        "selections": int(splits * (part.max() + 1)),
        "selections_left_out": {str(names[i]): int(c) for i, c in enumerate(excluded) if c},
    }
    return Crossfit(
        overlap=pd.DataFrame(overlap, index, index),
        low=pd.DataFrame(low, index, index),
        high=pd.DataFrame(high, index, index),
        prediction=pd.DataFrame(_nanmean(np.stack(predictions)), index, index),
        reliability=reliability,
        units_reliability=pd.Series(by_units, index, name="reliability"),
        spread=pd.DataFrame(np.nanstd(each, axis=0), index, index),
        details=details,
    )


def of_study(study: Study) -> dict[str, Any]:
    """Return what a study file says about cross-fitted signatures, as keywords of :func:`crossfit`.

    >>> from helpers import studies
    >>> of_study(studies.load("lab"))
    {'level': 'log', 'signed': True, 'statistic': 'thrush', 'ties': 'average'}
    """
    return {
        "level": study.overlap.level,
        "signed": study.overlap.signed,
        "statistic": study.screening.statistic,
        "ties": study.screening.ties,
    }


def crossfit_signature(surprisal, scores, groups=None, **options) -> pd.DataFrame:
    """Cross-fitted signature overlap as a DataFrame: ``crossfit(...).overlap``, see :func:`crossfit`.

    Selection and comparison never share a model, nor (by default, where groups allow it) do the selections of
    the two benchmarks. Averaged over splits, symmetric, diagonal 1; ``attrs`` carry `details` and the
    `reliability` of each benchmark.

    >>> rng = np.random.default_rng(0)
    >>> skill = rng.normal(size=24)
    >>> x = rng.normal(size=(400, 24)); x[:200] -= 2 * skill
    >>> scores = skill + 0.3 * rng.normal(size=(2, 24))
    >>> crossfit_signature(x, scores, splits=3).iloc[0, 1] > 0.8
    np.True_
    """
    options.setdefault("bootstraps", 0)
    result = crossfit(surprisal, scores, groups, **options)
    frame = result.overlap.copy()
    frame.attrs = dict(result.details) | {
        "reliability": {str(k): float(v) for k, v in result.reliability["reliability"].items()}
    }
    return frame


def cross_prediction(surprisal, scores, groups=None, **options) -> pd.DataFrame:
    """How well the signature of one benchmark predicts the scores of another on models it never saw.

    Row: the benchmark whose signature is selected on some models; column: the benchmark whose scores are
    predicted on others (Spearman, averaged over splits). Not symmetric; the diagonal is the benchmark's own
    out-of-sample validity. Options as in :func:`crossfit`.
    """
    options.setdefault("bootstraps", 0)
    return crossfit(surprisal, scores, groups, design=options.pop("design", "two-way"), **options).prediction


def _merge_duplicates(groups, pool: _Pool) -> np.ndarray:
    codes = inference.group_codes(groups, len(pool.models)).copy()
    for first, *others in selection.duplicate_models(pool.values):
        for other in others:
            codes[codes == codes[other]] = codes[first]
    return codes


def _activities(pool: _Pool, chosen: list, models: np.ndarray, signed: bool) -> np.ndarray:
    nothing = np.full(len(models), np.nan)
    return np.array([nothing if c is None else pool.mean_z(c[0], c[1] if signed else None, models) for c in chosen])


def _unit_halves(pool: _Pool, chosen: list, models: np.ndarray, signed: bool, rng) -> np.ndarray:
    rows = np.full((2 * len(chosen), len(models)), np.nan)
    for i, c in enumerate(chosen):
        if c is None or len(c[0]) < 4:
            continue
        z = pool.z(c[0], models)
        if signed:
            z = z * c[1][:, None]
        for half, where in enumerate(np.array_split(rng.permutation(len(z)), 2)):
            rows[i + half * len(chosen)] = z[where].mean(axis=0)
    r = np.diag(inference.spearman(rows, minimum=3)[: len(chosen), len(chosen) :])
    return inference.spearman_brown(r)


def _cross(one: np.ndarray, other: np.ndarray, weights=None, covariates=None) -> np.ndarray:
    """Spearman of every row of `one` with every row of `other` over the same models."""
    stacked = [one, other] if covariates is None else [one, other, covariates]
    matrix = inference.spearman(np.vstack(stacked), weights, minimum=3)
    if covariates is not None:
        matrix = inference.partial_from_matrix(matrix, len(covariates))
    return matrix[..., : len(one), len(one) :]


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + np.swapaxes(matrix, -1, -2)) / 2


def _bootstrap(held: list, weights: np.ndarray, covariates) -> np.ndarray:
    total, count = 0.0, 0.0
    for models, one, other in held:
        extra = None if covariates is None else covariates[:, models]
        value = _symmetric(_cross(one, other, weights[:, models], extra))
        total = total + np.nan_to_num(value)
        count = count + ~np.isnan(value)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _nanmean(stack: np.ndarray) -> np.ndarray:
    known = ~np.isnan(stack)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, stack, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def profile(surprisal, scores, groups=None, *, splits: int = 10, seed: int = 0, centre: bool = True) -> pd.DataFrame:
    """Cross-fitted correlation of benchmarks' whole profiles: how all units, not a few, go with the scores.

    A benchmark's profile is its Thrush statistic on every unit; the mean profile of all benchmarks (what any
    good model does well) is taken away with `centre`. One benchmark's profile comes from one half of the
    models, the other's from the other half, so nothing is shared; averaged over `splits` random halves
    that never cut a group. Returns a DataFrame with diagonal 1; the natural diagonal (a benchmark's profile
    against itself across disjoint models) is ``attrs["reliability"]``.

    Every unit needs a surprisal for every model (DataError otherwise), since a unit with fewer models has a
    smaller range.
    """
    pool = _Pool(surprisal, "log")
    y, names, _ = inference.as_rows(scores, "scores")
    if np.isnan(pool.values).any():
        raise DataError("profile needs complete surprisal; leave out units or models with missing values.")
    _refuse_constant(y, names, "scores", "raise")
    groups = _merge_duplicates(groups, pool)
    rng = np.random.default_rng(seed)
    each = []
    for _ in range(splits):
        part = partition(groups, y.shape[1], 2, rng)
        halves = []
        for p in (0, 1):
            here = part == p
            good = np.flatnonzero([orders_models(row) for row in y[:, here]])
            half = np.full((len(pool.values), len(y)), np.nan)
            half[:, good] = screening.thrush(pool.values[:, here], y[good][:, here])
            half /= np.sqrt((half**2).mean(axis=0))
            if centre:
                half -= np.nanmean(half, axis=1, keepdims=True)
            half -= half.mean(axis=0)
            halves.append(half / np.sqrt((half**2).sum(axis=0)))
        each.append(_symmetric(halves[0].T @ halves[1]))
    matrix = _nanmean(np.stack(each))
    natural = np.diag(matrix).copy()
    matrix[np.diag_indices(len(y))] = 1.0
    frame = pd.DataFrame(matrix, pd.Index(names), pd.Index(names))
    frame.attrs["reliability"] = {str(k): float(v) for k, v in zip(names, natural)}
    return frame


# --- studies ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """What the notebooks need of a study, aligned: the same models in every table, usable benchmarks only.

    surprisal : DataFrame (units x models with both). scores : DataFrame (benchmarks x the same models).
    all_scores : DataFrame (benchmarks x all scored models). stderr : like all_scores, NaN where not known.
    groups, all_groups : Series model -> lineage. benchmarks : benchmarks.csv by name, in the order of scores.
    units : units.parquet. exclude : (units x benchmarks) True where a unit is the benchmark's own text.
    left_out : benchmark -> why it has no signature here, though it is usable; own model -> why it has no scores.
    unusable : benchmark of the study that is in none of the tables -> why.
    stored, barred : where the matrix is larger than the study's memory: the whole of it, to be streamed, with the
    positions of each benchmark's own text; `surprisal`, `units` and `exclude` then hold a sample of its units.
    """

    surprisal: pd.DataFrame
    scores: pd.DataFrame
    all_scores: pd.DataFrame
    stderr: pd.DataFrame
    groups: pd.Series
    all_groups: pd.Series
    benchmarks: pd.DataFrame
    units: pd.DataFrame
    exclude: np.ndarray
    left_out: dict[str, str]
    unusable: dict[str, str] = field(default_factory=dict)
    stored: screening.Stored | None = None
    barred: tuple[np.ndarray, ...] = ()


def load(
    folder: Path | str, groups: str = "family", memory_gib: float | None = None, sample: int | None = None
) -> Tables:
    """Read the tables of a study's folder (see CONTRIBUTING) and align them.

    A benchmark that fewer than 8 of the models with surprisal have sat, or on which they all score alike, is
    listed in `left_out`. Raises DataError for models or benchmarks that are in one table only where they must
    be in both.

    `memory_gib` bounds the surprisal matrix (a study's ``screening.memory_gib``). A larger one is a DataError that says
    how much memory it takes, before anything of it is read; with `sample`, a seed, it is left on disk
    (``Tables.stored``) and the tables hold a random sample of its units.
    """
    folder = Path(folder)
    benchmarks = provenance.read_table(folder / "benchmarks.csv").set_index("benchmark")
    usable = benchmarks["usable"].astype(bool)
    unusable = benchmarks.loc[~usable].get("reason", pd.Series("", benchmarks.index[~usable])).fillna("").to_dict()
    benchmarks = benchmarks[usable]
    long = provenance.read_table(folder / "scores.csv")
    models = provenance.read_table(folder / "models.csv").set_index("model")
    surprisal, stored = screening.read(folder / "surprisal.parquet", memory_gib, sample)
    units = provenance.read_table(folder / "units.parquet") if stored is None else units_at(folder, surprisal.index)
    unknown = [b for b in benchmarks.index if b not in set(long["benchmark"])]
    if unknown:
        raise DataError(
            f"scores.csv has no score of usable benchmark '{unknown[0]}'; "
            f"{nearest(unknown[0], long['benchmark'].unique())}"
        )
    if groups not in models:
        raise DataError(f"models.csv has no column '{groups}'; {nearest(groups, models.columns)}")
    long = long[long["benchmark"].isin(benchmarks.index)]
    wide, error = (
        long.pivot(index="benchmark", columns="model", values=column).reindex(index=benchmarks.index)
        for column in ("score", "stderr")
    )
    for name in [*wide.columns, *surprisal.columns]:
        if name not in models.index:
            raise DataError(f"models.csv has no model '{name}'; {nearest(name, models.index)}")
    shared = [m for m in surprisal.columns if m in wide.columns]
    if len(shared) < inference.MIN_MODELS:
        raise DataError(
            f"{len(shared)} models have both scores and surprisal; at least {inference.MIN_MODELS} are needed."
        )
    scores = wide[shared]
    known = scores.notna().sum(axis=1)
    left_out = {b: f"{n} models with surprisal have a score" for b, n in known.items() if n < inference.MIN_MODELS}
    left_out |= {b: "all models with surprisal score alike" for b in scores.index[scores.nunique(axis=1) < 2]}
    scores = scores.drop(index=list(left_out))
    barred = ()
    if stored is not None:
        stored = stored.take([stored.models.index(m) for m in shared])
        barred = _own_text(folder / "units.parquet", scores.index)
    own = units.get("own_benchmarks", pd.Series("", index=units.index)).fillna("").astype(str)
    codes, kinds = pd.factorize(own.to_numpy(dtype=object))
    belongs = [[b in kind.split(";") for b in scores.index] for kind in kinds]
    exclude = np.array(belongs, dtype=bool).reshape(len(kinds), len(scores))[codes]
    return Tables(
        surprisal=surprisal[shared],
        scores=scores,
        all_scores=wide,
        stderr=error,
        groups=models.loc[shared, groups],
        all_groups=models.loc[wide.columns, groups],
        benchmarks=benchmarks,
        units=units,
        exclude=exclude,
        left_out=left_out,
        unusable=unusable,
        stored=stored,
        barred=barred,
    )


def units_at(folder: Path | str, ids) -> pd.DataFrame:
    """Return the rows of ``units.parquet`` with these ids, in the order of the file, without reading all of it at once."""
    path = Path(folder) / "units.parquet"
    provenance.columns(path)
    wanted = pa.array(np.asarray(ids))
    found = []
    for batch in pq.ParquetFile(path).iter_batches():
        found.append(pa.Table.from_batches([batch]).filter(pc.is_in(batch["unit_id"], value_set=wanted)))
    table = pa.concat_tables(found).to_pandas()
    return table if table.index.name == "unit_id" else table.set_index("unit_id")


def _own_text(path: Path, benchmarks: pd.Index) -> tuple[np.ndarray, ...]:
    """Return, for each benchmark, the positions of the units that are its own text."""
    found: list[list[int]] = [[] for _ in benchmarks]
    if "own_benchmarks" in pq.read_schema(path).names:
        start = 0
        for batch in pq.ParquetFile(path).iter_batches(columns=["own_benchmarks"]):
            for row, own in enumerate(batch["own_benchmarks"].to_pylist(), start):
                for j in np.flatnonzero(benchmarks.isin((own or "").split(";"))):
                    found[j].append(row)
            start += batch.num_rows
    return tuple(np.array(rows, dtype=np.int64) for rows in found)


# --- artifacts --------------------------------------------------------------------------------------------


def to_long(
    value: pd.DataFrame,
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    interval: str = "percentile",
) -> pd.DataFrame:
    """Return one row a pair (a, b, value, low, high, interval), NaN bounds where none were computed.

    `interval` says what the bounds are, a key of ``inference.INTERVALS``; pairs without bounds get "none".

    >>> to_long(pd.DataFrame([[1, .5], [.5, 1]], ["x", "y"], ["x", "y"])).iloc[0, :2].tolist()
    ['x', 'y']
    """
    names = np.asarray([str(n) for n in value.index], dtype=object)
    rows, columns = np.triu_indices(len(names), 1)
    out = pd.DataFrame({"a": names[rows], "b": names[columns], "value": value.to_numpy(dtype=float)[rows, columns]})
    for name, matrix in (("low", low), ("high", high)):
        if matrix is not None:
            matrix = matrix.loc[value.index, value.index].to_numpy(dtype=float)[rows, columns]
        out[name] = np.nan if matrix is None else matrix
    if interval not in inference.INTERVALS:
        raise ValueError(f"interval is '{interval}'; {nearest(str(interval), inference.INTERVALS)}")
    out["interval"] = np.where(out["low"].notna() & out["high"].notna(), interval, "none")
    return out


def write(
    folder: Path | str,
    axis: str,
    value: pd.DataFrame,
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    reliability: pd.DataFrame | pd.Series | None = None,
    *,
    interval: str = "percentile",
    **record,
) -> list[Path]:
    """Write ``overlap/<axis>.parquet`` and, if given, ``overlap/<axis>-reliability.csv`` of a study's folder.

    `reliability` is indexed by benchmark: a Series, or a DataFrame with reliability, low, high. `interval`: see
    :func:`to_long`. `record` (inputs, parameters, code, seconds) goes to ``provenance.write_table``. Returns the
    paths written.
    """
    if axis not in AXES:
        raise DataError(f"no axis '{axis}'; {nearest(axis, AXES)}")
    folder = Path(folder) / "overlap"
    paths = [provenance.write_table(folder / f"{axis}.parquet", to_long(value, low, high, interval), **record)]
    if reliability is not None:
        table = reliability.to_frame("reliability") if isinstance(reliability, pd.Series) else reliability.copy()
        for column in ("low", "high"):
            if column not in table:
                table[column] = np.nan
        table = table[["reliability", "low", "high"]].rename_axis("benchmark").reset_index()
        paths.append(provenance.write_table(folder / f"{axis}-reliability.csv", table, **record))
    return paths


def read(folder: Path | str, axis: str, order: Sequence | None = None) -> dict[str, Any]:
    """Read an axis of a study: ``{"value", "low", "high", "reliability", "interval"}``.

    The first three are square DataFrames (diagonal 1). `order` restricts and orders the benchmarks; unknown names
    raise DataError with the nearest. `reliability` is a DataFrame by benchmark, or None where the axis has none;
    `interval` says what the bounds are (:func:`interval_kind`).
    """
    if axis not in AXES:
        raise DataError(f"no axis '{axis}'; {nearest(axis, AXES)}")
    folder = Path(folder) / "overlap"
    table = provenance.read_table(folder / f"{axis}.parquet")
    names = list(dict.fromkeys([*table["a"], *table["b"]]))
    if order is not None:
        for name in order:
            if str(name) not in names:
                raise DataError(f"axis '{axis}' has no benchmark '{name}'; {nearest(str(name), names)}")
    position = {name: i for i, name in enumerate(names)}
    rows, columns = table["a"].map(position).to_numpy(), table["b"].map(position).to_numpy()
    out: dict[str, Any] = {}
    for column in ("value", "low", "high"):
        matrix = np.full((len(names), len(names)), np.nan)
        matrix[rows, columns] = matrix[columns, rows] = table[column]
        matrix[np.diag_indices(len(names))] = 1.0
        frame = pd.DataFrame(matrix, names, names)
        out[column] = frame if order is None else frame.loc[list(map(str, order)), list(map(str, order))]
    path = folder / f"{axis}-reliability.csv"
    out["reliability"] = provenance.read_table(path).set_index("benchmark") if path.exists() else None
    out["interval"] = interval_kind(table)
    return out


def interval_kind(table: pd.DataFrame) -> str:
    """Return what the bounds of a table of pairs are: a key of ``inference.INTERVALS``.

    "not stated" for a table with bounds that was written before the column existed.

    >>> interval_kind(pd.DataFrame({"low": [0.1, None], "high": [0.3, None], "interval": ["percentile", "none"]}))
    'percentile'
    """
    bounded = table["low"].notna() & table["high"].notna() if {"low", "high"} <= set(table.columns) else []
    if not np.any(bounded):
        return "none"
    return str(table.loc[bounded, "interval"].iloc[0]) if "interval" in table.columns else "not stated"
