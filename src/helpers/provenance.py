"""Artifacts with a memory: atomic writing, a sidecar with inputs and parameters, refusal of stale reads.

Every artifact ``name`` has a sidecar ``name.provenance.json`` with its own sha256, the sha256 of every
input, the parameters, a hash of the code that made it, package versions and the duration. :func:`read_table`
refuses an artifact that is damaged or whose inputs changed since. Inputs that are artifacts themselves are named
relative to the artifact (``./units.parquet``), so that a folder of results can be moved as a whole.

While a notebook runs, :func:`note` keeps a journal of the artifacts that it wrote and the files that it read; the
runner asks for it with the environment variable ``COMPANION_JOURNAL``.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from helpers import paths
from helpers.errors import StaleArtifactError

VERSIONED = ("numpy", "pandas", "scikit-learn", "scipy", "statsmodels", "torch", "transformers")


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits."""
    path = Path(path).resolve()
    known = path.stat()
    if (
        time.time() - max(known.st_mtime, known.st_ctime) < 5
    ):  # clocks of file systems are coarse: it may change again within a tick
        return _sha256(path)
    return _remembered(path, known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino)


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.lru_cache(maxsize=4096)
def _remembered(path: Path, *_state: int) -> str:
    """Return a file's sha256, read once a process as long as the file stays as it is: inputs serve many artifacts."""
    return _sha256(path)


def note(kind: str, path: Path | str) -> None:
    """Append to the journal, if one is kept, that the file `path` was "read" or "wrote", with its sha256."""
    journal = os.environ.get("COMPANION_JOURNAL")
    if journal and os.path.isdir(os.path.dirname(journal)):
        line = json.dumps({"kind": kind, "path": str(Path(path).resolve()), "sha256": sha256_file(path)}) + "\n"
        with open(journal, "a", encoding="utf-8") as stream:  # one short write: lines of two processes do not mix
            stream.write(line)


def content_key(*parts: Any) -> str:
    """Return a sha256 over JSON-serialisable parts; equal parts give equal keys on every machine.

    >>> content_key("a", {"x": 1, "y": 2}) == content_key("a", {"y": 2, "x": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path | str, write: Callable[[Path], Any]) -> Path:
    """Call ``write(temporary)`` and move the result to `path`; a failure leaves nothing behind.

    The data reach the disk (fsync) before the rename, so a killed machine shows the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def lock(names: Iterable[str]) -> Iterator[list[int]]:
    """Hold the artifacts of studies for this process and its children: no other run changes them meanwhile.

    Yields the open files that hold the locks. The system frees them when the last process that has them open ends, in
    whatever way. Waits for another holder, and says so.
    """
    with contextlib.ExitStack() as held:
        files = []
        for name in sorted(set(names)):  # always in one order: two runs never wait for each other
            path = paths.results(f".{name}.lock")
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(open(path, "a+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                print(f"Study '{name}' is being run by {holder}; waiting until that ends.", file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} since {datetime.datetime.now():%H:%M:%S}")
            file.flush()
            files.append(file.fileno())
        yield files


def sidecar(path: Path | str) -> Path:
    """Return the path of the provenance file that belongs to an artifact."""
    path = Path(path)
    return path.with_name(path.name + ".provenance.json")


_version = functools.cache(importlib.metadata.version)  # reads the package's files: 25 ms for the list below


def versions(packages: Iterable[str] = VERSIONED) -> dict[str, str]:
    """Return the installed version of each package, and of Python."""
    return {"python": platform.python_version()} | {p: _version(p) for p in packages}


def record(
    path: Path | str,
    *,
    inputs: Iterable[Path | str] = (),
    parameters: Mapping[str, Any] | None = None,
    code: Iterable[Path | str] = (),
    seconds: float | None = None,
) -> Path:
    """Write the sidecar of the existing file `path` and return the sidecar's path."""
    path = Path(path)
    content = {
        "artifact": path.name,
        "sha256": sha256_file(path),
        "inputs": {_input_name(p, path): sha256_file(p) for p in inputs},
        "parameters": dict(parameters or {}),
        "code": {paths.label(p): sha256_file(p) for p in code},
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": None if seconds is None else round(seconds, 3),
    }
    text = json.dumps(content, indent=1, sort_keys=True, default=str)
    written = write_atomic(sidecar(path), lambda t: t.write_text(text + "\n", encoding="utf-8"))
    note("wrote", path)
    return written


def _input_name(source: Path | str, artifact: Path) -> str:
    """Return how an artifact's sidecar names an input: relative to the artifact where both are results."""
    folder, source, own = paths.results(""), Path(source).resolve(), artifact.resolve().parent
    if not (source.is_relative_to(folder) and own.is_relative_to(folder)):
        return paths.label(source)
    name = Path(os.path.relpath(source, own)).as_posix()
    return name if name.startswith("../") else f"./{name}"


def _input_path(name: str, artifact: Path) -> Path:
    return artifact.resolve().parent / name if name.startswith(("./", "../")) else paths.locate(name)


def write_table(
    path: Path | str,
    frame: pd.DataFrame,
    *,
    inputs: Iterable[Path | str] = (),
    parameters: Mapping[str, Any] | None = None,
    code: Iterable[Path | str] = (),
    seconds: float | None = None,
) -> Path:
    """Write a DataFrame as ``.parquet`` or ``.csv`` (by suffix), atomically, with its sidecar.

    The index is stored only when it has a name. Raises ValueError for another suffix.
    """
    path = Path(path)
    keep_index = frame.index.name is not None
    sidecar(path).unlink(missing_ok=True)  # killed before the new sidecar exists: no artifact, never a stale one
    if path.suffix == ".parquet":
        write_atomic(path, lambda t: frame.to_parquet(t, index=keep_index, compression="zstd"))
    elif path.suffix == ".csv":
        write_atomic(path, lambda t: frame.to_csv(t, index=keep_index, lineterminator="\n"))
    else:
        raise ValueError(f"{path.name}: artifacts are .parquet or .csv, not '{path.suffix}'")
    record(path, inputs=inputs, parameters=parameters, code=code, seconds=seconds)
    return path


def stale_reason(path: Path | str, parameters: Mapping[str, Any] | None = None) -> str | None:
    """Return why the artifact must not be used, or None when it is sound and current.

    `parameters`, when given, must equal the recorded ones.
    """
    path = Path(path)
    if not path.is_file():
        return f"{paths.label(path)} does not exist"
    if not sidecar(path).is_file():
        return f"{paths.label(path)} has no provenance file (an interrupted run leaves such a file)"
    known = _read_sidecar(path)
    if isinstance(known, str):
        return known
    if sha256_file(path) != known["sha256"]:
        return f"{paths.label(path)} differs from the sha256 in its provenance file (damaged or edited)"
    for name, digest in known["inputs"].items():
        source = _input_path(name, path)
        shown = paths.label(source)
        if not source.is_file():
            return f"{paths.label(path)} was made from {shown}, which is gone"
        if sha256_file(source) != digest:
            return f"{paths.label(path)} was made from an earlier version of {shown}"
    if parameters is not None:
        wanted = json.loads(json.dumps(dict(parameters), default=str))
        if wanted != known["parameters"]:
            return f"{paths.label(path)} was made with other parameters"
    return None


def _read_sidecar(path: Path) -> dict[str, Any] | str:
    """Return what an artifact's sidecar holds, or why it cannot be used."""
    shown = paths.label(sidecar(path))
    try:
        known = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8
        return f"{shown} is not valid JSON ({error})"
    shape = {"sha256": str, "inputs": dict, "parameters": dict}
    wrong = [k for k, kind in shape.items() if not isinstance(known, dict) or not isinstance(known.get(k), kind)]
    if wrong:
        return f"{shown} is not a provenance file: it has no '{wrong[0]}' (damaged or edited)"
    return known


def _refuse_stale(path: Path) -> None:
    reason = stale_reason(path)
    if reason:
        raise StaleArtifactError(
            f"{reason}. Run the notebook that makes it again: `make study STUDY={path.parent.name}`."
        )
    note("read", path)


def columns(path: Path | str) -> list[str]:
    """Return the columns of a ``.parquet`` artifact without reading its rows; raises as :func:`read_table`."""
    path = Path(path)
    _refuse_stale(path)
    return [name for name in pq.read_schema(path).names if name not in ("unit_id", "__index_level_0__")]


def read_table(path: Path | str) -> pd.DataFrame:
    """Read an artifact written by :func:`write_table`.

    Raises StaleArtifactError when the file is missing, damaged, or older than one of its inputs' contents.
    """
    path = Path(path)
    _refuse_stale(path)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
