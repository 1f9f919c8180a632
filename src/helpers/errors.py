"""The few error types of the project. Each message says what was found, where, and what to do."""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable


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


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorate the `main` of a command: whatever goes wrong there is one message, never a stack trace.

    The exit status is that of `main`; 1 for an error of the project, a file that the system refuses and want of memory,
    130 when stopped by Ctrl-C, 141 when nobody reads the output any more (``| head``).

    >>> @command
    ... def main():
    ...     raise DataError("scores.csv, row 3: 'x' is no number.")
    >>> main()
    1
    """

    @functools.wraps(main)
    def bounded(*arguments, **options) -> int:
        for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter shows another: no reason to fail
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            status = main(*arguments, **options)
            sys.stdout.flush()
            return status or 0
        except CompanionError as error:
            return _tell(f"ERROR: {error}", 1)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at the end
            return 141
        except KeyboardInterrupt:
            return _tell("Stopped. What was finished is kept; the same command goes on from there.", 130)
        except MemoryError as error:
            return _tell(
                f"ERROR: not enough memory ({error or 'no more to be had'}); free some, or take less at once.", 1
            )
        except OSError as error:
            named = [str(f) for f in (error.filename, error.filename2) if f is not None]
            where = f" ({' and '.join(named)})" if named else ""
            advice = "Nothing half-written was kept; put that right and run the command again."
            return _tell(f"ERROR: {error.strerror or error}{where}. {advice}", 1)

    return bounded


def _tell(message: str, status: int) -> int:
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:  # nobody reads this either
        pass
    return status
