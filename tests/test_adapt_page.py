"""The page "Adapt this book": what it shows was computed, and its links are whole or absent."""

import json

import nbformat
import pytest

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
