"""Every path of the project, in one place.

Environment variables (read at each call, so that a test or a cluster worker can redirect them):

``COMPANION_DATA``
    Folder that holds published data files as ``<owner>+<repo>/<path>``; default ``data/cache/upstream``.
``COMPANION_RESULTS``
    Folder of computed artifacts, one folder a study; default ``data/results``.
``COMPANION_ROOT``
    Root of the project (read once, at import); default the checkout that holds this file.
"""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("COMPANION_ROOT") or SOURCE.parents[1]).resolve()
NOTEBOOKS = ROOT / "notebooks"
STUDIES = NOTEBOOKS / "studies"
BOOK = ROOT / "book"
EXECUTED = BOOK / "notebooks"
FROZEN = BOOK / "frozen"
GENERATED = BOOK / "generated"
DATA = ROOT / "data"
LAB = DATA / "lab"
CACHE = DATA / "cache"
LOCK = ROOT / "requirements.lock"


def upstream() -> Path:
    """Return the folder of published data files (``COMPANION_DATA`` or ``data/cache/upstream``)."""
    return Path(os.environ.get("COMPANION_DATA") or CACHE / "upstream").resolve()


def results(study: str) -> Path:
    """Return the artifact folder of a study; it need not exist yet."""
    return Path(os.environ.get("COMPANION_RESULTS") or DATA / "results").resolve() / study


def label(path: Path | str) -> str:
    """Return a name for `path` that carries no machine-specific folder.

    Files of the project are named relative to its root, published data files ``upstream:...``, artifacts
    kept elsewhere ``results:...``; anything else by its file name alone.

    >>> label(ROOT / "data" / "README.md")
    'data/README.md'
    """
    resolved = Path(path).resolve()
    if resolved.is_relative_to(upstream()):
        return f"upstream:{resolved.relative_to(upstream()).as_posix()}"
    if resolved.is_relative_to(ROOT):
        return resolved.relative_to(ROOT).as_posix()
    if resolved.is_relative_to(results("")):
        return f"results:{resolved.relative_to(results('')).as_posix()}"
    return resolved.name


def locate(name: str) -> Path:
    """Return the path that :func:`label` named; a bare file name is taken relative to the root."""
    if name.startswith("upstream:"):
        return upstream() / name.removeprefix("upstream:")
    if name.startswith("results:"):
        return results("") / name.removeprefix("results:")
    return ROOT / name
