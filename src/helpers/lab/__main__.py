"""Train a laboratory population: ``python -m helpers.lab --population main``.

Two processes of one thread each share the shapes. With ``--check`` nothing is replaced: the models named (or
all) are trained again and their scores are compared with the shipped ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch

from helpers import errors, paths, provenance
from helpers.errors import DataError, nearest
from helpers.lab import population, scoring, text, units_digest
from helpers.lab.population import POPULATIONS, Population, Shape


def _train(plan: Population, shape: Shape, names: list[str] | None = None) -> tuple[dict, dict[str, float]]:
    torch.set_num_threads(1)
    table = population.design(plan)
    rows = table[(table["shape"] == shape.name) & (table.index.isin(names) if names else True)]
    pool = population.streams(plan, population.counter())
    weights, losses = population.train_shape(plan, shape, rows, pool, log=True)
    return weights, dict(zip(rows.index, map(float, losses)))


def scores_of(plan: Population, stacks: dict[str, dict], names: list[str] | None = None) -> pd.DataFrame:
    """Score stacked weights (all models of the shapes given, or `names`) as they ship, rounded to float16."""
    table = population.design(plan)
    table = table[table["shape"].isin(list(stacks)) & (table.index.isin(names) if names else True)]
    names = list(table.index)
    tokenizer = population.tokenizer()

    def load(name: str):
        shape = next(s for s in plan.shapes if s.name == table.loc[name, "shape"])
        number = list(table.index[table["shape"] == shape.name]).index(name)
        return population.to_llama({k: w[number].half() for k, w in stacks[shape.name].items()}, shape), tokenizer

    return scoring.score_population(load, names, text.questions(plan.sign), source="measured when trained")


def write_numbers(plan: Population, stacks: dict[str, dict], losses: dict[str, float], where: Path) -> None:
    """Write a numbers-only population: scores, surprisal (float16, nats per unit) and manifest."""
    where.mkdir(parents=True, exist_ok=True)
    scores_of(plan, stacks).round(5).to_csv(where / "scores.csv", index=False, lineterminator="\n")
    counter = population.counter()
    found = text.corpus(counter)[::2]
    table = population.design(plan)
    columns = [
        population.unit_surprisal({k: w.half().float() for k, w in stacks[s.name].items()}, s, found, counter)
        for s in plan.shapes
    ]
    order = [n for s in plan.shapes for n in table.index[table["shape"] == s.name]]
    frame = pd.DataFrame(np.concatenate(columns, axis=1).astype(np.float16), columns=order)[list(table.index)]
    provenance.write_atomic(where / "surprisal.parquet", lambda t: frame.to_parquet(t, index=False, compression="zstd"))
    units = units_digest(text.units_table(found))
    population.write_manifest(plan, losses, where, units=units)


# A training run multiplies differences in the last bit (another processor, fewer models in a stack), so it reproduces a
# model's profile of scores and not each score. The bounds are those that 95 % of the pairs of different shipped models
# miss; `tests/test_lab.py` measures that too.
TOLERANCE = {"correlation": 0.75, "mean_difference": 0.1}


def compare(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """Return, for each model of the long score table `new`, how its scores agree with those of `old`.

    One row a model: `correlation` (Pearson, soft scores over benchmarks), `mean_difference` (absolute, soft scores),
    `accuracy_mean` and `accuracy_largest` (absolute differences of accuracy), `reproduced` (within TOLERANCE).

    >>> one = pd.DataFrame({"model": "m", "benchmark": ["a", "b", "c"], "score": [.2, .5, .9], "soft": [.3, .4, .8]})
    >>> compare(one, one).loc["m", ["correlation", "mean_difference", "reproduced"]].tolist()
    [1.0, 0.0, True]
    """
    both = new.merge(old, on=["model", "benchmark"], suffixes=("", "_old"), validate="one_to_one")
    if len(both) != len(new):
        raise DataError(f"{len(new) - len(both)} retrained scores have no shipped score to compare with.")
    rows = {}
    for model, own in both.groupby("model", sort=False):
        gap = (own["soft"] - own["soft_old"]).abs().mean()
        accuracy = (own["score"] - own["score_old"]).abs()
        r = own["soft"].corr(own["soft_old"])
        rows[model] = {
            "correlation": r,
            "mean_difference": gap,
            "accuracy_mean": accuracy.mean(),
            "accuracy_largest": accuracy.max(),
            "reproduced": bool(r >= TOLERANCE["correlation"] and gap <= TOLERANCE["mean_difference"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


@errors.command
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.lab", description=__doc__)
    parser.add_argument("--population", default="main", choices=sorted(POPULATIONS))
    parser.add_argument("--out", type=Path, help="folder to write (default: the shipped one)")
    parser.add_argument("--check", action="store_true", help="compare with the shipped scores instead of writing")
    parser.add_argument("--models", nargs="+", help="with --check: only these models, such as lab-48x2-0")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    plan = POPULATIONS[given.population]
    if given.models and not given.check:
        parser.error("--models needs --check: a population is written whole")
    table = population.design(plan)
    if unknown := sorted(set(given.models or ()) - set(table.index)):
        parser.error(f"no model '{unknown[0]}' in '{plan.name}'; {nearest(unknown[0], table.index)}")
    wanted = set(table.loc[given.models or list(table.index), "shape"])
    if not (paths.LAB / "tokenizer.json").exists():
        text.train_tokenizer().save(str(paths.LAB / "tokenizer.json"))
    began = time.time()
    shapes = sorted((s for s in plan.shapes if s.name in wanted), key=lambda s: -s.parameters())  # long ones first
    done = joblib.Parallel(n_jobs=given.jobs)(joblib.delayed(_train)(plan, s, given.models) for s in shapes)
    stacks = {s.name: w for s, (w, _) in zip(shapes, done)}
    losses = {name: loss for _, each in done for name, loss in each.items()}
    print(f"trained {len(losses)} models in {time.time() - began:.0f} s")
    if given.check:
        table = compare(scores_of(plan, stacks, given.models), shipped_scores(plan))
        print(table.round(3).to_string())
        if not table["reproduced"].all():
            raise DataError(f"beyond the tolerance {TOLERANCE}")
        return
    where = given.out or population.folder(plan.name)
    if plan.ships_weights:
        population.write(plan, stacks, losses, where)
    else:
        write_numbers(plan, stacks, losses, where)
    print(f"wrote {paths.label(where)}; now delete results of studies that use it, or run `make study`")


def shipped_scores(plan: Population) -> pd.DataFrame:
    """Return the shipped population's scores: computed from its weights, or the shipped table."""
    if not plan.ships_weights:
        return pd.read_csv(population.folder(plan.name) / "scores.csv")
    from helpers.lab import load_model, model_names

    return scoring.score_population(load_model, model_names(plan.name), text.questions(plan.sign))


if __name__ == "__main__":
    sys.exit(main())
