"""The few error types of the project. Each message says what was found, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompanionError(Exception):
    """Base of every error that the project raises on purpose."""


class StudyError(CompanionError, ValueError):
    """A study file is wrong: unknown key, missing file, duplicate name, impossible value."""


class DataError(CompanionError, ValueError):
    """A data file, score table, question file or matrix is wrong."""


class UnavailableError(CompanionError):
    """Something optional is not here (no network and no cache, a package extra, a GPU)."""


class StaleArtifactError(CompanionError):
    """An artifact's inputs changed after it was made, or the artifact itself is damaged."""


class ModelError(CompanionError):
    """A language model cannot be loaded or gives unusable numbers."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return a phrase that names the known names closest to `name`, for error messages.

    >>> nearest("screning", ["screening", "selection"])
    "did you mean 'screening'?"
    >>> nearest("zzz", ["screening", "selection"])
    "known: 'screening', 'selection'"
    """
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), known, n=count, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    shown = ", ".join(f"'{k}'" for k in sorted(known)[:12])
    return f"known: {shown}" + (" ..." if len(known) > 12 else "")
