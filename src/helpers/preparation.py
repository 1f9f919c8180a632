"""From a study file to the tables that every notebook starts from.

:func:`prepare` writes ``units.parquet``, ``models.csv``, ``benchmarks.csv``, ``scores.csv`` and, where there are
question texts, ``questions.parquet`` into the study's folder (columns: CONTRIBUTING.md).
"""

from __future__ import annotations

from helpers import studies


def prepare(study: studies.Study) -> None:
    """Write the starting tables of a study, wherever its models come from.

    The laboratory generates them, published studies read them through the downloader, and a list of models
    takes its corpus, scores and questions from the files that the study names. Raises StudyError, DataError or
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
