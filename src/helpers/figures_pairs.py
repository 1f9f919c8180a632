"""The figures of the maps: benchmarks on aligned axes, pairs with linked brushing, the ternary view.

They use the frame of :mod:`helpers.figures` (caption, alt text, static twin, data). The pair explorer adds a
form and a table that ``companion.js`` links to the plot: everything can be done with the keyboard or by
touch, and without scripts the static twin and the data remain.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import figures, fragments, maps
from helpers.errors import DataError
from helpers.fragments import Figure, escape, literal, plot_text

MAX_PAIRS = 2000
BLOCKS = 60  # rows of a matrix that is drawn in blocks: four such matrices leave a page well below 3 MiB
MAX_ELLIPSES = 60
MAX_ROWS = 100
LONG_ROWS = 30  # larger matrices are downloaded as matrices: a row for each pair weighs five times as much
ALWAYS = 6
SIDES = (
    "top center",
    "bottom center",
    "middle right",
    "middle left",
    "top right",
    "top left",
    "bottom right",
    "bottom left",
)
WIDE, NARROW = (600, 470), (280, 330)  # what is left for the plane on a screen and on a phone, pixels
OF_BENCHMARKS = ("orthogonal", "outlier")  # findings on one benchmark; their b is only its nearest
COVERED = 2  # marks that a name may lie on
AXIS_STYLE = {
    "performance": ("#2f7ec2", "circle"),
    "signature-crossfit": ("#d55e00", "square"),
    "signature": ("#d55e00", "square"),
    "semantic": ("#009e73", "diamond"),
    "neural": ("#c2609a", "triangle-up"),
    "attention": ("#b58900", "cross"),
}


def short(axis: str) -> str:
    """Return an axis' title without its remark in brackets, for where there is little room.

    >>> short("signature-crossfit")
    'signature'
    """
    return maps.TITLES.get(axis, axis).split(" (")[0]


def _rgba(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def disentanglement(
    result: maps.DisentanglementMap,
    *,
    name: str,
    alt: str,
    caption: str,
    functions: pd.Series | None = None,
    labels: Mapping[str, str] | None = None,
) -> Finder:
    """Draw every benchmark once, at its consensus place, with a spoke to where each axis puts it.

    At the spoke's end stands the axis' mark. The :data:`ALWAYS` most displaced benchmarks show their 95 %
    ellipses, the next ones (:data:`MAX_ELLIPSES` in all) on a click in the legend, which also turns axes off.
    Benchmarks of a single axis cannot be displaced: they are left out and the caption says how many. Names
    are written where they can be read (:func:`place_names`), the most displaced first; hover names all, and
    a list below the map finds any of them by keyboard or touch.
    """
    labels = labels or {}
    consensus = result.alignment.consensus
    consensus = consensus[consensus["axes"] > 1]
    present = set(consensus.index)
    alone = len(set(result.axes.names) | set(result.axes.missing["benchmark"])) - len(present)
    moved = result.displacement.groupby("benchmark")["distance"].max().reindex(consensus.index)
    ranked = list(moved.sort_values(ascending=False, na_position="last").index)
    traces: list[dict[str, Any]] = []
    listed = False
    placed = {a: p[p.index.isin(present)] for a, p in result.alignment.points.items()}
    for axis, points in placed.items():
        colour, _ = AXIS_STYLE.get(axis, ("#8a8a8a", "x"))
        title = maps.TITLES.get(axis, axis)
        xs, ys = [], []
        for benchmark, (x, y) in zip(points.index, points.to_numpy()):
            cx, cy = consensus.loc[benchmark, ["x", "y"]]
            xs += [round(cx, 3), round(x, 3), None]
            ys += [round(cy, 3), round(y, 3), None]
        common = {
            "legendgroup": axis,
            "hoverinfo": "skip",
            "showlegend": False,
            "type": "scatter",
            "mode": "lines",
        }
        traces.append(common | {"x": xs, "y": ys, "line": {"color": _rgba(colour, 0.45), "width": 1}, "name": title})
        if axis in result.errors.covariance:
            for chosen, group in ((ranked[:ALWAYS], axis), (ranked[ALWAYS:MAX_ELLIPSES], "ellipses")):
                xs, ys = [], []
                for benchmark in (b for b in chosen if b in points.index):
                    row = result.alignment.points[axis].index.get_loc(benchmark)
                    spread = result.errors.covariance[axis][row]
                    outline = maps.ellipse(points.loc[benchmark], spread, corners=16).round(3)
                    xs += [*outline[:, 0], None]
                    ys += [*outline[:, 1], None]
                if not xs:
                    continue
                more = {
                    "legendgroup": group,
                    "x": xs,
                    "y": ys,
                    "name": f"the other {min(len(ranked), MAX_ELLIPSES) - ALWAYS} ellipses",
                }
                if group == "ellipses":
                    more |= {"visible": "legendonly", "showlegend": not listed}
                    listed = True
                line = {"color": _rgba(colour, 0.6), "width": 0.9, "shape": "spline"}
                traces.append(common | {"line": line} | more)
    for axis, points in placed.items():
        colour, mark = AXIS_STYLE.get(axis, ("#8a8a8a", "x"))
        title = maps.TITLES.get(axis, axis)
        gap = points - consensus.loc[points.index, ["x", "y"]]
        kinds = [""] * len(points) if functions is None else functions.reindex(points.index).fillna("")
        text = [
            f"<b>{plot_text(labels.get(b, b))}</b>" + (f"<br>{plot_text(kind)}" if kind else "")
            for b, kind in zip(points.index, kinds)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": points["x"].round(3).tolist(),
                "y": points["y"].round(3).tolist(),
                "text": text,
                "customdata": np.hypot(gap["x"], gap["y"]).round(2).tolist(),
                "hovertemplate": f"%{{text}}<br>{title}: %{{customdata}} radii from its consensus place<extra></extra>",
                "marker": {"color": colour, "symbol": mark, "size": 7, "opacity": 0.9},
                "name": f"{title} (stress {result.embeddings[axis].stress:.2f})",
                "legendgroup": axis,
                "showlegend": True,
            }
        )
    plane = consensus[["x", "y"]]
    marks = pd.concat([plane, *placed.values()])
    outlines = [np.column_stack([t["x"], t["y"]]).astype(float) for t in traces if t.get("visible") is None]
    reach = np.vstack(outlines)
    low, high = np.nanmin(reach, axis=0), np.nanmax(reach, axis=0)
    room = 0.06 * (high - low)
    low, high = low - room, high + room
    words = {b: plot_text(labels.get(b, b)) for b in consensus.index}
    shown = {
        screen: place_names(plane.loc[ranked], words, marks.to_numpy(), (low, high), screen)
        for screen in (WIDE, NARROW)
    }
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "marker": {"size": 4, "color": "#8a8a8a", "symbol": "circle"},
            "x": plane["x"].tolist(),
            "y": plane["y"].tolist(),
            **_texts(consensus.index, words, shown[WIDE]),
            "textfont": {"size": 10},
            "hoverinfo": "skip",
            "showlegend": False,
            "name": "names",
        }
    )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers+text",
            "x": [],
            "y": [],
            "text": [],
            "textposition": "top center",
            "line": {"color": "#8a8a8a", "width": 2.5},
            "marker": {"size": 9, "color": "#8a8a8a"},
            "hoverinfo": "skip",
            "showlegend": False,
            "name": "chosen",
        }
    )
    layout = {
        "height": 640,
        "showlegend": True,
        "xaxis": {"title": {"text": "consensus radii"}, "zeroline": False, "range": [low[0], high[0]]},
        "yaxis": {
            "scaleanchor": "x",
            "scaleratio": 1,
            "title": {"text": ""},
            "range": [low[1], high[1]],
        },
    }
    if alone:
        caption += f" Not drawn: {alone} benchmark{'s' * (alone > 1)} of a single axis, which cannot be displaced."
    if len(shown[NARROW]) < len(plane):
        caption += " Names that would cover one another are left out; hover, touch, or choose from the list below."
    figure = figures.plotly(
        {"data": traces, "layout": layout}, name=name, alt=alt, caption=caption, data=result.table()
    )
    narrow = _texts(consensus.index, words, shown[NARROW])
    figure.spec["phone"] = {"height": 520, "traces": {str(len(traces) - 2): narrow}}
    return Finder(figure, [labels.get(b, b) for b in consensus.index])


def _texts(names: pd.Index, words: Mapping[str, str], shown: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the text and its side for every name, empty where it is not shown."""
    return {
        "text": [words[n] if n in shown else "" for n in names],
        "textposition": [shown.get(n, "top center") for n in names],
    }


def place_names(
    points: pd.DataFrame,
    words: Mapping[str, str],
    marks: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    screen: tuple[int, int],
    size: int = 10,
) -> dict[str, str]:
    """Choose the side of its point on which each name can be read; names that fit nowhere are not returned.

    Greedy, in the order of the rows: of the sides on which a name stays inside the plane and clear of the
    names written before, the one that covers the fewest marks is taken, if that is at most :data:`COVERED`;
    for the first :data:`ALWAYS` names, whatever it covers.

    Parameters
    ----------
    points : DataFrame
        (n, 2) columns x, y in data units, the most important first.
    marks : ndarray
        (m, 2) places of all marks, data units.
    bounds : two arrays of 2
        Lower and upper corner of the plane, data units, which `screen` pixels show at one scale.

    >>> two = pd.DataFrame({"x": [0.0, 0.0], "y": [0.0, 0.01]}, index=["one", "two"])
    >>> corners = (np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    >>> place_names(two, {"one": "one", "two": "two"}, two.to_numpy(), corners, (200, 200))
    {'one': 'top center', 'two': 'bottom center'}
    """
    low, high = bounds
    scale = min(np.asarray(screen) / (high - low))
    slack = (np.asarray(screen) / scale - (high - low)) / 2  # the plot fills the screen, so it shows more
    left, right = (low - slack) * scale, (high + slack) * scale
    dots = marks * scale
    taken: list[tuple[float, float, float, float]] = []
    result = {}
    for rank, (name, (x, y)) in enumerate(zip(points.index, points.to_numpy() * scale)):
        most = COVERED if rank >= ALWAYS else len(dots)
        wide, tall = 0.62 * size * len(words[name]), 1.25 * size
        best = None
        for side in SIDES:
            up, along = side.split()
            x0 = {"center": x - wide / 2, "right": x + 4, "left": x - 4 - wide}[along]
            y0 = {"top": y + 3, "middle": y - tall / 2, "bottom": y - 3 - tall}[up]
            box = (x0, y0, x0 + wide, y0 + tall)
            if x0 < left[0] or box[2] > right[0] or y0 < left[1] or box[3] > right[1]:
                continue
            if any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
                continue
            near = (dots >= np.array(box[:2]) - 1) & (dots <= np.array(box[2:]) + 1)
            covered = int(near.all(axis=1).sum())
            if covered <= most and (best is None or covered < best[0]):
                best = covered, side, box
        if best is not None:
            result[name] = best[1]
            taken.append(best[2])
    return result


def ternary(
    shares: pd.DataFrame,
    predictors: Sequence[str],
    *,
    name: str,
    alt: str,
    caption: str,
    target: str = "performance",
) -> Figure:
    """Draw which axis accounts for each pair (see ``maps.profile``): a triangle of three axes, a line of two.

    Each point is a pair; it lies near the corner of the axis that moves its fitted value most; the colour is
    its overlap on the target. At most :data:`MAX_PAIRS` pairs are drawn: the strongest fitted values.
    """
    if len(predictors) < 2:
        raise DataError(f"A profile needs two or three axes besides {target}, found {list(predictors)}.")
    if len(shares) > MAX_PAIRS:
        caption += f" Drawn: the {MAX_PAIRS:,} strongest fitted values of {len(shares):,} pairs."
    drawn = shares.reindex(shares["fitted"].abs().sort_values(ascending=False, kind="stable").index).head(MAX_PAIRS)
    titles = [maps.TITLES.get(p, p) for p in predictors]
    columns = [f"share_{p}" for p in predictors]
    text = [f"{plot_text(a)} – {plot_text(b)}" for a, b in zip(drawn["a"], drawn["b"])]
    hover = [f"<b>%{{text}}</b><br>{target} %{{marker.color:.2f}}"]
    hover += [f"{title}: %{{customdata[{k}]}} %" for k, title in enumerate(titles)]
    bar = {"title": {"text": f"{target} overlap", "side": "right"}, "thickness": 12, "outlinewidth": 0}
    marker = {
        "size": 6,
        "opacity": 0.75,
        "color": drawn[target].round(3).tolist(),
        "line": figures.EDGE,
        "colorscale": figures.scale(figures.SEQUENTIAL),
        "showscale": True,
        "colorbar": bar,
    }
    point = {"type": "scatter", "mode": "markers", "text": text}
    point["hovertemplate"] = "<br>".join(hover) + "<extra></extra>"
    point["customdata"] = (100 * drawn[columns]).round().fillna(0).astype(int).to_numpy().tolist()
    point |= {"marker": marker, "showlegend": False, "name": "pairs"}
    if len(predictors) == 2:
        point |= {"x": drawn[columns[0]].round(3).tolist(), "y": drawn[target].round(3).tolist()}
        layout = {
            "height": 380,
            "xaxis": {
                "title": {"text": f"← {titles[1]}      share of      {titles[0]} →"},
                "range": [-0.03, 1.03],
            },
            "yaxis": {"title": {"text": f"{target} overlap"}},
        }
        traces = [point]
    else:
        place = maps.ternary(drawn[columns[:3]].to_numpy()).round(3)
        point |= {"x": place[:, 0].tolist(), "y": place[:, 1].tolist()}
        corner = [0, 1, 0.5, 0]
        edge = {"type": "scatter", "mode": "lines", "x": corner, "y": [0, 0, np.sqrt(3) / 2, 0]}
        edge |= {
            "line": {"color": "#8a8a8a", "width": 1},
            "hoverinfo": "skip",
            "showlegend": False,
            "name": "edge",
        }
        words = {
            "type": "scatter",
            "mode": "text",
            "x": [0.0, 1.0, 0.5],
            "y": [-0.05, -0.05, 0.91],
            "text": titles[:3],
        }
        words |= {
            "textposition": ["bottom right", "bottom left", "top center"],
            "hoverinfo": "skip",
            "name": "corners",
        }
        hidden = {"visible": False}
        layout = {
            "height": 480,
            "xaxis": hidden | {"range": [-0.08, 1.08]},
            "yaxis": hidden | {"range": [-0.16, 1.0], "scaleanchor": "x", "scaleratio": 1},
        }
        traces = [edge, point, words | {"showlegend": False}]
    kept = ["a", "b", target, "fitted", *columns]
    return figures.plotly(
        {"data": traces, "layout": layout}, name=name, alt=alt, caption=caption, data=shares[kept].round(4)
    )


def matrix(
    values: pd.DataFrame,
    *,
    name: str,
    alt: str,
    caption: str,
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    groups: pd.Series | None = None,
    limit: int = MAX_ROWS,
    **more: Any,
) -> Figure:
    """Draw one axis' matrix in the order given; above `limit` benchmarks, some 60 blocks of neighbours.

    A block holds benchmarks that follow one another in the order, of one group where there are at most 30 `groups`,
    so a seriated matrix keeps its shape; its label names the first and the last, the caption says how many it
    holds, intervals are left out, and a benchmark's similarity to itself is not averaged in. `groups` and
    `more` go to ``figures.heatmap``.

    >>> names = [f"b{i}" for i in range(5)]
    >>> values = pd.DataFrame(np.full((5, 5), 0.4) + 0.6 * np.eye(5), names, names)
    >>> drawn = matrix(values, name="m", alt="a matrix", caption="Five.", limit=2)
    >>> drawn.spec["data"][0]["y"], np.array(drawn.spec["data"][0]["z"], float).round(3).tolist()
    (['b0 … b2', 'b3 … b4'], [[0.4, 0.4], [0.4, 0.4]])
    """
    count = len(values)
    if count <= limit:
        if count > LONG_ROWS and low is not None:
            caption += " The download has the values; the study's artifacts and its report have the intervals too."
        figure = figures.heatmap(values, name=name, alt=alt, caption=caption, low=low, high=high, groups=groups, **more)
        return replace(figure, data=values.rename_axis("benchmark")) if count > LONG_ROWS else figure
    size = math.ceil(count / min(limit, BLOCKS))
    if groups is not None and groups.reindex(values.index).nunique() > BLOCKS // 2:
        groups = None  # nearly every benchmark a group of its own: nothing to average within
    if groups is None:
        block = np.arange(count) // size
    else:
        level = groups.reindex(values.index).astype(str)
        order = pd.Index([name for part in pd.unique(level) for name in level.index[level == part]])
        values, level = values.loc[order, order], level[order]
        within = level.groupby(level, sort=False).cumcount() // size
        block = pd.factorize(pd.MultiIndex.from_arrays([level, within]))[0]
    belongs = (block[:, None] == np.arange(block[-1] + 1)).astype(float)
    array = values.to_numpy(float)
    known = (~np.eye(count, dtype=bool) & np.isfinite(array)).astype(float)
    pairs = belongs.T @ known @ belongs
    total = belongs.T @ np.where(known > 0, array, 0.0) @ belongs
    mean = np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0)
    ends = [(values.index[block == k][0], values.index[block == k][-1]) for k in range(len(mean))]
    labels = [str(a) if a == b else f"{a} … {b}" for a, b in ends]
    caption += (
        f" {count} benchmarks are too many to draw: each row is the mean of up to {size} that follow one another; "
        "the study's artifacts hold every pair with its interval."
    )
    if groups is not None:
        rows = pd.Series([level[first] for first, _ in ends], labels)
        groups = pd.concat([rows, groups[~groups.index.isin(rows.index)]])  # the rest only keeps the colours
    frame = pd.DataFrame(mean, labels, labels)
    return figures.heatmap(frame, name=name, alt=alt, caption=caption, groups=groups, **more)


def choose_pairs(
    table: pd.DataFrame, flags: pd.DataFrame | None, limit: int = MAX_PAIRS, seed: int = 0
) -> pd.DataFrame:
    """Return at most `limit` pairs to draw: all flagged ones, the rest a random sample (all when they fit).

    A flag on a single benchmark is no flag on the pair with its nearest benchmark.

    >>> table = pd.DataFrame({"a": ["x", "x"], "b": ["y", "z"]})
    >>> found = pd.DataFrame({"kind": ["hidden kinship", "outlier"], "a": ["y", "x"], "b": ["x", "y"]})
    >>> choose_pairs(table, found)["flag"].tolist()
    ['hidden kinship', '']
    """
    table = table.copy()
    table["flag"] = ""
    if flags is not None and len(flags):
        known: dict[frozenset, str] = {}
        for a, b, kind in zip(flags["a"], flags["b"], flags["kind"]):
            if isinstance(b, str) and kind not in OF_BENCHMARKS:
                pair = frozenset((a, b))
                known[pair] = ", ".join(dict.fromkeys([*known.get(pair, "").split(", "), kind])).strip(", ")
        table["flag"] = [known.get(frozenset(p), "") for p in zip(table["a"], table["b"])]
    if len(table) <= limit:
        return table.reset_index(drop=True)
    flagged = table[table["flag"] != ""].head(limit)
    rest = table[~table.index.isin(flagged.index)]
    sample = rest.sample(limit - len(flagged), random_state=seed)
    return pd.concat([flagged, sample]).sort_index().reset_index(drop=True)


def explorer(
    table: pd.DataFrame,
    axes: Sequence[str],
    *,
    name: str,
    alt: str,
    caption: str,
    target: str = "performance",
    flags: pd.DataFrame | None = None,
) -> Explorer:
    """Draw every pair of benchmarks by its other axes, coloured by performance overlap, linked to a table.

    With more than :data:`MAX_PAIRS` pairs a random sample of the unflagged ones is drawn and the caption says
    so.

    Parameters
    ----------
    table : DataFrame
        From ``maps.pairs``.
    axes : sequence of str
        One to three axes besides the target; every two of them make a panel (one axis: against the target).
    flags : DataFrame, optional
        Findings of ``helpers.diagnosis``; flagged pairs are always drawn and can be asked for.
    """
    axes = [a for a in axes if a in table.columns and a != target][:3]
    if not axes or target not in table.columns:
        raise DataError(f"The explorer needs '{target}' and one to three other axes; found {list(table.columns)[:12]}.")
    known = table.dropna(subset=[target, *axes])
    if known.empty:
        raise DataError(f"No pair is measured on all of {target}, {', '.join(axes)}.")
    drawn = choose_pairs(known, flags)
    if len(drawn) < len(known):
        caption += f" Drawn: all flagged pairs and a random sample, {len(drawn):,} of {len(known):,} pairs."
    if len(known) < len(table):
        caption += f" {len(table) - len(known):,} pairs are not measured on all of these axes and are not drawn."
    panels = list(itertools.combinations(axes, 2)) or [(axes[0], target)]
    bar = {"title": {"text": f"{target} overlap", "side": "right"}, "thickness": 12, "outlinewidth": 0}
    traces, layout, phone = [], {"height": 400 if len(panels) > 1 else 460, "showlegend": False}, {}
    gap = 0.13 if len(panels) > 1 else 0
    width = (1 - gap * (len(panels) - 1)) / len(panels)
    for k, (x, y) in enumerate(panels):
        suffix = "" if k == 0 else str(k + 1)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": drawn[x].round(3).tolist(),
                "y": drawn[y].round(3).tolist(),
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "hovertemplate": "<b>%{text}</b><br>%{x:.2f}, %{y:.2f}<extra></extra>",
                "name": f"{x}, {y}",
                "marker": {
                    "size": 5,
                    "opacity": 0.7,
                    "color": drawn[target].round(3).tolist(),
                    "line": figures.EDGE,
                    "colorscale": figures.scale(figures.SEQUENTIAL),
                    "showscale": k == 0,
                    "colorbar": bar,
                },
                "unselected": {"marker": {"opacity": 0.06}},
                "selected": {"marker": {"opacity": 1, "size": 8}},
            }
        )
        start = k * (width + gap)
        low = 1 - (k + 1) * 0.27 - k * 0.095
        layout[f"xaxis{suffix}"] = {
            "title": {"text": short(x)},
            "domain": [start, start + width],
        }
        layout[f"yaxis{suffix}"] = {"title": {"text": short(y)}}
        layout[f"xaxis{suffix}"]["anchor"], layout[f"yaxis{suffix}"]["anchor"] = f"y{suffix}", f"x{suffix}"
        if len(panels) > 1:
            phone[f"xaxis{suffix}"] = {"domain": [0, 1]}
            phone[f"yaxis{suffix}"] = {"domain": [max(0, low), low + 0.27]}
    keep = ["a", "b", target, *axes, "flag"]
    figure = figures.plotly(
        {"data": traces, "layout": layout}, name=name, alt=alt, caption=caption, data=drawn[keep].round(4)
    )
    figure.spec["phone"] = {"height": 420 if len(panels) == 1 else 1000} | phone
    result = Explorer(figure, panels, [target, *axes], drawn["flag"].tolist())
    result.thin()
    return result


@dataclass
class Explorer:
    """The pair explorer: a figure, a form that filters its points, and a table of what is selected."""

    figure: Figure
    panels: list[tuple[str, str]]
    axes: list[str]
    flags: list[str]
    rows: int = 40

    def thin(self) -> None:
        """Take out of the plot's data what it holds twice; the page's script puts it back before drawing."""
        for k, (panel, trace) in enumerate(zip(self.panels, self.figure.spec["data"])):
            for key, axis in zip("xy", panel):
                if self._where(axis) != [k, key]:
                    del trace[key]
            if k:
                del trace["marker"]["color"]

    @property
    def html(self) -> str:
        """The figure followed by form and table, which the page's script shows and links."""
        identity = f"fig-{self.figure.name}"
        frame = self.figure.data
        limits = {
            a: (float(np.floor(frame[a].min() * 50) / 50), float(np.ceil(frame[a].max() * 50) / 50)) for a in self.axes
        }
        sliders = []
        for axis in self.axes:
            low, high = limits[axis]
            title = escape(maps.TITLES.get(axis, axis))
            ends = "".join(
                f'<label><span class="companion-small">{word}</span> <input type="range" data-axis="{axis}" '
                f'data-end="{end}" min="{low}" max="{high}" step="0.02" value="{value}" '
                f'aria-label="{title}: {word}"><output>{value:.2f}</output></label>'
                for word, end, value in (("from", "low", low), ("to", "high", high))
            )
            sliders.append(f"<fieldset><legend>{title}</legend>{ends}</fieldset>")
        names = sorted(set(frame["a"]) | set(frame["b"]))
        place = {n: i for i, n in enumerate(names)}
        options = "".join(f"<option value={i}>{escape(n)}</option>" for n, i in place.items())
        kinds = [k for k in dict.fromkeys(self.flags) if k]
        flags = "".join(f"<option>{escape(k)}</option>" for k in kinds)
        heads = "".join(f'<th scope="col" class=n>{escape(short(a))}</th>' for a in self.axes)
        data = {
            "names": [literal(n, "text") for n in names],
            "pairs": [[place[a], place[b]] for a, b in zip(frame["a"], frame["b"])],
            "flags": kinds,
            "flag": [kinds.index(f) if f else -1 for f in self.flags],
            "where": {a: self._where(a) for a in self.axes},
            "panels": [[self.axes.index(a) for a in panel] for panel in self.panels],
            "rows": self.rows,
        }
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
        return (
            f'<div class="companion-pairs companion-explorer" id="{identity}-pairs">{self.figure.html}'
            f'<form class="companion-pairs-form" aria-label="Choose pairs" hidden>{"".join(sliders)}'
            '<div class="companion-pairs-row"><label>benchmark <select data-role="benchmark"><option value="">any'
            f'</option>{options}</select></label><label>flag <select data-role="flag"><option value="">any</option>'
            f'{flags}</select></label><button type="button" data-role="brush" aria-pressed="false">drag to select'
            '</button><button type="reset">show all</button></div></form>'
            '<p class="companion-pairs-count" role="status" aria-live="polite"></p>'
            '<div class="companion-scroll" tabindex="0" role="region" aria-label="Chosen pairs" style="max-height:380px" hidden>'
            '<table class="companion-table companion-pairs-table"><thead><tr><th scope="col">pair</th>'
            f'{heads}<th scope="col">flag</th></tr></thead><tbody></tbody></table></div>'
            f'<script type="application/json" class="companion-pairs-data">{text}</script></div>'
        )

    def save(self, path: Path | str) -> Path:
        """Write figure, form and table (``.html``) or the static picture to a file: see :func:`helpers.fragments.save`."""
        return fragments.save(self.figure, path, self.html)

    def _where(self, axis: str) -> list:
        """Where the plot's own data hold an axis' values, so that they are not sent twice."""
        for k, (x, y) in enumerate(self.panels):
            if axis in (x, y):
                return [k, "x" if axis == x else "y"]
        return [0, "color"]

    def _repr_html_(self) -> str:
        self.figure._repr_html_()  # checks the name against other cells
        return self.html

    def __repr__(self) -> str:
        return f"Explorer {self.figure.name}: {self.figure.alt}"


@dataclass
class Finder:
    """The disentanglement map and a list that finds a benchmark in it."""

    figure: Figure
    names: list[str]

    @property
    def spec(self) -> dict[str, Any]:
        """The map's plotly specification."""
        return self.figure.spec

    @property
    def caption(self) -> str:
        """The map's caption."""
        return self.figure.caption

    @property
    def data(self) -> pd.DataFrame:
        """The frame behind the download."""
        return self.figure.data

    @property
    def html(self) -> str:
        """The figure and the list, which the page's script shows and links."""
        identity = f"fig-{self.figure.name}"
        order = sorted(range(len(self.names)), key=lambda k: self.names[k])
        options = "".join(f"<option value={k}>{escape(self.names[k])}</option>" for k in order)
        return (
            f'<div class="companion-pairs companion-finder" id="{identity}-find">{self.figure.html}'
            '<div class="companion-pairs-form companion-pairs-row" hidden><label>find a benchmark <select>'
            f'<option value="">all</option>{options}</select></label>'
            '<span role="status" aria-live="polite"></span></div></div>'
        )

    def save(self, path: Path | str) -> Path:
        """Write map and list (``.html``) or the static picture to a file: see :func:`helpers.fragments.save`."""
        return fragments.save(self.figure, path, self.html)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return repr(self.figure)
