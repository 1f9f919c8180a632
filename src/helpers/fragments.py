"""HTML fragments of the book: one accessible, self-contained `<figure>` for each plot or table.

A fragment works at three levels: without scripts and on paper it shows a static picture; on a page of the
book ``_static/companion.js`` replaces the picture by the interactive plot; in JupyterLab the mime bundle also
carries plotly's own format. Caption, data download and table twin are plain HTML at every level.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from helpers import paths, provenance

CSV_LIMIT = 200_000  # bytes; browsers take longer data URIs, a page of 3 MiB does not
SIX_DIGITS = 60_000  # bytes; a longer CSV has four significant digits
TWIN_LIMIT = 40_000  # bytes of a static picture
TABLE_ROWS = 100  # plots drawn from at most so many rows get a table twin
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

_names: dict[str, tuple[Any, int]] = {}  # name -> (cell, run of that cell) of this notebook


def literal(text: Any, language: str = "markdown") -> str:
    """Return text of others, a name, title, question or unit, that a page shows as it is and that does nothing there.

    The one escaper of the project. `language` is where the text goes: ``markdown`` (MyST, Markdown outputs of cells; one
    line), ``html`` (content and quoted attributes), ``plotly`` (labels, which plotly reads as markup, TeX and
    templates) or ``text`` (no markup at all). What a language would read as markup becomes a character reference. Control characters and marks that
    turn the direction of the text around them become visible, as in ``\\u202e``.

    >>> literal("{{ 7 * 7 }} [a](b) `c` <i>")
    '&#123;&#123; 7 &#42; 7 &#125;&#125; &#91;a&#93;(b) &#96;c&#96; &lt;i&gt;'
    >>> literal("arc_easy, 5-shot"), literal("# one\\ntwo")
    ('arc_easy, 5-shot', '&#35; one two')
    >>> literal("a\\u202eb", "html"), literal("$x$ %{y}", "plotly")
    ('a\\\\u202eb', '&#36;x&#36; &#37;{y}')
    """
    text = _HIDDEN.sub(_visible, str(text))
    if language == "text":
        return text
    if language == "html":
        # a line end would let the text end the block of MyST that holds the HTML
        return html.escape(text, quote=True).replace("\n", "&#10;").replace("\r", "&#13;")
    if language == "plotly":
        return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "&#37;{")
    if language != "markdown":
        raise ValueError(f"language={language!r}: expected 'markdown', 'html', 'plotly' or 'text'")
    text = _MARKS.sub(lambda m: f"&#{ord(m[0])};", html.escape(" ".join(text.split()), quote=False))
    if start := _START.match(text):  # a list, heading, comment, fence, target or rule begins with such a character
        text = f"{start[1]}&#{ord(start[2])};{text[start.end() :]}"
    return text


# Marks of direction, control characters but tab and line ends, and halves of characters that no file can hold.
_HIDDEN = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKS = re.compile(r"[\\`*{}\[\]!|$~^\"]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_START = re.compile(r"(\d+(?=[.)])|)([.)](?!\S)|[-+](?![^\s+-])|[=:#%(])")


def _visible(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def code(text: Any) -> str:
    """Return text of others as Markdown code; as plain text where its characters would end the code or a table's cell.

    >>> code("arc_easy"), code("a`b"), code("leaderboard|arc")
    ('`arc_easy`', 'a&#96;b', 'leaderboard&#124;arc')
    """
    line = " ".join(literal(text, "text").split())
    return f"`{line}`" if line and not set(line) & set("`|") else literal(line)


def escape(text: Any) -> str:
    """Return text that HTML shows literally: :func:`literal` for HTML.

    >>> escape('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return literal(text, "html")


def plot_text(text: Any) -> str:
    """Return text that plotly shows literally: :func:`literal` for plotly.

    >>> plot_text("a<b, $5 & $6")
    'a&lt;b, &#36;5 &amp; &#36;6'
    """
    return literal(text, "plotly")


def content_policy(scripts: Sequence[str]) -> str:
    """Return the `<meta>` of a page that stands alone: only these scripts run, and nothing is fetched from anywhere.

    Styles and pictures are those that the page itself holds. Must come before any script.
    """
    known = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    none = "'none'"
    policy = (
        f"default-src 'none'; script-src {known or none}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def compact(value: Any, digits: int = 5) -> Any:
    """Return `value` as plain JSON types: floats to `digits` significant digits, NaN and infinity as None.

    Arrays, Series and plotly's base64 arrays become lists.

    >>> compact({"x": np.array([0.123456, np.nan, 3.0]), "n": np.int64(2)})
    {'x': [0.12346, None, 3], 'n': 2}
    """
    if isinstance(value, Mapping):
        if set(value) >= {"dtype", "bdata"}:  # plotly's typed arrays
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
            shape = value.get("shape")
            if shape is not None:
                array = array.reshape([int(n) for n in str(shape).split(",")])
            return compact(array, digits)
        return {str(k): compact(v, digits) for k, v in value.items()}
    if isinstance(value, np.ndarray | pd.Series | pd.Index):
        return compact(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [compact(v, digits) for v in value]
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        value = float(value)
        if not math.isfinite(value):
            return None
        short = float(f"{value:.{digits}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return str(value)


def number(value: Any, digits: int = 3) -> str:
    """Return a cell's text: `digits` decimals, scientific where those would all be zero, "–" for NaN.

    >>> number(0.12345), number(12.0), number(0.00001234), number(float("nan")), number(7), number(True)
    ('0.123', '12.000', '1.23e-05', '–', '7', 'yes')
    """
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return "–"
        if value != 0 and (abs(value) < 0.5 * 10**-digits or abs(value) >= 1e7):
            return f"{value:.{max(digits - 1, 0)}e}"
        return f"{value:.{digits}f}"
    return "–" if value is None or value is pd.NA or value is pd.NaT else str(value)


def has_labels(frame: pd.DataFrame) -> bool:
    """Return whether the index says something: it has a name, or is not the unnamed numbers of old rows.

    >>> has_labels(pd.DataFrame({"a": [2, 1]}).sort_values("a")), has_labels(pd.DataFrame({"a": [1]}, index=["x"]))
    (False, True)
    """
    return frame.index.name is not None or not pd.api.types.is_integer_dtype(frame.index.dtype)


def caption_html(text: str) -> str:
    """Return escaped text in which `` `names` `` are set as code and ``*words*`` as emphasis.

    A name that may hold such marks goes in by :func:`literal` or :func:`code`.

    >>> caption_html("`a<b`, 5 < 6, *so*; 2 * 3 * 4")
    '<code>a&lt;b</code>, 5 &lt; 6, <em>so</em>; 2 * 3 * 4'
    >>> caption_html("of " + literal("*a* <b>"))
    'of &#42;a&#42; &lt;b&gt;'
    """
    parts = re.split(r"`([^`]+)`", re.sub(r"&amp;(#\d+|lt|gt|amp);", r"&\1;", escape(text)))
    parts[::2] = [re.sub(r"\*(?=\S)([^*]+)(?<=\S)\*", r"<em>\1</em>", part) for part in parts[::2]]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)


def guarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame for a CSV file: cells, labels and headers that a spreadsheet would run begin with ``'``.

    Those begin with ``=``, ``+``, ``-``, ``@``, tab or line end and are not numbers.

    >>> guarded(pd.DataFrame({"a": ["=1+1", "-5", "plain"], "b": [-1.5, 2.0, 3.0]})).to_csv(index=False)
    "a,b\\n'=1+1,-1.5\\n-5,2.0\\nplain,3.0\\n"
    """
    frame = frame.rename(columns=_guard, index=_guard)
    frame = frame.rename_axis(index=_guard(frame.index.name))
    for k, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            frame.isetitem(k, frame.iloc[:, k].astype(object).map(_guard))
    return frame


def _guard(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # a bare return is not quoted: it would begin a row
    risky = value.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠"))
    return f"'{value}" if risky and not _NUMBER.fullmatch(value) else value


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_text(frame: pd.DataFrame) -> tuple[str | None, str]:
    """Return (CSV text, remark): six significant digits, four past :data:`SIX_DIGITS`, three past that limit.

    The text is None when even three do not fit :data:`CSV_LIMIT`. The index is written when :func:`has_labels`.
    Cells that a spreadsheet would run are :func:`guarded`.
    """
    index = has_labels(frame)
    frame = guarded(frame)
    for form, remark, limit in (
        ("%.6g", "", SIX_DIGITS),
        ("%.4g", "four significant digits", CSV_LIMIT),
        ("%.3g", "three significant digits", CSV_LIMIT),
    ):
        text = frame.to_csv(index=index, float_format=form, lineterminator="\n", encoding="utf-8", errors="replace")
        if len(text.encode("utf-8", "replace")) <= limit:
            return text, remark
    return None, f"{len(frame):,} rows: too large for a page, see the study's artifacts"


def table_html(frame: pd.DataFrame, digits: int = 3, sortable: bool = True) -> str:
    """Return a `<table>` with escaped cells, header scopes and right-aligned numbers."""
    index = has_labels(frame)
    numeric = [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in frame.dtypes]
    head = [f'<th scope="col">{escape(frame.index.name or "")}</th>'] if index else []
    head += [
        f'<th scope="col"{" class=n" if n else ""}>{escape(c).replace("_", "_<wbr>")}</th>'
        for c, n in zip(frame.columns, numeric, strict=True)
    ]
    opening = ["<td class=n>" if n else "<td>" for n in numeric]
    rows = []
    for key, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
        cells = [f'<th scope="row">{escape(key)}</th>'] if index else []
        cells += [f"{o}{escape(number(v, digits))}</td>" for o, v in zip(opening, row, strict=True)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    kind = "companion-table companion-sortable" if sortable else "companion-table"
    return f'<table class="{kind}"><thead><tr>{"".join(head)}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _cell() -> tuple[Any, int] | None:
    """Return (identity of the notebook cell that runs now, its run number), or None outside a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    parent = shell.get_parent() or {}
    run = shell.execution_count
    return parent.get("metadata", {}).get("cellId", run), run


def check_name(name: str) -> str:
    """Return `name` when it is a slug that no other cell of this notebook uses, else raise ValueError."""
    if not isinstance(name, str) or not SLUG.fullmatch(name):
        raise ValueError(f"name={name!r}: a figure's name is a slug of a-z, 0-9 and single hyphens, like 'overlap-map'")
    here = _cell()
    if here is not None:
        before = _names.get(name)
        if before is not None and (before[0] != here[0] or before[1] == here[1]):
            raise ValueError(f"name={name!r} already names a figure of this page; give each figure its own name")
        _names[name] = here
    return name


def check_words(**words: str) -> None:
    """Raise ValueError for an alt text or caption that is missing or blank."""
    for key, text in words.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{key}={text!r}: every figure needs {key} text; say in words what the reader would see")


@dataclass(frozen=True)
class Figure:
    """A figure or table that displays itself in a notebook; made by `helpers.figures`.

    ``html`` is the whole fragment. ``spec`` is plotly's ``{"data", "layout", "phone"}`` (None for a table and for a
    picture of matplotlib), ``data`` the frame behind the download, ``twin`` the static PNG and ``static`` the matplotlib
    Figure that it shows.
    """

    name: str
    alt: str
    caption: str
    data: pd.DataFrame | None = None
    spec: dict[str, Any] | None = None
    twin: bytes | None = None
    static: Any = field(default=None, repr=False, compare=False)
    title: str = ""
    table: pd.DataFrame | None = None
    digits: int = 3
    height: int | None = None
    legend: Sequence[tuple[str, str]] = field(default_factory=tuple)

    @property
    def html(self) -> str:
        """The `<figure>` element: plot, static twin, legend, caption, download, table twin and plot data."""
        identity = f"fig-{self.name}"
        parts = [f'<figure class="companion-figure" id="{identity}">']
        if self.title:
            parts.append(f'<p class="companion-title">{escape(self.title)}</p>')
        if self.spec is not None:
            height, phone = self.spec["layout"]["height"], self.spec["phone"]["height"]
            parts.append(
                f'<div class="companion-plot" id="{identity}-plot" role="img" '
                f'aria-label="{escape(self.alt)}" '
                f'style="--plot-height:{height}px;--plot-height-phone:{phone}px"></div>'
            )
        if self.twin is not None:
            width, high = png_size(self.twin)
            parts.append(
                f'<img class="companion-static no-scaled-link" alt="{escape(self.alt)}" '
                f'width="{width}" height="{high}" style="max-width:100%;height:auto;background:#fff" '
                f'src="data:image/png;base64,{base64.b64encode(self.twin).decode()}">'
            )
        if self.is_table:
            rows = len(self.data)
            height = self.height or (420 if rows > 12 else None)
            limit = f' style="max-height:{int(height)}px"' if height else ""
            parts.append(
                f'<div class="companion-scroll" tabindex="0" role="region" aria-label="{escape(self.alt)}"'
                f"{limit}>{table_html(self.data, self.digits)}</div>"
            )
        if self.legend:
            items = "".join(
                f'<li><span class="companion-swatch" style="background:{escape(c)}"></span>{escape(t)}</li>'
                for t, c in self.legend
            )
            parts.append(f'<ul class="companion-legend">{items}</ul>')
        parts.append(f"<figcaption>{caption_html(self.caption)} {self._links()}</figcaption>")
        if self.table is not None:
            parts.append(
                '<details class="companion-twin"><summary>Table of values</summary>'
                f'<div class="companion-scroll" tabindex="0" role="region" '
                f'aria-label="{escape("Values of the figure: " + self.alt)}" style="max-height:420px">'
                f"{table_html(self.table, self.digits)}</div></details>"
            )
        if self.spec is not None:
            text = json.dumps(self.spec, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            # "<" could close the script element or open a comment in it
            parts.append(f'<script type="application/json">{text.replace("<", chr(92) + "u003c")}</script>')
        parts.append("</figure>")
        return "".join(parts)

    @property
    def is_table(self) -> bool:
        """Whether this is a table rather than a picture."""
        return self.spec is None and self.twin is None

    def save(self, path: Path | str) -> Path:
        """Write the figure to a file and return its path: see :func:`save`."""
        return save(self, path)

    def _links(self) -> str:
        link = ""
        if self.data is not None:
            text, remark = csv_text(self.data)
            link = "Data"
            if text is not None:
                address = "data:text/csv;charset=utf-8," + quote(text, safe="/,;:=+()[]|$!*", errors="replace")
                link = f'<a class="companion-download" download="{self.name}.csv" href="{address}">Data (CSV)</a>'
            link += f" ({escape(remark)})." if remark else "."
        source = os.environ.get("COMPANION_SOURCE", "").strip()  # set by the runner: notebook and study
        made = f' <span class="companion-source">Made by {escape(source)}.</span>' if source else ""
        return f'<span class="companion-links">{link}{made}</span>'

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self.html}
        if self.spec is not None:
            bundle["application/vnd.plotly.v1+json"] = {k: self.spec[k] for k in ("data", "layout")}
        return bundle

    def __repr__(self) -> str:
        return f"{'Table' if self.is_table else 'Figure'} {self.name}: {self.alt}"


def save(figure: Figure, path: Path | str, body: str | None = None) -> Path:
    """Write a figure to `path`, in the format of its suffix, and return the path.

    ``.html`` is the live figure as a page that needs nothing else (`body`, by default the figure's own HTML), ``.pdf``,
    ``.png`` (200 dots an inch) and ``.svg`` its static picture; a table is ``.html`` or ``.csv``. The same figure gives the
    same file. Raises ValueError for any other suffix.
    """
    path = Path(path)
    kinds = [".csv", ".html"] if figure.is_table else [".html", ".pdf", ".png", ".svg"]
    kind = path.suffix.lower()
    if kind not in kinds:
        what = "table" if figure.is_table else "figure"
        raise ValueError(
            f"{path.name}: a {what} is saved as {', '.join(kinds[:-1])} or {kinds[-1]}, not {kind or 'without suffix'}"
        )
    if kind == ".html":
        text = standalone(figure.title or figure.alt, body or figure.html)
        return provenance.write_atomic(path, lambda t: t.write_text(text, encoding="utf-8"))
    if kind == ".csv":
        table = guarded(figure.data)
        return provenance.write_atomic(path, lambda t: table.to_csv(t, index=has_labels(table), lineterminator="\n"))
    from matplotlib import rc_context

    figure.static.set_layout_engine("none")  # as it was laid out for the twin: a second layout would move it a little
    dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(kind)
    with rc_context({"svg.hashsalt": figure.name, "text.parse_math": False}):
        return provenance.write_atomic(
            path, lambda t: figure.static.savefig(t, format=kind[1:], dpi=200, bbox_inches="tight", metadata=dates)
        )


def standalone(title: str, body: str) -> str:
    """Return a page that needs nothing else: figures are live, no request leaves it."""
    library = importlib.resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    style, script = (
        (paths.BOOK / "_static" / f"companion.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    scripts = [re.sub(r"</(?=script)", r"<\\/", t, flags=re.IGNORECASE) for t in (library, script)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{content_policy(scripts)}'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{style}</style></head>'
        f"<body>{body}{''.join(f'<script>{t}</script>' for t in scripts)}</body></html>\n"
    )


def png_size(png: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels from a PNG's header."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def picture(figure: Any, limit: int = TWIN_LIMIT) -> bytes:
    """Return a matplotlib Figure as a white PNG of at most `limit` bytes; raise ValueError if that cannot be.

    It is drawn once at 110 dots per inch; fewer colours, then fewer dots, make it smaller.
    """
    import warnings

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # a glyph missing from the font or a tight layout spoils nothing here
        warnings.simplefilter("ignore")
        canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGBA")
    full = Image.new("RGB", drawn.size, "white")
    full.paste(drawn, mask=drawn.getchannel("A"))
    for share, colours in (
        (1, 128),
        (1, 64),
        (1, 24),
        (0.8, 32),
        (0.8, 16),
        (0.65, 16),
        (0.5, 16),
        (0.4, 16),
    ):
        size = (round(full.width * share), round(full.height * share))
        small = io.BytesIO()
        shrunk = full if share == 1 else full.resize(size, Image.Resampling.LANCZOS)
        shrunk.quantize(colours).save(small, format="png", optimize=True)
        if small.tell() <= limit:
            return small.getvalue()
    raise ValueError(
        f"the static picture takes {small.tell():,} bytes at {size[0]} by {size[1]} pixels, the limit is "
        f"{limit:,}; draw less detail"
    )


def draw_static(spec: Mapping[str, Any], legend: Sequence[tuple[str, str]] = ()) -> Any:
    """Return a matplotlib Figure that shows a plotly ``{"data", "layout"}``, from the same numbers.

    Understands scatter, bar, heatmap, box traces, line and rectangle shapes, log axes and
    side-by-side panels. Raises ValueError for any other trace: the caller then passes ``static=``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas
    from matplotlib.patches import Patch, Rectangle

    layout, traces = spec["layout"], spec["data"]
    kinds = {t.get("type", "scatter") for t in traces} - {"scatter", "scattergl", "bar", "heatmap", "box"}
    if kinds:
        raise ValueError(f"no static twin for {', '.join(sorted(kinds))} traces; pass static=, a matplotlib Figure")
    panels = sorted({(t.get("xaxis", "x"), t.get("yaxis", "y")) for t in traces}) or [("x", "y")]
    tall = layout.get("height", 450) / 100
    size = {"font.size": 8, "text.parse_math": False, "font.family": "DejaVu Sans"}
    with rc_context(size):
        canvas = Canvas(
            figsize=(7.2, min(max(tall * 0.95, 2.6), 8.5)),
            layout="constrained" if len(panels) == 1 else None,
        )
        for x, y in panels:
            x_axis, y_axis = layout.get(f"xaxis{x[1:]}", {}), layout.get(f"yaxis{y[1:]}", {})
            if len(panels) == 1:
                axes = canvas.add_subplot()
            else:
                (x0, x1), (y0, y1) = x_axis.get("domain", (0, 1)), y_axis.get("domain", (0, 1))
                axes = canvas.add_axes((0.1 + 0.82 * x0, 0.14 + 0.74 * y0, 0.82 * (x1 - x0), 0.74 * (y1 - y0)))
            mine = [t for t in traces if (t.get("xaxis", "x"), t.get("yaxis", "y")) == (x, y)]
            mine = [_shared_colours(layout, t) for t in mine]
            _draw_panel(canvas, axes, mine, x_axis, y_axis, layout.get("barmode", "group"))
            for shape in layout.get("shapes", []):
                if shape.get("type") == "line" and shape.get("xref", "x") == "paper" and shape.get("yref", "y") == y:
                    axes.axhline(shape["y0"], color="#555", linewidth=0.8, linestyle="--")
                elif shape.get("type") == "line" and shape.get("yref", "y") == "paper" and shape.get("xref", "x") == x:
                    axes.axvline(shape["x0"], color="#555", linewidth=0.8, linestyle="--")
                elif shape.get("type") == "line" and (shape.get("xref", "x"), shape.get("yref", "y")) == (
                    x,
                    y,
                ):
                    axes.plot([shape["x0"], shape["x1"]], [shape["y0"], shape["y1"]], color="#333", linewidth=0.6)
                elif shape.get("type") == "rect" and (shape.get("xref"), shape.get("yref")) == ("paper", y):
                    low, high = shape["y0"], shape["y1"]
                    box = (shape["x0"], low), shape["x1"] - shape["x0"], high - low
                    place = axes.get_yaxis_transform()
                    axes.add_patch(Rectangle(*box, color=shape["fillcolor"], transform=place, clip_on=False))
            for note in layout.get("annotations", []):
                if note.get("xref") == "paper" and note.get("yref", "y") == y and note.get("text"):
                    place = axes.get_yaxis_transform()
                    axes.text(
                        1,
                        note["y"],
                        html.unescape(note["text"]),
                        transform=place,
                        ha="right",
                        va="bottom",
                        fontsize=7,
                    )
                elif (note.get("xref"), note.get("yref")) == (f"{x} domain", f"{y} domain"):
                    axes.set_title(html.unescape(note["text"]), fontsize=8)
                elif note.get("yref") == "paper" and note.get("xref", "x") == x and note.get("text"):
                    place = axes.get_xaxis_transform()
                    axes.text(
                        note["x"],
                        1,
                        html.unescape(note["text"]),
                        transform=place,
                        ha="center",
                        va="bottom",
                        fontsize=7,
                    )
        if legend:
            handles = [Patch(color=c, label=t) for t, c in legend]
            canvas.legend(
                handles=handles,
                loc="outside lower center" if len(panels) == 1 else "lower center",
                ncols=4,
                fontsize=7,
                frameon=False,
            )
    return canvas


def _shared_colours(layout: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """Return a heat map with the scale and range of the colour axis that it shares with others."""
    shared = layout.get(trace.get("coloraxis"), {})
    renamed = {"colorscale": "colorscale", "cmin": "zmin", "cmax": "zmax", "colorbar": "colorbar"}
    return {new: shared[old] for old, new in renamed.items() if old in shared} | dict(trace)


def _colour(value: Any) -> Any:
    """Return a matplotlib colour for a plotly one."""
    match = re.fullmatch(r"rgba?\(([^)]*)\)", str(value))
    if not match:
        return value
    parts = [float(p) for p in match[1].split(",")]
    return tuple(p / 255 for p in parts[:3]) + tuple(parts[3:])


def _colormap(scale: Any) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    if isinstance(scale, str):
        from plotly.colors import get_colorscale

        scale = get_colorscale(scale)
    return LinearSegmentedColormap.from_list("twin", [(stop, _colour(c)) for stop, c in scale])


def _title(axis: Mapping[str, Any]) -> str:
    title = axis.get("title") or ""
    return html.unescape(title.get("text") or "" if isinstance(title, Mapping) else title)


SYMBOLS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "x": "X",
    "star": "*",
}
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}


def _draw_panel(
    canvas: Any, axes: Any, traces: Sequence[Mapping[str, Any]], x_axis: Any, y_axis: Any, barmode: str
) -> None:
    """Draw the traces of one pair of axes."""
    from matplotlib.colors import Normalize

    places: dict[str, dict[Any, int]] = {"x": {}, "y": {}}  # categories in order of appearance

    def numbers(values: Any, side: str, axis: Mapping[str, Any]) -> np.ndarray:
        values = list(values)
        if axis.get("type") == "category" or any(isinstance(v, str) for v in values):
            for v in list(axis.get("categoryarray") or []) + values:
                places[side].setdefault(v, len(places[side]))
            return np.array([places[side][v] for v in values], dtype=float)
        return np.array([np.nan if v is None else v for v in values], dtype=float)

    named = False
    for index, trace in enumerate(traces):
        kind = trace.get("type", "scatter")
        label = html.unescape(str(trace.get("name") or "")) if trace.get("showlegend", True) else ""
        marker, line = trace.get("marker") or {}, trace.get("line") or {}
        if kind == "heatmap":
            z = np.array([[np.nan if v is None else v for v in row] for row in trace["z"]], dtype=float)
            x = numbers(trace.get("x", range(z.shape[1])), "x", x_axis)
            y = numbers(trace.get("y", range(z.shape[0])), "y", y_axis)
            axes.set_facecolor("#dddddd")
            image = axes.pcolormesh(
                x,
                y,
                z,
                cmap=_colormap(trace["colorscale"]),
                vmin=trace.get("zmin"),
                vmax=trace.get("zmax"),
                rasterized=True,
            )
            if trace.get("showscale", True):
                canvas.colorbar(image, ax=axes, label=_title(trace.get("colorbar") or {}), fraction=0.046, pad=0.02)
        elif kind == "box":
            side, other = ("x", "y") if trace.get("orientation") == "h" else ("y", "x")
            values = numbers(trace[side], side, {})
            where = numbers(
                trace.get(other) or [trace.get("name", "")] * len(values),
                other,
                x_axis if other == "x" else y_axis,
            )
            colour = _colour(marker.get("color", "#2f7ec2"))
            noise = np.random.default_rng(index).uniform(-0.22, 0.22, len(values))
            pair = (where + noise, values) if other == "x" else (values, where + noise)
            axes.scatter(*pair, s=6, color=colour, alpha=0.55, linewidths=0, label=label)
            for spot in np.unique(where):
                inside = values[(where == spot) & np.isfinite(values)]
                axes.boxplot(
                    [inside],
                    positions=[spot],
                    widths=0.5,
                    orientation="vertical" if other == "x" else "horizontal",
                    showfliers=False,
                    manage_ticks=False,
                    medianprops={"color": "black"},
                )
        elif kind == "bar":
            across = trace.get("orientation") == "h"
            values = numbers(trace["x"] if across else trace["y"], "x" if across else "y", {})
            where = numbers(trace["y"] if across else trace["x"], "y" if across else "x", y_axis if across else x_axis)
            bars = [trace] if barmode == "overlay" else [t for t in traces if t.get("type") == "bar"]
            width = 0.8 / len(bars)
            shift = (bars.index(trace) - (len(bars) - 1) / 2) * width
            colour = marker.get("color", "#2f7ec2")
            colour = [_colour(c) for c in colour] if isinstance(colour, list | tuple) else _colour(colour)
            (axes.barh if across else axes.bar)(where + shift, values, width, color=colour, label=label)
            error = trace.get("error_x" if across else "error_y")
            if error:
                spread = _spread(error)
                points = (values, where + shift) if across else (where + shift, values)
                axes.errorbar(
                    *points,
                    **{"xerr" if across else "yerr": spread},
                    fmt="none",
                    ecolor="#333",
                    elinewidth=0.8,
                    capsize=2,
                )
        else:
            x, y = numbers(trace["x"], "x", x_axis), numbers(trace["y"], "y", y_axis)
            mode = trace.get("mode") or "lines"
            if trace.get("fill") == "toself":
                axes.fill(x, y, color=_colour(trace.get("fillcolor", "#ccc")), linewidth=0)
                continue
            if trace.get("fill"):
                raise ValueError(f"no static twin for fill={trace['fill']!r}; pass static=<matplotlib Figure>")
            if "lines" in mode:
                axes.plot(
                    x,
                    y,
                    color=_colour(line.get("color", "#2f7ec2")),
                    linestyle=DASHES.get(line.get("dash", "solid"), "--"),
                    linewidth=1.4,
                    label=label if "markers" not in mode else "",
                )
            for error_key, side in (("error_y", "yerr"), ("error_x", "xerr")):
                if trace.get(error_key):
                    axes.errorbar(x, y, **{side: _spread(trace[error_key])}, fmt="none", ecolor="#999", elinewidth=0.7)
            if "markers" in mode:
                colour, symbol = (
                    marker.get("color", line.get("color", "#2f7ec2")),
                    marker.get("symbol", "circle"),
                )
                style = {
                    "s": 18,
                    "alpha": 0.85,
                    "linewidths": 0,
                    "label": label,
                    "marker": SYMBOLS.get(symbol if isinstance(symbol, str) else "circle", "o"),
                }
                if isinstance(colour, list | tuple) and colour and not isinstance(colour[0], str):
                    shade = np.array([np.nan if c is None else c for c in colour], dtype=float)
                    norm = Normalize(marker.get("cmin", np.nanmin(shade)), marker.get("cmax", np.nanmax(shade)))
                    image = axes.scatter(
                        x, y, c=shade, cmap=_colormap(marker.get("colorscale", "Viridis")), norm=norm, **style
                    )
                    canvas.colorbar(
                        image, ax=axes, label=_title(marker.get("colorbar") or {}), fraction=0.046, pad=0.02
                    )
                else:
                    colour = [_colour(c) for c in colour] if isinstance(colour, list | tuple) else _colour(colour)
                    axes.scatter(x, y, c=colour if isinstance(colour, list) else [colour], **style)
            if "text" in mode and trace.get("text") is not None:
                texts = trace["text"] if isinstance(trace["text"], list) else [trace["text"]] * len(x)
                for a, b, text in zip(x, y, texts, strict=True):
                    axes.annotate(
                        html.unescape(str(text)),
                        (a, b),
                        fontsize=6,
                        xytext=(3, 3),
                        textcoords="offset points",
                    )
        named = named or bool(label and trace.get("showlegend", True))
    for side, axis, setter in (("x", x_axis, axes.xaxis), ("y", y_axis, axes.yaxis)):
        if axis.get("showticklabels") is False:
            setter.set_ticks([])
        elif places[side]:
            names = list(places[side])
            step = math.ceil(len(names) / 60)
            shown = [n if len(str(n)) <= 30 else str(n)[:29] + "…" for n in names]
            small = 6 if len(names) > 24 else 8
            turn = {"rotation": 90} if side == "x" and (len(names) > 8 or max(map(len, map(str, shown))) > 12) else {}
            setter.set_ticks(
                range(0, len(names), step),
                [html.unescape(str(n)) for n in shown[::step]],
                fontsize=small,
                **turn,
            )
        if axis.get("type") == "log":
            (axes.set_xscale if side == "x" else axes.set_yscale)("log")
        if axis.get("autorange") == "reversed":
            (axes.invert_xaxis if side == "x" else axes.invert_yaxis)()
        if axis.get("range"):
            low, high = axis["range"]
            (axes.set_xlim if side == "x" else axes.set_ylim)(
                *((10**low, 10**high) if axis.get("type") == "log" else (low, high))
            )
    axes.set_xlabel(_title(x_axis))
    axes.set_ylabel(_title(y_axis))
    axes.spines[["top", "right"]].set_visible(False)
    if named and len({t.get("name") for t in traces if t.get("showlegend", True)}) > 1:
        axes.legend(fontsize=7, frameon=False, loc="best")


def _spread(error: Mapping[str, Any]) -> np.ndarray:
    """Return matplotlib's (below, above) for a plotly error bar."""
    above = np.array([0.0 if v is None else v for v in error["array"]], dtype=float)
    below = error.get("arrayminus")
    below = above if below is None else np.array([0.0 if v is None else v for v in below], dtype=float)
    return np.stack([below, above])
