"""The designer's report: one HTML file of a study that needs nothing else, and a bundle of its tables.

``python -m helpers.report --study lab`` writes ``build/<study>-report.html`` (plotly packed in from the
installed package, no request to anywhere) and ``build/<study>-tables.zip``. Neither holds question or corpus
texts or scores downloaded from others, so both may be passed on.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import gzip
import importlib.resources
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt

from helpers import (
    cards,
    diagnosis,
    figures,
    figures_pairs,
    inference,
    maps,
    paths,
    provenance,
    studies,
)
from helpers.errors import command
from helpers.fragments import content_policy, escape, guarded

TABLES = ("maps.csv", "agreement.csv", "diagnosis.csv", "redundancy.csv", "benchmarks.csv")
STYLE = """
:root { color-scheme: light dark; --pst-color-text-base: #1f2328; --pst-color-border: #c9ced6; --pst-color-surface: #f3f4f6;
  --pst-color-background: #fff; --pst-color-link: #0a5dc2; }
@media (prefers-color-scheme: dark) { :root { --pst-color-text-base: #d8dde3; --pst-color-border: #4a525c;
  --pst-color-surface: #23282e; --pst-color-background: #14181d; --pst-color-link: #75b6ff; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--pst-color-text-base); background: var(--pst-color-background);
  max-width: 64rem; margin: 0 auto; padding: 1rem; }
a { color: var(--pst-color-link); }
h2 { margin-top: 2.2rem; }
h3 { margin-top: 1.8rem; }
main > table, section table:not(.companion-table) { border-collapse: collapse; display: block; overflow-x: auto; }
section table:not(.companion-table) :is(td, th) { border: 1px solid var(--pst-color-border); padding: .25rem .6rem;
  text-align: left; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
"""

UNPACK = """(async () => {
"use strict";
for (const held of document.querySelectorAll(".companion-packed")) {
  const bytes = Uint8Array.from(atob(held.textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.body.append(script);
}
})();"""


def _markdown(text: str) -> str:
    """Turn a generated MyST page into HTML: anchors become ids, raw blocks stay."""
    raw: list[str] = []

    def keep(match: re.Match) -> str:
        raw.append(match.group(1))
        return f"\n\nRAWBLOCK{len(raw) - 1}\n\n"

    text = re.sub(r"```\{raw\} html\n(.*?)\n```", keep, text, flags=re.DOTALL)
    text = re.sub(r"^\(([a-z0-9-]+)\)=\n## (.+)$", r"### @@\1@@\2", text, flags=re.MULTILINE)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    html = re.sub(r"<h3>@@([a-z0-9-]+)@@", r'<h3 id="\1">', html)
    for k, block in enumerate(raw):
        html = html.replace(f"<p>RAWBLOCK{k}</p>", block)
    return html


def build(study: str, folder: Path | str | None = None) -> tuple[Path, Path]:
    """Write the report and the bundle of a study; return their paths.

    Raises CompanionError (stale or missing artifacts) with what to run.
    """
    folder = Path(folder or paths.ROOT / "build")
    facts = cards.read(study)
    report, bundle = folder / f"{study}-report.html", folder / f"{study}-tables.zip"
    text = _html(facts)
    provenance.write_atomic(report, lambda t: t.write_text(text, encoding="utf-8"))
    provenance.write_atomic(bundle, lambda t: _zip(facts, t))
    return report, bundle


def _static(name: str) -> str:
    return (paths.BOOK / "_static" / name).read_text(encoding="utf-8")


def _html(facts: cards.Facts) -> str:
    described = studies.load(facts.study)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    content = [section for section in _sections(facts) if section]
    cards_page = cards.page(facts).split("\n\n", 1)[1]
    packages = ", ".join(f"{k} {v}" for k, v in provenance.versions().items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"{content_policy([UNPACK, *_libraries()])}"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Benchmark report: {escape(facts.title)}</title><style>{STYLE}{_static('companion.css')}</style></head><body><main>"
        f"<h1>Benchmark report: {escape(facts.title)}</h1><p>{escape(described.description)}</p>"
        f"<p>Made on {today} from the artifacts of the study <code>{escape(facts.study)}</code>.</p>"
        + "".join(f"<section>{part}</section>" for part in content)
        + f'<section><h2 id="cards">Benchmark cards</h2>{_markdown(cards_page)}</section>'
        f"<section><h2>How this was made</h2><p>{escape(packages)}.</p></section></main>{_scripts()}</body></html>"
    )


def _libraries() -> list[str]:
    """Return the plotting library and the page's own script."""
    library = importlib.resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    return [library, _static("companion.js")]


def _scripts() -> str:
    """Return the page's scripts, compressed: unpacked by the browser, without a request.

    A browser that cannot unpack them (older than 2023) keeps the static pictures and the tables.
    """
    packed = [base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode() for text in _libraries()]
    held = "".join(f'<script type="application/gzip" class="companion-packed">{text}</script>' for text in packed)
    return f"{held}<script>{UNPACK}</script>"


def _sections(facts: cards.Facts) -> list[str]:
    axes = facts.axes
    titles = ", ".join(maps.TITLES.get(a, a) for a in axes)
    others = diagnosis.other_axes(axes)
    kinds = facts.findings["kind"].value_counts()
    sparable = [
        n for n in facts.names if any(s.startswith("On these models it adds little") for s in cards.advice(facts, n)[0])
    ]
    first = (
        f"<h2>In short</h2><p>{len(facts.names)} benchmarks on {len(axes)} axes ({escape(titles)}). "
        + (f"Flags: {escape(', '.join(f'{n} {k}' for k, n in kinds.items()))}. " if len(kinds) else "No flag. ")
        + (
            f"Surely alike to another benchmark on every axis, so candidates to spare: {escape(', '.join(sparable[:12]))}."
            if sparable
            else "No benchmark is surely alike to another one on every axis."
        )
        + "</p>"
    )
    parts = [first]
    functions = facts.benchmarks["function"].reindex(axes.names).fillna("not stated")
    if len(axes) > 1:
        drawn = maps.disentangle(maps.comparable(axes))
        figure = figures_pairs.disentanglement(
            drawn,
            name="map",
            functions=functions,
            alt=f"{len(axes.names)} benchmarks at their consensus place, with spokes to their places on {titles}.",
            caption="The disentanglement map: long spokes mark benchmarks on which the axes come apart.",
        )
        parts.append(f"<h2>The disentanglement map</h2>{figure.html}")
    if "performance" in axes.values and others:
        explorer = figures_pairs.explorer(
            maps.pairs(axes),
            others,
            name="pairs",
            flags=facts.findings,
            alt=f"Pairs of benchmarks by {', '.join(others)}, coloured by performance overlap.",
            caption="Every pair of benchmarks; narrow it with the sliders, the lists or by dragging in the plot.",
        )
        agreement = provenance.read_table(studies.load(facts.study).results / "agreement.csv")
        table = figures.table(
            agreement,
            name="agreement",
            caption="Do the axes agree? Mantel tests, raw and corrected for unreliability.",
        )
        parts.append(f"<h2>Pairs, and whether the axes agree</h2>{explorer.html}{table.html}")
    suite = provenance.read_table(studies.load(facts.study).results / "redundancy.csv")
    greedy = suite[suite["method"] == "greedy"]
    shown = greedy[["size", "dropped", "loss", "low", "high"]]
    table = figures.table(
        shown,
        name="redundancy",
        height=360,
        caption="The suite, dropped one benchmark at a time, the cheapest first: loss over all axes with its 95 % interval.",
    )
    parts.append(f"<h2>What the suite can spare</h2>{table.html}")
    if len(facts.findings):
        columns = ["kind", "a", "b", "axis", "estimate", "low", "high", "q", "evidence"]
        table = figures.table(
            facts.findings[columns], name="findings", height=420, caption="Every flag with its evidence."
        )
        parts.append(f"<h2>Flags</h2>{table.html}")
    levels = pd.DataFrame(
        {
            "axis": [maps.TITLES.get(a, a) for a in axes],
            "benchmarks": [len(m) for m in axes.values.values()],
            "median pair": [float(np.median(inference.upper(m))) for m in axes.values.values()],
            "alike from": [facts.levels[a] for a in axes],
            "95 % interval": [axes.interval.get(a, "not stated") for a in axes],
        }
    )
    table = figures.table(levels, name="axes", caption="The axes, and from which similarity on a pair counts as alike.")
    parts.append(f"<h2>The axes</h2>{table.html}")
    return parts


def _zip(facts: cards.Facts, path: Path) -> None:
    folder = studies.load(facts.study).results
    files = {name: guarded(provenance.read_table(folder / name)).to_csv(index=False) for name in TABLES}
    for axis in facts.axes:
        table = provenance.read_table(folder / "overlap" / f"{axis}.parquet")
        files[f"overlap-{axis}.csv"] = guarded(table).to_csv(index=False)
    files["cards.md"] = cards.page(facts)
    files["README.txt"] = (
        f"Tables of the study '{facts.study}' ({facts.title}).\n"
        "overlap-<axis>.csv: pairs of benchmarks with similarity and 95 % interval (column interval: its kind); maps.csv: aligned positions; "
        "agreement.csv: tests whether the axes agree; diagnosis.csv: flags; redundancy.csv: what smaller suites lose; cards.md: one card a benchmark.\n"
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{facts.study}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.report", description=build.__doc__.split("\n")[0])
    parser.add_argument("--study", required=True, help="a study in notebooks/studies")
    parser.add_argument("--output", help="folder; default: build")
    options = parser.parse_args(arguments)
    report, bundle = build(options.study, options.output)
    for path in (report, bundle):
        print(f"{paths.label(path)}  {path.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
