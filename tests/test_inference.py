"""Statistics over matrices: hand-worked cases, agreement with maintained libraries, calibration by simulation."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

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


def test_adjusted_p_values_by_hand():
    # sorted p * m / rank, made monotone from the right: .01*4/1, .02*4/2, .03*4/3, .5
    out = inference.adjust([0.03, 0.01, np.nan, 0.5, 0.02])
    np.testing.assert_allclose(out, [0.04, 0.04, np.nan, 0.5, 0.04])
    # sorted p * (m - rank + 1), made monotone from the left: .01*4, .02*3, .03*2, .5
    out = inference.adjust([0.03, 0.01, np.nan, 0.5, 0.02], "holm")
    np.testing.assert_allclose(out, [0.06, 0.04, np.nan, 0.5, 0.06])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), min_size=1, max_size=12))
def test_adjusted_p_values_equal_statsmodels_in_any_order(p):
    p = np.array(p)
    known = ~np.isnan(p)
    for method, theirs in (("bh", "fdr_bh"), ("by", "fdr_by"), ("holm", "holm")):
        ours = inference.adjust(p, method)
        assert (np.isnan(ours) == ~known).all()
        if known.any():
            np.testing.assert_allclose(ours[known], multipletests(p[known], method=theirs)[1], atol=1e-12)
    square = np.resize(p, (2, len(p)))
    assert inference.adjust(square).shape == square.shape


def test_numbers_that_are_no_p_values_are_refused():
    with pytest.raises(DataError, match=r"1 of 2 p-values .* the first is 1\.7"):
        inference.adjust([1.7, 0.2, np.nan])
    with pytest.raises(ValueError, match="did you mean 'holm'"):
        inference.adjust([0.2], "holmes")
    assert inference.adjust([1 + 1e-12])[0] == 1  # rounding is no error
    assert np.isnan(inference.adjust([np.nan])).all() and inference.adjust([]).shape == (0,)


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


def test_interval_percentiles_and_the_recentred_kinds_against_a_loop():
    rng = np.random.default_rng(0)
    draws, estimate = np.tanh(rng.normal(0.4, 0.3, size=(400, 3))), np.array([0.2, 0.5, 0.9])
    low, high = inference.interval(draws, 0.9)
    moved = inference.interval(draws, estimate=estimate)
    fisher = inference.interval(draws, estimate=estimate, fisher=True)
    for k in range(3):
        assert (low[k], high[k]) == pytest.approx(tuple(np.percentile(draws[:, k], [5, 95])))
        shift = estimate[k] - draws[:, k].mean()
        assert (moved[0][k], moved[1][k]) == pytest.approx(tuple(np.percentile(draws[:, k] + shift, [2.5, 97.5])))
        z = np.arctanh(draws[:, k])
        z = z - z.mean() + np.arctanh(estimate[k])
        assert (fisher[0][k], fisher[1][k]) == pytest.approx(tuple(np.tanh(np.percentile(z, [2.5, 97.5]))))
    assert (fisher[0] < estimate).all() and (estimate < fisher[1]).all() and fisher[1].max() < 1
    with pytest.raises(ValueError, match="give estimate="):
        inference.interval(draws, fisher=True)
    gaps = draws.copy()
    gaps[:250, 0], gaps[:3, 1] = np.nan, np.nan
    low, high = inference.interval(gaps, estimate=estimate)
    assert np.isnan(low[0]) and low[1] < 0.5 < high[1] and (low[2], high[2]) == (moved[0][2], moved[1][2])


# --- reliability ------------------------------------------------------------------------------------------


def test_reliability_table_is_the_median_stepped_up():
    rng = np.random.default_rng(0)
    draws = rng.uniform(-0.9, 0.9, size=(31, 4))
    draws[:, 3] = np.nan
    draws[4:20, 0] = np.nan
    table = inference.reliability_table(draws, list("abcd")).set_index("benchmark")
    for k, name in enumerate("abc"):
        known = sorted(r for r in draws[:, k] if r == r)
        r = known[len(known) // 2]  # an odd number of draws: the middle one
        assert table.loc[name, "reliability"] == pytest.approx(2 * r / (1 + r) if r > 0 else r)
        assert table.loc[name, "low"] <= table.loc[name, "reliability"] <= table.loc[name, "high"]
    assert table.loc["d"].isna().all()
    plain = inference.reliability_table(draws, list("abcd"), factor=1.0)["reliability"]
    assert plain[1] == np.median(draws[:, 1])


def test_halves_that_contradict_each_other_have_no_reliability_below_minus_one():
    ladder = np.arange(10.0)
    assert inference.split_half(np.stack([ladder, -ladder])) == -1
    rng = np.random.default_rng(1)
    parts = np.stack([ladder + rng.normal(0, 4, 10), -ladder + rng.normal(0, 4, 10)])
    assert -1 <= inference.split_half(parts) < 0


def test_reliability_formulas():
    assert inference.spearman_brown(0.6) == pytest.approx(0.75)
    np.testing.assert_allclose(
        inference.spearman_brown([-0.99, -0.5, 0.0, np.nan, 0.5, 1.0], 3.0), [-0.99, -0.5, 0.0, np.nan, 0.75, 1.0]
    )
    stepped = inference.spearman_brown(np.linspace(-1, 1, 401))
    assert (np.diff(stepped) > 0).all() and np.abs(stepped).max() == 1  # no jump, no pole, still a correlation
    assert inference.disattenuate(0.3, 0.36, 1.0) == pytest.approx(0.5)
    assert np.isnan(inference.disattenuate(0.3, -0.1, 1.0))
    assert np.isnan(inference.disattenuate(0.3, -0.5, -0.5))
    r = np.array([0.81, -0.2, 1.0])
    ceiling = inference.noise_ceiling(r[:, None], r)
    assert ceiling[0, 2] == pytest.approx(0.9) and ceiling[0, 0] == pytest.approx(0.81) and ceiling[0, 1] == 0
    assert inference.noise_ceiling(-0.5, -0.5) == 0  # two measures without reliability have no ceiling of 0.5


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


@settings(max_examples=40, deadline=None)
@given(
    arrays(float, (3, 7), elements=st.sampled_from([0.0, 1.0, 2.0, np.nan])),
    st.lists(st.integers(0, 3), min_size=7, max_size=7),
)
def test_weighted_spearman_equals_scipy_on_the_sample_with_copies(rows, weights):
    ours = inference.spearman(rows, np.array([weights, np.ones(7)]))[0]
    for a in range(3):
        for b in range(3):
            both = ~np.isnan(rows[a]) & ~np.isnan(rows[b])
            x, y = (np.repeat(r[both], np.array(weights)[both]) for r in (rows[a], rows[b]))
            if np.count_nonzero(np.array(weights)[both]) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
                assert np.isnan(ours[a, b])
            else:
                assert ours[a, b] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(arrays(float, (2, 4, 6), elements=st.sampled_from([0.0, 1.0, 2.0, 3.5])))
def test_spearman_by_row_equals_scipy(pair):
    ours = inference.spearman_by_row(*pair)
    against_one = inference.spearman_by_row(pair[0], pair[1, 0])
    for k in range(4):
        for found, other in ((ours[k], pair[1, k]), (against_one[k], pair[1, 0])):
            if np.ptp(pair[0, k]) == 0 or np.ptp(other) == 0:
                assert np.isnan(found)
            else:
                assert found == pytest.approx(stats.spearmanr(pair[0, k], other).statistic, abs=1e-12)
    assert np.isnan(inference.spearman_by_row([1.0, np.nan, 3.0], [1.0, 2.0, 3.0]))[0]


def test_spearman_of_many_pairs_needs_memory_in_proportion():
    """Two matrices of 250 benchmarks have 31,125 pairs; a table of all pairs of pairs would take 7 GiB a row."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 31_125))
    rows[1] += rows[0]
    for gaps in (0, 100):
        rows[0, :gaps] = np.nan
        tracemalloc.start()
        found = inference.spearman(rows)[0, 1]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == pytest.approx(stats.spearmanr(*rows[:, gaps:]).statistic, abs=1e-12)
        assert peak < 60 * rows.nbytes


def test_matrix_spearman_matches_names_and_leaves_out_open_pairs():
    rng = np.random.default_rng(0)
    a, b = (pd.DataFrame(factor_matrix(rng, 9), list("abcdefghi"), list("abcdefghi")) for _ in range(2))
    a.loc["a", "b"] = a.loc["b", "a"] = np.nan
    names = list("hgfedcba")  # another order, one fewer
    pairs = [(p, q) for k, p in enumerate(names) for q in names[k + 1 :] if {p, q} != {"a", "b"}]
    wanted = stats.spearmanr([a.loc[p] for p in pairs], [b.loc[p] for p in pairs]).statistic
    assert inference.matrix_spearman(a, b.loc[names, names]) == pytest.approx(wanted)
    with pytest.raises(DataError, match="1 common pairs; at least 3"):
        inference.matrix_spearman(a, b.loc[["h", "i"], ["h", "i"]])


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


def test_contrast_intervals_are_those_of_a_loop_over_resampled_benchmarks():
    """Every pair of two different benchmarks counts as often as both were drawn; a benchmark never meets its copy."""
    rng = np.random.default_rng(0)
    m = np.round(rng.normal(size=(10, 10)), 0)  # with ties
    m = m + m.T
    labels = np.array(list("aaaabbbbcc"))
    c = inference.within_between(m, labels, bootstraps=40, permutations=0, pair_bootstraps=0, seed=3)
    counts = np.random.default_rng(3).multinomial(10, np.full(10, 0.1), size=40)
    differences, areas = [], []
    for count in counts:
        drawn = np.repeat(np.arange(10), count)
        pairs = [(a, b) for k, a in enumerate(drawn) for b in drawn[k + 1 :] if a != b]
        one = [m[a, b] for a, b in pairs if labels[a] == labels[b]]
        other = [m[a, b] for a, b in pairs if labels[a] != labels[b]]
        differences.append(np.mean(one) - np.mean(other))
        areas.append(stats.mannwhitneyu(one, other).statistic / len(one) / len(other))
    assert (c.low, c.high) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])))
    assert (c.auc_low, c.auc_high) == pytest.approx(tuple(np.percentile(areas, [2.5, 97.5])))


def test_auc_leaves_out_what_is_not_known():
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(12)]
    m = rng.normal(size=(12, 12))
    m = pd.DataFrame(m + m.T, names, names)
    m.iloc[2, 5] = m.iloc[5, 2] = np.nan
    labels = pd.Series(rng.integers(0, 3, 12), names, dtype=object)
    labels["7"], labels["unheard of"] = None, 1
    wanted = pd.DataFrame(rng.random((12, 12)) < 0.8, names, names)
    wanted = wanted & wanted.T
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :] if "7" not in (a, b)]
    pairs = [(a, b) for a, b in pairs if m.loc[a, b] == m.loc[a, b] and wanted.loc[a, b]]
    same = [labels[a] == labels[b] for a, b in pairs]
    found = inference.auc(m, labels, pairs=wanted, bootstraps=50)
    assert found["auc"] == pytest.approx(roc_auc_score(same, [m.loc[a, b] for a, b in pairs]))
    assert (found["within"], found["between"]) == (sum(same), len(same) - sum(same))
    assert found["low"] < found["auc"] < found["high"]
    assert np.isnan(inference.auc(m, dict.fromkeys(names, "all"))["auc"])


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


# --- what is resampled ------------------------------------------------------------------------------------


def test_the_reliability_interval_resamples_whole_groups():
    """With a single lineage every resample is the whole sample; with two it has at most three values."""
    rng = np.random.default_rng(0)
    scores, error = rng.normal(size=(2, 16)), np.full((2, 16), 0.3)
    whole = inference.score_reliability_table(scores, error, ["a"] * 16)
    assert (whole["low"] == whole["reliability"]).all() and (whole["high"] == whole["reliability"]).all()
    two = inference.score_reliability_table(scores, error, np.repeat(["a", "b"], 8), bootstraps=400)
    halves = [inference.score_reliability(np.tile(scores[:, h], 2), error)[0] for h in (slice(8), slice(8, 16))]
    ends = sorted([*halves, whole["reliability"][0]])
    assert two["low"][0] == pytest.approx(ends[0]) and two["high"][0] == pytest.approx(ends[-1])
    single = inference.score_reliability_table(scores, error)
    assert (single["low"] < single["reliability"]).all() and (single["reliability"] < single["high"]).all()


def test_no_resampling_of_benchmarks_pairs_one_with_its_own_copy():
    """The diagonal (1) never enters: all pairs lie within 0.19 to 0.21, so must every interval."""
    rng = np.random.default_rng(0)
    m = 0.2 + 0.01 * rng.uniform(-1, 1, size=(8, 8))
    m = (m + m.T) / 2
    np.fill_diagonal(m, 1.0)
    labels = list("xxxxyyyy")
    for statistic in ("mean", "median", 0.9):
        found = inference.summarise(m, statistic, bootstraps=100)
        assert 0.19 <= found.low <= found.high <= 0.21
    found = inference.summarise(m, labels=labels, same=True, bootstraps=100)
    assert 0.19 <= found.low <= found.high <= 0.21
    c = inference.within_between(m, labels, bootstraps=200, permutations=0, pair_bootstraps=0)
    assert -0.02 <= c.low <= c.high <= 0.02
    other = m.copy()
    np.fill_diagonal(other, -9.0)  # a benchmark's copy would pull the correlation of the matrices apart
    assert inference.agreement(m, other, method="pearson", bootstraps=50) == pytest.approx((1, 1, 1))


def test_matrix_tests_see_relations_of_both_signs():
    rng = np.random.default_rng(0)
    a, third = (factor_matrix(rng, 14) for _ in range(2))
    noise = factor_matrix(rng, 14)
    for sign in (1, -1):
        b = sign * a + 0.3 * noise
        assert inference.mantel(b, a, permutations=199).p < 0.02
        assert inference.partial_mantel(b, a, third, permutations=199).p < 0.02
        table = inference.mrqap(b, {"a": a, "third": third}, permutations=199)
        assert table.loc["a", "p"] < 0.02 and np.sign(table.loc["a", "coef"]) == sign
    assert inference.mantel(-a, a, permutations=199, alternative="greater").p > 0.9
