"""Overlap: contract signatures, hand-worked cases, what is circular and what is not, clear refusals."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import geometry, inference, maps, overlap, provenance, screening, selection, validation
from helpers.errors import DataError, StaleArtifactError


def population(benchmarks=12, skills=3, models=32, units=3000, signal=0.0, nuisance=0, seed=0):
    """Scores with a skill structure; surprisal that follows the skills with strength `signal`, or not at all."""
    rng = np.random.default_rng(seed)
    skill = rng.normal(size=(skills, models))
    kind = np.repeat(np.arange(skills), benchmarks // skills)
    scores = skill[kind] + 0.4 * rng.normal(size=(benchmarks, models))
    surprisal = 5 + rng.normal(size=(units, models))
    if nuisance:
        surprisal += rng.normal(size=(units, nuisance)) @ rng.normal(size=(nuisance, models))
    owner = rng.integers(0, 4 * skills, size=units)
    for s in range(skills):
        surprisal[owner == s] -= signal * skill[s]
    return surprisal, scores, kind


def within_and_across(matrix, kind):
    m = np.asarray(matrix)
    same = kind[:, None] == kind
    return m[same & ~np.eye(len(kind), dtype=bool)].mean(), m[~same].mean()


# --- performance ------------------------------------------------------------------------------------------


def test_performance_by_hand_and_names():
    scores = pd.DataFrame([[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1.0]], index=["up", "down"])
    out = overlap.performance(scores)
    assert list(out.index) == list(out.columns) == ["up", "down"]
    np.testing.assert_array_equal(out, [[1, -1], [-1, 1]])
    assert list(overlap.performance(scores.to_numpy()).index) == [0, 1]


def test_performance_leaves_missing_out_pairwise():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 20))
    scores[1, :6] = np.nan
    scores[2, 15:] = np.nan
    out = overlap.performance(scores)
    both = slice(6, 15)
    assert out.loc[1, 2] == pytest.approx(stats.spearmanr(scores[1, both], scores[2, both]).statistic)


def test_performance_refusals():
    rng = np.random.default_rng(0)
    scores = pd.DataFrame(rng.normal(size=(3, 12)), index=["arc", "boolq", "copa"])
    with pytest.raises(DataError, match="'boolq' has the same value"):
        overlap.performance(scores.mul([1, 0, 1], axis=0))
    thin = scores.copy()
    thin.loc["copa", thin.columns[5:]] = np.nan
    with pytest.raises(DataError, match=r"'arc' and 'copa' share 5 model"):
        overlap.performance(thin)
    with pytest.raises(DataError, match="share 7 model"):
        overlap.performance(scores.iloc[:, :7])
    with pytest.raises(DataError, match="infinite"):
        overlap.performance(scores.replace(scores.iloc[0, 0], np.inf))
    open_ = overlap.performance(thin, undefined="nan")
    assert np.isnan(open_.loc["arc", "copa"]) and ["arc", "copa"] in open_.attrs["undefined"]
    with pytest.raises(ValueError, match="raise"):
        overlap.performance(scores, undefined="raised")


def test_performance_given_scale_removes_scale():
    rng = np.random.default_rng(0)
    size = rng.normal(size=60)
    scores = 3 * size + rng.normal(size=(5, 60))
    assert inference.upper(overlap.performance(scores)).min() > 0.7
    assert np.abs(inference.upper(overlap.performance(scores, covariate=size))).mean() < 0.2
    with pytest.raises(DataError, match="covariate"):
        overlap.performance(scores, covariate=size[:5])


# --- signature --------------------------------------------------------------------------------------------


def test_signature_is_the_formula_at_both_levels():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, size=(40, 10))
    chosen = {"a": np.array([3, 5, 7]), "b": np.array([1, 2])}
    for level, values in (("log", x), ("raw", np.exp(x))):
        z = (values - values.mean(axis=0)) / values.std(axis=0)
        expected = stats.spearmanr(z[[3, 5, 7]].mean(axis=0), z[[1, 2]].mean(axis=0)).statistic
        out = overlap.signature(x, chosen, level=level)
        assert out.loc["a", "b"] == pytest.approx(expected)
        assert (np.diag(out) == 1).all() and list(out.columns) == ["a", "b"]
    float32 = overlap.signature(x.astype(np.float32), chosen)
    assert float32.loc["a", "b"] == pytest.approx(overlap.signature(x, chosen).loc["a", "b"], abs=0.05)


def test_signed_turns_negative_units_round():
    x, _, _ = population(units=200)
    signs = np.array([1.0, -2.5, -1.0])
    signed = overlap.activity(x, {"a": ([0, 1, 2], signs)}, signed=True)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(signed.loc["a"], (z[0] - z[1] - z[2]) / 3)
    plain = overlap.activity(x, {"a": ([0, 1, 2], signs)})
    np.testing.assert_allclose(plain.loc["a"], z[:3].mean(axis=0))


def test_degenerate_pools_are_refused_and_the_reasons_are_true():
    x, _, _ = population(units=60)
    chosen = {"a": [0, 1, 2], "b": [3, 4, 5]}
    with pytest.raises(ValueError, match="exactly -1"):
        overlap.signature(x, chosen, pool="pair")
    with pytest.raises(ValueError, match="undefined"):
        overlap.signature(x, chosen, pool="own")
    with pytest.raises(ValueError, match="'matrix'"):
        overlap.signature(x, chosen, pool="matrx")
    pair = x[:6]
    z = (pair - pair.mean(axis=0)) / pair.std(axis=0)
    assert stats.spearmanr(z[:3].mean(axis=0), z[3:].mean(axis=0)).statistic == pytest.approx(-1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "empty"),
        ([0.5, 1.0], "integer"),
        ([0, 999], "unit 999"),
        ([-1, 2], "unit -1"),
        ([1, 1], "more than once"),
    ],
)
def test_signature_refuses_bad_units(value, message):
    x, _, _ = population(units=50)
    with pytest.raises(DataError, match=message):
        overlap.signature(x, {"good": [0, 1], "bad": value})


def test_signature_refuses_missing_or_wrong_signs():
    x, _, _ = population(units=50)
    with pytest.raises(DataError, match="needs the sign"):
        overlap.signature(x, {"a": [0, 1], "b": [2, 3]}, signed=True)
    with pytest.raises(DataError, match="2 units need 2 signs"):
        overlap.signature(x, {"a": ([0, 1], [1.0, 0.0]), "b": ([2, 3], [1.0, 1.0])}, signed=True)
    # two single integers are units, not a pair of arrays
    assert overlap.signature(x, {"a": (0, 1), "b": (2, 3)}).shape == (2, 2)


def test_bad_surprisal_is_refused():
    x, _, _ = population(units=50)
    chosen = {"a": [0, 1], "b": [2, 3]}
    broken = pd.DataFrame(x, columns=[f"m{j}" for j in range(32)])
    broken.iloc[7, 3] = np.inf
    with pytest.raises(DataError, match="unit row 7 for model 'm3'"):
        overlap.signature(broken, chosen)
    with pytest.raises(DataError, match="overflows"):
        overlap.signature(x * 1000, chosen, level="raw")
    constant = x.copy()
    constant[:, 4] = 2.0
    with pytest.raises(DataError, match="model '4' has one value"):
        overlap.signature(constant, chosen)
    with pytest.raises(DataError, match="share 7 model"):
        overlap.signature(x[:, :7], chosen)
    with pytest.raises(ValueError, match="did you mean|known"):
        overlap.signature(x, chosen, level="logarithm")


def test_missing_surprisal_is_left_out():
    x, _, _ = population(units=50)
    x[0, 3] = np.nan
    u = overlap.activity(x, {"a": [0, 1], "b": [0, 2]})
    z = (x[:, 3] - np.nanmean(x[:, 3])) / np.nanstd(x[:, 3])
    assert u.loc["a", 3] == pytest.approx(z[1])


def test_duplicated_models_are_reported():
    x, _, _ = population(units=50)
    x = pd.DataFrame(x, columns=[f"m{j}" for j in range(32)])
    x["m9"] = x["m2"]
    assert selection.duplicate_models(x) == [("m2", "m9")]
    with pytest.warns(UserWarning, match="m2 = m9"):
        overlap.signature(x, {"a": [0, 1], "b": [2, 3]})


def test_from_table_reads_signatures():
    table = pd.DataFrame(
        {"benchmark": ["a", "a", "b", "b"], "unit_id": [10, 30, 20, 10], "coef": [1.0, -2.0, 3.0, 1.0],
         "order": [0, 1, 0, 1], "method": "paper:forward", "fold": [-1, -1, -1, -1]}
    )  # fmt: skip
    chosen = overlap.from_table(table, [10, 20, 30], method="paper:forward")
    assert chosen["a"][0].tolist() == [0, 2] and chosen["a"][1].tolist() == [1, -1]
    with pytest.raises(DataError, match="did you mean 'paper:forward'"):
        overlap.from_table(table, [10, 20, 30], method="paper:forwrd")
    with pytest.raises(DataError, match="unit 30 is not"):
        overlap.from_table(table, [10, 20])
    with pytest.raises(DataError, match="twice"):
        overlap.from_table(pd.concat([table, table]), [10, 20, 30])


def test_pick_takes_both_tails_with_their_signs():
    statistic = np.array([[-5.0, 1.0], [4.0, -2.0], [0.0, 3.0], [-3.0, 0.0], [2.0, 0.5]])
    (first, signs), _ = overlap.pick(statistic, 4)
    assert first.tolist() == [0, 1, 3, 4] and signs.tolist() == [-1, 1, -1, 1]
    with pytest.raises(DataError, match="between 2 and"):
        overlap.pick(statistic, 99)


# --- circularity and its cure -----------------------------------------------------------------------------


def test_selection_is_circular_and_only_disjoint_selection_cures_it():
    """No unit is related to any score. In sample: overlap by construction. Two-way: shared units. Three-way: 0."""
    numbers = {}
    for nuisance in (0, 3):
        means = []
        for seed in range(4):
            x, y, kind = population(nuisance=nuisance, seed=seed)
            tops = dict(enumerate(overlap.pick(screening.thrush(x, y), 100)))
            means.append(
                [
                    within_and_across(overlap.signature(x, tops, signed=True), kind)[0],
                    *(
                        within_and_across(overlap.crossfit_signature(x, y, k=100, splits=4, design=d, seed=seed), kind)[
                            0
                        ]
                        for d in ("two-way", "three-way")
                    ),
                ]
            )
        numbers[nuisance] = np.mean(means, axis=0)
    for in_sample, two_way, three_way in numbers.values():
        assert in_sample > 0.6 and two_way > 0.15 and abs(three_way) < 0.12


def test_crossfit_finds_planted_skills():
    x, y, kind = population(signal=1.0, seed=3)
    groups = np.repeat(np.arange(16), 2)
    result = overlap.crossfit(x, y, groups, k=100, splits=5, bootstraps=50)
    within, across = within_and_across(result.overlap, kind)
    assert within > 0.5 and abs(across) < 0.25
    assert result.details["design"] == "three-way" and result.details["resampled"] == "groups"
    assert (np.diag(result.prediction) > 0.4).all()
    low, high = result.low.to_numpy(), result.high.to_numpy()
    value = result.overlap.to_numpy()
    assert ((low - 0.05 <= value) & (value <= high + 0.05)).mean() > 0.95
    assert (result.reliability["reliability"] > 0.4).all() and (result.units_reliability > 0.4).all()
    np.testing.assert_allclose(value, value.T)
    prediction = overlap.cross_prediction(x, y, groups, k=100, splits=5)
    assert within_and_across(prediction, kind)[0] > 0.5
    profile = overlap.profile(x, y, groups, splits=3)
    within, across = within_and_across(profile, kind)
    assert within > 0.2 and across < 0.05  # centred: skills sum to zero, so others are a little negative


def test_crossfit_never_shares_a_model_or_a_group(monkeypatch):
    x, y, _ = population(units=400)
    groups = np.repeat(np.arange(8), 4)
    seen = []
    original = overlap._activities

    def spy(pool, chosen, models, signed):
        seen.append(("compare", tuple(models)))
        return original(pool, chosen, models, signed)

    def choose(surprisal, scores, *args, **kwargs):
        seen.append(("select", tuple(np.flatnonzero([(x == c[:, None]).all(axis=0).any() for c in surprisal.T]))))
        return select(surprisal, scores, *args, **kwargs)

    select = overlap.select
    monkeypatch.setattr(overlap, "_activities", spy)
    monkeypatch.setattr(overlap, "select", choose)
    parts = []
    plain = overlap.partition

    def remember(*args, **kwargs):
        parts.append(plain(*args, **kwargs))
        return parts[-1]

    monkeypatch.setattr(overlap, "partition", remember)
    overlap.crossfit(x, y, groups, k=40, splits=2, bootstraps=0, design="three-way")
    for part in parts:
        for g in range(8):
            assert len(set(part[groups == g])) == 1
        assert min(np.bincount(part)) >= 4
    compared = {models for what, models in seen if what == "compare"}
    assert compared == {tuple(np.flatnonzero(part == p)) for part in parts for p in range(3)}


def test_crossfit_puts_identical_models_in_one_group():
    x = population(units=300)[0]
    x[:, 1] = x[:, 0]
    x[:, 9] = x[:, 7] = x[:, 5]
    y = population(units=300)[1]
    with pytest.warns(UserWarning, match="0 = 1, 5 = 7 = 9"):
        found = overlap.crossfit(x, y, splits=1, bootstraps=0)
    assert found.details["groups"] == 29


def test_crossfit_refusals():
    x, y, _ = population(units=300)
    with pytest.raises(DataError, match="cannot be split"):
        overlap.crossfit_signature(x, y, np.zeros(32))
    with pytest.raises(DataError, match="cannot be split into 3"):
        overlap.crossfit_signature(x, y, np.repeat([0, 1], 16), design="three-way")
    assert overlap.crossfit_signature(x, y, np.repeat([0, 1], 16), splits=1).attrs["design"] == "two-way"
    with pytest.raises(DataError, match="7 models"):
        overlap.crossfit_signature(x[:, :7], y[:, :7])
    with pytest.raises(DataError, match="correspond"):
        overlap.crossfit_signature(x, y[:, :30])
    with pytest.raises(DataError, match="one a model"):
        overlap.crossfit_signature(x, y, [1, 2, 3])
    with pytest.raises(ValueError, match="three-way"):
        overlap.crossfit_signature(x, y, design="threeway")
    with pytest.raises(DataError, match="'5' has the same value"):
        overlap.crossfit_signature(x, np.where(np.arange(12)[:, None] == 5, 0.3, y))
    a, b = pd.DataFrame(x), pd.DataFrame(y)
    with pytest.raises(DataError, match="different order"):
        overlap.crossfit_signature(a, b.iloc[:, ::-1])


def test_crossfit_is_repeatable_and_keeps_names():
    x, y, _ = population(units=300)
    scores = pd.DataFrame(y, index=[f"b{i}" for i in range(12)])
    one = overlap.crossfit_signature(x, scores, splits=2, seed=5)
    other = overlap.crossfit_signature(x, scores, splits=2, seed=5)
    pd.testing.assert_frame_equal(one, other)
    assert list(one.index) == list(scores.index) and (np.diag(one) == 1).all()
    assert set(one.attrs["reliability"]) == set(scores.index)


def test_partial_crossfit_removes_a_general_factor():
    rng = np.random.default_rng(0)
    size = rng.normal(size=40)
    x = rng.normal(size=(600, 40)) - np.outer(rng.random(600), size) * 2
    y = 2 * size + rng.normal(size=(6, 40))
    plain = overlap.crossfit_signature(x, y, k=60, splits=4)
    given = overlap.crossfit_signature(x, y, k=60, splits=4, covariate=size)
    assert inference.upper(plain).mean() > 0.7 and abs(inference.upper(given).mean()) < 0.3


def test_own_text_is_excluded_from_selection():
    x, y, _ = population(units=300, signal=1.0)
    free = overlap.select(x, y, 40, "top")
    barred = np.zeros((300, 12), dtype=bool)
    barred[free[0][0], 0] = True
    kept = overlap.select(x, y, 40, "top", exclude=barred)
    assert not set(kept[0][0]) & set(free[0][0])
    assert kept[1][0].tolist() == free[1][0].tolist()
    with pytest.raises(DataError, match="expected bool of shape"):
        overlap.select(x, y, 40, "top", exclude=barred[:5])


def test_standardising_by_unit_or_not_at_all_keeps_the_level():
    x = population(units=100)[0]
    x = x + np.linspace(0, 20, 32)  # a strong general level
    chosen = {"a": [0, 1, 2], "b": [3, 4]}
    assert np.ptp(overlap.activity(x, chosen).to_numpy()) < 5
    for how in ("unit", "none"):
        u = overlap.activity(x, chosen, standardise=how)
        assert (inference.spearman(np.vstack([u, np.arange(32)]))[:2, 2] > 0.9).all()
    z = (x[:2] - x[:2].mean(axis=1, keepdims=True)) / x[:2].std(axis=1, keepdims=True)
    np.testing.assert_allclose(overlap.activity(x, {"a": [0, 1]}, standardise="unit").loc["a"], z.mean(axis=0))
    with pytest.raises(ValueError, match="did you mean 'model'"):
        overlap.activity(x, chosen, standardise="models")


def test_unit_reliability_is_high_where_units_say_the_same():
    x, y, _ = population(units=600, signal=3.0)
    chosen = dict(enumerate(overlap.pick(screening.thrush(x, y), 60)))
    strong = overlap.unit_reliability(x, chosen, signed=True)
    noise = overlap.unit_reliability(np.random.default_rng(9).normal(size=x.shape), chosen, signed=True)
    assert strong.min() > 0.8 and abs(noise.mean()) < 0.3


# --- pipelines against chance -----------------------------------------------------------------------------


def test_null_overlap_shows_which_measure_is_circular():
    x, y, kind = population(units=600, signal=1.0)
    circular = validation.null_overlap(x, y, overlap.in_sample, method="top", k=60, signed=True, permutations=3)
    honest = validation.null_overlap(x, y, overlap.crossfit_signature, k=60, splits=3, permutations=6)
    assert np.mean([within_and_across(m, kind)[0] for m in circular]) > 0.5
    assert abs(np.mean([within_and_across(m, kind)[0] for m in honest])) < 0.2
    assert circular.shape == (3, 12, 12)


def test_permuted_scores_keep_or_lose_their_correlation():
    rng = np.random.default_rng(0)
    y = np.vstack([np.arange(30.0), np.arange(30.0)])
    joint, independent = (validation.permute_scores(y, rng, s) for s in ("joint", "independent"))
    assert (joint[0] == joint[1]).all() and not (independent[0] == independent[1]).all()
    with pytest.raises(ValueError, match="did you mean 'joint'"):
        validation.permute_scores(y, rng, "joints")


def test_in_sample_r2_of_noise_is_high_and_cross_validation_says_so():
    x, y, _ = population(units=1500, benchmarks=3)
    table = validation.permutation_r2(x, y, sizes=(3, 10, 28), ratio=0.1, permutations=3)
    at = table.groupby("size")["null"].mean()
    assert at[3] > 0.6 and at[10] > 0.9 and at[28] > 0.995  # three terms from noise explain most of 32 models
    assert (table["p"] >= 0.25).all()
    honest = validation.cross_validated_r2(x, y, folds=8, k=100)
    assert honest["r2"].max() < 0.2 and set(honest["method"]) == {"ridge", "pls2", "forward_aic"}


def test_cross_validated_r2_finds_signal_and_leaves_groups_out():
    x, y, _ = population(units=1500, benchmarks=3, signal=1.5)
    table = validation.cross_validated_r2(x, y, np.repeat(np.arange(8), 4), k=100).set_index("method")
    assert (table.loc["ridge", "r2"] > 0.4).all() and (table["folds"] == 8).all()
    permuted = validation.cross_validated_r2(x, y, folds=8, k=100, permute=True, methods=["ridge"])
    assert permuted["r2"].max() < 0.3
    with pytest.raises(ValueError, match="did you mean 'ridge'"):
        validation.cross_validated_r2(x, y, methods=["rigde"])


def test_screening_agreement_is_complete_without_ties():
    x, y, _ = population(units=500, benchmarks=3)
    assert (validation.screening_agreement(x, y, 0.05) == 1).all()
    tied = np.round(y)
    assert validation.screening_agreement(x, tied, 0.05, ties="name").mean() < 1


def test_sensitivity_tables():
    x, y, kind = population(units=800, signal=1.0)
    ratios = validation.ratio_stability(x, y, (0.01, 0.05, 0.2), bootstraps=20)
    assert ratios["units"].is_monotonic_increasing and ratios["value"].iloc[-1] > 0.5
    table, sizes = validation.regulariser_agreement(x, y, ("forward_aic", "random"), k=20, ratio=0.05, bootstraps=20)
    assert len(table) == 1 and len(sizes["forward_aic"]) == 12 and max(sizes["forward_aic"]) <= 30
    halves = validation.corpus_halves(x, y, np.arange(800) // 20, method="top", k=60, repeats=2, bootstraps=20)
    assert (halves["value"] > 0.5).all()
    named = pd.DataFrame(y, index=[f"b{i}" for i in range(12)])
    curve = validation.population_curve(
        x,
        named,
        pd.Series(kind, index=named.index),
        [12, 32],
        overlap.in_sample,
        method="top",
        k=60,
        repeats=2,
    )
    assert len(curve) == 3 and curve.loc[curve["models"] == 32, "auc"].item() > 0.9


# --- artifacts --------------------------------------------------------------------------------------------


def test_write_and_read_round_trip(tmp_path):
    _, y, _ = population()
    names = [f"b{i}" for i in range(12)]
    value = overlap.performance(pd.DataFrame(y, index=names))
    low, high = inference.bootstrap_models(pd.DataFrame(y, index=names), bootstraps=20)
    reliability = pd.DataFrame({"reliability": 0.9, "low": 0.8, "high": 0.95}, index=names)
    paths = overlap.write(tmp_path, "performance", value, low, high, reliability, parameters={"seed": 1})
    assert [p.name for p in paths] == ["performance.parquet", "performance-reliability.csv"]
    back = overlap.read(tmp_path, "performance")
    pd.testing.assert_frame_equal(back["value"], value, check_names=False)
    pd.testing.assert_frame_equal(back["low"], low, check_names=False)
    assert back["reliability"].loc["b3", "high"] == 0.95
    assert list(overlap.read(tmp_path, "performance", order=["b5", "b1"])["high"].index) == ["b5", "b1"]
    with pytest.raises(DataError, match="did you mean 'b1"):
        overlap.read(tmp_path, "performance", order=["b1x"])
    with pytest.raises(DataError, match="did you mean 'signature'"):
        overlap.write(tmp_path, "signatur", value)
    with pytest.raises(StaleArtifactError):
        overlap.read(tmp_path, "neural")


def test_nothing_warns_on_ordinary_data():
    x, y, _ = population(units=300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlap.crossfit_signature(x, y, splits=2)
        overlap.performance(y)


def test_excluded_units_take_part_in_no_validation(monkeypatch):
    """Units that copy the first benchmark's scores are its own text: with exclude= they change nothing."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 14)), rng.normal(size=(6, 14))
    own = np.zeros((300, 6), dtype=bool)
    own[:40, 0] = True
    spoiled = x.copy()
    spoiled[:40] = y[0] + 0.01 * rng.normal(size=(40, 14))
    documents = np.arange(300) // 10

    def first(frame):
        return frame[frame["benchmark"] == frame["benchmark"].iloc[0]].set_index("level")["sd"]

    barred, open_ = (first(validation.level_spread(spoiled, y, documents, exclude=e)) for e in (own, None))
    assert barred["unit"] < open_["unit"]
    np.testing.assert_allclose(barred["unit"], first(validation.level_spread(x, y, documents, exclude=own))["unit"])
    assert validation.screening_agreement(spoiled, y, 0.05, exclude=own).shape == (6,)
    given = []

    def record(surprisal, scores, exclude, **options):
        given.append((surprisal, exclude))
        return original(surprisal, scores, exclude=exclude, **options)

    original = overlap.in_sample
    monkeypatch.setattr(validation.overlap, "in_sample", record)
    validation.corpus_halves(spoiled, y, None, repeats=1, exclude=own, method="top", k=10, bootstraps=0)
    assert sum(e.sum() for _, e in given) == own.sum() and all(len(a) == len(e) for a, e in given)
    copies = [np.abs(np.corrcoef(a[e[:, 0]], y[0])[-1, :-1]).min() for a, e in given]
    assert min(copies) > 0.99  # each half bars its own share of the copies


def test_ratio_curve_finds_the_signal_and_sinks_to_chance_without():
    x, y, kind = population(units=800, signal=1.0)
    labels = pd.Series(kind, index=range(len(y)))
    groups = np.repeat(np.arange(16), 2)
    table = validation.ratio_curve(x, y, labels, (0.01, 0.1), groups, repeats=2)
    assert table.groupby("measure").size().to_dict() == {
        "signature, cross-fitted": 4,
        "signature, same models": 2,
    }
    assert table["units"].tolist() == [16] * 3 + [160] * 3
    assert table.loc[table["measure"] == "signature, cross-fitted", "auc"].mean() > 0.7
    noise = np.random.default_rng(5).normal(size=x.shape)
    chance = validation.ratio_curve(noise, y, labels, (0.05,), groups, repeats=4)
    cross = chance.loc[chance["measure"] == "signature, cross-fitted", "auc"].mean()
    assert abs(cross - 0.5) < 0.2


@pytest.mark.parametrize("kind", inference.INTERVALS)
def test_an_axis_says_what_its_interval_is(tmp_path, monkeypatch, kind):
    """Percentile and recentred intervals both fill `low` and `high`: the table's column tells them apart."""
    names = list("abcdef")
    rng = np.random.default_rng(0)
    value = pd.DataFrame(np.corrcoef(rng.normal(size=(6, 9))), names, names)
    low, high = value - 0.1, value + 0.1
    low.loc["a", "b"] = low.loc["b", "a"] = np.nan
    folder = tmp_path / "lab"
    overlap.write(folder, "semantic", value.clip(-0.9, 0.9), low, high, interval=kind)
    overlap.write(folder, "neural", value.clip(-0.9, 0.9))
    stored = provenance.read_table(folder / "overlap" / "semantic.parquet")
    assert stored["interval"].tolist() == ["none"] + [kind] * 14
    assert overlap.read(folder, "semantic")["interval"] == kind
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    axes = maps.read("lab")
    assert axes.interval == {"semantic": kind, "neural": "none"}
    assert axes.subset(["neural"]).interval == {"neural": "none"} and maps.comparable(axes).interval == axes.interval
    old = stored.drop(columns="interval")
    provenance.write_table(folder / "overlap" / "semantic.parquet", old)
    assert maps.read("lab").interval["semantic"] == overlap.read(folder, "semantic")["interval"] == "not stated"


def test_an_unknown_kind_of_interval_is_refused(tmp_path):
    value = pd.DataFrame(np.eye(3), list("abc"), list("abc"))
    with pytest.raises(ValueError, match="did you mean 'percentile'"):
        overlap.write(tmp_path, "semantic", value, interval="percentiles")


def test_measures_state_their_own_interval():
    rng = np.random.default_rng(0)
    points = {n: rng.normal(size=(8, 3)) for n in "abcd"}
    kinds = {
        m: geometry.compare(points, m, bootstraps=5, splits=0).interval for m in ("whitened", "pairwise", "energy")
    }
    assert kinds == {"whitened": "recentred, Fisher z", "pairwise": "recentred, Fisher z", "energy": "recentred"}
    assert geometry.compare(points, bootstraps=0, splits=0).interval == "none"
