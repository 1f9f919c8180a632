"""Selection against refitting loops, scikit-learn, and bad input."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression
from sklearn.preprocessing import StandardScaler

from helpers import screening, selection
from helpers.errors import DataError


def refitting_loop(x, y, max_size, criterion="aic"):
    """Forward selection the slow way: one statsmodels fit for each candidate at each step."""
    chosen, path = [], []
    best, before, worst, n = np.inf, sm.OLS(y, np.ones(len(y))).fit().ssr, 1.0, len(y)
    spread = (x - x.mean(axis=0)).std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)  # the same models, rounded less
    while len(chosen) < max_size:
        values, ssr, ratio = (np.full(x.shape[1], np.inf) for _ in range(3))
        for j in range(x.shape[1]):
            design = sm.add_constant(x[:, [*chosen, j]], has_constant="add")
            if np.linalg.matrix_rank(design / np.linalg.norm(design, axis=0), tol=1e-8) < len(chosen) + 2:
                continue  # collinear or constant: it adds no direction
            fit = sm.OLS(y, sm.add_constant(scaled[:, [*chosen, j]], has_constant="add")).fit()
            values[j] = {"aic": fit.aic, "bic": fit.bic, "adjusted_r2": -fit.rsquared_adj}[criterion]
            remainder = sm.OLS(x[:, j], sm.add_constant(x[:, chosen], has_constant="add")).fit().ssr
            ssr[j] = fit.ssr
            ratio[j] = max(worst, np.sqrt(x[:, j] @ x[:, j] / remainder))
        if np.isinf(values).all() or not values.min() < best:
            break
        slack = 4 * np.finfo(float).eps * n * before * ratio  # what rounding can do to a candidate's SSR
        equal = ssr <= ssr.min() * np.exp(1e-9 / n) + slack + slack[ssr.argmin()]
        entry = int(np.flatnonzero(np.isfinite(values) & equal)[0])
        best, before, worst = values[entry], ssr[entry], ratio[entry]
        chosen.append(entry)
        path.append(best)
    final = sm.OLS(y, sm.add_constant(x[:, chosen], has_constant="add")).fit()
    return chosen, path, final


@st.composite
def designs(draw):
    """Random designs with duplicated, collinear, shifted, rescaled and constant columns."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, p = draw(st.integers(8, 24)), draw(st.integers(1, 14))
    x = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-3, 4, size=p)
    extra = []
    for kind in draw(st.lists(st.sampled_from(["copy", "affine", "sum", "constant"]), max_size=4)):
        j, k = rng.integers(p), rng.integers(p)
        extra.append(
            {
                "copy": x[:, j],
                "affine": 3 - 2 * x[:, j],
                "sum": x[:, j] + x[:, k],
                "constant": np.full(n, 0.1),
            }[kind]
        )
    x = np.column_stack([x, *extra])[:, rng.permutation(p + len(extra))]
    y = rng.normal(size=n)
    if draw(st.booleans()):
        y = y + x[:, : min(3, x.shape[1])] @ rng.normal(size=min(3, x.shape[1]))
    return x, y


@settings(max_examples=200, deadline=None)
@given(designs())
def test_forward_aic_is_the_refitting_loop(design):
    x, y = design
    cap = min(6, len(y) - 2)
    chosen, path, final = refitting_loop(x, y, cap)
    fit = selection.forward_aic(x, y, max_size=cap)
    np.testing.assert_allclose(fit.aic, path, rtol=1e-7, atol=1e-6)
    assert fit.indices.tolist() == chosen
    scale = np.abs(np.r_[final.params[0], final.params[1:] * x[:, chosen].std(axis=0)]).max()
    np.testing.assert_allclose(
        fit.coef * x[:, chosen].std(axis=0), final.params[1:] * x[:, chosen].std(axis=0), atol=1e-6 * scale
    )
    assert fit.intercept == pytest.approx(final.params[0], abs=1e-6 * scale)
    assert fit.r2 == pytest.approx(final.rsquared, abs=1e-9)
    np.testing.assert_allclose(fit.predict(x), final.fittedvalues, atol=1e-6 * np.abs(y).max())


@settings(max_examples=25, deadline=None)
@given(designs(), st.sampled_from(["bic", "adjusted_r2"]))
def test_other_criteria_are_the_refitting_loop(design, criterion):
    x, y = design
    cap = min(5, len(y) - 2)
    chosen, path, _ = refitting_loop(x, y, cap, criterion)
    fit = selection.forward(x, y, criterion, max_size=cap)
    assert fit.indices.tolist() == chosen
    np.testing.assert_allclose(fit.criterion, path, rtol=1e-7, atol=1e-6)


def test_whole_path_on_noise_is_the_refitting_loop():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(16, 40)), rng.normal(size=16)
    chosen, path, _ = refitting_loop(x, y, 14)
    fit = selection.forward_aic(x, y)
    assert fit.indices.tolist() == chosen
    np.testing.assert_allclose(fit.aic, path, rtol=1e-6)


def test_noise_saturates():
    """METHOD section 3: with 32 models, AIC takes a saturated model out of pure noise."""
    rng = np.random.default_rng(0)
    fit = selection.forward_aic(rng.normal(size=(32, 1000)), rng.normal(size=32))
    assert len(fit) >= 23 and fit.r2 > 0.999 and fit.saturated
    assert len(fit) <= 30  # n_models - 2
    assert not selection.forward_aic(rng.normal(size=(32, 5)), rng.normal(size=32), max_size=2).saturated


def test_saturation_rule():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 60)), rng.normal(size=20)
    sizes = {size: selection.forward_aic(x, y, max_size=size).saturated for size in range(1, 12)}
    assert [size for size, flag in sizes.items() if flag] == [10, 11]  # 2 (k + 1) > 20


def test_reasons_to_stop():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(12, 30)), rng.normal(size=12)
    assert selection.forward_aic(x, y, max_size=3).stopped == "max_size"
    assert selection.forward_aic(x, y).stopped == "models"
    assert selection.forward_aic(x, 2 * x[:, 4] - 1).stopped == "exact"
    assert selection.forward_aic(np.repeat(x[:, :1], 4, axis=1), y).stopped == "collinear"
    weak = selection.forward_aic(x[:, :2], y, tolerance=1e6)
    assert weak.stopped == "criterion" and len(weak) == 1  # the first always enters


def test_lowest_position_wins_among_copies():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(15, 64)), rng.normal(size=15)
    first = selection.forward_aic(x, y, max_size=5)
    for shift in range(1, 9):  # other columns, other places in a vector register
        wide = np.column_stack([x[:, :shift], x, 5 - 3 * x])
        again = selection.forward_aic(wide, y, max_size=5)
        expected = [j if j < shift else j + shift for j in first.indices]
        assert again.indices.tolist() == expected


def test_input_is_left_alone():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(12, 30)), rng.normal(size=12)
    before = x.copy(), y.copy()
    selection.forward_aic(x, y)
    selection.lasso(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.1, 0.3]))
def test_penalised_fits_are_scikit_learn(seed, alpha):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 30)) * 3 + 5, rng.normal(size=20) + 2
    scaled = StandardScaler().fit_transform(x)
    plain = Lasso(alpha=alpha, fit_intercept=False, max_iter=100_000).fit(scaled, y - y.mean())
    fit = selection.lasso(x, y, alpha)
    assert sorted(fit.indices) == np.flatnonzero(plain.coef_).tolist()
    np.testing.assert_allclose(fit.coef, (plain.coef_ / x.std(axis=0))[fit.indices], rtol=1e-6)
    np.testing.assert_allclose(fit.predict(x), plain.predict(scaled) + y.mean(), atol=1e-9)
    assert (np.diff(np.abs(plain.coef_[fit.indices])) <= 0).all()
    plain = ElasticNet(alpha=alpha, fit_intercept=False, max_iter=100_000).fit(scaled, y - y.mean())
    assert sorted(selection.elastic_net(x, y, alpha).indices) == np.flatnonzero(plain.coef_).tolist()


def test_penalty_can_leave_nothing():
    rng = np.random.default_rng(6)
    fit = selection.lasso(rng.normal(size=(20, 30)), 1e-6 * rng.normal(size=20))
    assert len(fit) == 0 and fit.r2 == pytest.approx(0) and not fit.saturated


X, Y = np.random.default_rng(7).normal(size=(10, 6)), np.arange(10.0)
BAD = [
    (X[:7], Y[:7], "7 models are too few"),
    (X, np.ones(10), "have the score 1"),
    (X, np.where(Y == 3, np.nan, Y), "score is nan at model 3"),
    (X, np.where(Y == 3, np.inf, Y), "score is inf at model 3"),
    (np.where(X == X[2, 4], np.nan, X), Y, "features is nan at model 2, candidate 4"),
    (np.where(X == X[2, 4], -np.inf, X), Y, "features is -inf at model 2, candidate 4"),
    (X.T, Y, "expected \\(n_models, n_candidates\\)"),
    (X, Y[None], "expected"),
    (X[:, :0], Y, "expected"),
    (np.ones((10, 3)), Y, "None of the 3 candidates varies"),
]


@pytest.mark.parametrize("x, y, message", BAD)
def test_bad_input_is_named(x, y, message):
    for call in (selection.forward_aic, selection.lasso, selection.elastic_net):
        with pytest.raises(DataError, match=message):
            call(x, y)


def test_more_terms_than_models_is_an_error():
    with pytest.raises(DataError, match="max_size is 9, but 10 models allow 1 to 8"):
        selection.forward_aic(X, Y, max_size=9)
    with pytest.raises(DataError, match="max_size is 0"):
        selection.forward_aic(X, Y, max_size=0)
    with pytest.raises(DataError, match="criterion='aicc' is unknown; did you mean 'aic'"):
        selection.forward(X, Y, "aicc")


def population(seed=0, n_units=400, n_models=24, n_benchmarks=4):
    """Each benchmark follows one unit, plus noise; six families of four models."""
    rng = np.random.default_rng(seed)
    surprisal = pd.DataFrame(rng.gamma(4, size=(n_units, n_models)), columns=[f"m{i:02d}" for i in range(n_models)])
    surprisal.index = pd.RangeIndex(1000, 1000 + n_units, name="unit_id")
    scores = -surprisal.iloc[:n_benchmarks] + 0.3 * rng.normal(size=(n_benchmarks, n_models))
    scores.index = [f"bench{i}" for i in range(n_benchmarks)]
    return surprisal, scores, [f"family{i // 4}" for i in range(n_models)]


@pytest.mark.parametrize("mode", selection.MODES)
def test_select_finds_the_unit_in_every_mode(mode):
    surprisal, scores, groups = population()
    result = selection.select(surprisal, scores, mode, groups=groups)
    table = result.signatures
    assert list(table.columns) == ["benchmark", "unit_id", "coef", "order", "method", "fold"]
    first = table[table["order"] == 0].set_index("benchmark")
    assert first["unit_id"].tolist() == [1000, 1001, 1002, 1003]
    assert (first["coef"] < 0).all()
    assert (result.report["reason"] == "").all()
    for name, fit in result.fits.items():
        units = surprisal.index[result.candidates[name][fit.indices]]
        assert table.loc[table["benchmark"] == name, "unit_id"].tolist() == units.tolist()
    if mode == "corrected":
        assert (result.report["r2_held_out"] > 0.5).all()
        assert result.report["size"].max() <= 4 and not result.report["saturated"].any()
    if mode == "released-code":
        assert (result.report["candidates"] == 2).all()  # one at each end


def test_paper_mode_is_its_parts():
    surprisal, scores, _ = population(1)
    result = selection.select(surprisal, scores, "paper", ratio=0.05)
    kept = screening.screen(screening.thrush(surprisal.to_numpy(), scores.to_numpy()), 0.05)
    for name, units, y in zip(scores.index, kept, scores.to_numpy()):
        by_hand = selection.forward_aic(np.exp(surprisal.to_numpy()[units].T), y)
        assert result.fits[name].indices.tolist() == by_hand.indices.tolist()
        np.testing.assert_allclose(result.fits[name].coef, by_hand.coef)


def test_held_out_error_by_hand():
    """Every number again with scikit-learn, fold by fold: nothing of a fold reaches its selection."""
    surprisal, scores, groups = population(2, n_units=150, n_models=20, n_benchmarks=2)
    p, y, g = surprisal.to_numpy(), scores.to_numpy(), np.array(groups[:20])
    got = selection.held_out_error(p, y, g, ratio=0.05, max_size=3)
    squares = np.zeros((2, 4))
    for group in np.unique(g):
        out = g == group
        kept = screening.screen(screening.thrush(p[:, ~out], y[:, ~out]), 0.05)
        for b, units in enumerate(kept):
            x, new = p[np.ix_(units, ~out)].T, p[np.ix_(units, out)].T
            order = selection.forward(x, y[b, ~out], "adjusted_r2", max_size=3, tolerance=-np.inf).indices
            squares[b, 0] += ((y[b, out] - y[b, ~out].mean()) ** 2).sum()
            for size in (1, 2, 3):
                fit = LinearRegression().fit(x[:, order[:size]], y[b, ~out])
                squares[b, size] += ((y[b, out] - fit.predict(new[:, order[:size]])) ** 2).sum()
    np.testing.assert_allclose(got, squares / squares[:, :1], rtol=1e-8)


def test_held_out_error_on_noise_is_above_one():
    rng = np.random.default_rng(8)
    error = selection.held_out_error(
        rng.normal(size=(3000, 32)), rng.normal(size=(6, 32)), np.arange(32) % 8, max_size=4
    )
    assert error[:, 1:].mean() > 1  # worse than predicting the mean


def test_missing_scores_and_units():
    surprisal, scores, groups = population(3)
    scores.iloc[0, :3] = np.nan
    scores.iloc[1, 7:] = np.nan
    scores.iloc[2] = 0.25
    surprisal.iloc[50:60, 1] = np.nan
    result = selection.select(surprisal, scores, groups=groups, ratio=0.1)
    assert result.report["reason"].tolist() == [
        "",
        "7 scored models, fewer than 8",
        "the same score, 0.25, for all 24 models",
        "",
    ]
    assert set(result.signatures["benchmark"]) == {"bench0", "bench3"}
    assert result.report.loc["bench0", "n_models"] == 21
    assert result.report.loc["bench0", "incomplete"] == 0  # model 1, which lacks them, has no score there
    assert result.report.loc["bench3", "candidates"] + result.report.loc["bench3", "incomplete"] == 80


def test_excluded_units_never_enter():
    surprisal, scores, groups = population(9)
    exclude = np.zeros((400, 4), dtype=bool)
    exclude[0, 0] = exclude[1, 1] = True
    result = selection.select(surprisal, scores, groups=groups, ratio=0.05, exclude=exclude)
    first = result.signatures.query("order == 0")["unit_id"].tolist()
    assert first[0] != 1000 and first[1] != 1001 and first[2:] == [1002, 1003]
    assert (result.report["r2_held_out"][:2] < result.report["r2_held_out"][2:].min()).all()
    with pytest.raises(DataError, match=r"exclude has shape \(4, 400\)"):
        selection.select(surprisal, scores, exclude=exclude.T)


def test_name_ties_sort_models_by_name():
    surprisal, scores, _ = population(4)
    scores = scores.round(0)
    shuffled = np.random.default_rng(0).permutation(scores.shape[1])
    one = selection.select(surprisal, scores, "released-code", ratio=0.02)
    two = selection.select(surprisal.iloc[:, shuffled], scores.iloc[:, shuffled], "released-code", ratio=0.02)
    pd.testing.assert_frame_equal(one.signatures, two.signatures)


def test_select_names_bad_input():
    surprisal, scores, groups = population(5)
    twin = surprisal.copy()
    twin["m03"] = twin["m01"]
    cases = [
        (twin, scores, {}, "identical surprisal on every unit: m01 = m03"),
        (surprisal.rename(columns={"m00": "x"}), scores, {}, "m00, x occur in one only"),
        (surprisal.iloc[:, ::-1], scores, {}, "differ in order"),
        (surprisal.iloc[:, :5], scores, {}, "with the same models"),
        (surprisal.iloc[:, :5], scores.iloc[:, :5], {}, "5 models are too few"),
        (surprisal, scores, {"mode": "papr"}, "did you mean 'paper'"),
        (surprisal, scores, {"rato": 0.1}, "no setting 'rato'; did you mean 'ratio'"),
        (surprisal, scores, {"level": "lg"}, "did you mean 'log'"),
        (surprisal, scores, {"groups": groups[:3]}, "groups has shape"),
        (surprisal, scores, {"groups": ["a"] * 24}, "All 24 models are in group 'a'"),
        (surprisal, scores * 0, {}, "No benchmark can be selected for"),
        (surprisal, scores.where(scores < scores.max().max(), np.inf), {}, "is infinite"),
        (surprisal, pd.concat([scores, scores]), {}, "'bench0' has more than one row"),
        (surprisal + 600, scores, {"mode": "paper"}, "beyond any use"),
    ]
    for p, y, options, message in cases:
        with pytest.raises(DataError, match=message):
            selection.select(p, y, **options)


def test_no_warning_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        selection.select(*population(6)[:2], mode="released-code", ratio=0.1)


def test_growth_is_the_same_for_a_benchmark_and_for_noise():
    """The size of an AIC signature follows the number of models, whatever the scores are."""
    surprisal, scores, _ = population(10, n_units=2000)
    for permute in (False, True):
        table = selection.growth(surprisal.to_numpy(), scores.to_numpy(), [8, 16, 24], permute=permute, ratio=0.05)
        sizes = table.groupby("models")["size"].median()
        assert sizes.is_monotonic_increasing and sizes[24] > 2 * sizes[8]
    capped = selection.growth(surprisal.to_numpy(), scores.to_numpy(), [24], max_size=2, draws=1)
    assert (capped["size"] == 2).all() and len(capped) == 4
    with pytest.raises(DataError, match="expected numbers from 8 to 24"):
        selection.growth(surprisal.to_numpy(), scores.to_numpy(), [25])
