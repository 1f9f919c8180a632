"""Text of others in every place of a page, one attack a language: it is shown, nothing runs, nothing is asked for."""

import ast
import csv
import html
import io
import json
import re
import shutil
import types
import urllib.parse
import zipfile

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest
from IPython.display import HTML
from markdown_it import MarkdownIt
from matplotlib.figure import Figure as Canvas

from helpers import (
    adapt,
    book,
    capstone,
    cards,
    diagnosis,
    figures,
    figures_pairs,
    judgement,
    maps,
    overlap,
    pages,
    passages,
    paths,
    placement,
    provenance,
    questions,
    report,
    runner,
    studies,
)
from helpers.fragments import code, literal

RUN = "window.ran=1"
ATTACKS = {
    "HTML": f"x</script><script>{RUN}</script><img src=http://hostile.invalid/h.png onerror={RUN}>",
    "attribute": f'x" onmouseover="{RUN}" style=\'background:url(http://hostile.invalid/a.png)',
    "Markdown": f"![m](http://hostile.invalid/m.png) [l](javascript:{RUN}) **b** <http://hostile.invalid>",
    "MyST role": "{sub-ref}`today` {raw-html}`<b>x</b>` {download}`/etc/hostname`",
    "MyST directive": f"```{{raw}} html\n<script>{RUN}</script>\n```",
    "MyST fence": f"text\n\n:::{{raw}} html\n<script>{RUN}</script>\n:::\n",
    "RST": f".. raw:: html\n\n   <script>{RUN}</script>\n\n`x <http://hostile.invalid>`_ |today|",
    "Jinja": "{{ cycler.__init__.__globals__.os.system('touch ran') }}{% set a = 1 %}{{ 7*7 }}",
    "MathJax": f"$\\href{{javascript:{RUN}}}{{x}}$ \\(\\style{{color:red}}{{y}}\\) $$z$$",
    "plotly": f"%{{x}} <b>b</b><a href='javascript:{RUN}'>a</a><br>%{{customdata[0]}}",
    "CSV formula": "=cmd|' /C calc'!A0",
    "CSV row": "-1+1|cell\r=1+1\t@SUM(A1)",
    "right to left": "abc\u202etxt.exe\u2066\u200f end",
    "control": "bell\x07 null\x00 line\u2028end",
}
NAMES = list(ATTACKS.values())
SHOWN = {name: " ".join(literal(text, "text").split()) for name, text in ATTACKS.items()}
CAPTION = "About " + ", ".join(map(literal, NAMES)) + "."


def test_html_has_no_line_end_that_would_close_a_block():
    assert not {"\n", "\r"} & set(literal("a\n```\r\nb", "html")) and "<br>" in questions.display("a\nb")


def test_half_a_character_is_made_visible():
    assert literal("a\ud800b") == "a&#92;ud800b" and literal("a\ud800b", "html") == "a\\ud800b"


ESCAPERS = types.SimpleNamespace(literal=literal, code=code)


def tags(markdown):
    return set(re.findall(r"<(\w+)", MarkdownIt("commonmark", {"html": True}).render(markdown)))


@pytest.mark.parametrize("token", ["<s>", "it's<img src=x onerror=ran()>", "a'b\"<script>ran()</script>", *NAMES])
def test_a_start_token_is_text(token):
    rule = f"every window begins with {token!r} (bos token)"  # as models.load words it
    cells = [c.source for c in jupytext.read(paths.NOTEBOOKS / "extract-perplexity.md").cells if "bos_rule" in c.source]
    (told,) = (
        e for e in ast.walk(ast.parse(cells[0])) if isinstance(e, ast.FormattedValue) and "bos_rule" in ast.unparse(e)
    )
    told = eval(ast.unparse(told.value), {"fragments": ESCAPERS, "one": types.SimpleNamespace(bos_rule=rule)})
    assert len(cells) == 1 and tags(f"Start token: {told}.") <= {"p", "code"}


@pytest.mark.parametrize("name", ["plain", "a\n```\n<script>ran()</script>", "```", *NAMES])
def test_the_name_of_a_graded_file_is_text(name):
    grade = capstone.Grade(name, ("lab",), 0.5, 0.4, 0.6, 0.9, 0.4, name, 0.3, 10)
    (cell,) = (
        c.source
        for c in jupytext.read(paths.NOTEBOOKS / "exercises" / "capstone-orthogonal.md").cells
        if "grade_questions(placement" in c.source
    )
    shown = []
    names = {"fragments": ESCAPERS, "Markdown": str, "display": shown.append, "questions_file": "a", "suite": ("lab",)}
    names["capstone"] = types.SimpleNamespace(grade_questions=lambda *_: grade)
    exec(cell, names | {"placement": types.SimpleNamespace(source=str)})
    assert tags(shown[0]) <= {"p", "pre", "code"}


def test_markdown_shows_the_text_and_nothing_else():
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render  # as a book and JupyterLab render it
    for name, text in ATTACKS.items():
        for place in (
            "{}",
            "So {} it is.",
            "# {}",
            "- {}",
            "1. {}",
            "> {}",
            "**{}**, so",
            "| a |\n|---|\n| {} |",
            "a\n{}\nb",
        ):
            for shown in (literal(text), code(text)):
                page = render(place.format(shown))
                tags = set(re.findall(r"<(\w+)", page))
                assert tags <= {
                    "p",
                    "h1",
                    "ul",
                    "ol",
                    "li",
                    "blockquote",
                    "strong",
                    "em",
                    "code",
                    *"table thead tbody tr th td".split(),
                }
                assert SHOWN[name] in html.unescape(re.sub(r"<[^>]*>", "", page)), (name, place)


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7*7 }}",
        "{% raw %}",
        "a--b 'c' \"d\" ...",
        "(x)=",
        "+++",
        "% note",
        "[^1]",
        "[^1]: x",
        "&lt;&#60;",
        "a\\",
        "\\*",
        "~~a~~",
        "- [ ] a",
    ],
)
def test_marks_that_only_some_places_read_are_shown(text):
    page = MarkdownIt("commonmark").render(literal(text))
    assert html.unescape(re.sub(r"<[^>]*>", "", page)).strip() == text


# ---- a small book of hostile names, a report, the page of an adapted benchmark, a saved figure: in a browser ----

LASTING = [n for n in NAMES if "\r" not in n]  # a table on disk does not hold it
GRID = pd.DataFrame(np.eye(len(NAMES)) * 0.8 + 0.1, NAMES, NAMES)
FRAME = pd.DataFrame({NAMES[5]: NAMES, "x": range(len(NAMES)), "y": range(len(NAMES)), NAMES[0]: NAMES})


def artifacts(results):
    """Write what cards, landing map and report read; every benchmark has a hostile name, title, family, reason, unit."""
    world = diagnosis.planted(2, models=40, domains=3, bootstraps=20)
    axes, known = world["axes"], world["benchmarks"]
    rename = dict(zip(known["benchmark"], LASTING))
    for axis in axes:
        value, low, high = (
            m.rename(index=rename, columns=rename) for m in (axes[axis], axes.low[axis], axes.high[axis])
        )
        overlap.write(results, axis, value, low, high, pd.Series(0.7, index=value.index))
    own = known["benchmark"].replace(rename)
    known = known.assign(benchmark=own, title=own, family=own, reason=own, n_items=50, chance=0.25, usable=True)
    known["function"] = [LASTING[i % 5] for i in range(len(known))]
    provenance.write_table(results / "benchmarks.csv", known)
    scores = world["scores"].rename(index=rename)
    long = scores.rename_axis("benchmark").reset_index().melt("benchmark", var_name="model", value_name="score")
    provenance.write_table(results / "scores.csv", long.assign(n_items=50))
    read = maps.read("lab")
    provenance.write_table(results / "agreement.csv", judgement.agreement(read, permutations=19, seed=0))
    findings, _ = diagnosis.diagnose(read, scores=scores, benchmarks=known, scale=world["scale"])
    flag = {"kind": "contaminated", "a": LASTING[0], "b": LASTING[1], "axis": "questions", "estimate": 0.3}
    flag |= {"flagged": True, "evidence": LASTING[2]}
    findings = pd.concat([findings, pd.DataFrame([flag]).reindex(columns=findings.columns)], ignore_index=True)
    provenance.write_table(results / "diagnosis.csv", findings)
    provenance.write_table(results / "maps.csv", maps.disentangle(read, draws=10).table())
    provenance.write_table(results / "redundancy.csv", diagnosis.redundancy(read, draws=10, exact_limit=0))
    units = pd.DataFrame({"source": LASTING, "text": LASTING, "doc_id": 0, "start": range(len(LASTING))})
    provenance.write_table(results / "units.parquet", units.rename_axis("unit_id"))
    chosen = [
        {"benchmark": name, "unit_id": k, "order": k, "fold": -1} for name in LASTING for k in range(len(LASTING))
    ]
    provenance.write_table(results / "signatures.parquet", pd.DataFrame(chosen))
    return read, findings


def notebook(read, findings):
    """Return an executed notebook with a figure of each kind, Markdown, a question and text of a corpus."""

    def words(name, title=""):
        return {"name": name, "alt": " ".join(NAMES), "caption": CAPTION} | ({"title": title} if title else {})

    units = FRAME.assign(doc_id=0, start=FRAME["x"], text=NAMES, source=NAMES).rename_axis("unit_id")
    nats = pd.DataFrame(1.0, units.index, [NAMES[0]])
    flags = pd.DataFrame(
        {"flag": ["redundant", "scale-driven", "too noisy", "format-driven"], "raised": True, "evidence": NAMES[0]}
    )
    near = pd.DataFrame([{"axis": "performance", "benchmark": NAMES[2], "value": 0.5, "low": 0.4, "high": 0.6}])
    placed = types.SimpleNamespace(name=NAMES[0], models=NAMES, flags=flags, pairs=near)
    kind = FRAME.columns[0]
    shown = [
        figures.heatmap(GRID, groups=pd.Series(NAMES, NAMES), unit=NAMES[5], **words("grid", NAMES[0])),
        figures.scatter(
            FRAME,
            "x",
            "y",
            color=kind,
            label=NAMES[0],
            hover=[kind],
            x_title=NAMES[9],
            y_title=NAMES[8],
            **words("dots"),
        ),
        figures.bar(FRAME, kind, "y", horizontal=True, reference={NAMES[8]: 3}, x_title=NAMES[8], **words("bars")),
        figures.strip(FRAME, kind, "y", label=NAMES[0], **words("strip")),
        figures.line(FRAME, "x", "y", color=kind, **words("lines")),
        figures.table(FRAME.set_index(kind), name="table", caption=CAPTION),
        figures.matplotlib(Canvas(), data=FRAME, **words("picture", NAMES[8])),
        figures_pairs.explorer(maps.pairs(read), ["semantic"], flags=findings, **words("pairs")),
        figures_pairs.disentanglement(
            maps.disentangle(read, draws=10), functions=pd.Series(LASTING, LASTING), **words("map")
        ),
        passages.show(units, nats, [0, 1], [NAMES[0]], caption=" ".join(NAMES)),
        HTML("".join(map(questions.display, NAMES))),
    ]
    told = [placement.verdict(placed), "\n".join(f"- *{literal(n)}*: {code(n)}." for n in NAMES)]
    outputs = [nbformat.v4.new_output("display_data", data={"text/html": f._repr_html_()}) for f in shown]
    outputs += [nbformat.v4.new_output("display_data", data={"text/markdown": text}) for text in told]
    cells = [nbformat.v4.new_markdown_cell("# A study\n\nText.")]
    cells += [nbformat.v4.new_code_cell("1", metadata={"tags": ["verdict"]}, outputs=[o]) for o in outputs]
    python = {"name": "python3", "language": "python", "display_name": "Python 3"}
    made = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": python, "language_info": {"name": "python", "pygments_lexer": "python"}}
    )
    runner.clean(
        made, paths.NOTEBOOKS / "meet-the-study.md", paths.EXECUTED / "lab" / "meet-the-study.ipynb", " ".join(NAMES)
    )
    return made, shown[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Every page that text of others can reach, built as the book, the report and the adapted page are."""
    with pytest.MonkeyPatch.context() as patch:  # undone also when the fixture fails
        return _site(tmp_path_factory.mktemp("hostile"), patch)


def _site(root, patch):
    folder = root / "book"
    shutil.copytree(paths.BOOK / "_static", folder / "_static")
    for name in ("_config.yml", "references.bib"):
        shutil.copy(paths.BOOK / name, folder / name)
    study = studies.load("lab").model_copy(update={"title": " ".join(NAMES), "description": " ".join(NAMES)})
    patch.setenv("COMPANION_RESULTS", str(root / "results"))
    patch.setattr(studies, "load", lambda name: study)
    patch.setattr(studies, "names", lambda: ["lab"])
    read, findings = artifacts(study.results)
    claims = pd.DataFrame(
        {"claim": NAMES, "paper_value": NAMES, "mode": NAMES, "here_value": 0.5, "verdict": NAMES, "why": NAMES}
    )
    record = {"study": NAMES[0], "notebook": NAMES[1], "date": "2026-01-01", "frozen": False, "seconds": 1.0}
    record |= {"parts": {"parameters": dict(zip(NAMES, NAMES)), "data": dict.fromkeys(NAMES, "0" * 64)}}
    patch.setattr(pages, "study_table", lambda study, name: claims)
    patch.setattr(pages, "run_records", lambda: [record | {"versions": dict(zip(NAMES, NAMES))}])
    made, figure = notebook(read, findings)
    texts = {"paper": pages.paper_page(), "provenance": pages.provenance_page(), "cards": cards.page(cards.read("lab"))}
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / "notebook.ipynb").write_text(nbformat.writes(made), encoding="utf-8")
    book.landing_map("lab", folder / "landing-map.html")
    (folder / "index.md").write_text(
        "# Start\n\n```{raw} html\n:file: landing-map.html\n```\n\n$x^2$\n", encoding="utf-8"
    )
    contents = "".join(f"- file: {name}\n" for name in [*texts, "notebook"])
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n{contents}", encoding="utf-8")
    built = book.build(folder)
    (built / "adapt.html").write_text(adapt.page(made, NAMES[0]), encoding="utf-8")
    report.build("lab", built)
    figure.save(built / "figure.html")
    return built


PROBE = """async () => {
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  for (let i = 0; i < 100 && !window.companion; i++) await new Promise((r) => setTimeout(r, 100));
  await window.companion?.drawAll();
  for (const plot of document.querySelectorAll('.js-plotly-plot'))  // hover labels are text of others too
    try { Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: 0}]); } catch { }
  await new Promise((r) => setTimeout(r, 300));
  const all = [...document.querySelectorAll('body *')];
  const links = all.flatMap((e) => ['href', 'src', 'xlink:href', 'action'].map((a) => e.getAttribute(a)).filter((v) => v));
  return {
    ran: window.ran ?? null,
    wrong: links.filter((v) => /^\\s*javascript:|^(?!data:|#).*hostile/is.test(v)),
    handlers: all.flatMap((e) => [...e.attributes].filter((a) => a.name.startsWith('on') && !e.closest('.article-header-buttons')).map((a) => `${e.tagName} ${a.name}=${a.value}`)),
    styles: all.filter((e) => (e.getAttribute('style') ?? '').includes('hostile')).length,
    drawn: document.querySelectorAll('.companion-plot svg.main-svg').length,
    text: all.filter((e) => !e.matches('script, style')).flatMap((e) => [...e.childNodes]).filter((n) => n.nodeType === 3)
      .map((n) => n.data).join(''),
    blocks: all.filter((e) => e.matches('h1, h2, h3, h4, td, th, p, li, figcaption, option, text, tspan, title, div.question-text'))
      .map((e) => e.textContent),
  };
}"""


@pytest.fixture(scope="module")
def visits(site, in_browser):
    """Open every page, from the disk as a reader would; return what was found and asked for, by page."""

    async def visit(look, address):
        found = {}
        context = await look(viewport={"width": 1200, "height": 900})
        await context.unroute_all()
        names = sorted(p.name for p in site.glob("*.html") if p.name not in ("search.html", "genindex.html"))
        searches = [f"search.html?q={word}" for word in ("script", "href", "today")]
        for name in [*names, *searches]:
            page, asked = await context.new_page(), []
            page.on("request", lambda r, asked=asked: asked.append(r.url))
            await page.route(re.compile("^http"), lambda route: route.abort())
            await page.goto(f"{site.as_uri()}/{name}", wait_until="load")
            if name in searches:
                await page.wait_for_selector("#search-results li")
            found[name] = await page.evaluate(PROBE)
            found[name]["asked"] = [u for u in asked if not u.startswith(("file:", "data:", "blob:"))]
            await page.close()
        return found

    return in_browser(site, visit)


def test_nothing_runs_and_nothing_is_asked_for(visits, site):
    assert len(visits) == 11
    for name, seen in visits.items():
        assert seen["ran"] is None and not seen["asked"], (name, seen["ran"], seen["asked"])
        assert not seen["wrong"] and not seen["handlers"] and not seen["styles"], (
            name,
            seen["wrong"],
            seen["handlers"],
        )
    assert not list(site.parents[2].rglob("ran")), "a template ran a command"
    drawn = {name: seen["drawn"] for name, seen in visits.items() if seen["drawn"]}
    assert set(drawn) == {"index.html", "notebook.html", "adapt.html", "lab-report.html", "figure.html"}


PLACES = {  # page -> the elements that show names there, and which names
    "paper.html": (["h2", "td"], NAMES),
    "provenance.html": (["td"], NAMES),
    "cards.html": (["h1", "h2", "td", "th", "li"], LASTING),
    "notebook.html": (["h1", "figcaption", "td", "th", "li", "option", "text"], LASTING),
    "adapt.html": (["h1", "figcaption", "td", "th", "li", "option", "text"], LASTING),
    "lab-report.html": (["h1", "h3", "p", "td", "th"], LASTING),
}


@pytest.mark.parametrize(
    "page, attack", [(page, a) for page, (_, names) in PLACES.items() for a in ATTACKS if ATTACKS[a] in names]
)
def test_the_text_shows_literally(visits, page, attack):
    shown = [" ".join(text.split()) for text in visits[page]["blocks"]]
    count = sum(SHOWN[attack] in text for text in shown)
    assert count >= 2, (count, [t for t in shown if SHOWN[attack][:6] in t][:3])


def test_downloads_hold_no_formulas(site):
    with zipfile.ZipFile(site / "lab-tables.zip") as archive:
        tables = {n: archive.read(n).decode() for n in archive.namelist() if n.endswith(".csv")}
    page = (site / "notebook.html").read_text(encoding="utf-8")
    links = re.findall(r'href="data:text/csv;charset=utf-8,([^"]*)"', page)
    tables |= {f"download {k}": urllib.parse.unquote(html.unescape(text)) for k, text in enumerate(links)}
    assert len(links) >= 8 and len(tables) > 15
    risky = 0
    for name, text in tables.items():
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                risky += cell.startswith("'=cmd")
                safe = not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or re.fullmatch(
                    r"-?[\d.]+(e[-+]?\d+)?", cell
                )
                assert safe, (name, cell)
    assert risky > 5


def test_no_page_holds_a_mark_that_turns_text(site):
    for page in site.glob("*.html"):
        assert not set(page.read_text(encoding="utf-8")) & set("\u202e\u2066\u200f\x00\x07"), page.name


def test_search_titles_are_text(site):
    index = json.loads(
        (site / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(").removesuffix(")")
    )
    assert len(index["docnames"]) == 5 and index["alltitles"]
    assert not [t for t in index["alltitles"] if "<" in t]
