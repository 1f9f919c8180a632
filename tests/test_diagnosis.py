"""The diagnoses: planted cases are found, nothing is flagged where nothing is, losses are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from helpers import diagnosis, inference, maps
from helpers.errors import DataError


@pytest.fixture(scope="module")
def worlds():
    """Three suites of simulated benchmarks with planted cases, and what is found in each."""
    found = []
    for seed in range(3):
        world = diagnosis.planted(seed, models=200, error=0.08, bootstraps=150)
        findings, done = diagnosis.diagnose(
            world["axes"],
            scores=world["scores"],
            benchmarks=world["benchmarks"],
            scale=world["scale"],
            seed=seed,
        )
        found.append((world, findings, done))
    return found


def test_planted_cases_are_found_with_few_false_alarms(worlds):
    tables = [diagnosis.precision_recall(findings, world["truth"]) for world, findings, _ in worlds]
    total = pd.concat(tables).groupby("kind")[["true", "flagged", "correct"]].sum()
    precision = total["correct"] / total["flagged"]
    recall = total["correct"] / total["true"]
    for kind in ("misleading agreement", "hidden kinship", "format-driven", "scale-driven", "orthogonal"):
        assert precision[kind] >= 0.9, total
    assert recall["misleading agreement"] > 0.3, total
    assert recall["hidden kinship"] > 0.4, total
    assert recall["scale-driven"] > 0.6, total
    assert recall["orthogonal"] > 0.6, total
    assert recall["format-driven"] > 0.1, total


def test_every_flag_has_evidence(worlds):
    _, findings, done = worlds[0]
    assert list(findings.columns) == list(diagnosis.COLUMNS)
    assert findings["flagged"].all()
    assert findings["evidence"].str.len().min() > 20
    assert (findings["q"].dropna() <= 0.05).all()
    assert done["tested"].sum() > 500
    assert done.set_index("kind").loc["contaminated", "note"] == "none given"


def test_nothing_is_flagged_when_the_axes_agree():
    """Skills only, no format, no scale: all axes rank pairs alike, and almost nothing may be flagged."""
    flagged = tested = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        names = [f"b{i:02d}" for i in range(20)]
        skill = np.repeat(np.arange(5), 4)
        true = np.where(skill[:, None] == skill[None], 0.8, 0.1)
        values, low, high = {}, {}, {}
        for axis in ("performance", "signature-crossfit", "semantic", "neural"):
            noise = np.triu(random.normal(size=true.shape) * 0.12, 1)
            z = np.arctanh(true) + noise + noise.T
            for side, shift in ((values, 0), (low, -1), (high, 1)):
                array = np.tanh(z + shift * 1.96 * 0.12)
                np.fill_diagonal(array, 1)
                side[axis] = pd.DataFrame(array, names, names)
        for kind in ("misleading agreement", "hidden kinship"):
            table = diagnosis.divergent(maps.Axes(values, low, high), kind)
            flagged += table["flagged"].sum()
            tested += len(table)
    assert tested == 8 * 190
    assert flagged <= 2


def test_no_scale_no_scale_driven_pairs():
    """Scores that go together for a reason other than scale must not be blamed on scale."""
    flagged = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        skill = random.normal(size=(3, 60))
        scores = pd.DataFrame(
            np.repeat(skill, 4, axis=0) * 0.9 + random.normal(size=(12, 60)) * 0.4,
            index=[f"b{i}" for i in range(12)],
        )
        scale = pd.Series(random.normal(size=60))
        flagged += diagnosis.driven(scores, "scale-driven", scale=scale, bootstraps=100)["flagged"].sum()
    assert flagged == 0


def test_adafilter_controls_false_discoveries_and_beats_bh():
    random = np.random.default_rng(0)
    false = {"adafilter": [], "bh": []}
    power = {"adafilter": 0, "bh": 0}
    for _ in range(200):
        shift = np.zeros((2, 400))
        shift[:, :20] = 3.5  # both parts true
        shift[0, 20:60] = 3.5  # one part only: null claims
        p = norm.sf(random.normal(size=shift.shape) + shift)
        largest, q = diagnosis.adafilter(p)
        for name, adjusted in (("adafilter", q), ("bh", inference.adjust(largest))):
            hit = adjusted <= 0.1
            false[name].append(hit[20:].sum() / max(hit.sum(), 1))
            power[name] += hit[:20].sum()
    assert np.mean(false["adafilter"]) < 0.12
    assert power["adafilter"] > 1.1 * power["bh"]


def test_axes_without_intervals_are_taken_at_their_word_and_say_so():
    world = diagnosis.planted(1)
    bare = maps.Axes(world["axes"].values)
    table = diagnosis.divergent(bare, "misleading agreement")
    assert set(table["p"]) == {0.0, 1.0}
    assert table["without_interval"].iloc[0] == "performance, signature-crossfit, semantic, neural"
    _, done = diagnosis.diagnose(bare)
    assert "taken at its word" in done.set_index("kind").loc["misleading agreement", "note"]


def test_partial_conjunction_needs_the_stated_number_of_axes():
    world = diagnosis.planted(2, models=200)
    axes = world["axes"]
    strict = diagnosis.divergent(axes, "hidden kinship", at_least=3)
    loose = diagnosis.divergent(axes, "hidden kinship", at_least=1)
    assert loose["flagged"].sum() >= strict["flagged"].sum()
    with pytest.raises(ValueError, match="at_least is 4 but there are 3"):
        diagnosis.divergent(axes, "hidden kinship", at_least=4)
    with pytest.raises(DataError, match="No axis 'perf'"):
        diagnosis.divergent(axes, "hidden kinship", target="perf")
    with pytest.raises(ValueError, match="expected 'misleading agreement'"):
        diagnosis.divergent(axes, "kin")


def test_missing_pairs_are_not_tested():
    world = diagnosis.planted(0)
    values = dict(world["axes"].values)
    values["neural"] = values["neural"].iloc[:10, :10]
    table = diagnosis.divergent(maps.Axes(values), "misleading agreement")
    assert len(table) == 45


def test_driven_uses_partial_correlation():
    world = diagnosis.planted(3)
    table = diagnosis.driven(world["scores"], "scale-driven", scale=world["scale"], bootstraps=50)
    row = table.iloc[5]
    stacked = np.vstack([world["scores"].loc[[row["a"], row["b"]]], world["scale"]])
    partial = inference.partial_from_matrix(inference.spearman(stacked), 1)[0, 1]
    assert row["rho_given"] == pytest.approx(partial)
    assert row["estimate"] == pytest.approx(row["rho"] - row["rho_given"])


def test_scores_without_gaps_take_a_faster_way_to_the_same_flags():
    world = diagnosis.planted(4, models=150, bootstraps=20)
    formats = world["benchmarks"].set_index("benchmark")["format"]
    scores = world["scores"]
    fast = diagnosis.driven(scores, "format-driven", formats=formats, bootstraps=200, seed=1)
    todo = list(zip(scores.index.get_indexer(fast["a"]), scores.index.get_indexer(fast["b"])))
    ranks = scores.rank(axis=1)
    z = ranks.sub(ranks.mean(axis=1), axis=0).div(ranks.std(axis=1, ddof=0), axis=0).to_numpy()
    for row, (i, j) in list(zip(fast.itertuples(), todo))[:40]:
        same = (formats.to_numpy() == formats.iloc[i]) & ~np.isin(np.arange(len(z)), [i, j])
        held = z[same].mean(axis=0) - z[formats.to_numpy() != formats.iloc[i]].mean(axis=0)
        if row.rho > 0.3:
            rows = np.vstack([scores.iloc[i], scores.iloc[j], held.round(9)])
            three = pd.DataFrame(rows.T).corr("spearman").to_numpy()
            wanted = three[0, 1] - three[0, 2] * three[1, 2]
            wanted /= np.sqrt((1 - three[0, 2] ** 2) * (1 - three[1, 2] ** 2))
            assert row.rho_given == pytest.approx(wanted, abs=1e-9)
    hopeless = fast[(fast["rho"] > 0.3) & (fast["rho"] <= 2 * fast["rho_given"])]
    assert len(hopeless) and (hopeless["p"] == 1).all() and not hopeless["flagged"].any()
    assert fast["flagged"].any()


def test_driven_names_what_it_lacks():
    scores = diagnosis.planted(0)["scores"]
    with pytest.raises(ValueError, match="needs scale"):
        diagnosis.driven(scores, "scale-driven")
    with pytest.raises(DataError, match="Scale is known for 3 models"):
        diagnosis.driven(scores, "scale-driven", scale=pd.Series([1.0, 2, 3], index=["m0", "m1", "m2"]))
    with pytest.raises(DataError, match="takes 1 values"):
        diagnosis.driven(scores, "scale-driven", scale=pd.Series(1.0, index=scores.columns))
    with pytest.raises(DataError, match="at least two"):
        diagnosis.driven(scores, "format-driven", formats=pd.Series("one", index=scores.index))
    with pytest.raises(ValueError, match="expected 'scale-driven'"):
        diagnosis.driven(scores, "size")


def test_missing_scores_are_left_out_pairwise():
    world = diagnosis.planted(1)
    scores = world["scores"].copy()
    scores.iloc[0, :10] = np.nan
    table = diagnosis.driven(
        scores, "format-driven", formats=world["benchmarks"].set_index("benchmark")["format"], bootstraps=40
    )
    assert table["rho"].notna().all()


def random_axes(n: int, seed: int = 0, count: int = 2) -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(seed)
    names = [f"b{i}" for i in range(n)]
    return {
        axis: pd.DataFrame(np.corrcoef(random.normal(size=(n, 6))), names, names)
        for axis in ("performance", "semantic", "neural")[:count]
    }


def test_greedy_and_exact_redundancy_equal_plain_loops():
    axes = random_axes(8)
    table = diagnosis.redundancy(axes)
    names = list(axes["performance"].index)

    def loss(kept):
        return np.mean([(1 - m.loc[:, list(kept)].max(axis=1)).mean() for m in axes.values()])

    kept = names
    greedy = table[table["method"] == "greedy"].set_index("size")
    for size in range(7, 0, -1):
        out = min(kept, key=lambda n: loss([k for k in kept if k != n]))
        kept = [k for k in kept if k != out]
        assert greedy.loc[size, "kept"].split("; ") == kept
        assert greedy.loc[size, "dropped"] == out
        assert greedy.loc[size, "loss"] == pytest.approx(loss(kept))
    exact = table[table["method"] == "exact"].set_index("size")
    for size in range(1, 8):
        best = min(loss(s) for s in itertools.combinations(names, size))
        assert exact.loc[size, "loss"] == pytest.approx(best)
        assert exact.loc[size, "loss"] <= greedy.loc[size, "loss"] + 1e-12
    assert greedy.loc[8, "loss"] == pytest.approx(0)


def test_a_duplicate_is_dropped_first_at_no_loss():
    axes = random_axes(9, count=3)
    for matrix in axes.values():
        matrix.loc["b7"] = matrix.loc["b3"]
        matrix["b7"] = matrix["b3"]
        matrix.loc["b7", "b7"] = matrix.loc["b3", "b7"] = matrix.loc["b7", "b3"] = 1.0
    first = diagnosis.redundancy(axes, exact_limit=0).iloc[1]
    assert first["dropped"] in ("b3", "b7")
    assert first["loss"] == pytest.approx(0)
    value = diagnosis.adds_most(axes)
    assert set(value["benchmark"].tail(2)) == {"b3", "b7"}
    assert value["gain"].tail(2).abs().max() < 1e-9


def test_the_single_addition_is_the_best_one():
    axes = random_axes(10, count=3)
    suite = ["b0", "b1", "b2"]
    table = diagnosis.adds_most(axes, suite)
    names = list(axes["performance"].index)

    def loss(kept):
        return np.mean([(1 - m.loc[:, kept].max(axis=1)).mean() for m in axes.values()])

    gains = {n: loss(suite) - loss([*suite, n]) for n in names if n not in suite}
    assert table.set_index("benchmark")["gain"].to_dict() == pytest.approx(gains)
    with pytest.raises(DataError, match="did you mean"):
        diagnosis.adds_most(axes, ["b0", "bb1"])
    with pytest.raises(DataError, match="suite is empty"):
        diagnosis.adds_most(axes, [])


def test_redundancy_interval_covers_the_estimate_and_missing_axes_stay_missing():
    world = diagnosis.planted(0)
    values = dict(world["axes"].values)
    low, high = dict(world["axes"].low), dict(world["axes"].high)
    for side in (values, low, high):
        side["neural"] = side["neural"].iloc[:12, :12]
    axes = maps.Axes(values, low, high)
    table = diagnosis.redundancy(axes, ["performance", "semantic"], draws=40)
    assert table["size"].max() == 25
    assert (table["low"] <= table["high"]).all()
    kept = table["kept"].str.split("; ")
    on_neural = kept.map(lambda names: any(n in values["neural"].index for n in names))
    assert (table["loss_neural"].notna() == on_neural).all()  # no stand-in on the axis: no number
    with pytest.raises(DataError, match="did you mean 'semantic'"):
        diagnosis.redundancy(axes, "semantics")


def test_shared_questions_are_counted():
    rows = []
    for name, shift in (("one", 0), ("two", 6), ("three", 100)):
        for k in range(12):
            text = " ".join(f"w{(k + shift) * 31 + t}" for t in range(14))
            rows.append(
                {
                    "benchmark": name,
                    "question_id": str(k),
                    "prompt": text,
                    "choices": [],
                    "answer": "x",
                    "format": "generation",
                    "text": text,
                }
            )
    table = diagnosis.contaminated(pd.DataFrame(rows))
    assert len(table) == 1
    row = table.iloc[0]
    assert {row["a"], row["b"]} == {"one", "two"}
    assert row["estimate"] == pytest.approx(0.5)
    assert row["low"] < 0.5 < row["high"]
    assert "6 of 12 questions" in row["evidence"]


def test_precision_and_recall_count_pairs_both_ways():
    truth = pd.DataFrame({"kind": ["hidden kinship"] * 2, "a": ["x", "y"], "b": ["y", "z"]})
    findings = pd.DataFrame({"kind": ["hidden kinship"] * 2, "a": ["y", "x"], "b": ["x", "z"]})
    row = diagnosis.precision_recall(findings, truth).iloc[0]
    assert (row["precision"], row["recall"]) == (0.5, 0.5)


def test_trials_report_every_kind_with_intervals_that_hold_therate_with_interval():
    table = diagnosis.trials(2, models=120).set_index("kind")
    assert set(table.index) == {*diagnosis.KINDS, "redundant"}
    for rate in ("precision", "recall"):
        known = table.dropna(subset=rate)
        assert (known[f"{rate}_low"] <= known[rate] + 1e-12).all()
        assert (known[rate] <= known[f"{rate}_high"] + 1e-12).all()
    shared = table.loc["contaminated"]
    assert (shared["true"], shared["flagged"], shared["correct"]) == (6, 6, 6)
    assert shared["recall_low"] < 0.7  # six of six is no certainty
    assert table.loc["redundant", "correct"] == 2


def test_a_rate_needs_a_total_and_resamples_worlds():
    none = diagnosis.rate_with_interval("recall", 0, 0, np.array([0]), np.array([0]))
    assert np.isnan(none["recall"])
    row = diagnosis.rate_with_interval("recall", 5, 10, np.array([0, 5]), np.array([5, 5]))
    assert (row["recall"], row["recall_low"] < 0.1, row["recall_high"] > 0.9) == (0.5, True, True)
