"""Selection: from the units that passed screening to a benchmark's signature, and how far to believe it.

:func:`forward_aic` is the paper's step, :func:`lasso` and :func:`elastic_net` its alternatives; :func:`select`
runs screening and selection for all benchmarks in one of three modes (:data:`MODES`): as the paper writes it, as
the authors' released code does it, and corrected for what both leave open.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso

from helpers import screening
from helpers.errors import DataError, nearest
from helpers.inference import MIN_MODELS

if TYPE_CHECKING:
    from helpers.studies import Study
COLLINEAR = 1e-9  # a candidate whose new part is smaller than this share of its variation adds no direction
TIE = 1e-9  # criteria that differ by less are equal; the candidate of lowest position enters
ROUNDING = 4 * np.finfo(np.float64).eps  # of one model's value, relative; n of them add up in a product
EXACT = 1e-24  # residual share of the variance below which a fit is exact: what is left is rounding

Criterion = Literal["aic", "bic", "adjusted_r2"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted signature.

    Attributes
    ----------
    indices : (k,) int array
        Chosen candidates: in order of entry (forward), by falling absolute standardised coefficient (penalised).
    aic : (k,) float array
        AIC after each entry; a penalised fit has one value, with its non-zero coefficients as parameters.
    coef, intercept : (k,) float array, float
        In the units of the features given, so that ``predict`` is one product in every method.
    r2 : float
        In-sample. It says nothing about new models: on pure noise it reaches 1.
    saturated : bool
        True when ``2 (k + 1) > n_models`` (fewer than two models for each fitted number) or ``r2 > 0.999``: the
        size of such a signature is set by the number of models, not by the benchmark.
    stopped : str
        Why nothing more entered: ``criterion`` (it would rise), ``max_size``, ``models`` (n_models - 2 terms),
        ``exact`` (nothing left to explain), ``collinear`` (no candidate adds a direction), ``penalty``,
        ``cross-validation``.
    n_models : int
    criterion : (k,) float array
        The path of the criterion that stopped the search (equal to `aic` unless another was asked for).
    r2_path : (k,) float array
    """

    indices: np.ndarray
    aic: np.ndarray
    coef: np.ndarray
    intercept: float
    r2: float
    saturated: bool
    stopped: str
    n_models: int
    criterion: np.ndarray
    r2_path: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return (n,) predicted scores for (n, n_candidates) features."""
        return np.asarray(features, dtype=np.float64)[:, self.indices] @ self.coef + self.intercept


def forward_aic(features: np.ndarray, score: np.ndarray, max_size: int | None = None, tolerance: float = 0.0) -> Fit:
    """Forward selection by least squares with intercept, minimising AIC (the paper's selection).

    Parameters
    ----------
    features : (n_models, n_candidates) float array
        Surprisal or perplexity of the screened units, one row a model.
    score : (n_models,) float array
    max_size : int, optional
        Largest number of terms, at most ``n_models - 2``, which is also the default: beyond it no residual
        degree of freedom is left and AIC falls without bound.
    tolerance : float
        AIC must fall by more than this for a term to enter.

    Returns
    -------
    Fit

    Raises
    ------
    DataError
        Wrong shapes, fewer than 8 models, NaN or infinite values, a constant score, no varying candidate, or
        `max_size` beyond ``n_models - 2``.

    Notes
    -----
    ``AIC = n log(2 pi SSR / n) + n + 2 (k + 1)``, as statsmodels computes it. The search starts at +infinity, so
    the first term always enters; then the candidate of smallest AIC enters while AIC falls. At a given size that
    is the candidate whose part orthogonal to the chosen ones correlates most with the residual, so candidates are
    orthogonalised against each entry (modified Gram-Schmidt, the entry itself twice) instead of refitting each.

    Tie rule: of equal criteria the lowest position enters (duplicated columns: the first). Equal means within
    1e-9, or within what rounding of the candidate and of the residual can do to the difference; that is the larger
    one where a fit is nearly exact, or where the new part of a candidate or of a chosen term is a small remainder.
    A candidate is collinear, and passed over, when less than 1e-9 of its centred length is new; constant
    candidates always are. Source: METHOD, "selection" (arXiv 2509.23488); the intercept is inferred.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 100))
    >>> fit = forward_aic(features, 2 * features[:, 7] - features[:, 3] + 1, max_size=5)
    >>> fit.indices, fit.coef.round(6), round(fit.intercept, 6), fit.stopped
    (array([7, 3]), array([ 2., -1.]), 1.0, 'exact')
    """
    return forward(features, score, "aic", max_size, tolerance)


def forward(
    features: np.ndarray,
    score: np.ndarray,
    criterion: Criterion = "aic",
    max_size: int | None = None,
    tolerance: float = 0.0,
) -> Fit:
    """Forward selection as :func:`forward_aic`, stopped by AIC, BIC or adjusted R2.

    The order of entry is the same for all three, since at a given size each is monotone in the residual; they
    differ in where they stop. ``criterion`` holds AIC, ``BIC = AIC + (log n - 2)(k + 1)``, or minus adjusted R2.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(60, 30)), rng.normal(size=60)
    >>> len(forward(x, y, "bic")) < len(forward(x, y, "aic")) < len(forward(x, y, "adjusted_r2"))
    True
    """
    if criterion not in ("aic", "bic", "adjusted_r2"):
        raise DataError(f"criterion='{criterion}' is unknown; {nearest(criterion, ['aic', 'bic', 'adjusted_r2'])}")
    x, y = _check(features, score)
    return _finish(_Path(x, y).grow(_check_size(max_size, len(y)), criterion, tolerance), x, y, criterion)


def lasso(features: np.ndarray, score: np.ndarray, alpha: float = 0.01, *, standardise: bool = True) -> Fit:
    """Lasso as in the authors' released code: standardised features, centred score, no further intercept.

    Minimises ``SSR / (2 n) + alpha |b|_1`` (scikit-learn) over features of mean 0 and standard deviation 1
    (``standardise=False``: centred only). Input, errors and result as :func:`forward_aic`; coefficients are given
    back in the units of the features. An empty signature is a possible result: `alpha` is in units of the score.
    Raises DataError when the solver does not converge.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 100))
    >>> lasso(features, features[:, 7] - features[:, 3], alpha=0.5).indices
    array([3, 7])
    """
    return _penalised(Lasso(alpha=alpha, fit_intercept=False, max_iter=100_000), features, score, standardise)


def elastic_net(
    features: np.ndarray,
    score: np.ndarray,
    alpha: float = 0.01,
    l1_ratio: float = 0.5,
    *,
    standardise: bool = True,
) -> Fit:
    """Elastic Net: ``SSR / (2 n) + alpha (l1_ratio |b|_1 + (1 - l1_ratio) |b|^2 / 2)``; else as :func:`lasso`.

    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(40, 100))
    >>> elastic_net(features, features[:, 7] - features[:, 3], alpha=0.8).indices[:2]
    array([3, 7])
    """
    model = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, fit_intercept=False, max_iter=100_000)
    return _penalised(model, features, score, standardise)


@dataclass(frozen=True)
class Mode:
    """Settings of :func:`select`. `max_size` None: n_models - 2, or a sixth of the models where `stop` is cv."""

    statistic: screening.Statistic = "thrush"
    ties: screening.Ties = "average"
    ratio: float = 0.01
    level: Literal["log", "raw"] = "log"
    method: Literal["forward", "lasso", "elastic_net"] = "forward"
    stop: Literal["aic", "bic", "adjusted_r2", "cv"] = "aic"
    max_size: int | None = None
    alpha: float = 0.01
    l1_ratio: float = 0.5


MODES = {
    # The paper's words: top and bottom 1 %, perplexity itself, forward AIC. Tie rule: not stated there.
    "paper": Mode(level="raw"),
    # The released code: one in a million at each end, log-probability, ties by model name, Lasso.
    "released-code": Mode(ratio=1e-6, ties="name", method="lasso"),
    # This companion: size by leave-groups-out error with screening inside the fold, log-perplexity, average ranks.
    "corrected": Mode(stop="cv"),
}


@dataclass(frozen=True, eq=False)
class Selection:
    """Result of :func:`select`.

    Attributes
    ----------
    signatures : DataFrame
        ``benchmark``, ``unit_id``, ``coef``, ``order`` (from 0), ``method`` (mode and method), ``fold`` (-1: all
        models).
    report : DataFrame indexed by benchmark
        ``n_models``, ``candidates``, ``incomplete`` (screened units left out because a model lacks them),
        ``size``, ``r2``, ``r2_held_out`` (NaN unless size was chosen by cross-validation; it is the best of the
        sizes tried, hence slightly flattering), ``saturated``, ``stopped``, ``reason`` (empty, or why the
        benchmark has no signature).
    fits : dict of Fit by benchmark
        Indices refer to ``candidates[benchmark]``.
    candidates : dict of sorted int arrays by benchmark
        Positions of the screened units.
    mode : Mode
        The settings that were used.
    """

    signatures: pd.DataFrame
    report: pd.DataFrame
    fits: dict[str, Fit]
    candidates: dict[str, np.ndarray]
    mode: Mode


def of_study(study: Study) -> dict:
    """Return the settings of the corrected mode that a study file asks for, as keywords of :func:`select`.

    >>> from helpers import studies
    >>> of_study(studies.load("lab"))["max_size"]
    5
    """
    screened, chosen = study.screening, study.selection
    return {
        "statistic": screened.statistic,
        "ties": screened.ties,
        "ratio": screened.ratio,
        "method": "forward" if chosen.method == "forward_aic" else chosen.method,
        "max_size": chosen.max_size,
        "alpha": chosen.alpha,
    }


def select(
    surprisal: np.ndarray | pd.DataFrame | screening.Stored,
    scores: np.ndarray | pd.DataFrame,
    mode: Literal["paper", "released-code", "corrected"] = "corrected",
    *,
    groups: Sequence | None = None,
    exclude: np.ndarray | pd.DataFrame | Sequence[np.ndarray] | None = None,
    **settings,
) -> Selection:
    """Screen and select for all benchmarks.

    Parameters
    ----------
    surprisal : (n_units, n_models) array or DataFrame, or a matrix on disk
        Nats per unit. A DataFrame's index becomes ``unit_id``; its columns must be those of `scores`. A
        :class:`screening.Stored` is streamed, a pass for each screening; the result is the same.
    scores : (n_benchmarks, n_models) array or DataFrame
        NaN = not measured: that model is left out for that benchmark.
    mode : {"paper", "released-code", "corrected"}
        See :data:`MODES`; any field of :class:`Mode` can be given by keyword to change it.
    groups : (n_models,) labels, optional
        Models held out together where size is chosen by cross-validation; default: each model is its own.
    exclude : (n_units, n_benchmarks) bool array or DataFrame, optional
        True where a unit may not enter that benchmark's signature, such as the benchmark's own text. For a matrix on
        disk: the positions of such units, an array for each benchmark.

    Returns
    -------
    Selection

    Raises
    ------
    DataError
        Wrong shapes, infinite values, models that differ between the tables, two models with identical surprisal
        (they would count one piece of evidence twice: drop one), fewer than 8 models, no usable benchmark.
        A single benchmark with fewer than 8 scores or constant scores is not an error: `report` says why it has
        no signature.

    Notes
    -----
    ``level="raw"`` enters ``exp(surprisal)``, ``"log"`` the surprisal itself; screening, a matter of ranks, is
    the same. The released code stores the log-probability, whose sign is opposite: its coefficients are minus
    these. With ``ties="name"`` a DataFrame's models are taken in alphabetical order, an array's in its own.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> surprisal = rng.normal(size=(500, 16))
    >>> scores = -surprisal[:2] + 0.1 * rng.normal(size=(2, 16))
    >>> select(surprisal, scores, max_size=1).signatures[["benchmark", "unit_id", "order", "fold"]]
      benchmark  unit_id  order  fold
    0         0        0      0    -1
    1         1        1      0    -1
    """
    how = _mode(mode, settings)
    surprisal, scores, groups = _frames(surprisal, scores, groups)
    stored = isinstance(surprisal, screening.Stored)
    if how.ties == "name" and scores.columns.dtype != int:
        order = np.argsort(scores.columns, kind="stable")
        surprisal = surprisal.take(order) if stored else surprisal.iloc[:, order]
        scores, groups = scores.iloc[:, order], groups[order]
    twins = surprisal.duplicates() if stored else duplicate_models(surprisal)
    if twins:
        raise DataError(
            f"Models with identical surprisal on every unit: {'; '.join(' = '.join(map(str, t)) for t in twins)}. "
            "They are one model counted twice; keep one of each."
        )
    barred = barred_units(exclude, (len(surprisal), len(scores)), stored)
    values, table = surprisal if stored else surprisal.to_numpy(), scores.to_numpy()
    reasons = {name: _unusable(row) for name, row in zip(scores.index, table)}
    usable = [i for i, reason in enumerate(reasons.values()) if not reason]
    if not usable:
        raise DataError(f"No benchmark can be selected for: {'; '.join(f'{n}: {r}' for n, r in reasons.items())}")
    kept = _screened(values, None, table[usable], how, _of(barred, usable))
    sizes, held_out = dict.fromkeys(usable, how.max_size), dict.fromkeys(usable, np.nan)
    if how.stop == "cv" and how.method == "forward":
        errors = held_out_error(values, table[usable], groups, how, exclude=_of(barred, usable))
        for i, path in zip(usable, errors):
            sizes[i] = max(1, int(np.argmin(path)))
            held_out[i] = 1 - path[sizes[i]]
    rows, report, fits, candidates = [], [], {}, {}
    for i, units, (source, where) in zip(usable, kept, _read_back(values, kept)):
        name, known = scores.index[i], ~np.isnan(table[i])
        block = source[np.ix_(where, known)].T
        whole = ~np.isnan(block).any(axis=0)
        if not whole.any():
            reasons[name] = f"all {len(units)} screened units lack surprisal for some model"
            continue
        x, y = _level(block[:, whole], how.level), table[i, known]
        fit = fit_candidates(x, y, how, sizes[i])
        fits[name], candidates[name] = fit, units[whole]
        label = f"{mode}:{how.method}"
        chosen = units[whole][fit.indices]
        ids = surprisal.unit_ids(chosen) if stored else surprisal.index[chosen]
        rows += [(name, u, c, o, label, -1) for o, (u, c) in enumerate(zip(ids, fit.coef))]
        report.append((name, known.sum(), whole.sum(), (~whole).sum(), len(fit), fit.r2, held_out[i], fit.saturated))
        report[-1] += (fit.stopped,)
    columns = ["n_models", "candidates", "incomplete", "size", "r2", "r2_held_out", "saturated", "stopped"]
    table = pd.DataFrame(report, columns=["benchmark", *columns]).set_index("benchmark").reindex(scores.index)
    table["reason"] = [reasons[name] for name in scores.index]
    table = table.astype(dict.fromkeys(["n_models", "candidates", "incomplete", "size"], "Int64"))
    table = table.astype({"saturated": "boolean"}).rename_axis("benchmark")
    columns = ["benchmark", "unit_id", "coef", "order", "method", "fold"]
    return Selection(pd.DataFrame(rows, columns=columns), table, fits, candidates, how)


def held_out_error(
    surprisal: np.ndarray | screening.Stored,
    scores: np.ndarray,
    groups: Sequence,
    how: Mode | None = None,
    *,
    exclude: np.ndarray | None = None,
    **settings,
) -> np.ndarray:
    """Prediction error of forward selection on models it never saw, by signature size.

    Each group of models is held out in turn; units are screened and selected on the others alone.

    Parameters
    ----------
    surprisal : (n_units, n_models) float array, or a matrix on disk as in :func:`select`
    scores : (n_benchmarks, n_models) float array, NaN = not measured
    groups : (n_models,) labels; at least two, each leaving 8 models with varying scores
    how, settings : a :class:`Mode` or its fields
    exclude : (n_units, n_benchmarks) bool array, optional, as in :func:`select`

    Returns
    -------
    (n_benchmarks, max_size + 1) float array
        Squared error summed over held-out models, divided by that of predicting the mean of the other models; so
        ``1 - value`` is out-of-sample R2 and column 0 (no unit at all) is 1.
    """
    how = _mode(how or "corrected", settings)
    stored = isinstance(surprisal, screening.Stored)
    surprisal, scores = surprisal if stored else np.asarray(surprisal), np.asarray(scores, dtype=np.float64)
    barred = barred_units(exclude, (len(surprisal), len(scores)), stored)
    labels, fold = np.unique(np.asarray(groups), return_inverse=True)
    if len(labels) < 2:
        raise DataError(f"All {len(fold)} models are in group '{labels[0]}'; cross-validation needs at least two.")
    train = {g: np.flatnonzero(fold != g) for g in range(len(labels))}
    least = min(int((~np.isnan(row[t])).sum()) for row in scores for t in train.values())
    size = how.max_size or max(1, scores.shape[1] // 6)
    size = min(size, least - 2)
    squares = np.zeros((len(scores), size + 1))
    for g, inside in train.items():
        outside = np.flatnonzero(fold == g)
        for row in scores:
            reason = _unusable(row[inside])
            if reason:
                raise DataError(f"With group '{labels[g]}' held out, a benchmark has {reason}; join small groups.")
        kept = _screened(surprisal, inside, scores[:, inside], how, barred)
        for b, (row, (source, where)) in enumerate(zip(scores, _read_back(surprisal, kept))):
            known, new = inside[~np.isnan(row[inside])], outside[~np.isnan(row[outside])]
            if not len(new):
                continue
            block = source[np.ix_(where, np.concatenate([known, new]))].T
            block = _level(block[:, ~np.isnan(block).any(axis=0)], how.level)
            predicted = _Path(block[: len(known)], row[known]).grow(size, None).predict(block[len(known) :], size)
            squares[b] += ((row[new][:, None] - predicted) ** 2).sum(axis=0)
    return squares / squares[:, :1]


def growth(
    surprisal: np.ndarray,
    scores: np.ndarray,
    counts: Sequence[int],
    *,
    draws: int = 3,
    permute: bool = False,
    seed: int = 0,
    exclude: np.ndarray | None = None,
    **settings,
) -> pd.DataFrame:
    """Signature size and in-sample R2 against the number of models: does size belong to the benchmark?

    Parameters
    ----------
    surprisal : (n_units, n_models) float array
    scores : (n_benchmarks, n_models) float array, NaN = not measured
    counts : numbers of models to draw at random, without replacement; at most n_models
    draws : random draws for each count
    permute : shuffle each benchmark's scores over the models first (nothing is left to find)
    exclude, settings : as in :func:`select`, with forward AIC on log-perplexity by default

    Returns
    -------
    DataFrame with ``models``, ``draw``, ``benchmark`` (row number), ``size``, ``r2``, ``saturated``; a benchmark
    with fewer than 8 scores or constant scores in a draw has no row there.

    >>> rng = np.random.default_rng(0)
    >>> table = growth(rng.normal(size=(2000, 24)), rng.normal(size=(3, 24)), [12, 24], draws=2)
    >>> table.groupby("models")["size"].mean().tolist()  # pure noise: as many terms as the models allow
    [10.0, 22.0]
    """
    how = _mode(Mode(), settings)
    surprisal, scores = np.asarray(surprisal), np.asarray(scores, dtype=np.float64)
    barred = barred_units(exclude, (len(surprisal), len(scores)))
    if max(counts) > scores.shape[1] or min(counts) < MIN_MODELS:
        raise DataError(f"counts are {list(counts)}; expected numbers from {MIN_MODELS} to {scores.shape[1]} models.")
    rng = np.random.default_rng(seed)
    rows = []
    for count in counts:
        for draw in range(draws):
            models = np.sort(rng.permutation(scores.shape[1])[:count])
            table = scores[:, models]
            if permute:
                table = rng.permuted(table, axis=1)
            usable = [b for b, row in enumerate(table) if not _unusable(row)]
            if not usable:
                continue
            kept = _screened(surprisal, models, table[usable], how, barred[:, usable])
            for b, units in zip(usable, kept):
                known = ~np.isnan(table[b])
                x = _level(surprisal[np.ix_(units, models[known])].T, how.level)
                x, y = x[:, ~np.isnan(x).any(axis=0)], table[b, known]
                fit = fit_candidates(x, y, replace(how, stop="aic") if how.stop == "cv" else how, how.max_size)
                rows.append((count, draw, b, len(fit), fit.r2, fit.saturated))
    return pd.DataFrame(rows, columns=["models", "draw", "benchmark", "size", "r2", "saturated"])


def duplicate_models(surprisal: np.ndarray | pd.DataFrame) -> list[tuple]:
    """Return groups of columns that are identical on every unit (NaN in the same places), as tuples of names.

    >>> duplicate_models(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [1.0, 2.0]}))
    [('a', 'c')]
    """
    frame = pd.DataFrame(surprisal)
    seen: dict[bytes, list] = {}
    for position, name in enumerate(frame.columns):
        seen.setdefault(frame.iloc[:, position].to_numpy().tobytes(), []).append(name)
    return [tuple(names) for names in seen.values() if len(names) > 1]


class _Path:
    """Forward selection in progress: an orthonormal basis, the residual, and candidates made orthogonal to it."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.mean, self.level = x.mean(axis=0), y.mean()
        self.columns = np.ascontiguousarray((x - self.mean).T)  # (n_candidates, n_models), untouched
        self.new = self.columns.copy()  # the same, orthogonal to the basis
        self.size0 = np.einsum("ij,ij->i", self.new, self.new)
        self.raw = np.einsum("ij,ij->j", x, x)  # uncentred: rounding is relative to this
        self.amplified = 1.0  # worst ratio of an entry's length to its new part: how far rounding turns the basis
        constant = self.size0 <= (1e-12) ** 2 * self.raw
        self.size0[constant] = np.inf  # never a new direction
        self.residual = y - self.level
        self.total = float(self.residual @ self.residual)
        self.basis = np.empty((0, len(y)))
        self.chosen: list[int] = []
        self.theta: list[float] = []
        self.values: list[float] = []
        self.ssr: list[float] = []
        self.stopped = "criterion"

    def grow(self, max_size: int, criterion: Criterion | None, tolerance: float = 0.0) -> _Path:
        """Add terms while `criterion` falls (None: as long as any can be added)."""
        n, best = len(self.residual), np.inf
        cap = min(max_size, n - 2)
        while True:
            if len(self.chosen) == cap:
                self.stopped = "models" if cap == n - 2 else "max_size"
                return self
            size = np.einsum("ij,ij->i", self.new, self.new)
            able = size > COLLINEAR**2 * self.size0
            if not able.any():
                self.stopped = "collinear"
                return self
            ssr = float(self.residual @ self.residual)
            along = self.new @ self.residual
            left = np.full(len(size), np.inf)
            left[able] = np.maximum(ssr - along[able] ** 2 / size[able], EXACT * self.total)
            least = int(left.argmin())
            with np.errstate(divide="ignore"):
                amplified = np.maximum(np.sqrt(self.raw / size), self.amplified)
            slack = ROUNDING * n * ssr * amplified
            equal = left <= left[least] * np.exp(TIE / n) + slack + slack[least]
            entry = int(np.flatnonzero(able & equal)[0])
            value = _criterion(criterion or "aic", left[entry], self.total, n, len(self.chosen) + 1)
            if criterion is not None and not value < best - tolerance:
                self.stopped = "criterion"
                return self
            best, self.amplified = value, amplified[entry]
            self._enter(entry)
            self.values.append(value)
            if self.ssr[-1] <= EXACT * self.total:
                self.stopped = "exact"
                return self

    def _enter(self, entry: int) -> None:
        q = self.new[entry].copy()
        q -= self.basis.T @ (self.basis @ q)  # once more: rounding has left some of the basis in it
        q /= np.sqrt(q @ q)
        along = float(q @ self.residual)
        self.residual -= along * q
        self.new -= np.outer(self.new @ q, q)
        self.basis = np.vstack([self.basis, q])
        self.chosen.append(entry)
        self.theta.append(along)
        self.ssr.append(float(self.residual @ self.residual))

    def predict(self, x: np.ndarray, size: int) -> np.ndarray:
        """Return (n, size + 1) predictions with the first 0, 1, ... terms; a shorter path repeats its last."""
        out = np.full((len(x), size + 1), self.level)
        if self.chosen:
            triangle = self.basis @ self.columns[self.chosen].T
            coordinates = np.linalg.solve(triangle.T, (x[:, self.chosen] - self.mean[self.chosen]).T)
            steps = np.cumsum(np.array(self.theta)[:, None] * coordinates, axis=0).T
            out[:, 1 : len(self.chosen) + 1] += steps
            out[:, len(self.chosen) + 1 :] += steps[:, -1:]
        return out


def _criterion(name: Criterion, ssr: float, total: float, n: int, k: int) -> float:
    if name == "adjusted_r2":
        return ssr / total * (n - 1) / (n - k - 1) - 1
    return _aic(ssr, n, k) + (np.log(n) - 2) * (k + 1) * (name == "bic")


def _aic(ssr: float | np.ndarray, n: int, k: int | np.ndarray) -> float | np.ndarray:
    return n * np.log(2 * np.pi * ssr / n) + n + 2 * (k + 1)


def _saturated(size: int, n_models: int, r2: float) -> bool:
    return bool(2 * (size + 1) > n_models or r2 > 0.999)


def _finish(path: _Path, x: np.ndarray, y: np.ndarray, criterion: Criterion) -> Fit:
    n, chosen = len(y), np.array(path.chosen, dtype=np.intp)
    if not len(chosen):
        raise DataError(f"None of the {x.shape[1]} candidates varies over the {n} models; nothing can be selected.")
    coef = np.linalg.lstsq(path.columns[chosen].T, y - path.level, rcond=None)[0]
    ssr = np.maximum(path.ssr, EXACT * path.total)
    r2 = 1 - np.array(path.ssr) / path.total
    return Fit(
        indices=chosen,
        aic=_aic(ssr, n, np.arange(1, len(chosen) + 1)),
        coef=coef,
        intercept=float(path.level - path.mean[chosen] @ coef),
        r2=float(r2[-1]),
        saturated=_saturated(len(chosen), n, r2[-1]),
        stopped=path.stopped,
        n_models=n,
        criterion=np.array(path.values),
        r2_path=r2,
    )


def _penalised(model: Lasso | ElasticNet, features: np.ndarray, score: np.ndarray, standardise: bool) -> Fit:
    x, y = _check(features, score)
    mean, level = x.mean(axis=0), y.mean()
    centred = x - mean
    scale = np.sqrt((centred**2).mean(axis=0))
    scale[scale <= 1e-12 * np.abs(x).max(axis=0)] = np.inf  # constant columns become zeros, and stay out
    if np.isinf(scale).all():
        raise DataError(f"None of the {x.shape[1]} candidates varies over the {len(y)} models.")
    scale = scale if standardise else np.where(np.isinf(scale), np.inf, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            b = model.fit(centred / scale, y - level).coef_
        except ConvergenceWarning as problem:
            kind = type(model).__name__
            raise DataError(f"{kind} with alpha={model.alpha} did not converge; raise alpha. ({problem})") from None
    chosen = np.flatnonzero(b)
    chosen = chosen[np.lexsort((chosen, -np.abs(b[chosen])))]
    coef = (b / scale)[chosen]
    residual = y - level - centred[:, chosen] @ coef
    ssr, total = float(residual @ residual), float(((y - level) ** 2).sum())
    r2, n = 1 - ssr / total, len(y)
    aic = np.array([_aic(max(ssr, EXACT * total), n, len(chosen))])
    return Fit(
        indices=chosen,
        aic=aic,
        coef=coef,
        intercept=float(level - mean[chosen] @ coef),
        r2=r2,
        saturated=_saturated(len(chosen), n, r2),
        stopped="penalty",
        n_models=n,
        criterion=aic,
        r2_path=np.array([r2]),
    )


def fit_candidates(x: np.ndarray, y: np.ndarray, how: Mode, size: int | None) -> Fit:
    """Fit one benchmark's scores (n_models,) on its candidates (n_models, n_candidates) as `how` says."""
    if how.method == "lasso":
        return lasso(x, y, how.alpha)
    if how.method == "elastic_net":
        return elastic_net(x, y, how.alpha, how.l1_ratio)
    if how.stop != "cv":
        return forward(x, y, how.stop, size)
    x, y = _check(x, y)
    fit = _finish(_Path(x, y).grow(size, None), x, y, "aic")
    return replace(fit, stopped="cross-validation") if len(fit) == size else fit


def screening_statistic(surprisal: np.ndarray, scores: np.ndarray, how: Mode, barred: np.ndarray) -> np.ndarray:
    """Return the statistic (n_units, n_benchmarks) that `how` screens by, NaN where a unit is barred."""
    statistic = screening.thrush if how.statistic == "thrush" else screening.preselect
    values = statistic(surprisal, scores, ties=how.ties)
    values[barred] = np.nan
    return values


def _screened(
    surprisal: np.ndarray | screening.Stored, models: np.ndarray | None, scores: np.ndarray, how: Mode, barred
) -> list[np.ndarray]:
    """Return the positions of the units that pass screening on `models` (None: all), for each row of scores."""
    if isinstance(surprisal, screening.Stored):
        blocks = (surprisal if models is None else surprisal.take(models)).blocks()
        return screening.screen_stream(
            blocks, scores, how.ratio, statistic=how.statistic, ties=how.ties, exclude=barred
        )  # fmt: skip
    block = surprisal if models is None else surprisal[:, models]
    return screening.screen(screening_statistic(block, scores, how, barred), how.ratio)


def _read_back(
    surprisal: np.ndarray | screening.Stored, kept: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each benchmark, an array that holds its screened units and their rows in it.

    From a matrix on disk the units of as many benchmarks are read together as its memory allows.
    """
    if not isinstance(surprisal, screening.Stored):
        yield from ((surprisal, units) for units in kept)
        return
    room = int(surprisal.memory_gib * 2**30 / (surprisal.itemsize * surprisal.shape[1]))
    first = 0
    while first < len(kept):
        together, last = kept[first], first + 1
        if len(together) > room:
            raise DataError(
                f"{len(together):,} screened units of {surprisal.shape[1]} models take more than the "
                f"{surprisal.memory_gib:g} GiB that the study allows. Lower screening.ratio (to about "
                f"{room / 2 / len(surprisal):.1g}) or raise screening.memory_gib."
            )
        while last < len(kept) and len(more := np.union1d(together, kept[last])) <= room:
            together, last = more, last + 1
        block = surprisal.rows(together)
        yield from ((block, np.searchsorted(together, units)) for units in kept[first:last])
        first = last


def _of(barred, rows: list[int]):
    """Return what `exclude` says about some of the benchmarks."""
    return [barred[i] for i in rows] if isinstance(barred, list) else barred[:, rows]


def barred_units(
    exclude: np.ndarray | pd.DataFrame | Sequence[np.ndarray] | None, shape: tuple[int, int], stored: bool = False
) -> np.ndarray | list[np.ndarray]:
    """Return `exclude` (n_units, n_benchmarks) as a boolean array, all False for None; DataError for another shape.

    For a stored matrix it is a list of the barred positions of each benchmark.
    """
    if stored:
        return [np.zeros(0, dtype=np.int64)] * shape[1] if exclude is None else list(exclude)
    if exclude is None:
        return np.zeros(shape, dtype=bool)
    exclude = np.asarray(exclude)
    if exclude.shape != shape or exclude.dtype != bool:
        raise DataError(
            f"exclude has shape {exclude.shape} and type {exclude.dtype}; expected bool of shape {shape}: "
            "(n_units, n_benchmarks)."
        )
    return exclude


def _level(surprisal: np.ndarray, level: str) -> np.ndarray:
    surprisal = surprisal.astype(np.float64)
    if level == "log":
        return surprisal
    if surprisal.size and surprisal.max() > screening.LARGEST:
        raise DataError(
            f"level='raw' needs exp(surprisal), but a unit has {surprisal.max():.0f} nats: its perplexity is beyond "
            "any use as a regressor. Use level='log', or shorter units, or nats per token."
        )
    return np.exp(surprisal)


def _mode(mode: str | Mode, settings: dict) -> Mode:
    if isinstance(mode, str):
        if mode not in MODES:
            raise DataError(f"mode='{mode}' is unknown; {nearest(mode, MODES)}")
        mode = MODES[mode]
    known = [field.name for field in fields(Mode)]
    for name in settings:
        if name not in known:
            raise DataError(f"select has no setting '{name}'; {nearest(name, known)}")
    how = replace(mode, **settings)
    for name, allowed in {
        "statistic": ("thrush", "preselect"),
        "ties": ("average", "name"),
        "level": ("log", "raw"),
        "method": ("forward", "lasso", "elastic_net"),
        "stop": ("aic", "bic", "adjusted_r2", "cv"),
    }.items():
        if getattr(how, name) not in allowed:
            raise DataError(f"{name}='{getattr(how, name)}' is unknown; {nearest(str(getattr(how, name)), allowed)}")
    return how


def _frames(surprisal, scores, groups) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    stored = isinstance(surprisal, screening.Stored)
    named = (stored or isinstance(surprisal, pd.DataFrame)) and isinstance(scores, pd.DataFrame)
    surprisal, scores = surprisal if stored else pd.DataFrame(surprisal), pd.DataFrame(scores)
    if surprisal.shape[1] != scores.shape[1]:
        raise DataError(
            f"surprisal has shape {surprisal.shape} and scores {scores.shape}; expected (n_units, n_models) and "
            "(n_benchmarks, n_models) with the same models."
        )
    columns = list(surprisal.models if stored else surprisal.columns)
    if named and columns != list(scores.columns):
        odd = sorted({*map(str, columns)} ^ {*map(str, scores.columns)})
        raise DataError(
            "The models of surprisal and scores differ"
            + (f": {', '.join(odd[:6])} occur in one only." if odd else " in order.")
            + " Give both the same columns in the same order."
        )
    if not scores.index.is_unique:
        raise DataError(f"Benchmark '{scores.index[scores.index.duplicated()][0]}' has more than one row in scores.")
    if scores.shape[1] < MIN_MODELS:
        raise DataError(f"{scores.shape[1]} models are too few to select on; at least {MIN_MODELS} are needed.")
    groups = np.arange(scores.shape[1]) if groups is None else np.asarray(groups)
    if groups.shape != (scores.shape[1],):
        raise DataError(f"groups has shape {groups.shape}; expected one label for each of {scores.shape[1]} models.")
    scores = scores.astype(np.float64)
    if np.isinf(scores.to_numpy()).any():
        row, column = np.argwhere(np.isinf(scores.to_numpy()))[0]
        raise DataError(f"The score of '{scores.columns[column]}' on '{scores.index[row]}' is infinite.")
    return surprisal, scores, groups


def _unusable(row: np.ndarray) -> str:
    known = row[~np.isnan(row)]
    if len(known) < MIN_MODELS:
        return f"{len(known)} scored models, fewer than {MIN_MODELS}"
    return f"the same score, {known[0]:g}, for all {len(known)} models" if (known == known[0]).all() else ""


def _check_size(max_size: int | None, n_models: int) -> int:
    if max_size is None:
        return n_models - 2
    if not 1 <= max_size <= n_models - 2:
        raise DataError(
            f"max_size is {max_size}, but {n_models} models allow 1 to {n_models - 2} terms beside the intercept."
        )
    return int(max_size)


def _check(features: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.shape[1] == 0:
        raise DataError(
            f"features has shape {x.shape} and score {y.shape}; expected (n_models, n_candidates) and (n_models,)."
        )
    if len(y) < MIN_MODELS:
        raise DataError(f"{len(y)} models are too few to select on; at least {MIN_MODELS} are needed.")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise DataError(f"features is {x[row, column]} at model {row}, candidate {column}; leave that one out first.")
    if not np.isfinite(y).all():
        row = int(np.flatnonzero(~np.isfinite(y))[0])
        raise DataError(f"score is {y[row]} at model {row}; leave models without a score out first.")
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise DataError(f"All {len(y)} models have the score {y[0]:g}; nothing can be selected for a constant.")
    return x, y
