"""From a study file to the tables that every notebook starts from.

:func:`prepare` writes ``units.parquet``, ``models.csv``, ``benchmarks.csv``, ``scores.csv`` and, where there
are question texts, ``questions.parquet`` into the study's folder (columns: CONTRIBUTING.md).
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import checkpoints, corpora, limits, paths, provenance, questions, scores, studies
from helpers.errors import DataError, ModelError, StudyError, nearest
from helpers.inference import MIN_MODELS


def prepare(study: studies.Study) -> None:
    """Write the starting tables of a study, wherever its models come from.

    The laboratory generates them, published studies read them through the downloader, and a list of models
    takes its corpus, scores and questions from what the study names. Raises StudyError, DataError or
    UnavailableError that name what is missing.
    """
    if study.models.kind == "lab":
        from helpers import lab  # torch is slow to import: only where it is needed

        lab.prepare(study)
    elif study.models.kind == "table":
        from helpers import published

        published.prepare(study)
    else:
        _prepare_list(study)
    if provenance.stale_reason(study.results / "surprisal.parquet"):
        _drop(study, "surprisal.parquet")  # of another corpus: extraction makes it again


def _prepare_list(study: studies.Study) -> None:
    """Prepare a study that lists its models and names files of scores and questions, or none."""
    settings = {"models": study.models.model_dump(mode="json"), "seed": study.seed}
    models = pd.DataFrame(
        {
            "model": e.name,
            "family": e.family or e.name,
            "parameters": parameters(e),
            "source": e.source,
            "id": e.id,
            "revision": e.revision,
        }
        for e in study.models.entries
    )
    if models["parameters"].isna().all():
        del models["parameters"]
    corpora.prepare(study)
    provenance.write_table(study.results / "models.csv", models, parameters=settings)
    if study.benchmarks.kind == "none":
        _drop(study, "scores.csv", "benchmarks.csv", "questions.parquet")
        return
    if not study.benchmarks.scores:
        raise StudyError(f"study '{study.name}': benchmarks.scores names no file or folder; give one.")
    source = paths.ROOT / study.benchmarks.scores
    table = scores.read(source, benchmarks=study.benchmarks.include, models=models["model"])
    table = table[~table["benchmark"].isin(study.benchmarks.exclude)]
    if table.empty:
        raise DataError(f"{paths.label(source)}: none of its models is in study '{study.name}'.")
    # a benchmark whose function nobody told is a function of its own; only questions tell a format
    functions = _functions(study.benchmarks.functions, sorted(table["benchmark"].unique()))
    texts = (
        questions.read(paths.ROOT / study.benchmarks.questions)
        if study.benchmarks.questions
        else questions.table([], "")
    )
    texts = _about(texts, set(table["benchmark"]), study) if study.benchmarks.questions else texts
    formats = texts.groupby("benchmark")["format"].agg(lambda f: f.mode().iloc[0])
    scored, files = _named([source] if source.is_file() else sorted(source.rglob("*.json")))
    counted = table.groupby("benchmark")["model"].nunique()
    constant = table.groupby("benchmark")["score"].nunique() < 2
    benchmarks = pd.DataFrame(
        {
            "benchmark": name,
            "title": name,
            "function": functions.get(name, name),
            "family": None,
            "format": formats.get(name, "unknown"),
            "n_items": table.loc[table["benchmark"] == name, "n_items"].median(),
            "chance": None,
            "usable": bool(count >= MIN_MODELS and not constant[name]),
            "reason": f"{count} models, {MIN_MODELS} are needed" if count < MIN_MODELS
            else "all scores are equal" if constant[name] else "",
        }
        for name, count in counted.items()
    )  # fmt: skip
    settings |= files
    provenance.write_table(study.results / "scores.csv", table, inputs=scored, parameters=settings)
    provenance.write_table(study.results / "benchmarks.csv", benchmarks, inputs=scored, parameters=settings)
    if not study.benchmarks.questions:
        _drop(study, "questions.parquet")
    else:
        asked, files = _named([paths.ROOT / study.benchmarks.questions])
        provenance.write_table(study.results / "questions.parquet", texts, inputs=asked, parameters=files)


def _about(texts: pd.DataFrame, scored: set[str], study: studies.Study) -> pd.DataFrame:
    """Return the questions of the study's benchmarks; DataError when the file is about none of them."""
    shown = limits.name(paths.ROOT / str(study.benchmarks.questions))
    others = texts.loc[~texts["benchmark"].isin(scored), "benchmark"]
    if len(others) == len(texts):
        listed, own = (", ".join(f"'{n}'" for n in sorted(set(x))[:8]) for x in (others, scored))
        raise DataError(
            f"{shown}: questions of {listed or 'no benchmark'}, but the scores are of {own}; give every question the "
            "name of its benchmark in a field 'benchmark'."
        )
    if len(others):
        listed = ", ".join(sorted(set(others))[:8]) + (" ..." if others.nunique() > 8 else "")
        print(f"{shown}: {len(others)} questions of benchmarks that have no scores here, left out: {listed}")
    return texts[texts["benchmark"].isin(scored)].reset_index(drop=True)


def parameters(entry: studies.ModelEntry) -> float:
    """Return the number of parameters that the study states or that the weights here have; NaN where neither tells.

    >>> parameters(studies.ModelEntry(name="a", source="hub", id="x/a", parameters=0.5))
    500000000.0
    """
    if entry.parameters:
        return entry.parameters * 1e9
    if entry.source == "lab":
        from helpers import lab  # as above

        sizes = lab.models_table().set_index("model")["parameters"]
        return float(sizes.get(entry.id, np.nan))
    if entry.source == "folder":
        with contextlib.suppress(ModelError):  # loading the model says what is wrong with its folder
            return float(checkpoints.parameters(paths.ROOT / entry.id))
    return np.nan


def _named(files: Sequence[Path]) -> tuple[list[Path], dict[str, dict[str, str]]]:
    """Return the files of the project, and name -> sha256 of others: no record names a machine's folders."""
    inside = [f for f in files if f.is_file() and paths.locate(paths.label(f)) == f.resolve()]
    outside = {f"{f.parent.name}/{f.name}": provenance.sha256_file(f) for f in files if f.is_file() and f not in inside}
    return inside, {"files": outside} if outside else {}


def _functions(told: Mapping[str, Sequence[str]], benchmarks: Sequence[str]) -> dict[str, str]:
    """Return benchmark -> function; StudyError for a pattern that fits nothing or a benchmark that fits twice.

    >>> _functions({"code": ["py-*"]}, ["py-a", "qa"])
    {'py-a': 'code'}
    """
    found: dict[str, str] = {}
    for function, patterns in told.items():
        for pattern in patterns:
            fits = [b for b in benchmarks if fnmatch.fnmatchcase(b, pattern)]
            if not fits:
                raise StudyError(
                    f"benchmarks.functions.{function}: no benchmark '{pattern}'; {nearest(pattern, benchmarks)}"
                )
            for name in fits:
                if found.setdefault(name, function) != function:
                    raise StudyError(
                        f"benchmarks.functions: '{name}' is both '{found[name]}' and '{function}'; keep one."
                    )
    return found


def _drop(study: studies.Study, *names: str) -> None:
    """Remove artifacts of an earlier version of the study file: nothing may read what it no longer names."""
    for name in names:
        provenance.sidecar(study.results / name).unlink(missing_ok=True)
        (study.results / name).unlink(missing_ok=True)
