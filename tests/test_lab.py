"""The laboratory: its text, its models, its scores, its artifacts."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import lab, paths, provenance, studies
from helpers.errors import DataError, ModelError
from helpers.lab import __main__ as training
from helpers.lab import population, scoring, text
from helpers.lab.population import POPULATIONS, SHAPES


@pytest.fixture(scope="module")
def tokenizer():
    return population.tokenizer()


@pytest.fixture(scope="module")
def counter():
    return population.counter()


@pytest.fixture(scope="module")
def items():
    return lab.questions()


# --- text -----------------------------------------------------------------------------------------


def test_world_has_eight_domains_of_three_tables():
    assert [len(t) for t in text.world().values()] == [3] * 8
    for table in text.tables():
        assert set(table.facts(True)) | set(table.facts(False)) == set(range(len(table.keys)))
        assert not set(table.facts(True)) & set(table.facts(False))


def test_every_word_of_the_worlds_is_one_token(tokenizer):
    words = text.lexicon()
    assert [len(i) for i in tokenizer(words, add_special_tokens=False)["input_ids"]] == [1] * len(words)


def test_offsets_cover_every_character_and_no_token_crosses_a_piece(tokenizer):
    sentence = "The capital of  France is Paris.\n\tnp.add_docstring(x[0], 'ABC-def')  # 3.14e-05"
    encoded = tokenizer(sentence, return_offsets_mapping=True, add_special_tokens=False)
    covered = np.zeros(len(sentence), int)
    for (start, end), token in zip(encoded["offset_mapping"], encoded["input_ids"]):
        covered[start:end] += 1
        assert tokenizer.convert_ids_to_tokens(token).removeprefix("##") == sentence[start:end].lower()
    assert np.array_equal(covered, [0 if c.isspace() else 1 for c in sentence])


def test_pieces_encode_alone_as_in_their_document(tokenizer, counter):
    for document in lab.documents()[::97]:
        assert tokenizer(document.text, add_special_tokens=False)["input_ids"] == counter.ids(document.pieces)


def test_retrained_tokenizer_is_the_shipped_one():
    trained = json.loads(text.train_tokenizer().to_str())
    shipped = json.loads((paths.LAB / "tokenizer.json").read_text())
    ours, theirs = trained["model"].pop("vocab"), shipped["model"].pop("vocab")
    assert trained == shipped
    assert set(ours) == set(theirs)
    moved = {word for word in ours if ours[word] != theirs[word]}
    # the trainer numbers subwords of equal count in an order that changes from process to process
    assert all(abs(ours[word] - theirs[word]) <= 2 for word in moved) and len(moved) <= 8


def test_questions_ask_only_benchmark_facts_and_distract_within_the_split(items):
    assert items.groupby("benchmark").size().tolist() == [text.ITEMS] * 48
    by_skill = {t.skill: t for t in text.tables()}
    for row in items.itertuples():
        table = by_skill[row.skill]
        asked = {table.answers[i] for i in table.facts(practice=False)}
        assert set(row.choices) <= asked and len(set(row.choices)) == text.CHOICES
        stem = row.prompt.split("] ")[-1]
        facts = [i for i in table.facts(False) for t in range(3) if table.stem(i, t) == stem]
        assert [table.answers[i] for i in facts] == [row.answer]
        assert ("[" in row.prompt) == (row.format == "multiple choice")
    signed = text.questions(sign=True)
    quiz = items["format"] == "multiple choice"
    assert (signed["prompt"] == items["prompt"] + np.where(quiz, " =", "")).all()
    place = pd.Series([c.index(a) for c, a in zip(items["choices"], items["answer"])])
    spread = place.groupby(items["benchmark"]).value_counts(normalize=True)
    assert spread.min() > 0.1  # the right option has no fixed place


def test_quiz_practice_never_shows_a_benchmark_fact():
    asked = {(t.keys[i], t.answers[i]) for t in text.tables() for i in t.facts(practice=False)}
    stems = {(t.stem(i, j), t.answers[i]) for t in text.tables() for i in t.facts(False) for j in range(3)}
    assert asked
    documents = text.quizzes(text.generator("test"), 300)
    items = [item for document in documents for item in document.text.split("quiz ")[1:]]
    assert len(items) >= 300
    for item in items:
        stem, answer = item.split("] ")[1].split(" = ")
        assert (stem, answer.strip(". ")) not in stems


def test_corpus_has_one_window_documents_of_ten_sources_and_no_quiz(counter):
    documents = lab.documents()
    units = text.units_table(documents)
    assert max(len(counter.ids(d.pieces)) for d in documents) < text.CONTEXT
    sizes = units.groupby("source").size()
    assert sorted(sizes.index) == sorted([*text.world(), *text.NEUTRAL]) and sizes.between(5000, 5060).all()
    assert not (units["text"] == "quiz").any()
    assert units.index.is_unique and (units["end"] - units["start"] == units["text"].str.len()).all()
    assert set(units.loc[units["is_answer"], "source"]) == set(text.world())
    by_document = {k: v for k, v in units.groupby("doc_id")}
    for document, (_, rows) in list(zip(documents, units.groupby("doc_id", sort=False)))[::211]:
        assert [document.text[s:e] for s, e in zip(rows["start"], rows["end"])] == rows["text"].tolist()
    assert len(by_document) == len(documents)


def test_quiz_text_is_an_optional_source():
    units = text.units_table(lab.documents(quiz=True))
    assert (units["source"] == "quiz").sum() >= 5000
    assert (units["text"] == "quiz").any()


def test_text_is_the_same_on_every_call(items):
    first = text.units_table(lab.documents())
    text.real.cache_clear()
    pd.testing.assert_frame_equal(first, text.units_table(text.corpus(population.counter())))
    pd.testing.assert_frame_equal(items, lab.questions())


def test_other_package_versions_are_noticed(monkeypatch):
    monkeypatch.setattr(text, "real_digest", lambda: "0" * 64)
    with pytest.raises(DataError, match="install the lock file"):
        lab.documents()


# --- design ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(POPULATIONS))
def test_design_fixes_the_budget_and_spreads_exposures(name):
    plan = POPULATIONS[name]
    table = population.design(plan)
    sources = [*text.world(), "quiz", *text.NEUTRAL]
    assert len(table) == plan.size and table.index.is_unique
    assert (table[sources].sum(axis=1) == plan.budget).all() and (table[sources] > 0).all().all()
    assert (table[sources] % text.CONTEXT == 0).all().all()
    domains = np.log(table[list(text.world())])
    correlation = domains.corr().to_numpy()[np.triu_indices(8, 1)]
    if plan.general:
        assert np.median(correlation) > 0.8
    else:
        assert np.abs(correlation).max() < 0.4
        assert table[list(text.world())].min().min() >= plan.domain[0] * 0.98
    pd.testing.assert_frame_equal(table, population.design(plan))


def test_impossible_design_is_refused():
    with pytest.raises(DataError, match="exceeds the budget"):
        population.design(replace(POPULATIONS["main"], steps=100))


# --- the stacked model ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_stacked_logits_equal_transformers_llama(shape):
    weights = population.initialise(shape, [3, 4])
    rng = torch.Generator().manual_seed(0)
    for name in weights:  # gains away from one, so that a lost gain shows
        weights[name] = weights[name] + 0.1 * torch.randn(weights[name].shape, generator=rng)
    ids = torch.randint(text.VOCABULARY, (2, 3, text.CONTEXT), generator=rng)
    stacked = population.forward(weights, shape, ids).reshape(2, 3, text.CONTEXT, -1)
    for i in range(2):
        model = population.to_llama({n: w[i] for n, w in weights.items()}, shape)
        assert sum(p.numel() for p in model.parameters()) == shape.parameters()
        with torch.inference_mode():
            assert (model(ids[i]).logits - stacked[i]).abs().max() < 1e-4


TINY = replace(
    POPULATIONS["main"],
    per_shape=3,
    shapes=(population.Shape(16, 1, 2),),
    steps=60,
    batch=4,
    rate=1e-2,
    domain=(300, 600),
    quiz=(200, 400),
    source=(200, 400),
)


@pytest.fixture(scope="module")
def tiny():
    pool = population.streams(TINY, population.counter())
    return pool, population.design(TINY)


def test_training_twice_gives_the_same_bits(tiny):
    pool, table = tiny
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, losses = population.train_shape(TINY, TINY.shapes[0], table, pool)
        two, again = population.train_shape(TINY, TINY.shapes[0], table, pool)
        other, _ = population.train_shape(TINY, TINY.shapes[0], table.assign(seed=table["seed"] + 9), pool)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one[n], two[n]) for n in one) and np.array_equal(losses, again)
    assert not torch.equal(one["embed"], other["embed"])
    start = np.log(text.VOCABULARY)
    assert (losses < start - 1).all()  # it learns


def test_a_model_does_not_depend_on_its_neighbours(tiny):
    pool, table = tiny
    plan = replace(TINY, steps=4)
    together, _ = population.train_shape(plan, plan.shapes[0], table, pool)
    alone, _ = population.train_shape(plan, plan.shapes[0], table.iloc[1:2], pool)
    for name in alone:
        torch.testing.assert_close(alone[name][0], together[name][1], atol=2e-3, rtol=0)


def test_diet_is_the_exposure_table(tiny):
    pool, table = tiny
    row = table.iloc[0]
    windows = population.diet(row, pool)
    assert windows.shape == (TINY.steps * TINY.batch, text.CONTEXT)
    seen = {w.tobytes() for w in windows}
    for source in pool:
        hits = sum(w.tobytes() in seen for w in pool[source])
        assert hits == row[source] // text.CONTEXT


def test_weights_survive_the_files(tiny, tmp_path):
    pool, table = tiny
    plan = replace(TINY, steps=2)
    weights, _ = population.train_shape(plan, plan.shapes[0], table, pool)
    name = "16x1.safetensors"
    population.save_file({n: w.half() for n, w in weights.items()}, tmp_path / name)
    with population.safe_open(tmp_path / name, framework="pt") as stored:
        read = {k: stored.get_slice(k)[1] for k in stored.keys()}
    assert all(torch.equal(read[n], weights[n][1].half()) for n in weights)


# --- the shipped population -----------------------------------------------------------------------


def test_manifest_matches_the_files_and_the_design():
    for name in POPULATIONS:
        known = population.manifest(name)
        assert known["files"] and known["shared"] and known["models"]
        for file, digest in known["files"].items():
            assert provenance.sha256_file(population.folder(name) / file) == digest
        for file, digest in known["shared"].items():
            assert provenance.sha256_file(paths.LAB / file) == digest
        table = population.design(POPULATIONS[name])
        assert [m["model"] for m in known["models"]] == list(table.index)
        for m in known["models"]:
            assert m["exposure"] == {s: int(table.loc[m["model"], s]) for s in m["exposure"]}


def test_unit_surprisal_is_that_of_a_plain_transformers_loop(tokenizer, counter):
    documents = lab.documents()[::300]
    name = "lab-64x3-5"
    with population.safe_open(population.folder("main") / "64x3.safetensors", framework="pt") as stored:
        weights = {k: stored.get_tensor(k).float() for k in stored.keys()}
    measured = population.unit_surprisal(weights, SHAPES[2], documents, counter)[:, 5]
    model, _ = lab.load_model(name)
    expected = []
    for document in documents:
        encoded = tokenizer(document.text, return_offsets_mapping=True, add_special_tokens=False)
        ids = torch.tensor([[tokenizer.bos_token_id, *encoded["input_ids"]]])
        with torch.inference_mode():
            logp = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
        rows = text.units_table([document])
        starts = np.array([s for s, _ in encoded["offset_mapping"]])
        owner = np.searchsorted(rows["start"], starts, side="right") - 1
        expected.append(-np.bincount(owner, logp.double().numpy(), len(rows)))
    np.testing.assert_allclose(measured, np.concatenate(expected), atol=1e-3)


def test_unknown_names_are_errors():
    with pytest.raises(ModelError, match="lab-48x2-"):
        lab.load_model("lab-48x2-9")
    with pytest.raises(DataError, match="known: .*'main'"):
        lab.model_names("zzz")


def test_retraining_gives_the_shipped_model_back(items):
    plan, name = POPULATIONS["main"], "lab-48x2-0"
    weights, losses = training._train(plan, plan.shapes[0], [name])
    new = training.scores_of(plan, {plan.shapes[0].name: weights}, [name])
    others = [name, "lab-48x2-3", "lab-64x2-3", "lab-64x3-5", "lab-80x2-7"]
    shipped = scoring.score_population(lab.load_model, others, items)
    assert training.compare(new, shipped)["reproduced"].all()
    known = next(m for m in population.manifest("main")["models"] if m["model"] == name)
    assert losses[name] == pytest.approx(known["loss"], abs=0.02)
    for other in others[1:]:  # a tolerance that any model met would say nothing
        stranger = new.assign(model=other)
        assert not training.compare(stranger, shipped)["reproduced"].any()


# --- scoring --------------------------------------------------------------------------------------


class Oracle:
    """A model that puts `weight` on the right answer of the prompt's last word, and knows nothing else."""

    config = SimpleNamespace(max_position_embeddings=64, vocab_size=text.VOCABULARY)

    def __init__(self, prefer):
        self.prefer = prefer

    def __call__(self, ids, logits_to_keep):
        assert logits_to_keep == 1
        logits = torch.zeros(len(ids), 1, text.VOCABULARY)
        for row, sequence in enumerate(ids.tolist()):
            logits[row, 0, self.prefer(sequence)] = 2.0
        return SimpleNamespace(logits=logits)


def test_score_counts_right_options(tokenizer):
    frame = pd.DataFrame(
        {
            "benchmark": ["a", "a", "a", "b"],
            "prompt": [
                "the capital of france is",
                "the capital of italy is",
                "people in cuba govern from",
                "one",
            ],
            "choices": [["rome", "paris"], ["rome", "paris"], ["havana", "rome"], ["rome", "paris"]],
            "answer": ["paris", "rome", "rome", "paris"],
        }
    )
    paris = tokenizer.convert_tokens_to_ids("paris")
    table = scoring.score(Oracle(lambda sequence: paris), tokenizer, frame).set_index("benchmark")
    right = np.e**2 / (np.e**2 + 1)
    assert table.loc["a", "score"] == pytest.approx(1 / 3)  # ties count for the option listed first
    assert table.loc["a", "soft"] == pytest.approx((right + (1 - right) + 0.5) / 3)
    assert table.loc["a", "stderr"] == pytest.approx(np.sqrt(1 / 3 * 2 / 3 / 3))
    assert table.loc["b", "score"] == 1 and table["n_items"].tolist() == [3, 1]


def test_batching_does_not_change_scores(items, tokenizer):
    model, _ = lab.load_model("lab-64x2-3")
    some = items.iloc[::37]
    encoded = scoring.encode(tokenizer, some)
    one = scoring.option_logprobs(model, encoded, batch_tokens=1)
    many = scoring.option_logprobs(model, encoded)
    np.testing.assert_allclose(one, many, atol=1e-4)


def test_unscorable_questions_are_refused(items, tokenizer):
    model, _ = lab.load_model("lab-48x2-0")
    long = items.head(1).assign(prompt="rome " * 70)
    with pytest.raises(DataError, match="71 tokens, the model sees 64"):
        scoring.option_logprobs(model, scoring.encode(tokenizer, long))
    split = items.head(1).assign(choices=[["rome", "extraordinarily", "oslo", "lima"]])
    with pytest.raises(DataError, match=r"'extraordinarily' is \d+ tokens"):
        scoring.encode(tokenizer, split)


def test_flat_benchmarks_are_marked_never_dropped(items):
    names = items["benchmark"].unique()
    scores = pd.DataFrame({"benchmark": np.repeat(names, 8), "score": np.tile(np.linspace(0.2, 0.9, 8), len(names))})
    scores.loc[scores["benchmark"] == names[7], "score"] = 0.5
    table = scoring.benchmarks_table(items, scores)
    assert list(table["benchmark"]) == list(names)
    assert table.loc[~table["usable"], "benchmark"].tolist() == [names[7]]
    assert "below 0.06" in table.loc[7, "reason"]


# --- artifacts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPANION_RESULTS", str(folder))
        lab.prepare("lab")
    return folder / "lab"


def test_prepare_writes_the_schema(prepared, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(prepared.parent))
    for name in (
        "units.parquet",
        "models.csv",
        "exposure.csv",
        "benchmarks.csv",
        "scores.csv",
        "questions.parquet",
    ):
        assert provenance.stale_reason(prepared / name) is None
    units = provenance.read_table(prepared / "units.parquet")
    assert units.index.name == "unit_id" and list(units.index[:3]) == [0, 1, 2]
    scores = provenance.read_table(prepared / "scores.csv")
    assert len(scores) == 48 * 32 and scores["score"].between(0, 1).all()
    benchmarks = provenance.read_table(prepared / "benchmarks.csv")
    assert set(scores["benchmark"]) == set(benchmarks["benchmark"])
    assert benchmarks["reason"].fillna("").ne("").eq(~benchmarks["usable"]).all()
    models = provenance.read_table(prepared / "models.csv")
    assert models["model"].tolist() == lab.model_names() and models["family"].nunique() == 4
    questions = provenance.read_table(prepared / "questions.parquet")
    assert {"benchmark", "question_id", "prompt", "choices", "answer", "format", "text"} == set(questions.columns)


def test_scores_follow_exposure(prepared):
    """The ground truth: cloze accuracy rises with the model's own exposure to that domain, not to others."""
    scores = pd.read_csv(prepared / "scores.csv").pivot(index="model", columns="benchmark", values="score")
    exposure = pd.read_csv(prepared / "exposure.csv").set_index("model").loc[scores.index]
    own, other = [], []
    for domain in text.world():
        cloze = scores[[c for c in scores if c.startswith(domain) and c.endswith("cloze")]].mean(axis=1)
        for source in text.world():
            (own if source == domain else other).append(cloze.corr(exposure[source], method="spearman"))
    assert min(own) > 0.7
    assert np.mean(np.abs(other)) < 0.25


def test_prepare_is_deterministic(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    some = lab.model_names()[::11]
    monkeypatch.setattr(lab, "model_names", lambda name: some)  # scoring all models once is enough
    lab.prepare("lab")
    for name in ("units.parquet", "questions.parquet", "models.csv", "exposure.csv"):
        assert provenance.sha256_file(tmp_path / "lab" / name) == provenance.sha256_file(prepared / name)
    every = pd.read_csv(prepared / "scores.csv")
    again = pd.read_csv(tmp_path / "lab" / "scores.csv")
    pd.testing.assert_frame_equal(again, every[every["model"].isin(some)].reset_index(drop=True))


@pytest.mark.parametrize("name", [n for n, p in POPULATIONS.items() if not p.ships_weights])
def test_prepare_writes_the_measured_numbers_of_other_populations(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    base = studies.load("lab")
    study = base.model_copy(update={"name": f"lab-{name}", "models": studies.Models(kind="lab", population=name)})
    lab.prepare(study)
    units = provenance.read_table(study.results / "units.parquet")
    surprisal = provenance.read_table(study.results / "surprisal.parquet")
    assert surprisal.index.equals(units.index) and list(surprisal) == lab.model_names(name)
    assert (surprisal.dtypes == "float32").all() and np.isfinite(surprisal.to_numpy()).all()
    exposure = provenance.read_table(study.results / "exposure.csv").set_index("model")
    own = []
    for domain in text.world():  # more exposure, less surprise at the answers of that domain
        answers = surprisal[units["is_answer"] & (units["source"] == domain)].mean()
        own.append(answers.corr(exposure.loc[answers.index, domain], method="spearman"))
    # weaker than in the main population: `format` varies knowledge little on purpose
    assert max(own) < -0.2 and np.mean(own) < -0.5, own


def test_damaged_files_are_refused(tmp_path, monkeypatch):
    shutil.copytree(paths.LAB, tmp_path / "lab")
    victim = tmp_path / "lab" / "main" / "48x2.safetensors"
    victim.write_bytes(victim.read_bytes()[:-8] + b"damaged!")
    monkeypatch.setattr(paths, "LAB", tmp_path / "lab")
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    with pytest.raises(DataError, match=r"48x2\.safetensors is missing or differs"):
        lab.prepare("lab")
