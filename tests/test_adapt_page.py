"""The page "Adapt this book": what it shows was computed, and its links are whole or absent."""

import json
import os

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import pages, paths
from helpers.errors import DataError


def test_links_need_an_address():
    assert "is not set yet" in pages.launch_page("") and "http" not in pages.launch_page("")
    text = pages.launch_page("https://github.com/someone/book.git")
    assert "https://mybinder.org/v2/gh/someone/book/main?labpath=notebooks/adapt-your-benchmark.ipynb" in text
    assert "github/someone/book/blob/main/notebooks/adapt-your-benchmark.ipynb" in text
    for wrong in ("someone/book", "https://example.org/x", "https://github.com/x", "javascript:alert(1)"):
        with pytest.raises(DataError, match=r"repository\.url is"):
            pages.launch_page(wrong)
    assert (paths.NOTEBOOKS / "adapt-your-benchmark.ipynb").is_file()


def test_the_shown_outcome_is_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "EXECUTED", tmp_path)
    with pytest.raises(DataError, match="has not run"):
        pages.example_page()
    folder = tmp_path / "entigraph"
    folder.mkdir()
    cells = []
    for tag in ("files", "verdict", "collect"):
        output = nbformat.v4.new_output("display_data", data={"text/markdown": f"said by {tag}"})
        cells.append(nbformat.v4.new_code_cell("x", metadata={"tags": [tag]}, outputs=[output]))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "adapt-your-benchmark.ipynb")
    (folder / "adapt-your-benchmark.run.json").write_text(json.dumps({"frozen": True, "date": "2001-02-03"}))
    text = pages.example_page()
    assert "frozen copy of 2001-02-03" in text
    assert text.index("said by files") < text.index("said by verdict") < text.index("said by collect")


def test_the_page_includes_what_was_computed():
    text = (paths.BOOK / "adapt.md").read_text(encoding="utf-8")
    for name in ("adapt-example", "launch"):
        assert f"```{{include}} generated/{name}.md\n```" in text


def test_a_copied_notebook_runs_from_another_folder(tmp_path):
    """The paired notebook, copied away, finds project and example files, up to what the files say."""
    notebook = nbformat.read(paths.NOTEBOOKS / "adapt-your-benchmark.ipynb", as_version=4)
    files = [i for i, c in enumerate(notebook.cells) if "files" in c.metadata.get("tags", [])]
    notebook.cells = notebook.cells[: files[0] + 1]
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = "".join(o.get("data", {}).get("text/markdown", "") for o in notebook.cells[-1].outputs)
    assert "has scores of **32** models" in said and "and 100 questions" in said


def test_binder_installs_the_project():
    folder = paths.ROOT / ".binder"
    assert (folder / "environment.yml").resolve() == (paths.ROOT / "environment.yml").resolve()
    assert os.access(folder / "postBuild", os.X_OK)
    assert "pip install --quiet --no-deps --editable ." in (folder / "postBuild").read_text(encoding="utf-8")
