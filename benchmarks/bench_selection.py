"""Selection against a refitting loop, in one run: `python benchmarks/bench_selection.py`, or
pytest-benchmark.

The loop fits every candidate at every step with statsmodels' OLS, as a plain reading of the paper does. It
is timed on a few steps of one benchmark and scaled by the number of fits; its picks must be the same. Writes
`benchmarks/results/selection.csv`.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.linear_model import LinearRegression

from helpers import selection

MODELS, CANDIDATES, BENCHMARKS = 32, 2000, 88
RESULTS = Path(__file__).parent / "results" / "selection.csv"


def data(benchmarks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random features (n_benchmarks, n_models, n_candidates) and scores (n_benchmarks, n_models)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(benchmarks, MODELS, CANDIDATES)), rng.normal(size=(benchmarks, MODELS))


def statsmodels_loop(x: np.ndarray, y: np.ndarray, steps: int) -> list[int]:
    """Return the first `steps` picks by refitting every candidate."""
    chosen: list[int] = []
    for _ in range(steps):
        rest = [j for j in range(x.shape[1]) if j not in chosen]
        aic = [sm.OLS(y, sm.add_constant(x[:, [*chosen, j]])).fit().aic for j in rest]
        chosen.append(rest[int(np.argmin(aic))])
    return chosen


def scikit_loop(x: np.ndarray, y: np.ndarray, steps: int) -> list[int]:
    """Return the first `steps` picks by refitting every candidate with scikit-learn."""
    chosen: list[int] = []
    for _ in range(steps):
        fits = [LinearRegression().fit(x[:, [*chosen, j]], y) for j in range(x.shape[1])]
        r2 = [fit.score(x[:, [*chosen, j]], y) for j, fit in enumerate(fits)]
        chosen.append(int(np.argmax(r2)))
    return chosen


def timed(call) -> tuple[float, float, object]:
    """Return wall-clock time, processor time and result of a call."""
    start = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - start[0], time.process_time() - start[1], result


def main(benchmarks: int) -> pd.DataFrame:
    """Time everything and return the table."""
    x, y = data(benchmarks)
    wall, cpu, fits = timed(lambda: [selection.forward_aic(a, b) for a, b in zip(x, y)])
    terms = sum(len(fit) for fit in fits)
    rows = [{"what": "forward_aic", "wall_s": wall, "cpu_s": cpu, "fits_compared": terms * CANDIDATES}]
    few, steps = 300, 3
    for name, loop in {"statsmodels loop": statsmodels_loop, "scikit-learn loop": scikit_loop}.items():
        wall, cpu, picks = timed(lambda loop=loop: loop(x[0][:, :few], y[0], steps))
        assert picks == selection.forward_aic(x[0][:, :few], y[0], max_size=steps).indices.tolist()
        scale = terms * CANDIDATES / (few * steps)
        row = {"what": name, "wall_s": wall * scale, "cpu_s": cpu * scale, "fits_compared": few * steps}
        rows.append(row)
    wall, cpu, _ = timed(lambda: [selection.lasso(a, b) for a, b in zip(x[:8], y[:8])])
    row = {"what": "lasso, alpha 0.01", "wall_s": wall * benchmarks / 8, "cpu_s": cpu * benchmarks / 8}
    rows.append(row | {"fits_compared": 8})
    table = pd.DataFrame(rows)
    table["times_forward_aic"] = table["cpu_s"] / table["cpu_s"][0]
    print(f"{benchmarks} benchmarks x {CANDIDATES} candidates x {MODELS} models of pure noise")
    print(f"mean size {terms / benchmarks:.1f}, smallest R2 {min(fit.r2 for fit in fits):.4f}")
    print(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    facts = {
        "benchmarks": benchmarks,
        "candidates": CANDIDATES,
        "models": MODELS,
        "mean_size": terms / benchmarks,
    }
    facts["date"] = time.strftime("%Y-%m-%d")
    facts["threads"] = os.environ.get("OMP_NUM_THREADS", "all")
    RESULTS.parent.mkdir(exist_ok=True)
    table.assign(**facts).to_csv(RESULTS, index=False, float_format="%.4g")
    return table


def test_forward_aic(benchmark):
    x, y = data(1)
    benchmark(selection.forward_aic, x[0], y[0])


def test_statsmodels_first_step_of_a_tenth(benchmark):
    x, y = data(1)
    benchmark(statsmodels_loop, x[0][:, :200], y[0], 1)


def test_lasso(benchmark):
    x, y = data(1)
    benchmark(selection.lasso, x[0], y[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--benchmarks", type=int, default=BENCHMARKS)
    main(parser.parse_args().benchmarks)
