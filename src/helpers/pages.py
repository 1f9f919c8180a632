"""Generate the book pages that are fed by artifacts: data, provenance, paper versus here, measurements, API.

:func:`write_all` writes MyST into ``book/generated`` from run records, the data manifest and the claims of every
study. A study shown from frozen copies brings its frozen tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

import nbformat
import numpy as np
import pandas as pd
import yaml

from helpers import datasets, paths, provenance, studies
from helpers.errors import DataError
from helpers.fragments import code, literal


def run_records() -> list[dict]:
    """Return the record of every executed notebook that the book shows, by study and notebook."""
    files = sorted(paths.EXECUTED.rglob("*.run.json"))
    return [json.loads(p.read_text(encoding="utf-8")) for p in files]


def study_table(study: str, name: str) -> pd.DataFrame | None:
    """Return a small result table of a study (live, else its frozen copy), or None where it has none."""
    records = [r for r in run_records() if r["study"] == study]
    frozen = bool(records) and all(r["frozen"] for r in records)
    path = (paths.FROZEN / study if frozen else paths.results(study)) / name
    if not path.is_file():
        return None
    return pd.read_csv(path) if frozen else provenance.read_table(path)


def markdown_table(frame: pd.DataFrame, written: Collection[str] = ()) -> str:
    """Return a Markdown table; cells and headers are shown literally, floats with three digits, missing values as a dash.

    Columns in `written` hold Markdown of the project's own, such as links.

    >>> print(markdown_table(pd.DataFrame({"a": ["x|y"], "b": [0.12345]})))
    | a | b |
    |---|---|
    | x&#124;y | 0.123 |
    """

    def show(value: object, column: str) -> str:
        if value is None or (isinstance(value, float) and pd.isna(value)):
            return "–"
        if column in written:
            return str(value)
        return f"{value:.3g}" if isinstance(value, float) else literal(value)

    lines = ["| " + " | ".join(map(literal, frame.columns)) + " |", "|" + "---|" * frame.shape[1]]
    for row in frame.itertuples(index=False, name=None):
        lines.append("| " + " | ".join(show(v, c) for v, c in zip(row, frame.columns, strict=True)) + " |")
    return "\n".join(lines)


def provenance_page() -> str:
    """Return the page that says what ran, when, for how long, on which data and versions."""
    records = run_records()
    if not records:
        raise DataError("No executed notebook in book/notebooks; run `make book`.")
    runs = pd.DataFrame(
        {
            "study": r["study"],
            "notebook": r["notebook"],
            "computed": r["date"] + (" (frozen)" if r["frozen"] else ""),
            "seconds": r["seconds"],
            "parameters": ", ".join(f"{k}={v}" for k, v in r["parts"]["parameters"].items()) or "–",
            "key": provenance.content_key(r["parts"])[:12],
        }
        for r in records
    )
    versions = pd.DataFrame(sorted(records[-1]["versions"].items()), columns=["package", "version"])
    data = {name: digest for r in records for name, digest in r["parts"]["data"].items()}
    files = pd.DataFrame([(n, f"`{d[:16]}`") for n, d in sorted(data.items())], columns=["file", "sha256 begins"])
    live = runs[~runs["computed"].str.contains("frozen")]
    return f"""# Provenance

Each page of results is an executed notebook. A notebook runs again exactly when its text, parameters, study, the
helper modules it imports, the lock file, its data or the artifacts it reads change; the *key* is a hash of all of
these. {len(live)} of {len(runs)} notebooks were computed by a build of this repository
({live["seconds"].sum():.0f} s together); the others are dated, frozen copies and say so on their pages.

## Runs

{markdown_table(runs)}

## Versions

{markdown_table(versions)}

## Data

{markdown_table(files, written={"sha256 begins"})}
"""


def data_page() -> str:
    """Return the page of every published file that a study reads: source, licence, checksum, defects."""
    known = datasets.manifest()
    parts = []
    for name, entry in known.datasets.items():
        source = known.sources[entry.source]
        files = pd.DataFrame(
            {
                "file": f"[{literal(Path(path).name)}]({quote(known.url(name, path), safe=':/')})",
                "sha256 begins": f"`{digest[:16]}`",
            }
            for path, digest in entry.files.items()
        )
        listing = markdown_table(files, written=set(files))
        if len(files) > 6:
            listing = f":::{{dropdown}} {len(files)} files\n{listing}\n:::"
        defects = "\n".join(f"- {literal(d)}" for d in entry.defects) or "- none known"
        parts.append(
            f"## {literal(entry.title)}\n\n{code(name)}: {literal(entry.kind)} from {literal(source.repository)} at commit "
            f"{code(entry.commit[:12])}. Licence: {literal(source.licence)}. How commit and content were tied together: "
            f"{literal(entry.checked)}.\n\n"
            f"Known defects:\n\n{defects}\n\n{listing}\n"
        )
    introduction = """# Data

Nothing downloaded is kept in the repository. Every file is fetched from its source at a fixed commit and checked
against its sha256; set `COMPANION_DATA` to a folder `<owner>+<repo>/<path>` to use copies you already have.
The laboratory's own data (`data/lab`) are made by `make lab`.
"""
    return "\n".join([introduction, *parts])


def paper_page() -> str:
    """Return the table of the paper's numbers beside the same quantities in every study that tests them."""
    shown = []
    for name in studies.names():
        claims = study_table(name, "claims.csv")
        if claims is not None:
            shown.append(claims.assign(study=name))
    if not shown:
        raise DataError("No study has written claims.csv; run the notebook test-the-claims (`make book`).")
    frame = pd.concat(shown, ignore_index=True)
    parts = ["# Paper versus here\n", _paper_intro(frame)]
    for claim, rows in frame.groupby("claim", sort=False):
        paper = rows["paper_value"].dropna()
        parts.append(f"## {literal(claim)}\n")
        if len(paper):
            parts.append(f"The paper: **{literal(paper.iloc[0])}**.\n")
        columns = [c for c in ("study", "mode", "here_value", "low", "high", "verdict", "why") if c in rows]
        parts.append(markdown_table(rows[columns].rename(columns={"here_value": "here"})) + "\n")
    return "\n".join(parts)


def _paper_intro(frame: pd.DataFrame) -> str:
    counts = frame["verdict"].value_counts()
    summary = ", ".join(f"{n} × *{literal(v)}*" for v, n in counts.items())
    return f"""Every number that the paper reports, beside the same quantity in each study of this book, computed by the
notebook *Test the claims* of that study. {len(frame)} comparisons: {summary}. None of the studies is the paper's own
population; a claim that does not hold here may hold there, and the other way round. *Low* and *high* bound a 95 %
interval where one was computed.
"""


EXAMPLES = {  # study -> what its notebook adapt-your-benchmark was run on
    "entigraph": "ARC challenge as somebody else measured it, among the benchmarks of the study `entigraph`",
    "lab": "the files that come with the book, in the laboratory",
}


def example_page() -> str:
    """Return the real outcome of the notebook adapt-your-benchmark where it ran: what was read, the verdict, what to collect.

    Included by the page *Adapt this book*, so that nothing there is typed in.
    """
    parts = []
    for study, what in EXAMPLES.items():
        path = paths.EXECUTED / study / "adapt-your-benchmark.ipynb"
        if not (path.exists() and path.with_suffix(".run.json").exists()):
            continue
        notebook = nbformat.read(path, as_version=4)
        record = json.loads(path.with_suffix(".run.json").read_text(encoding="utf-8"))
        by_tag = {tag: c for c in notebook.cells for tag in c.metadata.get("tags", [])}
        shown = [
            o.data["text/markdown"]
            for tag in ("files", "verdict", "collect")
            if tag in by_tag
            for o in by_tag[tag].get("outputs", [])
            if "text/markdown" in o.get("data", {})
        ]
        state = "shown from a frozen copy of" if record["frozen"] else "computed by this build on"
        quoted = "\n\n".join(shown)
        parts.append(f"**{what[0].upper()}{what[1:]}** ({state} {record['date']}):\n\n{quoted}\n")
    if not parts:
        raise DataError("The notebook adapt-your-benchmark has not run; run `make book`.")
    return "\n".join(parts)


def launch_page(address: str | None = None) -> str:
    """Return links that open the notebook of a reader's benchmark on Binder and Colab, included by *Adapt this book*.

    `address` defaults to ``repository.url`` of ``book/_config.yml``; without it the text says that it is not set. Raises
    DataError for an address that is not a repository on GitHub.
    """
    if address is None:
        settings = yaml.safe_load((paths.BOOK / "_config.yml").read_text(encoding="utf-8"))
        address = settings.get("repository", {}).get("url") or ""
    if not address:
        return (
            "The address of the public repository is not set yet (`repository.url` in `book/_config.yml`), so there is "
            "nothing to link to; once it is, the links to Binder and Colab stand here.\n"
        )
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git|/)?", address)
    if not found:
        raise DataError(f"book/_config.yml: repository.url is '{address}'; expected https://github.com/OWNER/NAME")
    name, notebook = found.group(1), "notebooks/adapt-your-benchmark.ipynb"
    binder = f"https://mybinder.org/v2/gh/{name}/main?labpath={notebook}"
    colab = f"https://colab.research.google.com/github/{name}/blob/main/{notebook}"
    return f"[Open the notebook on Binder]({binder}) · [open it on Colab]({colab})\n"


def variants_page() -> str:
    """Return how far exposures spread in each of the laboratory's populations, included by *Two harder worlds*."""
    from helpers import lab  # torch is slow to import: only where it is needed
    from helpers.lab import population
    from helpers.lab import text as lab_text

    lines = [
        "| population | a domain, most over least | quiz practice, most over least | median correlation of two domains |",
        "|---|---|---|---|",
    ]
    for name in population.POPULATIONS:
        seen = lab.exposure_table(name).set_index("model")
        domains = seen[list(lab_text.world())]
        spread = (domains.max() / domains.min()).median()
        together = np.log(domains).corr().to_numpy()[np.triu_indices(domains.shape[1], 1)]
        quiz = seen["quiz"].max() / seen["quiz"].min()
        lines.append(f"| `{name}` | {spread:.1f} times | {quiz:.0f} times | {np.median(together):.2f} |")
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """Return the API reference, one section a module, from the docstrings."""
    modules = sorted(p.stem for p in paths.SOURCE.glob("*.py") if p.stem not in ("__init__", "__main__"))
    packages = sorted(p.parent.name for p in paths.SOURCE.glob("*/__init__.py"))
    parts = ["# API reference\n", "Generated from the docstrings of `src/helpers`.\n"]
    for name in sorted([*modules, *packages]):
        parts.append(f"## helpers.{name}\n\n```{{eval-rst}}\n.. automodule:: helpers.{name}\n   :members:\n```\n")
    return "\n".join(parts)


def write_all() -> list[Path]:
    """Write every generated page whose content changed; return all of their paths."""
    from helpers import measured

    written = []
    pages = {
        "data": data_page,
        "provenance": provenance_page,
        "paper-vs-here": paper_page,
        "measured": measured.page,
        "api": api_page,
        "adapt-example": example_page,
        "launch": launch_page,
        "variants": variants_page,
    }
    for name, page in pages.items():
        path, text = paths.GENERATED / f"{name}.md", page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            provenance.write_atomic(path, lambda t, x=text: t.write_text(x, encoding="utf-8"))
        written.append(path)
    return written
