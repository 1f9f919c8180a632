"""Cards, report and the figures of the maps: whole, self-contained, and true to the tables."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zipfile

import numpy as np
import pandas as pd
import pytest

from helpers import (
    cards,
    diagnosis,
    figures_pairs,
    inference,
    judgement,
    maps,
    overlap,
    paths,
    provenance,
    report,
    studies,
)
from helpers.errors import DataError


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The laboratory's name over a simulated suite: every artifact that cards and report read."""
    folder = tmp_path_factory.mktemp("results")
    patch = pytest.MonkeyPatch()
    patch.setenv("COMPANION_RESULTS", str(folder))
    patch.setattr(paths, "GENERATED", folder / "generated")
    patch.setattr(paths, "FROZEN", folder / "frozen")
    world = diagnosis.planted(2, models=60, domains=4, bootstraps=60)
    results = studies.load("lab").results
    axes = world["axes"]
    for axis in axes:
        drop = ["alone"] if axis == "neural" else []
        value, low, high = (m.drop(index=drop, columns=drop) for m in (axes[axis], axes.low[axis], axes.high[axis]))
        known = pd.Series(np.linspace(0.5, 0.95, len(value)), index=value.index)
        overlap.write(results, axis, value, low, high, known)
    benchmarks = world["benchmarks"].assign(
        title=lambda t: "Test of " + t["benchmark"] + " | *x*", family="f", n_items=50, chance=0.25
    )
    provenance.write_table(results / "benchmarks.csv", benchmarks.assign(usable=True, reason=""))
    long = (
        world["scores"].rename_axis("benchmark").reset_index().melt("benchmark", var_name="model", value_name="score")
    )
    provenance.write_table(results / "scores.csv", long.assign(n_items=50, stderr=0.05, source="simulated"))
    signature = pd.DataFrame(
        {
            "benchmark": "d0-1",
            "unit_id": [7, 3, 9],
            "coef": 0.1,
            "order": [0, 1, 2],
            "method": "m",
            "fold": -1,
        }
    )
    provenance.write_table(results / "signatures.parquet", signature)
    read = maps.read("lab")
    findings, _ = diagnosis.diagnose(read, scores=world["scores"], benchmarks=benchmarks, scale=world["scale"])
    shared = pd.DataFrame(
        [
            {
                "kind": "contaminated",
                "a": "d0-1",
                "b": "d1-0",
                "axis": "questions",
                "estimate": 0.3,
                "flagged": True,
                "evidence": "6 of 20 questions shared",
            }
        ]
    )
    findings = pd.concat([findings, shared.reindex(columns=findings.columns)], ignore_index=True)
    provenance.write_table(results / "diagnosis.csv", findings)
    provenance.write_table(results / "maps.csv", maps.disentangle(read, draws=12).table())
    provenance.write_table(results / "agreement.csv", judgement.agreement(read, permutations=199, seed=7))
    provenance.write_table(results / "redundancy.csv", diagnosis.redundancy(read, draws=12, exact_limit=0))
    yield "lab"
    patch.undo()


@pytest.fixture(scope="module")
def facts(study):
    return cards.read(study)


def test_every_benchmark_has_one_card_with_its_neighbours(facts):
    text = cards.page(facts)
    places = cards.anchors(facts)
    assert len(set(places.values())) == len(facts.names) == 17
    for name, anchor in places.items():
        assert text.count(f"({anchor})=") == 1
        card = cards.card(facts, name)
        best = maps.neighbours(facts.axes, name, 1)
        for row in best.itertuples():
            assert f"](#{places[row.neighbour]}) {row.value:.2f}" in card
        assert "**Advice.**" in card
    linked = set(re.findall(r"\(#(card-[a-z0-9-]+)\)", text)) | set(re.findall(r'href="#(card-[a-z0-9-]+)"', text))
    assert linked <= set(places.values())


def test_cards_say_what_is_missing_and_escape_what_is_not_theirs(facts):
    card = cards.card(facts, "alone")
    assert "| neural | missing: not on this axis |" in card
    assert "## Test of alone &#124; &#42;x&#42;" in card


def test_advice_follows_from_the_tables(facts):
    spare = next(
        n
        for n in facts.names
        if n != "alone"
        and all(
            facts.axes.low[a].loc[n, facts.adds.set_index("benchmark").loc[n, "stand_in"]] > facts.levels[a]
            for a in facts.axes
        )
    )
    say, _ = cards.advice(facts, spare)
    assert any(s.startswith("On these models it adds little beyond") for s in say)
    say, _ = cards.advice(facts, "d0-1")
    assert any("shares questions with *d1-0*" in s for s in say)
    weak = facts.names[0]
    say, change = cards.advice(facts, weak)
    assert "reliability is 0.50" in say[0]
    assert any("About 4.0 times as many items" in s for s in change)  # 0.8 (1 - 0.5) / (0.5 (1 - 0.8))


def test_every_card_says_what_would_change_its_advice(facts):
    for name in facts.names:
        _, change = cards.advice(facts, name)
        assert change, name
    told = cards._deciding("performance", "other", 0.5, 0.6, 0.3, 0.7, 32)
    # half width 0.2789 on Fisher's z, distance 0.1438: 3.76 times as many models
    assert "about 120 models (now 32)" in told
    assert "times as many questions" in cards._deciding("neural", "other", 0.5, 0.6, 0.3, 0.7, 32)
    assert "too near" in cards._deciding("semantic", "other", 0.5, 0.501, 0.3, 0.7, 32)


def test_signature_ids_are_shown_without_text(facts):
    assert "3 units: `7`, `3`, `9`" in cards.card(facts, "d0-1")


def test_unknown_benchmark_is_named(facts):
    with pytest.raises(DataError, match="did you mean 'd0-1'"):
        cards.card(facts, "d0_1")


def test_pages_are_written_once_and_frozen_copies_serve_without_artifacts(study, monkeypatch, tmp_path):
    path = cards.write(study)
    stamp = path.stat().st_mtime_ns
    assert cards.write(study) == path and path.stat().st_mtime_ns == stamp
    frozen = cards.freeze(study)
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "empty"))
    assert cards.write(study).read_text() == frozen.read_text()
    assert "Frozen on" in frozen.read_text()
    frozen.unlink()
    assert "need its maps, which are not here" in cards.write(study).read_text()
    assert cards.write_all([study]) == [path]
    assert cards.write_all([]) == [] and not path.exists()


def test_report_is_one_file_that_asks_for_nothing(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inference, "mantel", lambda *_, **__: pytest.fail("the page's test is shown, not another one"))
    assert report.main(["--study", study, "--output", str(tmp_path)]) == 0
    html = (tmp_path / "lab-report.html").read_text(encoding="utf-8")
    assert "0.0 MiB" not in capsys.readouterr().out.splitlines()[0]
    packed = re.findall(r'class="companion-packed">([^<]*)</script>', html)
    assert [b"plotly.js" in gzip.decompress(base64.b64decode(p)) for p in packed] == [True, False]
    page = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert "<link" not in page and "<script src" not in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(ids)
    assert len(html) < 3 * 2**20
    with zipfile.ZipFile(tmp_path / "lab-tables.zip") as archive:
        names = {n.split("/")[1] for n in archive.namelist()}
        assert {"maps.csv", "diagnosis.csv", "redundancy.csv", "overlap-semantic.csv", "README.txt"} <= names
        bundled = pd.read_csv(archive.open("lab/agreement.csv"))
        assert "questions.csv" not in names and "scores.csv" not in names
    kept = provenance.read_table(studies.load("lab").results / "agreement.csv")
    pd.testing.assert_frame_equal(bundled, kept)


def test_report_without_artifacts_says_what_to_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    assert report.main(["--study", "lab", "--output", str(tmp_path)]) == 1
    assert "make study STUDY=lab" in capsys.readouterr().err
    assert report.main(["--study", "lba", "--output", str(tmp_path)]) == 1
    assert "No study 'lba'" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_explorer_holds_every_pair_once_and_finds_its_values(facts):
    table = maps.pairs(facts.axes)
    view = figures_pairs.explorer(
        table,
        ["signature-crossfit", "semantic", "neural"],
        name="pairs",
        alt="Pairs of benchmarks.",
        caption="Pairs.",
        flags=facts.findings,
    )
    html = view.html
    data = json.loads(re.search(r'class="companion-pairs-data">(.*?)</script>', html).group(1))
    spec = view.figure.spec["data"]
    frame = view.figure.data
    assert len(data["pairs"]) == len(frame) == 16 * 15 // 2  # `alone` is not on the neural axis
    assert "16 pairs are not measured" in view.figure.caption
    for axis, (panel, key) in data["where"].items():
        drawn = spec[panel]["marker"]["color"] if key == "color" else spec[panel][key]
        np.testing.assert_allclose(drawn, frame[axis], atol=6e-4)
    for (i, j), a, b in zip(data["pairs"], frame["a"], frame["b"]):
        assert (data["names"][i], data["names"][j]) == (a, b)
    flagged = facts.findings[facts.findings["b"].notna() & facts.findings["kind"].isin(["hidden kinship"])]
    assert sum(f >= 0 for f in data["flag"]) >= min(1, len(flagged))
    # small figures bring a table twin: the script must fill its own table, not that one
    script = (paths.BOOK / "_static" / "companion.js").read_text(encoding="utf-8")
    assert 'querySelector(".companion-pairs-table tbody")' in script
    with pytest.raises(DataError, match="needs 'performance'"):
        figures_pairs.explorer(
            table.drop(columns="performance"), ["semantic"], name="p", alt="Pairs here.", caption="Pairs."
        )


def test_large_suites_are_sampled_and_say_so():
    random = np.random.default_rng(0)
    names = [f"benchmark-{i:03d}" for i in range(120)]
    axes = {
        a: pd.DataFrame(np.corrcoef(random.normal(size=(120, 30))), names, names)
        for a in ("performance", "semantic", "neural")
    }
    table = maps.pairs(axes)
    flags = pd.DataFrame({"kind": ["hidden kinship"], "a": [names[5]], "b": [names[99]]})
    view = figures_pairs.explorer(
        table, ["semantic", "neural"], name="p", alt="Pairs here.", caption="Pairs.", flags=flags
    )
    assert len(view.figure.data) == figures_pairs.MAX_PAIRS
    assert "2,000 of 7,140 pairs" in view.figure.caption
    kept = view.figure.data[view.figure.data["flag"] != ""]
    assert kept[["a", "b"]].to_numpy().tolist() == [[names[5], names[99]]]
    assert len(view.html) < 2**20


def test_map_figure_draws_each_benchmark_once(facts):
    result = maps.disentangle(facts.axes, draws=12)
    figure = figures_pairs.disentanglement(result, name="map", alt="The map of benchmarks.", caption="The map.")
    names = [t for t in figure.spec["data"] if t["mode"] == "markers+text"]
    assert len(names) == 1 and len(names[0]["x"]) == len(names[0]["text"]) == len(facts.names)
    assert set(names[0]["text"]) <= set(facts.names) | {""}
    assert any(names[0]["text"])
    narrow = figure.spec["phone"]["traces"][str(figure.spec["data"].index(names[0]))]
    assert len(narrow["text"]) == len(facts.names)
    spokes = [t for t in figure.spec["data"] if t["mode"] == "lines" and len(t["x"]) == 3 * len(facts.axes["semantic"])]
    assert spokes
    assert len(figure.data) == 4 * len(facts.names)


def test_map_leaves_out_what_cannot_be_displaced():
    random = np.random.default_rng(0)
    names = [f"b{i}" for i in range(12)]
    tables = [pd.DataFrame(np.corrcoef(random.normal(size=(n, 8))), names[:n], names[:n]).clip(-1, 1) for n in (8, 12)]
    axes = maps.complete(maps.Axes(dict(zip(("performance", "neural"), tables))))
    compared = maps.comparable(axes)
    assert all(list(m.index) == names[:8] for m in compared.values.values())
    for used in (axes, compared):
        figure = figures_pairs.disentanglement(
            maps.disentangle(used, draws=4), name="map", alt="The map of benchmarks.", caption="The map."
        )
        assert "Not drawn: 4 benchmarks of a single axis" in figure.caption
        drawn = [t for t in figure.spec["data"] if t["mode"].startswith("markers")]
        assert [len(t["x"]) for t in drawn] == [8, 8, 8]


def test_names_on_the_map_do_not_cover_one_another():
    random = np.random.default_rng(1)
    names = [f"benchmark number {i}" for i in range(60)]
    points = pd.DataFrame(random.normal(size=(60, 2)), names, ["x", "y"])
    bounds = points.min().to_numpy() - 0.3, points.max().to_numpy() + 0.3
    screen = (600, 470)
    shown = figures_pairs.place_names(points, dict(zip(names, names)), points.to_numpy(), bounds, screen)
    assert 5 < len(shown) < 60
    scale = min(np.array(screen) / (bounds[1] - bounds[0]))
    boxes = []
    for name, side in shown.items():
        up, along = side.split()
        x, y = points.loc[name] * scale
        wide = 5 * len(name)  # narrower than the letters that the placement allows for
        left = {"center": x - wide / 2, "right": x + 4, "left": x - 4 - wide}[along]
        low = {"top": y + 3, "middle": y - 5, "bottom": y - 13}[up]
        boxes.append((left, low, left + wide, low + 10))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_ternary_takes_two_or_three_axes(facts):
    table = maps.pairs(facts.axes)
    words = {"alt": "Shares of the axes.", "caption": "Shares."}
    for predictors in (["semantic", "neural"], ["signature-crossfit", "semantic", "neural"]):
        figure = figures_pairs.ternary(maps.profile(table, predictors=predictors), predictors, name="t", **words)
        assert any(t["mode"] == "markers" for t in figure.spec["data"])
    with pytest.raises(DataError, match="two or three axes"):
        figures_pairs.ternary(maps.profile(table, predictors=["semantic"]), ["semantic"], name="t", **words)


def test_judgement_finds_what_was_planted():
    world = diagnosis.planted(0, models=150)
    axes, names = world["axes"], world["axes"].names
    table = judgement.agreement(axes, 199).set_index(["a", "b"])
    assert table.loc[("semantic", "neural"), "p_holm"] < 0.05
    assert table.loc[("semantic", "neural"), "rho"] > 0.2
    nuisances = judgement.covariates(world["benchmarks"], names)
    assert list(nuisances) == ["same format"]
    explained = judgement.explain(axes, ["semantic"], nuisances=nuisances, permutations=199)
    part = explained[explained["reading"] == "as measured"].set_index("predictor")
    assert part.loc["same format", "p"] < 0.05 and part.loc["same format", "coef"] > 0
    assert "corrected for reliability" not in set(explained["reading"])  # no reliabilities were given


def test_block_contrast_equals_plain_means_and_holds_its_level():
    random = np.random.default_rng(0)
    names = [f"b{i}" for i in range(18)]
    functions = pd.Series(np.repeat(["code", "knowledge", "logic"], 6), index=names)
    matrix = pd.DataFrame(np.corrcoef(random.normal(size=(18, 40))), names, names)
    found = judgement.block_contrast(matrix, functions, ("code",), None, permutations=99)
    cross = [(i, j) for k, i in enumerate(names) for j in names[k + 1 :] if functions[i] != functions[j]]
    inside = [matrix.loc[p] for p in cross if "code" in (functions[p[0]], functions[p[1]])]
    outside = [matrix.loc[p] for p in cross if "code" not in (functions[p[0]], functions[p[1]])]
    assert found["difference"] == pytest.approx(np.mean(inside) - np.mean(outside))
    p = [
        judgement.block_contrast(
            pd.DataFrame(np.corrcoef(np.random.default_rng(s).normal(size=(18, 40))), names, names),
            functions,
            ("code",),
            None,
            permutations=99,
        )["p"]
        for s in range(40)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert np.isnan(judgement.block_contrast(matrix, functions, ("music",), None)["difference"])


def test_level_is_the_plain_median_and_share():
    names = [f"b{i}" for i in range(9)]
    matrix = pd.DataFrame(np.corrcoef(np.random.default_rng(0).normal(size=(9, 5))), names, names)
    values = matrix.to_numpy()[np.triu_indices(9, 1)]
    found = judgement.level(matrix, 50)
    assert found["above_0.5"] == pytest.approx((values > 0.5).mean())
    assert found["median"] == pytest.approx(np.sort(values)[len(values) // 2 - 1])
    assert found["median_low"] <= found["median"] <= found["median_high"]


def test_scale_free_takes_out_scale():
    random = np.random.default_rng(0)
    scale = pd.Series(random.normal(size=40), index=[f"m{i}" for i in range(40)])
    scores = pd.DataFrame(
        scale.to_numpy() + random.normal(size=(6, 40)) * 0.4,
        index=[f"b{i}" for i in range(6)],
        columns=scale.index,
    )
    raw = overlap.performance(scores).to_numpy()[np.triu_indices(6, 1)].mean()
    fixed = judgement.scale_free(scores, scale, list(scores.index)).to_numpy()[np.triu_indices(6, 1)].mean()
    assert raw > 0.7 and abs(fixed) < 0.2
    assert judgement.scale_free(scores, scale.head(5), list(scores.index)) is None


def test_twins_are_left_out_and_an_axis_without_the_original_keeps_its_twin():
    names = ["a", "a_cot", "b", "c", "d", "e", "f"]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 30))
    full = pd.DataFrame(np.corrcoef(vectors), names, names)
    part = full.drop(index="a", columns="a")
    benchmarks = pd.DataFrame({"benchmark": names, "same_items_as": [None] * 5 + ["d", "missing"]})
    axes = maps.Axes({"performance": full, "semantic": part}, {"performance": full - 0.1})
    kept, gone = judgement.without_twins(axes, benchmarks)
    assert gone == {"a_cot": "a", "e": "d"}
    assert list(kept["performance"].index) == ["a", "b", "c", "d", "f"]
    assert list(kept["semantic"].index) == ["a_cot", "b", "c", "d", "f"]
    assert kept.low["performance"].shape == (5, 5)


def test_twins_make_noise_look_like_a_function():
    """Functions that mean nothing; every benchmark comes twice. Only without twins is the difference about 0."""
    from helpers import inference

    rng = np.random.default_rng(1)
    names = [f"b{i}{s}" for i in range(16) for s in ("", "_cot")]
    benchmarks = pd.DataFrame({"benchmark": names})
    labels = pd.Series([f"f{i // 2 % 8}" for i in range(32)], names)
    with_twins, without = [], []
    for _ in range(6):
        base = np.repeat(rng.normal(size=(16, 60)), 2, axis=0) + 0.3 * rng.normal(size=(32, 60))
        axes = maps.Axes({"semantic": pd.DataFrame(np.corrcoef(base), names, names)})
        kept, _ = judgement.without_twins(axes, benchmarks)
        options = dict(bootstraps=0, permutations=0, pair_bootstraps=0)
        with_twins.append(inference.within_between(axes["semantic"], labels, **options).auc)
        without.append(inference.within_between(kept["semantic"], labels[kept["semantic"].index], **options).auc)
    assert np.mean(with_twins) > 0.62
    assert abs(np.mean(without) - 0.5) < 0.12


def tables_of(seed: int, noise: float, units: int, format_factor: float = 0.0):
    """A population of 24 models and 12 benchmarks of 3 functions in 2 formats, with known item noise."""
    from helpers import overlap

    rng = np.random.default_rng(seed)
    models = [f"m{i}" for i in range(24)]
    skills, practice = rng.normal(size=(3, 24)), rng.normal(size=24)
    names = [f"f{f}-{form}{k}" for f in range(3) for form in ("cloze", "quiz") for k in range(2)]
    true = np.array([skills[int(n[1])] + format_factor * practice * ("quiz" in n) for n in names])
    scores = pd.DataFrame(true + noise * rng.normal(size=true.shape), names, models)
    kind = rng.integers(3, size=units)
    surprisal = pd.DataFrame(rng.normal(size=(units, 24)) - 1.5 * skills[kind], columns=models)
    facts = pd.DataFrame({"function": [n[:2] for n in names], "format": [n[3:-1] for n in names]}, index=names)
    one = pd.Series([f"g{i // 2}" for i in range(24)], models)
    return overlap.Tables(
        surprisal=surprisal,
        scores=scores,
        all_scores=scores,
        stderr=scores * 0 + noise,
        groups=one,
        all_groups=one,
        benchmarks=facts,
        units=pd.DataFrame({"doc_id": np.arange(units) // 10}),
        exclude=np.zeros((units, len(names)), bool),
        left_out={},
    )


def test_matched_control_weakens_to_the_variants_reliability_and_length():
    main, variant = tables_of(0, 0.2, 600), tables_of(1, 0.8, 200)
    table = judgement.matched_control(main, variant, repeats=2, k=30, splits=2)
    by = table.set_index(["population", "axis", "pairs"])
    assert len(by) == 12 and by.index.is_unique
    weak, other = (by.loc[(p, "performance", "all")] for p in ("main, weakened to match", "variant"))
    assert weak["reliability"] == pytest.approx(other["reliability"], abs=0.05)
    assert weak["units"] == 200
    assert by.loc[("main", "performance", "all"), "auc"] > weak["auc"]
    assert weak["low"] <= weak["auc"] <= weak["high"]


def test_matched_control_shows_a_format_factor_as_what_weakening_does_not_explain():
    main, variant = tables_of(0, 0.3, 400), tables_of(1, 0.3, 400, format_factor=3.0)
    by = judgement.matched_control(main, variant, repeats=2, k=30, splits=2).set_index(["population", "axis", "pairs"])[
        "auc"
    ]
    assert by["main, weakened to match", "performance", "hard"] > by["variant", "performance", "hard"] + 0.2


def test_a_large_matrix_is_averaged_in_blocks_and_a_middling_one_is_downloaded_as_a_matrix():
    rng = np.random.default_rng(0)

    def square(n):
        names = [f"b{i:03d}" for i in range(n)]
        return pd.DataFrame(np.corrcoef(rng.normal(size=(n, 20))), names, names)

    words = {"alt": "A matrix.", "caption": "A matrix."}
    small, middling, large = square(8), square(40), square(203)
    low, high = middling - 0.1, middling + 0.1
    assert list(figures_pairs.matrix(small, name="s", low=small - 0.1, high=small + 0.1, **words).data.columns) == [
        "row",
        "column",
        "value",
        "low",
        "high",
    ]
    figure = figures_pairs.matrix(middling, name="m", low=low, high=high, **words)
    pd.testing.assert_frame_equal(figure.data, middling.rename_axis("benchmark"))
    assert "artifacts" in figure.caption and len(figure.spec["data"][0]["customdata"]) == 40
    figure = figures_pairs.matrix(large, name="l", low=large - 0.1, high=large + 0.1, **words)
    z = np.array(figure.spec["data"][0]["z"], float)
    assert z.shape == (51, 51) and "203 benchmarks are too many" in figure.caption  # of four rows each
    block = large.iloc[4:8, 12:16].to_numpy()
    assert z[1, 3] == pytest.approx(block.mean(), abs=1e-3)
    own = large.iloc[:4, :4].to_numpy()
    assert z[0, 0] == pytest.approx(own[np.triu_indices(4, 1)].mean(), abs=1e-3)


def test_blocks_of_a_large_matrix_never_cross_groups():
    rng = np.random.default_rng(0)
    names = [f"b{i:03d}" for i in range(130)]
    values = pd.DataFrame(np.corrcoef(rng.normal(size=(130, 20))), names, names)
    groups = pd.Series(rng.choice(list("xyz"), 130), names)
    words = {"alt": "A matrix.", "caption": "A matrix."}
    figure = figures_pairs.matrix(values, name="g", groups=groups, low=values, high=values, **words)
    spec = figure.spec["data"][0]
    order = [n for level in pd.unique(groups) for n in names if groups[n] == level]
    members, rest = [], order
    for label in spec["y"]:
        size = rest.index(label.split(" … ")[-1]) + 1
        members.append(rest[:size])
        rest = rest[size:]
        assert members[-1][0] == label.split(" … ")[0] and size <= 3
        assert groups[members[-1]].nunique() == 1
    assert not rest and [t for t, _ in figure.legend] == list(pd.unique(groups))
    assert spec["z"][0][5] == pytest.approx(values.loc[members[0], members[5]].to_numpy().mean(), abs=1e-3)
    assert len(figure.html.encode()) < 500_000
    alone = figures_pairs.matrix(values, name="a", groups=pd.Series(names, names), **words)
    assert len(alone.spec["data"][0]["y"]) == 44 and not alone.legend
