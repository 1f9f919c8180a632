"""Screening: which of millions of units order the models as a benchmark does.

Surprisal is (n_units, n_models), scores are (n_benchmarks, n_models); NaN means *not measured* and is left
out pairwise. Every statistic is computed from one small-integer table, the *sign sums* ``S[k] = sum over l
of sign(p_k - p_l)``, which is twice the centred average rank of model k within a unit:

    gamma = sum over k<l of sign(y_k - y_l) (rank_k - rank_l)
          = sum over k of c_k rank_k,  with c_k = sum over l of sign(y_k - y_l)
          = 1/2 sum over k of c_k S_k                       (because the c_k sum to zero)

so a unit is ranked once, and all benchmarks that the same models sat are one matrix product. The sums are
integers, hence exact in floating point, hence the same for every partition of the units into blocks.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from helpers import provenance
from helpers.errors import DataError, nearest

Ties = Literal["average", "name"]
Statistic = Literal["thrush", "preselect"]

TILE = 8192  # units handled at a time, so that intermediate values stay in a core's cache
BINS = 1 << 10  # of the histograms that find where a tail begins
STRIDE = 4  # a stream tallies every 4th unit of every 4th tile: enough to place a cautious limit
SPOOL_MEMORY = 64 << 20  # bytes of ranks held in memory before a stream spools them to disk
LARGEST = 500  # nats of a unit; the perplexity of more is beyond any use as a number
NEEDS = 14  # times the matrix, itself included, that pages which hold all of it take at most (measured, 32 models)
_EXACT_MODELS = 256  # up to here every sum is an integer below 2**24, exact in float32


def thrush(surprisal: np.ndarray, scores: np.ndarray, ties: Ties = "average") -> np.ndarray:
    """Rank agreement of every unit with every benchmark (the paper's Thrush statistic).

    Parameters
    ----------
    surprisal : (n_units, n_models) float array
        Nats per unit (any increasing transform, such as perplexity, gives the same result). NaN = not
        measured.
    scores : (n_benchmarks, n_models) float array
        Higher is better. NaN = not measured.
    ties : {"average", "name"}
        ``"average"``: tied models share their average rank, tied scores contribute nothing.
        ``"name"``: ties in surprisal AND in scores are broken by column order, the earlier column being the
        smaller (as ``pandas.Series.rank(method="first")``); with columns sorted by model name this is the
        alphabetical order of the authors' released code.

    Returns
    -------
    (n_units, n_benchmarks) float array
        ``gamma_j = sum over k<l of sign(y_k - y_l) (rank_j(p_k) - rank_j(p_l))``: NEGATIVE where surprisal
        falls as the score rises. float32 up to 256 models, float64 above; exact (multiples of 1/2) in both.
        NaN where fewer than two models have both values.

    Raises
    ------
    DataError
        Wrong shapes, infinite values, or a benchmark whose measured scores are all equal.

    Notes
    -----
    Without ties Spearman's rho is ``6 gamma / (m (m^2 - 1))``. The released code sums over ordered pairs
    and thus returns twice this value; order and selected units are the same. Ranks are taken among the
    models that have both a surprisal and a score; a unit or benchmark with fewer models has a smaller
    range. Source: METHOD, "Thrush screening" (arXiv 2509.23488).

    Examples
    --------
    >>> surprisal = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 3.0]])
    >>> thrush(surprisal, np.array([[0.1, 0.2, 0.3, 0.4]]))
    array([[-10.],
           [  8.]], dtype=float32)
    """
    return _full(surprisal, scores, ties, "thrush")


def preselect(surprisal: np.ndarray, scores: np.ndarray, ties: Ties = "average") -> np.ndarray:
    """Share of model pairs that a unit orders against a benchmark (the Pre-select statistic).

    With models sorted by ascending score, ``eta_j = sum over k<l of 1{p_(k) > p_(l)} / (m (m - 1) / 2)``: 1
    where surprisal falls whenever the score rises. Always ``eta = (1 - tau_a) / 2`` with Kendall's tau-a of
    score and surprisal: with ``ties="average"`` a tied pair counts one half, with ``ties="name"`` it is
    ordered by column.

    Parameters, errors and missing values as in :func:`thrush` (the pairs are those that both values measure).
    Returns (n_units, n_benchmarks) floats in [0, 1]. Source: METHOD, "Pre-select screening".

    >>> surprisal = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 3.0]])
    >>> preselect(surprisal, np.array([[0.1, 0.2, 0.3, 0.4]])).round(4)
    array([[1.    ],
           [0.1667]], dtype=float32)
    """
    return _full(surprisal, scores, ties, "preselect")


def screen(statistic: np.ndarray, ratio: float = 0.01) -> list[np.ndarray]:
    """Keep, per benchmark, both tails of a screening statistic.

    Parameters
    ----------
    statistic : (n_units, n_benchmarks) float array
        From :func:`thrush` or :func:`preselect`. Units whose statistic is NaN are not eligible.
    ratio : float in (0, 0.5]
        Share of the eligible units kept at EACH end: ``k = max(1, floor(ratio * n))`` units (a floor computed
        with a slack of 1e-9, so that 0.29 of 100 is 29).

    Returns
    -------
    list of n_benchmarks sorted int64 arrays of unit positions
        The first and last k in the total order (statistic, position): ties are broken by position, and the
        two tails never share a unit (unless there is only one unit).

    >>> screen(np.array([[3.0], [1.0], [2.0], [1.0]]), ratio=0.25)
    [array([0, 1])]
    """
    statistic = np.asarray(statistic)
    if statistic.ndim != 2:
        raise DataError(f"statistic has shape {statistic.shape}; expected (n_units, n_benchmarks), as thrush returns.")
    _check_ratio(ratio)

    def keep(j: int) -> np.ndarray:
        values = np.ascontiguousarray(statistic[:, j])
        absent = np.isnan(values)
        positions = np.flatnonzero(~absent) if absent.any() else np.arange(len(values))
        k = tail_size(len(positions), ratio, j)
        return np.sort(np.concatenate(_tails(values[positions] if absent.any() else values, positions, k)))

    return list(_parallel(keep, range(statistic.shape[1])))


def tail_size(n_units: int, ratio: float, benchmark: int | None = None) -> int:
    """Return how many of `n_units` eligible units :func:`screen` keeps at each end.

    >>> tail_size(1000, 0.01), tail_size(57, 0.01)
    (10, 1)
    """
    if n_units == 0:
        where = "" if benchmark is None else f" of benchmark row {benchmark}"
        raise DataError(f"No unit has a statistic{where}: every unit lacks surprisal or scores for all but one model.")
    return max(1, int(np.floor(ratio * n_units + 1e-9)))


def screen_stream(
    blocks: Iterable[np.ndarray],
    scores: np.ndarray,
    ratio: float = 0.01,
    *,
    statistic: Statistic = "thrush",
    ties: Ties = "average",
    exclude: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Equal to ``screen(thrush(surprisal, scores), ratio)`` for surprisal that comes in blocks.

    Parameters
    ----------
    blocks : iterable of (n_block_units, n_models) float arrays
        Consumed once; any partition, empty blocks included, gives the identical result.
        :func:`parquet_blocks` makes them from files.
    scores, ratio, statistic, ties
        As in :func:`thrush` and :func:`screen`.
    exclude : sequence of n_benchmarks sorted int arrays, optional
        Positions of units that are not eligible for a benchmark (as if their statistic were NaN).

    Returns
    -------
    list of n_benchmarks sorted int64 arrays of positions in the concatenation of the blocks

    Notes
    -----
    How many units the ratio keeps is known only at the end of a stream, so no filter can be applied on the
    way without risking a different answer. The stream is therefore ranked once into one byte a model and
    unit (two above 128 models), kept in a temporary file beyond 64 MiB; a histogram per benchmark finds
    the cut, and a second pass over the ranks collects the units. Memory: one block + the histograms + the
    result. On a cluster use :class:`Screener` directly, whose parts need no file.
    """
    screener = Screener(scores, ratio, statistic=statistic, ties=ties)
    tally, lengths, eligible = screener._nothing(), [], np.zeros(screener.n_benchmarks, dtype=np.int64)
    barred = _barred(exclude, screener.n_benchmarks)
    position = 0
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY) as spool:
        for number, block in enumerate(blocks):
            block = _check_surprisal(block, screener.n_models, f"block {number}: surprisal")
            tiles = (block[start : start + TILE] for start in range(0, len(block), TILE))
            for tile in _parallel(screener._rank, tiles):
                if len(lengths) % STRIDE == 0:
                    screener._count([sums[:, ::STRIDE] for sums in tile], tally)
                end = position + tile[0].shape[1]
                for group, sums in zip(screener.groups, tile):
                    here = _eligible(sums)
                    eligible[group.rows] += int(here.sum())
                    for j in group.rows if barred else ():
                        low, high = np.searchsorted(barred[j], [position, end])
                        eligible[j] -= int(here[barred[j][low:high] - position].sum())
                    spool.write(sums.tobytes())
                lengths.append(end - position)
                position = end
        if not lengths:
            raise DataError("The stream of blocks holds no unit; expected arrays of shape (n_block_units, n_models).")
        k = np.array([tail_size(int(n), ratio, j) for j, n in enumerate(eligible)])
        # barred units may fill a tail: let as many more through, and leave them out at the end
        reach = np.minimum(k + np.array([len(b) for b in barred] or 0), position)
        limits = screener._cautious(tally, reach)
        parts = screener._second_pass(spool, lengths, limits)
        if not screener._enough(parts, limits):  # the sample misled: count all
            tally = screener._nothing()
            for tile in screener._spooled(spool, lengths):
                screener._count(tile, tally)
            limits = screener._limits(tally, reach, np.minimum(reach, tally.counts.sum(axis=1)))
            parts = screener._second_pass(spool, lengths, limits)
    if barred:
        joined = Candidates.join(parts)
        own = np.zeros(len(joined.rows), dtype=bool)
        for j, positions in enumerate(barred):
            own |= (joined.rows == j) & np.isin(joined.positions, positions)
        parts = [joined.take(np.flatnonzero(~own))]
    return screener.finish(parts, Limits(k, limits.low, limits.high))


def _barred(exclude: Sequence[np.ndarray] | None, n_benchmarks: int) -> list[np.ndarray]:
    """Return the positions of each benchmark's barred units, or nothing when there are none."""
    if exclude is None or not any(len(positions) for positions in exclude):
        return []
    if len(exclude) != n_benchmarks:
        raise DataError(f"exclude names the units of {len(exclude)} benchmarks; scores have {n_benchmarks}.")
    return [np.unique(np.asarray(positions, dtype=np.int64)) for positions in exclude]


def parquet_blocks(
    files: str | Path | Sequence[str | Path], models: Sequence[str] | None = None, rows: int = 1 << 16
) -> Iterator[np.ndarray]:
    """Yield (n_block_units, n_models) arrays from Parquet files with one column a model, in file order.

    `models` names the columns and their order (default: all columns except ``unit_id``, as in the first
    file). Raises DataError for a column that a file lacks.
    """
    for path in [files] if isinstance(files, str | Path) else files:
        source = pq.ParquetFile(path)
        present = [name for name in source.schema_arrow.names if name not in ("unit_id", "__index_level_0__")]
        models = list(present if models is None else models)
        for name in models:
            if name not in present:
                raise DataError(f"{Path(path).name} has no column '{name}'; {nearest(name, present)}")
        for batch in source.iter_batches(batch_size=rows, columns=models):
            yield np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in models])


@dataclass(frozen=True, eq=False)
class Stored:
    """A surprisal matrix in a Parquet file that is read in blocks, never whole: for more units than memory holds.

    ``selection.select`` and ``selection.held_out_error`` take it in place of a matrix and give the same result. Memory:
    one block, one byte a model and unit on disk while screening (a temporary file), and at most `memory_gib` of
    screened units at a time.

    Attributes
    ----------
    path : file with one column a model and, as its index, ``unit_id``
    models : names of the columns, in the order of the scores' columns
    memory_gib : bound for the screened units that are read back together, GiB
    """

    path: Path
    models: tuple[str, ...]
    memory_gib: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(n_units, n_models)"""
        return pq.ParquetFile(self.path).metadata.num_rows, len(self.models)

    @property
    def gib(self) -> float:
        """Size of the whole matrix in memory, GiB."""
        return self.shape[0] * self.shape[1] * self.itemsize / 2**30

    @property
    def itemsize(self) -> int:
        """Bytes of a value as stored."""
        return 4 if pq.read_schema(self.path).field(self.models[0]).type.bit_width == 32 else 8

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, models: Sequence[int]) -> Stored:
        """Return the same units for some of the models, by position."""
        return Stored(self.path, tuple(self.models[i] for i in models), self.memory_gib)

    def blocks(self, rows: int = 1 << 16) -> Iterator[np.ndarray]:
        """Yield (n_block_units, n_models) arrays, see :func:`parquet_blocks`."""
        return parquet_blocks(self.path, self.models, rows)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return (n, n_models) surprisal of the units at sorted `positions`, in one pass over the file."""
        out = np.empty((len(positions), len(self.models)), dtype=np.float32 if self.itemsize == 4 else np.float64)
        start = 0
        for block in self.blocks():
            low, high = np.searchsorted(positions, [start, start + len(block)])
            out[low:high] = block[positions[low:high] - start]
            start += len(block)
        return out

    def unit_ids(self, positions: np.ndarray) -> np.ndarray:
        """Return the ``unit_id`` of the units at `positions`."""
        return pq.read_table(self.path, columns=["unit_id"]).column(0).take(positions).to_numpy()

    def sample(self, seed: int) -> np.ndarray:
        """Return sorted positions of a uniform sample of units that takes an eighth of `memory_gib`, at least 1,000."""
        n = len(self)
        count = int(self.memory_gib * 2**30 / 8 / (self.itemsize * len(self.models)))
        return np.sort(np.random.default_rng(seed).choice(n, min(n, max(1000, count)), replace=False))

    def largest(self) -> float:
        """Return the largest surprisal of all, NaN left out."""
        return max(float(np.nanmax(block, initial=-np.inf)) for block in self.blocks())

    def duplicates(self) -> list[tuple[str, ...]]:
        """Return groups of models that are identical on every unit, as ``selection.duplicate_models``."""
        digests = [hashlib.blake2b(digest_size=16) for _ in self.models]
        for block in self.blocks():
            for digest, column in zip(digests, block.T):
                digest.update(np.ascontiguousarray(column).tobytes())
        same: dict[bytes, list[str]] = {}
        for name, digest in zip(self.models, digests):
            same.setdefault(digest.digest(), []).append(name)
        return [tuple(names) for names in same.values() if len(names) > 1]


def read(
    path: Path | str, memory_gib: float | None = None, sample: int | None = None
) -> tuple[pd.DataFrame, Stored | None]:
    """Read a surprisal matrix, or a sample of its units where it is larger than `memory_gib`.

    Returns the matrix (index ``unit_id``, a column a model) and None; or, for a larger one, a uniform random sample of
    its units, drawn with the seed `sample`, and the whole as a :class:`Stored`. Without `sample` a larger one is a
    DataError that says how much memory it takes, before anything of it is read. Raises StaleArtifactError as
    ``provenance.read_table``.
    """
    path = Path(path)
    names = provenance.columns(path)
    stored = Stored(path, tuple(names), memory_gib or np.inf)
    if stored.gib <= stored.memory_gib:
        return provenance.read_table(path), None
    if sample is None:
        raise DataError(
            f"the surprisal of {len(stored):,} units and {len(names)} models takes {stored.gib:.2g} GiB, more than the "
            f"study's screening.memory_gib of {memory_gib:g}. This page compares all of it at once and takes up to "
            f"{NEEDS} times as much, {NEEDS * stored.gib:.2g} GiB: on a machine that has them set screening.memory_gib to "
            f"{_up(stored.gib):g}; else give the corpus fewer or larger units (corpus.max_documents, corpus.unit). "
            "'Select the signatures' streams the matrix and needs neither."
        )
    at = stored.sample(sample)
    return pd.DataFrame(stored.rows(at), pd.Index(stored.unit_ids(at), name="unit_id"), names), stored


def _up(value: float) -> float:
    """Return the next number of two digits above `value`."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.ceil(value / step + 1e-9) * step)


@dataclass(frozen=True)
class Tally:
    """Histograms of a statistic over some units, (n_benchmarks, BINS) int64; merging is adding up."""

    counts: np.ndarray

    def merge(self, other: Tally) -> Tally:
        """Return the tally of both sets of units; associative and commutative: any reduction tree will do."""
        return Tally(self.counts + other.counts)


@dataclass(frozen=True)
class Limits:
    """Per benchmark: units in a tail, and values that the low tail stays below and the high tail above."""

    k: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """Units that may belong to a tail: benchmark row, position and value, in the order of units."""

    rows: np.ndarray
    positions: np.ndarray
    values: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return all parts as one."""
        fields = ("rows", "positions", "values")
        return cls(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))

    def take(self, chosen: np.ndarray) -> Candidates:
        """Return the entries at the positions `chosen`."""
        return Candidates(self.rows[chosen], self.positions[chosen], self.values[chosen])


class Screener:
    """Screening as map and reduce, for blocks that live on different workers.

    >>> rng = np.random.default_rng(0)
    >>> surprisal, scores = rng.normal(size=(1000, 12)), rng.normal(size=(3, 12))
    >>> blocks, starts = np.split(surprisal, [300, 310]), [0, 300, 310]
    >>> screener = Screener(scores, ratio=0.02)
    >>> first, *others = [screener.tally(block) for block in blocks]                    # map
    >>> for other in others: first = first.merge(other)                                 # reduce
    >>> limits = screener.limits(first)
    >>> parts = [screener.collect(b, s, limits) for b, s in zip(blocks, starts)]       # map
    >>> kept = screener.finish(parts, limits)                                        # in unit order
    >>> whole = screen(thrush(surprisal, scores), ratio=0.02)
    >>> all(np.array_equal(a, b) for a, b in zip(kept, whole))
    True
    """

    def __init__(
        self,
        scores: np.ndarray,
        ratio: float = 0.01,
        *,
        statistic: Statistic = "thrush",
        ties: Ties = "average",
    ) -> None:
        _check_ratio(ratio)
        scores = _check_scores(scores)
        self.n_benchmarks, self.n_models = scores.shape
        self.ratio, self.ties = ratio, ties
        self.groups = _groups(scores, ties, statistic)
        # One monotone map from value to bin per benchmark: bin = floor(value * scale + shift).
        self._scale = np.empty((self.n_benchmarks, 1), dtype=self.groups[0].dtype)
        self._shift = np.empty_like(self._scale)
        for group in self.groups:
            low, high = group.range
            self._scale[group.rows] = (BINS - 1) / (high - low)
            self._shift[group.rows] = -low * (BINS - 1) / (high - low)

    def tally(self, block: np.ndarray) -> Tally:
        """Count one block, (n_block_units, n_models)."""
        block = _check_surprisal(block, self.n_models)
        total = self._nothing()
        for start in range(0, len(block), TILE):
            self._count(self._rank(block[start : start + TILE]), total)
        return total

    def limits(self, tally: Tally) -> Limits:
        """Return where the tails end, from the tally of ALL units."""
        sizes = tally.counts.sum(axis=1)
        k = np.array([tail_size(int(n), self.ratio, j) for j, n in enumerate(sizes)])
        return self._limits(tally, k, k)

    def _limits(self, tally: Tally, k: np.ndarray, reach: np.ndarray) -> Limits:
        """Return limits that let through at least `reach` of the tallied units at each end."""
        upward = np.cumsum(tally.counts, axis=1)
        low = (upward < reach[:, None]).sum(axis=1)
        high = (upward <= (upward[:, -1] - reach)[:, None]).sum(axis=1)
        # Outer edges of the bins, one bin further out: rounding can then only let more through.
        scale, shift = self._scale[:, 0], self._shift[:, 0]
        return Limits(k, (low + 2 - shift) / scale, (high - 1 - shift) / scale)

    def _cautious(self, tally: Tally, k: np.ndarray) -> Limits:
        sizes = tally.counts.sum(axis=1)
        # the tally holds a sample of the units: as many of it as k is of all, and some more
        expected = np.maximum(self.ratio * sizes, k / STRIDE**2)
        return self._limits(tally, k, np.minimum(sizes, expected + 4 * np.sqrt(expected) + 8).astype(int))

    def _enough(self, parts: Sequence[Candidates], limits: Limits) -> bool:
        joined = Candidates.join(parts)
        for inside, k, low, high in zip(self._by_row(joined), limits.k, limits.low, limits.high):
            values = joined.values[inside]
            if min(np.count_nonzero(values <= low), np.count_nonzero(values >= high)) < k:
                return False
        return True

    def _by_row(self, joined: Candidates) -> list[np.ndarray]:
        order = np.argsort(joined.rows, kind="stable")
        ends = np.cumsum(np.bincount(joined.rows, minlength=self.n_benchmarks))
        return np.split(order, ends[:-1])

    def _spooled(self, spool: tempfile.SpooledTemporaryFile, lengths: list[int]) -> Iterator[list[np.ndarray]]:
        spool.seek(0)
        for length in lengths:
            yield [_read(spool, group, length) for group in self.groups]

    def _second_pass(
        self, spool: tempfile.SpooledTemporaryFile, lengths: list[int], limits: Limits
    ) -> list[Candidates]:
        parts, held = [], 0
        starts = np.cumsum([0, *lengths])
        for part in _parallel(self._gather, self._spooled(spool, lengths), starts, itertools.repeat(limits)):
            parts.append(part)
            held += len(part.rows)
            if held > 8 * int(limits.k.sum()) + BINS * self.n_benchmarks:
                parts = [self.merge(parts, limits)]
                held = len(parts[0].rows)
        return parts

    def collect(self, block: np.ndarray, start: int, limits: Limits) -> Candidates:
        """Return the candidates of one block whose first unit has position `start`."""
        block = _check_surprisal(block, self.n_models)
        parts = [
            self._gather(self._rank(block[offset : offset + TILE]), start + offset, limits)
            for offset in range(0, len(block), TILE)
        ]
        return self.merge(parts, limits)

    def merge(self, parts: Sequence[Candidates], limits: Limits) -> Candidates:
        """Join candidates given in the order of units, and keep no more of them than can matter."""
        joined = Candidates.join(parts)
        if len(joined.rows) <= 2 * int(limits.k.sum()):
            return joined
        chosen = [kept[tail] for kept in self._extremes(joined, limits) for tail in (0, 1)]
        return joined.take(np.unique(np.concatenate(chosen)))

    def finish(self, parts: Sequence[Candidates], limits: Limits) -> list[np.ndarray]:
        """Return the sorted positions, as :func:`screen` does, from the parts in the order of units."""
        joined = Candidates.join(parts)
        return [np.sort(joined.positions[np.concatenate(kept)]) for kept in self._extremes(joined, limits)]

    def _extremes(self, joined: Candidates, limits: Limits) -> list[tuple[np.ndarray, np.ndarray]]:
        return [_tails(joined.values[inside], inside, int(k)) for inside, k in zip(self._by_row(joined), limits.k)]

    def _nothing(self) -> Tally:
        return Tally(np.zeros((self.n_benchmarks, BINS), dtype=np.int64))

    def _rank(self, tile: np.ndarray) -> list[np.ndarray]:
        return [_sign_sums(tile[:, g.columns] if g.partial else tile, self.ties) for g in self.groups]

    def _count(self, tile: list[np.ndarray], tally: Tally) -> None:
        for group, sums in zip(self.groups, tile):
            scaled = group.values(sums) * self._scale[group.rows] + self._shift[group.rows]
            known = ~np.isnan(scaled)
            for row, line, here in zip(group.rows, scaled, known):
                tally.counts[row] += np.bincount(line[here].astype(np.intp), minlength=BINS)

    def _gather(self, tile: list[np.ndarray], start: int, limits: Limits) -> Candidates:
        parts = []
        for group, sums in zip(self.groups, tile):
            values = group.values(sums)
            low = limits.low[group.rows, None].astype(values.dtype)
            high = limits.high[group.rows, None].astype(values.dtype)
            found = np.flatnonzero((values <= low) | (values >= high))  # flat: several times faster than nonzero
            width = values.shape[1]
            ends = np.searchsorted(found, width * np.arange(len(values) + 1))
            row = np.repeat(np.arange(len(values)), np.diff(ends))
            parts.append(Candidates(group.codes[row], found - row * width + start, values.ravel()[found]))
        return Candidates.join(parts)


def _full(surprisal: np.ndarray, scores: np.ndarray, ties: Ties, statistic: Statistic) -> np.ndarray:
    scores = _check_scores(scores)
    surprisal = _check_surprisal(surprisal, scores.shape[1])
    groups = _groups(scores, ties, statistic)
    # Benchmark by benchmark in memory: the product fills it row by row, and screening reads whole columns.
    out = np.empty((len(scores), len(surprisal)), dtype=groups[0].dtype)

    def fill(start: int) -> None:
        tile = surprisal[start : start + TILE]
        for group in groups:
            sums = _sign_sums(tile[:, group.columns] if group.partial else tile, ties)
            rows = slice(None) if len(groups) == 1 else group.rows
            out[rows, start : start + TILE] = group.values(sums)

    for _ in _parallel(fill, range(0, len(surprisal), TILE)):
        pass
    return out.T


@dataclass(frozen=True)
class _Group:
    """Benchmarks (`rows`) that the same models (`columns`) sat, so that one ranking serves them all."""

    rows: np.ndarray
    columns: np.ndarray
    partial: bool  # some models are left out
    signs: np.ndarray  # (rows, m, m): sign(y_k - y_l), antisymmetric
    weights: np.ndarray  # thrush: (rows, m) half sums of signs; preselect: (rows, pairs) signs of k<l
    statistic: Statistic

    @property
    def codes(self) -> np.ndarray:
        """`rows` as small integers, which a stable sort orders in linear time."""
        return self.rows.astype(np.int16 if self.rows.max() < 1 << 15 else np.int64)

    @property
    def dtype(self) -> type:
        return np.float32 if len(self.columns) <= _EXACT_MODELS else np.float64

    @property
    def range(self) -> tuple[float, float]:
        m = len(self.columns)
        bound = m * (m * m - 1) / 6
        return (-bound, bound) if self.statistic == "thrush" else (0.0, 1.0)

    def values(self, sums: np.ndarray) -> np.ndarray:
        """Return (rows, n_units) values of the statistic from (m, n_units) sign sums."""
        absent = sums == _missing(len(sums))
        holes = np.flatnonzero(absent.any(axis=0)) if absent.any() else ()
        clean = np.where(absent, 0, sums) if len(holes) else sums
        if self.statistic == "thrush":
            out = self.weights @ clean.astype(self.dtype)
        else:
            first, second = np.triu_indices(len(sums), 1)
            order = np.sign(clean[first].astype(np.int16) - clean[second]).astype(self.dtype)
            pairs = np.full(sums.shape[1], len(first), dtype=self.dtype)
            if len(holes):
                both = ~(absent[first] | absent[second])
                order *= both
                pairs = both.sum(axis=0).astype(self.dtype)
                pairs[pairs == 0] = np.nan
            out = (1 - (self.weights @ order) / pairs) / 2
        if len(holes) and self.statistic == "thrush":
            here = (~absent[:, holes]).astype(self.dtype)
            ranks = clean[:, holes].astype(self.dtype)
            for row, sign in enumerate(self.signs):
                out[row, holes] = 0.5 * ((sign @ here) * ranks).sum(axis=0)
            out[:, holes[here.sum(axis=0) < 2]] = np.nan
        return out


def _groups(scores: np.ndarray, ties: Ties, statistic: Statistic) -> list[_Group]:
    if ties not in ("average", "name"):
        raise DataError(f"ties='{ties}' is unknown; {nearest(str(ties), ['average', 'name'])}")
    if statistic not in ("thrush", "preselect"):
        raise DataError(f"statistic='{statistic}' is unknown; {nearest(str(statistic), ['thrush', 'preselect'])}")
    measured = ~np.isnan(scores)
    patterns, member = np.unique(measured, axis=0, return_inverse=True)
    groups = []
    for number, pattern in enumerate(patterns):
        rows, columns = np.flatnonzero(member.ravel() == number), np.flatnonzero(pattern)
        table = scores[np.ix_(rows, columns)]
        signs = np.sign(table[:, :, None] - table[:, None, :])
        if ties == "name":  # the earlier column is the smaller
            later = np.tri(len(columns), k=-1)
            signs = np.where(signs == 0, later - later.T, signs)
        first, second = np.triu_indices(len(columns), 1)
        dtype = np.float32 if len(columns) <= _EXACT_MODELS else np.float64
        weights = signs.sum(axis=2) / 2 if statistic == "thrush" else signs[:, first, second]
        partial = len(columns) < scores.shape[1]
        groups.append(_Group(rows, columns, partial, signs.astype(dtype), weights.astype(dtype), statistic))
    return groups


def _sign_sums(tile: np.ndarray, ties: Ties) -> np.ndarray:
    """Return (m, n) integers ``S[k] = sum over l of sign(p_k - p_l)`` of an (n, m) tile.

    NaN gives ``_missing(m)``.
    Counting all m(m-1)/2 comparisons in bytes, a whole tile at a time, beats sorting each row at these sizes.
    """
    p = np.ascontiguousarray(tile.T)
    m, n = p.shape
    kind = np.int8 if m <= 128 else np.int16
    sums = np.zeros((m, n), dtype=kind)
    above, below = np.empty((m, n), dtype=bool), np.empty((m, n), dtype=bool)
    less = np.less if ties == "average" else np.less_equal  # NaN compares false both ways: it adds nothing
    for k in range(m - 1):
        rest = m - k - 1
        np.greater(p[k], p[k + 1 :], out=above[:rest])
        less(p[k], p[k + 1 :], out=below[:rest])
        sign = above[:rest].view(np.int8)
        np.subtract(sign, below[:rest].view(np.int8), out=sign)
        sums[k] += np.add.reduce(sign, axis=0, dtype=kind)
        sums[k + 1 :] -= sign
    absent = np.isnan(p)
    if absent.any():
        sums[absent] = _missing(m)
    return sums


def _missing(n_models: int) -> int:
    return -128 if n_models <= 128 else -32768


def _read(spool: tempfile.SpooledTemporaryFile, group: _Group, length: int) -> np.ndarray:
    kind = np.dtype(np.int8 if len(group.columns) <= 128 else np.int16)
    raw = spool.read(len(group.columns) * length * kind.itemsize)
    return np.frombuffer(raw, dtype=kind).reshape(len(group.columns), length)


def _parallel(call: Callable, *items: Iterable) -> Iterator:
    """Yield ``call(...)`` over `items` in order, on the cores that OMP_NUM_THREADS allows (default: all).

    numpy leaves the interpreter free while it works on a tile. No more than a batch is held at a time.
    """
    workers = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    work = zip(*items)
    if workers == 1:
        yield from itertools.starmap(call, work)
        return
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        while batch := list(itertools.islice(work, 8 * workers)):
            yield from pool.map(lambda arguments: call(*arguments), batch)


def _eligible(sums: np.ndarray) -> np.ndarray:
    """Return which units have a statistic, from (m, n_units) sign sums."""
    absent = sums == _missing(len(sums))
    return absent.sum(axis=0) <= len(sums) - 2 if absent.any() else np.ones(sums.shape[1], dtype=bool)


def _tails(values: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the k first and the k last by (value, place), each in place order."""
    n = len(values)
    if n <= k:
        return labels, labels[:0]
    if n > 1 << 15 and k < n // 10:  # a sample tells which few values need to be looked at
        sample = np.sort(values[:: n >> 12])
        reach = int(len(sample) * k / n + 4 * np.sqrt(len(sample) * k / n) + 8)
        low, high = sample[reach], sample[-reach - 1]
        few = np.flatnonzero((values <= low) | (values >= high))
        if min((values[few] <= low).sum(), (values[few] >= high).sum()) >= k and len(few) < n // 2:
            return _tails(values[few], labels[few], k)
    ordered = np.partition(values, (k - 1, n - k))
    low, high = ordered[k - 1], ordered[n - k]
    below, above = np.flatnonzero(values < low), np.flatnonzero(values > high)
    at_low, at_high = np.flatnonzero(values == low), np.flatnonzero(values == high)
    first = np.concatenate([below, at_low[: k - len(below)]])
    last = np.concatenate([above, at_high[len(at_high) - (k - len(above)) :]])
    return labels[np.sort(first)], labels[np.sort(last)]


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio <= 0.5:
        raise DataError(f"ratio is {ratio}; expected a share in (0, 0.5] to keep at each end, such as 0.01.")


def _check_scores(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise DataError(
            f"scores has shape {scores.shape}; expected (n_benchmarks, n_models); a single benchmark is scores[None, "
            ":]."
        )
    if np.isinf(scores).any():
        row, column = np.argwhere(np.isinf(scores))[0]
        raise DataError(
            f"scores is infinite at benchmark row {row}, model column {column}; use NaN for 'not measured'."
        )
    for row, values in enumerate(scores):
        known = values[~np.isnan(values)]
        if len(known) < 2 or (known == known[0]).all():
            raise DataError(
                f"Benchmark row {row} has {len(known)} measured score(s)"
                + (f", all equal to {known[0]:g}" if len(known) else "")
                + ": it orders no models, so no unit can be screened for it. "
                "Leave it out (benchmarks.csv, 'usable')."
            )
    return scores


def _check_surprisal(surprisal: np.ndarray, n_models: int, what: str = "surprisal") -> np.ndarray:
    surprisal = np.asarray(surprisal)
    if surprisal.dtype not in (np.float32, np.float64):
        surprisal = surprisal.astype(np.float32 if surprisal.dtype == np.float16 else np.float64)
    if surprisal.ndim != 2 or surprisal.shape[1] != n_models:
        raise DataError(
            f"{what} has shape {surprisal.shape}; expected (n_units, {n_models}), one column for each model of scores."
        )
    for start in range(0, len(surprisal), TILE):  # by tile: no second table of this size
        odd = np.isinf(surprisal[start : start + TILE])
        if odd.any():
            row, column = np.argwhere(odd)[0]
            raise DataError(
                f"{what} is infinite at unit row {start + row}, model column {column}: that model gave the unit "
                "probability zero. Extract it again in float32, or set NaN to leave it out pairwise."
            )
    return surprisal
