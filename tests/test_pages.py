"""Generated pieces of prose pages: what they say was computed."""

import re

from helpers import pages, paths


def test_the_harder_worlds_are_what_their_page_says():
    rows = {
        name: [float(x) for x in re.findall(r"-?\d+\.?\d*", rest)]
        for name, rest in re.findall(r"\| `(\w+)` \|(.*)", pages.variants_page())
    }
    assert set(rows) == {"main", "format", "general"}
    domain, quiz, together = zip(*(rows[n] for n in ("main", "format", "general")), strict=True)
    assert quiz[1] > 10 * domain[1] and domain[1] < domain[0], "practice varies widely, knowledge little"
    assert together[2] > 0.8 > 0.2 > max(map(abs, together[:2])), "one factor moves all domains in lab-general only"
    text = (paths.BOOK / "laboratory-variants.md").read_text(encoding="utf-8")
    assert "```{include} generated/variants.md\n```" in text
