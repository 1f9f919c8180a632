"""Screening against its peers, in one run: `python benchmarks/bench_screening.py`, or through pytest-benchmark.

Writes `benchmarks/results/screening.csv` (`--threads` rows of this run replaced, others kept); with `--stream`,
`benchmarks/results/screening-stream.csv` (one process a size, so that each peak of memory is its own).

Peers
-----
released   the authors' algorithm re-expressed in pandas: for every benchmark, every unit is ranked again
numpy      ranks once with a double argsort, then one matrix product
package    estimators of the package perplexity-correlations (one benchmark a call). It is no dependency of the
           project: install it with `pip install --target FOLDER --no-deps perplexity-correlations`, then
           `PYTHONPATH=FOLDER python benchmarks/bench_screening.py`
memory     reading the surprisal table once and writing it elsewhere: the floor for any method

Peers too slow for the whole size run on fewer units and benchmarks and are scaled up linearly, as the table says.
Ratios are of processor time, which other load on the machine disturbs least, and of wall-clock time; set
OMP_NUM_THREADS=1 to compare one core with one core.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import screening

MODELS, BENCHMARKS, RATIO = 32, 88, 0.01
RESULTS = Path(__file__).parent / "results"


def keep(name: str, table: pd.DataFrame, keys: list[str]) -> None:
    """Write `table` to a result file; rows of earlier runs with other `keys` stay."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / name
    if path.exists():
        before = pd.read_csv(path)
        fresh = set(map(tuple, table[keys].astype(str).to_numpy()))
        old = [tuple(row) not in fresh for row in before[keys].astype(str).to_numpy()]
        table = pd.concat([before[old], table], ignore_index=True)
    table.sort_values(keys, kind="stable").to_csv(path, index=False, float_format="%.4g")


def threads() -> int:
    """Return the number of threads that the screening may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def data(units: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random surprisal and scores without ties."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((units, MODELS), dtype=np.float32), rng.normal(size=(BENCHMARKS, MODELS))


def released(surprisal: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rank every unit in pandas for every benchmark, ties by column order, and sum over ordered pairs."""
    columns = []
    for y in scores:
        ranks = pd.DataFrame(surprisal).rank(axis=1, method="first").to_numpy()
        order = pd.Series(y).rank(method="first").to_numpy()
        weight = np.sign(order[:, None] - order[None, :]).sum(axis=1)
        columns.append(2 * (ranks @ weight))
    return np.column_stack(columns)


def once(surprisal: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rank once with numpy, then one product."""
    ranks = surprisal.argsort(axis=1).argsort(axis=1).astype(np.float32)
    weights = np.sign(scores[:, :, None] - scores[:, None, :]).sum(axis=2).astype(np.float32)
    return ranks @ weights.T


def seconds(call, repeat: int = 3) -> tuple[float, float]:
    """Return the best wall-clock and the best processor time of `repeat` calls."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return tuple(np.min(times, axis=0))


def main(units: int) -> pd.DataFrame:
    """Time everything on `units` units and return the table."""
    x, y = data(units)
    rows = []

    def add(name: str, call, share: float = 1.0, repeat: int = 3) -> None:
        wall, cpu = seconds(call, repeat)
        rows.append({"what": name, "wall_s": wall / share, "cpu_s": cpu / share, "measured_share": share})

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    add("screen_stream (rank, statistic, both tails)", lambda: screening.screen_stream([x], y, RATIO))
    stream = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    add("memory: copy the table", lambda: x.copy())
    add("thrush (rank, statistic)", lambda: screening.thrush(x, y))
    whole = screening.thrush(x, y)
    add("screen (both tails)", lambda: screening.screen(whole, RATIO))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    few, some = min(units, 100_000), 2
    share = few * some / (units * BENCHMARKS)
    small = x[:few], y[:some]
    np.testing.assert_array_equal(released(*small), 2 * screening.thrush(*small, ties="name"))
    add("numpy, ranking once (rank, statistic)", lambda: once(x[:few], y), few / units)
    add("released, pandas (rank, statistic)", lambda: released(*small), share)
    try:
        from perplexity_correlations import estimation as package
    except ImportError:
        print("perplexity-correlations is not on the path: its rows are left out (see the file's head).")
    else:
        bits, error = np.random.default_rng(1).random((MODELS, few)), 1 / (1 + np.exp(small[1]))
        gamma = package.sign_cdf(bits, error[0]) * MODELS**2 * (MODELS - 1) / 2
        expected = screening.thrush(bits.T, error)[:, 0]
        np.testing.assert_allclose(gamma, expected, atol=1e-6 * np.abs(expected).max())
        for name in ("sign_cdf", "spearmanr", "sign_sign"):
            call = getattr(package, name)
            add(f"package, {name} (rank, statistic)", lambda call=call: [call(bits, e) for e in error], share)
    table = pd.DataFrame(rows)
    for name, start in {"times_stream": "screen_stream", "times_thrush": "thrush"}.items():
        ours = table[table["what"].str.startswith(start)].iloc[0]
        table[name], table[f"{name}_wall"] = table["cpu_s"] / ours["cpu_s"], table["wall_s"] / ours["wall_s"]
    print(f"{units:,} units x {MODELS} models x {BENCHMARKS} benchmarks, {RATIO:.0%} at each end")
    print(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    print(f"peak memory: screen_stream {stream:.0f} MiB beyond its input; whole process {held:.0f} MiB")
    table["peak_mib"] = np.where(table["what"].str.startswith("screen_stream"), stream, np.nan)
    table.loc[table["what"].str.startswith("thrush"), "peak_mib"] = held
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": threads(),
        "units": units,
        "models": MODELS,
        "benchmarks": BENCHMARKS,
        "ratio": RATIO,
    }
    keep("screening.csv", table.assign(**facts), ["threads", "units"])
    return table


def stream(units: int, block: int = 200_000) -> None:
    """Screen `units` units that are made block by block, and print time and memory."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(BENCHMARKS, MODELS))
    sizes = [min(block, units - start) for start in range(0, units, block)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter(), time.process_time()
    blocks = (rng.standard_normal((n, MODELS), dtype=np.float32) for n in sizes)
    kept = screening.screen_stream(blocks, y, ratio=1000 / units)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{units:,} units in blocks of {block:,}, {len(kept[0])} kept a benchmark: {wall:.1f} s, {cpu:.1f} s of processor"
    )
    print(f"peak memory {peak:.0f} MiB, {peak - before:.0f} MiB more than before; making the random blocks included")
    row = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": threads(),
        "units": units,
        "block": block,
        "models": MODELS,
        "benchmarks": BENCHMARKS,
    }
    row |= {"kept": len(kept[0]), "wall_s": wall, "cpu_s": cpu, "peak_mib": peak, "more_mib": peak - before}
    keep("screening-stream.csv", pd.DataFrame([row]), ["threads", "units"])


def test_screen_stream(benchmark):
    x, y = data(100_000)
    benchmark(screening.screen_stream, [x], y, RATIO)


def test_thrush(benchmark):
    benchmark(screening.thrush, *data(100_000))


def test_screen(benchmark):
    benchmark(screening.screen, screening.thrush(*data(100_000)), RATIO)


def test_released_one_hundredth(benchmark):
    x, y = data(20_000)
    benchmark(released, x, y[:4])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--stream", action="store_true", help="only the stream, from blocks made on the way")
    arguments = parser.parse_args()
    stream(arguments.units) if arguments.stream else main(arguments.units)
