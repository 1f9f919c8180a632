"""Benchmark cards: all that a study knows about one benchmark, and what to do about it.

:func:`write` makes ``book/generated/<study>/cards.md``: an index that sorts and filters, then one card a
benchmark. The cards of a study share a page because a page costs Sphinx far more than a section. Everything
on a card is read from the study's artifacts; texts of others are never shown.
"""

from __future__ import annotations

import datetime
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import diagnosis, maps, paths, provenance, studies
from helpers.errors import CompanionError, DataError, nearest
from helpers.fragments import code, escape, literal
from helpers.pages import markdown_table

RELIABLE = 0.8
NEIGHBOURS = 3
UNITS = 12


@dataclass(frozen=True)
class Facts:
    """What the cards of a study are written from; see :func:`read`."""

    study: str
    title: str
    axes: maps.Axes
    benchmarks: pd.DataFrame
    scores: pd.DataFrame
    findings: pd.DataFrame
    map: pd.DataFrame
    adds: pd.DataFrame
    levels: dict[str, float]
    signatures: pd.DataFrame | None = None
    units: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Benchmarks that have a card: those on at least one axis."""
        return self.axes.names


def read(study: str) -> Facts:
    """Read what the cards need. Raises StaleArtifactError or DataError when the maps were not made yet."""
    described = studies.load(study)
    folder = described.results
    wanted = [a for a in maps.available(folder) if a in maps.KNOWN and a != "attention"]
    wanted = [a for a in wanted if a != "signature" or "signature-crossfit" not in wanted]
    axes = maps.read(study, wanted)
    benchmarks = provenance.read_table(folder / "benchmarks.csv").drop_duplicates("benchmark")
    long = provenance.read_table(folder / "scores.csv")
    optional = {
        name: provenance.read_table(folder / file) if (folder / file).exists() else None
        for name, file in (("signatures", "signatures.parquet"), ("units", "units.parquet"))
    }
    return Facts(
        study,
        described.title,
        axes,
        benchmarks.set_index("benchmark"),
        long,
        provenance.read_table(folder / "diagnosis.csv"),
        provenance.read_table(folder / "maps.csv"),
        diagnosis.adds_most(axes),
        diagnosis.thresholds(axes),
        **optional,
    )


def slug(study: str, benchmark: str) -> str:
    """Return the anchor of a card, unique in the book.

    >>> slug("lab", "Code: lists/easy")
    'card-lab-code-lists-easy'
    """
    return f"card-{study}-" + re.sub(r"[^a-z0-9]+", "-", benchmark.lower()).strip("-")


def anchors(facts: Facts) -> dict[str, str]:
    """Return the anchor of every benchmark; names that would share one get a number."""
    found: dict[str, str] = {}
    for name in facts.names:
        base = slug(facts.study, name)
        taken = set(found.values())
        count = 1
        anchor = base
        while anchor in taken:
            count += 1
            anchor = f"{base}-{count}"
        found[name] = anchor
    return found


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) and np.isfinite(high) else "")


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def reliability(facts: Facts, benchmark: str) -> float:
    """Return the reliability of the benchmark's scores, NaN where it is not known."""
    table = facts.axes.reliability.get("performance")
    return float(table.get(benchmark, np.nan)) if table is not None else np.nan


def flags(facts: Facts, benchmark: str) -> pd.DataFrame:
    """Return the findings that name the benchmark."""
    table = facts.findings
    return table[
        (table["a"] == benchmark) | ((table["b"] == benchmark) & ~table["kind"].isin(("orthogonal", "outlier")))
    ]


def displaced(facts: Facts, benchmark: str) -> tuple[float, str, str]:
    """Return the benchmark's longest move: distance in consensus radii, and the two axes; NaN with one axis."""
    rows = facts.map[(facts.map["benchmark"] == benchmark) & facts.map["x"].notna()]
    best = (np.nan, "", "")
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            a, b = rows.iloc[i], rows.iloc[j]
            gap = float(np.hypot(a["x"] - b["x"], a["y"] - b["y"]))
            if not gap <= best[0]:
                best = (gap, a["axis"], b["axis"])
    return best


def advice(facts: Facts, benchmark: str) -> tuple[list[str], list[str]]:
    """Return what to do about a benchmark, and what would change that, each as sentences with their uncertainty."""
    say, change = [], []
    models = int(facts.scores.loc[facts.scores["benchmark"] == benchmark, "model"].nunique())
    known = reliability(facts, benchmark)
    if np.isfinite(known) and known < RELIABLE:
        say.append(
            f"Read its scores with care: their reliability is {known:.2f}, so a good part of the differences between "
            "models is sampling of items."
        )
        if 0.05 < known:
            times = RELIABLE * (1 - known) / (known * (1 - RELIABLE))
            change.append(
                f"About {times:.1f} times as many items would bring the reliability to {RELIABLE} (Spearman and Brown)."
            )
        else:
            change.append(
                "Its reliability is too near zero to say how many items would help; the items may be too hard."
            )
    say += _beyond(facts, benchmark, models, change)
    mine = flags(facts, benchmark)
    for kind, words in (
        ("misleading agreement", "Do not read its agreement with {} as one skill: only the scores say so."),
        (
            "hidden kinship",
            "It may test what {} tests although the scores do not go together; look at format and difficulty.",
        ),
        ("format-driven", "Its overlap with {} rests for more than half on skill with the answer format."),
        ("scale-driven", "Its overlap with {} rests for more than half on model scale."),
        ("contaminated", "It shares questions with {}: do not count the two as independent evidence."),
    ):
        part = mine[mine["kind"] == kind]
        if len(part):
            partners = [b if a == benchmark else a for a, b in zip(part["a"], part["b"])]
            shown = _list([f"*{literal(p)}*" for p in partners[:3]])
            shown += f" and {len(partners) - 3} more" if len(partners) > 3 else ""
            say.append(words.format(shown))
    alone = mine[mine["kind"] == "orthogonal"]
    if len(alone):
        on = _list([maps.TITLES.get(a, a) for a in alone["axis"]])
        say.append(
            f"Keep it: on the {on} ax{'is' if len(alone) == 1 else 'es'} it is surely alike to no other benchmark here."
        )
        change.append("A new benchmark of the same kind would end its being the only one.")
    if not say:
        say.append(
            "The data give no sure advice about this benchmark; it is neither clearly spare nor clearly the only one."
        )
    if len(facts.axes) < 4:
        lacking = [
            maps.TITLES[a]
            for a in ("performance", "signature-crossfit", "semantic", "neural")
            if a not in facts.axes.values
        ]
        change.append(
            f"The {_list(lacking)} ax{'is' if len(lacking) == 1 else 'es'}, missing in this study, could "
            f"contradict this."
        )
    return say, change


def _deciding(axis: str, other: str, value: float, level: float, low: float, high: float, models: int) -> str:
    """Say how much more data would decide a pair whose interval holds the level from which pairs count as alike.

    An interval on Fisher's z shrinks with the root of the number of models (performance, signature) or of
    questions (semantic, neural), so that takes (half width / distance to the level) squared times as many.
    """
    z = np.arctanh(np.clip([value, level, low, high], -0.999999, 0.999999))
    margin, half = abs(z[0] - z[1]), (z[3] - z[2]) / 2
    title = maps.TITLES.get(axis, axis)
    material = "models" if axis == "performance" or axis.startswith("signature") else "questions"
    times = (half / margin) ** 2 if margin > 0 else np.inf
    if times > 20:
        return (
            f"The {title} overlap with *{literal(other)}* lies too near the level from which pairs count as alike "
            f"for any likely number of {material} to decide."
        )
    amount = f"{max(times, 1) * models:,.0f} models (now {models})"
    if axis != "performance" or not models:
        amount = f"{max(times, 1.1):.1f} times as many {material}"
    return (
        f"If the {title} overlap with *{literal(other)}* is what it seems, about {amount} would decide whether it "
        "counts as alike."
    )


def _beyond(facts: Facts, benchmark: str, models: int, change: list[str]) -> list[str]:
    """Say whether another benchmark stands in for this one on every axis that holds both, and how surely."""
    row = facts.adds[facts.adds["benchmark"] == benchmark]
    if row.empty:
        return []
    other = row["stand_in"].iloc[0]
    alike, unsure, unlike = [], [], []
    for axis, matrix in facts.axes.values.items():
        if benchmark not in matrix.index or other not in matrix.index:
            continue
        value, level = matrix.loc[benchmark, other], facts.levels[axis]
        low = facts.axes.low[axis].loc[benchmark, other] if axis in facts.axes.low else value
        high = facts.axes.high[axis].loc[benchmark, other] if axis in facts.axes.high else value
        text = (
            f"{maps.TITLES.get(axis, axis)} {_interval(value, low, high) if axis in facts.axes.low else f'{value:.2f}'}"
        )
        (alike if low > level else unlike if high < level else unsure).append(text)
        if low <= level <= high and np.isfinite(low) and np.isfinite(high):
            change.append(_deciding(axis, other, value, level, low, high, models))
    if not unsure:
        change.append(
            f"More data of the same kind would not: every interval with *{literal(other)}* is clear of the level "
            "from which a pair counts as alike. Other models or another suite could; the levels are this suite's."
        )
    if alike and not unsure and not unlike:
        if len(alike) == 1 and len(facts.axes) > 1:
            return [
                f"On the only axis that holds both, it is alike to *{literal(other)}* ({alike[0]}); that is "
                f"too little to drop it."
            ]
        return [
            f"On these models it adds little beyond *{literal(other)}*: surely alike on all {len(alike)} axes "
            f"({'; '.join(alike)})."
        ]
    if alike:
        rest = [f"surely not by {'; '.join(unlike)}"] * bool(unlike) + [f"undecided by {'; '.join(unsure)}"] * bool(
            unsure
        )
        return [
            f"Its closest stand-in is *{literal(other)}*: surely alike by {'; '.join(alike)}, {', '.join(rest)}. "
            "Whether it can be spared depends on which axis you care for."
        ]
    if unsure:
        return [
            f"Its closest stand-in is *{literal(other)}*, not surely alike on any axis ({'; '.join(unsure + unlike)})."
        ]
    return [
        f"No other benchmark stands for it on all axes; the closest, *{literal(other)}*, is surely not alike "
        f"({'; '.join(unlike)})."
    ]


def card(facts: Facts, benchmark: str, places: dict[str, str] | None = None) -> str:
    """Return the card of one benchmark as MyST, starting with its anchor and a second-level heading.

    Raises DataError that names the nearest benchmark when there is none of that name.
    """
    if benchmark not in facts.names:
        raise DataError(
            f"Study '{facts.study}' has no benchmark '{benchmark}' on any axis; {nearest(benchmark, facts.names)}"
        )
    places = places or anchors(facts)
    about = facts.benchmarks.loc[benchmark] if benchmark in facts.benchmarks.index else pd.Series(dtype=object)

    def fact(name: str) -> str:
        return literal(about[name]) if name in about and pd.notna(about[name]) and str(about[name]) else "not stated"

    lines = [
        f"({places[benchmark]})=",
        f"## {fact('title') if fact('title') != 'not stated' else literal(benchmark)}",
        "",
    ]
    items = (
        f"{int(about['n_items']):,} items" if "n_items" in about and pd.notna(about["n_items"]) else "items not counted"
    )
    chance = f", chance {about['chance']:.2f}" if "chance" in about and pd.notna(about["chance"]) else ""
    lines.append(
        f"**What it is.** {code(benchmark)}: {fact('function')}, {fact('format')}, of the family "
        f"{fact('family')}; {items}{chance}." + (f" Note: {fact('reason')}." if fact("reason") != "not stated" else "")
    )
    score = facts.scores.loc[facts.scores["benchmark"] == benchmark, "score"].dropna()
    known = reliability(facts, benchmark)
    if len(score):
        lines += [
            "",
            f"**Scores.** {len(score)} models, {score.min():.3g} to {score.max():.3g}, median "
            f"{score.median():.3g}; reliability " + (f"{known:.2f}." if np.isfinite(known) else "not known."),
        ]
    near = maps.neighbours(facts.axes, benchmark, NEIGHBOURS)
    rows = []
    for axis in facts.axes:
        part = near[near["axis"] == axis]
        if part.empty:
            reason = facts.axes.missing.query("axis == @axis and benchmark == @benchmark")["reason"]
            why = reason.iloc[0] if len(reason) else "not on this axis"
            rows.append(f"| {maps.TITLES.get(axis, axis)} | missing: {literal(why)} |")
            continue
        shown = [
            f"[{literal(r.neighbour)}](#{places[r.neighbour]}) {_interval(r.value, r.low, r.high)}"
            for r in part.itertuples()
        ]
        rows.append(f"| {maps.TITLES.get(axis, axis)} (alike from {facts.levels[axis]:.2f}) | {'; '.join(shown)} |")
    lines += ["", "| axis | nearest |", "|---|---|", *rows, ""]
    gap, a, b = displaced(facts, benchmark)
    if np.isfinite(gap):
        lines.append(
            f"**On the map** its longest move is {gap:.2f} radii, from {maps.TITLES.get(a, a)} to "
            f"{maps.TITLES.get(b, b)}."
        )
    lines += _signature(facts, benchmark)
    mine = flags(facts, benchmark)
    if len(mine):
        lines += ["", "**Flags.**", ""]
        for r in mine.head(8).itertuples():
            other = r.b if r.a == benchmark else r.a
            pair = f" with [{literal(other)}](#{places[other]})" if isinstance(other, str) and other in places else ""
            q = f", q {r.q:.3f}" if pd.notna(r.q) else ""
            axis = f" on the {maps.TITLES.get(r.axis, r.axis)} axis" if r.kind in ("orthogonal", "outlier") else ""
            pair = "" if r.kind in ("orthogonal", "outlier") else pair
            lines.append(f"- *{literal(r.kind)}*{axis}{pair}: {literal(r.evidence)}{q}")
        if len(mine) > 8:
            lines.append(f"- and {len(mine) - 8} more in `diagnosis.csv`")
    say, change = advice(facts, benchmark)
    lines += ["", "**Advice.** " + " ".join(say)]
    if change:
        lines += ["", "**What would change it.** " + " ".join(dict.fromkeys(change))]
    return "\n".join(lines) + "\n"


def _signature(facts: Facts, benchmark: str) -> list[str]:
    table = facts.signatures
    if table is None or benchmark not in set(table["benchmark"]):
        return []
    part = table[table["benchmark"] == benchmark]
    if "fold" in part and part["fold"].nunique() > 1:
        part = part[part["fold"] == part["fold"].min()]  # the signature on all models; the others are cross-fits
    ids = part.sort_values("order")["unit_id"].drop_duplicates()
    words = ", ".join(code(u) for u in ids.head(UNITS)) + (f" and {len(ids) - UNITS} more" if len(ids) > UNITS else "")
    text = f"**Signature.** {len(ids)} units: {words}"
    if facts.units is not None and "source" in facts.units.columns:
        source = facts.units["source"].reindex(ids).dropna().value_counts()
        if len(source):
            text += "; from " + ", ".join(f"{literal(s)} ({n})" for s, n in source.head(4).items())
    return ["", text + "."]


def index(facts: Facts, places: dict[str, str] | None = None) -> str:
    """Return the index of the cards: a table that the page's script sorts and filters, as raw HTML in MyST."""
    places = places or anchors(facts)
    gain = facts.adds.set_index("benchmark")["gain"]
    rows = []
    for name in facts.names:
        about = facts.benchmarks.loc[name] if name in facts.benchmarks.index else {}
        cells = [escape(about.get(c, "") if pd.notna(about.get(c, "")) else "") for c in ("function", "format")]
        numbers = (
            reliability(facts, name),
            displaced(facts, name)[0],
            gain.get(name, np.nan),
            len(flags(facts, name)),
        )
        shown = [("–" if not np.isfinite(v) else f"{v:.2f}" if isinstance(v, float) else str(v)) for v in numbers]
        rows.append(
            f'<tr><th scope="row"><a href="#{places[name]}">{escape(name)}</a></th>'
            + "".join(f"<td>{c}</td>" for c in cells)
            + "".join(f"<td class=n>{v}</td>" for v in shown)
            + "</tr>"
        )
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("benchmark", "function", "format"))
    heads += "".join(
        f'<th scope="col" class=n>{h}</th>' for h in ("reliability", "longest move", "adds to the others", "flags")
    )
    identity = f"cards-{facts.study}"
    return (
        "```{raw} html\n<p><label>Filter by name, function or format: "
        f'<input type="search" data-filters="{identity}" autocomplete="off"></label></p>'
        f'<div class="companion-scroll" tabindex="0" role="region" aria-label="Index of the benchmark cards" style="max-height:480px">'
        f'<table class="companion-table companion-sortable" id="{identity}"><thead><tr>{heads}</tr></thead><tbody>'
        f"{''.join(rows)}</tbody></table></div>\n```\n"
    )


def page(facts: Facts) -> str:
    """Return the whole page of cards of a study."""
    places = anchors(facts)
    kinds = facts.findings["kind"].value_counts()
    found = ", ".join(f"{n} {literal(k)}" for k, n in kinds.items()) or "none"
    head = (
        f"# Benchmark cards: {literal(facts.title)}\n"
        "\n"
        f"One card for each of {len(facts.names)} benchmarks, made from the study's artifacts. Flags in this study: "
        f"{found}. *Adds to the others* is the mean loss over the axes if the benchmark alone were dropped, *longest "
        "move* the distance between its places on two axes, in consensus radii. Advice holds for these models and "
        "this suite; each card says what would change it.\n"
        "\n"
    )
    return head + index(facts, places) + "\n" + "\n".join(card(facts, name, places) for name in facts.names)


def summary(facts: Facts) -> str:
    """Return the index as a Markdown table without links, for reports."""
    table = pd.DataFrame(
        {
            "benchmark": facts.names,
            "function": [facts.benchmarks["function"].get(n, "") for n in facts.names],
            "reliability": [reliability(facts, n) for n in facts.names],
            "flags": [len(flags(facts, n)) for n in facts.names],
        }
    )
    return markdown_table(table)


def write(study: str) -> Path:
    """Write the cards of a study to ``book/generated/<study>/cards.md`` and return the path.

    A study whose artifacts are not here shows its frozen cards under a note, or a page that says how to make
    them; a build never fails for their absence.
    """
    path = paths.GENERATED / study / "cards.md"
    frozen = paths.FROZEN / study / "cards.md"
    try:
        text = page(read(study))
    except CompanionError as error:
        if frozen.is_file():
            text = frozen.read_text(encoding="utf-8")
        else:
            text = (
                f"# Benchmark cards: {study}\n"
                "\n"
                "```{note}\n"
                f"The cards of this study need its maps, which are not here: {literal(error)}\n"
                "```\n"
            )
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        provenance.write_atomic(path, lambda t: t.write_text(text, encoding="utf-8"))
    return path


def freeze(study: str) -> Path:
    """Keep a dated copy of the study's live cards in ``book/frozen/<study>`` for readers without its data."""
    facts = read(study)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head, body = page(facts).split("\n\n", 1)
    note = f"```{{note}}\nFrozen on {today}: computed from data that this build could not read; not updated since.\n```"
    path = paths.FROZEN / study / "cards.md"
    provenance.write_atomic(path, lambda t: t.write_text(f"{head}\n\n{note}\n\n{body}", encoding="utf-8"))
    return path


def write_all(names: list[str]) -> list[Path]:
    """Write the cards of every named study that has an overlap or a frozen page; remove cards of no study."""
    written = [write(name) for name in names]
    for stale in paths.GENERATED.glob("*/cards.md"):
        if stale.parent.name not in names:
            shutil.rmtree(stale.parent)
    return written
