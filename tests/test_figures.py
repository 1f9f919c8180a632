"""Figures: accessible, escaped, valid, small, and true to their data."""

import ast
import base64
import inspect
import io
import json
from html.parser import HTMLParser
from urllib.parse import unquote

import jupytext
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import figures, fragments, paths
from helpers.errors import DataError

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>$x$"
WORDS = {"name": "a-figure", "alt": "What is seen.", "caption": "What it means."}
FRAME = pd.DataFrame(
    {
        "kind": ["a", "b", "a", "c"],
        "x": [1.0, 2.0, 3.0, 4.0],
        "y": [0.1, np.nan, 0.3, 0.4],
        "low": [0.0, np.nan, 0.2, 0.3],
        "high": [0.2, np.nan, 0.5, 0.6],
    }
)


def square(n, seed=0):
    names = [f"benchmark {i}" for i in range(n)]
    values = np.corrcoef(np.random.default_rng(seed).normal(size=(n, 12)))
    return pd.DataFrame(values, index=names, columns=names)


MAKERS = {
    "heatmap": lambda **w: figures.heatmap(
        square(5), groups=pd.Series(list("aabbc"), square(5).index), cluster=True, **w
    ),
    "heatmap-bounds": lambda **w: figures.heatmap(square(4), low=square(4) - 0.1, high=square(4) + 0.1, unit="r", **w),
    "scatter": lambda **w: figures.scatter(
        FRAME,
        "x",
        "y",
        color="kind",
        label="kind",
        hover=["low"],
        identity=True,
        error_low="low",
        error_high="high",
        **w,
    ),
    "scatter-number": lambda **w: figures.scatter(FRAME, "x", "y", color="x", symbol="kind", log_x=True, **w),
    "line": lambda **w: figures.line(
        FRAME, "x", "y", color="kind", band=("low", "high"), log_x=True, reference={"chance": 0.25}, **w
    ),
    "bar": lambda **w: figures.bar(FRAME, "kind", "y", low="low", high="high", color="kind", reference=0.2, **w),
    "bar-across": lambda **w: figures.bar(FRAME, "kind", "y", horizontal=True, reference={"half": 0.5}, **w),
    "strip": lambda **w: figures.strip(FRAME, "kind", "y", color="kind", reference=0, **w),
    "plotly": lambda **w: figures.plotly(go.Figure(go.Scatter(x=FRAME["x"], y=FRAME["y"])), data=FRAME, **w),
    "table": lambda **w: figures.table(FRAME, **w),
}
PLOTS = {k: v for k, v in MAKERS.items() if k != "table"}


class Document(HTMLParser):
    """Every element with its attributes, and the text inside each script."""

    VOID = ("img", "br", "meta", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for tag in self.open[-1:]:
            self.texts.setdefault(tag, []).append(data)

    def all(self, tag):
        return [attrs for t, attrs in self.elements if t == tag]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("missing", ["alt", "caption"])
@pytest.mark.parametrize("text", ["", "  \n", None])
def test_words_are_required(maker, missing, text):
    if maker == "table" and missing == "alt" and text is None:
        assert MAKERS[maker](**WORDS | {missing: text}).alt == WORDS["caption"]  # by default
        return
    with pytest.raises(ValueError, match=missing):
        MAKERS[maker](**WORDS | {missing: text})
    if maker != "table":
        with pytest.raises(TypeError, match=missing):
            MAKERS[maker](**{k: v for k, v in WORDS.items() if k != missing})


@pytest.mark.parametrize("name", ["", "Big", "a b", "a--b", "-a", 'a"b', "ä", None])
@pytest.mark.parametrize("maker", ["heatmap", "bar", "table"])
def test_name_is_a_slug(maker, name):
    with pytest.raises(ValueError, match="slug"):
        MAKERS[maker](**WORDS | {"name": name})


def test_a_name_is_used_once_in_a_notebook(monkeypatch):
    monkeypatch.setattr(fragments, "_names", {})
    cell = {"now": ("cell-1", 1)}
    monkeypatch.setattr(fragments, "_cell", lambda: cell["now"])
    MAKERS["bar"](**WORDS)
    with pytest.raises(ValueError, match="already names a figure"):  # twice in one run of a cell
        MAKERS["table"](**WORDS)
    cell["now"] = ("cell-1", 2)  # the reader runs the same cell again
    MAKERS["bar"](**WORDS)
    cell["now"] = ("cell-2", 3)
    with pytest.raises(ValueError, match="already names a figure"):
        MAKERS["bar"](**WORDS)
    MAKERS["bar"](**WORDS | {"name": "another"})


@pytest.mark.parametrize("maker", PLOTS)
def test_fragment_is_complete(maker):
    figure = PLOTS[maker](**WORDS)
    page = Document(figure.html)
    (outer,) = page.all("figure")
    assert outer["id"] == "fig-a-figure"
    plot = next(d for d in page.all("div") if d.get("role") == "img")
    assert (plot["id"], plot["aria-label"]) == ("fig-a-figure-plot", WORDS["alt"])
    (image,) = page.all("img")
    assert image["alt"] == WORDS["alt"]
    png = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert len(png) <= fragments.TWIN_LIMIT
    with Image.open(io.BytesIO(png)) as twin:
        pixels = np.asarray(twin.convert("RGB"))
    assert (pixels[0, 0] == 255).all(), "the static picture is not on white"
    assert (pixels.std(axis=(0, 1)) > 5).all(), "the static picture is blank"
    assert (str(pixels.shape[1]), str(pixels.shape[0])) == (image["width"], image["height"])
    (download,) = page.all("a")
    assert download["download"] == "a-figure.csv"
    (text,) = page.texts["script"]
    spec = json.loads(text)
    go.Figure({"data": spec["data"], "layout": spec["layout"]})  # plotly itself rejects a key it does not know
    assert spec["phone"]["height"] > 0 and spec["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert "application/vnd.plotly.v1+json" in figure._repr_mimebundle_()


@pytest.mark.parametrize("maker", MAKERS)
def test_the_download_is_the_data(maker):
    figure = MAKERS[maker](**WORDS)
    link = Document(figure.html).all("a")[0]["href"]
    found = pd.read_csv(io.StringIO(unquote(link.removeprefix("data:text/csv;charset=utf-8,"))))
    wanted = figure.data.reset_index() if figure.data.index.name else figure.data
    pd.testing.assert_frame_equal(found, wanted.reset_index(drop=True), check_dtype=False, rtol=5e-6)


def test_text_is_shown_and_never_run():
    names = [HOSTILE, "plain"]
    matrix = pd.DataFrame([[1.0, 0.2], [0.2, 1.0]], index=names, columns=names)
    words = {"name": "hostile", "alt": HOSTILE, "caption": HOSTILE, "title": HOSTILE}
    frame = pd.DataFrame({HOSTILE: names, "y": [1.0, 2.0]})
    made = [
        figures.heatmap(matrix, groups=pd.Series([HOSTILE, "g"], names), unit=HOSTILE, **words),
        figures.bar(frame, HOSTILE, "y", color=HOSTILE, reference={HOSTILE: 1}, **words),
        figures.strip(frame, HOSTILE, "y", label=HOSTILE, **words),
        figures.scatter(frame, "y", "y", color=HOSTILE, label=HOSTILE, hover=[HOSTILE], x_title=HOSTILE, **words),
        figures.line(frame, "y", "y", color=HOSTILE, **words),
        figures.table(frame, **words),
    ]
    for figure in made:
        page = Document(figure.html)
        assert all(not any(k.startswith("on") for k in attrs) for _, attrs in page.elements)
        assert all(a["src"].startswith("data:image/png;base64,") for a in page.all("img"))
        assert not page.all("b")
        assert HOSTILE in " ".join(page.texts["figcaption"])
        assert HOSTILE in page.texts["p"]
        for text in page.texts.get("script", []):
            spec = json.loads(text)

            def strings(value):
                if isinstance(value, str):
                    yield value
                elif isinstance(value, dict | list):
                    for v in value.values() if isinstance(value, dict) else value:
                        yield from strings(v)

            assert not any("<img" in s or "</script" in s or "$" in s for s in strings(spec))
            assert any("&lt;" in s for s in strings(spec))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 9),
    seed=st.integers(0, 99),
    groups=st.booleans(),
    holes=st.integers(0, 6),
    cluster=st.booleans(),
)
def test_ordering_moves_rows_and_never_values(n, seed, groups, holes, cluster):
    matrix = square(n, seed)
    rng = np.random.default_rng(seed)
    for _ in range(holes):
        i, j = rng.integers(n, size=2)
        matrix.iloc[i, j] = matrix.iloc[j, i] = np.nan
    kinds = pd.Series(rng.choice(list("xyz"), n), matrix.index) if groups else None
    order = figures._order(matrix, kinds, cluster)
    assert sorted(order) == sorted(matrix.index)
    if groups:
        runs = kinds[order].ne(kinds[order].shift()).sum()
        assert runs == kinds.nunique(), "rows of one group are not together"


def test_heatmap_keeps_every_value_at_its_place():
    matrix = square(6)
    matrix.iloc[1, 2] = np.nan
    kinds = pd.Series(list("bababa"), matrix.index)
    labels = {k: k.upper() for k in matrix.index}
    figure = figures.heatmap(
        matrix, groups=kinds, cluster=True, labels=labels, low=matrix - 1, high=matrix + 1, **WORDS
    )
    trace = figure.spec["data"][0]
    assert trace["zmin"] == -trace["zmax"] < 0
    for i, row in enumerate(trace["y"]):
        for j, column in enumerate(trace["x"]):
            value = matrix.at[row.lower(), column.lower()]
            if np.isnan(value):
                assert trace["z"][i][j] is None
                assert trace["customdata"][i][j] == [None, None]
            else:
                assert trace["z"][i][j] == pytest.approx(value, rel=1e-3)
                assert trace["customdata"][i][j] == pytest.approx([value - 1, value + 1], abs=6e-4)
    for row in figure.data.itertuples():
        assert row.value == pytest.approx(matrix.at[row.row, row.column], nan_ok=True)
    page = Document(figure.html)
    assert len(page.all("table")) == 1 and len(page.all("td")) == 36
    assert "–" in page.texts["td"] and len(page.all("details")) == 1
    assert [t for t in page.texts["th"] if t.strip()] == [labels[k] for k in figure.table.index.str.lower()] * 2


def test_heatmap_refuses_what_it_cannot_draw():
    matrix = square(3)
    with pytest.raises(DataError, match="no category for"):
        figures.heatmap(matrix, groups=pd.Series(["a", "b"], matrix.index[:2]), **WORDS)
    with pytest.raises(DataError, match="lacks labels"):
        figures.heatmap(matrix, low=matrix.iloc[:2], high=matrix, **WORDS)
    with pytest.raises(DataError, match="more than once"):
        figures.heatmap(matrix.rename(index={"benchmark 0": "benchmark 1"}), **WORDS)
    with pytest.raises(DataError, match="would be labelled"):
        figures.heatmap(matrix, labels={"benchmark 0": "same", "benchmark 1": "same"}, **WORDS)
    with pytest.raises(DataError, match="numeric"):
        figures.heatmap(pd.DataFrame({"a": ["x"]}), **WORDS)
    with pytest.raises(DataError, match="nothing to draw"):
        figures.heatmap(matrix.iloc[:0], **WORDS)


def test_frames_are_checked():
    with pytest.raises(DataError, match="did you mean 'high'"):
        figures.bar(FRAME, "kind", "y", low="low", high="hihg", **WORDS)
    with pytest.raises(ValueError, match="both ends"):
        figures.bar(FRAME, "kind", "y", low="low", **WORDS)
    with pytest.raises(DataError, match="no rows"):
        figures.scatter(FRAME.iloc[:0], "x", "y", **WORDS)
    with pytest.raises(DataError, match="not positive"):
        figures.line(FRAME.assign(x=[0.0, 1, 2, 3]), "x", "y", log_x=True, **WORDS)


def test_rows_that_cannot_be_drawn_are_counted():
    assert "(1 of 4 rows lack a value and are not drawn.)" in figures.scatter(FRAME, "x", "y", **WORDS).caption
    assert "not drawn" not in figures.scatter(FRAME.dropna(), "x", "y", **WORDS).caption


def test_intervals_reach_from_low_to_high():
    error = figures.bar(FRAME, "kind", "y", low="low", high="high", **WORDS).spec["data"][0]["error_y"]
    assert error["array"] == pytest.approx([0.1, None, 0.2, 0.2]) and error["symmetric"] is False
    assert error["arrayminus"] == pytest.approx([0.1, None, 0.1, 0.1])


def test_a_large_map_stays_within_a_page():
    matrix = square(88)
    figure = figures.heatmap(matrix, low=matrix - 0.1, high=matrix + 0.1, cluster=True, **WORDS)
    assert len(figure.html.encode()) < 900_000
    text, remark = fragments.csv_text(figure.data)
    assert len(text) <= fragments.CSV_LIMIT and "significant digits" in remark
    assert "three significant digits" in figure.html or "four significant digits" in figure.html


def test_data_beyond_a_page_are_announced():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40_000, 3)), columns=list("abc"))
    text, remark = fragments.csv_text(frame)
    assert text is None and "40,000 rows" in remark


def test_typed_arrays_are_decoded():
    fig = go.Figure(go.Heatmap(z=np.arange(6, dtype="f4").reshape(2, 3) / 7))
    assert "bdata" in json.dumps(fig.to_plotly_json(), default=str)
    spec = figures.plotly(fig, data=FRAME, **WORDS).spec
    assert spec["data"][0]["z"][1] == pytest.approx([3 / 7, 4 / 7, 5 / 7], rel=1e-4)
    assert "template" not in spec["layout"]


def test_a_plot_without_a_twin_needs_one():
    fig = go.Figure(go.Scatter3d(x=[1], y=[1], z=[1]))
    with pytest.raises(ValueError, match="static="):
        figures.plotly(fig, data=FRAME, **WORDS)
    from matplotlib.figure import Figure

    drawing = Figure()
    drawing.add_subplot().plot([1, 2])
    assert figures.plotly(fig, data=FRAME, static=drawing, **WORDS).twin


def test_table_sorts_numbers_and_scrolls():
    frame = pd.DataFrame({"r": np.linspace(0, 1, 30), "ok": [True, False] * 15}, index=pd.Index(range(30), name="unit"))
    page = Document(figures.table(frame, name="list", caption="All.", digits=2).html)
    assert {"scope": "col", "class": "n"} in page.all("th")
    box = next(d for d in page.all("div") if d.get("class") == "companion-scroll")
    assert box["tabindex"] == "0" and "max-height" in box["style"]
    assert page.texts["td"][:2] == ["0.00", "yes"]


def test_source_is_named_when_the_runner_says_it(monkeypatch):
    figure = figures.table(FRAME, name="list", caption="All.")
    assert "Made by" not in figure.html
    monkeypatch.setenv("COMPANION_SOURCE", "notebooks/a.md, study lab")
    assert "Made by notebooks/a.md, study lab." in figure.html


@pytest.mark.parametrize("path", sorted(paths.NOTEBOOKS.glob("*.md")), ids=lambda p: p.stem)
def test_notebooks_call_figures_as_they_are(path):
    cells = [c.source for c in jupytext.read(path).cells if c.cell_type == "code"]
    for call in (n for source in cells for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)):
        if not (isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "figures"):
            continue
        given = {k.arg: k.value for k in call.keywords}
        if None not in given:  # no **options
            inspect.signature(getattr(figures, call.func.attr)).bind(*call.args, **given)


# ---- own colours, files, pictures of matplotlib ----


def test_own_colours_are_used_and_wrong_ones_are_named():
    frame = FRAME.dropna()
    mapped = figures.scatter(frame, "x", "y", color="kind", colors={"c": "red"}, **WORDS)
    assert [t["marker"]["color"] for t in mapped.spec["data"]] == [figures.COLOURS[0], "#ff0000"]
    listed = figures.bar(frame, "kind", "y", color="kind", colors=["black", (0, 0, 1)], **WORDS)
    assert [t["marker"]["color"] for t in listed.spec["data"]] == ["#000000", "#0000ff"]
    band = figures.line(frame, "x", "y", color="kind", band=("low", "high"), colors={"a": "#010203"}, **WORDS)
    assert (
        band.spec["data"][0]["fillcolor"] == "rgba(1,2,3,0.18)" and band.spec["data"][1]["line"]["color"] == "#010203"
    )
    assert (
        figures.strip(frame, "kind", "y", colors=["#010203"], **WORDS).spec["data"][0]["marker"]["color"] == "#010203"
    )
    ramp = figures.heatmap(square(4), colors=["white", "black"], **WORDS)
    assert ramp.spec["data"][0]["colorscale"] == [[0, "#ffffff"], [1, "#000000"]]
    number = figures.scatter(frame, "x", "y", color="x", colors=["white", "black"], **WORDS)
    assert number.spec["data"][0]["marker"]["colorscale"] == [[0, "#ffffff"], [1, "#000000"]]
    with pytest.raises(DataError, match="names 'A', which column 'kind' lacks"):
        figures.bar(frame, "kind", "y", color="kind", colors={"A": "red"}, **WORDS)
    for wrong in ({"a": "reddish"}, ["#12345"], []):
        with pytest.raises(ValueError, match="colors="):
            figures.bar(frame, "kind", "y", color="kind", colors=wrong, **WORDS)
    for wrong in (["red"], "viridis", {"a": "red"}):
        with pytest.raises(ValueError, match="two colours or more"):
            figures.heatmap(square(4), colors=wrong, **WORDS)


def test_a_figure_is_saved_by_its_suffix_and_the_same_twice(tmp_path):
    figure = MAKERS["heatmap"](**WORDS)
    starts = {"html": b"<!doctype html>", "svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    for kind, start in starts.items():
        first = figure.save(tmp_path / f"a.{kind}").read_bytes()
        assert first.startswith(start) and figure.save(tmp_path / f"B.{kind.upper()}").read_bytes() == first
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert figure.html in page and "Content-Security-Policy" in page
    for wrong in ("a.jpg", "a", "a.svg.gz"):
        with pytest.raises(ValueError, match=r"is saved as \.html, \.pdf, \.png or \.svg, not"):
            figure.save(tmp_path / wrong)
    table = figures.table(pd.DataFrame({"a": ["=1+1"]}), name="t", caption="All of it.")
    assert table.save(tmp_path / "t.csv").read_text() == "a\n'=1+1\n"
    with pytest.raises(ValueError, match=r"a table is saved as \.csv or \.html, not \.png"):
        table.save(tmp_path / "t.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*(f"a.{k}" for k in starts), *(f"B.{k.upper()}" for k in starts), "t.csv"]
    )


def test_pictures_of_matplotlib_and_seaborn_have_words_and_data():
    import matplotlib.pyplot as plt
    import seaborn

    frame = FRAME.dropna()
    makers = {
        "figure": lambda: plt.figure(),
        "axes": lambda: frame.plot.scatter("x", "y"),
        "array of axes": lambda: plt.subplots(1, 2)[1],
        "seaborn axes": lambda: seaborn.scatterplot(frame, x="x", y="y"),
        "seaborn grid": lambda: seaborn.relplot(frame, x="x", y="y"),
        "joint grid": lambda: seaborn.jointplot(frame, x="x", y="y"),
        "cluster grid": lambda: seaborn.clustermap(square(5)),
    }
    for kind, make in makers.items():
        plt.close("all")
        figure = figures.matplotlib(make(), alt="What is <seen>.", caption="It *means* this.", data=frame)
        assert not plt.get_fignums(), f"{kind}: notebooks would show it twice"
        text = figure.html
        assert 'alt="What is &lt;seen&gt;."' in text and "<figcaption>It <em>means</em> this." in text, kind
        assert f'download="{figure.name}.csv"' in text and "companion-table" in text
        assert figure.html == text and repr(figure).startswith("Figure picture-")
    bare = figures.matplotlib(plt.figure(), name="bare", alt="Seen.", caption="Meant.")
    assert "download" not in bare.html and 'id="fig-bare"' in bare.html
    with pytest.raises(ValueError, match="alt="):
        figures.matplotlib(plt.figure(), alt=" ", caption="Meant.")
    for wrong in (None, "plot", frame, np.array([])):
        with pytest.raises(TypeError, match="expected a matplotlib Figure"):
            figures.matplotlib(wrong, alt="Seen.", caption="Meant.")
    plt.close("all")


@pytest.mark.parametrize(
    "cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "=a\r=b", "=cmd|' /C calc'!A0", " =1", "＝1", "-"]
)
def test_no_cell_label_or_header_of_a_download_is_a_formula(cell):
    frame = pd.DataFrame({cell: [cell, "plain"], "n": [-1.5, 2.0]}, index=pd.Index([cell, "b"], name=cell))
    text, _ = fragments.csv_text(frame)
    back = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert (
        back.columns[0]
        == back.columns[1].removesuffix(".1")
        == back.iloc[0, 0]
        == back.iloc[0, 1]
        == f"'{cell}".replace("\r", "\n")
    )
    assert back["n"].tolist() == [-1.5, 2.0]
    for number in ("-5", "+0.5", "-1e-3", "-.5"):
        assert fragments.guarded(pd.DataFrame({"a": [number]}))["a"].tolist() == [number]
