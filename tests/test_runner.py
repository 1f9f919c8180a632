"""The runner: what runs, what does not, and what is left behind when something fails."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from helpers import paths, provenance, runner, studies
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
    for words in ("tiny/read-number", "cell 3", "ValueError", "no such number"):
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
