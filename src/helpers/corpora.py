"""Documents and their reference units: where text comes from, and the pieces in which surprisal is reported.

Every reader keeps the same rules, and :func:`load` reports how often each one applied:

* exact duplicates are removed (the first is kept);
* with `max_documents`, the documents whose hash of seed and text is smallest are kept: a uniform sample that
  depends neither on the order of files nor on how they are read, and needs memory for the sample only;
* bytes that are not UTF-8 and unpaired surrogates become U+FFFD; a byte-order mark is removed;
* documents without any visible character are left out;
* documents over `max_characters` are cut at white space; without it any length is kept (surprisal is measured
  in windows, so no document is too long);
* NUL, emoji, right-to-left and CJK characters are text like any other. Where a script writes no spaces, a
  whitespace piece is a whole clause: use units of kind ``bytes`` there.
"""

from __future__ import annotations

import ast
import hashlib
import heapq
import importlib.metadata
import inspect
import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from helpers import paths, provenance, studies
from helpers.errors import DataError, UnavailableError

COLUMNS = ["doc_id", "source", "text"]
MIN_DOCSTRING = 200  # characters; shorter docstrings of packages are one-liners without context
RULES = {
    "read": "documents read",
    "duplicate": "exact duplicates removed",
    "empty": "without visible characters, left out",
    "invalid": "with bytes that are not UTF-8, or unpaired surrogates, replaced by U+FFFD",
    "cut": "cut to the maximum length, at white space",
    "short": f"docstrings under {MIN_DOCSTRING} characters, left out",
    "tests": "modules of the package's own tests, left out",
    "broken": "modules that are not valid Python (test data of the package), left out",
    "not sampled": "not in the sample",
    "kept": "documents kept",
}
_SPLIT = re.compile(r"\S+")


def load(corpus: studies.Corpus, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the documents that a study's `corpus` names.

    ``sources`` by kind: ``files`` are paths or patterns relative to the project (``.jsonl`` and ``.parquet``
    hold one document a row in `text_field`, any other file is one document); ``packages`` are installed
    distributions, ``name:docstrings`` (the default) or ``name:source``; ``hub`` are data-set ids, with an
    optional configuration or file pattern after a colon, read as a stream at `revision`.

    Returns
    -------
    documents : one row each, `doc_id` (says file and row, or module and object), `source`, `text`
    report : `rule`, `documents`, how often each rule of this module applied

    Raises
    ------
    DataError
        A missing file, field or package, a broken row (file and row are named), or no document at all.
    UnavailableError
        A hub data set that cannot be reached.
    """
    readers = {"files": _files, "packages": _packages, "hub": _hub}
    if corpus.kind not in readers:
        raise DataError(f"corpus of kind '{corpus.kind}' has no documents to read here.")
    if not corpus.sources:
        raise DataError(f"corpus of kind '{corpus.kind}' names no sources.")
    counts: Counter = Counter()
    chosen: list[tuple[int, int, tuple[str, str, str]]] = []  # a heap: largest hash first
    seen: set[bytes] = set()
    for number, (doc_id, source, raw) in enumerate(readers[corpus.kind](corpus, counts)):
        text = _repaired(raw, counts)
        counts["read"] += 1
        if corpus.max_characters and len(text) > corpus.max_characters:
            text = _cut(text, corpus.max_characters)
            counts["cut"] += 1
        if not text.strip():
            counts["empty"] += 1
            continue
        digest = hashlib.blake2b(text.encode(), digest_size=16, key=str(seed).encode()).digest()
        if digest in seen:
            counts["duplicate"] += 1
            continue
        seen.add(digest)
        item = (-int.from_bytes(digest), -number, (doc_id, source, text))
        if not corpus.max_documents or len(chosen) < corpus.max_documents:
            heapq.heappush(chosen, item)
        else:
            heapq.heappushpop(chosen, item)
            counts["not sampled"] += 1
    if not chosen:
        raise DataError(f"the corpus ({', '.join(corpus.sources)}) has no document with visible characters.")
    counts["kept"] = len(chosen)
    rows = [row for _, _, row in sorted(chosen, key=lambda item: -item[1])]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    report = pd.DataFrame([(RULES[k], counts[k]) for k in RULES if counts[k]], columns=["rule", "documents"])
    return frame, report


def units(
    documents: pd.DataFrame, kind: Literal["piece", "bytes", "chunk", "document"] = "piece", size: int = 30
) -> pd.DataFrame:
    """Cut documents into reference units.

    ``piece``: whitespace-separated pieces (the paper's). ``bytes``: windows of at most `size` UTF-8 bytes that
    never cut a character and leave nothing out. ``chunk``: `size` pieces in a row. ``document``: one unit each.

    Returns units.parquet's table: index ``unit_id``; ``doc_id``, ``source``, ``start``, ``end`` (characters in
    the document), ``bytes`` (int64), ``text`` (exactly ``document[start:end]``).

    Raises DataError for an unknown kind, size < 1, or documents that share a ``doc_id``.

    >>> frame = pd.DataFrame([("d", "s", "two  péces")], columns=COLUMNS)
    >>> units(frame)[["start", "end", "bytes", "text"]].values.tolist()
    [[0, 3, 3, 'two'], [5, 10, 6, 'péces']]
    >>> units(frame, "bytes", 4)["text"].tolist()
    ['two ', ' pé', 'ces']
    """
    if kind not in ("piece", "bytes", "chunk", "document") or size < 1:
        raise DataError(f"units: kind '{kind}' with size {size}; kinds are piece, bytes, chunk, document; size >= 1.")
    twice = documents["doc_id"][documents["doc_id"].duplicated()]
    if len(twice):
        raise DataError(f"units: the doc_id '{twice.iloc[0]}' is given to {len(twice) + 1} documents or more.")
    found = [spans(text, kind, size) for text in documents["text"]]
    counts = [len(s) for s in found]
    edges = np.concatenate([*found, np.zeros((0, 2), dtype=np.int64)])
    texts = [t[a:b] for t, s in zip(documents["text"], found) for a, b in s.tolist()]
    frame = pd.DataFrame(
        {
            "doc_id": np.repeat(documents["doc_id"].to_numpy(), counts),
            "source": np.repeat(documents["source"].to_numpy(), counts),
            "start": edges[:, 0],
            "end": edges[:, 1],
            "bytes": np.array([len(t.encode()) for t in texts], dtype=np.int64),
            "text": texts,
        }
    )
    frame.index.name = "unit_id"
    return frame


def spans(text: str, kind: str = "piece", size: int = 30) -> np.ndarray:
    """Return the character spans of one text's units, (n, 2) int64; see :func:`units`.

    >>> spans("a bc").tolist()
    [[0, 1], [2, 4]]
    """
    if kind == "document":
        return np.array([[0, len(text)]], dtype=np.int64) if text else np.zeros((0, 2), dtype=np.int64)
    if kind == "bytes":
        return _byte_windows(text, size)
    pieces = np.array([m.span() for m in _SPLIT.finditer(text)], dtype=np.int64).reshape(-1, 2)
    if kind == "piece" or not len(pieces):
        return pieces
    first = np.arange(0, len(pieces), size)
    return np.stack([pieces[first, 0], pieces[np.minimum(first + size, len(pieces)) - 1, 1]], axis=1)


def prepare(study: studies.Study) -> None:
    """Write ``documents.parquet``, ``units.parquet`` and ``corpus-report.csv`` of a study with its own corpus."""
    began = time.perf_counter()
    documents, report = load(study.corpus, study.seed)
    settings = {"corpus": study.corpus.model_dump(mode="json"), "seed": study.seed, **_versions(study.corpus)}
    files = _listed(study.corpus) if study.corpus.kind == "files" else []
    inputs = [p for p in files if paths.locate(paths.label(p)) == p.resolve()]
    outside = [p for p in files if p not in inputs]  # no name without a machine's folder: known by content only
    settings |= {"files": {p.name: provenance.sha256_file(p) for p in outside}} if outside else {}
    options = {"inputs": inputs, "parameters": settings, "code": [Path(__file__)]}
    write = provenance.write_table
    write(study.results / "documents.parquet", documents, seconds=time.perf_counter() - began, **options)
    table = units(documents, study.corpus.unit, study.corpus.unit_size)
    write(study.results / "units.parquet", table, seconds=time.perf_counter() - began, **options)
    write(study.results / "corpus-report.csv", report, **options)


def documents(study: studies.Study) -> pd.DataFrame:
    """Return the documents of a prepared study: `doc_id`, `source`, `text`.

    Read from ``documents.parquet``; the laboratory, whose documents are pieces joined by single spaces, is
    put together from ``units.parquet``. Raises DataError when units do not tell the text between them.
    """
    path = study.results / "documents.parquet"
    if path.exists():
        return provenance.read_table(path)
    return from_units(provenance.read_table(study.results / "units.parquet"))


def from_units(table: pd.DataFrame) -> pd.DataFrame:
    """Put documents together from units that are separated by exactly one space.

    >>> frame = pd.DataFrame([("d", "s", "two words")], columns=COLUMNS)
    >>> from_units(units(frame)).equals(frame)
    True
    """
    if "text" not in table:
        raise DataError("these units have no text (published losses); nothing can be extracted from them.")
    gap = table["start"] - table.groupby("doc_id", sort=False)["end"].shift(fill_value=-1)
    if (gap != 1).any():
        row = table.index[(gap != 1).to_numpy()][0]
        raise DataError(f"units.parquet, unit {row}: the text before it is unknown; documents.parquet is needed.")
    grouped = table.groupby("doc_id", sort=False)
    return pd.DataFrame({"source": grouped["source"].first(), "text": grouped["text"].agg(" ".join)}).reset_index()[
        COLUMNS
    ]


# --- readers ------------------------------------------------------------------------------------------------


def _listed(corpus: studies.Corpus) -> list[Path]:
    found: list[Path] = []
    for pattern in corpus.sources:
        path = Path(pattern)
        if path.is_absolute():
            matches = sorted(path.parent.glob(path.name))
        else:
            matches = sorted(paths.ROOT.glob(pattern))
        matches = [p for p in matches if p.is_file()]
        if not matches:
            raise DataError(f"corpus: no file matches '{pattern}' (relative to the project's root).")
        found += [p for p in matches if p not in found]
    return found


def _files(corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str | bytes]]:
    for path in _listed(corpus):
        name = paths.label(path)
        if path.suffix == ".jsonl":
            with open(path, "rb") as stream:
                for row, line in enumerate(stream, 1):
                    if line.strip():
                        yield (
                            f"{name}:{row}",
                            name,
                            _json_text(line, corpus.text_field, f"{name}, row {row}", counts),
                        )
        elif path.suffix == ".parquet":
            table = pq.ParquetFile(path)
            if corpus.text_field not in table.schema_arrow.names:
                known = ", ".join(table.schema_arrow.names[:12])
                raise DataError(f"{name}: no column '{corpus.text_field}'; it has {known}.")
            row = 0
            for batch in table.iter_batches(batch_size=1024, columns=[corpus.text_field]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    if not isinstance(value, str):
                        found = type(value).__name__
                        raise DataError(f"{name}, row {row}: '{corpus.text_field}' is {found}, expected text.")
                    yield f"{name}:{row}", name, value
        else:
            yield name, name, path.read_bytes()


def _json_text(line: bytes, field: str, where: str, counts: Counter) -> str:
    decoded = line.decode("utf-8", errors="replace")
    try:
        item = json.loads(decoded)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error}).") from None
    if not isinstance(item, dict) or not isinstance(item.get(field), str):
        known = ", ".join(map(str, list(item)[:12])) if isinstance(item, dict) else type(item).__name__
        raise DataError(f"{where}: no text in field '{field}'; found {known}.")
    if "\ufffd" in decoded and "\ufffd".encode() not in line:
        counts["invalid"] += 1
    return item[field]


def _packages(corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str | bytes]]:
    for entry in corpus.sources:
        package, _, part = entry.partition(":")
        part = part or "docstrings"
        if part not in ("docstrings", "source"):
            raise DataError(f"corpus: '{entry}': after the colon stands docstrings or source, not '{part}'.")
        try:
            listed = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            raise DataError(f"corpus: the package '{package}' is not installed.") from None
        modules = sorted((f for f in listed if f.suffix == ".py" and ".." not in f.parts), key=str)
        for module in modules:
            path = Path(module.locate())
            if not path.is_file():
                continue  # listed in the record but removed after installation: nothing to read
            if part == "docstrings" and {"tests", "testing"} & set(module.parts):
                counts["tests"] += 1
                continue
            if part == "source":
                yield f"{package}:{module.as_posix()}", entry, path.read_bytes()
                continue
            for name, text in _docstrings(path, counts):
                if len(text) < MIN_DOCSTRING:
                    counts["short"] += 1
                else:
                    yield f"{package}:{module.as_posix()}:{name}", entry, text


def _docstrings(path: Path, counts: Counter) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of the package's own source
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        counts["broken"] += 1
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield f"{getattr(node, 'name', '')}@{getattr(node, 'lineno', 1)}", inspect.cleandoc(text)


def _hub(corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str]]:
    import datasets as hub  # two seconds to import: only where it is needed

    for entry in corpus.sources:
        name, _, part = entry.partition(":")
        options = {"revision": corpus.revision, "split": corpus.split, "streaming": True}
        if part:
            options["data_files" if re.search(r"[*./]", part) else "name"] = part
        try:
            stream = hub.load_dataset(name, **options)
            for row, item in enumerate(stream, 1):
                if not isinstance(item.get(corpus.text_field), str):
                    known = ", ".join(list(item)[:12])
                    raise DataError(f"{entry}, row {row}: no text in field '{corpus.text_field}'; found {known}.")
                yield f"{entry}:{corpus.split}:{row}", entry, item[corpus.text_field]
        except DataError:
            raise
        except Exception as error:
            at = f"@{corpus.revision}" if corpus.revision else ""
            raise UnavailableError(
                f"the hub data set {name}{at} cannot be read ({type(error).__name__}: {error}). Check id, revision, "
                "split and network, or download it and use kind 'files'."
            ) from error


# --- rules --------------------------------------------------------------------------------------------------


def _repaired(raw: str | bytes, counts: Counter) -> str:
    if isinstance(raw, bytes):
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            counts["invalid"] += 1
            text = raw.decode("utf-8-sig", errors="replace")
        return text.replace("\r\n", "\n")
    try:
        raw.encode()
        return raw
    except UnicodeEncodeError:
        counts["invalid"] += 1
        return raw.encode("utf-16-le", "surrogatepass").decode("utf-16-le", errors="replace")


def _cut(text: str, size: int) -> str:
    if text[size].isspace():
        return text[:size]
    whole = max((m.end() for m in re.finditer(r"\S+(?=\s)", text[:size])), default=0)
    return text[:whole] if whole else text[:size]  # one piece longer than the limit is cut inside


def _byte_windows(text: str, size: int) -> np.ndarray:
    at = [0]
    used = 0
    for position, char in enumerate(text):
        width = len(char.encode())
        if used and used + width > size:
            at.append(position)
            used = 0
        used += width
    edges = np.array([*at, len(text)], dtype=np.int64)
    return np.stack([edges[:-1], edges[1:]], axis=1) if text else np.zeros((0, 2), dtype=np.int64)


def _versions(corpus: studies.Corpus) -> dict[str, dict[str, str]]:
    if corpus.kind != "packages":
        return {}
    names = {entry.partition(":")[0] for entry in corpus.sources}
    return {"packages": {name: importlib.metadata.version(name) for name in sorted(names)}}
