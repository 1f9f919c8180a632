"""A reader's own checkpoints beside the models of a study: the same text, the same settings, one more column each.

:func:`join` measures the surprisal of every reference unit under each checkpoint and adds it to the study's tables.
In the laboratory, whose questions and scorer are here, the checkpoints also sit the known benchmarks.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import extraction, models, overlap, paths, provenance
from helpers.errors import DataError, ModelError, StudyError
from helpers.studies import ModelEntry, Study

CODE = (*extraction.CODE, paths.SOURCE / "own_models.py")


def parse(text: str) -> dict[str, str]:
    """Return name -> folder or hub id from ``NAME=PLACE,PLACE,...``; a place without a name is called as its end.

    >>> parse("mine=runs/checkpoint-100, runs/other/")
    {'mine': 'runs/checkpoint-100', 'other': 'runs/other'}

    Raises StudyError for an empty part or a name given twice.
    """
    found: dict[str, str] = {}
    for part in filter(str.strip, text.split(",")):
        name, _, place = (p.strip() for p in part.rpartition("="))
        place = place.rstrip("/") or place
        name = name or place.rsplit("/", 1)[-1]
        if not place or not name:
            raise StudyError(f"MODELS: '{part.strip()}' names no model; write NAME=FOLDER or NAME=OWNER/MODEL.")
        if name in found:
            raise StudyError(f"MODELS: '{name}' is given twice; write NAME=FOLDER to tell them apart.")
        found[name] = place
    return found


def entry(name: str, place: str) -> ModelEntry:
    """Return the entry of a checkpoint: a folder (from here, from the project's root, or absolute), else a hub id."""
    for folder in (Path(place), paths.ROOT / place):
        if folder.is_dir():
            return ModelEntry(name=name, source="folder", id=str(folder.resolve()))
        if folder.is_file():
            raise ModelError(f"{name}: '{place}' is a file; give the folder in which config.json and the weights lie.")
    if place.startswith((".", "/", "~")) or place.count("/") > 1 or "\\" in place:
        raise ModelError(f"{name}: the folder '{place}' does not exist; give a folder with config.json and safetensors.")  # fmt: skip
    return ModelEntry(name=name, source="hub", id=place)


def refusal(study: Study) -> str | None:
    """Return why nobody's model can be measured on a study's text, or None where it can.

    >>> from helpers import studies
    >>> refusal(studies.load("lab")) is None
    True
    """
    if study.models.kind == "table":
        return (
            f"study '{study.name}' holds losses that others published; neither their text with its settings nor their "
            "tokens are here, so a new model cannot be measured the same way. Use the study lab, or one of your own "
            "(make new-study), whose text is here."
        )
    if not extraction.is_measured_here(study):
        return (
            f"study '{study.name}' ships its surprisal as numbers, without the models that gave it, so nobody can check "
            "that a new column is measured alike. Use the study lab, or one of your own (make new-study)."
        )
    return None


def measure(study: Study, own: ModelEntry) -> pd.Series:
    """Return nats per unit (float32, by ``unit_id``) of one checkpoint on the study's text.

    The column is kept in the study's folder and made again when checkpoint, text, settings or code change. Raises
    StudyError where the study cannot measure (:func:`refusal`), ModelError for a checkpoint that cannot be loaded or
    gives numbers that are not finite.
    """
    reason = refusal(study)
    if reason:
        raise StudyError(reason)
    own = own.model_copy(update={"dtype": study.extraction.dtype})
    settings = study.extraction.model_dump(mode="json", exclude={"workers", "scheduler"})
    mark = models.fingerprint(own)
    parameters = {"fingerprint": mark, "extraction": settings, "unit": "nats per reference unit"}
    parameters["code"] = {p.name: provenance.sha256_file(p) for p in CODE}
    slug = re.sub(r"[^A-Za-z0-9._-]", "-", own.name)
    path = study.results / "own-models" / f"{slug}-{mark[-12:].replace('/', '-')}.parquet"
    if provenance.stale_reason(path, parameters):
        began = time.perf_counter()
        units = study.results / "units.parquet"
        index = provenance.read_table(units).index
        values = np.concatenate([extraction.measure(own, mark, study.extraction, b)[0] for b in extraction.blocks(study)])  # fmt: skip
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            # Damaged weights are named where they are measured; what is left is the first token of a text.
            raise ModelError(
                f"{own.name}: {bad} of {len(values)} units, each the first of a document, have no surprisal: its tokenizer has "
                "neither a start nor an end token to put before a text. Add one to its tokenizer_config.json "
                '("bos_token": ...): the token that separated texts in training.'
            )
        frame = pd.DataFrame({"nats": values}, index=index)
        provenance.write_table(path, frame, inputs=[units], parameters=parameters, seconds=time.perf_counter() - began)  # fmt: skip
    return provenance.read_table(path)["nats"].rename(own.name)


def join(
    study: Study,
    tables: overlap.Tables,
    places: Mapping[str, str],
    families: Mapping[str, str] | None = None,
) -> overlap.Tables:
    """Return the study's tables with a column for each of the reader's checkpoints.

    Parameters
    ----------
    places
        Name (as in the score file) -> folder or hub id, see :func:`parse`.
    families
        Name -> lineage; a checkpoint without one is a lineage of its own. Relatives are held out together.

    Returns
    -------
    Tables with the new columns last. Scores on known benchmarks are NaN (not measured) outside of the laboratory.
    Raises StudyError for a name that the study has already, or a lineage of a model that is not given; ModelError.
    """
    families = dict(families or {})
    for name in places:
        if name in tables.all_groups.index:
            raise StudyError(f"the study '{study.name}' already has a model '{name}'; leave it out of MODELS or rename it.")  # fmt: skip
    for name in families:
        if name not in places:
            raise StudyError(f"a lineage is given for '{name}', which is not among MODELS ({', '.join(places)}).")
    entries = [entry(name, place) for name, place in places.items()]
    if not entries:
        return tables
    columns = pd.concat([measure(study, e) for e in entries], axis=1)
    if not columns.index.equals(tables.surprisal.index):
        raise DataError(f"study '{study.name}': units.parquet and surprisal.parquet differ; extract again.")
    lineage = pd.Series({e.name: families.get(e.name, e.name) for e in entries})
    score, stderr, reasons = _sit(study, entries, tables)
    return dataclasses.replace(
        tables,
        surprisal=pd.concat([tables.surprisal, columns], axis=1),
        scores=pd.concat([tables.scores, score.loc[tables.scores.index]], axis=1),
        all_scores=pd.concat([tables.all_scores, score], axis=1),
        stderr=pd.concat([tables.stderr, stderr], axis=1),
        groups=pd.concat([tables.groups, lineage]),
        all_groups=pd.concat([tables.all_groups, lineage]),
        left_out=tables.left_out | reasons,
    )


def _sit(
    study: Study, entries: list[ModelEntry], tables: overlap.Tables
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Return the checkpoints' scores and standard errors on the known benchmarks, and why a model has none."""
    score = pd.DataFrame(np.nan, index=tables.all_scores.index, columns=[e.name for e in entries])
    stderr, reasons = score.copy(), {}
    if study.models.kind != "lab":
        return score, stderr, {e.name: f"study '{study.name}' cannot score a new model" for e in entries}
    from helpers import lab

    asked = lab.questions(study.models.population)
    asked = asked[asked["benchmark"].isin(tables.all_scores.index)]
    for own in entries:
        loaded = models.load(own)
        try:
            table = lab.score_population(lambda name, m=loaded: (m.model, m.tokenizer), [own.name], asked)
        except DataError as error:  # another tokenizer: the laboratory's scorer asks for single tokens
            reasons[own.name] = f"the laboratory's scorer cannot ask it: {error}"
            continue
        table = table.set_index("benchmark").reindex(score.index)
        score[own.name], stderr[own.name] = table["score"], table["stderr"]
    return score, stderr, reasons
