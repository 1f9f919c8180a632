"""The runner: what runs, what does not, and what is left behind when something fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jupytext
import nbformat
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from helpers import execution, paths, provenance, runner, studies
from helpers.errors import StudyError


def ran(result) -> set[str]:
    assert result.returncode == 0, result.stderr
    return {line.split(":")[0] for line in (result.stdout + result.stderr).splitlines() if ": running, " in line}


def test_runs_once_then_only_what_changed(project):
    both = {"tiny/make-number", "tiny/read-number"}
    assert ran(project.run("run", "tiny")) == both
    assert ran(project.run("run", "tiny")) == set()

    # new text, same artifact: what only reads the artifact stays
    project.notebook("make-number").write_text(project.notebook("make-number").read_text() + "\nA last word.\n")
    assert ran(project.run("run", "tiny")) == {"tiny/make-number"}

    # a new parameter changes the artifact, so its reader runs too (and the study file is part of every key)
    project.study.write_text(project.study.read_text().replace("number: 2", "number: 3"))
    assert ran(project.run("run", "tiny")) == both

    # a damaged artifact and a deleted page are made again
    artifact = project.root / "data" / "results" / "tiny" / "number.csv"
    artifact.write_text("number\n99\n")
    assert "tiny/make-number" in ran(project.run("run", "tiny"))
    assert artifact.read_text() == "number\n3\n"
    project.executed("read-number").unlink()
    assert ran(project.run("run", "tiny")) == {"tiny/read-number"}


def test_executed_copy_is_clean_and_titled(project):
    ran(project.run("run", "tiny"))
    text = project.executed("make-number").read_text()
    assert str(project.root) not in text and sys.prefix not in text
    notebook = nbformat.reads(text, as_version=4)
    assert notebook.cells[0].source.startswith("# Make a number: a tiny study")
    assert notebook.metadata["papermill"]["input_path"] == "notebooks/make-number.md"
    record = json.loads(project.executed("make-number").with_suffix(".run.json").read_text())
    assert record["parts"]["parameters"] == {"number": 2, "study_name": "tiny"}
    assert set(record["outputs"]) == {"number.csv"}


def test_long_code_is_folded():
    def cell(lines, *tags):
        return nbformat.v4.new_code_cell("\n".join(["x = 1"] * lines), metadata={"tags": [*tags]})

    cells = [cell(4), cell(5), cell(5, "parameters"), cell(5, "hide-cell"), cell(9, "live-only")]
    cells.append(nbformat.v4.new_code_cell("x = " + "1" * 97, metadata={"tags": []}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    runner.clean(notebook, paths.NOTEBOOKS / "a.md", paths.EXECUTED / "a.ipynb", None)
    tags = [c.metadata["tags"] for c in notebook.cells]
    assert tags == [
        [],
        ["hide-input"],
        ["parameters"],
        ["hide-cell"],
        ["live-only", "hide-input"],
        ["hide-input"],
    ]


def test_first_failing_cell_ends_the_run_with_its_place(project):
    broken = project.notebook("read-number")
    broken.write_text(broken.read_text().replace("print(", "raise ValueError('no such number')\nprint("))
    result = project.run("run", "tiny")
    assert result.returncode == 1
    for words in ("tiny/read-number", "cell 3", "line 3", "ValueError", "no such number", "-->   3 raise ValueError"):
        assert words in result.stderr, result.stderr
    assert not project.executed("read-number").exists()
    assert project.executed("make-number").exists()

    broken.write_text(broken.read_text().replace("raise ValueError('no such number')\n", ""))
    assert ran(project.run("run", "tiny")) == {"tiny/read-number"}


def test_a_kernel_that_dies_is_an_error_with_its_place(project):
    deadly = project.notebook("read-number")
    deadly.write_text(deadly.read_text().replace("print(", "import os\nos._exit(9)\nprint("))
    result = project.run("run", "tiny")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    for words in ("tiny/read-number", "cell 3", "died", "want of memory"):
        assert words in result.stderr, result.stderr
    assert not project.executed("read-number").exists()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_killed_build_leaves_nothing_half_written_and_resumes(project, sent, status):
    slow = project.notebook("read-number")
    begun_file = project.root / "begun"
    wait = f"import time\nopen({str(begun_file)!r}, 'w').close()\ntime.sleep(60)\nprint("
    slow.write_text(slow.read_text().replace("print(", wait))
    command = [sys.executable, "-m", "helpers.runner", "run", "tiny"]
    # a shell's background job, as which these tests may run, has SIGINT ignored, and children inherit that
    child = subprocess.Popen(
        command,
        env=project.environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 120
    while not begun_file.exists():
        assert time.monotonic() < limit, "the second notebook never began"
        time.sleep(0.05)
    assert project.executed("make-number").with_suffix(".run.json").exists()
    begun = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(sent)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == status, errors
    assert "Traceback" not in errors
    assert begun and not psutil.wait_procs(begun, timeout=30)[1], "a notebook goes on without its build"
    folder = project.executed("read-number").parent
    assert not project.executed("read-number").exists()
    assert not [p for p in folder.iterdir() if p.name.endswith(".part")]

    slow.write_text(slow.read_text().replace("time.sleep(60)", "pass"))
    assert ran(project.run("run", "tiny")) == {"tiny/read-number"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which refuses every byte")
def test_full_disk_is_told_and_leaves_nothing(tmp_path):
    def write(temporary):
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(full, b"x")
        finally:
            os.close(full)

    with pytest.raises(OSError, match="No space left"):
        provenance.write_atomic(tmp_path / "table.csv", write)
    assert list(tmp_path.iterdir()) == []


def test_unknown_parameter_is_refused_before_anything_runs(project):
    project.study.write_text(project.study.read_text().replace("{number: 2}", "{numbr: 2}"))
    result = project.run("run", "tiny")
    assert result.returncode == 1
    assert "no parameter 'numbr'" in result.stderr and "'number'" in result.stderr
    assert not project.executed("make-number").exists()


def test_notebook_without_parameters_cell_is_refused(project):
    source = project.notebook("make-number")
    source.write_text(source.read_text().replace(":tags: [parameters]", ":tags: [other]"))
    result = project.run("run", "tiny")
    assert result.returncode == 1 and "tagged 'parameters', found 0" in result.stderr


def test_declared_output_that_is_not_written_is_an_error(project):
    source = project.notebook("make-number")
    source.write_text(source.read_text().replace("[number.csv]", "[number.csv, other.csv]"))
    result = project.run("run", "tiny")
    assert result.returncode == 1 and "without writing other.csv" in result.stderr


def test_frozen_copies_show_their_date_and_drop_live_only_outputs(project):
    source = project.notebook("read-number")
    source.write_text(
        source.read_text() + "\n```{code-cell} ipython3\n:tags: [live-only]\n\nprint('a secret text')\n```\n"
    )
    ran(project.run("run", "tiny"))
    assert "a secret text\\n" in project.executed("read-number").read_text()
    assert project.run("freeze", "tiny").returncode == 0
    copy = project.root / "book" / "frozen" / "tiny" / "read-number.ipynb"
    outputs = [o for c in nbformat.read(copy, as_version=4).cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if "a secret text" in str(o.get("text", ""))]

    project.study.write_text(project.study.read_text() + "extra: something-rare\n")
    assert ran(project.run("run", "tiny")) == set()
    shown = nbformat.read(project.executed("read-number"), as_version=4)
    assert "Frozen results of 2" in shown.cells[1].source
    assert "Changed since in this repository: study" in shown.cells[1].source


def test_freeze_refuses_pages_that_are_not_current(project):
    ran(project.run("run", "tiny"))
    project.notebook("read-number").write_text(project.notebook("read-number").read_text() + "\nMore.\n")
    result = project.run("freeze", "tiny")
    assert result.returncode == 1 and "not current" in result.stderr


def test_missing_data_without_frozen_copy_is_told(project):
    project.study.write_text(project.study.read_text() + "extra: something-rare\n")
    result = project.run("run", "tiny")
    assert result.returncode == 1 and "no frozen copy" in result.stderr


def test_changed_helper_reaches_exactly_its_importers():
    importers = {
        notebook.stem: {p.stem for p in runner.imported_helpers(notebook)} for notebook in paths.NOTEBOOKS.glob("*.md")
    }
    assert "screening" in importers["select-signatures"]
    assert "traces" not in importers["select-signatures"]
    assert all("runner" not in modules for modules in importers.values())


def test_every_study_names_only_known_parameters():
    for name in studies.names():
        study = studies.load(name)
        for notebook in study.notebooks:
            runner.task(study, notebook)
    with pytest.raises(StudyError, match="has no parameter 'stdy_name'"):
        runner.task(studies.load("lab"), "meet-the-study", {"stdy_name": "x"})


RICH = """
```{code-cell} ipython3
import sys

import pandas as pd

from helpers import paths, provenance

folder = paths.results(study_name)
provenance.write_table(folder / "extra.csv", pd.DataFrame({"x": [1]}), inputs=[paths.DATA / "listed.csv"])
print(len(pd.read_csv(paths.DATA / "opened.csv")), end="", flush=True)
print(" row", file=sys.stdout)
print("a warning", "in red", file=sys.stderr)
```
"""
# Asks why notebooks run after each change of a file (null: deleted), which is taken back; one process for all questions.
ASK = """
import json, sys
from helpers import paths, runner, studies
study = studies.load("tiny")
for name, old, new in json.load(sys.stdin):
    path = paths.ROOT / name
    before = path.read_bytes()
    assert old is None or old.encode() in before, (name, old)
    path.unlink() if new is None else path.write_bytes(before.replace(old.encode(), new.encode()) if old else new.encode())
    reasons = {n: runner.why_run(runner.task(study, n)) for n in study.notebooks}
    path.write_bytes(before)
    print(json.dumps({n: r for n, r in reasons.items() if r}))
"""


def ask(project, changes, **environment) -> list[dict[str, str]]:
    """Return for each change (file, text in it, new text) which notebooks would run and why."""
    shown = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(changes),
        env=project.environment | environment,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_everything_that_a_page_stands_on_is_watched_and_nothing_else(project, tmp_path_factory):
    source = project.notebook("make-number")
    source.write_text(source.read_text() + RICH)
    for name in ("opened.csv", "listed.csv", "other.csv"):
        (project.root / "data" / name).write_text("a\n1\n")
    first = project.run("run", "tiny")
    assert ran(first) == {"tiny/make-number", "tiny/read-number"}
    assert "wrote extra.csv, which its front matter does not declare" in first.stdout + first.stderr
    page = project.executed("make-number").read_bytes()

    results, executed = "data/results/tiny/", "book/notebooks/tiny/make-number"
    record = f"{executed}.run.json"
    known = json.loads((project.root / record).read_text())
    make = [
        (results + "extra.csv", None, None),
        (results + "extra.csv", "1", "2"),
        (results + "extra.csv.provenance.json", None, None),
        (results + "extra.csv.provenance.json", '"parameters": {}', '"parameters": {"x": 1}'),
        (results + "extra.csv.provenance.json", None, "[]"),
        (results + "number.csv.provenance.json", None, None),
        (results + "number.csv.provenance.json", None, '{"sha256": 1}'),
        ("data/opened.csv", "1", "2"),
        ("data/opened.csv", None, None),
        ("data/listed.csv", "1", "2"),
        ("data/listed.csv", None, None),
        (f"{executed}.ipynb", "row", "low"),
        *((record, None, text) for text in ("", "[]", "3", "{}", '"x"', "[" * 9999, '{"parts": 3, "outputs": []}')),
        *((record, None, json.dumps(known | {key: wrong})) for key in known for wrong in (None, [1])),
    ]
    for change, reasons in zip(make, ask(project, make), strict=True):
        assert set(reasons) == {"make-number"}, (change, reasons)
    same = [("data/other.csv", "1", "2"), ("data/other.csv", None, None), (results + "number.csv", "number", "number")]
    assert ask(project, same) == [{}] * len(same)

    # the code that makes pages is part of what they stand on
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(paths.SOURCE, copy / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    again = [("data/other.csv", "1", "1")]
    assert ask(project, again, PYTHONPATH=str(copy)) == [{}]
    code = copy / "helpers" / "execution.py"
    code.write_text(code.read_text().replace("LONG_CELL, WIDE_CELL = 4, 100", "LONG_CELL, WIDE_CELL = 9, 100"))
    assert set(ask(project, again, PYTHONPATH=str(copy))[0]) == {"make-number", "read-number"}

    # what is missing is made again, to the same bytes; then everything is current
    (project.root / results / "extra.csv").unlink()
    assert ran(project.run("run", "tiny")) == {"tiny/make-number"}
    assert project.executed("make-number").read_bytes() == page
    assert "1 row" in page.decode() and "a warning in red" not in page.decode()
    assert ask(project, again) == [{}]


def test_folders_of_one_name_are_told_apart(tiny):
    study = studies.load(tiny.study(models=2))
    entries = []
    for entry, place in zip(study.models.entries, ("a/final", "b/final"), strict=True):
        shutil.copytree(entry.id, tiny.root / place)
        entries.append(entry.model_copy(update={"id": str(tiny.root / place)}))
    for place in ("a/texts/x.txt", "b/texts/x.txt"):
        (tiny.root / place).parent.mkdir()
        (tiny.root / place).write_text("one")
    study = study.model_copy(
        update={
            "models": study.models.model_copy(update={"entries": tuple(entries)}),
            "corpus": study.corpus.model_copy(
                update={"sources": (f"{tiny.root}/a/texts/*.txt", f"{tiny.root}/*/texts/*", f"{tiny.root}/b/texts")}
            ),
        }
    )
    before = runner.data_files(study)
    assert not [k for k in before if str(tiny.root) in k], "a folder of the machine is told"

    def changed() -> set[str]:
        now = runner.data_files(study)
        return {k.split(":")[0] for k in {*before, *now} if before.get(k) != now.get(k)}

    for name, place in (("m0", "a/final"), ("m1", "b/final")):
        for file in ("model.safetensors", "config.json", "tokenizer.json"):
            path = tiny.root / place / file
            kept = path.read_bytes()
            path.write_bytes(kept[:-1] + b" ")
            assert changed() == {f"model {name}"}, file
            path.write_bytes(kept)
    (tiny.root / "a/texts/x.txt").write_text("two")
    assert changed() == {"source 1", "source 2"}
    (tiny.root / "a/texts/x.txt").write_text("one")
    (tiny.root / "b/texts/y.txt").write_text("new")
    assert changed() == {"source 2", "source 3"}


def test_the_interpreter_of_the_build_runs_the_cells(project, tmp_path):
    """Whatever kernels, start-up files and settings the reader's Jupyter has."""
    kernels = tmp_path / "share" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps({"argv": ["false"], "language": "python", "display_name": "other"}))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("raise SystemExit('a start-up file')")
    (tmp_path / "start.py").write_text("print = None")
    more = {
        "JUPYTER_PATH": str(tmp_path / "share"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONSTARTUP": str(tmp_path / "start.py"),
    }
    source = project.notebook("make-number")
    source.write_text(
        source.read_text()
        + f"\n```{{code-cell}} ipython3\nimport sys\n\nassert sys.executable == {sys.executable!r}\n```\n"
    )
    command = [sys.executable, "-m", "helpers.runner", "run", "tiny", "--only", "make-number"]
    result = subprocess.run(command, env=project.environment | more, capture_output=True, text=True, timeout=300)
    assert ran(result) == {"tiny/make-number"}
    for alarm in ("IPKernelApp", "eavesdropping", "KeyboardInterrupt", "Warning"):
        assert alarm not in result.stderr


def family(process: psutil.Process) -> list[psutil.Process]:
    return process.children(recursive=True)


def test_nothing_outlives_a_killed_build_and_one_run_holds_a_study(project):
    slow = project.notebook("make-number")
    quick = slow.read_text()
    started = project.root / "started"
    worker = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    wait = f"import subprocess, sys, time\n{worker}\nopen({str(started)!r}, 'w').close()\ntime.sleep(99)\n"
    slow.write_text(quick.replace("import pandas", wait + "import pandas"))
    command = [sys.executable, "-m", "helpers.runner", "run", "tiny", "--only", "make-number"]

    def until(condition) -> None:
        limit = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.05)

    first = subprocess.Popen(command, env=project.environment, stderr=subprocess.PIPE, text=True)
    until(started.exists)
    begun = family(psutil.Process(first.pid))
    assert len(begun) >= 3, "a process that runs the notebook, its kernel, and what that started"
    second = subprocess.Popen(command, env=project.environment, stderr=subprocess.PIPE, text=True)
    told = second.stderr.readline()
    assert f"Study 'tiny' is being run by process {first.pid} " in told and "waiting" in told
    slow.write_text(quick)
    first.kill()
    first.communicate()
    assert not psutil.wait_procs(begun, timeout=10)[1], "a notebook goes on without its build"
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert (project.root / "data" / "results" / "tiny" / "number.csv").read_text() == "number\n2\n"

    # the process between the build and the kernel is killed: the kernel ends, the build says so
    slow.write_text(quick.replace("import pandas", wait + "import pandas"))
    started.unlink()
    third = subprocess.Popen(command, env=project.environment, stderr=subprocess.PIPE, text=True)
    until(started.exists)
    begun = family(psutil.Process(third.pid))
    psutil.Process(third.pid).children()[0].kill()
    _, errors = third.communicate(timeout=60)
    assert third.returncode == 1 and "exit status -9" in errors and "Traceback" not in errors
    assert not psutil.wait_procs(begun, timeout=10)[1], "the kernel outlives the process that started it"


@pytest.mark.parametrize("root", ["/code", "/table", "/script", "/lab", "/p", "/div", "/data/me/a b", "/a.b"])
def test_only_whole_paths_of_the_machine_are_taken_out(root):
    name = root.rsplit("/", 1)[-1]
    kept = [
        f"<{name}>x</{name}>",
        f"&lt;/{name}&gt; &#60;/{name}>",
        f'"<\\/{name}>"',
        f"https://example.org{root}/x and example.org{root}",
        f"{root}-old/x {root}x/y {root}.old .{root}/x ..{root} a{root}",
        f"<{name} /><br/>",
    ]
    for text in kept:
        assert execution.without_folders(text, [root]) == text
    gone = {
        f"'{root}/data/x.csv'": "'data/x.csv'",
        f"{root}/data/x.csv, {root}/y": "data/x.csv, y",
        f"in {root}.": "in ..",
        f"({root}) [{root}/] {root}": "(.) [.] .",
        f"<code>{root}/x</code>": "<code>x</code>",
        f"file://{root}/x": "x",
        f"PATH=/bin:{root}/bin": "PATH=/bin:bin",
        f"<a title='{root}/x'>": "<a title='x'>",
    }
    for text, right in gone.items():
        assert execution.without_folders(text, [root]) == right
    assert execution.without_folders({"a": [f"{root}/x", 3]}, [root]) == {"a": ["x", 3]}


def test_pages_of_a_checkout_in_a_folder_named_like_a_tag(monkeypatch):
    html = "<pre><code>x</code></pre><p>/code/data/results/lab/units.parquet</p>"
    output = nbformat.v4.new_output("display_data", data={"text/html": html, "application/json": {"p": "/code/x"}})
    cell = nbformat.v4.new_code_cell("x = '</code>'", outputs=[output], metadata={"tags": []})
    notebook = nbformat.v4.new_notebook(cells=[cell])
    monkeypatch.setattr(paths, "ROOT", type(paths.ROOT)("/code"))
    runner.clean(notebook, paths.ROOT / "notebooks" / "a.md", paths.ROOT / "a.ipynb", None)
    data = notebook.cells[0].outputs[0].data
    assert data["text/html"] == "<pre><code>x</code></pre><p>data/results/lab/units.parquet</p>"
    assert data["application/json"] == {"p": "x"}
    assert notebook.cells[0].source == "x = '</code>'"


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A copy of a real notebook and its derived .ipynb, in a folder of its own."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    source = tmp_path / "meet-the-study.md"
    shutil.copy(paths.ROOT / "notebooks" / source.name, source)
    runner.sync()
    return source, source.with_suffix(".ipynb")


def change(target, old: str, new: str, **cell) -> None:
    notebook = nbformat.read(target, as_version=4)
    for c in notebook.cells:
        c.source = c.source.replace(old, new)
        if c.cell_type == "code":  # what Jupyter adds when a notebook is run and saved
            c.update(cell)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.11"}
    nbformat.write(notebook, target)


def test_edits_of_a_derived_notebook_are_never_lost(pair):
    source, target = pair
    text, derived = source.read_text(), target.read_text()
    # run and saved, nothing edited: outputs go, nothing is asked
    change(target, "", "", outputs=[nbformat.v4.new_output("stream", text="x")], execution_count=3)
    assert target.read_text() != derived and runner.sync() == [target] and target.read_text() == derived
    # edited: told what to do, nothing is overwritten
    change(target, "## The models", "## My models")
    mine = target.read_text()
    with pytest.raises(StudyError, match=r"make notebooks KEEP=\S*meet-the-study.ipynb"):
        runner.sync()
    assert target.read_text() == mine and source.read_text() == text
    # kept as told: one line of the text changes, then the pair is in step
    runner.keep(target)
    assert source.read_text() == text.replace("## The models", "## My models")
    assert runner.sync() == [] and not runner.edited(source)
    # the text is edited alone: derived as ever
    source.write_text(source.read_text().replace("## My models", "## All models"))
    assert runner.sync() == [target]
    # the same edit on both sides (Jupyter with jupytext saves both): nothing to ask
    source.write_text(source.read_text().replace("## All models", "## Models"))
    change(target, "## All models", "## Models", execution_count=1)
    assert runner.sync() == [target]
    # both edited, differently: neither is thrown away
    source.write_text(source.read_text().replace("## Models", "## These"))
    change(target, "## Models", "## Those")
    both = source.read_text(), target.read_text()
    with pytest.raises(StudyError, match="both edited"):
        runner.keep(target)
    assert (source.read_text(), target.read_text()) == both
    # a cell added, a tag changed, a cell gone: edits, too
    target.unlink()
    runner.sync()
    for edit in ("add", "tag", "drop"):
        notebook = nbformat.read(target, as_version=4)
        if edit == "add":
            notebook.cells.append(nbformat.v4.new_markdown_cell("A word."))
        elif edit == "tag":
            notebook.cells[-1].metadata["tags"] = ["mine"]
        else:
            notebook.cells.pop()
        nbformat.write(notebook, target)
        assert runner.edited(source), edit
        target.unlink()
        runner.sync()
    target.write_text("{")
    with pytest.raises(StudyError, match="is not a notebook"):
        runner.sync()


def test_front_matter_that_is_no_list_of_names_is_told(project):
    source = project.notebook("make-number")
    source.write_text(source.read_text().replace("{outputs: [number.csv]}", "{outputs: number.csv}"))
    result = project.run("run", "tiny")
    assert result.returncode == 1 and "companion: outputs" in result.stderr and "Traceback" not in result.stderr


def test_notebooks_declare_what_they_write():
    """Where the book has been built: no artifact of it was written by a notebook that does not declare it."""
    records = [runner.read_record(p) for p in sorted(paths.EXECUTED.rglob("*.run.json"))]
    if not records:
        pytest.skip("no book was built here")
    for known in filter(None, records):
        said = runner.declared(jupytext.read(paths.NOTEBOOKS / f"{known['notebook']}.md"), known["notebook"])
        assert set(known["outputs"]) <= {*said["outputs"], *said["optional"]}, known["notebook"]


def test_records_of_committed_copies_can_be_read():
    records = sorted(paths.FROZEN.rglob("*.run.json"))
    assert records and all(runner.read_record(p) for p in records)


@pytest.mark.parametrize(
    ("source", "name", "said", "trace", "line", "arrows"),
    [
        ("x = 1\nraise E", "E", "x", "Cell In[2], line 2\n----> 2 raise E", 2, [2]),
        (
            "x = 1\ny = = 2",
            "SyntaxError",
            "invalid syntax (29172.py, line 2)",
            "  Cell In[2], line 2\n    y = = 2",
            2,
            [2],
        ),
        ("if x:\n  y\n z", "IndentationError", "unindent (<tokenize>, line 3)", "  File <tokenize>:3\n", 3, [3]),
        (
            "def f():\n  1/0\n\nf()",
            "E",
            "x",
            "Cell In[2], line 4\nCell In[2], line 2, in f()\nFile x/y.py:9",
            2,
            [2, 4],
        ),
        ("f()", "E", "x", "\x1b[36mCell In[2]\x1b[39m\x1b[32m, line 1\x1b[39m\nCell In[1], line 7, in f()", 1, [1]),
        ("\n".join(["x"] * 40), "E", "x", "Cell In[2], line 31\n", 31, [31]),
        ("x", "E", "x", "", None, []),
    ],
)
def test_a_failing_cell_is_shown_with_an_arrow(source, name, said, trace, line, arrows):
    error = PapermillExecutionError(4, 2, source, name, said, [trace])
    first, what, *shown = execution.failure(error).splitlines()
    assert first == "cell 4 (execution 2)" + (f", line {line}" if line else "") + " failed:"
    assert what.startswith(f"  {name}: {said.split(' (')[0]}") and "tokenize" not in what
    assert [int(t.split()[1]) for t in shown if t.startswith("-->")] == arrows and len(shown) <= 12
