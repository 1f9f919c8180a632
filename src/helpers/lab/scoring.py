"""Benchmark scores of laboratory models: log-likelihood of the options, from one forward pass a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from helpers.errors import DataError

MINIMUM_SPREAD = 0.06  # a benchmark whose accuracy varies less over the models cannot be explained by anything


class Items(NamedTuple):
    """Questions as token ids, the same for every model of a tokenizer: made once for a population."""

    prompts: list[list[int]]  # distinct prompts, each after the start token
    of_question: np.ndarray  # (n_questions,) the prompt of each question
    options: np.ndarray  # (n_questions, n_options) token ids
    answer: np.ndarray  # (n_questions,) the position of the right option


def encode(tokenizer, questions: pd.DataFrame) -> Items:
    """Return the questions as token ids of a transformers fast tokenizer.

    Raises
    ------
    DataError : an option is not a single token, or questions differ in their number of options
    """
    choices = questions["choices"].tolist()
    if len({len(c) for c in choices}) != 1:
        raise DataError("questions must all have the same number of options to be scored in one table.")
    words = sorted({str(o) for c in choices for o in c})
    token: dict[str, int] = {}
    for word, ids in zip(words, tokenizer(words, add_special_tokens=False)["input_ids"]):
        if len(ids) != 1:
            raise DataError(f"option '{word}' is {len(ids)} tokens; this scorer needs single-token options.")
        token[word] = ids[0]
    prompts, of_question = np.unique(questions["prompt"].to_numpy(dtype=str), return_inverse=True)
    return Items(
        [[tokenizer.bos_token_id, *i] for i in tokenizer(prompts.tolist(), add_special_tokens=False)["input_ids"]],
        of_question,
        np.array([[token[str(o)] for o in c] for c in choices]),
        np.array([list(c).index(a) for c, a in zip(choices, questions["answer"])]),
    )


@torch.inference_mode()
def option_logprobs(model, items: Items, batch_tokens: int = 2048) -> np.ndarray:
    """Return log P(option | prompt) in nats, shape (n_questions, n_options), float64.

    Parameters
    ----------
    model : a transformers causal language model
    items : see :func:`encode`
    batch_tokens : most tokens in one forward pass; prompts of equal length share a pass, so nothing is padded

    Raises
    ------
    DataError : a prompt is longer than the model's context
    """
    lengths = np.array([len(ids) for ids in items.prompts])
    limit = model.config.max_position_embeddings
    if lengths.max() > limit:
        raise DataError(
            f"prompt {int(lengths.argmax())} has {lengths.max()} tokens, the model sees {limit}; shorten it."
        )
    result = np.empty((len(lengths), model.config.vocab_size), dtype=np.float32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        size = max(1, batch_tokens // int(length))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            logits = model(torch.tensor([items.prompts[i] for i in part]), logits_to_keep=1).logits[:, -1]
            result[part] = torch.log_softmax(logits.float(), -1).numpy()
    return result[items.of_question[:, None], items.options].astype(np.float64)


def score(model, tokenizer, questions: pd.DataFrame, items: Items | None = None) -> pd.DataFrame:
    """Return one row a benchmark: accuracy and soft score of one model.

    ``score`` is the share of items whose right option is likeliest, ``soft`` the mean probability of
    the right option among the options. Both standard errors treat items as independent; items that ask one
    fact in other words are not, so they are lower bounds.
    """
    items = items or encode(tokenizer, questions)
    logprobs = option_logprobs(model, items)
    shifted = np.exp(logprobs - logprobs.max(1, keepdims=True))
    table = pd.DataFrame(
        {
            "benchmark": questions["benchmark"].to_numpy(),
            "score": (logprobs.argmax(1) == items.answer).astype(float),
            "soft": (shifted / shifted.sum(1, keepdims=True))[np.arange(len(shifted)), items.answer],
        }
    )
    grouped = table.groupby("benchmark", sort=False)
    count = grouped.size()
    table = grouped[["score", "soft"]].mean()
    table["n_items"] = count
    table["stderr"] = np.sqrt(table["score"] * (1 - table["score"]) / count)
    table["soft_stderr"] = grouped["soft"].std() / np.sqrt(count)
    return table.reset_index()


def score_population(load: Callable, names: Iterable[str], questions: pd.DataFrame, source: str = "computed"):
    """Return the long score table of a population.

    Parameters
    ----------
    load : function of a name that returns (model, tokenizer)
    names : model names
    questions : see :func:`helpers.lab.text.questions`
    source : what the ``source`` column says

    Returns
    -------
    DataFrame: ``benchmark``, ``model``, ``score``, ``n_items``, ``stderr``, ``source``, ``soft``, ``soft_stderr``
    """
    parts, encoded = [], {}
    for name in names:
        model, tokenizer = load(name)
        if id(tokenizer) not in encoded:
            encoded = {id(tokenizer): (encode(tokenizer, questions), tokenizer)}  # kept alive: its id stays its own
        part = score(model, tokenizer, questions, encoded[id(tokenizer)][0])
        part.insert(1, "model", name)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    table["source"] = source
    return table[["benchmark", "model", "score", "n_items", "stderr", "source", "soft", "soft_stderr"]]


def benchmarks_table(questions: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return benchmarks.csv: what each benchmark is, its chance level, and whether its scores vary enough.

    A benchmark whose accuracy has a standard deviation below 0.06 over the models is kept in every table but
    marked ``usable`` False, with the reason.
    """
    spread = scores.groupby("benchmark")["score"].std()
    rows = []
    for name, part in questions.groupby("benchmark", sort=False):
        first = part.iloc[0]
        usable = bool(spread[name] >= MINIMUM_SPREAD)
        reason = "" if usable else f"accuracy sd {spread[name]:.3f} over models is below {MINIMUM_SPREAD}"
        rows.append(
            {
                "benchmark": name,
                "title": f"{first['skill']} ({first['format']})",
                "function": first["domain"],
                "family": "lab",
                "format": first["format"],
                "n_items": len(part),
                "chance": 1 / len(first["choices"]),
                "usable": usable,
                "reason": reason,
                "skill": first["skill"],
                "accuracy_sd": round(float(spread[name]), 4),
            }
        )
    return pd.DataFrame(rows)
