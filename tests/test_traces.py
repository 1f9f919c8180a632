"""Traces against plain loops over the same tiny models, resumption, similarity, the atlas of a study."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers import atlas, errors, inference, paths, provenance, studies, traces
from helpers import questions as question_tables

WORDS = [f"w{i}" for i in range(60)]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def tiny(seed=0, cls=LlamaForCausalLM, attention="sdpa"):
    torch.manual_seed(seed)
    if cls is GPT2LMHeadModel:
        config = GPT2Config(vocab_size=63, n_embd=16, n_layer=2, n_head=4, n_positions=64)
    else:
        config = LlamaConfig(
            vocab_size=63, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
        )  # fmt: skip
    config._attn_implementation = attention
    return cls(config).eval()


@pytest.fixture(scope="module")
def model():
    return tiny()


def ask(topic, count=12, seed=0, length=(4, 20)):
    """Questions made of one topic's ten words."""
    rng = np.random.default_rng([seed, topic])
    own = [WORDS[10 * topic + i] for i in range(10)]
    sizes = rng.integers(*length, count)
    return [" ".join(rng.choice(own, n)) for n in sizes]


def frame(**texts):
    rows = [(b, f"{b}-{i}", t) for b, own in texts.items() for i, t in enumerate(own)]
    return pd.DataFrame(rows, columns=["benchmark", "question_id", "text"])


@pytest.fixture(scope="module")
def questions():
    return frame(a1=ask(0), a2=ask(0, seed=1), b1=ask(1), b2=ask(1, seed=1), c1=ask(2), c2=ask(2, seed=1))


def by_hand(model, tokenizer, text, tokens):
    """One text alone, everything stacked, then averaged: the obvious way."""
    model.set_attn_implementation("eager")
    ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]]])
    with torch.inference_mode():
        out = model(ids, output_hidden_states=True, output_attentions=True)
    states = torch.stack(out.hidden_states, 1)[0, :, 1:].numpy()
    heads = []
    for weights in out.attentions:
        w = weights[0, :, 1:].double().numpy()  # heads, queries, keys
        rest = w[..., 1:] / w[..., 1:].sum(-1, keepdims=True)
        entropy = -np.sum(np.where(rest > 0, rest * np.log(np.maximum(rest, 1e-300)), 0), -1)
        place = np.arange(w.shape[-1])
        distance = place[1:] - (rest * place[1:]).sum(-1)
        heads.append(np.stack([entropy.mean(-1), distance.mean(-1), w[..., 0].mean(-1)], -1))
    return states, np.stack(heads)


@pytest.mark.parametrize("cls", [LlamaForCausalLM, GPT2LMHeadModel])
@pytest.mark.parametrize("batch_tokens", [8, 4096])
def test_one_pass_gives_the_numbers_of_stacking_everything(tokenizer, cls, batch_tokens):
    model, texts = tiny(cls=cls), ask(0, 7)
    found = traces.collect(
        model, tokenizer, pd.DataFrame({"text": texts}), tokens=9, batch_tokens=batch_tokens, model_name="m"
    )
    plain = [by_hand(tiny(cls=cls), tokenizer, t, 9) for t in texts]
    for layer in range(3):
        wanted = np.stack([states[layer].mean(0) for states, _ in plain])
        np.testing.assert_allclose(found.vectors(layer), wanted, atol=2e-3 * np.abs(wanted).max())
    np.testing.assert_allclose(found.attention[..., :3], np.stack([h for _, h in plain]), atol=1e-5)
    every = np.concatenate([s for s, _ in plain], axis=1)
    np.testing.assert_allclose(found.token_mean, every.mean(1), atol=1e-5)
    np.testing.assert_allclose(found.token_variance, every.var(1, ddof=1), rtol=1e-4, atol=1e-6)
    assert found.token_count == every.shape[1]


def test_the_window_is_exact_and_reported(model, tokenizer):
    texts = pd.DataFrame({"text": [" ".join(WORDS[:50]), "w1 w2 w3"]})
    cut = traces.collect(model, tokenizer, texts, tokens=5)
    assert cut.length.tolist() == [50, 3] and cut.window.tolist() == [5, 3]
    short = traces.collect(model, tokenizer, pd.DataFrame({"text": ["w0 w1 w2 w3 w4", "w1 w2 w3"]}), tokens=None)
    np.testing.assert_allclose(cut.vectors(2), short.vectors(2), atol=1e-5)
    whole = traces.collect(model, tokenizer, pd.DataFrame({"text": [" ".join(WORDS * 3)]}), tokens=None)
    assert whole.window.tolist() == [63] and whole.length.tolist() == [180]  # the context holds 64 tokens


def test_fused_attention_is_switched_and_restored(tokenizer):
    model = tiny(attention="sdpa")
    found = traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1 w2"]}))
    assert found.settings["attention_before"] == "sdpa" and model.config._attn_implementation == "sdpa"
    assert np.isfinite(found.attention[..., :4]).all()


def test_a_model_that_cannot_give_attention_says_so(tokenizer, monkeypatch):
    model = tiny(attention="sdpa")

    def refuse(*args):
        raise ValueError("only flash")

    monkeypatch.setattr(model, "set_attn_implementation", refuse)
    with pytest.raises(errors.ModelError, match="attention=False"):
        traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1 w2"]}))
    found = traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1 w2"]}), attention=False)
    assert np.isnan(found.attention).all() and np.isfinite(found.states).all()
    monkeypatch.setattr(model, "set_attn_implementation", lambda *a: None)  # claims to switch, does not
    with pytest.raises(errors.ModelError, match="no attention weights"):
        traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1 w2"]}))


def test_mixed_languages_and_markup_are_text(tiny):
    """Scripts of all kinds and markup go through as characters; a text's trace does not depend on its neighbours."""
    model, tokenizer = tiny.model(), tiny.tokenizer()
    texts = [
        "日本語の質問 and English",
        "עברית العربية 🤗",
        "<script>alert(1)</script> <b>bold?</b>",
        "one\0two",
        "$x^2$",
    ]
    found = traces.collect(model, tokenizer, pd.DataFrame({"text": texts}))
    assert np.isfinite(found.states).all() and np.isfinite(found.attention[..., :4]).all()
    assert (found.window > 0).all() and (found.length >= found.window).all()
    alone = traces.collect(model, tokenizer, pd.DataFrame({"text": texts[2:3]}))
    np.testing.assert_allclose(alone.vectors(2)[0], found.vectors(2)[2], atol=2e-3)


@pytest.mark.parametrize("bad", ["", "  \n", None, float("nan")])
def test_an_empty_question_is_named(model, tokenizer, bad):
    with pytest.raises(errors.DataError, match="'b', question 1"):
        traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1", bad]}), benchmark="b")


def test_what_cannot_be_traced_is_named(model, tokenizer, monkeypatch):
    """Tokenizers without offsets or first token, texts without a token, models built otherwise: which, and what to do."""
    text = pd.DataFrame({"text": ["w1 w2"]})
    with pytest.raises(errors.DataError, match="'b' has no questions"):
        traces.collect(model, tokenizer, text[:0], benchmark="b")
    with monkeypatch.context() as patch, pytest.raises(errors.ModelError, match="not a 'fast' tokenizer"):
        patch.setattr(type(tokenizer), "is_fast", False)
        traces.collect(model, tokenizer, text)
    silent = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
    with pytest.raises(errors.ModelError, match="neither a beginning- nor an end-of-sequence"):
        traces.collect(model, silent, text)
    assert traces.collect(model, silent, text, first_token=1).settings["first_token"] == 1
    with pytest.raises(errors.DataError, match="'b', question 1.*makes no token"):
        odd = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "w1": 3}, unk_token="<unk>"))
        odd.pre_tokenizer = pre_tokenizers.Split("?", "removed")
        odd = PreTrainedTokenizerFast(tokenizer_object=odd, unk_token="<unk>", bos_token="<s>")
        traces.collect(model, odd, pd.DataFrame({"text": ["w1", "?"]}), benchmark="b")
    with monkeypatch.context() as patch, pytest.raises(errors.ModelError, match="no list of 7 layers"):
        patch.setattr(model.config, "num_hidden_layers", 7)
        traces.collect(model, tokenizer, text)
    other = tiny()
    for layer in other.model.layers:  # a layer that mixes tokens by another way than attention
        layer.self_attn = torch.nn.Identity()
    with pytest.raises(errors.ModelError, match="no attention module: collect with attention=False"):
        traces.collect(other, tokenizer, text)


def test_one_question_in_two_benchmarks_is_reported_and_leaves_the_others_alone(model, tokenizer, questions):
    copied = questions.copy()
    source = copied.loc[copied["benchmark"] == "a1", "text"].tolist()
    copied.loc[copied["benchmark"] == "b1", "text"] = source
    assert question_tables.repeated(copied) == {"b1": "a1"}
    assert not question_tables.repeated(questions)
    found = traces.similarity(
        traces.collect_all(lambda: (model, tokenizer), "m", copied, tokens=8), bootstraps=0, splits=0
    )
    assert found.matrix.loc["a1", "b1"] == pytest.approx(1, abs=1e-4)


def test_attention_on_choices(model, tokenizer):
    table = pd.DataFrame({"text": ["w1 w2 ( w3 / w4 )", "w1 w2"], "choices": [["w3", "w4"], ["w3", "w4"]]})
    found = traces.collect(model, tokenizer, table).attention
    np.testing.assert_allclose(found[0, ..., 2:].sum(-1), 1, atol=1e-5)
    assert (found[0, ..., 4] > 0).all() and np.isnan(found[1, ..., 4]).all()


def test_choices_are_found_from_the_end_and_only_whole():
    assert traces.choice_spans("red? a red car: red", ["red"]) == [(16, 19)]
    assert traces.choice_spans("redder", ["red"]) == []
    text = "Who?\nA. Ann B\nB. Bob\nAnswer:"
    assert [text[s:e] for s, e in traces.choice_spans(text, ["A", "B"])] == ["Ann B", "Bob"]


def test_very_large_states_survive_half_precision(tokenizer):
    model = tiny()
    with torch.no_grad():
        model.model.embed_tokens.weight *= 1e7
    found = traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1 w2 w3"]}))
    assert np.isfinite(found.states).all() and np.abs(found.vectors(0)).max() > 65504


def test_states_that_are_not_finite_are_an_error(tokenizer):
    model = tiny()
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("nan")
    with pytest.raises(errors.ModelError, match="not finite"):
        traces.collect(model, tokenizer, pd.DataFrame({"text": ["w1", "w2"]}))


def test_a_run_resumes_and_repairs(model, tokenizer, questions, tmp_path):
    calls = []

    def load():
        calls.append(1)
        return model, tokenizer

    first = traces.collect_all(load, "m", questions, tmp_path, tokens=8)
    again = traces.collect_all(load, "m", questions, tmp_path, tokens=8)
    assert len(calls) == 1
    np.testing.assert_array_equal(first["a1"].states, again["a1"].states)
    assert again["a1"].question_id == first["a1"].question_id
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    changed = questions.copy()
    changed.loc[changed["benchmark"] == "b1", "text"] = "w1 w2 w3"
    damaged = tmp_path / "m" / "c1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(errors.StaleArtifactError, match=r"c1\.safetensors"):
        traces.Traces.load(damaged)
    traces.collect_all(load, "m", changed, tmp_path, tokens=8)
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert {n for n in before if before[n] != after[n]} == {"b1.safetensors", "c1.safetensors"}
    traces.collect_all(load, "m", questions, tmp_path, tokens=8, identity="other weights")
    assert len(calls) == 3


@pytest.fixture(scope="module")
def collected(model, tokenizer, questions):
    return traces.collect_all(lambda: (model, tokenizer), "m", questions, tokens=16)


@pytest.mark.parametrize("kind", ["activation", "attention"])
def test_traces_of_one_topic_are_alike(collected, kind):
    result = traces.similarity(collected, kind, bootstraps=20, splits=10)
    topics = pd.Series({n: n[0] for n in collected})
    assert inference.auc(result.matrix, topics, bootstraps=0)["auc"] > (0.99 if kind == "activation" else 0.6)
    assert (result.low.to_numpy() <= result.matrix.to_numpy() + 1e-6).all()
    assert (result.high.to_numpy() >= result.matrix.to_numpy() - 1e-6).all()


def test_a_benchmark_of_one_question_is_left_out_with_a_reason(model, tokenizer, questions):
    table = pd.concat([questions, frame(lonely=["w1 w2"])])
    found = traces.collect_all(lambda: (model, tokenizer), "m", table, tokens=8)
    result = traces.similarity(found, bootstraps=0, splits=0)
    assert "lonely" not in result.matrix and result.excluded["benchmark"].tolist() == ["lonely"]
    assert "1 question" in result.excluded["reason"][0]


def test_traces_of_different_models_are_not_mixed(collected, tokenizer):
    other = traces.collect(tiny(1), tokenizer, pd.DataFrame({"text": ask(0)}), model_name="other", tokens=16)
    with pytest.raises(errors.DataError, match="different models"):
        traces.similarity({**collected, "x": other})


def test_the_untrained_twin_is_another_model_and_leaves_the_generator_alone(model):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    twins = [traces.random_twin(model, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    weights = [t.model.layers[0].mlp.up_proj.weight for t in twins]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[2], model.model.layers[0].mlp.up_proj.weight)


def test_debiased_cka_equals_the_written_out_estimator_and_is_unbiased():
    rng = np.random.default_rng(0)

    def hsic(k, m):
        k, m, n = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), len(k)
        one = np.ones(n)
        middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 30))
    k, m = x @ x.T, y @ y.T
    wanted = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert traces.debiased_cka([x, y])[0, 1] == pytest.approx(wanted, abs=1e-10)
    unrelated = [traces.debiased_cka([rng.normal(size=(20, 50)), rng.normal(size=(20, 50))])[0, 1] for _ in range(200)]
    assert abs(np.mean(unrelated)) < 4 * np.std(unrelated) / np.sqrt(200)
    with pytest.raises(errors.DataError, match="same in every model"):
        traces.debiased_cka([x, y[:5]])


def test_second_order_similarity_finds_who_reads_alike(tokenizer, questions):
    # models 0-3 share the embeddings of topic 0, models 4-7 those of topic 1: a-benchmarks arrange the models
    # differently from b-benchmarks
    population = {}
    shared = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(0)) * 3
    for i in range(8):
        model = tiny(100 + i)
        with torch.no_grad():
            model.model.embed_tokens.weight[3 + 10 * (i // 4) : 13 + 10 * (i // 4)] = shared[i // 4]
        population[str(i)] = traces.collect_all(lambda m=model: (m, tokenizer), str(i), questions, tokens=16)
    result = traces.second_order(population, layer=0, bootstraps=5, splits=4)
    assert result.matrix.loc["a1", "a2"] > result.matrix.loc["a1", "b1"] + 0.3
    with pytest.raises(errors.DataError, match="at least 5 models"):
        traces.second_order({k: population[k] for k in "0123"})


def test_agreement_flags_what_no_second_model_confirms(collected, tokenizer, questions):
    same = {n: t for n, t in collected.items()}
    pairs, table = traces.agreement({"m": collected, "again": same}, splits=10)
    assert pairs["disattenuated"][0] == pytest.approx(1, abs=0.05)
    confirmed = table["agreement"].mean()  # six benchmarks are too few for intervals above zero
    rng = np.random.default_rng(0)
    noise = {}
    for name, t in collected.items():
        fake = traces.dataclasses.replace(t, states=rng.normal(size=t.states.shape).astype(np.float16))
        noise[name] = fake
    _, table = traces.agreement({"m": collected, "noise": noise}, splits=20)
    assert table["agreement"].mean() < confirmed - 0.2 and not table["confirmed"].any()


def test_the_atlas_of_a_study(model, tokenizer, questions, tmp_path, monkeypatch):
    entries = tuple(studies.ModelEntry(name=n, source="folder", id="x") for n in ("one", "two"))
    study = studies.load("lab").model_copy(
        update={"traces": studies.Traces(models=entries, questions=10, tokens=8), "name": "tiny"}
    )

    class Loaded:
        def __init__(self, entry):
            self.model, self.tokenizer = (model if entry.name == "one" else tiny(1)), tokenizer

    monkeypatch.setattr(atlas, "load_model", Loaded)
    monkeypatch.setattr(atlas, "fingerprint", lambda entry: entry.name)
    extra = pd.concat([questions, frame(lonely=["w1 w2"], empty=["", " ", "", "w1", ""])])
    made = atlas.trace_study(study, extra, results=tmp_path / "tiny", bootstraps=10, splits=5)
    assert set(made.about["excluded"]) == {"lonely", "empty"}
    tables = atlas.read_atlas(tmp_path / "tiny")
    assert set(tables) == set(atlas.TABLES)
    assert set(tables["layers"]["layer"]) == {0, 1, 2} and tables["layers"]["twin"].any()
    stored = provenance.read_table(tmp_path / "tiny" / "overlap" / "neural.parquet")
    matrix = atlas.square(stored)
    np.testing.assert_allclose(matrix, made.neural.matrix.loc[matrix.index, matrix.index], atol=1e-6)
    topics = pd.Series({n: n[0] for n in matrix.index})
    result = atlas.separation(tables["layers"], ["model", "twin", "layer"], {"topic": topics}, bootstraps=10)
    assert len(result) == 12 and result["auc"].between(0, 1).all()

    one = traces.Traces.load(next((tmp_path / "tiny" / "traces" / "one").glob("a1*")))
    two = traces.Traces.load(next((tmp_path / "tiny" / "traces" / "one").glob("b1*")))
    contrast = atlas.contrast_tables(tables["heads"], "a1", "b1")
    row = contrast[(contrast.model == "one") & (contrast.layer == 2) & (contrast["head"] == 3)]
    row = row[row.statistic == "first"].iloc[0]
    oracle = ttest_ind(one.attention[:, 1, 2, 2], two.attention[:, 1, 2, 2], equal_var=False)
    assert row["p"] == pytest.approx(oracle.pvalue, rel=0.05, abs=1e-4)
    with pytest.raises(errors.DataError, match="did you mean"):
        atlas.contrast_tables(tables["heads"], "a1", "b11")

    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    monkeypatch.setattr(atlas, "frozen", lambda name: tmp_path / "committed" / name)
    atlas.freeze("tiny", tmp_path / "tiny")
    date = atlas.thaw("tiny", tmp_path / "copy")
    pd.testing.assert_frame_equal(atlas.read_atlas(tmp_path / "committed" / "tiny")["heads"], tables["heads"])
    assert len(date) == 10
    copy = provenance.read_table(tmp_path / "copy" / "overlap" / "neural.parquet")
    pd.testing.assert_frame_equal(copy, stored)
    with pytest.raises(errors.UnavailableError, match="make study STUDY=nothing"):
        atlas.thaw("nothing", tmp_path / "copy")

    assert (tmp_path / "tiny" / "atlas").exists()
    atlas.thaw("tiny", tmp_path / "tiny")
    assert not (tmp_path / "tiny" / "atlas").exists(), "committed axes beside an atlas computed here"


def test_a_collection_is_asked_for_once_and_goes_stale(model, tokenizer, questions, tmp_path, monkeypatch, capsys):
    """What ``make study`` does for studies with real models: collect, resume, and know what it has."""
    entries = tuple(studies.ModelEntry(name=n, source="folder", id=str(tmp_path)) for n in ("one", "two"))
    wanted = studies.Traces(models=entries, questions=10, tokens=8)
    study = studies.load("entigraph").model_copy(update={"traces": wanted, "name": "tiny"})
    loads = []

    class Loaded:
        def __init__(self, entry):
            loads.append(entry.name)
            self.model, self.tokenizer = (model if entry.name == "one" else tiny(1)), tokenizer

    def prepare(study, texts=questions):
        provenance.write_table(study.results / "questions.parquet", texts)

    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    weights = {"one": "before", "two": "before"}
    monkeypatch.setattr(atlas, "load_model", Loaded)
    monkeypatch.setattr(atlas, "fingerprint", lambda entry: weights[entry.name])
    monkeypatch.setattr(atlas.study_files, "load", lambda name: study)
    monkeypatch.setattr(atlas.preparation, "prepare", prepare)
    assert "none were collected" in atlas.uncollected(study)
    monkeypatch.setattr(atlas, "available", lambda entry: None)
    assert atlas.main(["tiny"]) == 0 and atlas.uncollected(study) is None
    assert loads == ["one", "two", "one", "two"], "trained models first, then their twins"
    table = provenance.read_table(study.results / atlas.COLLECTED)
    assert len(table) == 2 * 2 * 6 and (table["questions"] == 10).all() and (table["seconds"] >= 0).all()
    assert "6 of 6" in capsys.readouterr().out
    assert atlas.main(["tiny"]) == 0 and len(loads) == 4
    assert "all traces are here" in capsys.readouterr().out

    made = atlas.trace_study(study, questions, bootstraps=0, splits=3)
    assert (made.about["read_now"], made.about["files"]) == (0, 24) and made.about["minutes"] >= 0

    # a run stopped between two files goes on with the missing one
    lost = sorted((study.results / "traces").glob("two/c2*"))[0]
    lost.unlink()
    (study.results / atlas.COLLECTED).unlink()
    assert atlas.main(["tiny"]) == 0 and loads[4:] == ["two"]

    # other weights under the same name: what was collected is not theirs
    weights["two"] = "after"
    assert atlas.uncollected(study) == "those collected here were made with other weights"
    assert atlas.main(["tiny"]) == 0 and loads[5:] == ["two", "two"] and atlas.uncollected(study) is None

    monkeypatch.setattr(atlas, "available", lambda entry: f"{entry.name}: package missing")
    assert atlas.uncollected(study) == "one: package missing"
    fewer = study.model_copy(update={"traces": wanted.model_copy(update={"questions": 8})})
    assert "other settings (questions)" in atlas.uncollected(fewer)
    prepare(study, questions.assign(text=questions["text"] + " w3"))
    assert "other questions" in atlas.uncollected(study)

    def absent(study):
        raise errors.UnavailableError("no network")

    monkeypatch.setattr(atlas.preparation, "prepare", absent)
    assert atlas.main(["tiny"]) == 0 and "no traces collected: no network" in capsys.readouterr().out


def test_committed_atlases_are_sound():
    found = sorted((paths.DATA / "traces").glob("*/atlas/matrices.parquet"))
    assert {path.parents[1].name for path in found} >= {"dclm", "entigraph"}
    for path in found:
        tables = atlas.read_atlas(path.parents[1])
        assert {"matrices", "layers", "heads"} <= set(tables)
        assert not {"text", "prompt"} & {c for t in tables.values() for c in t.columns}
