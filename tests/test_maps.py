"""The maps: exact geometry is recovered, missing benchmarks stay missing, bad input is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import maps, provenance
from helpers.errors import DataError


def planar(n: int, seed: int = 0, spread: float = 0.9) -> np.ndarray:
    """Points in the plane whose distances are all below 2, so that they are chords of similarities."""
    return np.random.default_rng(seed).uniform(-spread / 2, spread / 2, size=(n, 2))


def similarity(points: np.ndarray, names: list[str] | None = None) -> pd.DataFrame:
    """The similarity whose chord dissimilarity is the distance between the points."""
    names = names or [f"b{i:02d}" for i in range(len(points))]
    square = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    return pd.DataFrame(1 - square / 2, index=names, columns=names)


def turned(points: np.ndarray, angle: float, flip: bool) -> np.ndarray:
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation * ([1, -1] if flip else [1, 1])


def test_embedding_recovers_planar_distances():
    points = planar(14)
    result = maps.embed(similarity(points))
    found = np.linalg.norm(result.points.to_numpy()[:, None] - result.points.to_numpy()[None], axis=2)
    wanted = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert result.stress < 1e-3
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_stress_is_kruskals():
    matrix = similarity(np.random.default_rng(1).normal(size=(9, 6)) * 0.2)
    result = maps.embed(matrix)
    xy, delta = result.points.to_numpy(), maps.dissimilarity(matrix)
    upper = np.triu_indices(9, 1)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)[upper]
    assert result.stress == pytest.approx(np.sqrt(((distance - delta[upper]) ** 2).sum() / (distance**2).sum()))
    assert 0.01 < result.stress < 0.6


def test_rank_transform_depends_on_order_only():
    matrix = similarity(planar(8))
    bent = pd.DataFrame(np.tanh(3 * matrix.to_numpy()) / np.tanh(3), index=matrix.index, columns=matrix.index)
    np.testing.assert_allclose(maps.dissimilarity(matrix, "rank"), maps.dissimilarity(bent, "rank"))
    with pytest.raises(ValueError, match="expected 'chord' or 'rank'"):
        maps.dissimilarity(matrix, "log")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    angle=st.floats(0, 6.28),
    flip=st.booleans(),
    scale=st.floats(0.2, 5),
    gone=st.integers(0, 5),
)
def test_alignment_undoes_any_similarity_transform(seed, angle, flip, scale, gone):
    points = planar(12, seed)
    names = [f"b{i}" for i in range(12)]
    first = pd.DataFrame(points, index=names, columns=["x", "y"])
    second = pd.DataFrame(turned(points, angle, flip) * scale + 3, index=names, columns=["x", "y"]).iloc[gone:]
    third = pd.DataFrame(turned(points, -angle, not flip) - 1, index=names, columns=["x", "y"]).iloc[: 12 - gone]
    result = maps.align({"performance": first, "semantic": second, "neural": third})
    assert maps.displacement(result)["distance"].max() < 1e-6
    assert list(result.points["semantic"].index) == names[gone:]  # nothing imputed
    assert result.consensus[["x", "y"]].mean().abs().max() < 1e-9
    assert (result.consensus[["x", "y"]] ** 2).sum(axis=1).mean() == pytest.approx(1)
    assert np.nanmax(result.disparity.to_numpy()) < 1e-9


def test_alignment_agrees_with_scipy_on_the_shape_difference():
    from scipy.spatial import procrustes

    a, b = planar(10, 1), planar(10, 2)
    frames = {k: pd.DataFrame(p, index=list("abcdefghij"), columns=["x", "y"]) for k, p in (("p", a), ("q", b))}
    assert maps.align(frames).disparity.loc["p", "q"] == pytest.approx(procrustes(a, b)[2])


def test_the_moved_benchmark_is_the_displaced_one():
    points = planar(20, 3)
    moved = points.copy()
    moved[7] += [0.5, -0.4]
    result = maps.disentangle({"semantic": similarity(points), "neural": similarity(moved)})
    assert result.displacement.sort_values("distance")["benchmark"].iloc[-1] == "b07"
    assert result.displacement.set_index("benchmark")["distance"].drop("b07").max() < 0.4


def noisy_axes(points: dict[str, np.ndarray], error: float, seed: int) -> maps.Axes:
    """Axes measured with normal error on Fisher's z, with the honest 95 % interval."""
    random = np.random.default_rng(seed)
    values, low, high = {}, {}, {}
    for axis, place in points.items():
        true = np.arctanh(np.clip(similarity(place).to_numpy(), -0.999999, 0.999999))
        noise = np.triu(random.normal(size=true.shape) * error, 1)
        z = true + noise + noise.T
        names = similarity(place).index

        def frame(array, names=names):
            array = np.tanh(array)
            np.fill_diagonal(array, 1.0)
            return pd.DataFrame(array, index=names, columns=names)

        values[axis], low[axis], high[axis] = frame(z), frame(z - 1.96 * error), frame(z + 1.96 * error)
    return maps.Axes(values, low, high)


def test_displacement_test_holds_its_level_and_has_power():
    rejected, found = [], []
    for seed in range(8):
        points = planar(12, seed, 1.2)
        moved = points.copy()
        moved[3] = -moved[3] + 0.3
        same = maps.disentangle(noisy_axes({"semantic": points, "neural": points}, 0.15, seed), draws=40)
        rejected += list(same.displacement["p"] < 0.05)
        other = maps.disentangle(noisy_axes({"semantic": points, "neural": moved}, 0.15, seed), draws=40)
        moves = other.displacement.sort_values(["p", "distance"], ascending=[True, False])
        found.append(moves["benchmark"].iloc[0] == "b03")
    assert 0.01 < np.mean(rejected) < 0.11
    assert np.mean(found) > 0.7


def test_axes_without_intervals_have_no_ellipse():
    result = maps.disentangle({"semantic": similarity(planar(8, 1)), "neural": similarity(planar(8, 2))})
    assert result.errors.covariance == {}
    assert result.displacement["p"].isna().all()
    assert result.table()["var_x"].isna().all()
    assert set(result.table()["ellipse_source"]) == {"none: no interval on this axis"}


def test_resamples_are_used_where_given():
    axes = {"semantic": similarity(planar(8, 1)), "neural": similarity(planar(8, 2))}
    resampled = [similarity(planar(8, 1) + np.random.default_rng(s).normal(size=(8, 2)) * 0.02) for s in range(30)]
    result = maps.disentangle(axes, resamples={"semantic": resampled})
    assert result.errors.source == {"semantic": "bootstrap (30)"}
    spread = np.sqrt(np.trace(result.errors.covariance["semantic"].mean(axis=0)))
    assert 0.01 < spread < 0.5
    with pytest.raises(DataError, match="at least 10"):
        maps.disentangle(axes, resamples={"semantic": resampled[:3]})


def test_map_table_marks_missing_benchmarks():
    matrix = similarity(planar(9))
    result = maps.disentangle(maps.complete(maps.Axes({"performance": matrix, "neural": matrix.iloc[2:, 2:]})))
    table = result.table()
    assert len(table) == 18
    gone = table[table["missing"] != ""]
    assert gone["benchmark"].tolist() == ["b00", "b01"]
    assert gone[["x", "y"]].isna().all(axis=None)


def test_seriation_recovers_a_line_and_is_common():
    line = np.stack([np.linspace(0, 1, 12), np.zeros(12)], axis=1)
    random = np.random.default_rng(0)
    shuffled = random.permutation(12)
    matrix = similarity(line).iloc[shuffled, shuffled]
    order = maps.seriate({"performance": matrix, "semantic": matrix.iloc[:8, :8]})
    wanted = [f"b{i:02d}" for i in range(12)]
    assert order in (wanted, wanted[::-1])


def test_pairs_table_and_profile_add_up():
    random = np.random.default_rng(0)
    axes = {
        a: similarity(planar(15, s)) for s, a in enumerate(["performance", "signature-crossfit", "semantic", "neural"])
    }
    axes["neural"] = axes["neural"].iloc[:12, :12]
    facts = pd.DataFrame({"benchmark": axes["performance"].index, "function": random.choice(["m", "k"], 15)})
    table = maps.pairs(axes, facts)
    assert len(table) == 105
    assert table["neural"].isna().sum() == 105 - 66
    assert table["performance_rank"].between(0, 1).all()
    row = table.iloc[40]
    assert row["semantic"] == axes["semantic"].loc[row["a"], row["b"]]
    assert (table["same_function"] == (table["function_a"] == table["function_b"])).all()
    shares = maps.profile(table)
    assert len(shares) == 66
    parts = shares.filter(like="contribution_")
    np.testing.assert_allclose(parts.sum(axis=1), shares["fitted"])
    np.testing.assert_allclose(shares.filter(like="share_").sum(axis=1), 1)
    z = shares["performance"].rank()
    z = (z - z.mean()) / z.std(ddof=0)
    np.testing.assert_allclose(shares["fitted"] + shares["residual"], z)
    inside = maps.ternary(shares.filter(like="share_").to_numpy())
    assert (inside >= 0).all() and (inside[:, 0] <= 1).all()


def test_aggregate_equals_a_plain_loop():
    matrix = similarity(planar(10))
    groups = pd.Series(list("aaaabbbccc"), index=matrix.index)
    table = maps.aggregate(matrix, groups).set_index(["a", "b"])
    for a, b in table.index:
        values = [
            matrix.loc[i, j]
            for i in matrix.index
            for j in matrix.index
            if i != j and groups[i] == a and groups[j] == b and (a != b or i < j)
        ]
        assert table.loc[(a, b), "value"] == pytest.approx(np.mean(values))
        assert table.loc[(a, b), "pairs"] == len(values)
    assert (table["low"] <= table["value"] + 1e-9).all() and (table["high"] >= table["value"] - 1e-9).all()
    with pytest.raises(DataError, match="'b09' has no group"):
        maps.aggregate(matrix, groups.drop("b09"))


def test_protest_knows_same_from_other():
    a = maps.embed(similarity(planar(15, 1))).points
    b = maps.embed(similarity(planar(15, 1) + np.random.default_rng(5).normal(size=(15, 2)) * 0.03)).points
    c = maps.embed(similarity(planar(15, 9))).points
    assert maps.protest(a, b)["p"] == pytest.approx(0.001)
    assert maps.protest(a, c)["p"] > 0.05


def test_neighbours_are_the_largest_similarities():
    matrix = similarity(planar(9))
    table = maps.neighbours({"semantic": matrix}, "b04", 3)
    assert table["value"].tolist() == sorted(matrix.loc["b04"].drop("b04"), reverse=True)[:3]
    with pytest.raises(DataError, match="did you mean"):
        maps.neighbours({"semantic": matrix}, "b4")


def broken(edit):
    matrix = similarity(planar(8))
    return edit(matrix.copy())


def _set(matrix, i, j, value, both=True):
    matrix.iloc[i, j] = value
    if both:
        matrix.iloc[j, i] = value
    return matrix


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: _set(m, 1, 2, 0.1, both=False), r"'semantic' is not symmetric: \(b01, b02\)"),
        (lambda m: _set(m, 1, 2, np.nan), r"2 entries are not finite, first \(b01, b02\)"),
        (lambda m: _set(m, 1, 2, np.inf), "not finite"),
        (lambda m: _set(m, 1, 2, 1.4), "outside"),
        (lambda m: m.iloc[:4, :4], "has 4 benchmarks; a map needs at least 5"),
        (lambda m: m.iloc[:6], "expected a square matrix"),
        (lambda m: m.rename(index={"b01": "b02"}, columns={"b01": "b02"}), "'b02' appears twice"),
        (lambda m: m.rename(columns={"b01": "other"}), "only a row or only a column"),
        (lambda m: m * 0 + 0.3, "is constant: every pair has 0.3"),
        (lambda m: m.to_numpy(), "expected a DataFrame"),
        (
            lambda m: m.add_suffix("-x").add_suffix("", axis=0).rename(index=lambda n: f"{n}-x"),
            "did you mean",
        ),
    ],
)
def test_bad_matrices_are_named(edit, message):
    with pytest.raises(DataError, match=message):
        maps.disentangle({"performance": similarity(planar(8)), "semantic": broken(edit)})


def test_one_axis_and_no_axis():
    with pytest.raises(DataError, match="compares axes"):
        maps.disentangle({"performance": similarity(planar(8))})
    with pytest.raises(DataError, match="No axis was given"):
        maps.check({})


def test_read_artifacts_and_complete(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    matrix = similarity(planar(8))
    i, j = np.triu_indices(8, 1)
    long = pd.DataFrame({"a": matrix.index[i], "b": matrix.index[j], "value": matrix.to_numpy()[i, j]})
    long["low"], long["high"] = long["value"] - 0.1, np.nan
    long.loc[(long["a"] == "b02") | (long["b"] == "b02"), "value"] = np.nan
    provenance.write_table(tmp_path / "toy" / "overlap" / "semantic.parquet", long)
    provenance.write_table(tmp_path / "toy" / "overlap" / "performance.parquet", long[long["a"] != "b00"].fillna(0.2))
    axes = maps.read("toy")
    assert list(axes) == ["performance", "semantic"]
    assert "b02" not in axes["semantic"].index
    assert axes.missing.set_index(["axis", "benchmark"])["reason"].to_dict() == {
        ("performance", "b00"): "not on this axis",
        ("semantic", "b02"): "7 of 7 pairs not measured",
    }
    with pytest.raises(DataError, match="did you mean 'semantic'"):
        maps.read("toy", ["semantics"])
    with pytest.raises(DataError, match="holds no axis"):
        maps.read("nothing")


def test_square_refuses_contradictions():
    table = pd.DataFrame({"a": ["x", "y"], "b": ["y", "x"], "value": [0.1, 0.2]})
    with pytest.raises(DataError, match=r"0\.1 one way and 0\.2"):
        maps.square(table)
    with pytest.raises(DataError, match="given twice"):
        maps.square(pd.concat([table.iloc[:1], table.iloc[:1]], ignore_index=True))


def test_five_hundred_benchmarks_run():
    random = np.random.default_rng(0)
    points = random.normal(size=(500, 2)) * 0.2
    axes = noisy_axes({"performance": points, "semantic": points[::-1].copy()}, 0.1, 0)
    result = maps.disentangle(axes, draws=10)
    assert len(result.displacement) == 500
    assert len(maps.seriate(axes)) == 500


def test_axes_that_say_the_same_do_not_come_apart_when_no_plane_can_hold_them():
    """Six equidistant groups have many planar arrangements of equal stress; own starts would pick unlike ones."""
    own, together = [], []
    for seed in range(3):
        random = np.random.default_rng(seed)
        true = np.kron(np.eye(6), np.ones((4, 4))) * 0.6
        axes = {}
        for axis in ("signature", "semantic", "neural"):
            noise = np.triu(random.normal(size=(24, 24)) * 0.08, 1)
            array = np.clip(true + noise + noise.T, -1, 1)
            np.fill_diagonal(array, 1)
            axes[axis] = pd.DataFrame(array, [f"b{i}" for i in range(24)], [f"b{i}" for i in range(24)])
        separate = maps.align({a: maps.embed(m) for a, m in axes.items()})
        own.append(maps.displacement(separate)["distance"].median())
        result = maps.disentangle(axes)
        together.append(result.displacement["distance"].median())
        stress = [result.embeddings[a].stress - maps.embed(m).stress for a, m in axes.items()]
        assert max(stress) <= 0.02 + 1e-12
    assert np.mean(together) < 0.5 * np.mean(own)


def test_many_embeddings_at_once_equal_one_after_the_other():
    from sklearn.manifold import smacof

    deltas = np.stack(
        [maps.dissimilarity(similarity(np.random.default_rng(s).normal(size=(12, 4)) * 0.3)) for s in range(5)]
    )
    start = maps.classical(deltas.mean(axis=0))
    for delta, points in zip(deltas, maps.majorize(deltas, start, rounds=3000, tolerance=1e-8)):
        other, _ = smacof(delta, init=start, n_init=1, max_iter=3000, eps=1e-12, normalized_stress=True)
        found, wanted = (np.linalg.norm(p[:, None] - p[None], axis=2) for p in (points, other))
        np.testing.assert_allclose(found, wanted, atol=2e-3)
