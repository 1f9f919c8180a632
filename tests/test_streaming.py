"""A surprisal matrix that is streamed from disk gives what the same matrix gives in memory."""

import numpy as np
import pandas as pd
import pytest

from helpers import screening, selection
from helpers.errors import DataError

SMALL = 0.0001  # GiB: about 100 KB


def population(n_units=6000, n_models=26, n_benchmarks=4, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    skill = rng.normal(size=(n_benchmarks, n_models))
    x = rng.normal(size=(n_units, n_models)).astype(np.float32)
    for b in range(n_benchmarks):
        x[b * 60 : b * 60 + 60] -= 1.5 * skill[b]
    if missing:
        x[rng.random(x.shape) < missing] = np.nan
    names = [f"m{i:02d}" for i in rng.permutation(n_models)]
    index = pd.Index(rng.permutation(n_units) + 100, name="unit_id")
    scores = pd.DataFrame(skill.round(1), [f"b{b}" for b in range(n_benchmarks)], names)
    return pd.DataFrame(x, index, names), scores, np.repeat(np.arange(n_models // 2), 2)


def stored(frame, folder, memory=SMALL, group=1000):
    path = folder / "surprisal.parquet"
    frame.to_parquet(path, row_group_size=group)
    return screening.Stored(path, tuple(frame.columns), memory)


@pytest.mark.parametrize("mode", ["paper", "released-code", "corrected"])
@pytest.mark.parametrize("missing", [0.0, 0.01])
def test_a_streamed_selection_is_the_selection(tmp_path, mode, missing):
    surprisal, scores, groups = population(missing=missing)
    options = {"groups": groups, "ratio": 0.004, "max_size": 3}
    whole = selection.select(surprisal, scores, mode, **options)
    streamed = selection.select(stored(surprisal, tmp_path), scores, mode, **options)
    pd.testing.assert_frame_equal(whole.signatures, streamed.signatures)
    pd.testing.assert_frame_equal(whole.report, streamed.report)


@pytest.mark.parametrize("settings", [{"statistic": "preselect"}, {"ties": "name"}, {"method": "lasso", "alpha": 0.1}])
def test_a_study_s_settings_work_on_a_stream(tmp_path, settings):
    surprisal, scores, groups = population()
    options = {"groups": groups, "ratio": 0.004, "max_size": 3} | settings
    whole = selection.select(surprisal, scores, **options)
    streamed = selection.select(stored(surprisal, tmp_path), scores, **options)
    pd.testing.assert_frame_equal(whole.signatures, streamed.signatures)


@pytest.mark.parametrize("statistic", ["thrush", "preselect"])
@pytest.mark.parametrize("share", [0.002, 0.3])
def test_a_stream_bars_units(statistic, share):
    surprisal, scores, _ = population(missing=0.05, seed=3)
    x, y = surprisal.to_numpy().copy(), scores.to_numpy()
    x[::500] = np.nan  # units without a statistic: barred or not, they never count
    rng = np.random.default_rng(1)
    barred = rng.random((len(x), len(y))) < share
    barred[:120, 0] = True  # all of a benchmark's best units
    values = getattr(screening, statistic)(x, y)
    values[barred] = np.nan
    wanted = screening.screen(values, 0.01)
    own = [np.flatnonzero(column) for column in barred.T]
    for cut in ([len(x)], [0, 1, 700, 5000], range(300, 6000, 300)):
        found = screening.screen_stream(np.split(x, cut), y, 0.01, statistic=statistic, exclude=own)
        assert all(np.array_equal(a, b) for a, b in zip(wanted, found))


def test_a_stream_bars_a_benchmark_s_text_in_selection(tmp_path):
    surprisal, scores, groups = population()
    barred = np.zeros((len(surprisal), len(scores)), dtype=bool)
    barred[:60, 0] = True
    whole = selection.select(surprisal, scores, groups=groups, ratio=0.004, exclude=barred)
    own = [np.flatnonzero(column) for column in barred.T]
    streamed = selection.select(stored(surprisal, tmp_path), scores, groups=groups, ratio=0.004, exclude=own)
    pd.testing.assert_frame_equal(whole.signatures, streamed.signatures)
    with pytest.raises(DataError, match="units of 3 benchmarks; scores have 4"):
        screening.screen_stream([surprisal.to_numpy()], scores.to_numpy(), exclude=own[:3])


def test_too_many_screened_units_are_refused_before_they_are_read(tmp_path):
    surprisal, scores, groups = population()
    with pytest.raises(DataError, match=r"600 screened units of 26 models .* Lower screening\.ratio \(to about 0\.0"):
        selection.select(stored(surprisal, tmp_path, memory=0.00001), scores, groups=groups, ratio=0.05)


def test_models_counted_twice_are_found_on_disk(tmp_path):
    surprisal, scores, groups = population()
    surprisal.iloc[:, 3] = surprisal.iloc[:, 5]
    with pytest.raises(DataError, match="identical surprisal on every unit"):
        selection.select(stored(surprisal, tmp_path), scores, groups=groups)


def test_rows_and_ids_come_from_any_place_of_the_file(tmp_path):
    surprisal, _, _ = population()
    matrix = stored(surprisal, tmp_path, group=777)
    at = np.array([0, 776, 777, 778, 5999])
    assert np.array_equal(matrix.rows(at), surprisal.to_numpy()[at])
    assert np.array_equal(matrix.unit_ids(at), surprisal.index[at])
    assert np.array_equal(matrix.take([2, 0]).rows(at), surprisal.to_numpy()[at][:, [2, 0]])
    assert matrix.shape == surprisal.shape and abs(matrix.gib * 2**30 - 6000 * 26 * 4) < 1
