"""Figures of the book: interactive, with a static twin, a caption, alt text and their data.

Every function returns a :class:`helpers.fragments.Figure` that displays itself. ``name`` is a slug, unique on
its page; ``alt`` says what is seen, ``caption`` what it means; both are required. Text is shown literally.

>>> import pandas as pd
>>> frame = pd.DataFrame({"model": ["a", "b"], "score": [0.4, 0.6], "low": [0.3, 0.5], "high": [0.5, 0.7]})
>>> bar(frame, "model", "score", low="low", high="high", name="scores", alt="Two bars: 0.4 and 0.6.",
...     caption="Scores with 95 % intervals.")
Figure scores: Two bars: 0.4 and 0.6.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.errors import DataError, nearest
from helpers.fragments import (
    TABLE_ROWS,
    Figure,
    check_name,
    check_words,
    compact,
    draw_static,
    picture,
    plot_text,
)

# Each has a contrast of at least 3:1 on the light and on the dark page; symbols and dashes differ too.
COLOURS = ("#2f7ec2", "#d55e00", "#009e73", "#c2609a", "#b58900", "#7b62c9", "#1a9cb0", "#8a8a8a")
COLOURS += ("#9a6a4f", "#6f8f1e", "#d1495b", "#5d6fe0")  # a study may have a dozen functions
# plotly's own, which fall short of that contrast
PLOTLY_COLOURS = dict(
    zip("#636efa #ef553b #00cc96 #ab63fa #ffa15a #19d3f3 #ff6692 #b6e880".split(), COLOURS[:8], strict=True)
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# ColorBrewer's RdBu: blue below zero, red above
DIVERGING = tuple("#053061 #2065ab #4393c3 #90c4dd #d1e5f0 #f7f6f6 #fddbc7 #f3a481 #d6604d #b1182b #67001f".split())
# cividis: the same to readers with and without colour blindness
SEQUENTIAL = tuple("#00224e #083370 #35456c #4f576c #666970 #7d7c78 #948e77 #aea371 #c8b866 #e5cf52 #fee838".split())
PICTURE_LIMIT = 250_000  # bytes of a picture that nothing else shows
Colours = Mapping[Any, Any] | Sequence[Any]
GREY = "rgba(128,128,128,0.35)"
EDGE = {"color": "#8a8a8a", "width": 0.6}  # keeps the dark end of a scale visible on a dark page


def scale(colours: Sequence[str]) -> list[list[Any]]:
    """Return plotly's colour scale through `colours` at equal steps."""
    return [[round(i / (len(colours) - 1), 3), c] for i, c in enumerate(colours)]


def _ramp(colors: Sequence[Any] | None) -> list[list[Any]] | None:
    """Return the colour scale of a reader's own colours, low to high."""
    if colors is None:
        return None
    if isinstance(colors, str | Mapping) or len(colors) < 2:
        raise ValueError(f"colors={colors!r}: a scale needs two colours or more, from the lowest to the highest value")
    return scale([_hex(colour) for colour in colors])


def _columns(frame: pd.DataFrame, *names: str | None) -> None:
    """Raise DataError when a column is absent or the frame is empty."""
    for name in names:
        if name is not None and name not in frame.columns:
            raise DataError(f"the frame has no column {name!r}; {nearest(str(name), map(str, frame.columns))}")
    if frame.empty:
        raise DataError(f"nothing to draw: the frame with columns {list(frame.columns)} has no rows")


def _used(frame: pd.DataFrame, *names: str | None) -> pd.DataFrame:
    """Return the columns that a figure draws, each once: its download."""
    return frame[list(dict.fromkeys(n for n in names if n is not None))]


def _short(text: str, limit: int) -> str:
    """Return text of at most `limit` characters: the middle goes, since names often differ only in their ends.

    >>> _short("bbh-logical-deduction-five-objects", 15)
    'bbh-log…objects'
    """
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half].rstrip()}…{text[-half:].lstrip()}"


def _lines(text: str, limit: int) -> str:
    """Return plotly's markup of text on at most three lines of `limit` characters; the third may be cut.

    >>> _lines("other function and other format, of one family", 20)
    'other function and<br>other format, of one<br>family'
    """
    lines = textwrap.wrap(str(text), limit) or [""]
    if len(lines) > 3:
        lines = [*lines[:2], _short(" ".join(lines[2:]), limit)]
    return "<br>".join(map(plot_text, lines))


def _log(values: pd.Series, wanted: bool) -> dict[str, Any]:
    """Return the settings of a logarithmic axis: labels at 1, 2 and 5, or at the powers of ten."""
    if not wanted:
        return {}
    known = values[values > 0]
    if len(known) < values.notna().sum():
        raise DataError(f"column {values.name!r} has values that are not positive; they have no place on a log axis")
    decades = math.log10(known.max() / known.min()) if len(known) else 0
    large = len(known) and known.max() >= 1e4 and known.min() >= 1
    return {"type": "log", "dtick": "D2" if decades <= 2.5 else 1, "tickformat": "~s" if large else "~g"}


def _axis(title: str = "", **more: Any) -> dict[str, Any]:
    axis = {"automargin": True, "zeroline": False, "gridcolor": GREY, "linecolor": GREY, "ticks": ""}
    if title:
        axis["title"] = {"text": plot_text(title), "standoff": 8}
    return axis | more


def _ticks(names: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Return the ticks of a category axis. Each is placed by its name: plotly would take the index 1 for a
    category that is called "1"."""
    return {"tickmode": "array", "tickvals": [plot_text(n) for n in names], "ticktext": list(texts)}


def _layout(height: int, x: Mapping[str, Any], y: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a layout with a transparent ground, so that page and theme show through."""
    return {
        "height": height,
        "autosize": True,
        "margin": {"l": 8, "r": 8, "t": 22, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "inherit, sans-serif", "size": 13, "color": "#6b7280"},
        "colorway": list(COLOURS),
        "hoverlabel": {"align": "left", "namelength": -1},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "xaxis": dict(x),
        "yaxis": dict(y),
    } | more


def _figure(
    traces: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    phone: Mapping[str, Any],
    *,
    name: str,
    alt: str,
    caption: str,
    data: pd.DataFrame,
    static: Any = None,
    digits: int = 5,
    **more: Any,
) -> Figure:
    """Assemble the figure: compact JSON, static twin, table twin of small data."""
    spec = compact(
        {"data": list(traces), "layout": layout, "phone": {"height": layout["height"]} | dict(phone)}, digits
    )
    if static is None:
        static = draw_static(spec, more.get("legend", ()))
    if "table" not in more and len(data) <= TABLE_ROWS and data.shape[1] <= 12:
        more["table"] = data
    return Figure(
        name=name, alt=alt, caption=caption, data=data, spec=spec, twin=picture(static), static=static, **more
    )


def _references(reference: Mapping[str, float] | float | None, vertical: bool = False) -> dict[str, Any]:
    """Return shapes and annotations of reference lines, from ``{label: value}`` or one value."""
    if reference is None:
        return {}
    if not isinstance(reference, Mapping):
        reference = {"": reference}
    along, across = ("y", "x") if vertical else ("x", "y")
    shapes, notes = [], []
    for label, value in reference.items():
        shapes.append(
            {
                "type": "line",
                f"{along}ref": "paper",
                f"{along}0": 0,
                f"{along}1": 1,
                f"{across}ref": across,
                f"{across}0": value,
                f"{across}1": value,
                "line": {"color": "#8a8a8a", "width": 1.5, "dash": "dash"},
            }
        )
        if label:
            place = {
                "xref": "x",
                "x": value,
                "yref": "paper",
                "y": 1,
                "xanchor": "center",
                "yanchor": "bottom",
            }
            if not vertical:
                place = {
                    "xref": "paper",
                    "x": 1,
                    "yref": "y",
                    "y": value,
                    "xanchor": "right",
                    "yanchor": "bottom",
                }
            notes.append({"text": plot_text(label), "showarrow": False, "font": {"size": 11}} | place)
    return {"shapes": shapes, "annotations": notes}


def _levels(frame: pd.DataFrame, column: str | None) -> list[tuple[int, Any, pd.DataFrame]]:
    """Return (place, level, rows) in order of appearance; rows without a level come last as "not given".

    The place decides the colour. That of a category is its place among all categories, so figures that show
    different categories of one column agree.
    """
    if column is None:
        return [(0, None, frame)]
    values = frame[column]
    levels = list(pd.unique(values.dropna()))
    order = levels
    if isinstance(values.dtype, pd.CategoricalDtype):
        order = list(values.cat.categories)
        levels = [c for c in order if c in set(levels)]
    parts = [(order.index(level), level, frame[values == level]) for level in levels]
    rest = frame[values.isna()]
    return parts + ([(len(order), "not given", rest)] if len(rest) else [])


def _hues(colors: Colours | None, frame: pd.DataFrame, column: str | None) -> Callable[[int, Any], str]:
    """Return the function (place, level) -> colour as ``#rrggbb``, with the reader's `colors` before the book's.

    `colors` is a mapping from levels of the column, some or all, or a sequence in the order of the levels. Raises
    DataError for a level that the column lacks and ValueError for what is no colour.
    """
    if colors is None:
        return lambda place, level: COLOURS[place % len(COLOURS)]
    if isinstance(colors, Mapping):
        levels = {level for _, level, _ in _levels(frame, column)}
        for level in colors:
            if level not in levels:
                raise DataError(
                    f"colors= names {level!r}, which column {column!r} lacks; {nearest(str(level), map(str, levels))}"
                )
        chosen = {level: _hex(colour) for level, colour in colors.items()}
        return lambda place, level: chosen.get(level, COLOURS[place % len(COLOURS)])
    listed = [_hex(colour) for colour in ([colors] if isinstance(colors, str) else colors)]
    if not listed:
        raise ValueError("colors= is empty; give at least one colour, or leave it out")
    return lambda place, level: listed[place % len(listed)]


def _hex(colour: Any) -> str:
    from matplotlib.colors import to_hex

    try:
        return to_hex(colour)
    except ValueError:
        raise ValueError(
            f"colors= holds {colour!r}, which is no colour; write '#1f77b4', 'red' or (0.1, 0.5, 0.7)"
        ) from None


def _order(matrix: pd.DataFrame, groups: pd.Series | None, cluster: bool) -> list[Any]:
    """Return the row labels in drawing order: by group, then by similarity when `cluster`."""
    rows = list(matrix.index)
    if groups is not None:
        levels = list(pd.unique(groups.reindex(matrix.index)))
        parts = [[r for r in rows if groups[r] == level] for level in levels]
    else:
        parts = [rows]
    if cluster:
        parts = [_leaves(matrix, part) for part in parts]
    return [r for part in parts for r in part]


def _leaves(matrix: pd.DataFrame, rows: list[Any]) -> list[Any]:
    """Return rows in the leaf order of average linkage; a missing distance counts as the largest known."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(rows) < 3:
        return rows
    if matrix.index.equals(matrix.columns):
        part = matrix.loc[rows, rows].to_numpy(dtype=float)
        distance = np.nanmax(part) - (part + part.T) / 2
    else:
        part = matrix.loc[rows].to_numpy(dtype=float)
        with np.errstate(invalid="ignore"):
            gaps = part[:, None, :] - part[None, :, :]
            known = np.isfinite(gaps).sum(axis=2)
            total = np.nansum(gaps**2, axis=2)
        distance = np.sqrt(np.divide(total, known, out=np.full(known.shape, np.nan), where=known > 0))
    if not np.isfinite(distance).any():
        return rows
    distance = np.where(np.isfinite(distance), distance, np.nanmax(distance))
    np.fill_diagonal(distance, 0)
    return [rows[i] for i in leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))]


def heatmap(
    matrix: pd.DataFrame,
    *,
    name: str,
    alt: str,
    caption: str,
    title: str = "",
    unit: str = "",
    zmin: float | None = None,
    zmax: float | None = None,
    groups: pd.Series | None = None,
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    cluster: bool = False,
    labels: Mapping[Any, str] | None = None,
    digits: int = 3,
    colors: Sequence[Any] | None = None,
) -> Figure:
    """Draw a matrix as a heat map with a table twin.

    Parameters
    ----------
    matrix : DataFrame, (n_rows, n_columns), numeric; NaN means *not measured* and shows as a grey gap.
    unit : what a cell measures, shown at the colour bar.
    zmin, zmax : colour range; by default that of the cells off the diagonal. A range that goes below zero
        gets a diverging scale, made symmetric about 0 unless both ends are given.
    groups : Series, row label -> category: rows are ordered by it, a strip and lines show it. A square
        matrix with the same labels on both sides gets the same order on both. Rows of the Series that the
        matrix lacks only fix the colours: give every figure of a study the same Series.
    low, high : DataFrames of interval bounds, same labels as `matrix`; shown on hover and in the download,
        which then has one row a cell, or a pair when everything is symmetric.
    cluster : order rows (within groups) by average linkage.
    labels : row or column label -> text to show.
    colors : two colours or more from the lowest to the highest value, instead of the scale described above.

    Raises ValueError (name, alt, caption) and DataError (empty, not numeric, duplicate labels, bounds or
    groups that lack a label).

    >>> matrix = pd.DataFrame([[1.0, -0.2], [-0.2, 1.0]], index=["a", "b"], columns=["a", "b"])
    >>> figure = heatmap(matrix, name="map", alt="Two benchmarks.", caption="They disagree.")
    >>> figure.spec["data"][0]["zmin"], figure.spec["data"][0]["zmax"]
    (-0.2, 0.2)
    """
    check_name(name)
    check_words(alt=alt, caption=caption)
    ramp = _ramp(colors)
    if matrix.empty:
        raise DataError(f"heat map {name!r}: the matrix has shape {matrix.shape}, nothing to draw")
    for side, found in (("row", matrix.index), ("column", matrix.columns)):
        if found.has_duplicates:
            raise DataError(f"heat map {name!r}: {side} label {found[found.duplicated()][0]!r} occurs more than once")
    try:
        matrix = matrix.astype(float)
    except (TypeError, ValueError) as error:
        raise DataError(f"heat map {name!r}: the matrix must be numeric ({error})") from error
    square = matrix.index.equals(matrix.columns)
    for key, bound in (("low", low), ("high", high)):
        if bound is not None and not (
            matrix.index.isin(bound.index).all() and matrix.columns.isin(bound.columns).all()
        ):
            raise DataError(f"heat map {name!r}: {key}= lacks labels of the matrix; give it the same rows and columns")
    if groups is not None:
        missing = [r for r in matrix.index if r not in groups.index or pd.isna(groups[r])]
        if missing:
            raise DataError(f"heat map {name!r}: groups= has no category for {missing[:5]}; give one for each row")
        known = sorted(groups.dropna().astype(str).unique())  # of rows drawn or not: colours keep their meaning
        hues = {level: COLOURS[i % len(COLOURS)] for i, level in enumerate(known)}
        groups = groups.reindex(matrix.index).astype(str)
    order = _order(matrix, groups, cluster)
    across = order if square else list(matrix.columns)
    matrix = matrix.loc[order, across]
    shown = {k: str((labels or {}).get(k, k)) for k in [*order, *across]}
    for side, keys in (("row", order), ("column", across)):
        texts = pd.Index([shown[k] for k in keys])
        if texts.has_duplicates:
            raise DataError(
                f"heat map {name!r}: two {side}s would be labelled {texts[texts.duplicated()][0]!r}; make labels= "
                "unique"
            )

    values = matrix.to_numpy()
    seen = values[~np.eye(len(values), dtype=bool)] if square and len(values) > 1 else values.ravel()
    seen = seen[np.isfinite(seen)]
    given = zmin is not None and zmax is not None
    zmin = float(seen.min() if seen.size else 0) if zmin is None else zmin
    zmax = float(seen.max() if seen.size else 1) if zmax is None else zmax
    diverging = zmin < 0
    if diverging and not given:
        zmax = max(abs(zmin), abs(zmax))
        zmin = -zmax
    if zmin == zmax:
        zmax = zmin + 1

    rows, columns = [plot_text(shown[k]) for k in order], [plot_text(shown[k]) for k in across]
    hover = f"<b>%{{y}}</b><br>%{{x}}<br>%{{z:.{digits}f}} {plot_text(unit)}"
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": columns,
        "y": rows,
        "z": compact(values, 4),
        "zmin": zmin,
        "zmax": zmax,
        "colorscale": ramp or scale(DIVERGING if diverging else SEQUENTIAL),
        "hoverongaps": True,
        "xgap": 1 if len(columns) <= 30 else 0,
        "ygap": 1 if len(rows) <= 30 else 0,
        "colorbar": {
            "title": {"text": plot_text(unit), "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "len": 0.9,
        },
        "hovertemplate": hover + "<extra></extra>",
    }
    if low is not None and high is not None:
        bounds = np.stack([low.loc[order, across].to_numpy(float), high.loc[order, across].to_numpy(float)], axis=2)
        trace["customdata"] = compact(np.round(bounds, digits), digits + 1)
        form = f".{digits}f"
        trace["hovertemplate"] = (
            f"{hover}<br>95 % interval %{{customdata[0]:{form}}} to %{{customdata[1]:{form}}}<extra></extra>"
        )

    legend: list[tuple[str, str]] = []
    shapes: list[dict[str, Any]] = []
    if groups is not None:
        legend = [(level, hues[level]) for level in dict.fromkeys(groups[k] for k in order)]
        starts = [i for i, k in enumerate(order) if i == 0 or groups[k] != groups[order[i - 1]]] + [len(order)]
        for begin, end in itertools.pairwise(starts):
            strip = {
                "type": "rect",
                "xref": "paper",
                "x0": 1.004,
                "x1": 1.018,
                "yref": "y",
                "line": {"width": 0},
            }
            shapes.append(strip | {"y0": begin - 0.5, "y1": end - 0.5, "fillcolor": hues[groups[order[begin]]]})
            if begin:
                line = {"type": "line", "line": {"color": "#14181e", "width": 1}}
                shapes.append(
                    line
                    | {
                        "xref": "x",
                        "x0": -0.5,
                        "x1": len(across) - 0.5,
                        "yref": "y",
                        "y0": begin - 0.5,
                        "y1": begin - 0.5,
                    }
                )
                if square:
                    shapes.append(
                        line
                        | {
                            "xref": "x",
                            "x0": begin - 0.5,
                            "x1": begin - 0.5,
                            "yref": "y",
                            "y0": -0.5,
                            "y1": len(order) - 0.5,
                        }
                    )
        trace["colorbar"]["x"] = 1.03

    def ticks(texts: Sequence[str], room: float, limit: int, turned: bool = True) -> tuple[dict, dict]:
        """Return ticks and font that fit: as many labels as leave 9 pixels to each."""
        step = max(1, math.ceil(9 / room)) if turned else 1
        size = int(min(13 if len(texts) <= 20 else 10, max(8, 0.85 * room * step)))
        shown = [plot_text(_short(t, limit)) for t in texts[::step]]
        return _ticks(texts[::step], shown), {"size": size}

    down, over = [shown[k] for k in order], [shown[k] for k in across]
    turned = len(over) > 8 or max(map(len, over)) > 8
    longest = max(map(len, over))
    foot = (7 * min(longest, 30) if len(over) <= 20 else 6 * min(longest, 22)) if turned else 30
    wide = (620 - 7 * min(max(map(len, down)), 30)) / len(over)  # pixels of a cell on a page 735 wide
    tall = min(44, max(11, wide if len(over) > 12 else 36))
    height = int(min(max(tall * len(down) + foot, 240), 1100))
    x_ticks, x_font = ticks(over, wide, 30 if len(over) <= 20 else 22, turned)
    y_ticks, y_font = ticks(down, (height - foot) / len(down), 30)
    x = _axis(type="category", showgrid=False, tickangle=-90 if turned else 0, tickfont=x_font, **x_ticks)
    y = _axis(type="category", showgrid=False, autorange="reversed", tickfont=y_font, **y_ticks)
    layout = _layout(height, x, y, shapes=shapes, plot_bgcolor="rgba(128,128,128,0.25)")
    narrow = 250 / len(over)
    small = int(min(max(min(30, max(7, narrow)) * len(down) + 190, 300), 640))
    x_ticks, x_font = ticks(over, narrow, 15, turned)
    y_ticks, y_font = ticks(down, (small - 190) / len(down), 15)
    phone = {
        "height": small,
        "xaxis": x_ticks | {"tickfont": x_font},
        "yaxis": y_ticks | {"tickfont": y_font},
    }
    if low is not None and high is not None:
        tables = {"value": values, "low": bounds[..., 0], "high": bounds[..., 1]}
        mirrored = square and all(np.allclose(t, t.T, rtol=1e-9, equal_nan=True) for t in tables.values())
        places = np.triu_indices(len(order)) if mirrored else tuple(np.indices(values.shape).reshape(2, -1))
        data = pd.DataFrame(
            {
                "row": np.array(order, dtype=object)[places[0]],
                "column": np.array(across, dtype=object)[places[1]],
            }
            | {key: t[places] for key, t in tables.items()}
        )
    else:
        data = matrix.rename_axis(index=matrix.index.name or "row")
    table = matrix.rename(index=shown, columns=shown)
    table.index.name = ""
    return _figure(
        [trace],
        layout,
        phone,
        name=name,
        alt=alt,
        caption=caption,
        data=data,
        table=table,
        legend=legend,
        title=title,
        digits=5,
    )


def _hover(part: pd.DataFrame, label: str | None, hover: Sequence[str] | None, x: str, y: str) -> dict[str, Any]:
    """Return hovertemplate and customdata: the label in bold, then x, y and the extra columns."""
    extra = [c for c in dict.fromkeys([*([label] if label else []), *(hover or [])])]
    lines = ["<b>%{customdata[0]}</b>"] if label else []
    lines += [f"{plot_text(x)}: %{{x}}", f"{plot_text(y)}: %{{y}}"]
    for i, column in enumerate(extra):
        if column != label:
            form = ":.4g" if pd.api.types.is_float_dtype(part[column]) else ""
            lines.append(f"{plot_text(column)}: %{{customdata[{i}]{form}}}")
    found: dict[str, Any] = {"hovertemplate": "<br>".join(lines) + "<extra></extra>"}
    if extra:
        columns = [
            part[c].tolist() if pd.api.types.is_numeric_dtype(part[c]) else [plot_text(v) for v in part[c]]
            for c in extra
        ]
        found["customdata"] = [list(row) for row in zip(*columns, strict=True)]
    return found


def _values(column: pd.Series) -> list[Any]:
    """Return a column for an axis: numbers as they are, anything else as literal text."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.tolist()
    return [None if pd.isna(v) else plot_text(v) for v in column]


def _error(part: pd.DataFrame, middle: str, low: str, high: str) -> dict[str, Any]:
    """Return error bars from the bounds of an interval."""
    above = (part[high] - part[middle]).clip(lower=0)
    below = (part[middle] - part[low]).clip(lower=0)
    return {
        "type": "data",
        "symmetric": False,
        "array": above.tolist(),
        "arrayminus": below.tolist(),
        "thickness": 1,
        "width": 2,
        "color": "#8a8a8a",
    }


def _both(low: str | None, high: str | None) -> bool:
    if (low is None) != (high is None):
        raise ValueError("give both ends of the interval or neither: an interval with one end cannot be drawn")
    return low is not None


def scatter(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    alt: str,
    caption: str,
    color: str | None = None,
    colors: Colours | None = None,
    label: str | None = None,
    hover: Sequence[str] | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    identity: bool = False,
    error_low: str | None = None,
    error_high: str | None = None,
    symbol: str | None = None,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    reference: Mapping[str, float] | float | None = None,
) -> Figure:
    """Draw points; `color` is a column: a number gives a colour bar, anything else a legend.

    `colors` are the reader's own: from low to high for numbers, else a mapping from levels or a sequence in their order.

    `label` and `hover` name columns shown on hover; `error_low` and `error_high` name columns with the bounds
    of an interval of `y`; `identity` adds the line y = x; `symbol` names a column drawn as marker shapes.
    Rows whose x or y is NaN cannot be drawn; they stay in the download and the caption counts them.
    """
    check_name(name)
    check_words(alt=alt, caption=caption)
    _columns(frame, x, y, color, label, error_low, error_high, symbol, *(hover or []))
    bars = _both(error_low, error_high)
    numeric = (
        color is not None
        and pd.api.types.is_numeric_dtype(frame[color])
        and not pd.api.types.is_bool_dtype(frame[color])
    )
    x_title, y_title = x_title or str(x), y_title or str(y)
    hue = _hues(None if numeric else colors, frame, color)
    ramp = _ramp(colors) if numeric else None
    shapes = {s: SYMBOLS[i % len(SYMBOLS)] for i, s in enumerate(frame[symbol].astype(str).unique())} if symbol else {}
    traces: list[dict[str, Any]] = []
    for i, level, part in _levels(frame, None if numeric else color):
        for mark, piece in [(m, part[part[symbol].astype(str) == m]) for m in shapes] if symbol else [(None, part)]:
            if piece.empty:
                continue
            marker: dict[str, Any] = {
                "size": 8 if len(frame) <= 300 else 5,
                "opacity": 0.85,
                "color": hue(i, level),
            }
            marker["symbol"] = shapes[mark] if symbol else SYMBOLS[i % len(SYMBOLS)]
            if numeric:
                marker |= {
                    "color": piece[color].tolist(),
                    "colorscale": ramp or scale(SEQUENTIAL),
                    "cmin": frame[color].min(),
                    "cmax": frame[color].max(),
                    "colorbar": {
                        "title": {"text": plot_text(color), "side": "right"},
                        "thickness": 12,
                        "outlinewidth": 0,
                    },
                    "showscale": not traces,
                    "line": EDGE,
                }
            words = [str(v) for v in (level, mark) if v is not None]
            trace = {
                "type": "scatter",
                "mode": "markers",
                "x": _values(piece[x]),
                "y": _values(piece[y]),
                "marker": marker,
            }
            trace |= {"name": plot_text(", ".join(words)), "showlegend": bool(words)} | _hover(
                piece, label, hover, x_title, y_title
            )
            if bars:
                trace["error_y"] = _error(piece, y, error_low, error_high)
            traces.append(trace)
    if identity:
        ends = [min(frame[x].min(), frame[y].min()), max(frame[x].max(), frame[y].max())]
        traces.insert(
            0,
            {
                "type": "scatter",
                "mode": "lines",
                "x": ends,
                "y": ends,
                "line": {"color": "#8a8a8a", "width": 1, "dash": "dash"},
                "hoverinfo": "skip",
                "name": "y = x",
                "showlegend": False,
            },
        )
    legend = sum(bool(t.get("showlegend")) for t in traces)
    layout = _layout(
        440,
        _axis(x_title, **_log(frame[x], log_x)),
        _axis(y_title, **_log(frame[y], log_y)),
        showlegend=legend > 0,
        **_references(reference),
    )
    return _figure(
        traces,
        layout,
        {"height": 340 + 22 * min(legend, 8) + 40 * numeric},
        name=name,
        alt=alt,
        caption=caption + _undrawn(frame, x, y),
        data=_used(frame, x, y, color, label, *(hover or []), error_low, error_high, symbol),
        title=title,
    )


def _undrawn(frame: pd.DataFrame, *columns: str) -> str:
    count = int(frame[list(columns)].isna().any(axis=1).sum())
    return f" ({count} of {len(frame)} rows lack a value and are not drawn.)" if count else ""


def line(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    alt: str,
    caption: str,
    color: str | None = None,
    colors: Colours | None = None,
    band: tuple[str, str] | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    reference: Mapping[str, float] | float | None = None,
    title: str = "",
    markers: bool | None = None,
) -> Figure:
    """Draw one line a level of `color`, with a shaded band between the columns ``band=(low, high)``.

    Lines connect rows in the order of `x`; `reference` maps labels to heights of dashed lines. Markers
    are drawn by default when a line has at most 40 points. `colors`: a mapping from levels, or a sequence in their order.
    """
    check_name(name)
    check_words(alt=alt, caption=caption)
    _columns(frame, x, y, color, *(band or ()))
    x_title, y_title = x_title or str(x), y_title or str(y)
    hues = _hues(colors, frame, color)
    traces: list[dict[str, Any]] = []
    for i, level, part in _levels(frame, color):
        part, hue = part.sort_values(x, kind="stable"), hues(i, level)
        if band:
            known = part.dropna(subset=list(band))
            edge = _values(known[x])
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": edge + edge[::-1],
                    "y": known[band[1]].tolist() + known[band[0]].tolist()[::-1],
                    "fill": "toself",
                    "fillcolor": _faint(hue),
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "showlegend": False,
                    "legendgroup": str(i),
                }
            )
        dots = len(part) <= 40 if markers is None else markers
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if dots else "lines",
                "x": _values(part[x]),
                "y": part[y].tolist(),
                "line": {"color": hue, "width": 2, "dash": DASHES[i % len(DASHES)]},
                "marker": {"size": 6, "color": hue, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                "name": plot_text(level) if level is not None else "",
                "showlegend": level is not None,
                "legendgroup": str(i),
            }
            | _hover(part, color, band, x_title, y_title)
        )
    legend = sum(bool(t["showlegend"]) for t in traces)
    layout = _layout(
        400,
        _axis(x_title, **_log(frame[x], log_x)),
        _axis(y_title, **_log(frame[y], log_y)),
        showlegend=legend > 0,
        **_references(reference),
    )
    return _figure(
        traces,
        layout,
        {"height": 320 + 22 * min(legend, 8)},
        name=name,
        alt=alt,
        caption=caption + _undrawn(frame, x, y),
        data=_used(frame, x, y, color, *(band or ())),
        title=title,
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def bar(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    alt: str,
    caption: str,
    color: str | None = None,
    colors: Colours | None = None,
    low: str | None = None,
    high: str | None = None,
    horizontal: bool = False,
    x_title: str | None = None,
    y_title: str | None = None,
    reference: Mapping[str, float] | float | None = None,
    title: str = "",
    hover: Sequence[str] | None = None,
) -> Figure:
    """Draw one bar a row: `x` names the category, `y` its value, `low` and `high` the bounds of its interval.

    `horizontal` turns the drawing, not the arguments: `x` stays the category, and `x_title` its title.
    `color` is a column of categories, `colors` a mapping from them or a sequence in their order. `reference` maps labels to values of dashed lines.
    """
    check_name(name)
    check_words(alt=alt, caption=caption)
    _columns(frame, x, y, color, low, high, *(hover or []))
    bounds = _both(low, high)
    x_title, y_title = x_title or str(x), y_title or str(y)
    names = list(dict.fromkeys(str(v) for v in frame[x]))
    single = color is None or not frame.duplicated([x]).any()  # one bar a category: no room needed for neighbours
    hue = _hues(colors, frame, color)
    traces = []
    for i, level, part in _levels(frame, color):
        keys = [plot_text(v) for v in part[x]]
        trace: dict[str, Any] = {
            "type": "bar",
            "marker": {"color": hue(i, level)},
            "orientation": "h" if horizontal else "v",
        }
        trace |= {"x": part[y].tolist(), "y": keys} if horizontal else {"x": keys, "y": part[y].tolist()}
        titles = (y_title, x_title) if horizontal else (x_title, y_title)
        shown = [*([low, high] if bounds else []), *(hover or [])]
        trace |= {
            "name": plot_text(level) if level is not None else "",
            "showlegend": level is not None,
        } | _hover(part, color, shown, *titles)
        if bounds:
            trace["error_x" if horizontal else "error_y"] = _error(part, y, low, high)
        traces.append(trace)
    order = {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": [plot_text(n) for n in names],
        "showgrid": False,
    }
    size = 13 if len(names) <= 30 else 10

    def ticks(limit: int, most: int) -> dict[str, Any]:
        step = math.ceil(len(names) / most)
        return _ticks(names[::step], [plot_text(_short(n, limit)) for n in names[::step]])

    mode = {"barmode": "overlay" if single else "group", "bargap": 0.25, "showlegend": color is not None}
    if horizontal:
        height = 22 * len(names) * (1 if single else max(1, len(traces) * 0.7)) + 90
        category = _axis(
            x_title if x_title != x else "",
            autorange="reversed",
            tickfont={"size": size},
            **order,
            **ticks(40, 100),
        )
        layout = _layout(
            int(min(max(height, 220), 1600)),
            _axis(y_title),
            category,
            **mode,
            **_references(reference, vertical=True),
        )
        phone: dict[str, Any] = {
            "height": layout["height"] + 40,
            "yaxis": ticks(18, 100) | {"tickfont": {"size": 10}},
        }
    else:
        turned = len(names) > 10 or max(map(len, names)) > 14
        category = _axis(x_title, tickangle=-60 if turned else 0, tickfont={"size": size}, **order, **ticks(28, 80))
        layout = _layout(400 + (60 if turned else 0), category, _axis(y_title), **mode, **_references(reference))
        phone = {
            "height": 380,
            "xaxis": ticks(16, 30) | {"tickfont": {"size": 10}, "tickangle": -90 if len(names) > 4 else 0},
        }
    return _figure(
        traces,
        layout,
        phone,
        name=name,
        alt=alt,
        caption=caption + _undrawn(frame, y),
        data=_used(frame, x, y, color, low, high, *(hover or [])),
        title=title,
    )


def strip(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    name: str,
    alt: str,
    caption: str,
    color: str | None = None,
    colors: Colours | None = None,
    reference: Mapping[str, float] | float | None = None,
    x_title: str | None = None,
    y_title: str | None = None,
    label: str | None = None,
    title: str = "",
) -> Figure:
    """Draw every point of `y` for each category of `x`, spread sideways, over a box of median and quartiles.

    `label` names a column shown on hover; `color` splits each category into boxes side by side.
    `colors`: a mapping from levels of `color`, or a sequence in their order.
    """
    check_name(name)
    check_words(alt=alt, caption=caption)
    _columns(frame, x, y, color, label)
    x_title, y_title = x_title or str(x), y_title or str(y)
    names = list(dict.fromkeys(str(v) for v in frame[x]))
    many = len(frame) > 1500
    hues = _hues(colors, frame, color)
    traces = []
    for i, level, part in _levels(frame, color):
        hue = hues(i, level)
        trace = {
            "type": "box",
            "x": [plot_text(v) for v in part[x]],
            "y": part[y].tolist(),
            "boxpoints": "all",
            "jitter": 0.7,
            "pointpos": 0,
            "marker": {"color": hue, "size": 3 if many else 5, "opacity": 0.45 if many else 0.65},
            "line": {"width": 1.5, "color": hue},
            "fillcolor": "rgba(0,0,0,0)",
            "hoveron": "points",
            "name": plot_text(level) if level is not None else "",
            "showlegend": level is not None,
        }
        traces.append(trace | _hover(part, label, None, x_title, y_title))
    fits = [int(pixels / len(names)) for pixels in (90, 48)]  # letters beside each other: screen, phone
    turned = [max(map(len, names)) > n and n < 11 for n in fits]
    single = color is None or frame.groupby(x)[color].nunique().max() <= 1  # no room needed for neighbours

    def ticks(limit: int, most: int) -> dict[str, Any]:
        step = math.ceil(len(names) / most)
        shown = [_lines(n, limit) if len(names) <= 16 else plot_text(_short(n, limit)) for n in names[::step]]
        return _ticks(names[::step], shown)

    category = _axis(
        x_title,
        type="category",
        categoryorder="array",
        categoryarray=[plot_text(n) for n in names],
        showgrid=False,
        tickangle=-60 if turned[0] else 0,
        tickfont={"size": 13 if len(names) <= 8 else 10},
        **ticks(28 if turned[0] else fits[0], 60),
    )
    layout = _layout(
        430 + (50 if turned[0] else 0),
        category,
        _axis(y_title),
        boxmode="overlay" if single else "group",
        showlegend=color is not None,
        **_references(reference),
    )
    phone = {
        "height": 380,
        "xaxis": ticks(18 if turned[1] else fits[1], 24)
        | {"tickfont": {"size": 10}, "tickangle": -90 if turned[1] else 0},
    }
    return _figure(
        traces,
        layout,
        phone,
        name=name,
        alt=alt,
        caption=caption + _undrawn(frame, y),
        data=_used(frame, x, y, color, label),
        title=title,
    )


def table(
    frame: pd.DataFrame,
    *,
    name: str,
    caption: str,
    digits: int = 3,
    height: int | None = None,
    alt: str | None = None,
    title: str = "",
) -> Figure:
    """Show a frame as a sortable, scrollable HTML table with its data for download; no external scripts.

    `digits` decimals for floats, "–" for NaN; `height` in pixels limits the visible part (420 past 12 rows).
    `alt` names the table for screen readers and is the caption by default.

    >>> frame = pd.DataFrame({"benchmark": ["a<b"], "r": [0.5]})
    >>> "a&lt;b</td><td class=n>0.500</td>" in table(frame, name="list", caption="All of them.").html
    True
    """
    check_name(name)
    check_words(caption=caption, alt=caption if alt is None else alt)
    if frame.shape[1] == 0:
        raise DataError(f"table {name!r}: the frame has no columns")
    return Figure(
        name=name,
        alt=alt or html.unescape(caption),
        caption=caption,
        data=frame,
        digits=digits,
        height=height,
        title=title,
    )


def _recolour(value: Any) -> Any:
    """Return traces with plotly's default categorical colours replaced by those of the book."""
    if isinstance(value, dict):
        return {k: _recolour(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_recolour(v) for v in value]
    return PLOTLY_COLOURS.get(value.lower(), value) if isinstance(value, str) else value


def plotly(
    fig: Any,
    *,
    name: str,
    alt: str,
    caption: str,
    data: pd.DataFrame,
    static: Any = None,
    title: str = "",
    height: int | None = None,
) -> Figure:
    """Show any plotly figure with the look of the book; its own template, fonts and backgrounds are dropped.

    Parameters
    ----------
    fig : plotly Figure, or a dict with ``data`` and ``layout``. Its strings are taken as plotly markup.
    data : the frame behind the figure, for the download.
    static : matplotlib Figure for print and readers without scripts; needed for traces other than scatter,
        bar, heatmap and box (ValueError).
    height : pixels; by default the figure's own, or 440.
    """
    check_name(name)
    check_words(alt=alt, caption=caption)
    content = fig if isinstance(fig, Mapping) else fig.to_plotly_json()
    content = compact(content)
    own = {
        k: v for k, v in content.get("layout", {}).items() if k not in ("template", "font", "paper_bgcolor", "width")
    }
    layout = _layout(int(height or own.get("height") or 440), {}, {})
    layout |= {k: v for k, v in own.items() if k not in ("height", "xaxis", "yaxis")}
    for key in {"xaxis", "yaxis", *(k for k in own if k.startswith(("xaxis", "yaxis")))}:
        layout[key] = _axis() | (own.get(key) or {})
    for trace in content.get("data", []):
        if trace.get("type") == "heatmap" and "coloraxis" not in trace:
            trace.setdefault("colorscale", scale(SEQUENTIAL))
    words = own.get("title")
    words = words.get("text") if isinstance(words, Mapping) else words
    layout.pop("title", None)
    layout["legend"] = _layout(0, {}, {})["legend"] | {k: v for k, v in own.get("legend", {}).items() if k == "title"}
    return _figure(
        _recolour(content.get("data", [])),
        layout,
        {"height": min(layout["height"], 460)},
        name=name,
        alt=alt,
        caption=caption,
        data=data,
        static=static,
        title=title or words or "",
    )


def matplotlib(
    figure: Any,
    *,
    alt: str,
    caption: str,
    name: str | None = None,
    data: pd.DataFrame | None = None,
    title: str = "",
) -> Figure:
    """Show a picture of matplotlib or seaborn with caption, alt text and, where `data` is given, a download.

    Parameters
    ----------
    figure : matplotlib Figure or Axes, an array of Axes, or a seaborn grid. It is shown once: pyplot forgets it.
    name : slug, unique on the page; by default made from the picture.

    Raises TypeError for anything else, ValueError for a missing alt text or caption.

    >>> from matplotlib.figure import Figure as Canvas
    >>> axes = Canvas().add_subplot()
    >>> matplotlib(axes, alt="An empty plane.", caption="Nothing yet.", name="empty")
    Figure empty: An empty plane.
    """
    from matplotlib import pyplot
    from matplotlib.figure import FigureBase

    found = figure.flat[0] if isinstance(figure, np.ndarray) and figure.size else figure
    found = found if isinstance(found, FigureBase) else getattr(found, "figure", None)  # of Axes and of seaborn's grids
    found = getattr(found, "figure", found)  # of a part of a figure
    if not isinstance(found, FigureBase):
        raise TypeError(f"expected a matplotlib Figure, Axes or a seaborn grid; found {type(figure).__name__}")
    check_words(alt=alt, caption=caption)
    drawn = picture(found, PICTURE_LIMIT)
    pyplot.close(found)
    name = check_name(name or f"picture-{hashlib.sha256(drawn).hexdigest()[:8]}")
    table = data if data is not None and len(data) <= TABLE_ROWS and data.shape[1] <= 12 else None
    return Figure(name, alt, caption, data, twin=drawn, static=found, title=title, table=table)
