"""Statistics over matrices: hand-worked cases, agreement with maintained libraries, calibration by simulation."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from helpers import inference
from helpers.errors import DataError


def factor_matrix(rng, benchmarks, weight=0.0, shared=None):
    """A correlation-like matrix with the dependence real overlap matrices have; `shared` leaks in."""
    own = rng.normal(size=(benchmarks, 3))
    own = own if shared is None else np.hstack([own * np.sqrt(1 - weight), shared * np.sqrt(weight)])
    return -np.sqrt(((own[:, None] - own[None]) ** 2).sum(axis=2))


# --- p-values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alternative", "expected"), [("greater", 2 / 6), ("less", 5 / 6), ("two-sided", 2 / 6)])
def test_permutation_p_counts_the_observed_value(alternative, expected):
    assert inference.permutation_p([-2.0, -1.0, 0.0, 1.0, 4.0], 3.0, alternative) == pytest.approx(expected)


def test_permutation_p_is_never_zero_and_treats_undefined_draws_carefully():
    assert inference.permutation_p(np.zeros(99), 1.0) == 0.01
    assert inference.permutation_p([0.0, np.nan], 1.0) == pytest.approx(2 / 3)
    assert np.isnan(inference.permutation_p([0.0], np.nan))
    with pytest.raises(DataError, match="at least one"):
        inference.permutation_p([], 1.0)


def test_benjamini_hochberg_by_hand():
    # sorted p * m / rank, made monotone from the right: .01*4/1, .02*4/2, .03*4/3, .5
    out = inference.benjamini_hochberg([0.03, 0.01, np.nan, 0.5, 0.02])
    np.testing.assert_allclose(out, [0.04, 0.04, np.nan, 0.5, 0.04])


# --- rank correlation -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(arrays(float, (4, 9), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5, np.nan])))
def test_spearman_equals_scipy_pair_by_pair_with_ties_and_missing_values(rows):
    ours = inference.spearman(rows)
    for a in range(4):
        for b in range(4):
            both = ~np.isnan(rows[a]) & ~np.isnan(rows[b])
            x, y = rows[a, both], rows[b, both]
            if both.sum() < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
                assert np.isnan(ours[a, b])
            else:
                assert ours[a, b] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(arrays(float, (3, 8), elements=st.sampled_from([0.0, 1.0, 2.0, 5.0, np.nan])), st.integers(0, 99))
def test_weights_are_exactly_a_resample(rows, seed):
    counts = np.random.default_rng(seed).multinomial(8, np.full(8, 1 / 8), size=3)
    weighted = inference.spearman(rows, counts)
    for w, count in zip(weighted, counts):
        np.testing.assert_allclose(w, inference.spearman(np.repeat(rows, count, axis=1)), atol=1e-12)


def test_identical_rows_correlate_exactly_one():
    row = np.random.default_rng(0).normal(size=31)
    assert (inference.spearman(np.vstack([row, row, np.exp(row)])) == 1.0).all()


def test_minimum_and_errors():
    rows = np.array([[1.0, 2, 3, np.nan], [3.0, 1, 2, 4]])
    assert np.isnan(inference.spearman(rows, minimum=4)[0, 1])
    with pytest.raises(DataError, match="row '0', column '1'"):
        inference.spearman([[1.0, np.inf]])
    with pytest.raises(DataError, match="two dimensions"):
        inference.spearman([1.0, 2.0])
    with pytest.raises(DataError, match="more than one row"):
        inference.spearman(pd.DataFrame(np.eye(2), index=["a", "a"]))


def test_partial_correlation_equals_residual_correlation():
    rng = np.random.default_rng(1)
    ranks = stats.rankdata(rng.normal(size=(4, 40)) + rng.normal(size=40), axis=1)
    design = sm.add_constant(ranks[3])
    residual = np.array([sm.OLS(r, design).fit().resid for r in ranks[:3]])
    out = inference.partial_from_matrix(inference.spearman(ranks), 1)
    np.testing.assert_allclose(out, np.corrcoef(residual), atol=1e-10)


def test_partial_is_undefined_when_the_covariate_is_the_row():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3, 20))
    out = inference.partial_from_matrix(inference.spearman(np.vstack([rows, rows[0]])), 1)
    assert np.isnan(out[0]).all() and np.isfinite(out[1, 2])


# --- resampling -------------------------------------------------------------------------------------------


def test_bootstrap_draws_whole_groups():
    groups = np.repeat(["a", "b", "c"], [1, 3, 4])
    weights = inference.bootstrap_weights(groups, 8, 50, seed=1)
    assert (np.ptp(weights[:, 1:4], axis=1) == 0).all() and (np.ptp(weights[:, 4:], axis=1) == 0).all()
    assert ((weights[:, 0] + weights[:, 1] + weights[:, 4]) == 3).all()
    with pytest.raises(DataError, match="one a model"):
        inference.bootstrap_weights(["a"], 3)


def test_bootstrap_interval_covers_the_true_correlation():
    """Nominal 95 %: over 60 populations of 40 models the coverage must not be poor (binomial bound)."""
    rng = np.random.default_rng(5)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman of a bivariate normal
    hits = 0
    for seed in range(60):
        x = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=40).T
        low, high = inference.bootstrap_models(x, bootstraps=200, seed=seed)
        hits += low.iloc[0, 1] <= truth <= high.iloc[0, 1]
    assert hits >= 51


def test_group_bootstrap_is_wider_when_groups_are_clones():
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.normal(size=(2, 8)), 4, axis=1) + 1e-3 * rng.normal(size=(2, 32))
    widths = []
    for groups in (None, np.repeat(np.arange(8), 4)):
        low, high = inference.bootstrap_models(rows, groups, bootstraps=300)
        widths.append((high - low).iloc[0, 1])
    assert widths[1] > 1.4 * widths[0]


def test_interval_is_open_where_draws_are_mostly_undefined():
    low, high = inference.interval(np.array([[np.nan, 1.0], [np.nan, 2.0], [1.0, 3.0]]))
    assert np.isnan(low[0]) and np.isnan(high[0]) and low[1] == pytest.approx(1.05)


# --- reliability ------------------------------------------------------------------------------------------


def test_reliability_formulas():
    assert inference.spearman_brown(0.6) == pytest.approx(0.75)
    assert inference.disattenuate(0.3, 0.36, 1.0) == pytest.approx(0.5)
    assert np.isnan(inference.disattenuate(0.3, -0.1, 1.0))
    assert np.isnan(inference.disattenuate(0.3, -0.5, -0.5))
    ceiling = inference.noise_ceiling(pd.Series({"a": 0.81, "b": -0.2, "c": 1.0}))
    assert ceiling.loc["a", "c"] == pytest.approx(0.9) and ceiling.loc["a", "b"] == 0


def test_split_half_recovers_the_reliability_of_a_mean():
    """k parts, each signal + noise of equal variance: reliability of the mean is k / (k + 1)."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=400)
    parts = signal + rng.normal(size=(9, 400))
    assert inference.split_half(parts) == pytest.approx(0.9, abs=0.03)
    assert abs(inference.split_half(rng.normal(size=(40, 400)))) < 0.25
    assert np.isnan(inference.split_half(parts[:1]))


def test_score_reliability_recovers_the_share_of_signal():
    rng = np.random.default_rng(0)
    truth, error = rng.normal(0, 2, size=2000), 1.0
    y = truth + rng.normal(0, error, size=2000)
    r = inference.score_reliability(y[None], np.full((1, 2000), error))
    assert r[0] == pytest.approx(0.8, abs=0.02)
    assert np.isnan(inference.score_reliability(y[None, :5], np.full((1, 5), np.nan)))[0]


# --- matrix tests -----------------------------------------------------------------------------------------


def named(matrix, letters="abcdefghijklmnopqrstuvwxyz"):
    names = list(letters[: len(matrix)])
    return pd.DataFrame(matrix, names, names)


def test_mantel_statistic_is_the_correlation_of_pairs_and_labels_decide_the_order():
    rng = np.random.default_rng(0)
    a, b = factor_matrix(rng, 12), factor_matrix(rng, 12)
    result = inference.mantel(a, b, permutations=199)
    pairs = np.triu_indices(12, 1)
    assert result.statistic == pytest.approx(stats.spearmanr(a[pairs], b[pairs]).statistic)
    assert result.n == 12 and 0 < result.p <= 1
    shuffled = named(b).iloc[::-1, ::-1]
    assert inference.mantel(named(a), shuffled, permutations=9).statistic == pytest.approx(result.statistic)
    fewer = inference.mantel(named(a), named(b).iloc[:9, :9], permutations=9)
    assert fewer.n == 9


def test_mantel_is_repeatable_and_one_sided():
    rng = np.random.default_rng(0)
    a = factor_matrix(rng, 10)
    assert inference.mantel(a, a, permutations=99, seed=3) == inference.mantel(a, a, permutations=99, seed=3)
    assert inference.mantel(a, -a, permutations=99, alternative="greater").p > 0.9
    assert inference.mantel(a, -a, permutations=99, alternative="less").p == 0.01


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m.rename(index={"a": "q"}, columns={"a": "q"}).iloc[:4, :4], "did you mean|known:"),
        (lambda m: m.mask(np.eye(8)[::-1] == 1), "not finite"),
        (lambda m: m + np.triu(np.ones((8, 8)), 1), "not symmetric"),
        (lambda m: m * 0 + 1.0, "same value"),
        (lambda m: m.iloc[:, :5], "square"),
        (lambda m: m.to_numpy(), "either DataFrames"),
    ],
)
def test_matrix_errors_say_what_is_wrong(spoil, message):
    m = named(factor_matrix(np.random.default_rng(0), 8))
    for call in (inference.mantel, lambda a, b: inference.mrqap(a, {"b": b})):
        with pytest.raises(DataError, match=message):
            call(m, spoil(m))


def test_partial_mantel_removes_a_third_matrix():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(20, 3))
    c = factor_matrix(rng, 20, 1.0, z)
    a, b = factor_matrix(rng, 20, 0.6, z), factor_matrix(rng, 20, 0.6, z)
    assert inference.mantel(a, b, permutations=199).statistic > 0.3
    assert abs(inference.partial_mantel(a, b, c, permutations=199).statistic) < 0.2
    assert inference.partial_mantel(a, a, c, permutations=199).p == pytest.approx(0.005)


def test_mrqap_coefficients_and_t_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    x = {"one": factor_matrix(rng, 14), "two": factor_matrix(rng, 14)}
    y = x["one"] + 0.5 * factor_matrix(rng, 14)
    table = inference.mrqap(y, x, permutations=99, rank=False)
    pairs = np.triu_indices(14, 1)
    z = [(m[pairs] - m[pairs].mean()) / m[pairs].std() for m in (y, *x.values())]
    fit = sm.OLS(z[0], sm.add_constant(np.column_stack(z[1:]))).fit()
    np.testing.assert_allclose(table["coef"], fit.params[1:], rtol=1e-9)
    np.testing.assert_allclose(table["t"], fit.tvalues[1:], rtol=1e-9)
    assert table.attrs["r2"] == pytest.approx(fit.rsquared)
    alone = sm.OLS(z[0], sm.add_constant(z[2])).fit().rsquared
    assert table.loc["one", "unique_r2"] == pytest.approx(fit.rsquared - alone)


def test_mrqap_refuses_a_redundant_predictor_and_takes_a_sequence():
    rng = np.random.default_rng(0)
    a, b = factor_matrix(rng, 9), factor_matrix(rng, 9)
    with pytest.raises(DataError, match="fully explained"):
        inference.mrqap(a, {"b": b, "same": 2 * b + 1}, permutations=9, rank=False)
    assert list(inference.mrqap(a, [b], permutations=9).index) == ["x1"]
    with pytest.raises(DataError, match="at least one predictor"):
        inference.mrqap(a, {})


def rejections(test, runs, level=0.1):
    return sum(test(np.random.default_rng(1000 + seed)) <= level for seed in range(runs))


def test_mrqap_keeps_its_size_where_a_confound_fools_mantel():
    """Target and predictor share only the covariate. Mantel must reject nearly always, MRQAP about 10 %."""

    def simulate(rng):
        z = rng.normal(size=(16, 2))
        return [factor_matrix(rng, 16, w, z) for w in (0.8, 0.8, 1.0)]

    def by_mrqap(rng):
        y, x, c = simulate(rng)
        return inference.mrqap(y, {"x": x, "c": c}, permutations=99).p["x"]

    def by_mantel(rng):
        y, x, _ = simulate(rng)
        return inference.mantel(y, x, permutations=99).p

    assert rejections(by_mrqap, 80) <= 19  # binomial(80, .1): P(> 19) < .0003; the confound may leak a little
    assert rejections(by_mantel, 20) >= 17


def test_mrqap_has_power():
    def real(rng):
        z = rng.normal(size=(16, 3))
        x, y = factor_matrix(rng, 16, 0.6, z), factor_matrix(rng, 16, 0.6, z)
        return inference.mrqap(y, {"x": x, "noise": factor_matrix(rng, 16)}, permutations=99).p["x"]

    assert rejections(real, 20) >= 16


def test_mantel_keeps_its_size_where_naive_p_values_do_not():
    pairs = np.triu_indices(16, 1)

    def independent(rng):
        return factor_matrix(rng, 16), factor_matrix(rng, 16)

    assert rejections(lambda rng: inference.mantel(*independent(rng), permutations=99).p, 80) <= 17
    naive = rejections(lambda rng: stats.spearmanr(*(m[pairs] for m in independent(rng))).pvalue, 80)
    assert naive >= 16


def test_commonality_by_hand_for_two_predictors():
    rng = np.random.default_rng(0)
    x = {"a": factor_matrix(rng, 15), "b": factor_matrix(rng, 15)}
    y = x["a"] + x["b"] + factor_matrix(rng, 15)
    pairs = np.triu_indices(15, 1)
    z = {k: m[pairs] for k, m in x.items()}

    def r2(*names):
        return sm.OLS(y[pairs], sm.add_constant(np.column_stack([z[k] for k in names]))).fit().rsquared

    table = inference.commonality(y, x, rank=False, bootstraps=50, permutations=50)
    assert table.loc["a", "share"] == pytest.approx(r2("a", "b") - r2("b"))
    assert table.loc["a & b", "share"] == pytest.approx(r2("a") + r2("b") - r2("a", "b"))
    assert table["share"].sum() == pytest.approx(table.attrs["r2"])
    assert table.loc["a", "low"] < table.loc["a", "share"] < table.loc["a", "high"]
    assert table.loc["a", "null_high"] < table.loc["a", "share"]


def test_agreement_and_summaries():
    rng = np.random.default_rng(0)
    a, b = factor_matrix(rng, 20), factor_matrix(rng, 20)
    pairs = np.triu_indices(20, 1)
    out = inference.agreement(a, b, bootstraps=100)
    assert out.value == pytest.approx(stats.spearmanr(a[pairs], b[pairs]).statistic)
    assert out.low < out.value < out.high
    labels = ["x"] * 10 + ["y"] * 10
    same = inference.summarise(a, labels=labels, same=True, bootstraps=50)
    values = np.r_[inference.upper(a[:10, :10]), inference.upper(a[10:, 10:])]
    assert same.value == pytest.approx(values.mean())
    assert inference.summarise(a, 0.1, bootstraps=0).value == pytest.approx(np.quantile(a[pairs], 0.1))


# --- same label or other ----------------------------------------------------------------------------------


def test_contrast_by_hand():
    m = np.array([[1, 0.9, 0.2, 0.4], [0.9, 1, 0.3, 0.1], [0.2, 0.3, 1, 0.35], [0.4, 0.1, 0.35, 1]])
    c = inference.within_between(m, list("xxyy"), permutations=50, bootstraps=50, pair_bootstraps=50)
    assert c.within == pytest.approx(0.625) and c.between == pytest.approx(0.25)
    assert (c.n_within, c.n_between, c.n) == (2, 4, 4)
    # within .9, .35 against .2 .4 .3 .1: seven of eight comparisons are won
    assert c.auc == pytest.approx(7 / 8)
    u = stats.mannwhitneyu([0.9, 0.35], [0.2, 0.4, 0.3, 0.1])
    assert c.mann_whitney_p == pytest.approx(u.pvalue)


def test_contrast_chosen_pairs_and_missing_kinds():
    m = np.kron(np.eye(3), np.ones((4, 4)))
    labels = pd.Series(np.repeat(list("xyz"), 4), index=range(12))
    keep = np.ones((12, 12), dtype=bool)
    keep[:4] = keep[:, :4] = False
    assert inference.within_between(m, labels, pairs=keep, permutations=9, bootstraps=9).n_within == 12
    alone = inference.within_between(m, ["same"] * 12)
    assert np.isnan(alone.auc) and alone.n_between == 0 and alone.n_within == 66
    with pytest.raises(DataError, match="none for benchmark"):
        inference.within_between(m, labels.iloc[:5])
    with pytest.raises(DataError, match="missing for benchmark"):
        inference.within_between(m, [None] + ["x"] * 11)


def test_weighted_auc_of_the_bootstrap_is_that_of_a_resample():
    rng = np.random.default_rng(0)
    v, same = rng.integers(0, 6, size=40).astype(float), rng.random(40) < 0.4
    weight = rng.integers(0, 4, size=(5, 40))
    order = np.argsort(v, kind="stable")
    ties = np.flatnonzero(np.r_[True, np.diff(v[order]) != 0])
    out = inference._weighted_contrast(weight, v, same, order, ties)
    for w, (difference, auc) in zip(weight, out):
        one, other = np.repeat(v[same], w[same]), np.repeat(v[~same], w[~same])
        assert difference == pytest.approx(one.mean() - other.mean())
        u = stats.mannwhitneyu(one, other).statistic
        assert auc == pytest.approx(u / len(one) / len(other))


def test_pair_tests_are_overconfident_with_unequal_labels_and_the_label_permutation_is_not():
    """No label effect, but pairs share benchmarks and one label dominates, as MMLU and BBH do in the paper."""
    rates = inference.contrast_calibration(np.repeat(np.arange(4), [14, 2, 2, 2]), simulations=80, seed=1)
    assert rates["pairs_bootstrap"] >= 0.15 and rates["mann_whitney"] >= 0.15
    assert rates["label_permutation"] <= 0.14  # binomial(80, .05): P(> 11) < .001


def test_label_permutation_finds_blocks():
    m = inference.within_between(np.kron(np.eye(4), np.ones((4, 4))), np.repeat(np.arange(4), 4), permutations=199)
    assert m.p == pytest.approx(1 / 200) and m.auc_p == pytest.approx(1 / 200)


def test_permutation_stays_inside_strata():
    """Labels equal to strata cannot be told from them: every permutation equals the data, p is 1."""
    labels = np.repeat(list("xy"), 6)
    m = np.kron(np.eye(2), np.ones((6, 6)))
    assert inference.within_between(m, labels, strata=labels, permutations=50, bootstraps=0).p == 1.0


def test_group_means_and_clique():
    m = named(np.array([[1, 0.9, 0.8, 0.1], [0.9, 1, 0.7, 0.2], [0.8, 0.7, 1, 0.6], [0.1, 0.2, 0.6, 1]]))
    mean, count = inference.group_means(m, pd.Series(list("xxyy"), index=list("abcd")))
    assert mean.loc["x", "x"] == pytest.approx(0.9) and mean.loc["x", "y"] == pytest.approx(0.45)
    assert count.loc["x", "y"] == 4 and count.loc["y", "y"] == 1
    assert inference.maximum_clique(m, 0.65) == ["a", "b", "c"]
    assert inference.maximum_clique(m, 2.0) == ["a"]


def test_bootstrap_at_the_paper_size():
    rng = np.random.default_rng(0)
    low, high = inference.bootstrap_models(rng.normal(size=(88, 32)), bootstraps=100)
    assert low.shape == (88, 88) and (low.to_numpy() <= high.to_numpy()).all()
