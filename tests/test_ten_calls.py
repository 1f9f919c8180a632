"""The page of the ten calls is a test: its lines run as they stand, from the project's root."""

import doctest
import re

from helpers import paths

PAGE = paths.BOOK / "ten-calls.md"


def test_every_line_of_the_page_runs(monkeypatch):
    monkeypatch.chdir(paths.ROOT)
    text = PAGE.read_text(encoding="utf-8").replace("```", "")  # fences are no output
    example = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    found: list[str] = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.DocTestRunner(optionflags=flags).run(example, out=found.append)
    assert result.attempted > 30 and not result.failed, "".join(found)


def test_there_are_ten_and_each_is_called():
    text = PAGE.read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [s.split(".")[0] for s in sections] == [str(k) for k in range(1, 11)]
    for section in sections:
        named = re.search(r"`(\w+\.\w+)`", section).group(1)
        assert re.search(rf"(?:>>>|\.\.\.) .*{re.escape(named)}\(", section), f"{named} is described and not called"
