"""The maps page at growing suites: `python benchmarks/bench_maps.py` writes `benchmarks/results/maps.csv`.

A simulated suite (`helpers.diagnosis.planted`) takes every step of the notebook *draw-disentanglement-maps*,
with the notebook's own numbers of draws and permutations; each step is timed, and what it puts on the page is
weighed in bytes. Theme, search index, plotly and MathJax are not in these weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import diagnosis, figures, figures_pairs, inference, judgement, maps

RESULTS = Path(__file__).parent / "results" / "maps.csv"
DRAWS, PERMUTATIONS, MODELS = 100, 999, 48


def measure(size: int) -> pd.DataFrame:
    """Return one row a step: benchmarks, step, seconds (wall), processor seconds, KiB on the page."""
    rows: list[dict] = []

    def step(name: str, call):
        start = time.perf_counter(), time.process_time()
        result = call()
        took = time.perf_counter() - start[0], time.process_time() - start[1]
        html = getattr(result, "html", "")
        weight = len(html.encode()) / 1024 if html else np.nan
        rows.append({"step": name, "seconds": took[0], "cpu_seconds": took[1], "page_kib": weight})
        print(f"{size} benchmarks, {name}: {took[0]:.1f} s, {weight:.0f} KiB", flush=True)
        return result

    each = max(4, size // 25)  # benchmarks of a domain
    world = diagnosis.planted(models=MODELS, domains=-(-size // each), per_domain=each, bootstraps=40)
    keep = [*[n for n in world["axes"].names if n != "alone"][: size - 1], "alone"]
    sides = [
        {a: m.loc[keep, keep] for a, m in side.items()}
        for side in (world["axes"].values, world["axes"].low, world["axes"].high)
    ]
    axes, scores = maps.Axes(*sides), world["scores"].loc[keep]
    benchmarks = world["benchmarks"].set_index("benchmark").loc[keep].reset_index()
    eight = benchmarks["function"].str.extract(r"(-?\d+)")[0].astype(int) % 8  # functions, as a suite has
    functions = pd.Series([f"function {k}" for k in eight], index=keep)
    benchmarks["function"] = functions.to_numpy()
    others = diagnosis.other_axes(axes)
    words = {"alt": "a figure of the measurement", "caption": "A figure."}

    compared = step("keep what can be compared", lambda: maps.comparable(axes))
    resamples = step(
        "resample performance",
        lambda: {"performance": maps.performance_resamples(scores, keep, None, DRAWS)},
    )
    drawn = step("embed, align, ellipses", lambda: maps.disentangle(compared, resamples=resamples, draws=DRAWS))
    step("map", lambda: figures_pairs.disentanglement(drawn, name="map", functions=functions, **words))
    step("agreement of axes", lambda: judgement.agreement(axes, PERMUTATIONS, 0))
    table = step("pairs", lambda: maps.pairs(axes, benchmarks))
    findings, _ = step(
        "diagnosis",
        lambda: diagnosis.diagnose(axes, scores=scores, benchmarks=benchmarks, scale=world["scale"]),
    )
    step(
        "pair explorer",
        lambda: figures_pairs.explorer(table, others, name="explorer", flags=findings, **words),
    )
    step(
        "table of flags",
        lambda: figures.table(
            findings[["kind", "a", "b", "axis", "estimate", "low", "high", "q", "evidence"]].head(500),
            name="findings",
            caption="Flags.",
        ),
    )
    shares = step("profile", lambda: maps.profile(table, predictors=others))
    step("ternary view", lambda: figures_pairs.ternary(shares, others, name="profile", **words))
    order = step("seriation", lambda: maps.seriate(axes))
    for axis, matrix in axes.values.items():
        inside = [n for n in order if n in matrix.index]
        step(
            f"matrix, {axis}",
            lambda m=matrix, i=inside, a=axis: figures_pairs.matrix(
                m.loc[i, i], name=f"matrix-{a}", low=axes.low.get(a), high=axes.high.get(a), **words
            ),
        )
    step("map of functions", lambda: pd.concat([maps.aggregate(m, functions) for m in axes.values.values()]))
    step("MRQAP", lambda: judgement.explain(axes, others, permutations=PERMUTATIONS, seed=0))
    step(
        "commonality",
        lambda: inference.commonality(
            axes["performance"], {a: axes[a] for a in others}, bootstraps=200, permutations=200
        ),
    )
    suite = step("redundancy", lambda: diagnosis.redundancy(axes, draws=DRAWS))
    curve = suite.melt(["size", "method"], ["loss_performance", "loss_semantic"], "axis", "loss of the suite")
    step(
        "redundancy curve",
        lambda: figures.line(curve, "size", "loss of the suite", color="axis", name="redundancy", **words),
    )
    step("what each adds", lambda: diagnosis.adds_most(axes))
    result = pd.DataFrame(rows)
    result.insert(0, "benchmarks", size)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result["date"] = time.strftime("%Y-%m-%d")
    result["threads"] = os.environ.get("OMP_NUM_THREADS", "all")
    return result


def main(sizes: list[int]) -> None:
    """Measure every size, smallest first, and write the table; rows of other sizes stay."""
    RESULTS.parent.mkdir(exist_ok=True)
    table = pd.read_csv(RESULTS) if RESULTS.exists() else pd.DataFrame({"benchmarks": []})
    table = table[~table["benchmarks"].isin(sizes)]
    for size in sorted(sizes):
        table = pd.concat([table, measure(size)], ignore_index=True)
        table.round({"seconds": 2, "cpu_seconds": 2, "page_kib": 0, "peak_mib": 0}).to_csv(RESULTS, index=False)
    print(table.groupby("benchmarks")[["seconds", "cpu_seconds", "page_kib"]].sum().to_string())


def test_map_of_fifty(benchmark):
    world = diagnosis.planted(domains=12, bootstraps=20)
    benchmark(maps.disentangle, world["axes"], draws=20)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[48, 500])
    main(parser.parse_args().sizes)
