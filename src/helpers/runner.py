"""Run the notebooks of studies with papermill, keyed on content.

A notebook runs again exactly when something it depends on changed: its own text, its parameters, the study
file, a helper module that it imports (directly or not), the lock file, the study's data, or an artifact that
it reads. Modification times play no part. Executed copies land in ``book/notebooks/<study>/`` in one rename,
beside a ``<notebook>.run.json`` that records the key, parameters, duration and sha256 of inputs and outputs;
a killed run leaves nothing half-written and continues with the first unfinished notebook.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import dataclasses
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from helpers import datasets, paths, provenance, studies
from helpers.errors import CompanionError, StudyError, UnavailableError, nearest
from helpers.fragments import literal

OPTIONAL = ("overlap/", "questions.parquet")  # an axis or texts that a study may lack
LIVE_ONLY = "live-only"  # cells that show texts of others: their outputs never enter a frozen copy
PATIENCE = 300  # seconds for a kernel to start and to hand over an output; the default of 4 is short on a busy machine
LONG_CELL, WIDE_CELL = 4, 100  # lines and letters of code that a page shows; more is folded, one click away
UNFOLDED = {"parameters", "hide-cell", "remove-cell"}  # cells to be seen, or hidden already


class RunError(CompanionError):
    """A notebook failed; the message names study, notebook, cell and error."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One notebook of one study. `inputs` and `outputs` are artifacts relative to the study's folder."""

    study: studies.Study
    notebook: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def source(self) -> Path:
        return paths.NOTEBOOKS / f"{self.notebook}.md"

    @property
    def executed(self) -> Path:
        return paths.EXECUTED / self.study.name / f"{self.notebook}.ipynb"

    @property
    def run_file(self) -> Path:
        return self.executed.with_suffix(".run.json")

    def __str__(self) -> str:
        return f"{self.study.name}/{self.notebook}"


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
    seen: dict[str, int] = {}
    for cell in notebook.cells:  # jupytext draws cell ids at random; ids that follow the content keep diffs small
        digest = provenance.content_key(cell.cell_type, cell.source)[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def known_parameters(notebook: nbformat.NotebookNode) -> set[str]:
    """Return the names assigned in the cell tagged ``parameters``."""
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    known = set()
    for node in ast.parse(cell.source).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        known |= {t.id for t in targets if isinstance(t, ast.Name)}
    return known


def task(study: studies.Study, notebook: str, parameters: dict[str, Any] | None = None) -> Task:
    """Return the task of a notebook in a study, with its parameters checked before anything runs."""
    path = paths.NOTEBOOKS / f"{notebook}.md"
    if not path.exists():
        known = [p.stem for p in paths.NOTEBOOKS.glob("*.md")]
        raise StudyError(f"No notebook '{notebook}'; {nearest(notebook, known)}")
    content = read_notebook(path)
    known = known_parameters(content)
    chosen = dict(study.notebooks.get(notebook, {})) | dict(parameters or {})
    if "study_name" in known:
        chosen.setdefault("study_name", study.name)
    for name in chosen:
        if name not in known:
            raise StudyError(
                f"{paths.label(path)} has no parameter '{name}' (asked for by study '{study.name}'); {nearest(name, known)}"
            )
    declared = content.metadata.get("companion", {})
    return Task(study, notebook, chosen, tuple(declared.get("inputs", ())), tuple(declared.get("outputs", ())))


def _module_file(name: str) -> Path | None:
    base = paths.SOURCE.parent / Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@cache
def _imports(path: Path, text: str) -> frozenset[Path]:
    """Return the helper files that a piece of Python imports, at any depth of nesting within it."""
    found: set[Path] = set()
    package = ".".join(path.relative_to(paths.SOURCE.parent).parent.parts) if path.is_relative_to(paths.SOURCE) else ""
    for node in ast.walk(ast.parse(text)):
        wanted: list[str] = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            wanted = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in wanted:
            if name.split(".")[0] == "helpers" and (file := _module_file(name)):
                found.add(file)
    return frozenset(found)


def imported_helpers(notebook: Path) -> list[Path]:
    """Return the helper files that a notebook imports, directly or through other helpers, sorted.

    >>> from helpers import paths
    >>> "studies.py" in [p.name for p in imported_helpers(paths.NOTEBOOKS / "meet-the-study.md")]
    True
    """
    cells = [c.source for c in jupytext.read(notebook).cells if c.cell_type == "code"]
    code = "\n".join(re.sub(r"^[%!].*$", "pass", cell, flags=re.MULTILINE) for cell in cells)
    seen: set[Path] = set()
    todo = set(_imports(notebook, code))
    while todo:
        path = todo.pop()
        seen.add(path)
        todo |= _imports(path, path.read_text(encoding="utf-8")) - seen
    return sorted(seen)


def data_files(study: studies.Study) -> dict[str, str]:
    """Return label -> sha256 of the data that a study stands on: its published files and the laboratory's."""
    known = datasets.manifest() if study.datasets else None
    digests = {
        f"{known.folder(name)}/{path}": digest
        for name in study.datasets
        for path, digest in known.dataset(name).files.items()
    }
    if study.models.kind == "lab":
        digests |= {paths.label(p): provenance.sha256_file(p) for p in sorted(paths.LAB.rglob("*")) if p.is_file()}
    digests |= {
        paths.label(p): provenance.sha256_file(p)
        for p in sorted((paths.DATA / "traces" / study.name).rglob("*.parquet"))
    }  # committed traces of real models
    examples = [paths.label(p) for p in sorted((paths.DATA / "examples").glob("*")) if p.is_file()]
    for name in (study.benchmarks.scores, study.benchmarks.questions, *examples):
        if name and Path(paths.ROOT / name).is_file():
            digests[name] = provenance.sha256_file(paths.ROOT / name)
    return digests | _own_files(study)


def _own_files(study: studies.Study) -> dict[str, str]:
    """Return label -> sha256 of what a reader's study names: results folders, text files, checkpoints."""
    found: list[Path] = []
    if study.benchmarks.scores:
        found += (paths.ROOT / study.benchmarks.scores).rglob("*.json")
    if study.corpus.kind == "files":
        for pattern in study.corpus.sources:
            place = paths.ROOT / pattern
            found += place.parent.glob(place.name) if Path(pattern).is_absolute() else paths.ROOT.glob(pattern)
    for entry in study.models.entries:
        if entry.source == "folder":
            found += (paths.ROOT / entry.id).glob("*.safetensors")
    return {f"{p.parent.name}/{p.name}": provenance.sha256_file(p) for p in sorted(found) if p.is_file()}


def key_parts(item: Task) -> dict[str, Any]:
    """Return everything that the result of a task depends on; equal parts mean nothing to run."""
    return {
        "notebook": provenance.sha256_file(item.source),
        "parameters": item.parameters,
        "study": item.study.model_dump(mode="json", exclude={"notebooks"}),
        "helpers": {paths.label(p): provenance.sha256_file(p) for p in imported_helpers(item.source)},
        "lock": provenance.sha256_file(paths.LOCK),
        "data": data_files(item.study),
        "inputs": _digests(item.study, item.inputs),
    }


def _digests(study: studies.Study, names: Iterable[str]) -> dict[str, str | None]:
    """Return sha256 of each artifact, None where the study has none (an axis that it lacks)."""
    files = {name: study.results / name for name in names}
    return {name: provenance.sha256_file(p) if p.is_file() else None for name, p in files.items()}


def why_run(item: Task) -> str | None:
    """Return why a task must run, or None when its executed copy and outputs are current."""
    if not item.executed.exists() or not item.run_file.exists():
        return "never ran"
    try:
        known = json.loads(item.run_file.read_text(encoding="utf-8"))
        before, outputs = known["parts"], known["outputs"]
        copy = known["executed"]
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return "its record is damaged"
    if known.get("frozen"):
        return "only a frozen copy is shown"
    now = json.loads(json.dumps(key_parts(item), default=str))
    for part, value in now.items():
        if value != before.get(part):
            if isinstance(value, dict) and isinstance(before.get(part), dict):
                changed = [k for k in {*value, *before[part]} if value.get(k) != before[part].get(k)]
                return f"{part} changed ({', '.join(sorted(changed)[:3])})"
            return f"{part} changed"
    if provenance.sha256_file(item.executed) != copy:
        return "its executed copy is damaged"
    for name, digest in _digests(item.study, item.outputs).items():
        if digest != outputs.get(name):
            return f"its output {name} is missing or changed"
    return None


def execute(source: Path, parameters: dict[str, Any], destination: Path, *, heading: str | None = None) -> float:
    """Run one MyST notebook with papermill in this process and write the cleaned copy; return seconds.

    Raises RunError with the failing cell. The failing copy is kept under ``data/results/failed`` for inspection.
    """
    notebook = read_notebook(source)
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
                progress_bar=False,
                log_output=False,
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
            )
        except (DeadKernelError, CellTimeoutError) as error:
            raise RunError(
                f"{source.name}: cell {_reached(done)} gave no answer: {str(error).splitlines()[0]}. Most often the "
                "system ended the kernel for want of memory: free some, or run fewer notebooks at once (--jobs 1)."
            ) from None
        except PapermillExecutionError as error:
            kept = paths.results("failed") / source.name.replace(".md", ".ipynb")
            provenance.write_atomic(kept, lambda t: t.write_bytes(done.read_bytes()))
            raise RunError(
                f"{source.name}: cell {error.cell_index} (execution {error.exec_count}) failed:\n"
                f"  {error.ename}: {error.evalue}\nin\n{_indent(error.source)}\n"
                f"The copy up to that cell is {paths.label(kept)}."
            ) from None
        seconds = time.perf_counter() - begun
        executed = nbformat.read(done, as_version=4)
    clean(executed, source, destination, heading)
    provenance.write_atomic(destination, lambda t: nbformat.write(executed, t))
    return seconds


def _reached(copy: Path) -> str:
    """Return the number and first line of the last cell that a copy, whose kernel is gone, came to."""
    cells = nbformat.read(copy, as_version=4).cells if copy.exists() else []
    come = [i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("status") != "pending"]
    return f"{come[-1]} ({cells[come[-1]].source.strip().splitlines()[0]})" if come else "(unknown)"


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines()[:12])


def clean(notebook: nbformat.NotebookNode, source: Path, destination: Path, heading: str | None) -> None:
    """Strip machine paths, stderr and timings from an executed notebook, fold long code, in place; extend its title."""
    notebook.metadata["papermill"] = {
        "input_path": paths.label(source),
        "output_path": paths.label(destination),
        "parameters": notebook.metadata.get("papermill", {}).get("parameters", {}),
    }
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown" and heading and cell.source.startswith("# "):
            first, _, rest = cell.source.partition("\n")
            cell.source = f"{first}: {literal(heading)}\n{rest}"
            heading = None
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
            for output in cell.outputs:  # the page shows the HTML form; plotly's own doubles the weight
                if "text/html" in output.get("data", {}):
                    output.data.pop("application/vnd.plotly.v1+json", None)
            tags = cell.metadata.get("tags", [])
            if "injected-parameters" in tags:
                cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
            elif not {*tags} & UNFOLDED and (
                cell.source.count("\n") >= LONG_CELL or max(map(len, cell.source.split("\n"))) > WIDE_CELL
            ):
                cell.metadata["tags"] = list(dict.fromkeys([*tags, "hide-input"]))
    text = nbformat.writes(notebook)
    for folder in sorted(
        {str(paths.ROOT), str(paths.upstream()), str(paths.results("")), str(Path.home()), sys.prefix},
        key=len,
        reverse=True,
    ):
        if len(folder) > 3:
            text = text.replace(json.dumps(folder)[1:-1] + "/", "").replace(json.dumps(folder)[1:-1], ".")
    cleaned = nbformat.reads(text, as_version=4)
    notebook.cells, notebook.metadata = cleaned.cells, cleaned.metadata


def finish(item: Task, parts: dict[str, Any], seconds: float) -> None:
    """Record a successful run beside its executed copy."""
    lacking = OPTIONAL + (("benchmarks.csv", "scores.csv") if item.study.benchmarks.kind == "none" else ())
    written = _digests(item.study, item.outputs)
    missing = [name for name, digest in written.items() if digest is None and not name.startswith(lacking)]
    if missing:
        raise RunError(f"{item}: the notebook ended without writing {', '.join(missing)}, which it declares.")
    content = {
        "study": item.study.name,
        "notebook": item.notebook,
        "parts": parts,
        "executed": provenance.sha256_file(item.executed),
        "outputs": _digests(item.study, item.outputs),
        "seconds": round(seconds, 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": provenance.versions(),
        "frozen": False,
    }
    text = json.dumps(content, indent=1, sort_keys=True, default=str) + "\n"
    provenance.write_atomic(item.run_file, lambda t: t.write_text(text, encoding="utf-8"))


def run(names: Sequence[str], *, jobs: int | None = None, force: bool = False, only: str | None = None) -> int:
    """Run all notebooks of the named studies that need it, up to `jobs` at once; return how many ran.

    A study whose data or extra is not here shows its frozen copies under a visible note. The first failing
    notebook ends the run: notebooks under way are stopped, and the error is raised as RunError.
    """
    waiting: list[Task] = []
    for name in names:
        study = studies.load(name)
        chosen = [n for n in study.notebooks if only in (None, n)]
        if only and not chosen:
            raise StudyError(f"study '{name}' has no notebook '{only}'; {nearest(only, study.notebooks)}")
        reason = unavailable(study)
        if reason:
            thaw(study, chosen, reason)
        else:
            waiting += [task(study, n) for n in chosen]
    jobs = jobs or max(1, min(len(waiting), os.cpu_count() or 1))
    ran, running = 0, {}
    environment = os.environ | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    }
    progress = tqdm(total=len(waiting), unit="notebook", desc="notebooks", disable=None)
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        while waiting or running:
            ready = _ready(waiting, running.values())
            if ready and len(running) < jobs:
                item = ready[0]
                waiting.remove(item)
                reason = "asked for" if force else why_run(item)
                if reason is None:
                    progress.update()
                else:
                    progress.write(f"{item}: running, {reason}")
                    running[pool.submit(_child, item, environment)] = item
                continue
            if not running:
                blocked = ", ".join(map(str, waiting))
                raise StudyError(f"notebooks wait for each other's artifacts: {blocked}")
            finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in finished:
                item = running.pop(future)
                progress.write(f"{item}: done in {future.result():.0f} s")
                progress.update()
                ran += 1
    finally:
        _stop_children()
        pool.shutdown(wait=True, cancel_futures=True)
        progress.close()
    return ran


def _ready(waiting: Sequence[Task], running: Iterable[Task]) -> list[Task]:
    """Return the waiting tasks of whose inputs none is still to be written, those that most others wait for first."""
    coming = {(t.study.name, o): t for t in [*waiting, *running] for o in t.outputs}
    before = {id(t): [c for i in t.inputs if (c := coming.get((t.study.name, i), t)) is not t] for t in waiting}
    chain = dict.fromkeys(before, 1)  # notebooks in the longest chain that begins with a task
    for _ in waiting:  # as many rounds as a chain can be long; a circle, which `run` refuses, ends here too
        longer = dict(chain)
        for t in waiting:
            for earlier in before[id(t)]:
                if id(earlier) in longer:
                    longer[id(earlier)] = max(longer[id(earlier)], chain[id(t)] + 1)
        if longer == chain:
            break
        chain = longer
    return sorted((t for t in waiting if not before[id(t)]), key=lambda t: -chain[id(t)])


_children: set[subprocess.Popen] = set()


def _child(item: Task, environment: dict[str, str]) -> float:
    """Run one task in a process of its own; return seconds. Its kernel dies with it."""
    parts = json.loads(json.dumps(key_parts(item), default=str))
    item.run_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "helpers.runner", "_execute", item.study.name, item.notebook]
    environment = environment | {"COMPANION_SOURCE": f"{paths.label(item.source)}, study {item.study.name}"}
    child = subprocess.Popen(
        command,
        env=environment,
        cwd=paths.ROOT,
        start_new_session=True,
        stdin=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _children.add(child)
    begun = time.perf_counter()
    try:
        _, errors = child.communicate(json.dumps(item.parameters))
    finally:
        _children.discard(child)
    if child.returncode:
        message = errors.split("ERROR: ", 1)[-1].strip() if errors else f"exit status {child.returncode}"
        raise RunError(f"{item}: {message}")
    seconds = time.perf_counter() - begun
    finish(item, parts, seconds)
    return seconds


def _stop_children() -> None:
    for child in list(_children):
        if child.poll() is None:
            try:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                child.kill()


def unavailable(study: studies.Study) -> str | None:
    """Return why a study cannot run live here (missing data or extra), or None."""
    if study.name in os.environ.get("COMPANION_FROZEN", "").split(","):
        return "frozen copies were asked for (COMPANION_FROZEN)"
    if study.extra and os.environ.get("COMPANION_LIVE") != study.name:
        return f"it runs on request only: `make study STUDY={study.name}` (it needs the extra '{study.extra}')"
    return datasets.unavailable(study.datasets) if study.datasets else None


def frozen(study: studies.Study, notebook: str) -> Path:
    """Return the path of the committed, dated copy of an executed notebook."""
    return paths.FROZEN / study.name / f"{notebook}.ipynb"


def thaw(study: studies.Study, notebooks: Iterable[str], reason: str) -> None:
    """Show the frozen copies of a study, each under a note with its date and the reason.

    Raises UnavailableError when no frozen copy exists.
    """
    for name in notebooks:
        item, source = task(study, name), frozen(study, name)
        if not source.exists():
            raise UnavailableError(f"{item}: {reason}, and there is no frozen copy {paths.label(source)}.")
        record = json.loads(source.with_suffix(".run.json").read_text(encoding="utf-8"))
        current = json.loads(json.dumps(key_parts(item), default=str))
        changed = [
            p for p in ("notebook", "parameters", "study", "helpers", "lock") if record["parts"].get(p) != current[p]
        ]
        state = (
            "The notebook, its parameters and the code it uses are unchanged since."
            if not changed
            else f"Changed since in this repository: {', '.join(changed)}; the numbers below predate that."
        )
        note = (
            f":::{{admonition}} Frozen results of {record['date']}\n:class: warning frozen\n"
            f"This page was not computed in this build: {reason}. It shows results computed on {record['date']}. {state}\n:::"
        )
        notebook = nbformat.read(source, as_version=4)
        cell = nbformat.v4.new_markdown_cell(note, id="frozen-note")
        notebook.cells.insert(1, cell)
        provenance.write_atomic(item.executed, lambda t, n=notebook: nbformat.write(n, t))
        text = (
            json.dumps(record | {"frozen": True, "reason": reason, "changed": changed}, indent=1, sort_keys=True) + "\n"
        )
        provenance.write_atomic(item.run_file, lambda t, x=text: t.write_text(x, encoding="utf-8"))
        print(f"{item}: frozen copy of {record['date']} ({reason})")


def freeze(name: str) -> list[Path]:
    """Copy the executed notebooks of a study to ``book/frozen``; outputs of ``live-only`` cells are left out.

    Raises StaleArtifactError-like RunError when a notebook is not current, so that no old number is frozen as new.
    """
    study = studies.load(name)
    written = []
    for notebook_name in study.notebooks:
        item = task(study, notebook_name)
        reason = why_run(item)
        if reason:
            raise RunError(f"{item} is not current ({reason}); run `make study STUDY={name}` first.")
        notebook = nbformat.read(item.executed, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code" and LIVE_ONLY in cell.metadata.get("tags", []):
                note = "Shown only when the notebook runs live: texts of others are not kept in this repository."
                cell.outputs = [nbformat.v4.new_output("display_data", data={"text/markdown": f"*{note}*"})]
        target = frozen(study, notebook_name)
        provenance.write_atomic(target, lambda t, n=notebook: nbformat.write(n, t))
        provenance.write_atomic(
            target.with_suffix(".run.json"), lambda t, i=item: t.write_bytes(i.run_file.read_bytes())
        )
        written.append(target)
        for name in item.outputs:  # the small result tables that pages of the whole book collect
            table = study.results / name
            small = table.is_file() and table.suffix == ".csv" and table.stat().st_size < 2**18
            if small and "/" not in name:
                provenance.write_atomic(
                    paths.FROZEN / study.name / name, lambda t, x=table: t.write_bytes(x.read_bytes())
                )
    return written


def sync() -> list[Path]:
    """Write the output-free ``.ipynb`` beside every MyST notebook, keeping cell ids stable; return changed files."""
    changed = []
    for source in sorted([*paths.NOTEBOOKS.glob("*.md"), *(paths.NOTEBOOKS / "exercises").glob("*.md")]):
        target = source.with_suffix(".ipynb")
        text = paired(source)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            provenance.write_atomic(target, lambda t, x=text: t.write_text(x, encoding="utf-8"))
            changed.append(target)
    return changed


def paired(source: Path) -> str:
    """Return the text of the output-free notebook that belongs to a MyST notebook."""
    notebook = read_notebook(source)
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    return nbformat.writes(notebook) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the make targets; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.runner", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="run the notebooks of studies")
    runs.add_argument("studies", nargs="+")
    runs.add_argument("--jobs", type=int)
    runs.add_argument("--force", action="store_true")
    runs.add_argument("--only", help="one notebook")
    commands.add_parser("freeze", help="keep dated copies of a study's pages").add_argument("studies", nargs="+")
    commands.add_parser("sync", help="derive the paired .ipynb files")
    one = commands.add_parser("_execute")
    one.add_argument("study")
    one.add_argument("notebook")
    options = parser.parse_args(arguments)
    # unwind when terminated: notebooks under way are stopped, temporary folders go
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.command == "run":
            ran = run(options.studies, jobs=options.jobs, force=options.force, only=options.only)
            print(f"{ran} notebook(s) ran; the rest was current.")
        elif options.command == "freeze":
            for name in options.studies:
                print("\n".join(paths.label(p) for p in freeze(name)))
                if (studies.load(name).results / "maps.csv").exists():
                    from helpers import cards  # plotting libraries load slowly

                    print(paths.label(cards.freeze(name)))
        elif options.command == "sync":
            print("\n".join(paths.label(p) for p in sync()) or "The paired notebooks are current.")
        else:
            item = task(studies.load(options.study), options.notebook, json.load(sys.stdin))
            execute(item.source, item.parameters, item.executed, heading=item.study.title)
    except CompanionError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"ERROR: {error.strerror or error} ({paths.label(error.filename) if error.filename else 'no file named'}). "
            "Nothing half-written was kept; free the resource and run again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Stopped. Finished notebooks are kept; the next run continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
