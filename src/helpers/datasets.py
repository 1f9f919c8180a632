"""Published data files: what they are, where they lie, whether their bytes are the right ones.

``data/manifest.yml`` lists every file with its repository, commit, path and sha256. :func:`fetch` gives the place
of a dataset on disk after checking every byte of it once per process. It looks in ``paths.upstream()`` (which the
environment variable ``COMPANION_DATA`` can point at a read-only copy) and in ``data/cache/upstream``, and downloads
only into the latter. Nothing is ever written to a folder named by ``COMPANION_DATA``.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pooch
import requests
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tqdm.auto import tqdm

from helpers import limits, paths, provenance, studies
from helpers.errors import DataError, StudyError, UnavailableError, nearest

PROBE_SECONDS = 4.0
DOWNLOADS = 8

_checked: dict[Path, tuple[int, int]] = {}
_reachable: dict[tuple[str, int], str | None] = {}
_lock = threading.Lock()


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """A repository that carries files."""

    repository: str = Field(pattern=r"^[^/\s]+/[^/\s]+$")
    licence: str = Field(min_length=1)


class Dataset(_Strict):
    """One or more files of one repository at one commit."""

    title: str
    source: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    kind: Literal["measurements", "evaluation results", "question texts", "metadata"] = Field(alias="class")
    checked: str
    consumers: tuple[str, ...]
    defects: tuple[str, ...]
    files: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> Dataset:
        for name, digest in self.files.items():
            if name.startswith("/") or ".." in Path(name).parts:
                raise ValueError(f"file path '{name}' leaves the repository")
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ValueError(f"sha256 of '{name}' must be 64 hex digits")
        return self


class Manifest(_Strict):
    """All sources and datasets; `base` is the address that ``<repository>/<commit>/<path>`` is added to."""

    base: str = "https://raw.githubusercontent.com"
    sources: dict[str, Source]
    datasets: dict[str, Dataset]

    @model_validator(mode="after")
    def _sources_exist(self) -> Manifest:
        for name, dataset in self.datasets.items():
            if dataset.source not in self.sources:
                raise ValueError(
                    f"dataset '{name}': no source '{dataset.source}'; {nearest(dataset.source, self.sources)}"
                )
        return self

    def dataset(self, name: str) -> Dataset:
        """Return a dataset by name; DataError names the nearest known one."""
        if name not in self.datasets:
            raise DataError(f"data/manifest.yml has no dataset '{name}'; {nearest(name, self.datasets)}")
        return self.datasets[name]

    def folder(self, name: str) -> str:
        """Return the folder of a dataset's repository, ``<owner>+<repo>``."""
        return self.sources[self.dataset(name).source].repository.replace("/", "+")

    def url(self, name: str, path: str) -> str:
        """Return the address of one file of a dataset."""
        dataset = self.dataset(name)
        repository = self.sources[dataset.source].repository
        return f"{self.base}/{repository}/{dataset.commit}/{urllib.parse.quote(path)}"


def read_manifest(path: Path | str) -> Manifest:
    """Read a manifest file; DataError says which entry is wrong."""
    shown = limits.name(path)
    text = limits.decode(limits.read_bytes(path, 4 * 2**20), shown)
    try:
        anchored: list[bool] = []
        for event in yaml.parse(text):
            if isinstance(event, yaml.CollectionStartEvent):
                anchored.append(event.anchor is not None)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchored.pop()
            elif isinstance(event, yaml.AliasEvent) and any(anchored):  # a few such lines can stand for gigabytes
                raise DataError(f"{shown}, line {event.start_mark.line + 1}: an alias within an anchor; write it out.")
        return Manifest.model_validate(yaml.load(text, Loader=studies._UniqueKeyLoader))
    except StudyError as error:
        raise DataError(f"{shown}: {error}") from None
    except RecursionError:
        raise DataError(f"{shown}: nested too deeply; a manifest has sources and datasets.") from None
    except (yaml.YAMLError, ValidationError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shown}: {error}") from None


@functools.cache
def manifest() -> Manifest:
    """Return the project's manifest.

    >>> manifest().url("xwinograd", "dataset.tsv").rsplit("/", 1)[1]
    'dataset.tsv'
    """
    return read_manifest(paths.DATA / "manifest.yml")


def _cache() -> Path:
    return paths.CACHE / "upstream"


def _find(folder: str, name: str) -> Path | None:
    """Return where the file lies (given folder first, then the project's cache), or None."""
    places = [paths.upstream(), _cache()]
    return next((root / folder / name for root in places if (root / folder / name).is_file()), None)


def _is_ours(path: Path) -> bool:
    return path.resolve().is_relative_to(_cache().resolve())


def _damage(path: Path, expected: str) -> str | None:
    """Return the found sha256 when it is not the expected one; each file is read once per process."""
    status = path.stat()
    mark = (status.st_mtime_ns, status.st_size)
    if _checked.get(path) == mark:
        return None
    found = provenance.sha256_file(path)
    if found != expected:
        return found
    _checked[path] = mark
    return None


def offline_reason(url: str) -> str | None:
    """Return why the host of `url` cannot be reached, or None; asked once per process, at most 5 seconds.

    A proxy named by the usual environment variables is what gets probed, when there is one.
    """
    target = urllib.parse.urlsplit(url)
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    if proxy:
        target = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = target.port or (443 if target.scheme == "https" else 80)
    key = (target.hostname or "", port)
    with _lock:
        if key not in _reachable:
            _reachable[key] = _probe(*key)
        return _reachable[key]


def _probe(host: str, port: int) -> str | None:
    answer: list[str | None] = [f"{host} did not answer within {PROBE_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
            answer[0] = None
        except OSError as error:
            answer[0] = f"{host} cannot be reached ({error.strerror or error})"

    # A name look-up ignores the timeout, so the whole question runs in a thread that may be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0]


def _stream(url: str, output_file: str, _pooch: object) -> None:
    """Fetch one address to a file; in pooch's form of a downloader, but closing its connection."""
    with requests.get(url, stream=True, timeout=30) as answer:
        answer.raise_for_status()
        with open(output_file, "wb") as target:
            for block in answer.iter_content(2**16):
                target.write(block)


def _download(url: str, target: Path, digest: str) -> None:
    pooch.get_logger().setLevel("WARNING")  # its messages carry machine paths
    try:
        pooch.retrieve(url, f"sha256:{digest}", fname=target.name, path=target.parent, downloader=_stream)
    except ValueError as error:
        raise DataError(
            f"{url}: the downloaded bytes do not have the sha256 of data/manifest.yml ({digest}). Nothing was kept. "
            f"Try again; if it repeats, the file changed upstream. ({error})"
        ) from None
    except requests.RequestException as error:
        raise UnavailableError(f"{url} could not be downloaded ({type(error).__name__}: {error}).") from None


def _obtain(known: Manifest, name: str, path: str, digest: str) -> Path:
    folder = known.folder(name)
    place = _find(folder, path)
    if place is not None:
        found = _damage(place, digest)
        if found is None:
            return place
        told = (
            f"{paths.label(place)} is damaged: expected sha256 {digest}, found {found} ({place.stat().st_size} bytes)."
        )
        if not _is_ours(place):
            raise DataError(
                f"{told} It lies in the folder named by COMPANION_DATA, which is never written to: replace it there."
            )
        reason = offline_reason(known.url(name, path))
        if reason:
            raise DataError(f"{told} It cannot be fetched again: {reason}. Delete it and run again with a network.")
        place.unlink()
    url = known.url(name, path)
    reason = offline_reason(url)
    if reason:
        raise UnavailableError(
            f"'{name}' needs {folder}/{path}, which is not in {_shown(paths.upstream())} nor in data/cache/upstream, "
            f"and it cannot be downloaded: {reason}. Connect to a network once, or set COMPANION_DATA to a folder that has it."
        )
    target = _cache() / folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download(url, target, digest)
    except OSError as error:
        free = shutil.disk_usage(target.parent).free
        raise DataError(
            f"{paths.label(target)} could not be written ({error}); {free // 2**20} MiB are free."
        ) from None
    damaged = _damage(target, digest)
    if damaged:
        raise DataError(f"{paths.label(target)}: written, but read back with sha256 {damaged}; expected {digest}.")
    return target


def _shown(root: Path) -> str:
    return "the folder of COMPANION_DATA" if os.environ.get("COMPANION_DATA") else paths.label(root)


def files(name: str, known: Manifest | None = None) -> dict[str, Path]:
    """Return every file of a dataset as ``{path in the repository: place on disk}``, checked.

    Missing files are downloaded into ``data/cache/upstream``. Raises UnavailableError when a file is neither here
    nor reachable, DataError when bytes are wrong (the message has both hashes and what to do).
    """
    known = known or manifest()
    wanted = known.dataset(name).files
    missing = [p for p in wanted if _find(known.folder(name), p) is None]
    places = {p: _obtain(known, name, p, d) for p, d in wanted.items() if p not in missing}
    if missing:
        reason = offline_reason(known.url(name, missing[0]))
        if reason:
            _obtain(known, name, missing[0], wanted[missing[0]])
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            jobs = {p: pool.submit(_obtain, known, name, p, wanted[p]) for p in missing}
            for path, job in tqdm(jobs.items(), desc=name, unit="file", disable=len(jobs) < 5):
                places[path] = job.result()
    return {p: places[p] for p in wanted}


def fetch(name: str, known: Manifest | None = None) -> Path:
    """Return the file of a one-file dataset, or the common folder of a dataset of many files, checked.

    Raises what :func:`files` raises.
    """
    places = list(files(name, known).values())
    return places[0] if len(places) == 1 else Path(os.path.commonpath([p.parent for p in places]))


def unavailable(names: Iterable[str], known: Manifest | None = None) -> str | None:
    """Return why the datasets cannot be had, or None when they can: here and undamaged, or reachable.

    Nothing is downloaded. A damaged file is a reason too, unless it can be fetched again.
    """
    known = known or manifest()
    for name in names:
        for path, digest in known.dataset(name).files.items():
            place = _find(known.folder(name), path)
            damaged = place is not None and _damage(place, digest) is not None
            if place is not None and not damaged:
                continue
            offline = offline_reason(known.url(name, path))
            if damaged and (offline or not _is_ours(place)):
                return f"'{name}': {paths.label(place)} is damaged" + (f" and {offline}" if offline else "")
            if offline:
                return f"'{name}': {path} is not here and {offline}"
    return None


def available(names: Iterable[str] | str, known: Manifest | None = None) -> bool:
    """Return whether :func:`fetch` can be expected to work for the dataset or datasets.

    >>> available([])
    True
    """
    return unavailable([names] if isinstance(names, str) else names, known) is None


def defects(names: Iterable[str], known: Manifest | None = None) -> list[dict[str, str]]:
    """Return one row a known defect: ``dataset``, ``repository``, ``licence``, ``defect``."""
    known = known or manifest()
    rows = []
    for name in names:
        dataset = known.dataset(name)
        source = known.sources[dataset.source]
        base = {"dataset": name, "repository": source.repository, "licence": source.licence}
        rows += [base | {"defect": text} for text in dataset.defects]
    return rows
