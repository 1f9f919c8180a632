"""The book around the notebooks: local browser libraries, and a build with warnings as errors."""

from __future__ import annotations

import fcntl
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import paths, provenance
from helpers.errors import CompanionError, UnavailableError, command
from helpers.fragments import escape

# file in the site's vendor folder -> (distribution, file inside it). They lie beside the pages,
# not in _static: Jupyter Book makes every page load every script that it finds there.
VENDOR = {
    "plotly.min.js": ("plotly", "plotly/package_data/plotly.min.js"),
    "mathjax/tex-svg-full.js": (
        "sphinx-mathjax-offline",
        "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js",
    ),
}


class BookError(CompanionError):
    """The book did not build without a warning."""


def copy_vendor(book: Path | str = paths.BOOK) -> list[Path]:
    """Copy plotly.js and MathJax from their installed packages to ``<book>/_extra/vendor``; return the files.

    Sphinx puts the content of ``_extra`` (option ``html_extra_path``) at the root of the site. A file that is
    there already is left alone. Raises UnavailableError when a package or its file is missing.
    """
    copied = []
    for name, (package, inside) in VENDOR.items():
        try:
            source = Path(str(importlib.metadata.distribution(package).locate_file(inside)))
        except importlib.metadata.PackageNotFoundError as error:
            raise UnavailableError(f"the book needs the package {package}: run `make setup`") from error
        if not source.is_file():
            version = importlib.metadata.version(package)
            raise UnavailableError(f"{package} {version} has no file {inside}; install the version of the lock file")
        target = Path(book) / "_extra" / "vendor" / name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            shutil.copyfile(source, part)
            os.replace(part, target)
        copied.append(target)
    return copied


def build(book: Path | str = paths.BOOK) -> Path:
    """Build the book with warnings as errors and return ``<book>/_build/html``.

    Every page is written to a fresh folder that takes the place of the earlier site when it is whole; what Sphinx read
    before is kept, unless the last build did not finish. Raises BookError that lists the warnings, each with its file and
    line, or says that another build of the same book is running.
    """
    book = Path(book)
    if not (book / "_config.yml").is_file():
        raise BookError(f"{paths.label(book)} has no _config.yml: it is not the folder of a book")
    copy_vendor(book)
    site, fresh = book / "_build" / "html", book / "_build" / "next"
    made, begun = fresh / "_build" / "html", fresh / "begun"
    fresh.mkdir(parents=True, exist_ok=True)
    with open(book / "_build" / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BookError("another build of this book is running; wait until it has ended") from None
        if begun.exists():  # what a build that failed or was killed left may lack pages, or hide its warnings
            shutil.rmtree(fresh)
            fresh.mkdir()
        begun.touch()
        shutil.rmtree(made, ignore_errors=True)
        _sphinx(book, fresh, lock.fileno())
        finish(made)
        (book / "_build" / "key").unlink(missing_ok=True)
        gone = fresh / "replaced"
        shutil.rmtree(gone, ignore_errors=True)
        if site.exists():
            os.replace(site, gone)
        os.replace(made, site)
        begun.unlink()
        shutil.rmtree(gone, ignore_errors=True)
    return site


def _sphinx(book: Path, folder: Path, lock: int) -> None:
    """Let Jupyter Book write the pages to `folder`, in a process that ends with this one; raise BookError on warnings."""
    words = [sys.executable, "-c", f"{END_WITH_PARENT}from jupyter_book.cli.main import main; main()"]
    words += ["build", str(book), "--path-output", str(folder), "-W", "-n", "--keep-going"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        run = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"NO_COLOR": "1"},
            start_new_session=True,
            pass_fds=[lock],  # a process that outlives this one still holds the lock
        )
        try:
            status = run.wait()
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        log.seek(0)
        if status:
            raise BookError(_complaint(log.read(), book))


# PR_SET_PDEATHSIG: Linux ends the process with SIGKILL when its parent ends, however that ends. Elsewhere nothing does.
END_WITH_PARENT = "import ctypes, sys; sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, 9); "


def setup(app: Any) -> dict[str, bool]:
    """Be an extension of Sphinx: the theme puts a page's title into its print view as HTML."""

    def show(app: Any, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        if "pagetitle" in context:
            context["pagetitle"] = escape(context["pagetitle"])

    app.connect("html-page-context", show, priority=900)  # after the theme has set it
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(site: Path) -> None:
    """Take from the pages what they do not use, and make the search index safe: Sphinx shows its titles as HTML."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if (light := lighten(text)) != text:
            page.write_text(light, encoding="utf-8")
    index = site / "searchindex.js"
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8").removeprefix("Search.setIndex(").removesuffix(")"))
        content["alltitles"] = {escape(title): places for title, places in content["alltitles"].items()}
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        index.write_text(f"Search.setIndex({text})", encoding="utf-8")


def lighten(page: str) -> str:
    """Return the HTML of a page without the scripts of the theme that this page does not use (about 2 to 4 MiB).

    Font Awesome's script repeats as SVG what the theme's own icon font draws; the search index serves results while
    typing, which is off (the search page, where it is needed, has no second copy of the tools); MathJax is for pages
    with equations.

    >>> lighten('<script defer src="_static/scripts/fontawesome.js?digest=5"></script><p>text</p>')
    '<p>text</p>'
    """
    unused = [r"scripts/fontawesome\.js"]
    if "DOCUMENTATION_OPTIONS.pagename = 'search'" not in page:
        unused += [r"_static/searchtools\.js", r"_static/language_data\.js", r"searchindex\.js"]
    if not re.search(r'class="[^"]*\bmath\b', page):
        unused += [r"vendor/mathjax/[\w-]+\.js"]
    return re.sub(rf'\s*<script[^>]* src="[^"]*(?:{"|".join(unused)})[^"]*"></script>', "", page)


def landing_map(study: str = "lab", target: Path = paths.GENERATED / "landing-map.html") -> Path:
    """Write the map of the landing page: the three overlaps of one study, side by side, from its artifacts.

    Where a study has not been run yet the page says so. Raises StaleArtifactError for damaged artifacts.
    """
    from helpers import figures  # plotting libraries load slowly, and a check of the page needs none

    folder = paths.results(study)
    panels = {
        "performance": "the same scores?",
        "semantic": "the same questions?",
        "signature-crossfit": "the same signature?",
    }
    sources = {axis: folder / "overlap" / f"{axis}.parquet" for axis in panels}
    if not all(p.exists() for p in [folder / "benchmarks.csv", *sources.values()]):
        text = "<p><em>The map appears here when the laboratory has been run: <code>make book</code>.</em></p>"
        provenance.write_atomic(target, lambda t: t.write_text(text + "\n", encoding="utf-8"))
        return target
    benchmarks = provenance.read_table(folder / "benchmarks.csv").set_index("benchmark")
    long = {axis: provenance.read_table(path) for axis, path in sources.items()}
    known = set.intersection(*(set(t["a"]) | set(t["b"]) for t in long.values()))
    order = [b for b in benchmarks.sort_values(["function", "format"], kind="stable").index if b in known]
    functions = benchmarks.loc[order, "function"]
    starts = [i for i, f in enumerate(functions) if i and f != functions.iloc[i - 1]]
    middles = [(a + b - 1) // 2 for a, b in itertools.pairwise([0, *starts, len(order)])]
    named = {  # each function at the middle of its rows
        "tickmode": "array",
        "tickvals": [figures.plot_text(order[i]) for i in middles],
        "ticktext": [figures.plot_text(functions.iloc[i]) for i in middles],
        "tickfont": {"size": 11},
        "automargin": True,
        "ticks": "",
    }
    layout: dict = {"height": 270, "showlegend": False, "shapes": [], "annotations": []}
    phone: dict = {"height": 900}
    traces = []
    for k, (axis, title) in enumerate(panels.items()):
        side = "" if k == 0 else str(k + 1)
        matrix = long[axis].pivot(index="a", columns="b", values="value").reindex(index=order, columns=order)
        matrix = matrix.fillna(matrix.T).to_numpy().copy()  # a file may hold each pair once
        matrix[range(len(order)), range(len(order))] = 1
        traces.append(
            {
                "type": "heatmap",
                "x": [figures.plot_text(b) for b in order],
                "y": [figures.plot_text(b) for b in order],
                "z": matrix.tolist(),
                "xaxis": f"x{side}",
                "yaxis": f"y{side}",
                "zmin": -1,
                "zmax": 1,
                "colorscale": figures.scale(figures.DIVERGING),
                "showscale": k == 2,
                "colorbar": {
                    "title": {"text": "overlap", "side": "right"},
                    "thickness": 10,
                    "outlinewidth": 0,
                },
                "hovertemplate": "<b>%{y}</b><br>%{x}<br>%{z:.2f}<extra></extra>",
            }
        )
        shared = {"type": "category", "showticklabels": False, "showgrid": False}
        layout[f"xaxis{side}"] = shared | {
            "domain": [k * 0.345, k * 0.345 + 0.31],
            "anchor": f"y{side}",
        }
        layout[f"yaxis{side}"] = shared | {"autorange": "reversed", "anchor": f"x{side}"}
        layout[f"yaxis{side}"] |= named | {"showticklabels": k == 0}
        phone[f"xaxis{side}"] = {"domain": [0.03, 0.97]}
        phone[f"yaxis{side}"] = {"domain": [1 - k * 0.36 - 0.28, 1 - k * 0.36], "showticklabels": True}
        place = {"xref": f"x{side} domain", "yref": f"y{side} domain", "x": 0.5, "y": 1, "yanchor": "bottom"}
        layout["annotations"].append(place | {"text": title, "showarrow": False, "font": {"size": 14}})
        for at in starts:
            line = {
                "type": "line",
                "xref": f"x{side}",
                "yref": f"y{side}",
                "line": {"color": "#14181e", "width": 1},
            }
            ends = {"from": -0.5, "to": len(order) - 0.5, "at": at - 0.5}
            layout["shapes"].append(line | {"x0": ends["from"], "x1": ends["to"], "y0": ends["at"], "y1": ends["at"]})
            layout["shapes"].append(line | {"x0": ends["at"], "x1": ends["at"], "y0": ends["from"], "y1": ends["to"]})
    # one row a pair; the intervals are on the pages of the axes
    data = pd.concat({axis: t.set_index(["a", "b"])["value"] for axis, t in long.items()}, axis=1)
    figure = figures.plotly(
        {"data": traces, "layout": layout},
        name="landing-map",
        alt=f"Three heat maps of the same {len(order)} benchmarks: overlap in scores, in questions, in signatures.",
        caption=f"{len(order)} benchmarks of a laboratory whose truth is known, in the same order in all three maps, "
        f"sorted by the function they test (lines separate them). Red: they agree. Blue: they contradict. "
        "Computed by this build.",
        data=data.reset_index(),
    )
    figure.spec["phone"] = phone
    provenance.write_atomic(target, lambda t: t.write_text(figure.html + "\n", encoding="utf-8"))
    return target


def _complaint(log: str, book: Path) -> str:
    """Return a message with every warning of a build log, paths relative to the book.

    >>> print(_complaint("reading sources\\n/b/idea.md:3: WARNING: unknown document 'x'\\ndone", Path("/b")))
    the book did not build without warnings (1):
      idea.md:3: WARNING: unknown document 'x'
    """
    log = re.sub(r"\x1b\[[0-9;]*m", "", log).replace(f"{book.resolve()}{os.sep}", "")
    found = list(
        dict.fromkeys(line.strip() for line in log.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line))
    )
    if not found:
        found = [line.strip() for line in log.splitlines() if line.strip()][-15:]
    return f"the book did not build without warnings ({len(found)}):\n" + "\n".join(f"  {line}" for line in found)


def make(book: Path = paths.BOOK) -> bool:
    """Write the generated pages and build the book when anything that it shows changed; return whether it was built.

    Cards are written for every study whose page of cards the table of contents names.
    """
    # generated pages are made from the executed notebooks, whose records hold the sha256 of every artifact
    skipped = {"_build", "_extra", "generated"}
    shown = [p for p in sorted(book.rglob("*")) if p.is_file() and not skipped & set(p.relative_to(book).parts)]
    measured = (paths.ROOT / "benchmarks" / "results").glob("*.csv")
    code = sorted([*paths.SOURCE.rglob("*.py"), paths.LOCK, paths.DATA / "manifest.yml", *measured])
    digests = {paths.label(p): provenance.sha256_file(p) for p in [*shown, *code]}
    key, mark = provenance.content_key(digests), book / "_build" / "key"
    if current(mark, key):
        return False
    from helpers import cards, pages  # plotting libraries load slowly: only for a book that changed

    pages.write_all()
    landing_map()
    contents = (book / "_toc.yml").read_text(encoding="utf-8")
    cards.write_all(re.findall(r"generated/([a-z0-9-]+)/cards", contents))
    build(book)
    stamp(mark, key)
    return True


def _pages(site: Path) -> dict[str, str]:
    """Return the sha256 of every file of a site."""
    files = (p for p in sorted(site.rglob("*")) if p.is_file())
    return {p.relative_to(site).as_posix(): provenance.sha256_file(p) for p in files}


def stamp(mark: Path, key: str) -> None:
    """Write to the file `mark` what the site beside it was made from, and what every file of it holds."""
    record = json.dumps({"key": key, "pages": _pages(mark.parent / "html")})
    provenance.write_atomic(mark, lambda t: t.write_text(record, encoding="utf-8"))


def current(mark: Path, key: str) -> bool:
    """Return whether the site beside `mark` was made from what `key` stands for and no file of it was lost or changed."""
    try:
        known = json.loads(mark.read_text(encoding="utf-8"))
        return known["key"] == key and known["pages"] == _pages(mark.parent / "html")
    except (OSError, ValueError, TypeError, KeyError):
        return False


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Build the book, or the one in the folder that is named; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind: the process that writes the pages is ended
    folder = Path(arguments[0]) if arguments else paths.BOOK
    changed = bool(build(folder)) if arguments else make()
    print(f"The book is {'built' if changed else 'current'}: {paths.label(folder / '_build' / 'html')}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
