"""Run one notebook with papermill and clean its executed copy: what a page shows is made here, and only here.

The kernel is the interpreter that runs the build (:mod:`helpers.kernel`), whatever kernels Jupyter knows of. Two runs
of the same notebook on the same inputs give the same bytes: cell ids follow the content, output that came in pieces is
joined, and no path of the machine, time or memory address stays.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from helpers import paths, provenance
from helpers.errors import CompanionError, StudyError
from helpers.fragments import literal

PATIENCE = 300  # seconds for a kernel to start and to hand over an output; the default of 4 is short on a busy machine
LONG_CELL, WIDE_CELL = 4, 100  # lines and letters of code that a page shows; more is folded, one click away
UNFOLDED = {"parameters", "hide-cell", "remove-cell"}  # cells to be seen, or hidden already
SHOWN_LINES = 12  # lines of a failing cell in the error message
_PLACE = re.compile(r" \((?:\d+\.py|<tokenize>|<unknown>), line (\d+)\)$")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunError(CompanionError):
    """A notebook failed; the message names study, notebook, cell and error."""


@dataclasses.dataclass(frozen=True)
class Executed:
    """What a run did: seconds, files written (in order) and files read with their sha256, as absolute paths."""

    seconds: float
    wrote: tuple[str, ...]
    read: dict[str, str]


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a MyST notebook and check what every notebook of the project must have.

    Raises StudyError when the front matter lacks ``language: python`` or there is not exactly one cell tagged
    ``parameters``.
    """
    notebook = jupytext.read(path)
    shown = paths.label(path)
    if notebook.metadata.get("kernelspec", {}).get("language") != "python":
        raise StudyError(f"{shown}: the front matter's kernelspec needs 'language: python' (papermill asks for it).")
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise StudyError(f"{shown}: expected one cell tagged 'parameters', found {len(tagged)}.")
    name_cells(notebook)
    return notebook


def name_cells(notebook: nbformat.NotebookNode) -> None:
    """Give every cell an id that follows its content: drawn at random, as tools do, ids change with every run."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = provenance.content_key(cell.cell_type, cell.source)[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def search_path() -> str:
    """Return ``PYTHONPATH`` for processes in other folders: these helpers first, whatever else is installed."""
    search = [str(paths.SOURCE.parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.pathsep.join(str(Path(p).resolve()) for p in search)


class _Kernel(AsyncKernelManager):
    """Starts the interpreter that runs the build: a kernel looked up by name may belong to another environment."""

    folder: Path  # of the run: journal, the kernel's own output, its settings

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-P", "-m", "helpers.kernel", "-f", "{connection_file}"]
        return KernelSpec(argv=[*command, "--HistoryManager.enabled=False"], language="python", display_name="Python 3")

    async def start_kernel(self, **options: Any) -> None:
        """Start the kernel; what it writes to its terminal is kept for the case that it dies."""
        environment = os.environ | {
            "PYTHONPATH": search_path(),
            "IPYTHONDIR": str(self.folder / "ipython"),  # not the reader's own start-up files
            "COMPANION_JOURNAL": str(self.folder / "journal"),
        }
        environment.pop("PYTHONSTARTUP", None)
        with open(self.folder / "kernel.log", "ab") as log:
            held = tuple(map(int, filter(None, os.environ.get("COMPANION_LOCKS", "").split(","))))
            options |= {"env": environment, "stdout": log, "stderr": log, "pass_fds": held}
            await super().start_kernel(**options)


def execute(source: Path, parameters: dict[str, Any], destination: Path, *, heading: str | None = None) -> Executed:
    """Run one MyST notebook with papermill and write the cleaned copy; return what the run read and wrote.

    Raises RunError with the failing line and its cell. The failing copy is kept under ``data/results/failed``.
    """
    notebook = read_notebook(source)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        raw, done = Path(folder) / f"{source.stem}.ipynb", Path(folder) / "executed.ipynb"
        nbformat.write(notebook, raw)
        begun = time.perf_counter()
        try:
            papermill.execute_notebook(
                str(raw),
                str(done),
                parameters=parameters,
                cwd=str(paths.NOTEBOOKS),
                kernel_name="python3",
                kernel_manager_class=type("Kernel", (_Kernel,), {"folder": Path(folder)}),
                coalesce_streams=True,
                progress_bar=False,
                log_output=False,
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
            )
        except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
            raise RunError(_silence(source, done, error, Path(folder) / "kernel.log")) from None
        except PapermillExecutionError as error:
            kept = paths.results("failed") / source.name.replace(".md", ".ipynb")
            failed = nbformat.read(done, as_version=4)
            clean(failed, source, kept, heading)
            provenance.write_atomic(kept, lambda t: nbformat.write(failed, t))
            raise RunError(
                f"{source.name}: {failure(error)}\nThe copy up to that cell is {paths.label(kept)}."
            ) from None
        seconds = time.perf_counter() - begun
        executed = nbformat.read(done, as_version=4)
        wrote, read = _journal(Path(folder) / "journal")
    clean(executed, source, destination, heading)
    provenance.write_atomic(destination, lambda t: nbformat.write(executed, t))
    return Executed(seconds, wrote, read)


def _journal(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the files that a run wrote, and those it read with their sha256 when first read, its own not counted."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    wrote, read = {}, {}
    for line in map(json.loads, lines):
        if line["kind"] == "wrote":
            wrote[line["path"]] = None
        elif line["path"] not in wrote:
            read.setdefault(line["path"], line["sha256"])
    return tuple(wrote), read


def _silence(source: Path, copy: Path, error: Exception, log: Path) -> str:
    """Return what is to be said about a kernel that gave no answer."""
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    said = [line for line in said if line.strip() and "IPKernelApp" not in line]
    last = f" The kernel's last words: {said[-1].strip()}" if said else ""
    reason = str(error).strip().splitlines()
    return (
        f"{source.name}: cell {_reached(copy)} gave no answer: {reason[0] if reason else type(error).__name__}. Most "
        f"often the system ended the kernel for want of memory: free some, or run fewer notebooks at once (--jobs 1).{last}"
    )


def _reached(copy: Path) -> str:
    """Return the number and first line of the last cell that a copy, whose kernel is gone, came to."""
    cells = nbformat.read(copy, as_version=4).cells if copy.exists() else []
    come = [i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("status") != "pending"]
    return f"{come[-1]} ({(cells[come[-1]].source.strip().splitlines() or ['empty'])[0]})" if come else "(unknown)"


def failure(error: PapermillExecutionError) -> str:
    """Return the message for a failing cell: the error, and the cell with an arrow at the line that failed."""
    trace = _ANSI.sub("", "\n".join(error.traceback))
    said = _PLACE.sub("", error.evalue)  # of code that Python cannot read; the file's name there is made up
    found = re.findall(rf"Cell In\s?\[{error.exec_count}\], line (\d+)", trace) or _PLACE.findall(error.evalue)
    lines = error.source.rstrip().splitlines()
    failing = [min(int(n), len(lines)) for n in found]  # from the outermost call to the innermost
    last = failing[-1] if failing else 1
    first = max(0, min(last - 1 - SHOWN_LINES // 2, len(lines) - SHOWN_LINES))
    shown = [
        f"{'-->' if number in failing else '   '} {number:>3} {text}"
        for number, text in enumerate(lines, 1)
        if first < number <= first + SHOWN_LINES
    ]
    helper = re.findall(r"File .*?helpers[/\\](\S+?\.py):(\d+), in (\w+)", trace)
    raised = " ({}, line {}, in {})".format(*helper[-1]) if helper else ""
    where = f", line {last}" if failing else ""
    return (
        f"cell {error.cell_index} (execution {error.exec_count}){where} failed:\n"
        f"  {error.ename}: {said}{raised}\n" + "\n".join(shown)
    )


def clean(notebook: nbformat.NotebookNode, source: Path, destination: Path, heading: str | None) -> None:
    """Strip machine paths, stderr, timings and random ids from an executed notebook, fold long code; extend its title.

    Works in place. Outputs, injected parameters and metadata lose the machine's folders (:func:`without_folders`); text
    and code of the source are left as they are written.
    """
    notebook.metadata["papermill"] = {
        "input_path": paths.label(source),
        "output_path": paths.label(destination),
        "parameters": without_folders(notebook.metadata.get("papermill", {}).get("parameters", {})),
    }
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown" and heading and cell.source.startswith("# "):
            first, _, rest = cell.source.partition("\n")
            cell.source = f"{first}: {literal(heading)}\n{rest}"
            heading = None
        if cell.cell_type != "code":
            continue
        kept = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
        cell.outputs = [nbformat.from_dict(without_folders(o)) for o in _joined(kept)]
        for output in cell.outputs:  # the page shows the HTML form; plotly's own doubles the weight
            if "text/html" in output.get("data", {}):
                output.data.pop("application/vnd.plotly.v1+json", None)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.source = without_folders(cell.source)
            cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
        elif not {*tags} & UNFOLDED and (
            cell.source.count("\n") >= LONG_CELL or max(map(len, cell.source.split("\n"))) > WIDE_CELL
        ):
            cell.metadata["tags"] = list(dict.fromkeys([*tags, "hide-input"]))
    name_cells(notebook)


def _joined(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join printed text that arrived in several pieces: where it is cut depends on the machine's mood."""
    joined: list[nbformat.NotebookNode] = []
    for printed, group in itertools.groupby(outputs, key=lambda o: o.output_type == "stream"):
        pieces = list(group)
        if printed:
            pieces = [nbformat.v4.new_output("stream", name="stdout", text="".join(p.text for p in pieces))]
        joined += pieces
    return joined


def _folders() -> list[str]:
    """Return the machine's folders that no page may name, the deepest first."""
    found = {paths.ROOT, paths.upstream(), paths.results(""), Path.home(), Path(sys.prefix)}
    return sorted((str(p) for p in found if p.is_absolute() and p != Path(p.anchor)), key=len, reverse=True)


def without_folders(value: Any, folders: Iterable[str] | None = None) -> Any:
    r"""Return text, or all text inside lists and mappings, without the machine's folders.

    `folders` are the checkout, the data, the results, the home folder and the environment unless given. Only whole
    paths count: never the end of a tag (``</code>`` in a checkout that lies in ``/code``), part of a longer name, or of
    an address on the web.

    >>> without_folders("<code>/code/data/x.csv</code> in /code, not /code-old, a/code", ["/code"])
    '<code>data/x.csv</code> in ., not /code-old, a/code'
    """
    folders = _folders() if folders is None else list(folders)
    if isinstance(value, str):
        return _pattern(tuple(folders)).sub(lambda m: "" if m["inside"] else ".", value) if folders else value
    if isinstance(value, dict):
        return {k: without_folders(v, folders) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(v, folders) for v in value]
    return value


def _pattern(folders: tuple[str, ...]) -> re.Pattern:
    """Return a pattern of whole paths that begin with one of `folders`; group `inside`: something follows the folder."""
    # Before a path: nothing that makes it part of a longer one, and no sign, plain or escaped, that opens a tag.
    before = r"(?<![\w.~<\\/-])(?<!&lt;)(?<!&#60;)(?<!&#x3c;)(?<!&#x3C;)"
    names = "|".join(map(re.escape, folders))
    return re.compile(rf"(?:file://|{before})(?:{names})(?:(?P<inside>/(?=[\w.~-]))|/?(?![\w@+%~-]|\.\w))")
