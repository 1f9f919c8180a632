"""The laboratory: a population of small language models with KNOWN exposure, and everything measured on it.

Text is generated from 24 lookup tables in 8 domains; every model reads each domain in a known amount. So the
skill behind every benchmark and behind every unit of the corpus is known, and each claim about signatures can
be scored. Three populations: ``main`` ships its weights; ``format`` (quiz practice varies far more than
knowledge) and ``general`` (one factor scales all domains) ship their numbers only.
"""

from __future__ import annotations

import json
import time
from functools import cache

import pandas as pd

from helpers import paths, provenance, studies
from helpers.errors import DataError
from helpers.lab import population, scoring, text
from helpers.lab.population import POPULATIONS, model_names
from helpers.lab.scoring import score_population

__all__ = [
    "POPULATIONS",
    "documents",
    "load_model",
    "model_names",
    "prepare",
    "questions",
    "score_population",
    "truth",
]

CODE = tuple(paths.SOURCE / "lab" / f"{name}.py" for name in ("__init__", "text", "population", "scoring"))


@cache
def _tokenizer():
    return population.tokenizer()


def load_model(name: str):
    """Return (``LlamaForCausalLM`` in float32, ``PreTrainedTokenizerFast``) of a model of ``main``.

    The tokenizer lower-cases, never joins whitespace pieces and gives character offsets; it adds no special
    token, and every document was read after one ``<s>``.

    >>> model, tokenizer = load_model("lab-48x2-0")
    >>> model.config.hidden_size, tokenizer("Paris.")["input_ids"] == tokenizer("paris .")["input_ids"]
    (48, True)
    """
    return population.read_model(name), _tokenizer()


@cache
def _corpus(quiz: bool) -> list[text.Document]:
    return text.corpus(population.counter(), quiz=quiz)


def questions(name: str = "main") -> pd.DataFrame:
    """Return the items of a population's 48 benchmarks; see :func:`helpers.lab.text.questions`."""
    return text.questions(sign=population.population(name).sign)


def documents(name: str = "main", quiz: bool = False) -> list[text.Document]:
    """Return the held-out documents of a population's corpus, checked against the manifest.

    Numbers-only populations use every second document. ``quiz=True`` adds quiz text, an ablation of ``main``.
    Raises DataError when the installed packages differ from those that the real text was taken from.
    """
    known = population.manifest(name)
    if text.real_digest() != known["real_text"]["sha256"]:
        raise DataError(
            "the laboratory's corpus takes real text from the installed numpy, scipy, scikit-learn and statsmodels; "
            f"it differs from the text that was measured (with {known['versions']}); install the lock file."
        )
    found = _corpus(quiz)
    return found if population.population(name).ships_weights else found[::2]


def truth(name: str = "main", quiz: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what is known: (benchmark -> domain, skill, format; unit -> source, domain, skill, is_answer).

    >>> truth()[0].loc["knowledge-capitals-cloze"].tolist()
    ['knowledge', 'capitals', 'cloze']
    """
    items = questions().drop_duplicates("benchmark").set_index("benchmark")[["domain", "skill", "format"]]
    units = text.units_table(documents(name, quiz))
    return items, units[["source", "domain", "skill", "is_answer"]]


def models_table(name: str = "main") -> pd.DataFrame:
    """Return models.csv: `model`, `family` (its shape), `parameters`, and what else is known."""
    frame = pd.DataFrame(population.manifest(name)["models"]).drop(columns="exposure")
    return frame[["model", "family", "parameters", "width", "layers", "heads", "seed", "g", "loss"]]


def exposure_table(name: str = "main") -> pd.DataFrame:
    """Return exposure.csv: `model`, tokens read of each domain, of quiz practice and of real text."""
    models = population.manifest(name)["models"]
    return pd.DataFrame([{"model": m["model"], **m["exposure"]} for m in models])


def prepare(study: studies.Study | str) -> None:
    """Write a laboratory study's units, models, exposure, benchmarks, scores and questions.

    Population ``main`` is scored here, from its weights; the others write the scores and the surprisal matrix
    (``surprisal.parquet``, nats per unit) that were measured when they were trained. A study whose corpus
    names the source ``quiz`` gets quiz text too.

    Raises
    ------
    DataError : a shipped file is missing or damaged, or the installed packages give other real text
    """
    study = studies.load(study) if isinstance(study, str) else study
    name = study.models.population
    plan = population.population(name)
    where = population.folder(name)
    known = population.manifest(name)
    for file, digest in known["files"].items():
        if not (where / file).exists() or provenance.sha256_file(where / file) != digest:
            raise DataError(
                f"{paths.label(where / file)} is missing or differs from its manifest; restore it from git."
            )
    inputs = [where / "manifest.json", paths.LAB / "facts.yml", paths.LAB / "tokenizer.json"]
    settings = {"population": name, "sources": list(study.corpus.sources)}

    def write(file: str, frame: pd.DataFrame, began: float) -> None:
        provenance.write_table(
            study.results / file,
            frame,
            inputs=inputs,
            parameters=settings,
            code=CODE,
            seconds=time.perf_counter() - began,
        )

    began = time.perf_counter()
    found = documents(name, quiz="quiz" in study.corpus.sources)
    if study.corpus.sources:
        unknown = sorted(set(study.corpus.sources) - {d.source for d in found})
        if unknown:
            sources = sorted({d.source for d in found})
            raise DataError(f"study '{study.name}': corpus has no source '{unknown[0]}'; known: {', '.join(sources)}.")
        if not plan.ships_weights:
            raise DataError(f"population '{name}' ships numbers for its whole corpus; leave corpus.sources empty.")
        found = [d for d in found if d.source in study.corpus.sources]
    units = text.units_table(found)
    write("units.parquet", units, began)
    write("models.csv", models_table(name), time.perf_counter())
    write("exposure.csv", exposure_table(name), time.perf_counter())

    began = time.perf_counter()
    items = questions(name)
    write("questions.parquet", items.drop(columns=["domain", "skill"]), began)
    began = time.perf_counter()
    if plan.ships_weights:
        scores = score_population(load_model, model_names(name), items)
    else:
        scores = pd.read_csv(where / "scores.csv")
        surprisal = pd.read_parquet(where / "surprisal.parquet").astype("float32")
        if len(surprisal) != len(units) or json.dumps(units_digest(units)) != json.dumps(known["units"]):
            raise DataError(f"{paths.label(where)}: the measured units differ from the corpus that this code makes.")
        write("surprisal.parquet", surprisal.set_axis(units.index), began)
    write("scores.csv", scores, began)
    write("benchmarks.csv", scoring.benchmarks_table(items, scores), began)


def units_digest(units: pd.DataFrame) -> dict[str, int | str]:
    """Return the number of units and the sha256 of their texts, for the manifest of measured numbers."""
    return {
        "count": len(units),
        "content": provenance.content_key(units["doc_id"].tolist(), units["text"].tolist()),
    }
