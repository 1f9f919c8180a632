"""Maps of benchmarks: one embedding an axis, aligned, so that a benchmark's move between axes has a meaning.

An *axis* is one way of saying how alike two benchmarks are: performance, signature, semantic, neural. Each
comes as a square DataFrame of similarities in [-1, 1], benchmark x benchmark, possibly over different
benchmarks. Here they are read (:func:`read`), checked (:func:`check`), embedded (:func:`embed`), aligned
(:func:`align`), given uncertainty (:func:`uncertainty`), ordered (:func:`seriate`) and laid side by side
pair by pair (:func:`pairs`, :func:`profile`). A benchmark that an axis lacks stays missing there; nothing is
imputed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.linalg import eigh, orthogonal_procrustes
from scipy.spatial.distance import squareform
from scipy.stats import chi2, rankdata
from sklearn.manifold import smacof

from helpers import inference, overlap, paths, provenance
from helpers.errors import DataError, nearest

MINIMUM = inference.MIN_BENCHMARKS
KNOWN = ("performance", "signature-crossfit", "signature", "semantic", "neural", "attention")
TITLES = {
    "performance": "performance",
    "signature": "signature (in sample)",
    "signature-crossfit": "signature (cross-fitted)",
    "semantic": "semantic",
    "neural": "neural",
    "attention": "attention",
}
Z95 = 1.959963984540054
WORK = 5_000_000  # entries of an axis' resampled matrices, all together: above 220 benchmarks fewer than 100
STRETCH = np.float32(1.7)  # 2 would be the fastest for the shape, but the size would swing for ever


@dataclass(frozen=True)
class Axes:
    """Similarity matrices by axis, with 95 % interval bounds and reliabilities where they exist.

    Attributes
    ----------
    values : dict[str, DataFrame]
        Square, symmetric, diagonal 1, unit-free similarity in [-1, 1].
    low, high : dict[str, DataFrame]
        Bounds of the 95 % interval of each pair, NaN where not computed; axes without intervals are absent.
    reliability : dict[str, Series]
        Reliability by benchmark; axes without one are absent.
    missing : DataFrame
        Columns ``axis``, ``benchmark``, ``reason``: what is not on an axis and why.
    interval : dict[str, str]
        What the bounds of an axis are (``inference.INTERVALS``); only axes that were read from artifacts.
    """

    values: dict[str, pd.DataFrame]
    low: dict[str, pd.DataFrame] = field(default_factory=dict)
    high: dict[str, pd.DataFrame] = field(default_factory=dict)
    reliability: dict[str, pd.Series] = field(default_factory=dict)
    missing: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["axis", "benchmark", "reason"]))
    interval: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Benchmarks found on at least one axis, in order of first appearance."""
        return list(dict.fromkeys(itertools.chain.from_iterable(m.index for m in self.values.values())))

    def __iter__(self):
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, axis: str) -> pd.DataFrame:
        if axis not in self.values:
            raise DataError(f"No axis '{axis}' here; {nearest(axis, self.values)}")
        return self.values[axis]

    def subset(self, axes: Iterable[str]) -> Axes:
        """Return only the named axes, in the order given."""
        axes = list(axes)
        return Axes(
            {a: self[a] for a in axes},
            {a: self.low[a] for a in axes if a in self.low},
            {a: self.high[a] for a in axes if a in self.high},
            {a: self.reliability[a] for a in axes if a in self.reliability},
            self.missing[self.missing["axis"].isin(axes)],
            {a: self.interval[a] for a in axes if a in self.interval},
        )


def square(table: pd.DataFrame, column: str = "value", diagonal: float = 1.0) -> pd.DataFrame:
    """Turn a long table of pairs (``a``, ``b``, `column`) into a symmetric square DataFrame.

    Pairs may be given once or both ways; a pair that is not in the table is NaN. Raises DataError when the
    two directions disagree by more than 1e-6 or a pair is given twice in one direction.

    >>> square(pd.DataFrame({"a": ["x", "x"], "b": ["y", "z"], "value": [0.5, 0.2]})).loc["z", "x"].item()
    0.2
    """
    absent = [c for c in ("a", "b", column) if c not in table.columns]
    if absent:
        raise DataError(f"The table of pairs lacks column '{absent[0]}'; {nearest(absent[0], table.columns)}")
    twice = table.duplicated(["a", "b"])
    if twice.any():
        row = table[twice].iloc[0]
        raise DataError(f"The pair ({row['a']}, {row['b']}) is given twice (row {twice.idxmax()}); keep one.")
    names = list(dict.fromkeys(itertools.chain(table["a"], table["b"])))
    position = {name: i for i, name in enumerate(names)}
    rows, columns = table["a"].map(position).to_numpy(), table["b"].map(position).to_numpy()
    matrix = np.full((len(names), len(names)), np.nan)
    matrix[rows, columns] = table[column].to_numpy(float)
    both = np.isfinite(matrix) & np.isfinite(matrix.T)
    gap = np.where(both, np.abs(matrix - matrix.T), 0.0)
    if gap.size and gap.max() > 1e-6:
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        raise DataError(
            f"{column} of ({names[i]}, {names[j]}) is {matrix[i, j]:.6g} one way and {matrix[j, i]:.6g} the other; an "
            "axis must be symmetric."
        )
    matrix = np.where(np.isfinite(matrix), matrix, matrix.T)
    np.fill_diagonal(matrix, np.where(np.isfinite(matrix.diagonal()), matrix.diagonal(), diagonal))
    return pd.DataFrame(matrix, index=names, columns=names)


def available(folder: Path | str) -> list[str]:
    """Return the axes that have an artifact in a study's results folder, in the usual order."""
    found = {p.stem for p in (Path(folder) / "overlap").glob("*.parquet")}
    return [a for a in KNOWN if a in found] + sorted(found - set(KNOWN))


def read(study: str, axes: Sequence[str] | None = None) -> Axes:
    """Read the overlap artifacts of a study into :class:`Axes`.

    Benchmarks whose pairs are not all measured on an axis are left out of that axis and listed in
    ``missing``.

    Parameters
    ----------
    study : str
        Study name; artifacts are looked for in ``paths.results(study)/overlap``.
    axes : sequence of str, optional
        Which axes; default: all that exist.

    Raises
    ------
    DataError
        No axis exists, a named axis does not, or a matrix is unusable (see :func:`check`).
    """
    folder = paths.results(study)
    found = available(folder)
    wanted = list(axes) if axes is not None else found
    if not wanted:
        raise DataError(f"{paths.label(folder / 'overlap')} holds no axis; run `make study STUDY={study}` first.")
    values, low, high, reliability, interval = {}, {}, {}, {}, {}
    for axis in wanted:
        if axis not in found:
            raise DataError(f"Study '{study}' has no axis '{axis}'; {nearest(axis, found)}")
        table = provenance.read_table(folder / "overlap" / f"{axis}.parquet")
        values[axis] = square(table)
        for bound, column in ((low, "low"), (high, "high")):
            if column in table.columns and table[column].notna().any():
                bound[axis] = square(table, column)
        path = folder / "overlap" / f"{axis}-reliability.csv"
        if path.exists():
            reliability[axis] = provenance.read_table(path).set_index("benchmark")["reliability"]
        interval[axis] = overlap.interval_kind(table)
    return complete(Axes(values, low, high, reliability, interval=interval))


def complete(axes: Axes) -> Axes:
    """Leave out of each axis the fewest benchmarks (greedily) that make its matrix finite, and list them.

    A benchmark that was on some axis but not on another is listed too, with the reason ``not on this axis``.
    """
    notes, values = [], {}
    names = axes.names
    for axis, matrix in axes.values.items():
        kept, out = finite_core(matrix)
        values[axis] = matrix.loc[kept, kept]
        notes += [{"axis": axis, "benchmark": b, "reason": why} for b, why in out.items()]
        notes += [{"axis": axis, "benchmark": b, "reason": "not on this axis"} for b in names if b not in matrix.index]
    bounds = [
        {a: m.reindex(index=values[a].index, columns=values[a].index) for a, m in side.items()}
        for side in (axes.low, axes.high)
    ]
    missing = pd.DataFrame(notes, columns=["axis", "benchmark", "reason"])
    return check(Axes(values, *bounds, axes.reliability, missing, axes.interval))


def comparable(axes: Axes) -> Axes:
    """Keep the benchmarks that stand on at least two axes: only they can be displaced.

    A benchmark of one axis has no other place to be compared with, yet it would take part in that axis' plane
    and hold it fast in the alignment. `missing` still lists it. When an axis would fall below
    :data:`MINIMUM` benchmarks, `axes` is returned as it is.

    >>> a, b = list("abcdef"), list("abcdexyz")
    >>> both = comparable(Axes({"semantic": pd.DataFrame(np.eye(6), a, a), "neural": pd.DataFrame(np.eye(8), b, b)}))
    >>> "".join(both["neural"].index)
    'abcde'
    """
    counts = pd.Series([n for m in axes.values.values() for n in m.index], dtype=object).value_counts()
    keep = {a: [n for n in m.index if counts[n] > 1] for a, m in axes.values.items()}
    if min(map(len, keep.values())) < MINIMUM:
        return axes
    values, low, high = (
        {a: m.loc[keep[a], keep[a]] for a, m in side.items() if a in keep}
        for side in (axes.values, axes.low, axes.high)
    )
    return Axes(values, low, high, dict(axes.reliability), axes.missing, axes.interval)


def finite_core(matrix: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
    """Return the benchmarks that form a finite matrix, and for each one left out the reason.

    The benchmark with the most unmeasured pairs is removed first, until none is left.

    >>> m = pd.DataFrame(np.eye(3), index=list("abc"), columns=list("abc")); m.loc["a", "c"] = np.nan
    >>> m.loc["b", "c"] = np.nan
    >>> finite_core(m)
    (['a', 'b'], {'c': '2 of 2 pairs not measured'})
    """
    gaps = ~np.isfinite(matrix.to_numpy(float))
    gaps |= gaps.T
    np.fill_diagonal(gaps, False)
    total = gaps.sum(axis=1)
    alive = np.ones(len(matrix), bool)
    out: dict[str, str] = {}
    while (count := np.where(alive, (gaps & alive).sum(axis=1), 0)).any():
        worst = int(count.argmax())
        alive[worst] = False
        out[str(matrix.index[worst])] = f"{total[worst]} of {len(matrix) - 1} pairs not measured"
    return [str(b) for b in matrix.index[alive]], out


def check(axes: Axes | Mapping[str, pd.DataFrame], minimum: int = MINIMUM) -> Axes:
    """Return `axes` as :class:`Axes` after refusing what cannot be mapped.

    Raises
    ------
    DataError
        Not square, rows and columns that differ, duplicate names, non-finite or non-symmetric entries, values
        outside [-1, 1], fewer than `minimum` benchmarks, a constant axis, or axes that share fewer than 3
        benchmarks with all others (the nearest names are suggested). The message names axis, row and column.

    >>> check({"performance": pd.DataFrame(np.eye(2))})
    Traceback (most recent call last):
    helpers.errors.DataError: Axis 'performance' has 2 benchmarks; a map needs at least 5. ...
    """
    if not isinstance(axes, Axes):
        axes = Axes({str(a): m for a, m in axes.items()})
    if not axes.values:
        raise DataError("No axis was given; expected a dict of axis name to a benchmark x benchmark DataFrame.")
    clean = {axis: _check_matrix(axis, matrix, minimum) for axis, matrix in axes.values.items()}
    for side, name in ((axes.low, "low"), (axes.high, "high")):
        for axis in side:
            if axis in clean and not clean[axis].index.equals(side[axis].index):
                raise DataError(f"Axis '{axis}': the '{name}' bounds are over other benchmarks than the values.")
    _check_shared(clean)
    return Axes(clean, dict(axes.low), dict(axes.high), dict(axes.reliability), axes.missing, axes.interval)


def _check_matrix(axis: str, matrix: pd.DataFrame, minimum: int) -> pd.DataFrame:
    where = f"Axis '{axis}'"
    if not isinstance(matrix, pd.DataFrame):
        raise DataError(f"{where}: expected a DataFrame with benchmark names, found {type(matrix).__name__}.")
    if matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"{where} is {matrix.shape[0]} x {matrix.shape[1]}; expected a square matrix.")
    if matrix.index.has_duplicates:
        twice = matrix.index[matrix.index.duplicated()][0]
        raise DataError(f"{where}: benchmark '{twice}' appears twice; names must be unique.")
    if set(matrix.index) != set(matrix.columns):
        odd = next(iter(set(matrix.index) ^ set(matrix.columns)))
        raise DataError(f"{where}: '{odd}' is only a row or only a column; rows and columns must be the same names.")
    if len(matrix) < minimum:
        raise DataError(
            f"{where} has {len(matrix)} benchmarks; a map needs at least {minimum}. Add benchmarks, or compare the "
            "pairs in a table instead."
        )
    matrix = matrix.loc[:, matrix.index].astype(float)
    array = matrix.to_numpy()
    if not np.isfinite(array).all():
        i, j = np.argwhere(~np.isfinite(array))[0]
        count = int((~np.isfinite(array)).sum())
        raise DataError(
            f"{where}: {count} entries are not finite, first ({matrix.index[i]}, {matrix.index[j]}); leave such "
            "benchmarks out with maps.complete, which lists them."
        )
    gap = np.abs(array - array.T)
    if gap.max() > 1e-6:
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        raise DataError(
            f"{where} is not symmetric: ({matrix.index[i]}, {matrix.index[j]}) is {array[i, j]:.6g} but the reverse is "
            f"{array[j, i]:.6g}."
        )
    if np.abs(array).max() > 1 + 1e-6:
        i, j = np.unravel_index(np.abs(array).argmax(), array.shape)
        raise DataError(
            f"{where}: ({matrix.index[i]}, {matrix.index[j]}) is {array[i, j]:.4g}, outside [-1, 1]; expected "
            "correlations or cosines (disattenuated values can exceed 1: map the raw ones)."
        )
    upper = array[np.triu_indices(len(array), 1)]
    if np.ptp(upper) < 1e-12:
        raise DataError(f"{where} is constant: every pair has {upper[0]:.4g}, so there is nothing to map; drop it.")
    array = np.clip((array + array.T) / 2, -1, 1)
    np.fill_diagonal(array, 1.0)
    names = [str(n) for n in matrix.index]
    return pd.DataFrame(array, index=names, columns=names)


def _check_shared(matrices: Mapping[str, pd.DataFrame]) -> None:
    if len(matrices) < 2:
        return
    for axis, matrix in matrices.items():
        others = {n for a, m in matrices.items() if a != axis for n in m.index}
        shared = others & set(matrix.index)
        if len(shared) < 3:
            example = next(n for n in matrix.index if n not in shared)
            raise DataError(
                f"Axis '{axis}' shares {len(shared)} benchmarks with the other axes; at least 3 are needed to align "
                f"maps. Names must be equal: '{example}' is unknown elsewhere; {nearest(example, others)}"
            )


def dissimilarity(similarity: np.ndarray | pd.DataFrame, transform: str = "chord") -> np.ndarray:
    """Turn similarities in [-1, 1] into dissimilarities, float64 (n, n), zero diagonal.

    ``chord``
        ``d = sqrt(2 (1 - s))``: the distance between unit vectors of cosine (or correlation) s, in [0, 2]
        (Gower and Legendre 1986). It keeps the size of differences.
    ``rank``
        The average rank of ``1 - s`` over pairs, scaled to (0, 1]: only the order of pairs counts, so that
        axes with unlike spreads weigh alike.

    >>> dissimilarity(np.array([[1.0, 0.5], [0.5, 1.0]])).round(3).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    array = np.asarray(similarity, float)
    if transform == "chord":
        result = np.sqrt(np.maximum(2 * (1 - array), 0))
    elif transform == "rank":
        upper = np.triu_indices(len(array), 1)
        ranks = rankdata(1 - array[upper]) / len(upper[0])
        result = np.zeros_like(array)
        result[upper] = ranks
        result += result.T
    else:
        raise ValueError(f"transform is '{transform}'; expected 'chord' or 'rank'.")
    np.fill_diagonal(result, 0.0)
    return result


@dataclass(frozen=True)
class Embedding:
    """Points of one axis: `points` (n, 2), normalised Kruskal `stress` (0 is perfect), `transform` used."""

    points: pd.DataFrame
    stress: float
    transform: str
    iterations: int


def embed(similarity: pd.DataFrame, transform: str = "chord", init: np.ndarray | None = None) -> Embedding:
    """Embed one axis in the plane by metric multidimensional scaling (SMACOF).

    Starts from classical scaling (Torgerson), so the result has no random part. The stress is Kruskal's
    stress-1,
    ``sqrt(sum (d - delta)^2 / sum d^2)`` over pairs: below 0.1 the plane is faithful, above 0.3 read with
    care.

    Parameters
    ----------
    similarity : DataFrame, (n, n)
        Checked similarities (see :func:`check`).
    transform : {'chord', 'rank'}
        See :func:`dissimilarity`.
    init : ndarray (n, 2), optional
        Starting configuration (bootstraps start from the point estimate).
    """
    delta = dissimilarity(similarity, transform)
    start = classical(delta) if init is None else init
    points, _, iterations = smacof(
        delta,
        n_components=2,
        init=start,
        n_init=1,
        max_iter=300,
        eps=1e-6,
        normalized_stress=True,
        return_n_iter=True,
    )
    points = points - points.mean(axis=0)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    stress = np.sqrt(((distance - delta) ** 2).sum() / (distance**2).sum())
    frame = pd.DataFrame(points, index=getattr(similarity, "index", None), columns=["x", "y"])
    return Embedding(frame, float(stress), transform, int(iterations))


def majorize(deltas: Sequence[np.ndarray], start: np.ndarray, rounds: int = 300, tolerance: float = 1e-4) -> np.ndarray:
    """Embed many dissimilarity matrices (draws, n, n) from one start (n, 2): points (draws, n, 2).

    The SMACOF update (de Leeuw 1977, the one of scikit-learn), taken :data:`STRETCH` as far (relaxed, de
    Leeuw and Heiser 1980), which saves rounds, on as many draws at a time as fit a core's cache, in float32.
    It runs until no point of a draw would move by more than `tolerance` of the start's radius in a plain
    update: stopping early would keep the draws near their start and make ellipses too small.
    """
    start = np.asarray(start, np.float32)
    step = tolerance * np.sqrt((start**2).sum(axis=1).mean())
    n = len(start)
    chunk = max(1, 200_000 // n**2)
    result = np.empty((len(deltas), n, 2), np.float32)
    diagonal = range(n)
    for first in range(0, len(deltas), chunk):
        delta = np.stack([np.asarray(d, np.float32) for d in deltas[first : first + chunk]])
        x = np.repeat(start[None], len(delta), axis=0)
        ratio, gap = np.empty_like(delta), np.empty_like(delta)
        for _ in range(rounds):
            np.subtract(x[:, :, None, 0], x[:, None, :, 0], out=ratio)
            np.multiply(ratio, ratio, out=ratio)
            np.subtract(x[:, :, None, 1], x[:, None, :, 1], out=gap)
            np.multiply(gap, gap, out=gap)
            ratio += gap
            np.maximum(ratio, 1e-10, out=ratio)
            np.sqrt(ratio, out=ratio)
            np.divide(delta, ratio, out=ratio)
            ratio[:, diagonal, diagonal] = 0.0
            change = (ratio.sum(axis=2)[:, :, None] * x - ratio @ x) / n - x
            done = np.abs(change).max() < step
            x = x + (1 if done else STRETCH) * change  # plain at the end: only that sets the size right
            if done:
                break
        result[first : first + chunk] = x
    return result.astype(float)


def classical(delta: np.ndarray, dimensions: int = 2) -> np.ndarray:
    """Return Torgerson's classical scaling of dissimilarities (n, n) as points (n, `dimensions`)."""
    n = len(delta)
    centre = np.eye(n) - 1 / n
    inner = -0.5 * centre @ (delta**2) @ centre
    eigenvalues, vectors = eigh(inner, subset_by_index=[n - dimensions, n - 1])
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(dimensions)])
    return (vectors * np.sqrt(np.maximum(eigenvalues, 1e-12)))[:, ::-1]


@dataclass(frozen=True)
class Alignment:
    """Aligned maps of several axes.

    Attributes
    ----------
    points : dict[str, DataFrame]
        (n_axis, 2) by axis, in units of the consensus' root-mean-square radius.
    consensus : DataFrame
        (n, 2): the mean over the axes that hold a benchmark; column ``axes`` counts them.
    stress : dict[str, float]
        Stress of each axis' embedding.
    disparity : DataFrame
        axis x axis Procrustes m2 in [0, 1] on shared benchmarks (0: same shape).
    """

    points: dict[str, pd.DataFrame]
    consensus: pd.DataFrame
    stress: dict[str, float]
    disparity: pd.DataFrame


def _fit(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return what carries source onto target best: its centre, the rotation, the scale, the new centre."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    rotation, _ = orthogonal_procrustes(source - a, target - b)
    size = np.linalg.norm(source - a)
    scale = np.linalg.norm(target - b) / size if size > 0 else 1.0
    return a, rotation, scale, b


def _carry(points: np.ndarray, fit: tuple[np.ndarray, np.ndarray, float, np.ndarray]) -> np.ndarray:
    a, rotation, scale, b = fit
    return (points - a) @ rotation * scale + b


def align(
    configurations: Mapping[str, Embedding] | Mapping[str, pd.DataFrame],
    tolerance: float = 1e-10,
    rounds: int = 200,
) -> Alignment:
    """Align the axes' configurations by generalised Procrustes analysis (Gower 1975).

    Each configuration is moved, turned (reflection allowed) and brought to the size of the consensus over the
    benchmarks that it holds; the consensus is the mean over the axes that hold a benchmark (Commandeur 1991:
    a missing benchmark has weight zero). The size is matched, not regressed: regression shrinks noisy axes
    towards the centre and would pass noise off as displacement. The consensus is centred, has
    root-mean-square radius 1 and lies on its principal axes, so the drawing is the same on every machine.

    Raises DataError when an axis shares fewer than 3 benchmarks with the others.
    """
    stress = {k: e.stress for k, e in configurations.items() if isinstance(e, Embedding)}
    frames = {k: (e.points if isinstance(e, Embedding) else e) for k, e in configurations.items()}
    _check_shared(frames)
    names = list(dict.fromkeys(itertools.chain.from_iterable(f.index for f in frames.values())))
    position = {n: i for i, n in enumerate(names)}
    rows = {k: np.array([position[n] for n in f.index]) for k, f in frames.items()}
    points = {k: f.to_numpy(float) for k, f in frames.items()}
    order = sorted(frames, key=lambda k: (-len(rows[k]), list(frames).index(k)))
    consensus = np.full((len(names), 2), np.nan)
    first = order[0]
    consensus[rows[first]] = points[first] / np.sqrt(((points[first]) ** 2).sum(axis=1).mean())
    waiting = order[1:]
    while waiting:  # the axis that shares most with what is placed already comes next
        axis = max(waiting, key=lambda k: int(np.isfinite(consensus[rows[k], 0]).sum()))
        waiting.remove(axis)
        shared = np.isfinite(consensus[rows[axis], 0])
        if shared.sum() < 3:
            raise DataError(f"Axis '{axis}' shares {shared.sum()} benchmarks with the axes placed before; at least 3.")
        points[axis] = _carry(points[axis], _fit(points[axis][shared], consensus[rows[axis]][shared]))
        fresh = ~shared
        consensus[rows[axis][fresh]] = points[axis][fresh]
    points[first] = consensus[rows[first]].copy()
    counts = np.zeros(len(names))
    for r in rows.values():
        counts[r] += 1
    for _ in range(rounds):
        before = consensus.copy()
        for axis in order:
            points[axis] = _carry(points[axis], _fit(points[axis], consensus[rows[axis]]))
        total = np.zeros_like(consensus)
        for axis in order:
            total[rows[axis]] += points[axis]
        consensus = total / counts[:, None]
        shift = consensus.mean(axis=0)
        radius = np.sqrt(((consensus - shift) ** 2).sum(axis=1).mean())
        consensus = (consensus - shift) / radius
        points = {k: (p - shift) / radius for k, p in points.items()}
        if np.abs(consensus - before).max() < tolerance:
            break
    _, _, turn = np.linalg.svd(consensus, full_matrices=False)
    turn = turn.T
    turned = consensus @ turn
    turn = turn * np.where(turned[np.abs(turned).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    frames = {
        k: pd.DataFrame(points[k] @ turn, index=frames[k].index, columns=["x", "y"]).rename_axis("benchmark")
        for k in frames
    }
    mean = pd.DataFrame(consensus @ turn, index=pd.Index(names, name="benchmark"), columns=["x", "y"])
    mean["axes"] = counts.astype(int)
    return Alignment(frames, mean, stress, _disparities(frames))


def _disparities(points: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    table = pd.DataFrame(0.0, index=list(points), columns=list(points))
    for a, b in itertools.combinations(points, 2):
        shared = points[a].index.intersection(points[b].index)
        value = _m2(points[a].loc[shared].to_numpy(), points[b].loc[shared].to_numpy()) if len(shared) >= 3 else np.nan
        table.loc[a, b] = table.loc[b, a] = value
    return table


def _m2(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(1 - np.linalg.svd(a.T @ b, compute_uv=False).sum() ** 2)


def protest(a: pd.DataFrame, b: pd.DataFrame, permutations: int = 999, seed: int = 0) -> dict[str, float]:
    """Test whether two maps have a common shape (PROTEST, Jackson 1995).

    Returns ``m2`` in [0, 1] (0: same shape), ``p`` = (1 + count) / (1 + permutations) over permutations of
    the benchmarks, and ``n`` shared benchmarks. Raises DataError when fewer than :data:`MINIMUM` are shared.
    """
    shared = a.index.intersection(b.index)
    if len(shared) < MINIMUM:
        raise DataError(f"The two maps share {len(shared)} benchmarks; at least {MINIMUM} are needed.")
    x, y = a.loc[shared, ["x", "y"]].to_numpy(), b.loc[shared, ["x", "y"]].to_numpy()
    observed, random = _m2(x, y), np.random.default_rng(seed)
    count = sum(_m2(x, y[random.permutation(len(y))]) <= observed + 1e-12 for _ in range(permutations))
    return {"m2": observed, "p": (1 + count) / (1 + permutations), "n": float(len(shared))}


@dataclass(frozen=True)
class Uncertainty:
    """Covariances of the aligned positions: `covariance[axis]` is (n_axis, 2, 2); `source[axis]` says from
    what; `scatter[axis]` holds the draws behind it, (draws, n_axis, 2), about their mean."""

    covariance: dict[str, np.ndarray]
    source: dict[str, str]
    draws: int
    scatter: dict[str, np.ndarray] = field(default_factory=dict)


def standard_errors(axes: Axes, axis: str) -> np.ndarray | None:
    """Return standard errors of Fisher's z of each pair from the 95 % interval, or None without intervals.

    ``se = (atanh(high) - atanh(low)) / (2 * 1.96)``; NaN where a pair has no interval.
    """
    if axis not in axes.low or axis not in axes.high:
        return None
    limit = 1 - 1e-9
    low, high = (np.clip(side[axis].to_numpy(float), -limit, limit) for side in (axes.low, axes.high))
    return (np.arctanh(high) - np.arctanh(low)) / (2 * Z95)


def draws_from_intervals(axes: Axes, axis: str, count: int, seed: int = 0) -> Iterable[np.ndarray] | None:
    """Yield `count` matrices drawn from the 95 % intervals of an axis, or return None where it has none.

    Fisher's z of each pair gets normal noise of its standard error. Pairs are drawn INDEPENDENTLY; in truth
    pairs with a common benchmark err together, so ellipses made from these are approximate. Pairs without an
    interval stay put.
    """
    errors = standard_errors(axes, axis)
    if errors is None:
        return None
    errors = np.nan_to_num(errors)
    np.fill_diagonal(errors, 0.0)
    limit = 1 - 1e-9
    centre = np.arctanh(np.clip(axes[axis].to_numpy(), -limit, limit))
    random = np.random.default_rng(seed)

    def generate() -> Iterable[np.ndarray]:
        upper = np.triu_indices(len(centre), 1)
        for _ in range(count):
            drawn = centre.copy()
            drawn[upper] += random.normal(size=len(upper[0])) * errors[upper]
            drawn = np.tanh(np.triu(drawn, 1))
            drawn = drawn + drawn.T
            np.fill_diagonal(drawn, 1.0)
            yield drawn

    return generate()


def performance_resamples(
    scores: pd.DataFrame,
    names: Sequence[str],
    groups: Sequence | None = None,
    draws: int = 100,
    seed: int = 0,
) -> list[np.ndarray]:
    """Return performance matrices of bootstrap samples of models, whole `groups` (lineages) at a time.

    Pairs move together as they do in truth, unlike in :func:`draws_from_intervals`. A sample in which some
    pair cannot be computed is left out; with fewer than 10 left the list is empty and the intervals must
    serve.

    Parameters
    ----------
    scores : DataFrame (n_benchmarks, n_models), NaN = not measured.
    names : the benchmarks of the performance axis, in its order.
    """
    part = scores.loc[list(names)]
    weights = inference.bootstrap_weights(groups, part.shape[1], draws, seed)
    stack = inference.spearman(part, weights, minimum=3)
    whole = [m for m in stack if np.isfinite(m).all()]
    return whole if len(whole) >= 10 else []


def uncertainty(
    axes: Axes,
    alignment: Alignment,
    embeddings: Mapping[str, Embedding],
    resamples: Mapping[str, Sequence[np.ndarray | pd.DataFrame]] | None = None,
    draws: int = 100,
    seed: int = 0,
) -> Uncertainty:
    """Estimate how far each benchmark's position would move if the measurement were repeated.

    Each resampled matrix is embedded from the axis' own configuration, aligned onto the consensus like the
    axis itself, and the covariance of the positions is taken. `resamples` (matrices from a bootstrap over
    models or questions, same benchmarks in the same order) are used where given; else draws from the 95 %
    intervals (:func:`draws_from_intervals`, with its caveat); an axis with neither has no covariance and no
    ellipse. Large suites make do with fewer draws, :data:`WORK` / n squared, at least 20; `source` says how
    many.
    """
    covariance, source, scatter = {}, {}, {}
    for number, axis in enumerate(axes):
        if resamples and axis in resamples and len(resamples[axis]):
            matrices, origin = resamples[axis], "bootstrap"
        else:
            matrices, origin = (
                draws_from_intervals(axes, axis, draws, seed + number),
                "intervals, pairs independent",
            )
        if matrices is None:
            continue
        target = alignment.consensus.loc[alignment.points[axis].index, ["x", "y"]].to_numpy()
        start = embeddings[axis].points.to_numpy()
        transform = embeddings[axis].transform
        few = itertools.islice(matrices, max(20, WORK // len(axes[axis]) ** 2))
        deltas = [dissimilarity(np.asarray(m, float), transform).astype(np.float32) for m in few]
        if len(deltas) < 10:
            raise DataError(f"Axis '{axis}': {len(deltas)} resamples; at least 10 are needed for an ellipse.")
        cloud = np.stack([_carry(p, _fit(p, target)) for p in majorize(deltas, start)])
        centred = cloud - cloud.mean(axis=0)
        covariance[axis] = np.einsum("rni,rnj->nij", centred, centred) / (len(cloud) - 1)
        scatter[axis] = centred
        source[axis] = f"{origin} ({len(cloud)})"
    return Uncertainty(covariance, source, draws, scatter)


def ellipse(centre: Sequence[float], covariance: np.ndarray, level: float = 0.95, corners: int = 48) -> np.ndarray:
    """Return the outline (corners + 1, 2) of the normal-theory ellipse that holds `level` of the probability.

    >>> outline = ellipse((0, 0), np.eye(2))
    >>> bool(np.allclose((outline**2).sum(axis=1), chi2.ppf(0.95, 2)))
    True
    """
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0, 2 * np.pi, corners + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radius = np.sqrt(np.maximum(values, 0) * chi2.ppf(level, 2))
    return np.asarray(centre) + (circle * radius) @ vectors.T


def displacement(alignment: Alignment, errors: Uncertainty | None = None, pairings: int = 10) -> pd.DataFrame:
    """Return how far each benchmark moves between every two axes, and whether beyond its measurement error.

    Columns: ``benchmark``, ``a``, ``b`` (axes), ``distance`` (in consensus radii), ``p`` of the hypothesis
    that both axes put it in one place, ``q`` (Benjamini-Hochberg over all rows with a p). A benchmark that
    one of the axes lacks has no row.

    The test statistic is Wald's: the squared gap against the sum of the two covariances. Its null is
    bootstrapped, not taken from the normal law: the same statistic of the difference of a draw of one axis
    and a draw of the other, both about their mean, with `pairings` of the draws; ``p = (1 + count) / (1 +
    draws x pairings)`` (Davison and Hinkley 1997, section 4.4), NaN without draws. The axes' draws are taken
    as independent of each other.
    """
    tables = []
    for a, b in itertools.combinations(alignment.points, 2):
        left, right = alignment.points[a], alignment.points[b]
        shared = left.index.intersection(right.index)
        i, j = left.index.get_indexer(shared), right.index.get_indexer(shared)
        gap = right.to_numpy()[j] - left.to_numpy()[i]
        table = pd.DataFrame({"benchmark": shared, "a": a, "b": b, "distance": np.hypot(*gap.T), "p": np.nan})
        if errors is not None and a in errors.scatter and b in errors.scatter:
            spread = errors.covariance[a][i] + errors.covariance[b][j] + np.eye(2) * 1e-12
            weight = np.linalg.inv(spread)
            observed = np.einsum("ni,nij,nj->n", gap, weight, gap)
            one, other = errors.scatter[a][:, i], errors.scatter[b][:, j]
            size = min(len(one), len(other))
            count, total = np.zeros(len(shared)), 0
            for shift in range(min(pairings, size)):
                drawn = np.roll(other[:size], shift, axis=0) - one[:size]
                null = np.einsum("rni,nij,rnj->rn", drawn, weight, drawn)
                count += (null >= observed).sum(axis=0)
                total += size
            table["p"] = (1 + count) / (1 + total)
        tables.append(table)
    columns = ["benchmark", "a", "b", "distance", "p"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    table["q"] = inference.adjust(table["p"])
    return table


@dataclass(frozen=True)
class DisentanglementMap:
    """All that a map shows: the checked `axes`, `embeddings`, `alignment`, `errors`, `displacement`."""

    axes: Axes
    embeddings: dict[str, Embedding]
    alignment: Alignment
    errors: Uncertainty
    displacement: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Return the map as a long table: one row a benchmark and axis (``maps.csv``).

        Columns: ``benchmark``, ``axis``, ``x``, ``y``, ``consensus_x``, ``consensus_y``, ``from_consensus``
        (all in consensus radii), ``var_x``, ``cov_xy``, ``var_y`` (NaN without resamples or intervals),
        ``ellipse_source``,
        ``stress``, ``missing`` (reason; then the numbers are NaN).
        """
        names = list(self.alignment.consensus.index)
        reasons = {(r.axis, r.benchmark): r.reason for r in self.axes.missing.itertuples()}
        rows = []
        for axis, points in self.alignment.points.items():
            for name in names:
                row = {"benchmark": name, "axis": axis, "stress": self.embeddings[axis].stress}
                cx, cy = self.alignment.consensus.loc[name, ["x", "y"]]
                row |= {"consensus_x": cx, "consensus_y": cy}
                if name in points.index:
                    x, y = points.loc[name]
                    row |= {"x": x, "y": y, "from_consensus": np.hypot(x - cx, y - cy), "missing": ""}
                    if axis in self.errors.covariance:
                        spread = self.errors.covariance[axis][points.index.get_loc(name)]
                        row |= {"var_x": spread[0, 0], "cov_xy": spread[0, 1], "var_y": spread[1, 1]}
                    row["ellipse_source"] = self.errors.source.get(axis, "none: no interval on this axis")
                else:
                    row["missing"] = reasons.get((axis, name), "not on this axis")
                rows.append(row)
        columns = (
            "benchmark axis x y consensus_x consensus_y from_consensus var_x cov_xy var_y ellipse_source stress missing"
        ).split()
        return pd.DataFrame(rows).reindex(columns=columns)


def disentangle(
    axes: Axes | Mapping[str, pd.DataFrame],
    transform: str = "chord",
    resamples: Mapping[str, Sequence[np.ndarray | pd.DataFrame]] | None = None,
    draws: int = 100,
    seed: int = 0,
) -> DisentanglementMap:
    """Embed every axis, align them, and measure displacement with its uncertainty: the disentanglement map.

    Parameters are those of :func:`embed` and :func:`uncertainty`. Raises DataError (see :func:`check`) and
    when fewer than two axes are given.
    """
    axes = check(axes)
    if len(axes) < 2:
        raise DataError(f"A disentanglement map compares axes; only '{next(iter(axes))}' was given.")
    embeddings = embed_together(axes, transform)
    aligned = align(embeddings)
    errors = uncertainty(axes, aligned, embeddings, resamples, draws, seed)
    return DisentanglementMap(axes, embeddings, aligned, errors, displacement(aligned, errors))


def common_start(axes: Axes, transform: str = "chord") -> pd.DataFrame:
    """Return a starting place (n, 2) of every benchmark: classical scaling of the axes' mean dissimilarity.

    Each axis counts in units of its own mean. Benchmarks that meet another on no axis are not in the result.
    """
    names = axes.names
    position = {n: i for i, n in enumerate(names)}
    total, count = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    for matrix in axes.values.values():
        rows = np.ix_(*[np.array([position[n] for n in matrix.index])] * 2)
        delta = dissimilarity(matrix, transform)
        total[rows] += delta / delta[np.triu_indices(len(delta), 1)].mean()
        count[rows] += 1
    mean = pd.DataFrame(np.where(count > 0, total / np.maximum(count, 1), np.nan), index=names, columns=names)
    kept, _ = finite_core(mean)
    delta = mean.loc[kept, kept].to_numpy()
    points, _ = smacof(
        delta, n_components=2, init=classical(delta), n_init=1, max_iter=300, eps=1e-6, normalized_stress=True
    )
    return pd.DataFrame(points - points.mean(axis=0), index=kept, columns=["x", "y"])


def embed_together(axes: Axes, transform: str = "chord", slack: float = 0.02) -> dict[str, Embedding]:
    """Embed every axis, starting all from one common place where that costs next to nothing.

    A plane that cannot hold an axis has many arrangements of nearly equal stress, and two axes that say the
    same could end in two of them: they would seem far apart for no reason in the data. So each axis is
    embedded from the :func:`common_start` and from its own classical scaling; the common one is taken unless
    its stress is more than `slack` higher.
    """
    start = common_start(axes, transform)
    result = {}
    for axis, matrix in axes.values.items():
        own = embed(matrix, transform)
        result[axis] = own
        if set(matrix.index) <= set(start.index):
            delta = dissimilarity(matrix, transform)
            scale = delta[np.triu_indices(len(delta), 1)].mean()
            together = embed(matrix, transform, init=start.loc[matrix.index].to_numpy() * scale)
            if together.stress <= own.stress + slack:
                result[axis] = together
    return result


def seriate(axes: Axes | Mapping[str, pd.DataFrame]) -> list[str]:
    """Return one order of the benchmarks for all matrices: alike ones next to each other.

    Average-linkage clustering with optimal leaf order (Bar-Joseph and others 2001) of the mean, over the
    axes that hold a pair, of rank dissimilarities. Benchmarks that meet another on no axis come last.
    """
    axes = check(axes)
    names = axes.names
    total, count = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    position = {n: i for i, n in enumerate(names)}
    for matrix in axes.values.values():
        rows = np.array([position[n] for n in matrix.index])
        total[np.ix_(rows, rows)] += dissimilarity(matrix, "rank")
        count[np.ix_(rows, rows)] += 1
    mean = pd.DataFrame(np.where(count > 0, total / np.maximum(count, 1), np.nan), index=names, columns=names)
    kept, out = finite_core(mean)
    condensed = squareform(mean.loc[kept, kept].to_numpy(), checks=False)
    tree = hierarchy.optimal_leaf_ordering(hierarchy.linkage(condensed, "average"), condensed)
    return [kept[i] for i in hierarchy.leaves_list(tree)] + sorted(out)


def pairs(axes: Axes | Mapping[str, pd.DataFrame], benchmarks: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row a pair of benchmarks with its value on every axis.

    Columns: ``a``, ``b``; per axis ``<axis>``, ``<axis>_low``, ``<axis>_high`` (NaN where not measured) and
    ``<axis>_rank`` (percentile of the pair among the axis' pairs, 0 to 1); with `benchmarks` (the study's
    table) also ``function_a``, ``function_b``, ``same_function``, ``same_format``, ``same_family``.
    """
    axes = check(axes)
    names = axes.names
    i, j = np.triu_indices(len(names), 1)
    table = pd.DataFrame({"a": np.array(names, object)[i], "b": np.array(names, object)[j]})
    for axis, matrix in axes.values.items():
        table[axis] = matrix.reindex(index=names, columns=names).to_numpy()[i, j]
        for side, name in ((axes.low, "low"), (axes.high, "high")):
            bound = side.get(axis)
            table[f"{axis}_{name}"] = (
                np.nan if bound is None else bound.reindex(index=names, columns=names).to_numpy()[i, j]
            )
        table[f"{axis}_rank"] = table[axis].rank(pct=True)
    if benchmarks is not None:
        facts = benchmarks.drop_duplicates("benchmark").set_index("benchmark")
        for column in ("function", "format", "family"):
            if column in facts.columns:
                left, right = table["a"].map(facts[column]), table["b"].map(facts[column])
                if column == "function":
                    table["function_a"], table["function_b"] = left, right
                table[f"same_{column}"] = (left == right).where(left.notna() & right.notna())
    return table


def profile(table: pd.DataFrame, target: str = "performance", predictors: Sequence[str] | None = None) -> pd.DataFrame:
    """Say, pair by pair, which axis accounts for a pair's performance overlap.

    All axes are turned to standardised ranks z over the pairs that all of them hold; least squares gives
    ``z_target = sum_k b_k z_k + e``, and ``contribution_k = b_k z_k`` adds up, with the residual ``e``, to
    the pair's performance. ``share_k = |contribution_k| / sum |contribution|`` is the place in the ternary
    plot. The b_k describe this set of pairs; their tests are in :mod:`helpers.inference`. Shares say which
    axis moves the fitted value, not how large it is: read them with ``fitted``.

    Parameters
    ----------
    table : DataFrame
        From :func:`pairs`.
    predictors : sequence of str, optional
        Default: the axes of `table` other than the target among signature (cross-fitted first), semantic,
        neural.

    Returns
    -------
    DataFrame
        ``a``, ``b``, the target, ``fitted``, ``residual``, and per predictor ``contribution_*`` and
        ``share_*``;
        ``attrs['coefficients']`` and ``attrs['r2']`` describe the fit.
    """
    if predictors is None:
        signature = [a for a in ("signature-crossfit", "signature") if a in table.columns][:1]
        predictors = signature + [a for a in ("semantic", "neural") if a in table.columns]
    predictors = [p for p in predictors if p != target]
    absent = [c for c in (target, *predictors) if c not in table.columns]
    if absent:
        raise DataError(f"The table of pairs has no column '{absent[0]}'; {nearest(absent[0], table.columns)}")
    if not predictors:
        raise DataError(f"No axis besides '{target}' in the table of pairs; nothing can account for it.")
    known = table.dropna(subset=[target, *predictors])
    if len(known) < len(predictors) + 8:
        raise DataError(f"Only {len(known)} pairs are measured on all of {target}, {', '.join(predictors)}; too few.")
    ranks = known[[target, *predictors]].rank()
    z = (ranks - ranks.mean()) / ranks.std(ddof=0)
    design, response = z[list(predictors)].to_numpy(), z[target].to_numpy()
    coefficients = np.linalg.lstsq(design, response, rcond=None)[0]
    parts = design * coefficients
    size = np.abs(parts).sum(axis=1, keepdims=True)
    shares = np.divide(np.abs(parts), size, out=np.full_like(parts, np.nan), where=size > 0)
    result = known[["a", "b", target]].copy()
    result["fitted"], result["residual"] = parts.sum(axis=1), response - parts.sum(axis=1)
    for k, axis in enumerate(predictors):
        result[f"contribution_{axis}"], result[f"share_{axis}"] = parts[:, k], shares[:, k]
    result.attrs["coefficients"] = dict(zip(predictors, coefficients.tolist()))
    result.attrs["r2"] = float(1 - (result["residual"] ** 2).mean())
    return result


def ternary(shares: np.ndarray) -> np.ndarray:
    """Return the plane coordinates (n, 2) of shares (n, 3): corners (0, 0), (1, 0), (1/2, sqrt(3)/2).

    >>> ternary(np.array([[0, 0, 1.0]])).round(3).tolist()
    [[0.5, 0.866]]
    """
    shares = np.asarray(shares, float)
    return np.stack([shares[:, 1] + shares[:, 2] / 2, shares[:, 2] * np.sqrt(3) / 2], axis=1)


def aggregate(matrix: pd.DataFrame, groups: pd.Series, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Average an axis over functions: the function map, one row a pair of groups.

    Columns: ``a``, ``b`` (groups), ``value`` (mean over pairs of two different benchmarks), ``pairs``,
    ``low``, ``high`` (95 % percentile interval from resampling BENCHMARKS within the groups, so that pairs
    that share a benchmark move together; NaN when a group has fewer than 3). Benchmarks without a group
    raise DataError.
    """
    groups = groups.reindex(matrix.index)
    if groups.isna().any():
        raise DataError(f"Benchmark '{groups.index[groups.isna()][0]}' has no group; give every benchmark one.")
    array = matrix.to_numpy(float)
    members = {g: np.flatnonzero((groups == g).to_numpy()) for g in sorted(groups.unique())}
    random = np.random.default_rng(seed)
    rows = []
    for a, b in itertools.combinations_with_replacement(members, 2):
        rows.append({"a": a, "b": b} | _block(array, members[a], members[b], a == b, draws, random))
    return pd.DataFrame(rows)


def _block(array, left, right, same, draws, random) -> dict[str, float]:
    def mean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values = array[x[:, :, None], y[:, None, :]]
        weight = x[:, :, None] != y[:, None, :]
        return (values * weight).sum(axis=(1, 2)) / np.maximum(weight.sum(axis=(1, 2)), 1)

    count = len(left) * (len(left) - 1) // 2 if same else len(left) * len(right)
    if count == 0:
        return {"value": np.nan, "pairs": 0, "low": np.nan, "high": np.nan}
    result = {"value": float(mean(left[None], right[None])[0]), "pairs": count, "low": np.nan, "high": np.nan}
    if min(len(left), len(right)) >= 3:
        draws = max(20, min(draws, 20_000_000 // (len(left) * len(right))))
        x = left[random.integers(len(left), size=(draws, len(left)))]
        y = x if same else right[random.integers(len(right), size=(draws, len(right)))]
        result["low"], result["high"] = map(float, inference.interval(mean(x, y)))
    return result


def function_map(axes: Axes | Mapping[str, pd.DataFrame], groups: pd.Series) -> dict[str, pd.DataFrame]:
    """Return :func:`aggregate` of every axis, as square group x group DataFrames of mean similarity."""
    axes = check(axes)
    return {axis: square(aggregate(m, groups, draws=0), diagonal=np.nan) for axis, m in axes.values.items()}


def neighbours(axes: Axes | Mapping[str, pd.DataFrame], benchmark: str, count: int = 5) -> pd.DataFrame:
    """Return the `count` nearest benchmarks on each axis.

    Columns: ``axis``, ``rank``, ``neighbour``, ``value``, ``low``, ``high``.
    """
    axes = check(axes)
    if benchmark not in axes.names:
        raise DataError(f"No benchmark '{benchmark}' on any axis; {nearest(benchmark, axes.names)}")
    rows = []
    for axis, matrix in axes.values.items():
        if benchmark not in matrix.index:
            continue
        best = matrix.loc[benchmark].drop(benchmark).sort_values(ascending=False, kind="stable").head(count)
        for rank, (name, value) in enumerate(best.items(), 1):
            bound = {
                s: float(d[axis].loc[benchmark, name]) if axis in d else np.nan
                for s, d in (("low", axes.low), ("high", axes.high))
            }
            rows.append({"axis": axis, "rank": rank, "neighbour": name, "value": float(value)} | bound)
    return pd.DataFrame(rows, columns=["axis", "rank", "neighbour", "value", "low", "high"])
