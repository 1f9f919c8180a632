"""Loss against exposure: independent recomputation, compositions that mislead, coverage, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import exposure
from helpers.errors import DataError


def mixtures(models: int, domains: int, seed: int, sparse: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.dirichlet(np.full(domains, 0.5), models)
    if sparse:
        x[x < 0.03] = 0
        x /= x.sum(axis=1, keepdims=True)
    return pd.DataFrame(x, columns=[f"d{k}" for k in range(domains)])


def own_effect(shares: pd.DataFrame, noise: float, seed: int) -> pd.DataFrame:
    """Return losses that depend on the own share alone."""
    rng = np.random.default_rng(seed)
    return 4 - np.log(shares + 0.01) * 0.3 + rng.normal(0, noise, shares.shape)


def test_each_value_is_scipys_correlation_of_the_documented_dose():
    shares = mixtures(60, 4, 0)
    losses = own_effect(shares[["d0", "d2"]], 0.1, 1)
    table = exposure.dependence(shares, losses, bootstraps=5).set_index(["domain", "loss"])
    assert len(table) == 8
    for (domain, loss), row in table.iterrows():
        dose = shares[domain] if domain == loss else shares[domain] / (1 - shares[loss])
        assert row["value"] == pytest.approx(stats.spearmanr(dose, losses[loss]).statistic, abs=1e-12)
        assert row["own"] == (domain == loss)


def test_another_domains_share_of_the_rest_is_free_of_the_closure():
    """Shares that sum to 1 make every other domain look harmful; the share of the rest does not."""
    shares = mixtures(800, 3, 2, sparse=False)
    losses = own_effect(shares, 0.05, 3)
    raw = [stats.spearmanr(shares[a], losses[b]).statistic for a in shares for b in losses if a != b]
    table = exposure.dependence(shares, losses, bootstraps=5)
    assert np.median(raw) > 0.35  # what the closure alone gives
    assert table[~table["own"]]["value"].abs().max() < 0.12  # three standard errors of 800 models


def test_intervals_of_single_pairs_and_of_the_median_cover():
    truth_shares = mixtures(20_000, 3, 10)
    truth = exposure.dependence(truth_shares, own_effect(truth_shares, 0.4, 11), bootstraps=2)
    hits = medians = 0
    worlds = 40
    for k in range(worlds):
        shares = mixtures(120, 3, 100 + k)
        table = exposure.dependence(shares, own_effect(shares, 0.4, 500 + k), bootstraps=80, seed=k)
        hits += ((table["low"] <= truth["value"]) & (truth["value"] <= table["high"])).sum()
        row, right = table.attrs["summary"].iloc[0], truth.attrs["summary"].iloc[0]
        medians += row["low"] <= right["median"] <= row["high"]
    assert 0.90 < hits / (worlds * 9) < 0.99  # 360 intervals of nominally 95 %
    assert medians / worlds > 0.88  # 40 worlds: two standard errors below 95 %


def test_groups_of_models_are_drawn_together():
    shares = pd.concat([mixtures(10, 3, 4)] * 6, ignore_index=True)  # six seeds of ten mixtures
    losses = own_effect(shares, 0.01, 5)
    width = {}
    for name, groups in (("alone", None), ("together", np.tile(np.arange(10), 6))):
        table = exposure.dependence(
            shares, losses, groups=pd.Series(groups) if groups is not None else None, bootstraps=80
        )
        width[name] = (table["high"] - table["low"]).mean()
    assert width["together"] > 1.5 * width["alone"]


def test_the_permutation_keeps_its_level_and_finds_an_effect():
    p = []
    for k in range(80):
        shares = mixtures(40, 3, 1000 + k)
        losses = pd.DataFrame(np.random.default_rng(k).normal(size=(40, 3)), columns=shares.columns)
        p.append(exposure.permutation_test(shares, losses, permutations=39, seed=k))
    assert 0.0 <= np.mean(np.array(p) <= 0.05) <= 0.13
    assert min(p) >= 1 / 40
    shares = mixtures(40, 3, 1)
    assert exposure.permutation_test(shares, own_effect(shares, 0.1, 2), permutations=99) == 0.01


def test_the_dose_curve_counts_from_the_models_that_read_none():
    shares = mixtures(300, 4, 6)
    losses = own_effect(shares, 0.0, 7)
    curve = exposure.dose_curve(shares, losses)
    one = curve[curve["domain"] == "d0"]
    assert one["share"].is_monotonic_increasing and one["saved"].is_monotonic_increasing
    assert one.iloc[0]["share"] == 0 and one.iloc[0]["saved"] == 0
    assert one["models"].sum() <= 300
    last = one.iloc[-1]
    assert last["saved"] == pytest.approx(0.3 * np.log((last["share"] + 0.01) / 0.01), abs=0.15)


def test_a_domain_that_all_models_read_has_no_zero_dose():
    shares = mixtures(100, 3, 8, sparse=False) * 0.9 + 0.1 / 3
    assert exposure.dose_curve(shares, own_effect(shares, 0, 1))["saved"].isna().all()


def test_the_form_that_made_the_losses_wins():
    shares = mixtures(200, 4, 9)
    losses = pd.DataFrame({"d0": 5 - shares["d0"], "d1": 5 - np.log(shares["d1"] + 1e-3)})
    table = exposure.shape(shares, losses).set_index("domain")
    assert table.loc["d0"].idxmax() == "linear in the share" and table.loc["d0"].max() > 0.999
    assert table.loc["d1"].idxmax() == "linear in log(share + 0.001)"


def test_an_unread_domain_gains_from_its_relative_only():
    shares = mixtures(400, 5, 12)
    losses = own_effect(shares[["d0"]], 0.1, 13)
    losses["d0"] -= 1.0 * shares["d3"]
    table = exposure.unseen(shares, losses, permutations=499).set_index("domain")
    assert table["models"].nunique() == 1 and table["models"].iloc[0] == int((shares["d0"] == 0).sum())
    assert table.loc["d3", "value"] < -0.8 and table.loc["d3", "q"] < 0.01
    none = exposure.unseen(shares, own_effect(shares[["d0"]], 0.1, 14), permutations=499)
    assert none["q"].min() > 0.01
    assert (exposure.unseen(shares, losses, fewest=10_000)).empty


def test_scales_are_compared_on_the_same_mixtures():
    one = pd.DataFrame({"x": [1.0, 2, 3, 4]}, index=[1, 2, 3, 4])
    two = pd.DataFrame({"x": [4.0, 3, 2, 9]}, index=[4, 3, 2, 7])
    table = exposure.across_scales({"a": one, "b": two})
    assert table["mixtures"].tolist() == [3] and table["value"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s, x: (s * 2, x), "sum 1"),
        (lambda s, x: (s, x.rename(columns={"d0": "other", "d1": "more", "d2": "still"})), "Name the columns alike"),
        (lambda s, x: (s, x.mask(x.index.to_series() == 3)), "not finite"),
        (lambda s, x: (s, x.set_axis(range(500, 500 + len(x)))), "in common"),
        (lambda s, x: (s.set_axis(["d0", "d0", "d2"], axis=1), x), "given twice"),
        (lambda s, x: (s.set_axis([0] * len(s)), x), "given twice"),
    ],
)
def test_what_is_no_mixture_or_no_loss_is_refused(change, says):
    shares = mixtures(30, 3, 15)
    with pytest.raises(DataError, match=says):
        exposure.dependence(*change(shares, own_effect(shares, 0.1, 1)), bootstraps=2)
