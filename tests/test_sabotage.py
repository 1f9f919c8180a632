"""Deliberate errors in the science that no other test sees: each test here fails when its sabotage is made.

The tests ask public functions for behaviour (an exact invariance, a known distribution, a hand-made case), so that they
hold whatever the code looks like. Headings name what must not be possible unnoticed.
"""

import inspect
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import (
    alignment,
    extraction,
    geometry,
    inference,
    judgement,
    maps,
    overlap,
    perplexity,
    provenance,
    screening,
    selection,
    semantics,
    studies,
    traces,
    validation,
)
from helpers.errors import DataError

NAMES = [f"b{i:02d}" for i in range(40)]


def named(matrix):
    return pd.DataFrame(matrix, NAMES[: len(matrix)], NAMES[: len(matrix)])


def symmetric(rng, n, scale=0.1):
    """Symmetric noise with a diagonal of ones."""
    m = rng.normal(scale=scale, size=(n, n))
    m = np.triu(m, 1)
    return m + m.T + np.eye(n)


def star(rng, n, hub=0):
    """Every pair of one benchmark, the hub, is alike; all others are noise."""
    m = symmetric(rng, n, 0.01)
    m[hub, :] = m[:, hub] = 0.8
    np.fill_diagonal(m, 1.0)
    return m


def noise(units=600, models=24, benchmarks=6, seed=0, skill=1.0):
    """Scores that go together over the models and surprisal that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    return rng.normal(5, 1, size=(units, models)), skill * rng.normal(size=models) + rng.normal(
        size=(benchmarks, models)
    )


# --- nothing is selected and judged on the same models ----------------------------------------------------


@pytest.mark.parametrize("design", ["three-way", "two-way"])
@pytest.mark.parametrize("method", ["top", "forward_aic"])
def test_the_comparing_part_of_a_crossfit_does_not_select(design, method):
    """On noise a signature predicts scores of models it never saw by chance only, whichever way it was selected."""
    x, y = noise()
    options = {"ratio": 0.02} if method == "forward_aic" else {"k": 60}
    found = [
        np.diag(
            overlap.crossfit(x, y, splits=4, bootstraps=0, design=design, method=method, seed=s, **options).prediction
        )
        for s in range(2)
    ]
    assert abs(np.mean(found)) < 0.15  # the same models in both roles give more than .3


def test_identical_models_never_stand_on_both_sides():
    """Each model twice, under two names: as strangers the copies would let a signature predict its own models."""
    x, y = noise(models=12)
    x, y = np.repeat(x, 2, axis=1), np.repeat(y, 2, axis=1)
    with pytest.warns(UserWarning, match="exactly equal"):
        result = overlap.crossfit(x, y, k=60, splits=6, bootstraps=0)
    assert result.details["groups"] == 12
    assert abs(np.diag(result.prediction).mean()) < 0.15
    with pytest.warns(UserWarning, match="exactly equal"):
        own = overlap.profile(x, y, splits=8).attrs["reliability"]
    assert abs(np.mean(list(own.values()))) < 0.1


def test_identical_models_pull_their_lineages_together():
    x, y = noise(models=16)
    x[:, 15] = x[:, 0]
    groups = np.repeat(list("abcdefgh"), 2)
    with pytest.warns(UserWarning, match="0 = 15"):
        assert overlap.crossfit(x, y, groups, splits=1, bootstraps=0, k=60).details["groups"] == 7


def test_the_halves_of_a_profile_are_screened_apart():
    x, y = noise()
    table = overlap.profile(x, y, splits=6)
    assert abs(np.mean(list(table.attrs["reliability"].values()))) < 0.1
    assert np.abs(inference.upper(table)).mean() < 0.1


def test_a_profile_comes_from_both_halves_and_never_cuts_a_group():
    """Two lineages of clones: each half is one lineage, so the split, and with it the result, cannot vary."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 20)), rng.normal(size=(6, 20))
    groups = np.repeat(["a", "b"], 10)
    one, other = (overlap.profile(x, y, groups, splits=3, seed=s) for s in (0, 1))
    np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("groups", ["single", "lineages"])
def test_held_out_error_screens_without_the_models_that_judge(groups):
    """On noise no size predicts better than the mean, though the same units fit the models in the sample."""
    x, y = noise(models=24, benchmarks=4, units=800)
    labels = np.arange(24) if groups == "single" else np.repeat(np.arange(6), 4)
    error = selection.held_out_error(x, y, labels, ratio=0.02, max_size=3)
    assert (error[:, 0] == 1).all() and error[:, 1:].mean() > 1.0


def test_held_out_error_holds_whole_lineages_out():
    """Clones in a lineage: with a clone left in, its twin's score is known."""
    rng = np.random.default_rng(1)
    x, y = np.repeat(rng.normal(size=(800, 12)), 3, axis=1), np.repeat(rng.normal(size=(3, 12)), 3, axis=1)
    x = x + 0.01 * rng.normal(size=x.shape)
    together = selection.held_out_error(x, y, np.repeat(np.arange(12), 3), ratio=0.02, max_size=3)
    alone = selection.held_out_error(x, y, np.arange(36), ratio=0.02, max_size=3)
    assert together[:, 3].min() > 0.9 > 0.6 > alone[:, 3].max()


def test_cross_validated_r2_screens_inside_the_fold():
    x, y = noise(models=24, benchmarks=4, units=800)
    table = validation.cross_validated_r2(x, y, k=80, methods=["ridge", "forward_aic"], folds=6)
    assert table["r2"].mean() < 0.1 and table["spearman"].mean() < 0.2


# --- a benchmark's own text is barred ---------------------------------------------------------------------


def corrected_path(x, y, own):
    chosen = selection.select(x, y, "corrected", exclude=own, ratio=0.02, max_size=2)
    return chosen.signatures[["unit_id", "coef"]].to_numpy()


OWN_TEXT = {
    "overlap.select top": lambda x, y, own: [c[0] for c in overlap.select(x, y, 20, "top", exclude=own)],
    "overlap.select screened": lambda x, y, own: np.concatenate([c[0] for c in overlap.select(x, y, method="screened", ratio=0.02, exclude=own)]),
    "overlap.select random": lambda x, y, own: np.concatenate([c[0] for c in overlap.select(x, y, 5, "random", ratio=0.05, exclude=own)]),
    "overlap.select forward": lambda x, y, own: np.concatenate([c[0] for c in overlap.select(x, y, method="forward_aic", ratio=0.02, exclude=own)]),
    "crossfit": lambda x, y, own: overlap.crossfit(x, y, k=20, splits=2, bootstraps=0, standardise="none", exclude=own).prediction,
    "crossfit_signature": lambda x, y, own: overlap.crossfit_signature(x, y, k=20, splits=2, standardise="none", exclude=own),
    "cross_prediction": lambda x, y, own: overlap.cross_prediction(x, y, k=20, splits=2, standardise="none", exclude=own),
    "selection.select corrected": corrected_path,
    "selection.select paper": lambda x, y, own: selection.select(x, y, "paper", exclude=own, ratio=0.02, max_size=2).signatures[["unit_id", "coef"]],
    "selection.select released": lambda x, y, own: selection.select(x, y, "released-code", exclude=own, ratio=0.02).signatures[["unit_id", "coef"]],
    "held_out_error": lambda x, y, own: selection.held_out_error(x, y, np.arange(16) // 2, exclude=own, ratio=0.02, max_size=2),
    "growth": lambda x, y, own: selection.growth(x, y, [10, 16], draws=1, exclude=own, ratio=0.02, max_size=2)[["size", "r2"]],
    "cross_validated_r2": lambda x, y, own: validation.cross_validated_r2(x, y, folds=4, k=20, methods=["ridge"], exclude=own)[["r2"]],
    "permutation_r2": lambda x, y, own: validation.permutation_r2(x, y, (1, 2), ratio=0.02, permutations=2, exclude=own)[["r2", "null"]],
    "level_spread": lambda x, y, own: validation.level_spread(x, y, np.arange(len(x)) // 40, exclude=own)[["sd", "chance_sd"]],
    "screening_agreement": lambda x, y, own: validation.screening_agreement(np.round(x), np.round(y), 0.05, exclude=own),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN_TEXT)
def test_what_stands_in_a_barred_unit_changes_nothing(name):
    """The first 40 units are barred for all benchmarks: their values must not matter, even as copies of a score."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(5, 1, size=(400, 16)), rng.normal(size=(6, 16))
    own = np.zeros((400, 6), dtype=bool)
    own[:40] = True
    spoiled = x.copy()
    spoiled[:40] = 5 + y[np.arange(40) % 6] + 0.01 * rng.normal(size=(40, 16))
    one, other = OWN_TEXT[name](x, y, own), OWN_TEXT[name](spoiled, y, own)
    np.testing.assert_allclose(np.asarray(one, dtype=float), np.asarray(other, dtype=float), atol=1e-12)
    free = OWN_TEXT[name](spoiled, y, None)  # and the case is not empty: without the bar they do matter
    assert np.shape(free) != np.shape(one) or not np.allclose(
        np.asarray(free, dtype=float), np.asarray(one, dtype=float)
    )


def test_a_bar_is_for_its_own_benchmark_only():
    rng = np.random.default_rng(5)
    x, y = rng.normal(5, 1, size=(300, 16)), rng.normal(size=(6, 16))
    own = np.zeros((300, 6), dtype=bool)
    own[:30, 2] = True
    x[:30] = 5 + y[2] + 0.01 * rng.normal(size=(30, 16))
    barred, free = (overlap.select(x, y, 20, "top", exclude=e) for e in (own, None))
    assert not set(barred[2][0]) & set(range(30)) and set(free[2][0]) & set(range(30))
    for i in (0, 1, 3, 4, 5):
        np.testing.assert_array_equal(barred[i][0], free[i][0])


# --- permutations move benchmarks: rows and columns together ----------------------------------------------


def exact_p(statistic, matrix, alternative="two-sided"):
    """The p-value over all orders of the benchmarks."""
    found = [statistic(matrix[np.ix_(o, o)]) for o in map(list, itertools.permutations(range(len(matrix))))]
    seen = statistic(matrix)
    extreme = np.abs(found) >= abs(seen) - 1e-12 if alternative == "two-sided" else np.array(found) >= seen - 1e-12
    return extreme.mean()


def two_stars(n=9):
    rng = np.random.default_rng(0)
    return star(rng, n), star(rng, n), symmetric(rng, n)


MATRIX_TESTS = {
    "mantel": lambda a, b, c: inference.mantel(a, b, 1999).p,
    "partial mantel": lambda a, b, c: inference.partial_mantel(a, b, c, 1999).p,
    "mrqap": lambda a, b, c: inference.mrqap(a, {"b": b, "c": c}, 1999).p["b"],
    "mrqap alone": lambda a, b, c: inference.mrqap(a, {"b": b}, 1999, rank=False).p["b"],
    "within and between": lambda a, b, c: inference.within_between(a, [0, 0, *range(1, 8)], permutations=1999, bootstraps=0).p,
}  # fmt: skip


@pytest.mark.parametrize("name", MATRIX_TESTS)
def test_a_hub_is_one_benchmark_not_many_pairs(name):
    """Two matrices that only share a hub: it falls on the same one of 9 benchmarks with chance 1 in 9, so p is near
    .11 (of pairs of benchmarks, one in the label's pair: 2 in 9). Rows permuted alone tear the hub apart: p < .02."""
    p = MATRIX_TESTS[name](*two_stars())
    expected = 2 / 9 if name.startswith("within") else 1 / 9
    assert expected - 0.04 < p < expected + 0.06


def test_a_block_contrast_permutes_benchmarks():
    a = named(star(np.random.default_rng(0), 9))
    functions = pd.Series([*["code"] * 2, *["x"] * 3, *["y"] * 4], a.index)
    p = judgement.block_contrast(a, functions, ["code"], None, permutations=1999)["p"]
    assert 2 / 9 - 0.05 < p < 2 / 9 + 0.05  # the hub is in the block of two with chance 2 in 9


@pytest.mark.parametrize("seed", range(3))
def test_permutation_p_values_are_those_of_all_orders(seed):
    """Six benchmarks have 720 orders: 2,999 random ones must give the p-value of all of them, within 4 errors."""
    rng = np.random.default_rng(seed)
    a, b, c = (symmetric(rng, 6) + star(rng, 6, seed) for _ in range(3))
    upper = np.triu_indices(6, 1)

    def pearson(m):
        return np.corrcoef(m[upper], b[upper])[0, 1]

    def partial(m):
        left = [v[upper] - np.poly1d(np.polyfit(c[upper], v[upper], 1))(c[upper]) for v in (m, b)]
        return np.corrcoef(*left)[0, 1]

    def contrast(m):
        same = np.array([0, 0, 0, 1, 1, 2])
        own = (same[:, None] == same)[upper]
        return m[upper][own].mean() - m[upper][~own].mean()

    for exact, p in (
        (exact_p(pearson, a), inference.mantel(a, b, 2999, "pearson").p),
        (exact_p(partial, a), inference.partial_mantel(a, b, c, 2999, "pearson").p),
        (exact_p(contrast, a), inference.within_between(a, [0, 0, 0, 1, 1, 2], permutations=2999, bootstraps=0).p),
        (exact_p(pearson, a), inference.mrqap(a, {"b": b}, 2999, rank=False).p["b"]),
    ):
        assert abs(p - exact) < 0.003 + 4 * np.sqrt(exact * (1 - exact) / 2999)


# --- tests are two-sided unless asked ---------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_an_opposite_relation_is_found_as_surely_as_a_like_one(sign):
    rng = np.random.default_rng(2)
    a, other = symmetric(rng, 14), symmetric(rng, 14)
    b = sign * a + symmetric(rng, 14, 0.02)
    assert inference.mantel(a, b, 199).p == 1 / 200
    assert inference.partial_mantel(a, b, other, 199).p == 1 / 200
    table = inference.mrqap(b, {"a": a, "other": other}, 199)
    assert table.p["a"] == 1 / 200 and np.sign(table.coef["a"]) == np.sign(table.t["a"]) == sign
    blocks = np.kron(np.eye(3), np.ones((5, 5)))
    labels = np.repeat(list("xyz"), 5)
    assert inference.within_between(sign * blocks, labels, permutations=199, bootstraps=0).p == 1 / 200
    functions = pd.Series(labels, NAMES[:15]).replace("x", "code")
    wall = named(symmetric(rng, 15, 0.01))
    wall.iloc[:5, 5:] += sign
    wall.iloc[5:, :5] += sign
    assert judgement.block_contrast(wall, functions, ["code"], None, permutations=199)["p"] < 0.02


@pytest.mark.parametrize("name", ["mantel", "partial mantel", "mrqap"])
def test_a_relation_and_its_opposite_have_the_same_p_value(name):
    """p of (a, b) and of (a, -b) agree two-sided; one-sided they add up to one."""
    rng = np.random.default_rng(9)
    a, b, c = (symmetric(rng, 12) for _ in range(3))
    run = {
        "mantel": lambda x, y: inference.mantel(x, y, 999).p,
        "partial mantel": lambda x, y: inference.partial_mantel(x, y, c, 999).p,
        "mrqap": lambda x, y: inference.mrqap(x, {"y": y, "c": c}, 999).p["y"],
    }[name]
    assert run(a, b) == pytest.approx(run(a, -b), abs=0.03) and run(a, b) > 0.05


# --- many tests are corrected -----------------------------------------------------------------------------


def holm(p):
    """Holm (1979) by hand: the smallest times m, the next times m - 1, never falling, at most 1."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1)
    out = np.empty_like(p)
    out[order] = stepped
    return out


@pytest.fixture(scope="module")
def three_axes():
    rng = np.random.default_rng(3)
    skill = rng.normal(size=(18, 4))

    def axis(weight):
        own = np.hstack([weight * skill, rng.normal(size=(18, 4))])
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        return named(np.round(own @ own.T, 6)).clip(-1, 1)

    return {"performance": axis(1.0), "signature-crossfit": axis(0.6), "semantic": axis(0.5), "neural": axis(0.2)}


def test_holm_over_the_pairs_of_axes(three_axes):
    table = judgement.agreement(three_axes, permutations=199)
    np.testing.assert_allclose(table["p_holm"], holm(table["p"]))
    assert (table["p_holm"] > table["p"]).any() and len(table) == 6


def test_holm_over_predictors_within_a_reading(three_axes):
    axes = maps.check(three_axes)
    table = judgement.explain(axes, ["signature-crossfit", "semantic", "neural"], permutations=199)
    np.testing.assert_allclose(table["p_holm"], holm(table["p"]))
    assert (table["p_holm"] > table["p"]).any()


def test_holm_over_the_axes_of_a_claim_and_the_verdict_follows_it(three_axes):
    functions = pd.Series(["code"] * 5 + ["knowledge"] * 6 + ["reasoning"] * 7, NAMES[:18])
    told = set()
    for seed in range(4):
        table = judgement.claims(maps.check(three_axes), functions, permutations=39, seed=seed)
        for _, part in table.groupby("claim"):
            np.testing.assert_allclose(part["p_holm"], holm(part["p"]))
        sure = table["p_holm"] <= 0.05
        assert (table["verdict"].isin(["supported", "contradicted"]) == sure).all()
        told |= set(table.loc[(table["p"] <= 0.05) & ~sure, "verdict"])
    assert told == {"not decided"}  # some are significant alone and not among their likes


# --- bootstraps resample what is independent --------------------------------------------------------------


def test_reliability_table_resamples_families():
    """Eight families of four clones hold as much as eight models: the interval is about twice that of 32 models."""
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.normal(size=(4, 8)), 4, axis=1) + 1e-3 * rng.normal(size=(4, 32))
    error = np.full(scores.shape, 0.4)
    width = []
    for groups in (np.repeat(np.arange(8), 4), None):
        table = inference.score_reliability_table(scores, error, groups, bootstraps=400)
        width.append((table["high"] - table["low"]).mean())
    assert width[0] > 1.4 * width[1]
    two = inference.score_reliability_table(scores, error, np.repeat([0, 1], 16), bootstraps=400)
    halves = [inference.score_reliability(np.tile(scores[:, h], 2), error) for h in (slice(0, 16), slice(16, 32))]
    # with two families a draw holds one of them twice, or both: the bounds are the families' own values
    np.testing.assert_allclose(two["low"], np.minimum(*halves))


def test_crossfit_interval_resamples_lineages():
    """The same selections (each lineage of clones falls whole into a part), eight lineages: wide, not narrow."""
    rng = np.random.default_rng(0)
    skill = np.repeat(rng.normal(size=12), 4)
    x = rng.normal(size=(400, 48)) - np.outer(rng.random(400) > 0.5, 2 * skill)
    y = skill + 1.0 * np.repeat(rng.normal(size=(4, 12)), 4, axis=1) + 0.01 * rng.normal(size=(4, 48))
    result = overlap.crossfit(x, y, np.repeat(np.arange(12), 4), k=40, splits=4, bootstraps=200)
    assert result.details["resampled"] == "groups"
    weights = inference.bootstrap_weights(np.repeat(np.arange(12), 4), 48, 200, 1)
    assert len(weights) == 200
    singles = overlap.crossfit(x, y, np.repeat(np.arange(6), 8), k=40, splits=4, bootstraps=200)
    assert singles.details["resampled"] == "models"
    widths = [inference.upper(r.high - r.low).mean() for r in (result, singles)]
    assert widths[0] > 1.3 * widths[1]


def test_map_positions_resample_lineages():
    rng = np.random.default_rng(0)
    scores = named(rng.normal(size=(6, 6))).T
    scores = pd.DataFrame(np.repeat(scores.to_numpy(), 4, axis=1) + 1e-3 * rng.normal(size=(6, 24)), NAMES[:6])
    spread = [
        np.std(maps.performance_resamples(scores, NAMES[:6], groups, draws=60), axis=0)[np.triu_indices(6, 1)].mean()
        for groups in (np.repeat(np.arange(6), 4), None)
    ]
    assert spread[0] > 1.4 * spread[1]


OVER_BENCHMARKS = {
    "summarise": lambda m, n: inference.summarise(m, bootstraps=200),
    "summarise median": lambda m, n: inference.summarise(m, "median", bootstraps=200),
    "summarise within": lambda m, n: inference.summarise(m, labels=np.arange(len(m)) % 2, same=True, bootstraps=200),
    "agreement": lambda m, n: inference.agreement(m, n, bootstraps=200),
    "within and between": lambda m, n: inference.within_between(m, np.arange(len(m)) % 3, bootstraps=200, permutations=0, pair_bootstraps=0),
    "commonality": lambda m, n: inference.commonality(m, {"n": n}, bootstraps=100)[["share", "low", "high"]],
    "block contrast": lambda m, n: list(judgement.block_contrast(named(m), pd.Series(np.arange(len(m)) % 3, NAMES[: len(m)]).astype(str), ["0"], None).values()),
    "level": lambda m, n: list(judgement.level(named(m), 200).values()),
    "aggregate": lambda m, n: maps.aggregate(named(m), pd.Series(np.arange(len(m)) % 3, NAMES[: len(m)]), 200)[["value", "low", "high"]],
    "rows": lambda m, n: geometry.row_correlation(m, n, np.array([0, 0, 1, 1, 1, 5, 5, 7, 8, 9, 9, 9])),
    "mantel": lambda m, n: inference.mantel(m, n, 99),
    "partial mantel": lambda m, n: inference.partial_mantel(m, n, m**2 * np.sign(m), 99),
    "mrqap": lambda m, n: inference.mrqap(m, {"n": n}, 99),
}  # fmt: skip


@pytest.mark.parametrize("name", OVER_BENCHMARKS)
def test_a_benchmark_is_never_paired_with_its_own_copy(name):
    """The diagonal says nothing: nothing may change with it, in no resample and no permutation either."""
    rng = np.random.default_rng(1)
    m, n = symmetric(rng, 12), symmetric(rng, 12)
    other = [m - 99 * np.eye(12), n + 99 * np.eye(12)]
    np.testing.assert_array_equal(
        np.asarray(OVER_BENCHMARKS[name](m, n), dtype=float), np.asarray(OVER_BENCHMARKS[name](*other), dtype=float)
    )


def general_levels(rng, n=24):
    """Each benchmark has a level of its own and a pair is their sum: 276 pairs, 24 independent numbers."""
    level = rng.normal(size=n)
    return level[:, None] + level, level


def test_intervals_of_pairs_come_from_benchmarks():
    """The mean of all pairs is twice the mean level: its error is 2 sd / sqrt(n); resampled pairs give a fifth."""
    m, level = general_levels(np.random.default_rng(0))
    expected = 2 * 1.96 * 2 * level.std() / np.sqrt(len(level))
    low, high = inference.summarise(m, bootstraps=800)[1:]
    assert high - low == pytest.approx(expected, rel=0.2)
    found = judgement.level(named(m / 10), 400)
    assert found["median_high"] - found["median_low"] > 0.5 * expected / 10


def test_intervals_of_contrasts_come_from_benchmarks():
    rng = np.random.default_rng(1)
    m, level = general_levels(rng, 30)
    labels = np.repeat(list("xyz"), 10)
    c = inference.within_between(m, labels, bootstraps=800, permutations=0, pair_bootstraps=800)
    functions = pd.Series(labels, NAMES[:30])
    block = judgement.block_contrast(named(m), functions, ["x"], None, permutations=800)
    # mean of x pairs minus mean of the others, per unit of level: (x + rest / 2) - rest = x - rest / 2 ...
    one, rest = level[:10], level[10:]
    error = np.sqrt(one.var() / 10 + rest.var() / 20)
    assert block["high"] - block["low"] == pytest.approx(2 * 1.96 * error, rel=0.3)
    assert c.high - c.low > 1.25 * (c.pairs_high - c.pairs_low) and c.auc_high - c.auc_low > 0.15
    parts = maps.aggregate(named(m), functions, 800).set_index(["a", "b"]).loc[("x", "y")]
    expected = 2 * 1.96 * np.sqrt(level[:10].var() / 10 + level[10:20].var() / 10)
    assert parts["high"] - parts["low"] == pytest.approx(expected, rel=0.25)


def test_intervals_of_agreement_come_from_benchmarks():
    """Two matrices of two independent levels: r of their pairs is r of the levels, known from 24 benchmarks only."""
    rng = np.random.default_rng(2)
    a, b = general_levels(rng)[0], general_levels(rng)[0]
    found = inference.agreement(a, b, method="pearson", bootstraps=400)
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(24), rel=0.45)  # pairs: .24
    shares = inference.commonality(a, {"b": b}, bootstraps=300)
    i, j = np.triu_indices(24, 1)
    ranks = [stats.rankdata(v[i, j]) for v in (a, b)]
    draws = [np.corrcoef(*(v[k] for v in ranks))[0, 1] ** 2 for k in rng.integers(len(i), size=(300, len(i)))]
    naive = np.ptp(np.quantile(draws, [0.025, 0.975]))
    assert (shares["high"] - shares["low"]).item() > 2 * naive


# --- reliabilities are those of the whole measure ---------------------------------------------------------


def test_unit_reliability_of_a_crossfit_is_stepped_up():
    """k units, each a skill plus noise: the mean of k has reliability k a^2 / (k a^2 + 1), its halves less."""
    rng = np.random.default_rng(0)
    k, a, models = 40, 0.25, 400
    skill = rng.normal(size=models)
    sign = np.repeat([1.0, -1.0], 30)
    x = rng.normal(size=(60, models)) + a * np.outer(sign, skill)
    y = skill + 0.05 * rng.normal(size=(3, models))
    whole, half = (n * a * a / (n * a * a + 1) for n in (k, k / 2))
    found = overlap.crossfit(x, y, k=k, splits=3, bootstraps=0).units_reliability.mean()
    assert whole - half > 0.15 and found == pytest.approx(whole, abs=0.05)
    chosen = {"a": (np.r_[0:20, 30:50], np.repeat([1.0, -1.0], 20))}
    assert overlap.unit_reliability(x, chosen, signed=True)["a"] == pytest.approx(whole, abs=0.06)
    two_way = overlap.crossfit(x, y, k=k, splits=3, bootstraps=0, design="two-way")
    assert two_way.reliability["reliability"].mean() == pytest.approx(whole, abs=0.05)


def clouds(rng, centres, questions, spread):
    return {n: c + spread * rng.normal(size=(questions, len(c))) for n, c in zip(NAMES, centres)}


@pytest.mark.parametrize("measure", ["centred", "whitened", "pairwise"])
def test_reliability_of_question_sets_is_that_of_all_questions(measure):
    """Measured twice with new questions, a benchmark's row comes back as well as the reliability says."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(24, 6))
    first, second = (clouds(rng, centres, 12, 1.5) for _ in range(2))
    one, other = (geometry.compare(c, measure, bootstraps=0, splits=30) for c in (first, second))
    real = geometry.row_correlation(one.matrix.to_numpy(), other.matrix.to_numpy(), np.arange(24)).mean()
    said = np.mean([r.reliability["reliability"].mean() for r in (one, other)])
    halves = said / (2 - said)
    assert said == pytest.approx(real, abs=0.07) and real - halves > 0.12


def test_reliability_of_averaged_spaces_is_stepped_up():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(24, 6))
    one, other = (
        geometry.compare_mean([clouds(rng, centres, 12, 2.1) for _ in range(2)], "centred", bootstraps=0, splits=30)
        for _ in range(2)
    )
    real = geometry.row_correlation(one.matrix.to_numpy(), other.matrix.to_numpy(), np.arange(24)).mean()
    said = np.mean([r.reliability["reliability"].mean() for r in (one, other)])
    assert said == pytest.approx(real, abs=0.08)


def trace(vectors, model="m", benchmark="b", seed=0):
    """Traces with the given mean states in both layers and random attention."""
    n = len(vectors)
    states = np.stack([vectors, vectors, vectors], 1).astype(np.float32)
    scale = np.full(3, np.abs(states).max() / 1000, np.float32)
    heads = np.random.default_rng(seed).random((n, 2, 2, 5)).astype(np.float32)
    return traces.Traces(
        model, benchmark, tuple(map(str, range(n))), (states / scale[:, None]).astype(np.float16), scale, heads,
        np.full(n, 9, np.int32), np.full(n, 8, np.int32), states.mean(0), states.var(0), 8 * n, {"tokens": 8},
    )  # fmt: skip


def test_trace_similarity_takes_the_reliability_of_all_questions():
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(24, 6))
    results = []
    for _ in range(2):
        cloud = clouds(rng, centres, 12, 1.5)
        results.append(traces.similarity({n: trace(v, benchmark=n) for n, v in cloud.items()}, bootstraps=0, splits=30))
    real = geometry.row_correlation(*(r.matrix.to_numpy() for r in results), np.arange(24)).mean()
    said = np.mean([r.reliability["reliability"].mean() for r in results])
    assert said == pytest.approx(real, abs=0.08) and real > 0.4


def test_second_order_reliability_is_stepped_up():
    """Two kinds of benchmarks arrange eight models in two ways; with new questions a row comes back as is said."""
    rng = np.random.default_rng(3)
    maps_of = rng.normal(size=(2, 8, 5, 5))  # kind, model: how the model turns the questions' five features
    for kind in range(2):  # in each kind other pairs of models are alike
        pairs = rng.permutation(8).reshape(4, 2)
        maps_of[kind, pairs[:, 1]] = maps_of[kind, pairs[:, 0]] + 0.3 * rng.normal(size=(4, 5, 5))
    kinds = np.arange(14) % 2

    def models():
        out = {f"m{m}": {} for m in range(8)}
        for name, kind in zip(NAMES, kinds):
            asked = rng.normal(size=(14, 5))
            for m in range(8):
                out[f"m{m}"][name] = trace(asked @ maps_of[kind, m] + 0.7 * rng.normal(size=(14, 5)), f"m{m}", name)
        return out

    results = [traces.second_order(models(), bootstraps=0, splits=30) for _ in range(3)]
    real = np.mean(
        [
            geometry.row_correlation(a.matrix.to_numpy(), b.matrix.to_numpy(), np.arange(14)).mean()
            for a, b in itertools.combinations(results, 2)
        ]
    )
    said = np.mean([r.reliability["reliability"].mean() for r in results])
    assert said == pytest.approx(real, abs=0.1) and said - said / (2 - said) > 0.12


def test_the_papers_measure_is_not_stepped_up():
    """It always reads one window, so two readings compared are as good as the measure: a plain rank correlation of four
    other benchmarks, which is a multiple of 0.2; stepped up it would be .89 for .8, .75 for .6."""
    rng = np.random.default_rng(0)
    words = "the cat a dog law court tax sum seven root poem verse cell gene wave atom king war sea ship".split()
    texts = {
        n: [" ".join(rng.choice(words[4 * i : 4 * i + 8], 12)) for _ in range(30)] for i, n in enumerate(NAMES[:4])
    }
    texts[NAMES[4]] = [" ".join(rng.choice(words, 12)) for _ in range(30)]
    values = semantics.paper(texts, resamples=2).reliability["reliability"]
    np.testing.assert_allclose(values * 5, np.round(values * 5), atol=1e-9)
    assert ((values > 0) & (values < 1)).any()


# --- correction for unreliability -------------------------------------------------------------------------


def test_axes_are_corrected_for_their_reliability(three_axes):
    rng = np.random.default_rng(0)
    reliability = {a: pd.Series(rng.uniform(0.2, 0.9, 18), NAMES[:18]) for a in ("performance", "semantic")}
    axes = maps.check(maps.Axes(dict(three_axes), reliability=reliability))
    r = reliability["semantic"]
    found = judgement.corrected(axes, "semantic")
    expected = three_axes["semantic"] / np.sqrt(np.outer(r, r))
    np.testing.assert_allclose(inference.upper(found), inference.upper(expected))
    table = judgement.agreement(axes, permutations=9).set_index(["a", "b"]).loc[("performance", "semantic")]
    p = reliability["performance"]
    one, other = (inference.upper(m) for m in (three_axes["performance"] / np.sqrt(np.outer(p, p)), expected))
    assert table["rho_corrected"] == pytest.approx(stats.spearmanr(one, other).statistic)
    assert abs(table["rho_corrected"] - table["rho"]) > 0.01
    told = judgement.explain(axes, ["semantic"], permutations=9).set_index("reading")
    assert told.loc["corrected for reliability", "coef"] == pytest.approx(table["rho_corrected"], abs=1e-6)
    assert told.loc["as measured", "coef"] == pytest.approx(table["rho"], abs=1e-6)


def test_agreement_of_models_is_divided_by_its_ceiling():
    """Models that see the same centres through independent noise agree perfectly once the noise is allowed for."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(24, 6))
    models = {m: {n: trace(v, m, n) for n, v in clouds(rng, centres, 16, 3.0).items()} for m in ("one", "two", "three")}
    pairs, _ = traces.agreement(models, splits=10)
    np.testing.assert_allclose(pairs["disattenuated"], pairs["rho"] / pairs["ceiling"])
    assert pairs["rho"].max() < 0.85 and pairs["disattenuated"].mean() == pytest.approx(1, abs=0.1)


# --- bytes, not characters --------------------------------------------------------------------------------


def byte_tokenizer(merges):
    """A byte-level tokenizer with exactly these merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {s: i for i, s in enumerate(["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    for a, b in merges:
        vocabulary[a + b] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")


SUN = [("Ĺ", "¥"), ("Ĺ¥", "a")]  # 日 is the bytes E6 97 A5; the second token holds two of them and the letter


def test_a_split_character_is_shared_by_bytes():
    tokenizer = byte_tokenizer(SUN)
    ids, offsets = (part[0] for part in alignment.tokenize(tokenizer, ["日a"]))
    assert len(ids) == 2
    spans = alignment.token_byte_spans(tokenizer, "日a", ids, offsets)
    assert spans.tolist() == [[0, 1], [1, 4]]
    units = alignment.byte_spans("日a", [(0, 1), (1, 2)])
    assert alignment.attribute(spans, [1.0, 3.0], units).tolist() == pytest.approx([3.0, 1.0])


def test_extraction_shares_a_token_by_bytes(tmp_path, tiny):
    """One token of three characters, one of them two bytes long, over units cut inside it: by bytes."""
    text = "naïf"
    merges = [("n", "a"), ("Ã", "¯"), ("na", "Ã¯"), ("naÃ¯", "f")]
    folder = tmp_path / "model"
    tiny.model(0, vocabulary=320).save_pretrained(folder)
    tokenizer = byte_tokenizer(merges)
    tokenizer.save_pretrained(folder)
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1
    entry = studies.ModelEntry(name="one", source="folder", id=str(folder))
    spans = np.array([(0, 1), (1, 2), (2, 3), (3, 4)])
    block = extraction.Block(0, ("d",), (text,), (spans,), "digest")
    values, facts, _ = extraction.measure(entry, "mark", studies.Extraction(window=16, stride=8), block)
    assert facts["tokens"] == 1
    np.testing.assert_allclose(values / values.sum(), np.array([1, 1, 2, 1]) / 5, rtol=1e-5)


# --- signs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["top", "screened", "random", "forward_aic", "lasso", "elastic_net"])
def test_signs_say_whether_surprisal_rises_with_the_score(method):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3, 20))
    x = 5 + rng.normal(size=(200, 20))
    x[:4] = 5 + y[0] + 0.05 * rng.normal(size=(4, 20))
    x[4:8] = 5 - y[0] + 0.05 * rng.normal(size=(4, 20))
    (units, signs), *_ = overlap.select(x, y, 8, method, ratio=0.02, alpha=0.001)
    rises = {int(u): np.sign(stats.spearmanr(x[u], y[0]).statistic) for u in units}
    assert dict(zip(units.tolist(), signs)) == rises and set(signs) == {1.0, -1.0}


def test_signed_activity_and_prediction_rise_with_the_score():
    rng = np.random.default_rng(1)
    skill = rng.normal(size=30)
    x = rng.normal(size=(300, 30)) + np.outer(np.repeat([1, -1, 0], 100), skill)
    y = skill + 0.3 * rng.normal(size=(4, 30))
    for method, options in (("top", {"k": 40}), ("forward_aic", {"ratio": 0.05})):
        result = overlap.crossfit(x, y, splits=3, bootstraps=0, method=method, **options)
        assert (np.diag(result.prediction) > 0.5).all()
    chosen = selection.select(pd.DataFrame(x), pd.DataFrame(y, NAMES[:4]), ratio=0.05, max_size=1).signatures
    u = overlap.activity(x, overlap.from_table(chosen, range(300)), signed=True)
    assert all(stats.spearmanr(a, b).statistic > 0.4 for a, b in zip(u.to_numpy(), y))


# --- whitening --------------------------------------------------------------------------------------------


def stretched(rng):
    """Centres that differ in all directions; within a benchmark questions differ hugely in one direction."""
    centres = rng.normal(size=(8, 5))
    plain = {n: c + rng.normal(size=(200, 5)) for n, c in zip(NAMES, centres)}
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0] @ np.diag([1, 1, 1, 1, 6.0])
    return plain, {n: v @ turn for n, v in plain.items()}


WHITENED = {
    "compare": lambda p: geometry.compare(p, bootstraps=0, splits=0).matrix,
    "compare_mean": lambda p: geometry.compare_mean([p, p], bootstraps=0, splits=0).matrix,
    "traces": lambda p: traces.similarity({n: trace(v, benchmark=n) for n, v in p.items()}, bootstraps=0, splits=0).matrix,
    "frame": lambda p: geometry.fit_frame(p).place(p, p),
}  # fmt: skip


@pytest.mark.parametrize("name", WHITENED)
def test_similarity_is_whitened_by_default(name):
    """Stretching and turning the space changes the cosines of centres and not the whitened ones."""
    plain, turned = stretched(np.random.default_rng(0))
    one, other = (inference.upper(WHITENED[name](p)) for p in (plain, turned))
    assert np.abs(one - other).max() < 0.1
    raw = [inference.upper(geometry.compare(p, "centred", bootstraps=0, splits=0).matrix) for p in (plain, turned)]
    assert np.abs(raw[0] - raw[1]).max() > 0.4


def test_crossnobis_is_whitened():
    plain, turned = stretched(np.random.default_rng(1))
    one, other = (inference.upper(geometry.crossnobis(p, splits=4)) for p in (plain, turned))
    np.testing.assert_allclose(one, other, rtol=0.25, atol=0.05)


def test_attention_profiles_are_scaled_by_their_own_spread():
    rng = np.random.default_rng(0)
    own = {n: trace(rng.normal(size=(12, 4)), benchmark=n, seed=i) for i, n in enumerate(NAMES[:5])}
    scaled = {
        n: traces.dataclasses.replace(t, attention=t.attention * np.array([50, 1, 1, 1, 1], np.float32))
        for n, t in own.items()
    }
    one, other = (traces.similarity(t, "attention", bootstraps=0, splits=0).matrix for t in (own, scaled))
    np.testing.assert_allclose(one, other, atol=1e-3)


# --- defaults that the text of the book relies on ---------------------------------------------------------

DEFAULTS = {
    overlap.crossfit: {"k": None, "method": "top", "splits": 20, "design": "auto", "level": "log", "signed": True,
                       "standardise": "model", "bootstraps": 200, "seed": 0},
    overlap.select: {"k": 200, "method": "top", "ratio": 0.01, "alpha": 0.01, "ties": "average"},
    overlap.in_sample: {"k": 200, "method": "forward_aic", "level": "log", "signed": False},
    overlap.signature: {"pool": "matrix", "level": "log", "signed": False, "undefined": "raise", "minimum": 8},
    overlap.performance: {"covariate": None, "minimum": 8, "undefined": "raise"},
    overlap.unit_reliability: {"level": "log", "signed": False, "splits": 20},
    overlap.profile: {"splits": 10, "centre": True},
    overlap.partition: {"minimum": 4},
    screening.thrush: {"ties": "average"},
    screening.screen: {"ratio": 0.01},
    screening.screen_stream: {"ratio": 0.01, "statistic": "thrush", "ties": "average"},
    selection.forward_aic: {"max_size": None, "tolerance": 0.0},
    selection.forward: {"criterion": "aic", "max_size": None, "tolerance": 0.0},
    selection.lasso: {"alpha": 0.01, "standardise": True},
    selection.elastic_net: {"alpha": 0.01, "l1_ratio": 0.5, "standardise": True},
    selection.select: {"mode": "corrected"},
    selection.growth: {"draws": 3, "permute": False},
    inference.mantel: {"permutations": 9999, "method": "spearman", "alternative": "two-sided"},
    inference.partial_mantel: {"permutations": 9999, "method": "spearman", "alternative": "two-sided"},
    inference.mrqap: {"permutations": 1999, "rank": True},
    inference.within_between: {"alternative": "two-sided", "bootstraps": 2000, "pair_bootstraps": 10_000,
                               "permutations": 1999},
    inference.bootstrap_models: {"bootstraps": 1000, "level": 0.95},
    inference.spearman_brown: {"factor": 2.0},
    inference.permutation_p: {"alternative": "two-sided"},
    geometry.compare: {"measure": "whitened", "bootstraps": 200, "splits": 50},
    semantics.compare: {"measure": "whitened", "field": "text", "n_questions": 100, "strip": True, "resamples": 1000,
                        "bootstraps": 200, "splits": 50},
    traces.collect: {"tokens": 32, "attention": True},
    traces.similarity: {"kind": "activation", "measure": None, "layer": "mean", "bootstraps": 200, "splits": 50},
    perplexity.token_surprisal: {"window": None, "stride": None, "precision": "exact"},
    perplexity.paper_surprisal: {"context_pieces": 30, "precision": "exact"},
    validation.permutation_r2: {"ratio": 0.01, "permutations": 20},
    validation.cross_validated_r2: {"terms": 3, "k": None, "folds": None},
    judgement.agreement: {"permutations": 999},
    judgement.explain: {"permutations": 999},
}  # fmt: skip


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda f: f"{f.__module__.split('.')[-1]}.{f.__name__}")
def test_defaults_are_those_that_the_book_describes(function):
    given = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    assert {n: given.get(n, "gone") for n in DEFAULTS[function]} == DEFAULTS[function]


def test_modes_of_selection_are_those_that_the_book_describes():
    shown = {
        name: {k: v for k, v in vars(mode).items() if v != getattr(selection.Mode(), k)}
        for name, mode in selection.MODES.items()
    }
    assert shown == {
        "paper": {"level": "raw"},
        "released-code": {"ratio": 1e-6, "ties": "name", "method": "lasso"},
        "corrected": {"stop": "cv"},
    }
    plain = selection.Mode()
    assert (plain.ratio, plain.stop, plain.alpha, plain.l1_ratio, plain.max_size) == (0.01, "aic", 0.01, 0.5, None)


@pytest.mark.parametrize(("units", "expected"), [(400, 80), (2000, 200)])
def test_a_signature_holds_a_fifth_of_the_units_and_at_most_200(units, expected):
    x, y = noise(units=units, models=16, benchmarks=5)
    default = overlap.crossfit(x, y, splits=1, bootstraps=0)
    assert default.details["k"] == expected
    pd.testing.assert_frame_equal(default.overlap, overlap.crossfit(x, y, k=expected, splits=1, bootstraps=0).overlap)
    assert overlap.crossfit(x[:60], y, bootstraps=0).details["splits"] == 20


def test_windows_are_as_long_as_the_context_and_overlap_by_half(tiny):
    assert perplexity.window_sizes(tiny.model(context=64), None, None) == (64, 32)
    assert perplexity.window_sizes(tiny.model(context=4096), None, None) == (2048, 1024)
    with pytest.raises(DataError):
        perplexity.window_sizes(tiny.model(context=64), 32, 17)


# --- edges that random mutants found open -----------------------------------------------------------------


def test_bytes_at_the_edges_of_their_widths():
    text = "\x7f\x80\u07ff\u0800\uffff\U00010000a"
    assert alignment.byte_offsets(text).tolist() == [0, 1, 3, 5, 8, 11, 15, 16]


def test_byte_symbols_are_those_of_the_tokenizers():
    from tokenizers import pre_tokenizers

    assert alignment.byte_symbols() == frozenset(pre_tokenizers.ByteLevel.alphabet())


def test_each_split_character_is_shared_on_its_own():
    """Two characters cut in two with text between: the two chains of tokens must not be taken for one."""
    tokenizer = byte_tokenizer(SUN)
    ids, offsets = (part[0] for part in alignment.tokenize(tokenizer, ["日axyz日a"]))
    spans = alignment.token_byte_spans(tokenizer, "日axyz日a", ids, offsets)
    assert spans.tolist() == [[0, 1], [1, 4], [4, 5], [5, 6], [6, 7], [7, 8], [8, 11]]


def test_equal_statistics_count_whatever_their_size():
    """Sums in another order differ by rounding, which grows with the numbers; an equal draw must count."""
    assert inference.permutation_p([1e6 * (1 - 1e-13)] * 3, 1e6) == 1.0
    assert inference.permutation_p([1e6 * (1 - 1e-9)] * 3, 1e6) == 0.25
    m = 1e6 * symmetric(np.random.default_rng(0), 8)
    assert inference.mantel(m, m + np.triu(np.full((8, 8), 1e-5), 1), 9).statistic == pytest.approx(1)


def test_what_was_not_computed_is_nan():
    rng = np.random.default_rng(0)
    table = inference.commonality(symmetric(rng, 8), {"x": symmetric(rng, 8)})
    assert table[["low", "high", "null_high"]].isna().all(axis=None) and table["share"].notna().all()
    m = symmetric(rng, 6)
    apart = inference.within_between(m, range(6))
    assert np.isnan(apart.within) and apart.between == pytest.approx(inference.upper(m).mean())
    together = inference.within_between(m, [0] * 6)
    assert np.isnan(together.between) and together.within == pytest.approx(inference.upper(m).mean())


def test_tests_of_pairs_are_two_sided_unless_asked():
    m = symmetric(np.random.default_rng(3), 12)
    labels = np.arange(12) % 3
    options = {"bootstraps": 0, "permutations": 0, "pair_bootstraps": 4000}
    two = inference.within_between(m, labels, **options)
    one = [inference.within_between(m, labels, alternative=a, **options) for a in ("greater", "less")]
    for name in ("pairs_p", "mann_whitney_p"):
        assert getattr(two, name) == pytest.approx(min(1, 2 * min(getattr(c, name) for c in one)), abs=0.02)


def test_ties_count_half_in_the_resampled_area():
    labels = np.repeat([0, 1], 6)
    flat = inference.within_between(np.ones((12, 12)), labels, bootstraps=50, permutations=9)
    assert (flat.auc, flat.auc_low, flat.auc_high) == (0.5, 0.5, 0.5)
    blocks = (labels[:, None] == labels).astype(float)
    sure = inference.within_between(blocks, labels, bootstraps=50, permutations=9)
    assert (sure.auc, sure.auc_low, sure.auc_high) == (1.0, 1.0, 1.0)
    rng = np.random.default_rng(0)
    m = np.round(symmetric(rng, 12, 1.5))
    m = (m + m.T) / 2
    found = inference.within_between(m, labels, bootstraps=2000, permutations=0, pair_bootstraps=0)
    i, j = np.triu_indices(12, 1)
    draws = []
    for _ in range(800):
        order = rng.integers(12, size=12)
        a, b = order[i], order[j]
        keep = a != b
        v, same = m[a, b][keep], (labels[a] == labels[b])[keep]
        if same.any() and not same.all():
            draws.append(stats.mannwhitneyu(v[same], v[~same]).statistic / same.sum() / (~same).sum())
    np.testing.assert_allclose([found.auc_low, found.auc_high], np.quantile(draws, [0.025, 0.975]), atol=0.04)


def test_eight_models_are_enough_and_a_constant_is_found_whatever_its_size():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 8)), rng.normal(size=(2, 8))
    assert len(selection.select(x, y, "paper", ratio=0.05, max_size=1).fits) == 2
    with pytest.raises(DataError, match="at least 8"):
        selection.select(x[:, :7], y[:, :7])
    large = 1e9 * (1 + 1e-14 * rng.normal(size=10))
    with pytest.raises(DataError, match="nothing can be selected"):
        selection.forward_aic(rng.normal(size=(10, 3)), large)
    small = 1e-9 * rng.normal(size=10)
    assert len(selection.forward_aic(rng.normal(size=(10, 3)), small, max_size=1)) == 1


def test_activity_averages_the_values_that_were_measured():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 9))
    x[2, 4] = np.nan
    z = (x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)
    np.testing.assert_allclose(overlap.activity(x, {"a": [1, 2, 3]}).loc["a"], np.nanmean(z[1:4], axis=0))
    x[3, 4] = np.nan  # one unit of the two is enough for a value, none is not
    assert overlap.activity(x, {"a": [1, 2]}).loc["a"].notna().all()
    assert overlap.activity(x, {"a": [2, 3]}).loc["a"].isna().tolist() == [m == 4 for m in range(9)]
    for shape in ((5,), (0, 9), (9, 0)):
        with pytest.raises(DataError, match="expected .n_units, n_models"):
            overlap.activity(np.zeros(shape), {"a": [0]})


def test_intervals_of_a_crossfit_are_symmetric_and_hold_the_value():
    x, y = noise(units=200, models=16, benchmarks=5)
    result = overlap.crossfit(x, y, k=20, splits=2, bootstraps=60)
    for side in (result.low, result.high):
        np.testing.assert_array_equal(side, side.T)
    inside = (result.low <= result.overlap) & (result.overlap <= result.high)
    assert inside.to_numpy().mean() > 0.9
    with pytest.raises(DataError, match="'2' has the same value"):
        overlap.profile(x, np.where(np.arange(5)[:, None] == 2, 0.5, y))


def test_tables_keep_what_can_be_compared_and_bar_own_texts(tmp_path):
    models = [f"m{i}" for i in range(10)]
    scores = {
        "two": [0.2, 0.8] * 5,
        "same": [0.5] * 10,
        "few": [*np.arange(7) / 10, *[np.nan] * 3],
        "own": list(np.arange(10) / 10),
    }
    rows = [(b, m, s, 0.1) for b, own in scores.items() for m, s in zip(models, own) if not np.isnan(s)]
    long = pd.DataFrame(rows, columns=["benchmark", "model", "score", "stderr"])
    facts = pd.DataFrame({"benchmark": list(scores), "usable": True, "function": "f", "format": "g"})
    groups = pd.DataFrame({"model": models, "family": np.repeat(list("abcde"), 2)})
    units = pd.DataFrame(
        {"own_benchmarks": [None, "own", "two;own", "another", "two", ""]}, index=pd.RangeIndex(6, name="unit_id")
    )
    surprisal = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 10)), units.index, models)
    for name, table in (
        ("scores.csv", long),
        ("benchmarks.csv", facts),
        ("models.csv", groups),
        ("units.parquet", units),
        ("surprisal.parquet", surprisal),
    ):
        provenance.write_table(tmp_path / name, table)
    tables = overlap.load(tmp_path)
    assert list(tables.scores.index) == ["two", "own"] and set(tables.left_out) == {"same", "few"}
    assert tables.exclude.tolist() == [
        [False, False],
        [False, True],
        [True, True],
        [False, False],
        [True, False],
        [False, False],
    ]
    assert tables.groups.tolist() == list("aabbccddee") and list(tables.all_scores.index) == list(scores)


def test_a_piece_has_its_own_tokens_and_a_batch_its_limit(tiny):
    tokenizer, model = byte_tokenizer([]), tiny.model()
    found = perplexity.paper_surprisal(model, tokenizer, "abcd", [(0, 2), (2, 4)])
    assert found["tokens"].tolist() == [2, 2]
    (_, nats), *_ = perplexity.token_surprisal(model, tokenizer, ["abcd"])
    np.testing.assert_allclose(found["whole"], [nats[:2].sum(), nats[2:].sum()], rtol=1e-4)
    np.testing.assert_allclose(found["last"], nats[[1, 3]], rtol=1e-4)
    assert {len(b) for b in perplexity.batches([(np.arange(10), [])] * 20, 30)} == {3, 2}
