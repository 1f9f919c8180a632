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

import array
import ast
import codecs
import hashlib
import heapq
import importlib.metadata
import inspect
import itertools
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from helpers import limits, paths, provenance, studies
from helpers.errors import DataError, UnavailableError

COLUMNS = ["doc_id", "source", "text"]
MAX_DOCUMENT = 64 * 2**20  # bytes of one document or record: its units take some fifteen times as much
MAX_CHARACTERS = 512 * 2**20  # of all documents kept
MAX_FILES = 100_000
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
_BLOCK = 2**20  # characters that are looked at together
_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])  # no white space lies beyond


def load(corpus: studies.Corpus, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the documents that a study's `corpus` names.

    ``sources`` by kind: ``files`` are paths or patterns, absolute or relative to the project (JSON lines and lists,
    CSV, TSV and Parquet, packed or not, hold one document a row in `text_field`, any other text is one document; a
    file that is not text is refused where it is named, left out where a pattern finds it); ``packages`` are installed
    distributions, ``name:docstrings`` (the default) or ``name:source``; ``hub`` are data-set ids, with an
    optional configuration or file pattern after a colon, read as a stream at `revision`.

    Returns
    -------
    documents : one row each, `doc_id` (says file and row, or module and object), `source`, `text`
    report : `rule`, `documents`, how often each rule of this module applied; of files, how many documents each
        format gave, and how many files were left out for what reason

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
    held = 0
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
        held += len(text)
        if not corpus.max_documents or len(chosen) < corpus.max_documents:
            heapq.heappush(chosen, item)
        else:
            held -= len(heapq.heappushpop(chosen, item)[2][2])
            counts["not sampled"] += 1
        if held > MAX_CHARACTERS:
            raise DataError(
                f"the corpus keeps more than {MAX_CHARACTERS:,} characters; set corpus.max_documents (a sample) or "
                "corpus.max_characters (a document's length)."
            )
    if not chosen:
        raise DataError(f"the corpus ({', '.join(corpus.sources)}) has no document with visible characters.")
    counts["kept"] = len(chosen)
    rows = [row for _, _, row in sorted(chosen, key=lambda item: -item[1])]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    ruled = [(RULES[k], counts[k]) for k in RULES if counts[k]]
    files = [(k.removeprefix("file: "), n) for k, n in counts.items() if k.startswith("file: ")]
    report = pd.DataFrame(ruled + files, columns=["rule", "documents"])
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
    parts = []
    for text in documents["text"]:
        edges = spans(text, kind, size)
        encoded, at = _byte_edges(text, edges)
        parts.append((edges, (at[:, 1] - at[:, 0]), _slices(encoded, at)))
    counts = [len(e) for e, _, _ in parts]
    owner = pa.array(np.repeat(np.arange(len(parts), dtype=np.int32), counts))
    columns = [pa.array(documents[c].astype(str), type=pa.large_string()).take(owner) for c in ("doc_id", "source")]
    edges = np.concatenate([*(e for e, _, _ in parts), np.zeros((0, 2), dtype=np.int64)])
    frame = pd.DataFrame(
        {
            "doc_id": pd.array(columns[0], dtype="str"),
            "source": pd.array(columns[1], dtype="str"),
            "start": edges[:, 0],
            "end": edges[:, 1],
            "bytes": np.concatenate([*(n for _, n, _ in parts), np.zeros(0, dtype=np.int64)]),
            "text": pd.array(pa.chunked_array([t for _, _, t in parts], type=pa.large_string()), dtype="str"),
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
    pieces = _pieces(text)
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
    """Return the plain files that the sources name, each once; DataError names a source that names none, and why."""
    return [path for path, _ in _found(corpus, Counter())]


def _found(corpus: studies.Corpus, counts: Counter) -> list[tuple[Path, bool]]:
    """Return (file, whether it was named rather than found by a pattern); what is no plain file is counted."""
    found: dict[Path, bool] = {}
    for pattern in corpus.sources:
        named = not re.search(r"[*?\[]", pattern)
        matches = [paths.ROOT / pattern] if named and pattern.strip() else _matches(pattern)
        plain = []
        for path in matches:
            why = limits.refusal(path)
            if why and (named or len(matches) == 1):
                what = "no file matches" if why.startswith("no such file") else "it is"
                where = "" if Path(pattern).is_absolute() else " (relative to the project's root)"
                told = f"{what} '{limits.name(pattern)}'" if what != "it is" else f"'{limits.name(pattern)}' is {why}"
                raise DataError(f"corpus: {told}{where}.")
            if why:
                counts[f"file: left out: {why.partition(';')[0]} (files)"] += 1
            else:
                plain.append(path)
        if not plain:
            raise DataError(f"corpus: no file matches '{limits.name(pattern)}'{_nearest_folder(pattern)}.")
        for path in plain:
            found[path] = found.get(path, False) or named
        if len(found) > MAX_FILES:
            raise DataError(f"corpus: more than {MAX_FILES:,} files match '{pattern}'; name fewer, or join them.")
    return list(found.items())


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern)
    base, rest = (Path(path.anchor), path.parts[1:]) if path.is_absolute() else (paths.ROOT, path.parts)
    try:
        while len(rest) > 1 and not re.search(r"[*?\[]", rest[0]):
            base, rest = base / rest[0], rest[1:]
        return sorted(itertools.islice(base.glob("/".join(rest)), MAX_FILES + 1))
    except (ValueError, OSError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"corpus: '{limits.name(pattern)}' is no pattern of files ({error}); write folder/*.txt."
        ) from None


def _nearest_folder(pattern: str) -> str:
    """Return which folder of a pattern exists, for the message."""
    if not Path(pattern).is_absolute():
        return " (relative to the project's root)"
    parts = list(itertools.takewhile(lambda part: not re.search(r"[*?\[]", part), Path(pattern).parts))
    folder = Path(*parts)
    return "" if folder.is_dir() else f" (there is no folder '{folder.name}')"


def _files(corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str | bytes]]:
    listed = _found(corpus, counts)
    refused = ""
    for path, named in listed:
        shown = limits.name(path)
        kind, why = _format(path, corpus, shown)
        if why:
            if named or len(listed) == 1:
                raise DataError(f"{shown}: not text: {why}.")
            refused = refused or f"{shown}: {why}"
            counts[f"file: left out: {re.sub(r'[0-9]+ % of it', 'most of it', why)} (files)"] += 1
            continue
        for doc in _READERS[kind](path, shown, corpus, counts):
            counts[f"file: read as {kind} (documents)"] += 1
            yield doc
    if refused and not any(k.startswith("file: read as") for k in counts):
        raise DataError(f"corpus: no file is text; the first is {refused}.")


def _format(path: Path, corpus: studies.Corpus, shown: str) -> tuple[str, str | None]:
    """Return how a file is read and, where it is not text, why not. The first bytes count, then the suffix."""
    with limits.opened(path) as stream:
        head = limits.read(stream, shown, 2**16)
    suffixes = [x.lower() for x in path.suffixes[-2:]]
    if head.startswith(b"PAR1") or ".parquet" in suffixes:
        return "Parquet", None
    why = limits.not_text(head)
    if why:
        return "", why
    if any(x in suffixes for x in (".csv", ".tsv")):
        return "CSV" if ".csv" in suffixes else "TSV", None
    start = head.decode(limits.encoding(head), errors="replace").lstrip()
    if any(x in suffixes for x in (".jsonl", ".ndjson", ".json", ".jsonlines")):
        whole = ".json" in suffixes and (start[:1] == "[" or not _is_record(start.split("\n", 1)[0]))
        return "JSON" if whole and start else "JSON lines", None
    first = start.split("\n", 1)[0]
    return ("JSON lines" if _is_record(first, corpus.text_field) else "plain text"), None


def _is_record(line: str, field: str | None = None) -> bool:
    try:
        item = limits.parse_json(line) if line.startswith("{") else None
    except DataError:
        return False
    return isinstance(item, dict) and (field is None or isinstance(item.get(field), str))


def _plain_text(path: Path, shown: str, corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, Any]]:
    most = MAX_DOCUMENT if not corpus.max_characters else min(MAX_DOCUMENT, 4 * corpus.max_characters + 2**10)
    with limits.opened(path) as stream:
        raw = limits.read(stream, shown, most + 1)
    if len(raw) > MAX_DOCUMENT and not corpus.max_characters:
        raise _too_long(shown)
    code = limits.encoding(raw)
    if code != "utf-8-sig":
        decoder = codecs.getincrementaldecoder(code)
        try:  # a document that is cut may end within a character: final is False
            text = decoder().decode(raw[:most], final=len(raw) <= most)
        except UnicodeDecodeError:
            counts["invalid"] += 1
            text = decoder("replace").decode(raw[:most], final=len(raw) <= most)
        yield shown, shown, text.replace("\r\n", "\n")
        return
    yield shown, shown, raw if len(raw) <= most else raw[:most].decode("utf-8-sig", errors="ignore").encode()


def _too_long(where: str) -> DataError:
    told = f"a document of more than {limits.mebibytes(MAX_DOCUMENT)}"
    return DataError(f"{where}: {told}; split it, or (plain text) set corpus.max_characters to read its beginning.")


def _json_lines(path: Path, shown: str, corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str]]:
    with limits.opened(path) as stream:
        head = limits.read(stream, shown, 4)
    if limits.encoding(head) != "utf-8-sig":
        text = limits.decode(limits.read_bytes(path, MAX_DOCUMENT), shown)
        numbered = enumerate((line.encode() for line in text.split("\n")), 1)
        yield from _json_rows(numbered, shown, corpus, counts)
        return
    with limits.opened(path) as stream:
        yield from _json_rows(limits.lines(stream, shown, MAX_DOCUMENT), shown, corpus, counts)


def _json_rows(numbered: Any, shown: str, corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str]]:
    for row, line in numbered:
        line = line.removeprefix(b"\xef\xbb\xbf") if row == 1 else line
        if line.strip():
            decoded = line.decode("utf-8", errors="replace")
            try:
                item = limits.parse_json(decoded)
            except DataError as error:
                raise DataError(f"{shown}, row {row}: {error}.") from None
            if "\ufffd" in decoded and "\ufffd".encode() not in line:
                counts["invalid"] += 1
            yield f"{shown}:{row}", shown, _text_of(item, corpus.text_field, f"{shown}, row {row}")


def _json(path: Path, shown: str, corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str]]:
    try:
        content = limits.parse_json(limits.decode(limits.read_bytes(path, MAX_DOCUMENT), shown))
    except DataError as error:
        raise DataError(f"{shown}: {str(error).removeprefix(shown + ': ').rstrip('.')}.") from None
    for row, item in enumerate(content if isinstance(content, list) else [content], 1):
        text = item if isinstance(item, str) else _text_of(item, corpus.text_field, f"{shown}, record {row}")
        yield f"{shown}:{row}", shown, text


def _text_of(item: Any, field: str, where: str) -> str:
    if not isinstance(item, dict) or not isinstance(item.get(field), str):
        known = ", ".join(str(k)[:40] for k in list(item)[:12]) if isinstance(item, dict) else type(item).__name__
        raise DataError(f"{where}: no text in field '{field}'; found {known}.")
    return item[field]


def _table(path: Path, shown: str, corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str]]:
    suffixes = [x.lower() for x in path.suffixes[-2:]]
    frame = limits.read_csv(
        path, columns=(corpus.text_field,), dtype=str, sep="\t" if ".tsv" in suffixes else ",", most=4 * MAX_DOCUMENT
    )
    for row, text in enumerate(frame[corpus.text_field], 2):
        yield f"{shown}:{row}", shown, text


def _parquet(path: Path, shown: str, corpus: studies.Corpus, counts: Counter) -> Iterator[tuple[str, str, str]]:
    row = 0
    for batch in limits.parquet_batches(path, shown, [corpus.text_field]):
        try:
            values = batch.column(0).to_pylist()
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"{shown}: a damaged Parquet file ({str(error)[:80]}); save it again.") from None
        for value in values:
            row += 1
            if not isinstance(value, str):
                found = type(value).__name__
                raise DataError(f"{shown}, row {row}: '{corpus.text_field}' is {found}, expected text.")
            if len(value) > MAX_DOCUMENT:
                raise _too_long(f"{shown}, row {row}")
            yield f"{shown}:{row}", shown, value


_READERS = {
    "plain text": _plain_text,
    "JSON lines": _json_lines,
    "JSON": _json,
    "CSV": _table,
    "TSV": _table,
    "Parquet": _parquet,
}


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
    ends = _pieces(text[:size])[:, 1]
    whole = int(ends[ends < size].max(initial=0))
    return text[:whole] if whole else text[:size]  # one piece longer than the limit is cut inside


def _widths(text: str) -> np.ndarray:
    """Return the number of UTF-8 bytes of each character, uint8."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return (1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)).astype(np.uint8)


def _pieces(text: str) -> np.ndarray:
    """Return the spans between white space, block by block: memory for one block and the spans."""
    edges, inside = [], False
    for low in range(0, len(text), _BLOCK):
        codes = np.frombuffer(text[low : low + _BLOCK].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        word = ~_SPACE[np.minimum(codes, len(_SPACE) - 1)]
        edges.append(np.flatnonzero(np.diff(word, prepend=inside)) + low)
        inside = bool(word[-1])
    return np.concatenate([*edges, np.array([len(text)] if inside else [], dtype=np.int64)]).reshape(-1, 2)


def _byte_windows(text: str, size: int) -> np.ndarray:
    if not text:
        return np.zeros((0, 2), dtype=np.int64)
    if text.isascii():
        edges = np.minimum(np.arange(0, len(text) + size, size, dtype=np.int64), len(text))
        edges = edges if edges[-2] < edges[-1] else edges[:-1]
    else:
        at = array.array("q", [0])
        used = 0
        for low in range(0, len(text), _BLOCK):
            for position, width in enumerate(_widths(text[low : low + _BLOCK]).tobytes(), low):
                if used and used + width > size:
                    at.append(position)
                    used = 0
                used += width
        edges = np.array([*at, len(text)], dtype=np.int64)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _byte_edges(text: str, edges: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return the text as UTF-8 and the units' spans in its bytes, (n, 2) int64."""
    encoded = text.encode()
    if text.isascii() or not len(edges):
        return encoded, edges
    offsets = np.zeros(len(text) + 1, dtype=np.uint32)
    for low in range(0, len(text), _BLOCK):
        own = _widths(text[low : low + _BLOCK]).cumsum(dtype=np.uint32)
        offsets[low + 1 : low + 1 + len(own)] = own + offsets[low]
    return encoded, offsets[edges].astype(np.int64)


def _slices(encoded: bytes, at: np.ndarray) -> pa.LargeStringArray:
    """Return the texts of byte spans that do not overlap, without one Python object a unit."""
    marks = np.zeros(len(encoded) + 1, dtype=np.int8)
    np.add.at(marks, at[:, 0], 1)
    np.add.at(marks, at[:, 1], -1)
    kept = np.frombuffer(encoded, dtype=np.uint8)[marks[:-1].cumsum(dtype=np.int8).astype(bool)]
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), (at[:, 1] - at[:, 0]).cumsum()])
    return pa.LargeStringArray.from_buffers(len(at), pa.py_buffer(offsets), pa.py_buffer(kept))


def _versions(corpus: studies.Corpus) -> dict[str, dict[str, str]]:
    if corpus.kind != "packages":
        return {}
    names = {entry.partition(":")[0] for entry in corpus.sources}
    return {"packages": {name: importlib.metadata.version(name) for name in sorted(names)}}
