"""Exercises: in every chapter, graded, and each with a solution that the build runs and checks."""

import re

import jupytext
import pytest

from helpers import paths, studies

GRADES = ("Five minutes", "An hour", "A weekend")
ITEM = re.compile(r"^\d\. \*(" + "|".join(GRADES) + r")\.\* \*\*(.+?)[.]?\*\*", re.MULTILINE)
PAGES = [paths.NOTEBOOKS / "exercises" / f"{name}.md" for name in ("laboratory", "axes")]
CHAPTERS = sorted(paths.NOTEBOOKS.glob("*.md"))
PROSE = [paths.BOOK / "idea.md", paths.BOOK / "scale.md"]
OWN_SOLUTIONS = ("how-to-read-a-signature",)  # a simulation: its solutions stand in the chapter itself


def section(path):
    """Return the part of a chapter that lists its exercises."""
    found = re.search(
        r"(?:## Exercises|\*\*Exercises\*\*)\n(.*?)(?=\n## |\n\*\*What.s next|\Z)",
        path.read_text(),
        re.DOTALL,
    )
    assert found, f"{path.name} has no exercises"
    return found.group(1)


def solutions(path):
    """Return title -> (grade, code) of the cells tagged `solution`, each under its heading."""
    made, title, grade = {}, None, None
    for cell in jupytext.read(path).cells:
        if cell.cell_type == "markdown":
            heading = re.findall(r"^### (.+)$", cell.source, re.MULTILINE)
            title = heading[-1] if heading else title
            grade = (re.findall(rf"\*({'|'.join(GRADES)})\.\*", cell.source) or [grade])[-1]
        elif "solution" in cell.metadata.get("tags", []):
            assert "hide-cell" in cell.metadata["tags"], f"{path.name}: the solution of '{title}' is not folded"
            made[title] = (grade, cell.source)
    return made


@pytest.mark.parametrize("path", [*CHAPTERS, *PROSE], ids=lambda p: p.stem)
def test_every_chapter_has_graded_exercises(path):
    items = ITEM.findall(section(path))
    grades = [g for g, _ in items]
    if path in PROSE:
        assert items
    else:
        assert grades == list(GRADES), f"{path.name}: one exercise of each grade, in order; found {grades}"


def test_every_exercise_has_a_solution_that_checks_itself():
    asked = {
        t.rstrip(".?"): g
        for p in [*CHAPTERS, *PROSE]
        if p.stem not in OWN_SOLUTIONS
        for g, t in ITEM.findall(section(p))
    }
    solved = {t.rstrip(".?"): s for p in PAGES for t, s in solutions(p).items()}
    assert set(asked) == set(solved)
    for title, (grade, code) in solved.items():
        assert grade == asked[title], title
        assert re.search(r"^ *assert ", code, re.MULTILINE), f"the solution of '{title}' checks nothing"


def test_solutions_in_a_chapter_check_themselves():
    for name in OWN_SOLUTIONS:
        cells = [
            c for c in jupytext.read(paths.NOTEBOOKS / f"{name}.md").cells if "solution" in c.metadata.get("tags", [])
        ]
        assert len(cells) == 3 and all("assert " in c.source and "hide-cell" in c.metadata["tags"] for c in cells)


def test_the_build_runs_them_and_the_book_shows_them():
    pages = sorted(p.stem for p in (paths.NOTEBOOKS / "exercises").glob("*.md"))
    assert pages == ["axes", "capstone-family", "capstone-orthogonal", "laboratory"]
    contents = (paths.BOOK / "_toc.yml").read_text()
    for name in pages:
        assert f"exercises/{name}" in studies.load("lab").notebooks
        assert f"notebooks/lab/exercises/{name}" in contents
