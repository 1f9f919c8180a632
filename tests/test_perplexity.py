"""Perplexity: the invariants of the engine, the start-token rule, both modes, and failure that says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import alignment, corpora, perplexity
from helpers.errors import DataError, ModelError
from helpers.perplexity import paper_surprisal, stream_windows, token_surprisal

TEXTS = ["the cat", "日本語 the dog 🤗 ate", "", "x" * 150 + " the cat sat " * 20, "a\0b", "the cat", "é"]


def plain(model, tokenizer, text: str) -> np.ndarray:
    """Return surprisal from the full logits of one forward pass: the definition, without any machinery."""
    ids = torch.tensor([[0, *alignment.tokenize(tokenizer, [text])[0][0].tolist()]])
    with torch.no_grad():
        logits = model(ids).logits[0, :-1].double()
    return (torch.logsumexp(logits, 1) - logits.gather(1, ids[0, 1:, None])[:, 0]).numpy()


def families():
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        GraniteConfig,
        GraniteForCausalLM,
    )

    ids = {"bos_token_id": 0, "eos_token_id": 0}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    both = small | ids | {"vocab_size": 300, "max_position_embeddings": 64}
    keys = {"num_key_value_heads": 2}
    yield GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64, **ids))
    yield GPTNeoXForCausalLM(GPTNeoXConfig(**both))
    yield Gemma2ForCausalLM(Gemma2Config(**both, **keys, head_dim=16, final_logit_softcapping=3.0))
    yield GraniteForCausalLM(GraniteConfig(**both, **keys, logits_scaling=4.0))


def test_equals_the_definition(tiny):
    model, tokenizer = tiny.model(context=512), tiny.tokenizer()
    for text, (spans, nats) in zip(TEXTS, token_surprisal(model, tokenizer, TEXTS, 200)):
        assert spans.shape == (len(nats), 2) and nats.dtype == np.float64
        if text:
            assert np.abs(nats - plain(model, tokenizer, text)).max() < 1e-4


def test_other_families_equal_the_definition(tiny):
    """Logit caps and scales sit between trunk and logits; the engine must know them."""
    tokenizer = tiny.tokenizer()
    torch.manual_seed(0)
    for model in families():
        text = "the dog ate the cat's log 日本"
        [(_, nats)] = token_surprisal(model.eval(), tokenizer, [text])
        assert np.abs(nats - plain(model, tokenizer, text)).max() < 1e-4, type(model).__name__


def test_unknown_work_between_trunk_and_logits_is_refused(tiny):
    model = tiny.model()
    forward = model.forward

    def altered(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    model.forward = altered
    with pytest.raises(ModelError, match="not supported"):
        token_surprisal(model, tiny.tokenizer(), ["the"])


def test_batch_of_one_equals_batch_of_many_and_padding_is_free(tiny):
    model, tokenizer = tiny.model(), tiny.tokenizer()
    many = token_surprisal(model, tokenizer, TEXTS, 4096)
    for budget in (1, 70, 300):
        other = token_surprisal(model, tokenizer, TEXTS, budget)
        assert all(np.abs(a[1] - b[1]).max(initial=0) < 1e-4 for a, b in zip(many, other))
    alone = [token_surprisal(model, tokenizer, [t])[0] for t in TEXTS]
    assert all(np.abs(a[1] - b[1]).max(initial=0) < 1e-4 for a, b in zip(many, alone))


def test_order_of_texts_changes_nothing_at_all(tiny):
    model, tokenizer = tiny.model(), tiny.tokenizer()
    order = np.random.default_rng(0).permutation(len(TEXTS))
    straight = token_surprisal(model, tokenizer, TEXTS, 200)
    mixed = token_surprisal(model, tokenizer, [TEXTS[k] for k in order], 200)
    for place, k in enumerate(order):
        assert np.array_equal(straight[k][1], mixed[place][1])


@pytest.mark.parametrize(("entries", "tile"), [(7, 21), (300, 900), (299, 299)])
def test_head_in_tiles_equals_full_logits(tiny, monkeypatch, entries, tile):
    model, tokenizer = tiny.model(), tiny.tokenizer()
    whole = token_surprisal(model, tokenizer, TEXTS)
    monkeypatch.setattr(perplexity, "HEAD_ENTRIES", entries)
    monkeypatch.setattr(perplexity, "HEAD_TILE", tile)
    tiled = token_surprisal(model, tokenizer, TEXTS)
    assert all(np.abs(a[1] - b[1]).max(initial=0) < 1e-5 for a, b in zip(whole, tiled))
    assert any((a[1] != b[1]).any() for a, b in zip(whole, tiled)) or entries == 300


def test_fast_products_round_factors_only_where_the_machine_can(tiny):
    """Without such instructions the numbers stay exact; with them they stay close. The switch is put back."""
    model, tokenizer = tiny.model(), tiny.tokenizer()
    before = torch.get_float32_matmul_precision()
    exact, fast = (token_surprisal(model, tokenizer, TEXTS, precision=p) for p in ("exact", "fast"))
    assert torch.get_float32_matmul_precision() == before
    gap = max(np.abs(a[1] - b[1]).max(initial=0) for a, b in zip(exact, fast))
    assert gap == 0 if perplexity.fast_products() == "float32" else gap < 0.1
    with pytest.raises(DataError, match="'exact' or 'fast'"):
        token_surprisal(model, tokenizer, TEXTS, precision="quick")


def test_batches_bound_size_and_padding():
    lengths = [3, 5, 6, 40, 41, 42, 43, 90, 95, 200]
    items = [(np.zeros(n), []) for n in lengths]
    made = [[len(ids) for ids, _ in batch] for batch in perplexity.batches(items, 200)]
    assert sorted(n for batch in made for n in batch) == lengths
    for batch in made:
        assert len(batch) * batch[-1] <= 200
        full = sum(batch[:-1]) >= 25
        assert not full or sum(batch) >= 0.9 * len(batch) * batch[-1]


@pytest.mark.parametrize("start", [0, None])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 200])
def test_windows_score_every_token_once_with_half_a_window_of_context(count, start):
    window, stride = 32, 16
    seen = []
    ids = np.arange(1000, 1000 + count)
    for w in stream_windows(0, ids, start, window, stride):
        assert len(w.ids) <= window
        assert w.ids[w.at].tolist() == ids[w.slot].tolist()
        if w.slot[0] > 1:
            assert w.at.min() >= window // 2
        seen += w.slot.tolist()
    first = 0 if start is not None else 1
    assert seen == list(range(first, count))


def test_long_text_in_windows_agrees_with_one_long_context_where_it_can(tiny):
    model, tokenizer = tiny.model(context=512), tiny.tokenizer()
    text = "the cat sat on the mat " * 8
    long = token_surprisal(model, tokenizer, [text])[0][1]
    short = token_surprisal(model, tokenizer, [text], window=32, stride=16)[0][1]
    assert len(long) == len(short) and np.allclose(long[:31], short[:31], atol=1e-5)
    assert not np.allclose(long, short, atol=1e-5)  # a shorter context must show, else the test shows nothing


@pytest.mark.parametrize(("window", "stride"), [(65, None), (1, None), (32, 17), (32, 0)])
def test_impossible_windows_are_refused(tiny, window, stride):
    with pytest.raises(DataError, match="window|stride"):
        token_surprisal(tiny.model(), tiny.tokenizer(), ["the"], window=window, stride=stride)


def test_start_token_rule(tiny):
    own = tiny.tokenizer()
    assert perplexity.start_token(own) == 0  # its bos
    none = tiny.tokenizer(bos=False)
    assert perplexity.start_token(none) is None
    none.eos_token = "t"
    assert perplexity.start_token(none) == none.eos_token_id
    from tokenizers import processors

    adds = tiny.tokenizer()
    adds.add_special_tokens({"cls_token": "c"})
    adds.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="c $A", special_tokens=[("c", adds.cls_token_id)]
    )
    assert perplexity.start_token(adds) == adds.cls_token_id  # what the tokenizer puts first comes before bos


def test_without_start_token_the_first_token_is_not_measured(tiny):
    [(_, nats), (_, single)] = token_surprisal(tiny.model(), tiny.tokenizer(bos=False), ["the cat", "t"])
    assert np.isnan(nats[0]) and np.isfinite(nats[1:]).all()
    assert np.isnan(single).all()


def test_nan_names_model_and_text(tiny):
    model, tokenizer = tiny.model(), tiny.tokenizer()
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("z")] = float("nan")
    model.name_or_path = "broken"
    text = "the z cat"
    with pytest.raises(ModelError, match=r"model broken gives surprisal nan.*document 7"):
        token_surprisal(model, tokenizer, ["a dog", text], names=["document 6", "document 7"])


def test_out_of_memory_halves_the_batch(tiny):
    model, tokenizer = tiny.model(), tiny.tokenizer()
    texts = ["the cat sat on the mat " + "the " * k for k in range(8)]
    wanted = token_surprisal(model, tokenizer, texts)
    forward, sizes = model.model.forward, []

    def limited(input_ids, **kwargs):
        sizes.append(input_ids.numel())
        if input_ids.numel() > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, **kwargs)

    model.model.forward = limited
    got = token_surprisal(model, tokenizer, texts)
    assert all(np.abs(a[1] - b[1]).max() < 1e-4 for a, b in zip(wanted, got))
    assert sum(s > 60 for s in sizes) < 5  # it learns: not every batch fails first
    with pytest.raises(ModelError, match="not enough memory for one window"):
        token_surprisal(model, tokenizer, ["the cat " * 40])


def test_paper_mode_is_the_definition(tiny):
    model, tokenizer = tiny.model(context=256), tiny.tokenizer()
    text = "the cat sat on the mat and the dog ate the cat's log in the fog 日本語 naïve " * 2
    pieces = corpora.spans(text)
    got = paper_surprisal(model, tokenizer, text, pieces, context_pieces=5, batch_tokens=200)
    for k, (_, end) in enumerate(pieces):
        begin = pieces[max(k - 5, 0), 0]
        nats = plain(model, tokenizer, text[begin:end])
        assert abs(got["last"][k] - nats[-1]) < 1e-4
        own = nats[-got["tokens"][k] :]
        assert abs(got["whole"][k] - own.sum()) < 1e-4


def test_paper_mode_shares_prefixes(tiny):
    """The first 31 pieces of a document share one pass, and so does a context that comes again."""
    windows = [perplexity.Window(k, np.arange(k + 2), np.array([k + 1]), np.array([0])) for k in range(31)]
    again = perplexity.Window(31, np.arange(5), np.array([4]), np.array([0]))
    merged = perplexity.merge_prefixes([*windows, again])
    assert len(merged) == 1 and len(merged[0][1]) == 32


def test_paper_mode_gives_up_context_that_does_not_fit(tiny):
    model, tokenizer = tiny.model(context=64), tiny.tokenizer()
    text = "zebra quick 日 fox jumps " * 8
    pieces = corpora.spans(text)
    got = paper_surprisal(model, tokenizer, text, pieces)
    assert (got["context"] < np.minimum(np.arange(len(pieces)), 30)).any() and (got["context"][5:] > 0).all()
    for k in (len(pieces) - 1, len(pieces) // 2):
        begin = pieces[k - got["context"][k], 0]
        assert abs(got["last"][k] - plain(model, tokenizer, text[begin : pieces[k, 1]])[-1]) < 1e-4
        longer = text[pieces[k - got["context"][k] - 1, 0] : pieces[k, 1]]
        assert len(alignment.tokenize(tokenizer, [longer])[0][0]) > 63  # no piece was given up without need


def test_paper_mode_reads_a_piece_longer_than_the_model_in_windows(tiny):
    """One word of 90 tokens in a context of 64: half a window before each token, and the word before as ever."""
    model, tokenizer = tiny.model(context=64), tiny.tokenizer()
    text = "the cat " + "日本語" * 30 + " sat"
    got = paper_surprisal(model, tokenizer, text, corpora.spans(text), context_pieces=2)
    [ids], _ = alignment.tokenize(tokenizer, [text[8:-4]])
    assert len(ids) > 70 and got["tokens"][2] == len(ids) and got["context"].tolist() == [0, 1, 0, 0]
    whole = token_surprisal(model, tokenizer, [text[8:-4]], window=64, stride=32)[0][1]
    assert abs(got["whole"][2] - whole.sum()) < 1e-3 and abs(got["last"][2] - whole[-1]) < 1e-4
    assert all(np.isfinite(v).all() for v in got.values())


def test_a_model_without_head_is_refused(tiny):
    with pytest.raises(ModelError, match="no language-model head"):
        token_surprisal(tiny.model().model, tiny.tokenizer(), ["the"])
