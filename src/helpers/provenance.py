"""Artifacts with a memory: atomic writing, a sidecar with inputs and parameters, refusal of stale reads.

Every artifact ``name`` has a sidecar ``name.provenance.json`` with its own sha256, the sha256 of every
input, the parameters, a hash of the code that made it, package versions and the duration. :func:`read_table`
refuses an artifact that is damaged or whose inputs changed since.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from helpers import paths
from helpers.errors import StaleArtifactError

VERSIONED = ("numpy", "pandas", "scikit-learn", "scipy", "statsmodels", "torch", "transformers")


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
        "artifact": paths.label(path),
        "sha256": sha256_file(path),
        "inputs": {paths.label(p): sha256_file(p) for p in inputs},
        "parameters": dict(parameters or {}),
        "code": {paths.label(p): sha256_file(p) for p in code},
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": None if seconds is None else round(seconds, 3),
    }
    text = json.dumps(content, indent=1, sort_keys=True, default=str)
    return write_atomic(sidecar(path), lambda t: t.write_text(text + "\n", encoding="utf-8"))


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
    if not path.exists():
        return f"{paths.label(path)} does not exist"
    if not sidecar(path).exists():
        return f"{paths.label(path)} has no provenance file (an interrupted run leaves such a file)"
    try:
        known = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        return f"{paths.label(sidecar(path))} is not valid JSON ({error})"
    if sha256_file(path) != known["sha256"]:
        return f"{paths.label(path)} differs from the sha256 in its provenance file (damaged or edited)"
    for name, digest in known["inputs"].items():
        source = paths.locate(name)
        if not source.exists():
            return f"{paths.label(path)} was made from {name}, which is gone"
        if sha256_file(source) != digest:
            return f"{paths.label(path)} was made from an earlier version of {name}"
    if parameters is not None:
        wanted = json.loads(json.dumps(dict(parameters), default=str))
        if wanted != known["parameters"]:
            return f"{paths.label(path)} was made with other parameters"
    return None


def _refuse_stale(path: Path) -> None:
    reason = stale_reason(path)
    if reason:
        raise StaleArtifactError(
            f"{reason}. Run the notebook that makes it again: `make study STUDY={path.parent.name}`."
        )


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
