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
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from tqdm import tqdm

from helpers import datasets, errors, kernel, paths, provenance, studies
from helpers.errors import ModelError, StudyError, UnavailableError, nearest
from helpers.execution import Executed, RunError, execute, read_notebook, search_path
from helpers.execution import clean as clean  # part of this module's surface

LIVE_ONLY = "live-only"  # cells that show texts of others: their outputs never enter a frozen copy
WORKING = ("surprisal/", "traces/", "own-models/", "adapt/")  # files that stages keep for themselves, by their own keys
# What makes an executed copy out of a notebook; a change of it changes every page.
EXECUTION = (paths.SOURCE / "execution.py", paths.SOURCE / "kernel.py")


@dataclasses.dataclass(frozen=True)
class Task:
    """One notebook of one study. Artifacts are named relative to the study's folder.

    `inputs` are read, `outputs` are written in every study, `optional` in some; `after` are artifacts of other studies
    (``study/name``) that are read if they are there, so a run that makes them makes them first.
    """

    study: studies.Study
    notebook: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

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
    return Task(study, notebook, chosen, **declared(content, paths.label(path)))


def declared(notebook: nbformat.NotebookNode, shown: str) -> dict[str, tuple[str, ...]]:
    """Return what a notebook's front matter says of artifacts: inputs, outputs, optional, after.

    Raises StudyError where it is no list of names.
    """
    said = notebook.metadata.get("companion") or {}
    found = {}
    for key in ("inputs", "outputs", "optional", "after"):
        names = said.get(key) or []
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise StudyError(f"{shown}: 'companion: {key}' is {names!r}; expected a list of names of artifacts.")
        found[key] = tuple(names)
    return found


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
    """Return label -> sha256 of the data that a study names: published files, the laboratory's, the reader's own.

    Other files of the project that a notebook reads are found by watching its run (:mod:`helpers.kernel`).
    """
    known = datasets.manifest() if study.datasets else None
    digests = {
        f"{known.folder(name)}/{path}": digest
        for name in study.datasets
        for path, digest in known.dataset(name).files.items()
    }
    entries = (*study.models.entries, *study.traces.models)
    if study.models.kind == "lab" or any(e.source == "lab" for e in entries):
        digests |= {paths.label(p): provenance.sha256_file(p) for p in sorted(paths.LAB.rglob("*")) if p.is_file()}
    digests |= {
        paths.label(p): provenance.sha256_file(p)
        for p in sorted((paths.DATA / "traces" / study.name).rglob("*.parquet"))
    }  # committed traces of real models
    return digests | _own_files(study)


def _own_files(study: studies.Study) -> dict[str, str]:
    """Return label -> sha256 of what a reader's study names: results folders, text files, checkpoints.

    Each label begins with the key of the study file and ends with the path below what the key names: two folders of one
    name stay apart, and no folder of the machine is told.
    """
    found: dict[str, str] = {}
    for key in ("scores", "questions"):
        if name := getattr(study.benchmarks, key):
            place = paths.ROOT / name
            files = place.rglob("*") if place.is_dir() else [place]
            found |= {f"{key} {p.relative_to(place.parent).as_posix()}": _digest(p) for p in files if p.is_file()}
    if study.corpus.kind == "files":
        for number, pattern in enumerate(study.corpus.sources, 1):
            place = Path(pattern)
            fixed = Path(*itertools.takewhile(lambda part: not set("*?[") & set(part), place.parts))
            base = paths.ROOT / fixed
            rest = place.parts[len(fixed.parts) :]
            files = base.glob(str(Path(*rest))) if rest else base.rglob("*") if base.is_dir() else [base]
            found |= {
                f"source {number}: {p.relative_to(base.parent).as_posix()}": _digest(p) for p in files if p.is_file()
            }
    for entry in (*study.models.entries, *study.traces.models):
        if entry.source == "folder":
            from helpers import models  # torch is slow to import: only where models lie in folders

            try:
                found[f"model {entry.name}"] = models.fingerprint(entry)
            except ModelError as error:  # the notebook that loads it says so, too
                found[f"model {entry.name}"] = str(error)
    return dict(sorted(found.items()))


def _digest(path: Path) -> str:
    try:
        return provenance.sha256_file(path)
    except OSError as error:  # the notebook that reads it is told
        return str(error.strerror)


def key_parts(item: Task) -> dict[str, Any]:
    """Return everything that the result of a task depends on; equal parts mean nothing to run."""
    return {
        "notebook": provenance.sha256_file(item.source),
        "parameters": item.parameters,
        "study": item.study.model_dump(mode="json", exclude={"notebooks"}),
        "helpers": {paths.label(p): provenance.sha256_file(p) for p in imported_helpers(item.source)},
        "execution": {p.name: provenance.sha256_file(p) for p in EXECUTION},
        "lock": provenance.sha256_file(paths.LOCK),
        "data": data_files(item.study),
        "inputs": _digests(item.study, item.inputs),
    }


def _digests(study: studies.Study, names: Iterable[str]) -> dict[str, str | None]:
    """Return sha256 of each artifact, None where the study has none (an axis that it lacks)."""
    files = {name: study.results / name for name in names}
    return {name: provenance.sha256_file(p) if p.is_file() else None for name, p in files.items()}


def _sidecars(study: studies.Study, names: Iterable[str]) -> dict[str, str | None]:
    """Return artifact -> sha256 of its sidecar: without it no reader takes the artifact."""
    digests = _digests(study, [provenance.sidecar(name).as_posix() for name in names])
    return dict(zip(names, digests.values(), strict=True))


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a run (``<notebook>.run.json``), or None where the file is no such record."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    shape = {
        "parts": dict,
        "outputs": dict,
        "sidecars": dict,
        "read": dict,
        "executed": str,
        "frozen": bool,
        "seconds": (int, float),
    }
    shape |= {"study": str, "notebook": str, "date": str, "versions": dict}
    if isinstance(known, dict):  # frozen copies of earlier days do not say what was read
        known = {"read": {}, "sidecars": {}} | known
    sound = isinstance(known, dict) and all(isinstance(known.get(k), kind) for k, kind in shape.items())
    return known if sound else None


def why_run(item: Task) -> str | None:
    """Return why a task must run, or None when its executed copy and outputs are current.

    Asks what a reader of an output asks, too (:func:`helpers.provenance.stale_reason`): nothing is current here that a
    reader would refuse.
    """
    if not item.executed.is_file() or not item.run_file.is_file():
        return "never ran"
    known = read_record(item.run_file)
    if known is None:
        return "never ran: its record is damaged"
    if known["frozen"]:
        return "only a frozen copy is shown"
    before = known["parts"]
    now = json.loads(json.dumps(key_parts(item), default=str))
    for part, value in now.items():
        if value != before.get(part):
            if isinstance(value, dict) and isinstance(before.get(part), dict):
                changed = [k for k in {*value, *before[part]} if value.get(k) != before[part].get(k)]
                return f"{part} changed ({', '.join(sorted(changed)[:3])})"
            return f"{part} changed"
    for name, digest in known["read"].items():
        place = paths.locate(name)
        if not place.is_file() or provenance.sha256_file(place) != digest:
            return f"a file that it read changed ({name})"
    if provenance.sha256_file(item.executed) != known["executed"]:
        return "its executed copy is damaged"
    names = [*known["outputs"], *(n for n in item.outputs if n not in known["outputs"])]
    for name, digest in _digests(item.study, names).items():
        if digest != known["outputs"].get(name):
            return f"its output {name} is missing or changed"
    for name, digest in _sidecars(item.study, names).items():
        if digest != known["sidecars"].get(name):
            return f"the provenance file of its output {name} is missing or changed"
    return next(filter(None, (_refused(item, name) for name in names)), None)


def _refused(item: Task, name: str) -> str | None:
    """Return why a reader would refuse an artifact, None where it would not or where the study lacks it."""
    path = item.study.results / name
    if not path.is_file() or not provenance.sidecar(path).is_file():
        return None
    return provenance.stale_reason(path)


def finish(item: Task, parts: dict[str, Any], done: Executed) -> list[str]:
    """Record a successful run beside its executed copy; return the artifacts it wrote that its front matter omits.

    They are recorded and watched all the same. Raises RunError when a declared output is not there.
    """
    results = item.study.results.resolve()
    wrote = [Path(p).relative_to(results).as_posix() for p in done.wrote if Path(p).is_relative_to(results)]
    wrote = [name for name in wrote if (results / name).is_file() and not name.startswith(WORKING)]
    missing = [name for name in item.outputs if not (results / name).is_file()]
    if missing:
        raise RunError(f"{item}: the notebook ended without writing {', '.join(missing)}, which it declares.")
    outputs = dict.fromkeys([*item.outputs, *wrote])
    for name in outputs:
        if reason := _refused(item, name):
            raise RunError(f"{item}: what it wrote cannot be read: {reason}.")
    own = {str(results / name) for name in outputs} | {str(results / name) for name in item.inputs}
    read = {_read_name(p): digest for p, digest in done.read.items() if p not in own}
    content = {
        "study": item.study.name,
        "notebook": item.notebook,
        "parts": parts,
        "executed": provenance.sha256_file(item.executed),
        "outputs": _digests(item.study, outputs),
        "sidecars": _sidecars(item.study, outputs),
        "read": {n: d for n, d in read.items() if paths.locate(n).is_file()},
        "seconds": round(done.seconds, 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": provenance.versions(),
        "frozen": False,
    }
    text = json.dumps(content, indent=1, sort_keys=True, default=str) + "\n"
    provenance.write_atomic(item.run_file, lambda t: t.write_text(text, encoding="utf-8"))
    return sorted(set(outputs) - {*item.outputs, *item.optional})


def _read_name(path: str) -> str:
    """Return a file's label; an artifact's stays the same when the folder of results is moved."""
    results = paths.results("")
    return (
        f"results:{Path(path).relative_to(results).as_posix()}"
        if Path(path).is_relative_to(results)
        else paths.label(path)
    )


def run(names: Sequence[str], *, jobs: int | None = None, force: bool = False, only: str | None = None) -> int:
    """Run all notebooks of the named studies that need it, up to `jobs` at once; return how many ran.

    A study whose data or extra is not here shows its frozen copies under a visible note. The first failing
    notebook ends the run: notebooks under way are stopped, and the error is raised as RunError. While another process
    runs one of the studies, this one waits (:func:`helpers.provenance.lock`).
    """
    found = [studies.load(name) for name in dict.fromkeys(names)]
    with provenance.lock(study.name for study in found) as held:
        return _run(found, held, jobs=jobs, force=force, only=only)


def _run(
    found: Sequence[studies.Study], held: Sequence[int], *, jobs: int | None, force: bool, only: str | None
) -> int:
    waiting: list[Task] = []
    for study in found:
        chosen = [n for n in study.notebooks if only in (None, n)]
        if only and not chosen:
            raise StudyError(f"study '{study.name}' has no notebook '{only}'; {nearest(only, study.notebooks)}")
        reason = unavailable(study)
        if reason:
            thaw(study, chosen, reason)
        else:
            waiting += [task(study, n) for n in chosen]
    for source in dict.fromkeys(t.source for t in waiting):
        if edited(source):
            print(f"note: {_how_to_keep(source)}", file=sys.stderr)
    jobs = jobs or max(1, min(len(waiting), os.cpu_count() or 1))
    ran, running = 0, {}
    environment = os.environ | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    }
    environment["PYTHONPATH"] = search_path()
    environment |= {"COMPANION_LOCKS": ",".join(map(str, held)), "COMPANION_PARENT": str(os.getpid())}
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
                    running[pool.submit(_child, item, environment, held)] = item
                continue
            if not running:
                blocked = ", ".join(map(str, waiting))
                raise StudyError(f"notebooks wait for each other's artifacts: {blocked}")
            finished, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in finished:
                item = running.pop(future)
                seconds, omitted = future.result()
                progress.write(f"{item}: done in {seconds:.0f} s")
                if omitted:
                    progress.write(f"{item}: wrote {', '.join(omitted)}, which its front matter does not declare.")
                progress.update()
                ran += 1
    finally:
        _stop_children()
        pool.shutdown(wait=True, cancel_futures=True)
        progress.close()
    return ran


def _ready(waiting: Sequence[Task], running: Iterable[Task]) -> list[Task]:
    """Return the waiting tasks of whose inputs none is still to be written, those that most others wait for first."""
    coming: dict[tuple[str, str], list[Task]] = {}
    for t in [*waiting, *running]:
        for name in (*t.outputs, *t.optional):
            coming.setdefault((t.study.name, name), []).append(t)
    before: dict[int, list[Task]] = {}
    for t in waiting:
        wanted = [(t.study.name, name) for name in t.inputs]
        wanted += [tuple(name.split("/", 1)) for name in t.after if not name.startswith(f"{t.study.name}/")]
        before[id(t)] = [c for key in wanted for c in coming.get(key, ()) if c is not t]
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


def _child(item: Task, environment: dict[str, str], held: Sequence[int]) -> tuple[float, list[str]]:
    """Run one task in a process of its own; return seconds and undeclared artifacts. Its kernel dies with it."""
    parts = json.loads(json.dumps(key_parts(item), default=str))
    item.run_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "helpers.runner", "_execute", item.study.name, item.notebook]
    environment = environment | {"COMPANION_SOURCE": f"{paths.label(item.source)}, study {item.study.name}"}
    child = subprocess.Popen(
        command,
        env=environment,
        cwd=paths.ROOT,
        start_new_session=True,
        pass_fds=held,  # an orphan keeps its study locked until it ends
        stdin=subprocess.PIPE,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _children.add(child)
    begun = time.perf_counter()
    try:
        said, wrong = child.communicate(json.dumps(item.parameters))
    finally:
        _children.discard(child)
    if child.returncode:
        ended = f"its process ended with exit status {child.returncode}"
        raise RunError(f"{item}: {wrong.split('ERROR: ', 1)[-1].strip() or ended}")
    told = json.loads(said.splitlines()[-1])
    seconds = time.perf_counter() - begun
    return seconds, finish(item, parts, Executed(seconds, tuple(told["wrote"]), told["read"]))


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
        record = read_record(source.with_suffix(".run.json"))
        if record is None:
            raise UnavailableError(
                f"{item}: {paths.label(source.with_suffix('.run.json'))} is damaged; restore it from git."
            )
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
    """Write the output-free ``.ipynb`` beside every MyST notebook, keeping cell ids stable; return changed files.

    Raises StudyError, before anything is written, for an ``.ipynb`` whose cells were edited since it was derived.
    """
    sources = sorted([*paths.NOTEBOOKS.glob("*.md"), *(paths.NOTEBOOKS / "exercises").glob("*.md")])
    wrong = [_how_to_keep(source) for source in sources if edited(source)]
    if wrong:
        raise StudyError("\n".join(wrong))
    return [target for source in sources if (target := _derive(source))]


def _derive(source: Path) -> Path | None:
    target, text = source.with_suffix(".ipynb"), paired(source)
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return None
    return provenance.write_atomic(target, lambda t: t.write_text(text, encoding="utf-8"))


def paired(source: Path) -> str:
    """Return the text of the output-free notebook that belongs to a MyST notebook.

    Its metadata hold a hash of its cells, so that a later look tells whether somebody edited them.
    """
    notebook = read_notebook(source)
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    notebook.metadata["derived"] = _cells_key(notebook)
    return nbformat.writes(notebook) + "\n"


def _cells_key(notebook: nbformat.NotebookNode) -> str:
    """Return a hash of what a person edits in a notebook: kind, text and tags of its cells, not their outputs."""
    cells = [(c.cell_type, c.source.rstrip(), list(c.metadata.get("tags", []))) for c in notebook.cells]
    return provenance.content_key(cells)


def _read_pair(source: Path) -> nbformat.NotebookNode | None:
    target = source.with_suffix(".ipynb")
    if not target.exists():
        return None
    try:
        return nbformat.read(target, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        shown = paths.label(target)
        raise StudyError(
            f"{shown} is not a notebook ({error}); delete it, then `make notebooks` makes it again."
        ) from None


def edited(source: Path) -> bool:
    """Return whether the ``.ipynb`` beside a MyST notebook holds edits that the text lacks; outputs are no edits."""
    pair = _read_pair(source)
    if pair is None:
        return False
    own = _cells_key(pair)
    return own != pair.metadata.get("derived") and own != _cells_key(read_notebook(source))


def _how_to_keep(source: Path) -> str:
    text, pair = paths.label(source), paths.label(source.with_suffix(".ipynb"))
    return (
        f"{pair} holds cells that {text} lacks, and only the text runs. Keep them with "
        f"`make notebooks KEEP={pair}`, which writes them into {text}; or drop them: delete {pair}, then `make notebooks`."
    )


def keep(pair: Path) -> Path:
    """Write the edits of an ``.ipynb`` into its MyST text and derive the pair again; return the text's path.

    Raises StudyError where there is no such pair, or where the text changed as well since the pair was derived.
    """
    source = pair.with_suffix(".md")
    shown, text = paths.label(pair), paths.label(source)
    if pair.suffix != ".ipynb" or not pair.is_file() or not source.is_file():
        raise StudyError(
            f"KEEP names '{shown}'; expected a notebook such as notebooks/meet-the-study.ipynb beside its .md."
        )
    theirs, ours = _read_pair(source), read_notebook(source)
    if not edited(source):
        raise StudyError(f"{shown} holds no edits that {text} lacks; nothing to keep.")
    if theirs.metadata.get("derived") != _cells_key(ours):
        raise StudyError(
            f"{shown} and {text} were both edited since one was derived from the other. Move the edits of the .ipynb "
            f"into {text} by hand, delete {shown}, then `make notebooks`."
        )
    ours.cells = [c for c in theirs.cells if c.source.strip()]
    head = _front_matter(source.read_text(encoding="utf-8"))  # as it is written: comments and line breaks included
    written = jupytext.writes(ours, fmt="md:myst")
    whole = head + written[len(_front_matter(written)) :]
    provenance.write_atomic(source, lambda t: t.write_text(whole, encoding="utf-8"))
    _derive(source)
    return source


def _front_matter(text: str) -> str:
    return re.match(r"---\n.*?\n---\n", text, re.DOTALL).group()


@errors.command
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
    derive = commands.add_parser("sync", help="derive the paired .ipynb files")
    derive.add_argument("--keep", action="append", default=[], help="an .ipynb whose edits go into its text first")
    one = commands.add_parser("_execute")
    one.add_argument("study")
    one.add_argument("notebook")
    options = parser.parse_args(arguments)
    # unwind when terminated: notebooks under way are stopped, temporary folders go
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
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
        kept = [keep(Path(p).resolve()) for p in options.keep]
        changed = sync()
        print("\n".join(paths.label(p) for p in [*kept, *changed]) or "The paired notebooks are current.")
    else:
        kernel.end_with(int(os.environ["COMPANION_PARENT"]))
        item = task(studies.load(options.study), options.notebook, json.load(sys.stdin))
        done = execute(item.source, item.parameters, item.executed, heading=item.study.title)
        print(json.dumps(dataclasses.asdict(done)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
