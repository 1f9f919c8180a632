"""From a prepared study to ``surprisal.parquet``: shards that survive any kill, on one machine or a cluster.

One shard is one model on one block of documents: ``surprisal/<model>/<block>.parquet`` with its provenance,
written once and atomically. :func:`extract` keeps every finished shard whose checksum, model, text, settings
and code still agree, computes the others wherever :mod:`helpers.cluster` finds workers, and assembles the
matrix block by block, so that memory holds one block of all models and never the whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from helpers import alignment, cluster, corpora, paths, provenance, studies
from helpers.errors import DataError, ModelError, StudyError, UnavailableError

CODE = tuple(paths.SOURCE / f"{name}.py" for name in ("alignment", "perplexity", "extraction"))
PRELOAD = ("helpers.models", "transformers.modeling_utils")  # six seconds to import, once for all workers
_loaded: dict[str, Any] = {}  # the last model of this process: a worker loads each model once
_tokenized: dict[tuple, list] = {}  # models of one family share their tokenizer's work


@dataclasses.dataclass(frozen=True)
class Block:
    """Some documents of the corpus: names, texts and character spans of their units; `digest` of all that."""

    number: int
    names: tuple[str, ...]
    texts: tuple[str, ...]
    spans: tuple[np.ndarray, ...]
    digest: str

    @property
    def size(self) -> int:
        return sum(map(len, self.spans))


def entries(study: studies.Study) -> list[studies.ModelEntry]:
    """Return the models to extract, in the order of the matrix's columns.

    Raises StudyError for a study whose surprisal was measured elsewhere (published tables, or a laboratory
    population that ships its numbers).
    """
    if study.models.kind == "list":
        told = {"dtype": study.extraction.dtype}  # but an entry may say otherwise for itself
        return [e if "dtype" in e.model_fields_set else e.model_copy(update=told) for e in study.models.entries]
    if study.models.kind == "lab":
        from helpers.lab import population

        if population.population(study.models.population).ships_weights:
            names = population.model_names(study.models.population)
            return [studies.ModelEntry(name=n, source="lab", id=n, dtype=study.extraction.dtype) for n in names]
    raise StudyError(f"study '{study.name}': its surprisal was measured elsewhere; there is nothing to extract.")


def is_measured_here(study: studies.Study) -> bool:
    """Return whether the study's surprisal is extracted by this project rather than read from numbers.

    >>> is_measured_here(studies.load("lab"))
    True
    """
    try:
        return bool(entries(study))
    except StudyError:
        return False


def blocks(study: studies.Study) -> list[Block]:
    """Return the corpus of a prepared study in blocks of ``extraction.shard_documents`` documents.

    Raises DataError when ``units.parquet`` and the documents do not belong together.
    """
    documents = corpora.documents(study)
    units = provenance.read_table(study.results / "units.parquet")
    spans = units[["start", "end"]].to_numpy(dtype=np.int64)
    owner = pd.Index(documents["doc_id"]).get_indexer(units["doc_id"])
    if (owner < 0).any() or (np.diff(owner) < 0).any():
        raise DataError(f"study '{study.name}': units.parquet is not in the order of the documents; prepare again.")
    edges = np.searchsorted(owner, np.arange(len(documents) + 1))
    texts, names = documents["text"].tolist(), documents["doc_id"].tolist()
    result = []
    for number, low in enumerate(range(0, len(documents), study.extraction.shard_documents)):
        rows = range(low, min(low + study.extraction.shard_documents, len(documents)))
        own = tuple(spans[edges[r] : edges[r + 1]] for r in rows)
        for r, s in zip(rows, own):
            if len(s) and s.max() > len(texts[r]):
                raise DataError(f"units.parquet: a unit of document '{names[r]}' ends after the document's end.")
        digest = provenance.content_key([(names[r], texts[r]) for r in rows], [s.tolist() for s in own])
        result.append(Block(number, tuple(names[r] for r in rows), tuple(texts[r] for r in rows), own, digest))
    return result


def measure(
    entry: studies.ModelEntry,
    mark: str,
    settings: studies.Extraction,
    block: Block,
    threads: int | None = None,
) -> tuple[np.ndarray, dict[str, Any], float]:
    """Return (nats per unit of the block as float32, facts, seconds). Runs in a worker.

    `facts` are `tokens`, the number scored, and `products`, how factors were multiplied: ``exact``, or what
    ``precision: fast`` means on this worker. The model is loaded once per process and kept until another one (or the
    same one with another fingerprint `mark`) is asked for.

    Raises UnavailableError where ``precision: fast`` would be no faster, so that nobody takes exact numbers for fast.
    """
    import torch

    from helpers import models, perplexity

    if threads:
        torch.set_num_threads(threads)
    products = settings.precision
    if products == "fast":
        products = perplexity.fast_products("cuda" if torch.cuda.is_available() else "cpu")
        if products == "float32":
            raise UnavailableError(
                "extraction.precision is 'fast', but this processor multiplies neither bfloat16 (AVX-512 or AMX) nor "
                "TF32: it would gain nothing. Leave the key out, or run where such instructions are."
            )
    key = entry.model_dump_json() + mark
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = models.load(entry)
    began = time.perf_counter()
    values, tokens = _score(_loaded[key], settings, block)
    return values, {"tokens": tokens, "products": products}, time.perf_counter() - began


def _score(loaded: Any, settings: studies.Extraction, block: Block) -> tuple[np.ndarray, int]:
    from helpers import perplexity

    if settings.mode == "paper":
        rows, tokens = [], 0
        for name, text, spans in zip(block.names, block.texts, block.spans):
            found = perplexity.paper_surprisal(
                loaded.model,
                loaded.tokenizer,
                text,
                spans,
                context_pieces=settings.context_pieces,
                batch_tokens=settings.batch_tokens,
                name=f"document '{name}'",
                precision=settings.precision,
            )
            rows.append(found["last"])
            tokens += int(found["tokens"].sum())
        return np.concatenate(rows).astype(np.float32), tokens
    key = (id(loaded.tokenizer), block.digest)
    if key not in _tokenized:
        if len(_tokenized) > 64:
            _tokenized.clear()
        ids, offsets = alignment.tokenize(loaded.tokenizer, list(block.texts))
        exact = [alignment.token_byte_spans(loaded.tokenizer, *one) for one in zip(block.texts, ids, offsets)]
        wanted = [alignment.byte_spans(t, s) for t, s in zip(block.texts, block.spans)]
        _tokenized[key] = [
            loaded.tokenizer,
            ids,
            offsets,
            exact,
            wanted,
        ]  # holds the tokenizer: ids stay unique
    _, ids, offsets, exact, wanted = _tokenized[key]
    scored = perplexity.surprisal_of_ids(
        loaded.model,
        ids,
        loaded.bos_id,
        batch_tokens=settings.batch_tokens,
        window=settings.window,
        stride=settings.stride,
        names=[f"document '{name}'" for name in block.names],
        offsets=offsets,
        precision=settings.precision,
    )
    rows = [alignment.attribute(e, v, w) for e, v, w in zip(exact, scored, wanted) if len(w)]
    return np.concatenate(rows or [np.zeros(0)]).astype(np.float32), sum(map(len, ids))


def shard_path(study: studies.Study, model: str, block: int) -> Path:
    """Return the path of one shard."""
    return study.results / "surprisal" / re.sub(r"[^A-Za-z0-9._-]", "-", model) / f"{block:05d}.parquet"


def extract(study: studies.Study, *, workers: int | None = None, scheduler: str | None = None) -> pd.DataFrame:
    """Measure the surprisal of every unit under every model and write ``surprisal.parquet``.

    Finished shards are kept when their checksum and everything they depend on agree; damaged, outdated and
    missing ones are computed. After a kill at any moment, calling it again gives the same matrix, bit for bit
    (for the same number of threads a worker). Exact and fast shards (``extraction.precision``) never enter one matrix, nor
    do fast ones of different kinds of processors.

    Returns
    -------
    One row a model: `model`, `tokens`, `seconds` (of computing, over all runs), `tokens_per_second`,
    `shards`, `kept` (from earlier runs), `computed`, and `redone`, what was wrong with shards that were
    computed again.

    Raises ModelError (model and document named), DataError, StudyError, StaleArtifactError, UnavailableError (also while
    another process extracts the study); what was finished before stays.
    """
    with _alone(study):
        return _extract(study, workers, scheduler)


@contextlib.contextmanager
def _alone(study: studies.Study) -> Iterator[None]:
    """Hold a study's shards for this process; the system frees them when it ends, in whatever way."""
    path = study.results.with_name(f".{study.name}.extraction.lock")  # beside the artifacts, not among them
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UnavailableError(
                f"study '{study.name}' is being extracted by {file.read().strip() or 'another process'}; wait until that ends, "
                "or end it: what it finished stays."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {datetime.datetime.now():%H:%M:%S}")
        file.flush()
        yield


def _extract(study: studies.Study, workers: int | None, scheduler: str | None) -> pd.DataFrame:
    from helpers import models

    wanted = entries(study)
    slugs = [shard_path(study, e.name, 0).parent.name for e in wanted]
    if len(set(slugs)) < len(slugs):
        raise StudyError(f"study '{study.name}': two model names differ only in characters not used in file names.")
    pieces = blocks(study)
    stamp = _stamp(study)
    marks = [models.fingerprint(e) for e in wanted]
    plan = {
        (m, b.number): stamp
        | {"model": e.name, "fingerprint": marks[m], "block": b.number, "text": b.digest}
        | ({"dtype": e.dtype} if e.dtype != study.extraction.dtype else {})
        for m, e in enumerate(wanted)
        for b in pieces
    }
    redone: dict[int, list[str]] = {m: [] for m in range(len(wanted))}
    todo = []
    for (m, b), parameters in plan.items():
        path = shard_path(study, wanted[m].name, b)
        reason = provenance.stale_reason(path, parameters)
        if reason:
            todo.append((m, b))
            if path.exists():
                redone[m].append(reason)
    halves = [study.results.glob(".surprisal.parquet*.part"), (study.results / "surprisal").rglob(".*.part")]
    for left in itertools.chain(*halves):  # what a killed run was writing
        left.unlink(missing_ok=True)
    with cluster.pool(workers or study.extraction.workers, scheduler or study.extraction.scheduler) as pool:
        shared = "OMP_NUM_THREADS" not in os.environ and isinstance(pool, cluster.Local)
        threads = max(1, cluster.cores() // pool.size) if shared else None
        tasks = [(wanted[m], marks[m], study.extraction, pieces[b], threads) for m, b in todo]
        running = pool.run(measure, tasks, preload=PRELOAD)
        for number, (values, facts, seconds) in tqdm(running, total=len(tasks), desc="shards", disable=None):
            m, b = todo[number]
            if len(values) != pieces[b].size:
                raise ModelError(f"{wanted[m].name}: {len(values)} values for {pieces[b].size} units in block {b}.")
            _write_shard(shard_path(study, wanted[m].name, b), values, facts, plan[m, b], seconds)
    _assemble(study, wanted, pieces, stamp)
    return _report(study, wanted, pieces, todo, redone)


def read_matrix(study: studies.Study, form: str = "surprisal") -> pd.DataFrame:
    """Return ``surprisal.parquet`` of a study in a form of ``helpers.perplexity.in_form``, float64.

    With ``mode: paper`` in the study, ``form="log-probability"`` is the matrix that the paper's released code stores:
    the last token of each piece given up to 30 pieces. Raises StaleArtifactError and DataError.
    """
    from helpers import perplexity

    table = provenance.read_table(study.results / "surprisal.parquet")
    return pd.DataFrame(perplexity.in_form(table, form), index=table.index, columns=table.columns)


def surprisal_blocks(study: studies.Study) -> Iterator[pd.DataFrame]:
    """Yield ``surprisal.parquet`` in blocks of rows, for studies whose matrix does not fit in memory.

    Feed the blocks to ``helpers.screening.screen_stream``. Raises StaleArtifactError for a damaged matrix.
    """
    path = study.results / "surprisal.parquet"
    reason = provenance.stale_reason(path)
    if reason:
        raise DataError(f"{reason}; run the extraction again.")
    stored = pq.ParquetFile(path)
    for group in range(stored.num_row_groups):
        yield stored.read_row_group(group).to_pandas()


def _stamp(study: studies.Study) -> dict[str, Any]:
    settings = study.extraction.model_dump(mode="json")
    for key in ("workers", "scheduler", "shard_documents"):
        del settings[key]
    if settings["mode"] == "stream":
        del settings["context_pieces"]
    else:
        del settings["window"], settings["stride"]
    code = {path.name: provenance.sha256_file(path) for path in CODE}
    return {"extraction": settings, "engine": provenance.content_key(code, provenance.versions())}


def _write_shard(path: Path, values: np.ndarray, facts: dict, parameters: dict, seconds: float) -> None:
    known = {key: str(value) for key, value in facts.items()}
    table = pa.table({"nats": pa.array(values, pa.float32())}, metadata=known)
    provenance.sidecar(path).unlink(missing_ok=True)
    provenance.write_atomic(path, lambda t: pq.write_table(table, t, compression="zstd"))
    provenance.record(path, parameters=parameters, seconds=seconds)


def _assemble(study: studies.Study, wanted: list[studies.ModelEntry], pieces: list[Block], stamp: dict) -> None:
    path = study.results / "surprisal.parquet"
    units = study.results / "units.parquet"
    index = pq.read_table(units, columns=["unit_id"]).column(0).to_numpy()
    names = [e.name for e in wanted]
    shards = [shard_path(study, name, b.number) for name in names for b in pieces]
    products = sorted({pq.read_schema(s).metadata[b"products"].decode() for s in shards})
    if len(products) > 1:
        raise DataError(
            f"study '{study.name}': some shards were multiplied in {products[0]}, others in {products[1]}; one matrix needs "
            f"workers of one kind. Delete {paths.label(study.results / 'surprisal')} and extract again."
        )

    def write(temporary: Path) -> None:
        writer, low = None, 0
        try:
            for block in pieces:
                columns = {e.name: pq.read_table(shard_path(study, e.name, block.number))["nats"] for e in wanted}
                frame = pd.DataFrame({n: c.to_numpy() for n, c in columns.items()}, columns=names)
                frame.index = pd.Index(index[low : low + block.size], name="unit_id")
                low += block.size
                table = pa.Table.from_pandas(frame, preserve_index=True)
                writer = writer or pq.ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
        finally:
            if writer:
                writer.close()

    provenance.sidecar(path).unlink(missing_ok=True)
    provenance.write_atomic(path, write)
    shown = {
        "models": {e.name: e.id for e in wanted},
        "unit": "nats per reference unit",
        "products": products[0],
    }
    shown |= stamp
    provenance.record(path, inputs=[units], parameters=shown, code=CODE)


def _report(
    study: studies.Study, wanted: list, pieces: list[Block], todo: list[tuple[int, int]], redone: dict
) -> pd.DataFrame:
    rows = []
    for m, entry in enumerate(wanted):
        files = [shard_path(study, entry.name, b.number) for b in pieces]
        tokens = sum(int(pq.read_schema(f).metadata[b"tokens"]) for f in files)
        sides = [json.loads(provenance.sidecar(f).read_text(encoding="utf-8")) for f in files]
        seconds = sum(s["seconds"] for s in sides)
        computed = sum(1 for k, _ in todo if k == m)
        rows.append(
            {
                "model": entry.name,
                "tokens": tokens,
                "seconds": seconds,
                "tokens_per_second": tokens / seconds if seconds else np.nan,
                "shards": len(files),
                "kept": len(files) - computed,
                "computed": computed,
                "redone": "; ".join(redone[m]),
            }
        )
    return pd.DataFrame(rows)
