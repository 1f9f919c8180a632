"""Comparing sets of vectors: one set of questions a benchmark, one vector a question.

The semantic axis (sentence embeddings) and the neural axis (activation and attention traces) ask the same
question of different vectors: how alike are two *sets* of questions? This module holds the answers.

Relative measure (default of both axes): ``S_ab = cos(W (c_a - c), W (c_b - c))`` with ``c_a`` the centroid of
benchmark a, ``c`` the mean of the centroids, ``W = Sigma^(-1/2)`` and ``Sigma`` the Ledoit-Wolf covariance of
the questions around their own benchmark's centroid. Centring removes what all questions share (anisotropy),
whitening the directions in which questions of one benchmark differ anyway. It is relative to the benchmarks
present, so :class:`Frame` keeps ``c`` and ``W`` and places later benchmarks in the same frame.

Absolute companions, which do not depend on the other benchmarks: the normalised energy coefficient
(Szekely and Rizzo 2013), the cosine of kernel mean embeddings (Gretton et al. 2012), the mean pairwise
cosine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist
from sklearn.covariance import ledoit_wolf

from helpers import inference, overlap, provenance
from helpers.errors import DataError

CENTROID = ("centroid", "centred", "whitened", "zscored")
KERNEL = ("pairwise", "energy", "mmd")
MINIMUM = 4  # questions a benchmark: fewer cannot be split into halves with a spread of their own


@dataclass(frozen=True)
class Frame:
    """The frozen frame of a relative measure: where zero is (`center`), what counts as a unit (`whitener`).

    Attributes
    ----------
    names : benchmarks the frame was fitted on.
    center : (d,) float32, mean of the benchmarks' centroids.
    whitener : (d, d) float32 symmetric matrix, or (d,) float32 when it is diagonal.
    shrinkage : Ledoit-Wolf shrinkage towards a multiple of the identity, 0 to 1 (NaN when not used).
    """

    names: tuple[str, ...]
    center: np.ndarray
    whitener: np.ndarray
    shrinkage: float = float("nan")

    def transform(self, vectors: np.ndarray) -> np.ndarray:
        """Return (n, d) float32 whitened deviations from the centre; raises DataError on another width."""
        vectors = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
        if vectors.shape[1] != len(self.center):
            raise DataError(
                f"the frame has {len(self.center)} dimensions, the vectors {vectors.shape[1]}; use the encoder or "
                "model that made the frame."
            )
        moved = vectors - self.center
        return moved * self.whitener if self.whitener.ndim == 1 else moved @ self.whitener

    def place(self, new: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """Return the similarity of new benchmarks (rows) to known ones (columns), in this frozen frame.

        Both arguments map a benchmark to its (n_questions, d) vectors. The known benchmarks' own similarities
        do not change when others are added: that is what a frozen frame is for.
        """
        rows, columns = (np.stack([self.transform(v).mean(0) for v in part.values()]) for part in (new, known))
        return pd.DataFrame(_cosine(rows, columns), index=list(new), columns=list(known))

    def save(self, path: Path | str) -> Path:
        """Write the frame as safetensors, atomically."""
        meta = {"names": json.dumps(self.names), "shrinkage": str(self.shrinkage)}
        tensors = {"center": self.center, "whitener": np.ascontiguousarray(self.whitener)}
        return provenance.write_atomic(path, lambda t: save_file(tensors, t, meta))

    @classmethod
    def load(cls, path: Path | str) -> Frame:
        """Read a frame that :meth:`save` wrote."""
        with safe_open(path, framework="numpy") as stored:
            meta = stored.metadata()
            center, whitener = (stored.get_tensor(k).astype(np.float32) for k in ("center", "whitener"))
        return cls(tuple(json.loads(meta["names"])), center, whitener, float(meta["shrinkage"]))


@dataclass(frozen=True)
class Comparison:
    """Benchmarks compared pairwise: a matrix with its uncertainty.

    Attributes
    ----------
    matrix, low, high : benchmark x benchmark DataFrames; `low` and `high` bound a 95 % bootstrap interval
        over questions (NaN where not computed).
    reliability : one row a benchmark with `reliability`, `low`, `high`: see :func:`compare`.
    excluded : one row a benchmark left out, with the `reason`. Nothing is left out without a row here.
    report : one row a benchmark with what a reader should know about its input (counts, lengths, caveats).
    frame : the frozen frame of a relative measure, else None.
    companions : further matrices by name, where a measure has them.
    settings : what was asked for, for the artifact's sidecar.
    notes : sentences for the reader.
    interval : what `low` and `high` are, a key of ``inference.INTERVALS``.
    """

    matrix: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    reliability: pd.DataFrame
    excluded: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["benchmark", "reason"]))
    report: pd.DataFrame = field(default_factory=pd.DataFrame)
    frame: Frame | None = None
    companions: dict[str, pd.DataFrame] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    interval: str = "none"


def _cosine(rows: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    unit = [
        m / np.maximum(np.linalg.norm(m, axis=-1, keepdims=True), 1e-12)
        for m in (rows, rows if columns is None else columns)
    ]
    return np.clip(unit[0] @ np.swapaxes(unit[1], -1, -2), -1.0, 1.0)


def _checked(points: Mapping[str, np.ndarray], least: int) -> dict[str, np.ndarray]:
    points = {str(k): np.asarray(v, dtype=np.float32) for k, v in points.items()}
    if len(points) < least:
        raise DataError(
            f"{len(points)} benchmark(s) to compare, at least {least} are needed"
            + (
                ": centring puts two benchmarks at exactly -1 whatever they are; use measure='energy'."
                if least > 2
                else "."
            )
        )
    for name, block in points.items():
        if block.ndim != 2 or len(block) < MINIMUM:
            raise DataError(f"'{name}': expected at least {MINIMUM} question vectors, found shape {block.shape}.")
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise DataError(f"'{name}': question {bad[0]} has a value that is not finite ({len(bad)} such rows).")
    widths = {block.shape[1] for block in points.values()}
    if len(widths) > 1:
        raise DataError(f"vectors of different widths {sorted(widths)}: they come from different encoders.")
    return points


def fit_frame(points: Mapping[str, np.ndarray], whiten: str = "full") -> Frame:
    """Fit centre and whitener on benchmarks' question vectors.

    Parameters
    ----------
    points : maps benchmark to (n_questions, d).
    whiten : "full" the Ledoit-Wolf inverse square root of the pooled within-benchmark covariance; "diagonal"
        one over the pooled within-benchmark standard deviation; "none" no whitening.

    Returns
    -------
    Frame. Raises DataError when questions within benchmarks do not vary at all.

    References
    ----------
    Ledoit and Wolf (2004), Journal of Multivariate Analysis 88, 365-411.
    Walther et al. (2016), NeuroImage 137, 188-200 (whitening by the residual covariance).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> frame = fit_frame({name: rng.normal(size=(9, 3)) for name in "abc"})
    >>> frame.center.shape, frame.whitener.shape
    ((3,), (3, 3))
    """
    points = _checked(points, 2)
    centroids = np.stack([block.mean(0) for block in points.values()])
    center = centroids.mean(0)
    if whiten == "none":
        return Frame(tuple(points), center, np.ones_like(center))
    around = np.concatenate([block - block.mean(0) for block in points.values()]).astype(np.float64)
    spread = around.std(0)
    if not spread.any():
        raise DataError("questions of each benchmark have identical vectors: no within-benchmark covariance.")
    if whiten == "diagonal":
        scale = np.where(spread > 1e-9 * spread.max(), 1 / np.maximum(spread, 1e-30), 0.0)
        return Frame(tuple(points), center, scale.astype(np.float32))
    if whiten != "full":
        raise ValueError(f"whiten is 'full', 'diagonal' or 'none', not '{whiten}'")
    scale = np.sqrt(np.mean(around**2))
    covariance, shrinkage = ledoit_wolf(around / scale, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitener = (vectors / np.sqrt(np.maximum(values, 1e-8 * values[-1]))) @ vectors.T / scale
    return Frame(tuple(points), center, whitener.astype(np.float32), float(shrinkage))


WHITEN = {"centroid": "none", "centred": "none", "zscored": "diagonal", "whitened": "full"}


def question_weights(sizes: np.ndarray, rng: np.random.Generator, kind: str) -> tuple[np.ndarray, ...]:
    """Return (n_benchmarks, n_questions) weights: one matrix ("bootstrap", "all") or two ("halves")."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    result = [np.zeros((len(sizes), starts[-1]), dtype=np.float32) for _ in range(2 if kind == "halves" else 1)]
    for row, (start, size) in enumerate(zip(starts, sizes)):
        if kind == "all":
            result[0][row, start : start + size] = 1 / size
        elif kind == "bootstrap":
            counts = np.bincount(rng.integers(0, size, size), minlength=size)
            result[0][row, start : start + size] = counts / size
        else:
            order = rng.permutation(size)
            for half, part in zip(result, (order[: size // 2], order[size // 2 : 2 * (size // 2)])):
                half[row, start + part] = 1 / len(part)
    return tuple(result)


class CentroidStatistic:
    """Cosine of centroids, after the frame's map; recentred on every draw so that halves share nothing."""

    def __init__(self, points: dict[str, np.ndarray], measure: str):
        self.frame = fit_frame(points, WHITEN[measure])
        stacked = np.concatenate(list(points.values()))
        self.recentre = measure != "centroid"
        self.vectors = self.frame.transform(stacked) if self.recentre else stacked

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        centroids = weights @ self.vectors
        return _cosine(centroids - centroids.mean(0) if self.recentre else centroids)


class KernelStatistic:
    """Measures made of mean kernel values between and within sets; self-pairs never enter (unbiased)."""

    frame = None

    def __init__(self, kernel: np.ndarray, measure: str):
        self.kernel, self.measure = kernel, measure

    @classmethod
    def from_points(cls, points: dict[str, np.ndarray], measure: str) -> KernelStatistic:
        """Build the question x question kernel of a measure from vectors."""
        stacked = np.concatenate(list(points.values()))
        if measure == "pairwise":
            return cls(_cosine(stacked), measure)
        kernel = cdist(stacked, stacked).astype(np.float32)
        if measure == "mmd":
            width = np.median(kernel[np.triu_indices(len(stacked), 1)])
            kernel = np.exp(-((kernel / max(width, 1e-12)) ** 2) / 2)
        return cls(kernel, measure)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return kernel_matrix(self.kernel, weights, self.measure)


def kernel_matrix(kernel: np.ndarray, weights: np.ndarray, measure: str) -> np.ndarray:
    """Return the benchmark x benchmark similarity from a question x question kernel and question weights.

    "pairwise": mean kernel value between the sets (the diagonal: within a set, without self-pairs).
    "energy": ``1 - E / (2 D_ab)`` with ``E = 2 D_ab - D_aa - D_bb``, D the mean distance: 1 for equal
    distributions, towards 0 as they separate. "mmd": ``K_ab / sqrt(K_aa K_bb)``, the cosine of the mean
    embeddings. The estimates of D_aa and K_aa leave out self-pairs, so two samples of one distribution give 1
    on average and can exceed it.
    """
    mean = weights @ kernel @ weights.T
    own = weights**2
    within = (np.diag(mean) - own @ np.diag(kernel)) / (1 - own.sum(1))
    if measure == "pairwise":
        np.fill_diagonal(mean, within)
        return mean
    if measure == "mmd":
        result = mean / np.sqrt(np.outer(np.maximum(within, 1e-12), np.maximum(within, 1e-12)))
    else:
        result = (within[:, None] + within[None, :]) / np.maximum(2 * mean, 1e-12)
    np.fill_diagonal(result, 1.0)
    return result


def _statistic(points: dict[str, np.ndarray], measure: str):
    if measure in CENTROID:
        return CentroidStatistic(points, measure)
    if measure in KERNEL:
        return KernelStatistic.from_points(points, measure)
    raise ValueError(f"measure '{measure}' is none of {', '.join(CENTROID + KERNEL)}")


def row_correlation(first: np.ndarray, second: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return Spearman of each row of two matrices over the given columns, the row's own column left out.

    `columns` may name a column several times (a bootstrap draw). NaN where a row is constant or fewer than three
    different columns are left.

    >>> same = np.array([[0, 1, 2, 3], [1, 0, 5, 4], [2, 5, 0, 6], [3, 4, 6, 0]])
    >>> row_correlation(same, -same, np.arange(4)).round(6).tolist()
    [-1.0, -1.0, -1.0, -1.0]
    """
    result = np.full(len(first), np.nan)
    drawn = np.bincount(columns, minlength=len(first))[: len(first)]
    for times in np.unique(drawn):  # rows that lose equally many columns are ranked together
        if np.count_nonzero(np.bincount(columns)) - (times > 0) <= 2:
            continue
        rows = np.flatnonzero(drawn == times)
        keep = np.broadcast_to(columns, (len(rows), len(columns)))[columns != rows[:, None]]
        keep = keep.reshape(len(rows), -1)
        result[rows] = inference.spearman_by_row(first[rows[:, None], keep], second[rows[:, None], keep])
    return result


def compare(
    points: Mapping[str, np.ndarray],
    measure: str = "whitened",
    *,
    bootstraps: int = 200,
    splits: int = 50,
    seed: int = 0,
) -> Comparison:
    """Compare sets of question vectors pairwise, with intervals and split-half reliability.

    Parameters
    ----------
    points : maps benchmark to (n_questions, d) finite vectors, at least 4 questions each.
    measure : relative: "whitened" (default), "zscored" (diagonal whitening), "centred"; absolute: "centroid"
        (raw cosine of centroids), "pairwise", "energy", "mmd". Formulas: module and :func:`kernel_matrix`.
    bootstraps : resamples of each benchmark's questions, the frame held fixed; 0 leaves the intervals NaN.
    splits : random halvings for the reliability: Spearman of a benchmark's row of similarities from one half
        of all questions with the same row from the other half (disjoint questions, common whitener, separate
        centres), stepped up by Spearman-Brown. Its interval also resamples the other benchmarks. 0: NaN.

    Returns
    -------
    Comparison. Raises DataError for fewer than three benchmarks with a relative measure, too few questions,
    values that are not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> points = {name: rng.normal(loc=loc, size=(20, 3)) for name, loc in zip("abcd", (0, 0, 3, 3))}
    >>> result = compare(points, bootstraps=20, splits=10)
    >>> bool(result.matrix.loc["a", "b"] > result.matrix.loc["a", "c"])
    True
    """
    points = _checked(points, 3 if measure in CENTROID and measure != "centroid" else 2)
    statistic = _statistic(points, measure)
    return resample(list(points), [len(v) for v in points.values()], [statistic], measure, bootstraps, splits, seed)


def compare_mean(
    layers: list[Mapping[str, np.ndarray]],
    measure: str = "whitened",
    *,
    bootstraps: int = 200,
    splits: int = 50,
    seed: int = 0,
) -> Comparison:
    """Compare benchmarks in several spaces (layers, models) with the same questions and average the matrices.

    Resampling draws questions once for all spaces, so the interval is that of the average.
    """
    checked = [_checked(points, 3) for points in layers]
    if any(list(p) != list(checked[0]) for p in checked):
        raise DataError("the spaces to average hold different benchmarks")
    sizes = [len(v) for v in checked[0].values()]
    if any([len(v) for v in p.values()] != sizes for p in checked):
        raise DataError("the spaces to average hold different numbers of questions")
    statistics = [_statistic(points, measure) for points in checked]
    return resample(list(checked[0]), sizes, statistics, measure, bootstraps, splits, seed)


def resample(names, sizes, statistics, measure, bootstraps, splits, seed) -> Comparison:
    """Average `statistics` (question weights to a benchmark matrix); bootstrap and halve the questions."""
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([s(weights) for s in statistics], axis=0)

    value = mean(*question_weights(sizes, rng, "all"))
    low, high, kind = np.full_like(value, np.nan), np.full_like(value, np.nan), "none"
    if bootstraps:
        draws = np.stack([mean(*question_weights(sizes, rng, "bootstrap")) for _ in range(bootstraps)])
        bounded = measure in (*CENTROID, "pairwise")
        low, high = inference.interval(draws, estimate=value, fisher=bounded)
        kind = "recentred, Fisher z" if bounded else "recentred"
    halves = np.full((max(splits, 1), len(names)), np.nan)
    for split in range(splits):
        first, second = (mean(w) for w in question_weights(sizes, rng, "halves"))
        halves[split] = row_correlation(first, second, rng.integers(0, len(names), len(names)))
    for bound in (low, high):
        np.fill_diagonal(bound, np.diag(value))
    frames = [pd.DataFrame(m, index=names, columns=names) for m in (value, low, high)]
    return Comparison(
        *frames,
        reliability=inference.reliability_table(halves, names),
        frame=statistics[0].frame if len(statistics) == 1 else None,
        settings={"measure": measure, "bootstraps": bootstraps, "splits": splits, "seed": seed},
        interval=kind,
    )


def matrix_reliability(comparison: Comparison) -> float:
    """Return the mean of the benchmarks' reliabilities, the square of the matrix' noise ceiling."""
    return float(comparison.reliability["reliability"].mean())


def crossnobis(points: Mapping[str, np.ndarray], *, splits: int = 20, seed: int = 0) -> pd.DataFrame:
    """Return cross-validated squared Mahalanobis distances between benchmarks (absolute; can be negative).

    ``d_ab = mean over splits of (y_a1 - y_b1) . (y_a2 - y_b2) / d`` with y the whitened centroids of disjoint
    halves: unbiased by noise, zero on average for equal benchmarks. Walther et al. (2016), NeuroImage 137.
    """
    points = _checked(points, 2)
    vectors = fit_frame(points).transform(np.concatenate(list(points.values())))
    sizes = np.array([len(v) for v in points.values()])
    rng = np.random.default_rng(seed)
    total = np.zeros((len(sizes), len(sizes)))
    for _ in range(splits):
        first, second = (w @ vectors for w in question_weights(sizes, rng, "halves"))
        cross = first @ second.T
        own = np.diag(cross)
        total += own[:, None] + own[None, :] - cross - cross.T
    return pd.DataFrame(total / splits / vectors.shape[1], index=list(points), columns=list(points))


def residual(matrix: pd.DataFrame, covariates: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the matrix with linear effects of pairwise covariates (e.g. length difference) taken out.

    Ordinary least squares over the pairs above the diagonal; the mean is kept, the diagonal set to NaN. A
    description, not a test: for a test see ``helpers.inference.mrqap``.
    """
    names = list(matrix.index)
    rows, columns = np.triu_indices(len(names), 1)
    target = inference.upper(matrix)
    design = [np.ones_like(target)]
    for name, covariate in covariates.items():
        missing = sorted(set(names) - set(covariate.index))
        if missing:
            raise DataError(f"covariate '{name}' has no row for '{missing[0]}' ({len(missing)} missing).")
        design.append(inference.upper(covariate.loc[names, names]))
    design = np.stack(design, 1)
    left = target - design @ np.linalg.lstsq(design, target, rcond=None)[0] + target.mean()
    result = np.full(matrix.shape, np.nan)
    result[rows, columns] = result[columns, rows] = left
    return pd.DataFrame(result, index=names, columns=names)


def write_axis(folder: Path | str, axis: str, comparison: Comparison, **provenance_arguments) -> list[Path]:
    """Write ``<folder>/overlap/<axis>.parquet`` and ``<axis>-reliability.csv``, each with its sidecar."""
    common = {"parameters": comparison.settings, **provenance_arguments}
    reliability = comparison.reliability.set_index("benchmark")
    bounds = comparison.low, comparison.high
    return overlap.write(folder, axis, comparison.matrix, *bounds, reliability, interval=comparison.interval, **common)
