"""From a study file to the tables that every notebook starts from.

:func:`prepare` writes ``units.parquet``, ``models.csv``, ``benchmarks.csv``, ``scores.csv`` and, where there
are question texts, ``questions.parquet`` into the study's folder (columns: CONTRIBUTING.md).
"""

from __future__ import annotations

import pandas as pd

from helpers import corpora, paths, provenance, questions, scores, studies
from helpers.errors import DataError, StudyError

MIN_MODELS = 8  # fewer cannot carry a correlation over models


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


def _prepare_list(study: studies.Study) -> None:
    """Prepare a study that lists its models and names files of scores and questions, or none."""
    settings = {"models": study.models.model_dump(mode="json"), "seed": study.seed}
    models = pd.DataFrame(
        {
            "model": e.name,
            "family": e.family or e.name,
            "source": e.source,
            "id": e.id,
            "revision": e.revision,
        }
        for e in study.models.entries
    )
    corpora.prepare(study)
    provenance.write_table(study.results / "models.csv", models, parameters=settings)
    if study.benchmarks.kind == "none":
        return
    if not study.benchmarks.scores:
        raise StudyError(f"study '{study.name}': benchmarks.scores names no file or folder; give one.")
    source = paths.ROOT / study.benchmarks.scores
    table = scores.read(source, benchmarks=study.benchmarks.include)
    matching = scores.match_models(table["model"], models["model"])
    if matching.unmatched:
        print(f"{paths.label(source)}: not in the study, left out: {', '.join(matching.unmatched)}")
    known = matching.matched.set_index("given")["known"]
    table = table.assign(model=table["model"].map(known)).dropna(subset="model")
    table = table[~table["benchmark"].isin(study.benchmarks.exclude)]
    if table.empty:
        raise DataError(f"{paths.label(source)}: none of its models is in study '{study.name}'.")
    inputs = [source] if source.is_file() else [p for p in sorted(source.rglob("*.json")) if p.is_file()]
    counted = table.groupby("benchmark")["model"].nunique()
    constant = table.groupby("benchmark")["score"].nunique() < 2
    benchmarks = pd.DataFrame(
        {
            "benchmark": name,
            "title": name,
            "function": None,
            "family": None,
            "format": None,
            "n_items": table.loc[table["benchmark"] == name, "n_items"].max(),
            "chance": None,
            "usable": bool(count >= MIN_MODELS and not constant[name]),
            "reason": f"{count} models, {MIN_MODELS} are needed" if count < MIN_MODELS
            else "all scores are equal" if constant[name] else "",
        }
        for name, count in counted.items()
    )  # fmt: skip
    provenance.write_table(study.results / "scores.csv", table, inputs=inputs, parameters=settings)
    provenance.write_table(study.results / "benchmarks.csv", benchmarks, inputs=inputs, parameters=settings)
    if study.benchmarks.questions:
        asked = paths.ROOT / study.benchmarks.questions
        provenance.write_table(study.results / "questions.parquet", questions.read(asked), inputs=[asked])
