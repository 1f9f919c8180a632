"""Screening against its definition, its textbook equivalents, and itself cut into blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata, spearmanr

from helpers import screening
from helpers.errors import DataError


def brute_thrush(surprisal, scores, ties="average"):
    """The double sum of METHOD, term by term, over the models that have both values."""
    out = np.full((len(surprisal), len(scores)), np.nan)
    method = {"average": "average", "name": "ordinal"}[ties]
    for j, p in enumerate(surprisal):
        for b, y in enumerate(scores):
            both = ~np.isnan(p) & ~np.isnan(y)
            if both.sum() < 2:
                continue
            rank = rankdata(p[both], method=method)
            value = y[both] if ties == "average" else rankdata(y[both], method="ordinal")
            pairs = itertools.combinations(range(both.sum()), 2)
            out[j, b] = sum(np.sign(value[k] - value[m]) * (rank[k] - rank[m]) for k, m in pairs)
    return out


@st.composite
def tables(draw, nan_surprisal=True):
    """Surprisal and scores with ties, missing values and any dtype."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n, m, b = draw(st.integers(1, 40)), draw(st.integers(4, 12)), draw(st.integers(1, 5))
    levels = draw(st.sampled_from([3, 6, 1000]))
    surprisal = rng.integers(0, levels, size=(n, m)).astype(draw(st.sampled_from([np.float32, np.float64]))) / 7
    scores = np.stack([rng.permutation(np.arange(m) % draw(st.integers(2, m))) for _ in range(b)]).astype(float)
    if draw(st.booleans()):
        scores[:, 2:][rng.random((b, m - 2)) < 0.3] = np.nan
        scores[:, :2] = [0.0, 1.0]
    if nan_surprisal and draw(st.booleans()):
        surprisal[rng.random((n, m)) < 0.2] = np.nan
    return surprisal, scores


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(["average", "name"]))
def test_thrush_is_the_double_sum(table, ties):
    surprisal, scores = table
    expected = brute_thrush(surprisal, scores, ties)
    np.testing.assert_array_equal(screening.thrush(surprisal, scores, ties=ties), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40))
def test_without_ties_thrush_is_spearman_and_preselect_is_kendall(seed, m):
    rng = np.random.default_rng(seed)
    surprisal, scores = rng.normal(size=(6, m)), rng.normal(size=(3, m))
    rho = 6 * screening.thrush(surprisal, scores) / (m * (m**2 - 1))
    eta = screening.preselect(surprisal, scores)
    for j, b in itertools.product(range(6), range(3)):
        assert rho[j, b] == pytest.approx(spearmanr(surprisal[j], scores[b]).statistic, abs=1e-6)
        tau = kendalltau(surprisal[j], scores[b], variant="b").statistic
        assert eta[j, b] == pytest.approx((1 - tau) / 2, abs=1e-6)
        descending = surprisal[j][np.argsort(scores[b])]
        literal = np.mean([descending[k] > descending[l_] for k, l_ in itertools.combinations(range(m), 2)])
        assert eta[j, b] == pytest.approx(literal, abs=1e-6)


def test_sign_maximum_and_released_value():
    m = 32
    score = np.arange(m, dtype=float)[None, :]
    falling, rising = -score, score
    gamma = screening.thrush(np.vstack([falling, rising]), score)
    assert gamma[:, 0].tolist() == [-5456.0, 5456.0]  # m (m^2 - 1) / 6
    ranks = rankdata(rising[0])
    ordered_pairs = sum(np.sign(score[0, k] - score[0, q]) * (ranks[k] - ranks[q]) for k in range(m) for q in range(m))
    assert ordered_pairs == 2 * gamma[1, 0]  # what the released code computes


def test_ties_by_name_follow_pandas_first():
    p, y = np.array([[2.0, 1.0, 1.0, 3.0]]), np.array([[0.5, 0.5, 0.2, 0.7]])
    rank = pd.Series(p[0]).rank(method="first").to_numpy()
    order = pd.Series(y[0]).rank(method="first").to_numpy()
    expected = sum(np.sign(order[k] - order[q]) * (rank[k] - rank[q]) for k, q in itertools.combinations(range(4), 2))
    assert screening.thrush(p, y, ties="name")[0, 0] == expected
    assert screening.thrush(p, y, ties="average")[0, 0] != expected


def test_monotone_transform_changes_nothing():
    rng = np.random.default_rng(1)
    surprisal, scores = rng.normal(size=(50, 10)), rng.normal(size=(2, 10))
    np.testing.assert_array_equal(screening.thrush(surprisal, scores), screening.thrush(np.exp(surprisal), scores))


def test_float64_ties_are_not_made_by_rounding():
    surprisal = 1.0 + np.arange(5)[None, :] * 1e-12  # all equal in float32
    assert screening.thrush(surprisal, np.arange(5.0)[None, :])[0, 0] == 20


@pytest.mark.parametrize("m", [128, 129, 300])
def test_many_models(m):
    rng = np.random.default_rng(m)
    surprisal, scores = rng.normal(size=(5, m)), rng.normal(size=(2, m))
    surprisal[0, :3] = np.nan
    got = screening.thrush(surprisal, scores)
    for j, b in itertools.product(range(5), range(2)):
        both = ~np.isnan(surprisal[j])
        n = both.sum()
        rho = spearmanr(surprisal[j][both], scores[b][both]).statistic
        assert got[j, b] == pytest.approx(rho * n * (n**2 - 1) / 6, rel=1e-5)
    stream = screening.screen_stream(np.split(surprisal, 5), scores, 0.2)
    assert all(np.array_equal(a, b) for a, b in zip(stream, screening.screen(got, 0.2)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.01, 0.1, 0.29, 0.5]), st.booleans())
def test_screen_takes_both_ends_of_a_stable_sort(seed, n, ratio, missing):
    rng = np.random.default_rng(seed)
    statistic = rng.integers(-3, 4, size=(n, 3)).astype(float)
    if missing:
        statistic[1:][rng.random((n - 1, 3)) < 0.3] = np.nan
    for column, kept in zip(statistic.T, screening.screen(statistic, ratio)):
        known = np.flatnonzero(~np.isnan(column))
        k = max(1, int(len(known) * ratio + 1e-9))
        order = known[np.argsort(column[known], kind="stable")]
        assert kept.tolist() == sorted({*order[:k], *order[-k:]})


@settings(max_examples=120, deadline=None)
@given(tables(), st.data(), st.sampled_from([0.02, 0.1, 0.5]), st.sampled_from(["average", "name"]))
def test_stream_equals_screen_for_any_partition(table, data, ratio, ties):
    surprisal, scores = table
    cuts = sorted(data.draw(st.lists(st.integers(0, len(surprisal)), max_size=6)))
    for name in ("thrush", "preselect"):
        statistic = getattr(screening, name)(surprisal, scores, ties=ties)
        if np.isnan(statistic).all(axis=0).any():
            continue
        whole = screening.screen(statistic, ratio)
        blocks = iter(np.split(surprisal, cuts))
        parts = screening.screen_stream(blocks, scores, ratio, statistic=name, ties=ties)
        assert [a.tolist() for a in parts] == [a.tolist() for a in whole]


def test_stream_across_tiles_with_heavy_ties(monkeypatch):
    """Ties at the cut pile up: they must be pruned without changing the answer."""
    monkeypatch.setattr(screening, "TILE", 32)
    monkeypatch.setattr(screening, "BINS", 8)
    monkeypatch.setattr(screening, "SPOOL_MEMORY", 1024)
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(3, 9))
    surprisal = np.where(rng.random((6000, 1)) < 0.97, 1.0, rng.normal(size=(6000, 9)))
    whole = screening.screen(screening.thrush(surprisal, scores), 0.05)
    parts = screening.screen_stream(np.array_split(surprisal, 7), scores, 0.05)
    assert [a.tolist() for a in parts] == [a.tolist() for a in whole]


def test_a_misleading_sample_is_noticed():
    """Extremes that sit where a stream takes its sample make it cut too far out: the count must notice."""
    rng = np.random.default_rng(6)
    scores = rng.normal(size=(2, 10))
    surprisal = rng.normal(size=(40_000, 10))
    follows = np.where(rng.random((4096, 1)) < 0.5, 1, -1) * scores[0]
    surprisal[:4096] = follows + 0.5 * rng.normal(size=(4096, 10))  # in the first tile only
    gamma = screening.thrush(surprisal, scores)
    whole = []
    for column in gamma.T:
        order = np.argsort(column, kind="stable")
        whole.append(sorted([*order[:2000], *order[-2000:]]))
    assert [a.tolist() for a in screening.screen(gamma, 0.05)] == whole
    seen = []
    screener = screening.Screener(scores, 0.05)
    enough = screening.Screener._enough
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening.Screener, "_enough", lambda *a: seen.append(enough(*a)) or seen[-1])
        parts = screening.screen_stream([surprisal], scores, 0.05)
    assert [a.tolist() for a in parts] == whole
    assert seen == [False]
    limits = screener.limits(screener.tally(surprisal))
    kept = screener.finish([screener.collect(surprisal, 0, limits)], limits)
    assert [a.tolist() for a in kept] == whole


def test_screen_of_many_units_is_a_stable_sort():
    rng = np.random.default_rng(7)
    statistic = np.column_stack([rng.normal(size=100_000), np.round(rng.normal(size=100_000), 1)])
    statistic[::24, 0] *= 50  # 100,000 >> 12 is 24: the sample sees extremes only
    for column, kept in zip(statistic.T, screening.screen(statistic, 0.03)):
        order = np.argsort(column, kind="stable")
        assert kept.tolist() == sorted([*order[:3000], *order[-3000:]])


def test_parquet_blocks(tmp_path):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(rng.normal(size=(100, 9)).astype(np.float32), columns=list("abcdefghi"))
    frame.index.name = "unit_id"
    paths = [tmp_path / "first.parquet", tmp_path / "second.parquet"]
    frame.iloc[:60].to_parquet(paths[0], row_group_size=13)
    frame.iloc[60:].to_parquet(paths[1])
    scores = rng.normal(size=(2, 9))
    whole = screening.screen(screening.thrush(frame.to_numpy(), scores), 0.1)
    parts = screening.screen_stream(screening.parquet_blocks(paths, rows=17), scores, 0.1)
    assert [a.tolist() for a in parts] == [a.tolist() for a in whole]
    frames = screening.screen_stream([frame[:40], frame[40:]], scores, 0.1)
    assert [x.tolist() for x in frames] == [x.tolist() for x in whole]
    backwards = list("ihgfedcba")
    again = screening.screen_stream(screening.parquet_blocks(paths, backwards), scores[:, ::-1], 0.1)
    assert [a.tolist() for a in again] == [a.tolist() for a in whole]
    with pytest.raises(DataError, match=r"first.parquet has no column 'z'"):
        next(screening.parquet_blocks(paths, ["a", "z"]))


def test_works_as_a_dask_graph():
    dask = pytest.importorskip("dask")
    rng = np.random.default_rng(3)
    surprisal, scores = rng.normal(size=(500, 10)), rng.normal(size=(4, 10))
    starts = [0, 100, 350]
    blocks = np.split(surprisal, starts[1:])
    screener = screening.Screener(scores, 0.03)
    tallies = [dask.delayed(screener.tally)(block) for block in blocks]
    total = dask.delayed(lambda a, b: a.merge(b))(tallies[0], dask.delayed(lambda a, b: a.merge(b))(*tallies[1:]))
    limits = dask.delayed(screener.limits)(total)
    parts = [dask.delayed(screener.collect)(b, s, limits) for b, s in zip(blocks, starts)]
    kept = dask.delayed(screener.finish)(parts, limits).compute(scheduler="threads")
    whole = screening.screen(screening.thrush(surprisal, scores), 0.03)
    assert [a.tolist() for a in kept] == [a.tolist() for a in whole]


GOOD = np.random.default_rng(0).normal(size=(20, 8))


@pytest.mark.parametrize(
    "surprisal, scores, message",
    [
        (GOOD, np.ones((1, 8)), "row 0 has 8 measured score.*all equal to 1"),
        (GOOD, np.full((1, 8), np.nan), "row 0 has 0 measured"),
        (GOOD, np.arange(8.0), "scores has shape"),
        (GOOD, np.arange(9.0)[None], r"expected \(n_units, 9\)"),
        (
            GOOD,
            np.array([[0, 1, 2, 3, 4, 5, 6, np.inf]]),
            "scores is infinite at benchmark row 0, model column 7",
        ),
        (GOOD[0], np.arange(8.0)[None], "surprisal has shape"),
        (
            np.where(np.arange(160).reshape(20, 8) == 11, np.inf, GOOD),
            np.arange(8.0)[None],
            "unit row 1, model column 3",
        ),
    ],
)
def test_bad_input_is_named(surprisal, scores, message):
    for call in (screening.thrush, screening.preselect):
        with pytest.raises(DataError, match=message):
            call(surprisal, scores)
    with pytest.raises(DataError, match=message):
        screening.screen_stream([surprisal], scores)


def test_bad_options_are_named():
    y = np.arange(8.0)[None]
    with pytest.raises(DataError, match="did you mean 'average'"):
        screening.thrush(GOOD, y, ties="avrage")
    with pytest.raises(DataError, match="did you mean 'thrush'"):
        screening.screen_stream([GOOD], y, statistic="thrsh")
    for ratio in (0, -1, 0.6, np.nan):
        with pytest.raises(DataError, match="ratio is"):
            screening.screen(screening.thrush(GOOD, y), ratio)
    with pytest.raises(DataError, match="holds no unit"):
        screening.screen_stream([], y)
    with pytest.raises(DataError, match="No unit has a statistic of benchmark row 0"):
        screening.screen(np.full((4, 1), np.nan))
    with pytest.raises(DataError, match="No unit"):
        screening.screen_stream([np.full((4, 8), np.nan)], y)
