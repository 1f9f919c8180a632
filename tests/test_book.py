"""The figures and the built book in a real browser: everything is drawn, nothing is fetched from elsewhere."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import numpy as np
import pandas as pd
import psutil
import pytest

from helpers import book, figures, paths, provenance
from helpers.errors import StaleArtifactError, UnavailableError

SITE = Path(os.environ.get("COMPANION_SITE") or paths.BOOK / "_build" / "html")  # or another build of the book
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")) if SITE.is_dir() else []
PAGES = [p for p in PAGES if not p.startswith("_static/")]  # pieces of the theme's templates
CONTENT = [p for p in PAGES if p not in ("search.html", "genindex.html", "py-modindex.html")]
FOREIGN_STYLE = re.compile(r"""(url\(|@import)\s*["']?(https?:)?//""")
PAGE_LIMIT = 3 * 2**20
AT_ONCE = 3


# ---- the figures by themselves ----

PICTURES = 8  # in the gallery, beside its table
NAMES = [f"benchmark number {i}" for i in range(48)]
HOSTILE = "<img src=x onerror=document.title='run'>&<b>$x$"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A site with one page of figures, built from the book's own files without Sphinx."""
    site = tmp_path_factory.mktemp("gallery")
    shutil.copytree(paths.BOOK / "_static", site / "_static")
    book.copy_vendor(site)
    shutil.move(site / "_extra" / "vendor", site / "vendor")
    rng = np.random.default_rng(0)
    matrix = pd.DataFrame(np.corrcoef(rng.normal(size=(48, 9))), index=NAMES, columns=NAMES)
    small = pd.DataFrame([[1.0, 0.2], [0.2, 1.0]], index=[HOSTILE, "plain"], columns=[HOSTILE, "plain"])
    frame = pd.DataFrame({"name": NAMES, "kind": rng.choice(list("abc"), 48), "x": rng.uniform(1, 99, 48)})
    frame["y"] = rng.normal(size=48)
    frame.loc[3, "y"] = np.nan
    frame["low"], frame["high"] = frame["y"] - 1, frame["y"] + 1
    words = {"alt": "What is seen.", "caption": "What it means."}
    kinds = pd.Series(frame["kind"].to_numpy(), NAMES)
    counted = pd.DataFrame({"tokens": ["1", "2", "3", "5 or more"], "share": [4.0, 1.0, 3.0, 2.0]})
    made = [
        figures.heatmap(matrix, name="map", groups=kinds, cluster=True, unit="r", **words),
        figures.heatmap(small, name="hostile", title=HOSTILE, alt=HOSTILE, caption=HOSTILE),
        figures.scatter(frame, "x", "y", color="y", label="name", name="scatter", log_x=True, **words),
        figures.line(frame, "x", "y", color="kind", band=("low", "high"), name="line", **words),
        figures.bar(frame, "name", "y", low="low", high="high", color="kind", name="bar", **words),
        figures.bar(frame, "name", "y", horizontal=True, reference={"zero": 0}, name="bar-across", **words),
        figures.strip(frame, "kind", "y", label="name", reference=0, name="strip", **words),
        figures.bar(counted, "tokens", "share", name="numbers", **words),
        figures.table(frame, name="table", **words),
    ]
    head = '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>gallery</title>'
    head += '<meta name="viewport" content="width=device-width"><link rel="icon" href="_static/favicon.svg">'
    head += "<style>:root{--pst-color-text-base:rgb(1,2,3)}body{margin:16px;font-family:sans-serif}</style>"
    head += '<link rel="stylesheet" href="_static/companion.css"><script src="_static/companion.js"></script></head>'
    body = "\n".join(figure.html for figure in made)
    (site / "index.html").write_text(f"{head}<body>{body}</body></html>", encoding="utf-8")
    return site


STATIC = """() => [...document.querySelectorAll('.companion-figure')].map(f => [
    f.querySelector('.companion-static')?.checkVisibility(), f.querySelector('.companion-plot')?.checkVisibility()])"""
LABELS = """() => [...document.querySelectorAll('#fig-map .ytick text')].map(t => {
    const box = t.getBoundingClientRect(); return [box.top, box.bottom]})"""
BARS = """() => {
    const middle = e => {const box = e.getBoundingClientRect(); return (box.left + box.right) / 2};
    return [[...document.querySelectorAll('#fig-numbers .xtick text')].map(t => [t.textContent, middle(t)]),
        [...document.querySelectorAll('#fig-numbers .point path')].map(middle)]}"""
PLOTS = """() => [...document.querySelectorAll('.companion-plot')].map(plot => ({
    id: plot.id, svg: plot.querySelectorAll('svg.main-svg').length, high: plot.offsetHeight,
    wide: plot.querySelector('svg.main-svg')?.getBoundingClientRect().width,
    labels: plot.querySelectorAll('.xtick text, .ytick text').length,
    still: getComputedStyle(plot.parentElement.querySelector('.companion-static')).display}))"""
TEXT = "getComputedStyle(document.querySelector('#fig-line .xtick text')).fill"
COLUMN = "[...document.querySelectorAll('#fig-table tbody tr')].map(r => r.cells[3].textContent)"
OVER = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def seen(gallery, in_browser):
    """What a reader meets in the gallery: at a desk, on a phone, on paper, without scripts, without plotly."""

    async def visit(look, address):
        found = {"complaints": []}

        async def opened(**options):
            page = await (await look(**options)).new_page()
            page.on(
                "console",
                lambda m: found["complaints"].append(m.text) if m.type in ("error", "warning") else None,
            )
            page.on("pageerror", lambda e: found["complaints"].append(str(e)))
            await page.goto(address)
            await page.evaluate("window.companion && companion.drawAll()")
            return page

        page = await opened(viewport={"width": 1280, "height": 800})
        found["desk"] = {"plots": await page.evaluate(PLOTS), "labels": await page.evaluate(LABELS)}
        found["desk"]["over"] = await page.evaluate(OVER)
        found["bars"] = await page.evaluate(BARS)
        found["title"] = await page.title()
        found["elements"] = await page.locator("#fig-hostile img:not(.companion-static), #fig-hostile b").count()
        found["hostile"] = await page.evaluate(
            "[...document.querySelectorAll('#fig-hostile .ytick text')].map(t => t.textContent)"
        )
        found["sorted"] = []
        for _ in range(2):
            await page.locator("#fig-table thead button").nth(3).focus()
            await page.keyboard.press("Enter")
            state = await page.locator("#fig-table thead th").nth(3).get_attribute("aria-sort")
            found["sorted"].append((state, await page.evaluate(COLUMN)))
        await page.set_viewport_size({"width": 375, "height": 800})
        await page.wait_for_function("document.querySelectorAll('#fig-map .ytick text').length < 40")
        found["shrunk"] = {"plots": await page.evaluate(PLOTS), "over": await page.evaluate(OVER)}
        await page.set_viewport_size({"width": 1280, "height": 800})
        await page.wait_for_function("document.querySelectorAll('#fig-map .ytick text').length >= 40")
        found["again"] = await page.evaluate(PLOTS)
        before = await page.evaluate(TEXT)
        await page.evaluate("document.documentElement.style.setProperty('--pst-color-text-base', 'rgb(250, 251, 252)')")
        found["colours"] = before, await page.evaluate(TEXT)
        await page.emulate_media(media="print")
        found["print"] = await page.evaluate(STATIC)

        page = await opened(viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True)
        found["phone"] = {"plots": await page.evaluate(PLOTS), "labels": await page.evaluate(LABELS)}
        found["phone"]["over"] = await page.evaluate(OVER)
        page = await opened(java_script_enabled=False)
        found["plain"] = await page.evaluate(STATIC)
        return found

    return in_browser(gallery, visit)


def test_every_figure_is_drawn_and_fits_a_phone_and_a_desk(seen):
    assert not seen["complaints"]
    for place, width in (("desk", 1280), ("phone", 375), ("shrunk", 375)):
        assert seen[place]["over"] <= 0, place
        assert len(seen[place]["plots"]) == PICTURES
        for plot in seen[place]["plots"]:
            assert plot["svg"] and plot["high"] >= 200 and plot["still"] == "none", (place, plot)
            assert 0.8 * (width - 60) <= plot["wide"] <= width, (place, plot)
            assert plot["labels"] >= 4, (place, plot)
    assert seen["desk"]["plots"] == seen["again"], "a redraw does not restore the plot"


def test_labels_of_a_large_map_never_overlap(seen):
    assert 12 <= len(seen["phone"]["labels"]) < len(seen["desk"]["labels"]) == 48
    for place in ("desk", "phone"):
        labels = sorted(seen[place]["labels"])
        assert all(b[0] >= a[1] - 3 for a, b in itertools.pairwise(labels)), place


def test_a_category_that_is_a_number_is_labelled_at_its_own_place(seen):
    labels, bars = seen["bars"]
    assert [text for text, _ in labels] == ["1", "2", "3", "5 or more"]
    assert np.allclose([middle for _, middle in labels], bars, atol=2)


def test_hostile_text_is_shown_and_never_run(seen):
    assert seen["title"] == "gallery" and seen["elements"] == 0
    first, second = seen["hostile"]
    assert first[:12] == HOSTILE[:12] and first.endswith(HOSTILE[-6:]) and second == "plain"


@pytest.mark.parametrize("way", ["print", "plain"])
def test_paper_and_no_script_show_the_static_picture(seen, way):
    assert seen[way] == [[True, False]] * PICTURES + [[None, None]]


def test_text_of_plots_follows_the_theme(seen):
    assert seen["colours"] == ("rgb(1, 2, 3)", "rgb(250, 251, 252)")


def test_tables_sort_by_keyboard_with_missing_values_last(seen):
    (up, rising), (down, falling) = seen["sorted"]
    assert (up, down) == ("ascending", "descending")
    assert rising[-1] == falling[-1] == "–"
    numbers = [float(v) for v in rising[:-1]]
    assert numbers == sorted(numbers) and len(numbers) == 47
    assert [float(v) for v in falling[:-1]] == sorted(numbers, reverse=True)


def test_a_missing_library_leaves_the_pictures(gallery, tmp_path, in_browser):
    site = tmp_path / "site"
    shutil.copytree(gallery, site, ignore=shutil.ignore_patterns("vendor"))

    async def visit(look, address):
        page = await (await look()).new_page()
        await page.goto(address)
        await page.evaluate("companion.drawAll()")
        return await page.evaluate(
            "[...document.querySelectorAll('.companion-static')].map(i => i.checkVisibility() && i.naturalWidth > 0)"
        )

    assert in_browser(site, visit) == [True] * PICTURES


# ---- the build ----


def test_vendor_files_come_from_the_installed_packages(tmp_path):
    copied = book.copy_vendor(tmp_path)
    assert [p.name for p in copied] == ["plotly.min.js", "tex-svg-full.js"]
    assert all(p.stat().st_size > 10**6 for p in copied)
    copied[0].write_text("damaged")
    before = copied[1].stat().st_mtime_ns
    book.copy_vendor(tmp_path)
    assert copied[0].stat().st_size > 10**6 and copied[1].stat().st_mtime_ns == before


def test_vendor_says_which_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(book.VENDOR, "x.js", ("no-such-package", "x.js"))
    with pytest.raises(UnavailableError, match="no-such-package"):
        book.copy_vendor(tmp_path)


def test_a_warning_stops_the_build_and_is_named(tmp_path):
    (tmp_path / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "index.md").write_text("# A page\n\n{doc}`nowhere`\n")
    with pytest.raises(book.BookError, match=r"index\.md:3: WARNING: .*nowhere"):
        book.build(tmp_path)
    with pytest.raises(book.BookError, match=r"no _config\.yml"):
        book.build(tmp_path / "empty")


@pytest.fixture
def small(tmp_path):
    """A book of two pages."""
    (tmp_path / "_config.yml").write_text("title: t\nexecute: {execute_notebooks: 'off'}\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n- file: second\n")
    (tmp_path / "index.md").write_text("# A page\n\nwhite\n")
    (tmp_path / "second.md").write_text("# Another\n\nblack\n")
    return tmp_path


def test_a_build_that_fails_or_is_killed_leaves_the_site_and_the_next_one_is_whole(small):
    site = book.build(small)
    before = {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}

    def same():
        return {p: p.read_bytes() for p in site.rglob("*") if p.is_file()} == before

    (small / "index.md").write_text("# A page\n\n{doc}`nowhere`\n")
    for _ in range(2):  # what the first one read is kept, with the warning in it: the second must complain as well
        with pytest.raises(book.BookError, match=r"index\.md:3: WARNING: .*nowhere"):
            book.build(small)
        assert same()
    (small / "index.md").write_text("# A page\n\nvermilion\n")
    child = subprocess.Popen([sys.executable, "-c", f"from helpers import book; book.build({str(small)!r})"])
    page = small / "_build" / "next" / "_build" / "html" / "index.html"

    def written():
        return page.exists() and "vermilion" in page.read_text(encoding="utf-8")

    deadline = time.monotonic() + 120
    while not written() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    writers = psutil.Process(child.pid).children(recursive=True)
    with pytest.raises(book.BookError, match="another build of this book is running"):
        book.build(small)
    child.kill()
    child.wait()
    assert writers and not psutil.wait_procs(writers, timeout=10)[1], (
        "the process that writes the pages outlives its parent"
    )
    assert same()
    assert book.build(small) == site
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert '"docnames":["index","second"]' in index and '"vermilion"' in index and '"black"' in index


def test_a_site_is_current_only_as_long_as_every_file_is_as_it_was_made(tmp_path):
    site, stamp = tmp_path / "html", tmp_path / "key"
    (site / "deep").mkdir(parents=True)
    for name in ("index.html", "deep/page.html", "searchindex.js"):
        (site / name).write_text(f"text of {name}")
    assert not book.current(stamp, "k"), "never stamped"
    book.stamp(stamp, "k")
    assert book.current(stamp, "k") and not book.current(stamp, "other")
    for harm in (
        lambda p: p.unlink(),
        lambda p: p.write_text(""),
        lambda p: p.write_text(p.read_text()[:-1]),
        lambda p: p.write_text(p.read_text().replace("text", "TEXT")),
    ):
        for path in [p for p in site.rglob("*") if p.is_file()]:
            before = path.read_text()
            harm(path)
            assert not book.current(stamp, "k"), path
            path.write_text(before)
            assert book.current(stamp, "k")
    for wrong in ("", "k", "[]", "null", '{"key": "k"}', '{"key": "k", "pages": 3}', "\x00"):
        stamp.write_text(wrong)
        assert not book.current(stamp, "k"), wrong
    shutil.rmtree(site)
    assert not book.current(stamp, "k")


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """Artifacts of a study with four benchmarks; the pair (a1, b1) is the same in two axes only."""
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    names = ["b2", "a1", "b1", "a2"]
    described = pd.DataFrame({"benchmark": names, "function": ["b", "a", "b", "a"], "format": "choice"})
    provenance.write_table(tmp_path / "lab" / "benchmarks.csv", described)
    for axis, value in (("performance", 0.9), ("semantic", 0.8), ("signature-crossfit", -0.7)):
        rows = [
            (a, b, value if {a, b} == {"a1", "b1"} else 0.1, -1.0, 1.0) for a, b in itertools.combinations(names, 2)
        ]
        table = pd.DataFrame(rows, columns=["a", "b", "value", "low", "high"])
        provenance.write_table(tmp_path / "lab" / "overlap" / f"{axis}.parquet", table)
    return tmp_path


def test_landing_map_shows_the_artifacts(laboratory):
    text = book.landing_map(target=laboratory / "map.html").read_text(encoding="utf-8")
    spec = json.loads(text.split('<script type="application/json">')[1].split("</script>")[0])
    assert [t["x"] for t in spec["data"]] == [["a1", "a2", "b2", "b1"]] * 3
    assert [t["z"][0][3] for t in spec["data"]] == [t["z"][3][0] for t in spec["data"]] == [0.9, 0.8, -0.7]
    assert all(t["z"][i][i] == 1 and t["zmin"] == -t["zmax"] == -1 for t in spec["data"] for i in range(4))
    assert "Three heat maps of the same 4 benchmarks" in text


def test_landing_page_says_when_nothing_was_run(laboratory):
    (laboratory / "lab" / "overlap" / "semantic.parquet").unlink()
    text = book.landing_map(target=laboratory / "map.html").read_text(encoding="utf-8")
    assert "make book" in text and "figure" not in text


def test_landing_map_refuses_damaged_artifacts(laboratory):
    (laboratory / "lab" / "overlap" / "semantic.parquet").write_bytes(b"PAR1")
    with pytest.raises(StaleArtifactError, match="damaged or edited"):
        book.landing_map(target=laboratory / "map.html")
    assert not (laboratory / "map.html").exists()


# ---- the built book ----


class Reader(HTMLParser):
    """What a page refers to: ids, links, and everything that a browser loads by itself."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.bare = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed") and attrs.get("src"):
            self.loads.append(attrs["src"])
        if tag == "link" and attrs.get("rel") not in ("next", "prev", "index", "search", "canonical"):
            self.loads.append(attrs.get("href", ""))
        if tag == "img" and attrs.get("alt") is None:
            self.bare.append(attrs.get("src", "")[:60])


@pytest.fixture(scope="module")
def readers(missing):
    if not PAGES:
        missing("the book is not built: run `make book` first")
    return {page: Reader((SITE / page).read_text(encoding="utf-8")) for page in PAGES}


def report(problems):
    assert not problems, "\n" + "\n".join(f"{page}: {what}" for page, what in problems)


def test_pages_load_nothing_from_elsewhere(readers):
    report(
        [(p, u) for p, r in readers.items() for u in r.loads if urlsplit(u).scheme not in ("", "data") or u[:2] == "//"]
    )
    styles = [(p.relative_to(SITE).as_posix(), p.read_text(encoding="utf-8")) for p in SITE.rglob("*.css")]
    assert styles and any(r.loads for r in readers.values())
    report([(p, "loads from elsewhere") for p, text in styles if FOREIGN_STYLE.search(text)])


def test_links_and_anchors_lead_somewhere(readers):
    problems = []
    for page, reader in readers.items():
        if page == "search.html":
            continue
        for link in reader.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            target, anchor = urldefrag(urljoin(f"/{page}", link))
            name = unquote(urlsplit(target).path).lstrip("/") or "index.html"
            name = name + "index.html" if name.endswith("/") else name
            if not (SITE / name).is_file():
                problems.append((page, f"{link} leads to no file"))
            elif anchor and name in readers and unquote(anchor) not in readers[name].ids:
                problems.append((page, f"{link} leads to no anchor"))
    report(problems)


def test_ids_are_unique_on_every_page(readers):
    report([(p, f"id {i!r} twice") for p, r in readers.items() for i in {i for i in r.ids if r.ids.count(i) > 1}])


def test_every_picture_has_alt_text(readers):
    report([(p, f"{src} has no alt text") for p, r in readers.items() for src in r.bare])


PROBE = """async () => {
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  if (window.companion) await window.companion.drawAll();
  const all = (query) => [...document.querySelectorAll(query)];
  const plots = all('.companion-plot');
  return {
    equations: all('span.math, div.math').length,
    undrawn: all('span.math, div.math').filter((m) => !m.querySelector('mjx-container svg')).length,
    wrong: all('[data-mml-node="merror"], mjx-merror').map((m) => m.textContent.slice(0, 80)),
    plots: plots.length,
    blank: plots.filter((p) => !p.matches('.js-plotly-plot') || !p.querySelector('svg.main-svg') || p.offsetHeight < 50)
                .map((p) => p.id),
    nameless: all('article [role="img"]:not(mjx-container *)').filter((e) => !e.getAttribute('aria-label')).length,
    unlabelled: all('article img').filter((i) => !i.alt.trim() && !i.closest('[aria-hidden]')).map((i) => i.src.slice(0, 80)),
    untitled: all('article figure:not(:has(figcaption))').map((f) => f.id),
    broken: all('img').filter((i) => i.complete && !i.naturalWidth && i.checkVisibility()).map((i) => i.src.slice(0, 80)),
    titled: document.querySelectorAll('article h1').length,
  };
}"""
WIDE = """() => {
  const inside = (e) => { for (let p = e.parentElement; p; p = p.parentElement)
    if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return true; return false; };
  const over = document.documentElement.scrollWidth - window.innerWidth;
  const out = [...document.querySelectorAll('article *')].filter((e) => e.checkVisibility()
    && e.getBoundingClientRect().right > window.innerWidth + 1 && e.getBoundingClientRect().width > 1 && !inside(e));
  return { over, out: out.slice(0, 3).map((e) => `${e.tagName}.${e.className?.baseVal ?? e.className}`) };
}"""

FITS = """() => [...document.querySelectorAll('.companion-plot svg.main-svg')].every(
    (svg) => svg.getBoundingClientRect().width <= window.innerWidth)"""


@pytest.fixture(scope="module")
def visits(readers, in_browser):
    """Open each page once at the width of a desk, then of a phone; return what was found, by page."""

    async def visit(look, address):
        from playwright.async_api import TimeoutError as timeout

        gate, found = asyncio.Semaphore(AT_ONCE), {}
        context = await look(viewport={"width": 1280, "height": 900})

        async def one(name):
            async with gate:
                page, errors, requests = await context.new_page(), [], set()
                page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
                page.on("pageerror", lambda e: errors.append(str(e)))
                page.on("request", lambda r: requests.add(r.url))
                await page.goto(address + name, wait_until="load")
                record = await page.evaluate(PROBE)
                await page.set_viewport_size({"width": 375, "height": 800})
                if record["plots"]:
                    await page.wait_for_timeout(600)  # the redraw for a phone; a busy machine takes longer
                    with contextlib.suppress(timeout):  # what is still too wide then is reported
                        await page.wait_for_function(FITS, timeout=30_000)
                record |= await page.evaluate(WIDE)
                record |= {"errors": errors, "requests": requests, "address": address}
                found[name] = record
                await page.close()

        await asyncio.gather(*(one(name) for name in CONTENT))
        return found

    return in_browser(SITE, visit)


def test_pages_open_without_errors(visits):
    report([(p, e) for p, v in visits.items() for e in v["errors"]])
    report([(p, "has no title") for p, v in visits.items() if v["titled"] != 1])


def test_no_request_leaves_this_machine(visits):
    local = ("data:", "blob:", "about:")
    report([(p, u) for p, v in visits.items() for u in v["requests"] if not u.startswith((v["address"], *local))])


def test_equations_are_drawn(visits):
    report([(p, f"{v['undrawn']} of {v['equations']} equations") for p, v in visits.items() if v["undrawn"]])
    report([(p, w) for p, v in visits.items() for w in v["wrong"]])
    assert sum(v["equations"] for v in visits.values()) > 0


def test_plots_are_drawn(visits):
    report([(p, f"{i} is not drawn") for p, v in visits.items() for i in v["blank"]])
    report([(p, f"{src} does not load") for p, v in visits.items() for src in v["broken"]])
    assert sum(v["plots"] for v in visits.values()) > 0


def test_figures_speak(visits):
    report([(p, f"{v['nameless']} plots without aria-label") for p, v in visits.items() if v["nameless"]])
    report([(p, f"{src} without alt text") for p, v in visits.items() for src in v["unlabelled"]])
    report([(p, f"figure {i} without caption") for p, v in visits.items() for i in v["untitled"]])


def test_pages_fit_a_phone(visits):
    report([(p, f"{v['over']} pixels too wide: {v['out']}") for p, v in visits.items() if v["over"] > 0 or v["out"]])


def test_pages_are_light(visits):
    def weight(record):
        names = {unquote(urlsplit(u).path).lstrip("/") for u in record["requests"] if u.startswith(record["address"])}
        files = [SITE / (n or "index.html") for n in names if not n.startswith("vendor/")]
        return sum(f.stat().st_size for f in files if f.is_file())

    sizes = {p: weight(v) for p, v in visits.items()}
    assert min(sizes.values()) > 0
    report([(p, f"{s / 2**20:.1f} MiB") for p, s in sizes.items() if s > PAGE_LIMIT])


def test_search_finds_a_word(readers, in_browser):
    async def visit(look, address):
        page = await (await look()).new_page()
        await page.goto(address + "search.html?q=benchmark")
        await page.wait_for_selector("#search-results li")
        return await page.locator("#search-results li").count()

    assert in_browser(SITE, visit) > 0
