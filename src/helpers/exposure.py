"""Does loss reflect exposure? Loss on each domain against the share of each domain in the training text.

The method of the paper takes the loss of a model on a text as a trace of how much of that kind of text the model read.
Where training mixtures are known (a population trained for the purpose, or published mixtures) this can be tested.

Shares of one mixture sum to 1, so that a model which read more of one domain read less of the others. Two readings
respect this: the *own* share of a domain, whose rank is that of its log-ratio to everything else, and for another
domain its share *of the rest*, ``share / (1 - own share)``, which the own share does not determine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from helpers import inference
from helpers.errors import DataError

CLOSURE = 0.02  # published shares are rounded: a mixture may sum to 1 within this
EDGES = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)  # bounds of the share in the dose curve
FEWEST = 20  # models that a curve or a comparison among models without a domain asks for


def check(shares: pd.DataFrame, losses: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `shares` and `losses` on the models that both have, in one order.

    Parameters
    ----------
    shares : (n_models, n_domains) fractions of the training text, each row a mixture that sums to 1.
    losses : (n_models, n_losses) mean loss in nats; columns are named like the domains they are measured on.

    Raises
    ------
    DataError
        when names repeat, a share lies outside 0 to 1, a mixture does not sum to 1, a loss is not finite, or fewer than
        three models or no domain are shared.

    Examples
    --------
    >>> one = pd.DataFrame({"a": [0.2, 0.5, 0.9], "b": [0.8, 0.5, 0.1]})
    >>> check(one, pd.DataFrame({"a": [3.0, 2.0, 1.0]}))[1].shape
    (3, 1)
    """
    for what, frame in (("shares", shares), ("losses", losses)):
        for where, names in (("model", frame.index), ("domain", frame.columns)):
            if names.has_duplicates:
                raise DataError(f"{what}: {where} '{names[names.duplicated()][0]}' is given twice; keep one.")
        bad = np.argwhere(~np.isfinite(frame.to_numpy(float)))
        if len(bad):
            raise DataError(
                f"{what}: {len(bad)} value(s) that are not finite, the first for model '{frame.index[bad[0][0]]}' and "
                f"domain '{frame.columns[bad[0][1]]}'; leave such models out."
            )
    wrong = shares[(shares < 0).any(axis=1) | (shares > 1).any(axis=1) | ((shares.sum(axis=1) - 1).abs() > CLOSURE)]
    if len(wrong):
        raise DataError(
            f"shares: {len(wrong)} mixture(s) that are not fractions with sum 1, the first of model '{wrong.index[0]}' "
            f"with sum {wrong.iloc[0].sum():.3f}; give fractions of the training text."
        )
    models = shares.index.intersection(losses.index)
    if len(models) < 3:
        raise DataError(f"shares and losses have {len(models)} models in common; at least 3 are needed.")
    if not len(shares.columns.intersection(losses.columns)):
        raise DataError(
            f"no loss is measured on a domain of the mixture; domains: {', '.join(map(str, shares.columns[:5]))}, losses: "
            f"{', '.join(map(str, losses.columns[:5]))}. Name the columns alike."
        )
    return shares.loc[models], losses.loc[models]


def of_the_rest(shares: pd.DataFrame, own: str) -> pd.DataFrame:
    """Return each other domain's share of the training text without domain `own`; NaN where nothing else was read.

    >>> of_the_rest(pd.DataFrame({"a": [0.5], "b": [0.25], "c": [0.25]}), "a").iloc[0].tolist()
    [0.5, 0.5]
    """
    rest = 1 - shares[own]
    return shares.drop(columns=own).div(rest.where(rest > 0), axis=0)


def _matrix(shares: pd.DataFrame, losses: pd.DataFrame, weights: np.ndarray | None) -> np.ndarray:
    """Return ([n_draws,] n_domains, n_losses) rank correlations of share with loss; others' shares are of the rest."""
    single = weights is None
    weights = np.ones((1, len(shares))) if single else weights
    out = np.full((len(weights), shares.shape[1], losses.shape[1]), np.nan)
    for k, domain in enumerate(losses.columns):
        target = losses[domain].to_numpy(float)
        other = of_the_rest(shares, domain) if domain in shares else shares
        sound = other.notna().all(axis=1).to_numpy()  # a model that read nothing but the domain has no rest
        rows = np.vstack([other.to_numpy(float).T, target])
        places = [shares.columns.get_loc(name) for name in other.columns]
        for d, weight in enumerate(weights):
            drawn = np.repeat(np.arange(len(target)), weight.astype(int))
            out[d, places, k] = _with_last(rows[:, drawn[sound[drawn]]])
            if domain in shares:
                own = np.vstack([shares[domain].to_numpy(float), target])[:, drawn]
                out[d, shares.columns.get_loc(domain), k] = _with_last(own)[0]
    return out[0] if single else out


def _with_last(rows: np.ndarray) -> np.ndarray:
    """Return the Spearman correlation of every row but the last with the last; NaN for a constant row."""
    ranks = stats.rankdata(rows, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt((ranks[:-1] ** 2).sum(axis=1) * (ranks[-1] ** 2).sum())
    return np.divide(ranks[:-1] @ ranks[-1], scale, out=np.full(len(scale), np.nan), where=scale > 0)


def dependence(
    shares: pd.DataFrame, losses: pd.DataFrame, *, groups=None, bootstraps: int = 300, seed: int = 0
) -> pd.DataFrame:
    """Rank correlation, over models, of each domain's share in training with the loss on each domain.

    Parameters
    ----------
    shares, losses : see :func:`check`.
    groups : optional group of each model (index of `shares`), drawn together in the bootstrap; None: every model is
        its own group, which is right for mixtures drawn independently of each other.
    bootstraps : resamples of models behind the intervals.

    Returns
    -------
    One row a pair: ``domain`` (whose share), ``loss`` (measured on), ``own`` (whether they are the same), ``value``,
    ``low``, ``high`` (95 % percentile interval over models). `attrs` holds ``summary``: the median over own pairs, over
    other pairs and their difference, each with the interval of the median itself (the same resamples).

    Notes
    -----
    For an own pair the share is taken as it is (its rank is that of ``log(share / (1 - share))``); for another pair the
    share of the rest is taken, see :func:`of_the_rest`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> mix = pd.DataFrame(rng.dirichlet([1, 1, 1], 60), columns=list("abc"))
    >>> table = dependence(mix, -mix[["a", "b"]], bootstraps=20)
    >>> table[table["own"]]["value"].tolist()
    [-1.0, -1.0]
    """
    shares, losses = check(shares, losses)
    codes = None if groups is None else pd.Series(groups).reindex(shares.index)
    if codes is not None and codes.isna().any():
        raise DataError(f"groups: model '{codes[codes.isna()].index[0]}' has none; give one for each model.")
    value = _matrix(shares, losses, None)
    draws = _matrix(shares, losses, inference.bootstrap_weights(codes, len(shares), bootstraps, seed))
    low, high = inference.interval(draws)
    own = shares.columns.to_numpy()[:, None] == losses.columns.to_numpy()[None, :]
    table = pd.DataFrame(
        {
            "domain": np.repeat(shares.columns, losses.shape[1]),
            "loss": np.tile(losses.columns, shares.shape[1]),
            "own": own.ravel(),
            "value": value.ravel(),
            "low": low.ravel(),
            "high": high.ravel(),
        }
    )
    one, other = np.nanmedian(draws[:, own], axis=1), np.nanmedian(draws[:, ~own], axis=1)
    rows = []
    for name, point, drawn in (
        ("own domain", np.nanmedian(value[own]), one),
        ("other domain", np.nanmedian(value[~own]), other),
        ("own minus other", np.nanmedian(value[own]) - np.nanmedian(value[~own]), one - other),
    ):
        bounds = inference.interval(drawn[:, None])
        rows.append({"pairs": name, "median": point, "low": float(bounds[0][0]), "high": float(bounds[1][0])})
    table.attrs["summary"] = pd.DataFrame(rows)
    return table


def permutation_test(shares: pd.DataFrame, losses: pd.DataFrame, *, permutations: int = 999, seed: int = 0) -> float:
    """Return the p-value of the median own-domain correlation when whole mixtures are dealt to the models at random.

    A mixture stays whole, so that the dependence of its shares on each other is the same in every permutation. Two-sided,
    ``(1 + count) / (1 + permutations)``.

    >>> mix = pd.DataFrame(np.random.default_rng(1).dirichlet([1, 1], 40), columns=list("ab"))
    >>> permutation_test(mix, 1 - mix, permutations=99)
    0.01
    """
    shares, losses = check(shares, losses)
    both = shares.columns.intersection(losses.columns)
    x, y = (frame[both].rank().to_numpy() for frame in (shares, losses))
    x, y = (a - a.mean(axis=0) for a in (x, y))
    scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))

    def statistic(order: np.ndarray) -> float:
        return float(np.median((x[order] * y).sum(axis=0) / scale))

    rng = np.random.default_rng(seed)
    found = abs(statistic(np.arange(len(x))))
    count = sum(abs(statistic(rng.permutation(len(x)))) >= found - 1e-12 for _ in range(permutations))
    return (1 + count) / (1 + permutations)


def dose_curve(shares: pd.DataFrame, losses: pd.DataFrame, edges=EDGES) -> pd.DataFrame:
    """How the loss falls with the own share: per domain and bin of share, the loss above that domain's lowest bin mean.

    Returns ``domain``, ``share`` (mean of the bin), ``models``, ``loss`` (mean, nats), ``saved`` (nats below the models
    that read none of the domain; NaN for a domain that every model read). The first bin holds a share of exactly 0; bins
    with fewer than 3 models are left out.

    >>> mix = pd.DataFrame({"a": [0, 0, 0, 0.3, 0.3, 0.3], "b": [1, 1, 1, 0.7, 0.7, 0.7]})
    >>> dose_curve(mix, pd.DataFrame({"a": [4.0, 4, 4, 3, 3, 3]}))["saved"].tolist()
    [0.0, 1.0]
    """
    shares, losses = check(shares, losses)
    rows = []
    for domain in shares.columns.intersection(losses.columns):
        share, loss = shares[domain], losses[domain]
        bins = pd.cut(share, list(edges), include_lowest=False).cat.codes.where(share > 0, -1)
        none = loss[share == 0]
        for _, members in share.groupby(bins):
            if len(members) < 3:
                continue
            mean = float(loss[members.index].mean())
            saved = float(none.mean()) - mean if len(none) >= 3 else np.nan
            rows.append(
                {"domain": domain, "share": float(members.mean()), "models": len(members), "loss": mean, "saved": saved}
            )
    return pd.DataFrame(rows, columns=["domain", "share", "models", "loss", "saved"])


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear in the share": lambda share: share,
    "linear in the square root": np.sqrt,
    "linear in log(share + 0.001)": lambda share: np.log(share + 1e-3),
}


def shape(shares: pd.DataFrame, losses: pd.DataFrame, *, folds: int = 10, seed: int = 0) -> pd.DataFrame:
    """Out-of-sample R2 of the loss on a domain from its share, for each form of the curve in `FORMS`.

    Returns one row a domain: ``domain`` and one column a form: R2 over `folds` random folds of models, a line fitted on
    the other folds.

    >>> mix = pd.DataFrame(np.random.default_rng(0).dirichlet([1, 1], 50), columns=list("ab"))
    >>> shape(mix, -np.sqrt(mix[["a"]])).set_index("domain").loc["a"].idxmax()
    'linear in the square root'
    """
    shares, losses = check(shares, losses)
    fold = np.random.default_rng(seed).permutation(len(shares)) % folds
    rows = []
    for domain in shares.columns.intersection(losses.columns):
        y = losses[domain].to_numpy(float)
        row = {"domain": domain}
        for name, form in FORMS.items():
            x = form(shares[domain].to_numpy(float))
            predicted = np.empty_like(y)
            for k in range(folds):
                slope, intercept = np.polyfit(x[fold != k], y[fold != k], 1)
                predicted[fold == k] = intercept + slope * x[fold == k]
            row[name] = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        rows.append(row)
    return pd.DataFrame(rows)


def unseen(
    shares: pd.DataFrame, losses: pd.DataFrame, *, permutations: int = 1999, seed: int = 0, fewest: int = FEWEST
) -> pd.DataFrame:
    """What a domain that a model never read gains from the others: rank correlation among models with share 0 of it.

    Returns one row a pair of an unread domain (``loss``) and a read one (``domain``): ``models``, ``value`` (negative:
    reading `domain` lowers the loss on the unread one), ``p`` (two-sided, mixtures permuted among these models) and
    ``q`` (false-discovery rate over all pairs). Domains that fewer than `fewest` models left unread are absent.

    >>> list(unseen(pd.DataFrame({"a": [0.5, 1, 0.2], "b": [0.5, 0, 0.8]}), pd.DataFrame({"a": [1.0, 2, 3]})).columns)
    ['loss', 'domain', 'models', 'value', 'p', 'q']
    """
    shares, losses = check(shares, losses)
    rng = np.random.default_rng(seed)
    rows = []
    for loss in shares.columns.intersection(losses.columns):
        without = shares.index[shares[loss] == 0]
        if len(without) < fewest:
            continue
        others = shares.loc[without].drop(columns=loss)
        others = others.loc[:, others.nunique() > 1]
        x, y = others.rank().to_numpy(), losses.loc[without, loss].rank().to_numpy()
        x, y = x - x.mean(axis=0), y - y.mean()
        scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum())
        found = y @ x / scale
        orders = rng.permuted(np.tile(np.arange(len(y)), (permutations, 1)), axis=1)
        null = np.abs(y[orders] @ x / scale)
        p = (1 + (null >= np.abs(found) - 1e-12).sum(axis=0)) / (1 + permutations)
        rows += [
            {"loss": loss, "domain": d, "models": len(without), "value": float(v), "p": float(q)}
            for d, v, q in zip(others.columns, found, p)
        ]
    table = pd.DataFrame(rows, columns=["loss", "domain", "models", "value", "p"])
    table["q"] = inference.adjust(table["p"].to_numpy(float), "bh") if len(table) else []
    return table


def across_scales(losses: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Agreement of losses between scales on the same mixtures.

    `losses` maps a scale to its (n_models, n_domains) table; the index names the mixture. Returns one row a pair of
    scales and domain: ``a``, ``b``, ``domain``, ``mixtures`` and ``value``, the Spearman correlation over mixtures of the
    loss at both scales. Pairs of scales that share fewer than 3 mixtures are left out.

    >>> one = pd.DataFrame({"x": [1.0, 2, 3]})
    >>> across_scales({"small": one, "large": one / 2})["value"].tolist()
    [1.0]
    """
    rows = []
    scales = list(losses)
    for i, a in enumerate(scales):
        for b in scales[i + 1 :]:
            models = losses[a].index.intersection(losses[b].index)
            if len(models) < 3:
                continue
            for domain in losses[a].columns.intersection(losses[b].columns):
                value = losses[a].loc[models, domain].corr(losses[b].loc[models, domain], method="spearman")
                rows.append({"a": a, "b": b, "domain": domain, "mixtures": len(models), "value": value})
    return pd.DataFrame(rows, columns=["a", "b", "domain", "mixtures", "value"])
