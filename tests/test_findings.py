"""The laboratory's main findings as numbers, so that a small change of the science is seen and not only a large one.

The population `format` ships its numbers, so its findings are tested everywhere; those of the main population need the
surprisal that `make book` extracts from the shipped weights, and are skipped (in continuous integration: fail) without.

Tolerances. What has no random part (performance, in-sample signatures, reliabilities, sizes) is repeated to 0.002: only
rounding of other processors' linear algebra is allowed for. What depends on random splits gets about one standard
deviation over seeds, measured with 4 seeds and 3 splits: AUC .006, prediction .010, reliability .03, Mantel .011; a
change of the draws may move it so far, a change of the method moves it further (selecting on the comparing models, for
example, moves the prediction by .1 and more).
"""

import os

import numpy as np
import pandas as pd
import pytest

from helpers import inference, maps, overlap, paths, preparation, selection, studies, validation
from helpers.errors import StaleArtifactError

EXACT, AUC, PREDICTION, RELIABILITY, MANTEL = 0.002, 0.01, 0.02, 0.04, 0.02


def near(value, tolerance):
    return pytest.approx(value, abs=tolerance)


def area(matrix, tables, pairs="all"):
    """AUC of same-function against other pairs; "hard": same function and other format against the reverse."""
    facts = tables.benchmarks.loc[matrix.index]
    same, form = (facts[c].to_numpy()[:, None] == facts[c].to_numpy() for c in ("function", "format"))
    chosen = same != form if pairs == "hard" else None
    return inference.within_between(
        matrix, facts["function"], pairs=chosen, bootstraps=0, permutations=0, pair_bootstraps=0
    ).auc


def reliability(tables):
    error = tables.stderr.loc[tables.scores.index, tables.scores.columns]
    return float(np.nanmedian(inference.score_reliability(tables.scores, error)))


def crossfit(tables):
    return overlap.crossfit(
        tables.surprisal, tables.scores, tables.groups, splits=3, bootstraps=0, exclude=tables.exclude
    )


def regression(tables, result):
    facts = tables.benchmarks.loc[tables.scores.index]
    same = {c: (facts[c].to_numpy()[:, None] == facts[c].to_numpy()).astype(float) for c in ("function", "format")}
    predictors = {"signature": result.overlap} | {c: pd.DataFrame(m, facts.index, facts.index) for c, m in same.items()}
    return inference.mrqap(overlap.performance(tables.scores), predictors, permutations=99)


@pytest.fixture(scope="module")
def main():
    try:
        return overlap.load(paths.results("lab"))
    except StaleArtifactError as reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"make book first: {reason}")


@pytest.fixture(scope="module")
def main_crossfit(main):
    return crossfit(main)


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPANION_RESULTS", str(tmp_path_factory.mktemp("results")))
        study = studies.load("lab-format")
        preparation.prepare(study)
        return overlap.load(study.results, study.overlap.groups)


# --- the main population: benchmarks of one function go together, whatever their format -------------------


def test_main_performance_knows_the_function(main):
    matrix = overlap.performance(main.scores)
    assert area(matrix, main) == near(0.9981, EXACT)
    assert area(matrix, main, "hard") == near(0.9978, EXACT)
    assert inference.upper(matrix).mean() == near(0.1936, EXACT)
    assert reliability(main) == near(0.9706, EXACT)
    assert main.scores.to_numpy().mean() == near(0.5336, EXACT)


def test_main_surprisal(main):
    assert main.surprisal.shape == (50195, 32) and not main.exclude.any()
    assert main.surprisal.to_numpy().mean() == near(4.2387, 0.005)  # nats a unit, from weights kept in float16


def test_main_crossfitted_signature_knows_the_function(main, main_crossfit):
    assert main_crossfit.details["design"] == "three-way" and main_crossfit.details["k"] == 200
    assert area(main_crossfit.overlap, main) == near(0.952, AUC)
    assert area(main_crossfit.overlap, main, "hard") == near(0.963, AUC)
    assert np.diag(main_crossfit.prediction).mean() == near(0.675, PREDICTION)
    assert main_crossfit.reliability["reliability"].median() == near(0.72, 0.06)
    assert main_crossfit.units_reliability.median() == near(0.930, 0.01)
    assert inference.upper(main_crossfit.overlap).mean() == near(0.269, 0.02)


def test_main_regression(main, main_crossfit):
    performance = overlap.performance(main.scores)
    assert inference.mantel(performance, main_crossfit.overlap, 99).statistic == near(0.592, MANTEL)
    table = regression(main, main_crossfit)
    assert table["coef"]["signature"] == near(0.435, 0.03) and table["coef"]["function"] == near(0.32, 0.03)
    assert abs(table["coef"]["format"]) < 0.06 and table.attrs["r2"] == near(0.425, 0.02)
    assert table["p"]["signature"] == table["p"]["function"] == 0.01


def test_main_selection(main):
    fits = selection.select(
        main.surprisal, main.scores, "corrected", groups=main.groups, max_size=5, exclude=main.exclude
    )
    sizes, held_out = fits.report["size"].astype(float), fits.report["r2_held_out"].astype(float)
    assert sizes.mean() == near(2.083, 0.05) and held_out.median() == near(0.640, 0.005)
    assert fits.report["r2"].astype(float).median() == near(0.885, 0.005)
    paper = selection.select(main.surprisal, main.scores, "paper", exclude=main.exclude).report
    assert paper["saturated"].all() and paper["size"].median() == 30  # as many terms as the models allow


def test_main_prediction_of_models_never_seen(main):
    table = validation.cross_validated_r2(
        main.surprisal.to_numpy(), main.scores, main.groups, k=200, methods=["ridge"], folds=4
    )
    assert table["r2"].median() == near(0.686, PREDICTION) and table["spearman"].median() == near(0.821, PREDICTION)


def test_main_signature_on_permuted_scores_knows_little(main):
    permuted = validation.permute_scores(main.scores.to_numpy(), np.random.default_rng(0))
    tables = pd.DataFrame(permuted, main.scores.index, main.scores.columns)
    null = overlap.crossfit(main.surprisal, tables, main.groups, splits=3, bootstraps=0)
    assert abs(np.diag(null.prediction).mean()) < 0.08 and area(null.overlap, main) < 0.65


def test_main_axes_as_built(main):
    """What the book shows; traces and embeddings are not computed again here."""
    try:
        axes = maps.read("lab")
    except StaleArtifactError as reason:
        pytest.skip(f"make book first: {reason}")
    expected = {
        "performance": (0.9981, EXACT), "signature-crossfit": (0.9487, AUC), "signature": (0.668, 0.02),
        "semantic": (0.8486, 0.005), "neural": (0.863, 0.005), "attention": (0.5647, 0.005),
    }  # fmt: skip
    found = {axis: area(axes[axis], main) for axis in expected}
    assert found == {axis: near(*number) for axis, number in expected.items()}
    assert axes.reliability["semantic"].median() == near(0.993, 0.003)
    assert axes.reliability["neural"].median() == near(0.996, 0.003)
    assert axes.reliability["attention"].median() == near(0.984, 0.005)


# --- the population `format`: skill with the answer format decides ----------------------------------------


def test_varied_performance_follows_the_format(varied):
    matrix = overlap.performance(varied.scores)
    assert varied.surprisal.shape == (25052, 32) and len(varied.scores) == 46
    assert area(matrix, varied) == near(0.6371, EXACT) and area(matrix, varied, "hard") == near(0.5923, EXACT)
    assert reliability(varied) == near(0.8868, EXACT)


def test_varied_signatures_on_the_same_models(varied):
    chosen = overlap.in_sample(varied.surprisal, varied.scores, 200, "top", signed=True, exclude=varied.exclude)
    assert area(chosen, varied) == near(0.6082, EXACT) and area(chosen, varied, "hard") == near(0.5748, EXACT)
    assert inference.upper(chosen).mean() == near(0.500, 0.005)


def test_varied_signatures_across_models(varied):
    result = crossfit(varied)
    assert area(result.overlap, varied) == near(0.521, 0.02)
    assert np.diag(result.prediction).mean() == near(0.337, 0.03)
    assert result.units_reliability.median() == near(0.72, 0.03)
    table = regression(varied, result)
    assert table["coef"]["signature"] == near(0.547, 0.05)
    assert table["coef"]["function"] == near(0.142, 0.03) and table["coef"]["format"] == near(0.125, 0.03)
