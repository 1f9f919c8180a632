"""Files that others made, opened within bounds.

What is not a plain file, is packed beyond a bound, is not text, or is JSON that cannot be taken at its word is one
DataError that says what was found and what to do; nothing here waits, follows a loop or fills the memory.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import json
import lzma
import math
import stat
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from helpers import paths
from helpers.errors import DataError

MAX_BYTES = 512 * 2**20  # of one file, unpacked
MAX_JSON = 128 * 2**20  # of one JSON text: as Python objects it takes several times as much
MAX_COLUMNS = 2000
_HEAD = 2**16

# What the first bytes say; for these a person needs another remedy than "save it as UTF-8".
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BINARY = {
    b"PK\x03\x04": "a ZIP archive (as .zip, .xlsx and .docx files are); unpack it or save it as text",
    b"PK\x05\x06": "an empty ZIP archive",
    b"%PDF-": "a PDF; save its text",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"\x7fELF": "a program",
    b"MZ\x90\x00": "a program",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"\x93NUMPY": "a NumPy array",
    b"\xd0\xcf\x11\xe0": "an old Office file; save it as text",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


def name(path: Path | str) -> str:
    """Return the label of a path for messages; bytes of the name that are not UTF-8 are written as escapes.

    >>> name("/b\\udcff.txt")
    'b\\\\udcff.txt'
    """
    try:
        shown = paths.label(path)
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no possible name: it has no place to be named by
        shown = Path(path).name
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def refusal(path: Path | str) -> str | None:
    """Return why a path is no plain file that could be read to its end, with what to do; None when it is one.

    >>> refusal(paths.DATA)
    'a folder; name a file in it'
    >>> refusal("no/such/file")
    'no such file; check the path'
    """
    path = Path(path)
    try:
        str(path).encode("utf-8")
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to a file that is not there" if path.is_symlink() else "no such file; check the path"
    except UnicodeEncodeError:
        return "a name that is not UTF-8; rename the file"
    except (OSError, ValueError) as error:
        if "symbolic links" in str(error):
            return "a link that leads back to itself; remove it"
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(mode):
        return "a folder; name a file in it"
    if not stat.S_ISREG(mode):
        return "a pipe, socket or device, not a file; save its content as a file"
    return None


def require(path: Path | str) -> Path:
    """Return the path of a plain file; DataError says what else it is."""
    why = refusal(path)
    if why:
        raise DataError(f"{name(path)}: {why}.")
    return Path(path)


def packing(head: bytes) -> str | None:
    """Return how bytes are packed (``gzip``, ``bzip2``, ``xz``, ``zstd``), or None.

    >>> packing(gzip.compress(b"text"))
    'gzip'
    """
    return next((kind for mark, kind in _PACKED.items() if head.startswith(mark)), None)


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[IO[bytes]]:
    """Open a plain file for reading bytes, unpacked when its first bytes say that it is packed."""
    path = require(path)
    try:
        stream = open(path, "rb")
    except OSError as error:
        raise DataError(f"{name(path)}: cannot be opened ({error.strerror}).") from None
    with stream:
        kind = packing(stream.read(8))
        stream.seek(0)
        if kind is None:
            yield stream
        elif kind == "zstd":
            with io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")) as unpacked:
                yield unpacked
        else:
            with {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind](stream) as unpacked:
                yield unpacked


def read(stream: IO[bytes], shown: str, size: int) -> bytes:
    """Read up to `size` bytes; DataError when a packed file is damaged."""
    try:
        held = bytearray()  # filled piece by piece: asked for all at once, the bound itself would be allocated
        while len(held) < size and (piece := stream.read(min(size - len(held), 2**20))):
            held += piece
        return bytes(held)
    except _BROKEN as error:
        raise DataError(f"{shown}: damaged, it cannot be unpacked ({error}); fetch or save it again.") from None


def read_bytes(path: Path | str, most: int = MAX_BYTES) -> bytes:
    """Return a file's bytes, unpacked; DataError when there are more than `most`."""
    with opened(path) as stream:
        raw = read(stream, name(path), most + 1)
    if len(raw) > most:
        raise DataError(f"{name(path)}: more than {mebibytes(most)} (unpacked); split it or take a sample.")
    return raw


def lines(stream: IO[bytes], shown: str, most: int, total: int = 2**62) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line without its end) of an opened file.

    DataError for a line of more than `most` bytes and for more than `total` bytes in all.
    """
    number = held = 0
    while True:
        try:
            line = stream.readline(most + 1)
        except _BROKEN as error:
            raise DataError(f"{shown}: damaged, it cannot be unpacked ({error}); fetch or save it again.") from None
        if not line:
            return
        number += 1
        held += len(line)
        if held > total:
            raise DataError(f"{shown}: more than {mebibytes(total)} (unpacked); split it or take a sample.")
        if len(line) > most:
            raise DataError(f"{shown}, row {number}: a line of more than {mebibytes(most)}; split it.")
        yield number, line.rstrip(b"\r\n")


def parquet_batches(path: Path | str, shown: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file in batches; DataError for a damaged one and for one that opens to more than the bound.

    A column that names each value once may open to a thousand times its size, so batches are cut by what a row may
    hold, and what has been opened is counted.
    """
    held = 0
    try:
        with pq.ParquetFile(path) as file:
            meta = file.metadata
            packed = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            if packed > 4 * MAX_BYTES or meta.num_columns > MAX_COLUMNS:
                told = f"{mebibytes(packed)} in {meta.num_columns} columns"
                raise DataError(
                    f"{shown}: {told}; at most {mebibytes(4 * MAX_BYTES)} and {MAX_COLUMNS} columns: split it"
                )
            known = file.schema_arrow.names
            for column in columns or ():
                if column not in known:
                    raise DataError(f"{shown}: no column '{column}'; it has {', '.join(known[:12])}")
            largest = max((meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)), default=1)
            rows = max(1, min(1024, 2 * MAX_BYTES // max(largest, 1)))
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                held += batch.nbytes
                if held > 4 * MAX_BYTES:
                    raise DataError(f"{shown}: it opens to more than {mebibytes(4 * MAX_BYTES)}; split it")
                yield batch
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, RuntimeError, MemoryError) as error:
        told = str(error).split("\n")[0][:100]
        raise DataError(f"{shown}: a damaged Parquet file ({told}); fetch or save it again") from None


def read_csv(path: Path | str, columns: Sequence[str] = (), most: int = MAX_BYTES, **options: Any) -> pd.DataFrame:
    """Read a published CSV table; DataError when it is none, lacks a column or holds a column twice."""
    shown = name(path)
    text = decode(read_bytes(path, most), shown)
    try:
        frame = pd.read_csv(io.StringIO(text), keep_default_na="dtype" not in options, **options)
    except (ValueError, csv.Error, OverflowError) as error:  # pandas' own errors of broken tables are ValueErrors
        raise DataError(f"{shown}: not a table ({str(error).strip()[:120]}); fetch it again.") from None
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        listed = ", ".join(str(c)[:40] for c in list(frame.columns)[:12])
        raise DataError(f"{shown}: no column '{missing[0]}'; it has {listed}.")
    return frame


def mebibytes(count: int) -> str:
    """Return a number of bytes in MiB for a message.

    >>> mebibytes(3 * 2**20)
    '3 MiB'
    """
    return f"{count / 2**20:.4g} MiB"


def encoding(head: bytes) -> str:
    """Return the encoding that a byte-order mark tells; UTF-8 without one.

    >>> encoding("a".encode("utf-16"))
    'utf-16'
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def not_text(head: bytes) -> str | None:
    """Return why the first bytes of a file are not text, with what to do; None when they are, or may be.

    >>> not_text(b"\\x89PNG\\r\\n")
    'a PNG picture'
    >>> not_text(bytes(range(256)) * 9)
    '60 % of it are control characters or bytes that are not UTF-8: a binary file, or text in another encoding (save it as UTF-8)'
    """
    for mark, what in _BINARY.items():
        if head.startswith(mark):
            return what
    if packing(head):
        return "packed twice; unpack it"
    code = encoding(head)
    if code != "utf-8-sig":
        try:
            codecs.getincrementaldecoder(code)().decode(head)
        except UnicodeDecodeError:
            return f"marked as {code.upper()} but not valid in it; save it as UTF-8"
        return None
    decoded = codecs.getincrementaldecoder("utf-8")("replace").decode(head[:_HEAD])
    codes = np.frombuffer(decoded.encode("utf-32-le"), dtype=np.uint32)
    odd = int(((codes < 32) & ~((codes >= 8) & (codes <= 13)) & (codes != 27)).sum() + (codes == 0xFFFD).sum())
    if odd >= 8 and odd > 0.3 * len(codes):  # a few damaged bytes are replaced and counted by whoever reads the text
        told = "control characters or bytes that are not UTF-8: a binary file, or text in another encoding"
        return f"{100 * odd / len(codes):.0f} % of it are {told} (save it as UTF-8)"
    return None


def decode(raw: bytes, shown: str) -> str:
    """Return text from bytes in UTF-8, or in what a byte-order mark says; DataError names what it is instead."""
    why = not_text(raw[:_HEAD])
    if why:
        raise DataError(f"{shown}: not text: {why}.")
    try:
        return raw.decode(encoding(raw))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{shown}, row {line}: byte {raw[error.start]:#04x} is not {error.encoding.upper()}; save it as UTF-8."
        ) from None


def parse_json(text: str | bytes) -> Any:
    """Return the content of one JSON text; DataError for what plain JSON readers let pass or die of.

    A key given twice (the last would win), nesting beyond Python's own limit and numbers of thousands of digits are
    refused. The message says where, not in which file: the caller knows it.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    helpers.errors.DataError: key 'a' is given twice; keep one
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}" if error.lineno > 1 else f"character {error.pos}"
        raise DataError(f"not valid JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise DataError("JSON nested too deeply; give plain records") from None
    except DataError:
        raise
    except ValueError as error:  # an integer of more than 4300 digits, or bytes in no Unicode encoding
        raise DataError(f"not valid JSON: {str(error).split(';')[0]}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))
        raise DataError(f"key {twice!r} is given twice; keep one")
    return found


def number(value: Any, shown: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number in [low, high]; DataError for anything else: NaN, infinity, True, text.

    >>> number(0.5, "f.json, score 'a'", 0, 1)
    0.5
    >>> number(33, "f.json, score 'a'", 0, 1)
    Traceback (most recent call last):
    ...
    helpers.errors.DataError: f.json, score 'a': found 33, expected a number from 0 to 1.
    """
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not plain or not low <= value <= high or value in (math.inf, -math.inf):
        within = f" from {low:g} to {high:g}" if math.isfinite(low) and math.isfinite(high) else ", finite"
        found = repr(value)
        found = found if len(found) <= 40 else found[:37] + "..."
        raise DataError(f"{shown}: found {found}, expected a number{within}.")
    return float(value)
