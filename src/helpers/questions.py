"""Benchmark questions: one table for every format, what a model sees, samples, shared questions, templates.

A question table has one row a question: ``benchmark``, ``question_id`` (unique within a benchmark), ``prompt``,
``choices`` (list of strings, empty where answers are free), ``answer`` (the right choice or the expected text),
``format`` (one of :data:`FORMATS`) and ``text``, what a model sees: the prompt and, where they are not part of it,
the choices, never the answer.

A list of choices does not tell the format: a model may see the choices (multiple choice) or only be asked which of
them it finds likeliest (cloze). So the first of these decides: a field ``format``; the prompt, in records that hold
just what the model saw (the words and logs of lm-evaluation-harness): multiple choice where it shows the choices or
asks for letters, cloze otherwise; the words of the record, where choices mean multiple choice.
"""

from __future__ import annotations

import ast
import csv
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from helpers import limits
from helpers.errors import DataError, nearest
from helpers.fragments import escape
from helpers.problems import Problem, Tally, refuse

FORMATS = ("multiple choice", "cloze", "schema", "language modeling", "generation", "code")
COLUMNS = ("benchmark", "question_id", "prompt", "choices", "answer", "format", "text")
MAX_BYTES = 256 * 2**20  # of a question file, unpacked
_SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".gz", ".bz2", ".xz", ".zst")

Question = dict[str, Any]


def render(prompt: str, choices: Sequence[str] = ()) -> str:
    """Return what a model sees: the prompt, and the choices as lettered lines unless the prompt shows them.

    >>> print(render("Is ice cold?", ["yes", "no"]))
    Is ice cold?
    A. yes
    B. no
    >>> render("Q: 2+2? A. 3 B. 4 Answer:", ["A", "B"])
    'Q: 2+2? A. 3 B. 4 Answer:'
    """
    prompt = prompt.strip()
    choices = [c.strip() for c in choices]
    letters_only = bool(choices) and all(len(c) == 1 and c.isupper() for c in choices)
    if not choices or letters_only or all(_has_word(c, prompt) for c in choices):
        return prompt
    return "\n".join([prompt] + [f"{_letter(i)}. {c}" for i, c in enumerate(choices)]).strip()


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"{index + 1}"


def _has_word(choice: str, prompt: str) -> bool:
    return len(choice) > 3 and choice in prompt


# Names of fields by what they hold, compared in lower case without spaces and underscores; of several the first counts.
_QUESTION = (
    "question", "query", "doctotext", "prompt", "questionstem", "stem", "input", "inputs", "problem", "goal", "ctx",
    "sentence", "questiontext", "messages", "conversation", "conversations", "instruction", "text",
)  # fmt: skip
_PASSAGE = (
    "instruction", "passage", "context", "article", "story", "support", "paragraph", "background", "document", "premise",
)  # fmt: skip
_CHOICES = (
    "choices", "options", "doctochoice", "endings", "candidates", "alternatives", "answerchoices", "answeroptions",
    "possibleanswers", "multiplechoicetargets", "mc1targets", "targetscores",
)  # fmt: skip
_ANSWER = (
    "answer", "gold", "doctotarget", "answerkey", "target", "label", "correctanswer", "correct", "correctoption",
    "correctchoice", "answeridx", "answerindex", "correctidx", "cop", "answers", "bestanswer", "goldanswer", "ideal",
    "solution", "output", "completion", "response", "targets", "canonicalsolution", "code", "expected", "reference",
)  # fmt: skip
_WRONG = ("incorrectanswers", "wronganswers", "distractors")
_COLUMN = re.compile(r"(?:.*(?:option|choice|sol|ending|answer|alternative|candidate|opt)|op|)([a-z]|[0-9]{1,2})")
_WRONG_COLUMN = re.compile(r"(?:distractor|incorrectanswer|wronganswer|incorrect|wrong)[0-9]{1,2}")
_LETTERED = re.compile(r"\s*\(?([A-Z])\s*[).:]\s*(?=\S)")
# Fields that name a record or describe a run of a model; they are no part of the question.
_KNOWN = {
    "benchmark", "task", "format", "questionid", "id", "docid", "filter", "doc", "arguments", "dochash", "prompthash",
    "targethash", "resps", "filteredresps", "metrics", "acc", "accnorm", "exactmatch",
}  # fmt: skip


def parse(row: Mapping[str, Any]) -> Question:
    """Return one question from a record in any known vocabulary; DataError says what is missing or wrong.

    Known: llm-foundry (``query, choices, gold``; ``context_options, continuation, gold``;
    ``context, continuation``; ``context, answer``; ``task_id, prompt, canonical_solution``), the simple words
    ``question, choices, answer`` and their many synonyms (``options``, ``endings``; ``answerKey``, ``label``; a passage
    in ``context``, ``passage`` or ``article``, which comes before the question), lm-evaluation-harness words
    (``doc_to_text, doc_to_choice, doc_to_target``) and its sample logs (``doc, arguments, target``). What a model saw
    may also be a list of chat messages, or such a list written as JSON.

    Choices are a list, a mapping of labels to texts, ``{"text": [...], "label": [...]}``, a list of such objects, one
    column each (``A, B, ...``; ``option1, option2, ...``), or the right and the wrong answers in fields of their own.
    The right one is told by its label where labels are written out (a label wins over a text), else by its text, its
    letter or its index from 0; a string of digits beside numbered columns is the number of the column.

    A field ``format`` (one of :data:`FORMATS`) overrules what the vocabulary says.

    >>> q = parse({"question": "Is ice cold?", "choices": ["yes", "no"], "answer": 0})
    >>> q["answer"], q["format"]
    ('yes', 'multiple choice')
    >>> parse({"question": "Ice is", "choices": ["cold", "warm"], "answer": 0, "format": "cloze"})["text"]
    'Ice is'
    >>> parse({"passage": "A.", "question": "Where?", "A": "here", "B": "there", "answer": "B"})["answer"]
    'there'
    """
    return _understood(row)[0]


def _understood(row: Any) -> tuple[Question, set[str]]:
    """Return a question and the fields of its record that are part of it."""
    if not isinstance(row, Mapping):
        raise DataError(f"expected an object with named fields, found {type(row).__name__}")
    try:
        question, used = _parse(row)
    except RecursionError:
        raise DataError("nested too deeply; give plain records") from None
    try:
        "".join([question["prompt"], *question["choices"], question["answer"]]).encode()
    except UnicodeEncodeError:
        raise DataError("half of a character (an unpaired surrogate); correct the text") from None
    if row.get("format") not in (None, ""):
        told = row["format"]
        if told not in FORMATS:
            raise DataError(f"field 'format' is {_short(told)}; {nearest(str(told)[:40], FORMATS)}")
        shown = question["choices"] if told == "multiple choice" else ()
        text = question["text"] if told == "schema" else render(question["prompt"], shown)
        question |= {"format": told, "text": text or question["text"]}
    return question, used


def _plain(key: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(key).lower())


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, tuple, Mapping)) and not len(value)) or _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _parse(row: Mapping[str, Any]) -> tuple[Question, set[str]]:
    keys = set(row)
    if {"context_options", "continuation"} <= keys:
        options, _ = _options(row["context_options"], "context_options")
        continuation = _string(row, "continuation")
        choices = [f"{o} {continuation}" for o in options]
        gold = _pick(row.get("gold"), choices, "gold")
        text = "\n".join(f"{_letter(i)}. {c}" for i, c in enumerate(choices))
        return _question("", choices, gold, "schema", text), {"context_options", "continuation", "gold"}
    if {"context", "continuation"} <= keys and not {"question", "query"} & keys:
        prompt = _string(row, "context")
        answer = _string(row, "continuation", empty=True)
        return _question(prompt, [], answer, "language modeling", prompt.strip()), {"context", "continuation"}
    if {"doc", "arguments"} <= keys:
        return _sample_log(row), {"doc", "arguments", "target"}
    return _roles(row)


def _roles(row: Mapping[str, Any]) -> tuple[Question, set[str]]:
    """Return a question from a record whose fields are told by their names."""
    place: dict[str, str] = {}
    for key in row:
        place.setdefault(_plain(key), key)
    inner = row.get(place.get("question", ""))
    if isinstance(inner, Mapping) and not ({"role", "content"} <= set(inner)):  # {"question": {"stem", "choices"}}
        question, used = _roles({k: v for k, v in row.items() if k != place["question"]} | dict(inner))
        return question, {k for k in used if k in row} | {place["question"]}
    asked = next((place[n] for n in _QUESTION if n in place), None)
    passages = [place[n] for n in _PASSAGE if n in place and place[n] != asked and not _empty(row[place[n]])]
    if asked is None and passages:
        asked = passages.pop()
    if asked is None:
        shown = ", ".join(sorted(str(k)[:40] for k in row)[:20]) or "none"
        raise DataError(
            f"no question field; fields here: {shown}; expected 'question' with 'answer' (and 'choices'), or the words "
            "of lm-evaluation-harness or llm-foundry"
        )
    if _plain(asked) == "doctotext":
        passages = []  # all that the model saw is in the prompt already
    used = {asked, *passages}
    prompt = "\n".join([*(_string(row, p).strip() for p in passages), _string(row, asked)])
    answers = [place[n] for n in _ANSWER if n in place and place[n] not in used]
    field = next((a for a in answers if not _empty(row[a])), answers[0] if answers else None)
    options, labels, told = _choices(row, place, used)
    gold = row[field] if field is not None else told
    if field is not None:
        used.add(field)
    elif _plain(asked) in ("messages", "conversation", "conversations"):
        prompt, gold = _dialogue(row[asked], asked)
    if field is None and gold is None:
        shown = ", ".join(sorted(str(k)[:40] for k in row)[:20])
        raise DataError(f"field 'answer' is missing (fields here: {shown}); where no answer is right write \"\"")
    if options:
        digits = labels if labels is not None else None
        answer = _pick(gold, options, str(field), digits)
        question = _question(prompt, options, answer, "multiple choice", render(prompt, options))
        return (_as_seen(question) if _plain(asked) == "doctotext" else question), used
    kind = "code" if _plain(field) in ("canonicalsolution", "code") else "generation"
    return _question(prompt, [], _free(gold, str(field)), kind, prompt.strip()), used


def _choices(
    row: Mapping[str, Any], place: Mapping[str, str], used: set[str]
) -> tuple[list[str], list[str] | None, Any]:
    """Return the choices, their labels where these are written out, and the right one where the choices tell it."""
    for name in _CHOICES:
        if name in place and not _empty(row[place[name]]):
            used.add(place[name])
            value, told = row[place[name]], None
            if isinstance(value, str):
                value = _literal(value, place[name])
            if isinstance(value, Mapping) and {"choices", "labels"} <= set(value):  # TruthfulQA's targets
                value, told = value["choices"], value["labels"]
            elif isinstance(value, Mapping) and value and all(_is_number(v) for v in value.values()):
                value, told = list(value), list(value.values())  # BIG-bench: {"yes": 1, "no": 0}
            options, labels = _options(value, place[name])
            return options, labels, told
    right = next((place[n] for n in ("correctanswer", "bestanswer", "correct") if n in place), None)
    wrong = [place[n] for n in place if _WRONG_COLUMN.fullmatch(n) and not _empty(row[place[n]])]
    listed = next((place[n] for n in _WRONG if n in place and not _empty(row[place[n]])), None)
    if right and (wrong or listed):
        used |= {right, *wrong} | ({listed} if listed else set())
        values = [row[k] for k in wrong]
        if listed:
            value = _literal(row[listed], listed) if isinstance(row[listed], str) else row[listed]
            values += list(value) if isinstance(value, (list, tuple)) else [value]
        options, _ = _options([row[right], *values], right)
        return sorted(options), None, row[right]  # no order is told: one that does not give the answer away
    columns: dict[str, dict[str, str]] = {}
    for name, key in place.items():
        match = _COLUMN.fullmatch(name)
        if match and key not in used and not _empty(row[key]):
            columns.setdefault(name[: match.start(1)], {})[match[1]] = key
    for _, own in sorted(columns.items(), key=lambda item: -len(item[1])):
        for series in ([chr(97 + i) for i in range(26)], [str(i) for i in range(27)], [str(i) for i in range(1, 27)]):
            count = next((i for i, mark in enumerate(series) if mark not in own), len(series))
            if count >= 2 and count == len(own):
                used |= set(own.values())
                options, _ = _options([row[own[m]] for m in series[:count]], own[series[0]])
                return options, [("#" if m.isdigit() else "") + m.upper() for m in series[:count]], None
    return [], None, None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, bool))


def _literal(value: str, key: str) -> Any:
    """Return what a list or mapping written as text holds; other text as it is."""
    if not value.strip().startswith(("[", "{")):
        return value
    try:
        return limits.parse_json(value)
    except DataError:
        pass
    try:
        return ast.literal_eval(value.strip()) if len(value) < 2**20 else value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise DataError(f'field \'{key}\' is {_short(value)}; write a JSON list such as ["yes", "no"]') from None


def _question(prompt: str, choices: list[str], answer: str, kind: str, text: str) -> Question:
    return {"prompt": prompt, "choices": choices, "answer": answer, "format": kind, "text": text}


def _as_seen(question: Question) -> Question:
    """Return a question whose prompt is all that the model saw: the format follows from whether it shows the choices."""
    prompt, choices = question["prompt"], [c.strip() for c in question["choices"]]
    letters = all(len(c) == 1 and c.isupper() for c in choices)
    shown = letters or all(re.search(rf"(?<!\w){re.escape(c)}(?!\w)", prompt) for c in choices)
    return question | {"format": "multiple choice" if shown else "cloze", "text": prompt.strip()}


def _sample_log(row: Mapping[str, Any]) -> Question:
    """Read one line of a harness sample log; `arguments` has one (context, continuation) a choice."""
    arguments = row["arguments"]
    if isinstance(arguments, Mapping):  # newer logs: {"gen_args_0": {"arg_0": context, "arg_1": continuation}}
        if not all(isinstance(a, Mapping) and "arg_0" in a for a in arguments.values()):
            raise DataError("field 'arguments' holds no [context, continuation] pairs")
        arguments = [[a["arg_0"], *([a["arg_1"]] if a.get("arg_1") is not None else [])] for a in arguments.values()]
    if not isinstance(arguments, (list, tuple)) or not arguments:
        raise DataError("field 'arguments' holds no [context, continuation] pairs")
    if not all(isinstance(a, (list, tuple)) and a for a in arguments):
        raise DataError("field 'arguments' holds no [context, continuation] pairs")
    contexts = [_said(a[0], "arguments") for a in arguments]
    prompt, target = contexts[0], row.get("target")
    continued = all(len(a) > 1 and isinstance(a[1], str) for a in arguments)
    if len(arguments) > 1 and continued:
        one = len(set(contexts)) == 1
        choices = [a[1].strip() if one else f"{c} {a[1].strip()}" for c, a in zip(contexts, arguments, strict=True)]
        answer = _pick(target, choices, "target")
        if one:
            return _as_seen(_question(prompt, choices, answer, "", ""))
        return _question(prompt, choices, answer, "schema", render("", choices))
    if not prompt.strip():
        raise DataError("field 'arguments' holds an empty context")
    if len(arguments) == 1 and continued:  # one continuation, whose probability is asked: no free answer
        return _question(prompt, [], arguments[0][1].strip(), "language modeling", prompt.strip())
    if len(arguments[0]) == 1:  # the whole text's probability
        return _question(prompt, [], "" if target is None else str(target), "language modeling", prompt.strip())
    return _question(prompt, [], "" if _empty(target) else _free(target, "target"), "generation", prompt.strip())


def _turns(value: Any) -> list[tuple[str, str]] | None:
    """Return (role, words) of chat messages, a list or its JSON; None when it is something else."""
    if isinstance(value, str) and value.lstrip().startswith("[") and '"' in value and len(value) <= limits.MAX_JSON:
        try:
            value = limits.parse_json(value)
        except DataError:
            return None
    if not isinstance(value, (list, tuple)) or not value:
        return None
    found = []
    for message in value:
        if not isinstance(message, Mapping):
            return None
        role = message.get("role", message.get("from"))
        words = message.get("content", message.get("value"))
        if isinstance(words, (list, tuple)):  # parts: texts, and what is no text
            words = "\n".join(p["text"] for p in words if isinstance(p, Mapping) and isinstance(p.get("text"), str))
        if not isinstance(role, str) or not isinstance(words, str):
            return None
        found.append((role, words))
    return found


def _said(value: Any, key: str) -> str:
    """Return text as it is, and of chat messages what was said."""
    turns = _turns(value)
    if turns is not None:
        return "\n".join(words for _, words in turns)
    if not isinstance(value, str):
        raise DataError(f"field '{key}' holds a {type(value).__name__}, expected text or chat messages")
    return value


def _dialogue(value: Any, key: str) -> tuple[str, Any]:
    """Return what was said before a conversation's last answer, and that answer (None when the user spoke last)."""
    turns = _turns(value)
    if turns is None or len(turns) < 2 or turns[-1][0].lower() not in ("assistant", "gpt", "model"):
        return _said(value, key), None
    return "\n".join(words for _, words in turns[:-1]), turns[-1][1]


def _string(row: Mapping[str, Any], key: str, empty: bool = False) -> str:
    value = row[key]
    if _turns(value) is not None:
        value = _said(value, key)
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        value = value[0]
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and (isinstance(value, int) or math.isfinite(value))
    ):
        value = _digits(value)
    if not isinstance(value, str):
        raise DataError(f"field '{key}' is {type(value).__name__}, expected text")
    if not empty and not value.strip():
        raise DataError(f"field '{key}' is empty")
    return value


def _digits(value: float) -> str:
    try:
        return str(value)
    except ValueError:
        raise DataError("a number of more than 4300 digits; write it as text") from None


def _free(value: Any, key: str) -> str:
    """Return a free answer as text; of several accepted ones the first."""
    if isinstance(value, Mapping):  # TriviaQA: {"value": ..., "aliases": [...]}; SQuAD: {"text": [...], ...}
        value = value.get("value", value.get("text"))
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if isinstance(value, bool):
        return str(value).lower()
    return _string({key: value}, key, empty=True)


def _options(value: Any, key: str) -> tuple[list[str], list[str] | None]:
    """Return the texts of choices and their labels, None where none are written out."""
    labels = None
    if isinstance(value, Mapping) and "text" in value:  # the form of ARC: {"text": [...], "label": [...]}
        labels, value = value.get("label", value.get("labels")), value["text"]
    elif isinstance(value, Mapping):
        labels, value = list(value), list(value.values())
    elif isinstance(value, (list, tuple)) and value and all(isinstance(v, Mapping) and "text" in v for v in value):
        marks = [next((v[k] for k in ("label", "key", "id") if k in v), None) for v in value]
        labels, value = (None if None in marks else marks), [v["text"] for v in value]
    if isinstance(value, str):
        value = [v.strip() for v in value.split(";")] if ";" in value else value
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        raise DataError(f"field '{key}' must be a list of at least two choices, found {_short(value)}")
    options = [
        _digits(v) if isinstance(v, (str, int, float)) and not isinstance(v, bool) and not _is_nan(v) else None
        for v in value
    ]
    if None in options:
        raise DataError(f"field '{key}' holds a {type(value[options.index(None)]).__name__}, expected text")
    if any(not o.strip() for o in options):
        raise DataError(f"field '{key}': choice {[bool(o.strip()) for o in options].index(False) + 1} is empty")
    if labels is not None:
        if not isinstance(labels, (list, tuple)) or len(labels) != len(options):
            raise DataError(f"field '{key}' has labels that do not go with its {len(options)} choices")
        labels = [_short(m) if isinstance(m, (list, dict)) else _digits(m).strip() for m in labels]
        if len({m.upper() for m in labels}) < len(labels):
            raise DataError(f"field '{key}' has two choices of one label")
    marks = [_LETTERED.match(o) for o in options]
    if labels is None and len(options) <= 26 and all(m and m[1] == _letter(i) for i, m in enumerate(marks)):
        options = [o[m.end() :] for o, m in zip(options, marks, strict=True)]  # "A) four": the letter is no part of it
    return options, labels


def _pick(gold: Any, choices: Sequence[str], field: str, labels: Sequence[str] | None = None) -> str:
    """Return the right choice named by its label, its text, its letter or its index; the first that fits wins.

    Labels that begin with # are numbers of columns: only a string means one, an integer counts from 0.
    """
    if isinstance(gold, (list, tuple)) and len(gold) == len(choices) and all(_is_number(g) for g in gold):
        if all(g in (0, 1) for g in gold) and sum(gold) == 1:
            gold = [int(g) for g in gold].index(1)
    if isinstance(gold, (list, tuple)):
        if len(gold) != 1:
            raise DataError(f"field '{field}' names {len(gold)} right answers, expected one")
        gold = gold[0]
    if isinstance(gold, np.ndarray):
        raise DataError(f"field '{field}' is an array, expected the index, the letter or the text")
    if _empty(gold):
        raise DataError(f"field '{field}' (the right answer) is missing")
    if isinstance(gold, bool):
        raise DataError(f"field '{field}' is {gold}; write the index, the letter or the text of the right choice")
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)
    stripped = [c.strip() for c in choices]
    columns = labels is not None and labels[0].startswith("#")
    if labels is not None and isinstance(gold, (str, int)) and not (columns and isinstance(gold, int)):
        told = str(gold).strip() if len(str(gold)) < 1000 else ""
        marks = [m.lstrip("#").upper() for m in labels]
        for spelling in (told.upper(), told.strip("().").upper()):
            if spelling in marks:
                return choices[marks.index(spelling)]
        if not columns and told.lstrip("-").isdigit() and all(m.isdigit() for m in marks):
            raise DataError(f"field '{field}' is {_short(gold)}, which is none of the labels {', '.join(marks[:12])}")
    if isinstance(gold, str):
        if gold.strip() in stripped:
            return choices[stripped.index(gold.strip())]
        plain = gold.strip().strip("().").strip()
        if plain.lstrip("-").isdecimal() and len(plain) < 10:
            gold = int(plain)
        elif len(plain) == 1 and plain.isascii() and plain.isalpha():
            gold = ord(plain.upper()) - ord("A")
        else:
            raise DataError(f"field '{field}' is {_short(gold)}, which is not one of the {len(choices)} choices")
    if not isinstance(gold, (int, np.integer)) or not 0 <= gold < len(choices):
        raise DataError(f"field '{field}' is {_short(gold)}, expected 0 to {len(choices) - 1} (counted from 0)")
    return choices[int(gold)]


def _short(value: Any, limit: int = 40) -> str:
    try:
        shown = repr(value[:100] if isinstance(value, (str, list)) else value)
    except (ValueError, RecursionError):
        shown = type(value).__name__
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def table(rows: Iterable[Question], benchmark: str, ids: Iterable[Any] | None = None) -> pd.DataFrame:
    """Return a question table of one benchmark from parsed questions."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS[2:]))
    frame.insert(0, "benchmark", benchmark)
    frame.insert(1, "question_id", [str(i) for i in (range(len(frame)) if ids is None else ids)])
    return frame


def read(path: Path | str, benchmark: str | None = None, problems: list[Problem] | None = None) -> pd.DataFrame:
    """Read a question file: JSON lines, a JSON list, CSV or TSV with the same field names, Parquet; packed or not.

    `benchmark` keeps the questions of that benchmark where the records name several (field ``benchmark``, or ``task``),
    and names those of a file that names none or one. Without it the records' own names count, then the file's name.
    With `problems` given, every problem is appended and the sound questions are returned; without, DataError lists
    them. Whatever is wrong with many records for one reason is one problem with the first record and a count.
    """
    path = Path(path)
    found: list[Problem] = []
    kept: list[tuple[str, str, Question]] = []
    tally = Tally()
    idle: Counter[str] = Counter()
    filters: dict[tuple[str, str], set[str]] = {}
    fields: set[str] = set()
    shown = limits.name(path)
    own = _file_benchmark(path)
    total = again = 0
    for number, record in _shifted(_records(path, shown, found, tally)):
        total += 1
        try:
            question, used = _understood(record)
        except DataError as error:
            told = str(error)
            cause = re.sub(r"(?<!field )'[^']*'|\d+", "", told)
            tally.add(cause, Problem(shown, number, None, told, "correct or remove this line"))
            continue
        idle.update(
            str(k)[:80] for k, v in record.items() if k not in used and _plain(k) not in _KNOWN and not _empty(v)
        )
        field = next((k for k in ("benchmark", "task") if isinstance(record.get(k), str) and record[k].strip()), None)
        fields.add(field or "")
        name = record[field].strip() if field else (benchmark or own)
        key = next((record[k] for k in ("question_id", "id", "doc_id") if not _empty(record.get(k))), number - 1)
        key = key if isinstance(key, str) else _short(key, 200)
        if isinstance(record.get("filter"), str) and "arguments" in record:
            seen = filters.setdefault((name, key), set())
            if seen and record["filter"] not in seen:
                seen.add(record["filter"])
                again += 1
                continue
            seen.add(record["filter"])
        name, key = (x[:200].encode("utf-8", "backslashreplace").decode() for x in (name, key))
        kept.append((name, key, question))
    found += tally.told("records")
    if again:
        told = f"{again} line(s) repeat a question for another filter of the answers"
        found.append(Problem(shown, None, "filter", told, "nothing: each question counts once", serious=False))
    if idle:
        listed = ", ".join(f"'{k}' (in {n} of {total})" for k, n in idle.most_common(12))
        more = f" and {len(idle) - 12} more" if len(idle) > 12 else ""
        told = f"fields that are not used: {listed}{more}"
        do = "what models saw belongs in 'question', 'passage' or 'choices'; leave the rest"
        found.append(Problem(shown, None, None, told, do, serious=False))
    kept = _of_benchmark(kept, benchmark, "benchmark" in fields, shown, found)
    frame = table([q for _, _, q in kept], "", [k for _, k, _ in kept])
    frame["benchmark"] = pd.Series([n for n, _, _ in kept], dtype=frame["benchmark"].dtype)
    twice = Tally()
    for (name, key), group in frame[frame.duplicated(["benchmark", "question_id"], keep=False)].groupby(
        ["benchmark", "question_id"]
    ):
        told = f"'{key}' names {len(group)} questions of '{name}'"
        twice.add("id", Problem(shown, None, "question_id", told, "make it unique"))
    found += twice.told("such names")
    same = frame[frame.duplicated(["benchmark", "text"])]
    if len(same):
        told, do = f"{len(same)} question(s) repeat an earlier one word for word", "remove the repeats if not meant"
        found.append(Problem(shown, None, None, told, do, serious=False))
    double = frame["choices"].map(lambda c: len({x.strip() for x in c}) < len(c)).astype(bool)
    if double.any():
        told = f"{double.sum()} question(s) offer the same choice twice (first: '{frame.loc[double, 'question_id'].iloc[0]}')"
        do = "give different choices: two equal ones cannot be told apart"
        found.append(Problem(shown, None, "choices", told, do, serious=False))
    if not len(frame) and not found:
        found.append(Problem(shown, None, None, "no questions in this file", "give at least one question"))
    if problems is None:
        refuse(found)
    else:
        problems.extend(found)
    return frame


def _file_benchmark(path: Path) -> str:
    """Return what a file's name says: its stem, and the task of a harness sample log.

    >>> _file_benchmark(Path("samples_arc_easy_2024-05-01T10-00-00.123456.jsonl.gz"))
    'arc_easy'
    """
    stem = path.name
    while Path(stem).suffix.lower() in _SUFFIXES:
        stem = Path(stem).stem
    log = re.fullmatch(r"samples_(.+?)(?:_\d{4}-\d\d-\d\dT[\d.:-]+)?", stem)
    return (log[1] if log else stem).encode("utf-8", "backslashreplace").decode()


def _of_benchmark(
    kept: list[tuple[str, str, Question]], benchmark: str | None, told_apart: bool, shown: str, found: list[Problem]
) -> list[tuple[str, str, Question]]:
    """Return the questions of one benchmark under its name; a file about several others has none."""
    counts = Counter(n for n, _, _ in kept)
    if benchmark is None or not counts or set(counts) == {benchmark}:
        return kept
    listed = ", ".join(f"'{n[:60]}' ({c})" for n, c in counts.most_common(8)) + (" ..." if len(counts) > 8 else "")
    if benchmark in counts:
        told = f"questions of {len(counts)} benchmarks: {listed}; the {counts[benchmark]} of '{benchmark}' are used"
        found.append(Problem(shown, None, "benchmark", told, "nothing, if that is meant", serious=False))
        return [one for one in kept if one[0] == benchmark]
    if len(counts) > 1 and told_apart:
        told = f"questions of {len(counts)} benchmarks, none of them '{benchmark}': {listed}"
        do = "name one of them, or correct the field 'benchmark'"
        found.append(Problem(shown, None, "benchmark", told, do))
        return []
    told = f"questions of {listed} are taken for '{benchmark}'"
    found.append(Problem(shown, None, None, told, "correct the name if another benchmark is meant", serious=False))
    ids = Counter(k for _, k, _ in kept)
    return [(benchmark, k if ids[k] == 1 else f"{n}:{k}", q) for n, k, q in kept]


def _shifted(records: Iterable[tuple[int, Any]]) -> Iterable[tuple[int, Any]]:
    """Return the records; where numbered columns of choices are counted from 0, such answers become integers.

    ``option1, option2`` with the answer "1" or "2" names columns, ``sol1, sol2`` with 0 or 1 counts from 0. One record
    does not tell which, but in a file some answer is 0.
    """
    records = list(records)
    numbered: set[str] = set()
    for _, record in records:
        if isinstance(record, Mapping) and any(_COLUMN.fullmatch(_plain(k)) and _plain(k)[-1:] == "1" for k in record):
            fields = [k for k in record if _plain(k) in _ANSWER and str(record[k])[:3].strip() == "0"]
            if not any(_COLUMN.fullmatch(_plain(k)) and _plain(k)[-1:] == "0" for k in record):
                numbered.update(fields)
    for number, record in records:
        if numbered and isinstance(record, Mapping):
            digits = {
                k: int(v)
                for k, v in record.items()
                if k in numbered and isinstance(v, str) and re.fullmatch(r"\s*\d{1,2}\s*", v)
            }
            record = {**record, **digits}
        yield number, record


def _records(path: Path, shown: str, found: list[Problem], tally: Tally) -> Iterable[tuple[int, Any]]:
    why = limits.refusal(path)
    if why:
        told, _, do = why.partition("; ")
        found.append(Problem(shown, None, None, told, do or "name a plain file"))
        return
    try:
        with limits.opened(path) as stream:
            head = limits.read(stream, shown, 2**16)
        if not head.strip():
            found.append(Problem(shown, None, None, "an empty file", "give at least one question"))
        elif head.startswith(b"PAR1"):
            yield from _parquet_records(path, shown)
        else:
            yield from _text_records(path, head, shown, tally)
    except DataError as error:
        place, _, told = str(error).removeprefix(shown).partition(": ")
        row = int(place.removeprefix(", row ")) if place.startswith(", row ") else None
        told, _, do = told.removesuffix(".").rpartition("; ")
        found.append(Problem(shown, row, None, told or do, do if told else "save it as UTF-8 JSON lines or CSV"))


def _text_records(path: Path, head: bytes, shown: str, tally: Tally) -> Iterable[tuple[int, Any]]:
    kinds = [s.lower() for s in path.suffixes[-2:]]
    code = limits.encoding(head)
    start = head.decode(code, errors="ignore").lstrip()[:1]
    table_ = next((s for s in (".csv", ".tsv") if s in kinds), None)
    if code == "utf-8-sig" and not table_ and start != "[":
        why = limits.not_text(head)
        if why:
            raise DataError(f"{shown}: not text: {why}")
        with limits.opened(path) as stream:
            raw = limits.read_bytes(path, limits.MAX_JSON) if ".json" in kinds else None
            if raw is None or not _is_one_object(raw):
                yield from _lines(limits.lines(stream, shown, limits.MAX_JSON, MAX_BYTES), tally, shown)
                return
    text = limits.decode(limits.read_bytes(path, limits.MAX_JSON), shown)
    if table_:
        yield from _table_records(text, table_, shown, tally)
    elif start == "[" or _is_one_object(text):
        yield from _whole(text, shown, tally)
    else:
        yield from _lines(enumerate((line.encode() for line in text.split("\n")), 1), tally, shown)


def _is_one_object(text: str | bytes) -> bool:
    """Return whether JSON text is one object rather than one a line: its first line is not complete."""
    first = text.strip().split("\n" if isinstance(text, str) else b"\n", 1)
    try:
        limits.parse_json(first[0])
    except DataError:
        return len(first) > 1
    return len(first) == 1


def _whole(text: str, shown: str, tally: Tally) -> Iterable[tuple[int, Any]]:
    """Yield the records of one JSON value: a list, an object with one list of objects, or a single record."""
    try:
        content = limits.parse_json(text)
    except DataError as error:
        if text.lstrip()[:1] == "[" and text.lstrip().split("\n", 1)[0].rstrip().endswith("]"):
            yield from _lines(enumerate((line.encode() for line in text.split("\n")), 1), tally, shown)
            return
        raise DataError(f"{shown}: {error}; repair the file") from None
    if isinstance(content, Mapping):
        lists = [v for v in content.values() if isinstance(v, list) and v and all(isinstance(i, Mapping) for i in v)]
        is_record = any(_plain(k) in _QUESTION or k == "arguments" for k in content)
        content = lists[0] if len(lists) == 1 and not is_record else [content]
    if not isinstance(content, list):
        raise DataError(f"{shown}: a JSON {type(content).__name__}; write a list of questions")
    yield from enumerate(content, 1)


def _lines(numbered: Iterable[tuple[int, bytes]], tally: Tally, shown: str) -> Iterable[tuple[int, Any]]:
    for number, line in numbered:
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            yield number, limits.parse_json(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            told = f"byte {line[error.start]:#04x} is not UTF-8"
            tally.add("utf-8", Problem(shown, number, None, told, "save it as UTF-8"))
        except DataError as error:
            do = "one JSON object on each line (a whole list belongs in a .json file)"
            tally.add(re.sub(r"'[^']*'|\d+", "", str(error)), Problem(shown, number, None, str(error), do))


def _table_records(text: str, suffix: str, shown: str, tally: Tally) -> Iterable[tuple[int, Any]]:
    csv.field_size_limit(2**24)
    # only line ends separate rows: other marks that Unicode calls line separators may stand in a field
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
    try:
        header = reader.fieldnames or []
        for twice in (k for k, n in Counter(header).items() if n > 1):
            raise DataError(f"{shown}: two columns are called {_short(twice)}; name every column differently")
        for row in reader:
            if None in row or None in row.values():
                do = "quote fields that hold the separator"
                told = "another number of fields than the header"
                tally.add("fields", Problem(shown, reader.line_num, None, told, do))
                continue
            yield reader.line_num, {k: v for k, v in row.items() if v != ""}
    except csv.Error as error:
        tally.add("csv", Problem(shown, reader.line_num, None, f"not a valid table: {error}", "repair the quoting"))


def _parquet_records(path: Path, shown: str) -> Iterable[tuple[int, Any]]:
    number = 0
    for batch in limits.parquet_batches(path, shown):
        try:
            rows = batch.to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise DataError(f"{shown}: a damaged Parquet file ({str(error)[:80]}); save it again") from None
        for record in rows:
            number += 1
            yield number, record


def read_xwinograd(path: Path | str) -> pd.DataFrame:
    """Read the XWinograd table (no header, tab separated) as benchmarks ``xwinograd_<language>``."""
    rows, names, ids = [], [], []
    counts: Counter[str] = Counter()
    shown = limits.name(path)
    for number, line in enumerate(limits.decode(limits.read_bytes(path), shown).split("\n"), 1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t")
        if len(fields) != 7:
            raise DataError(f"{shown}, row {number}: {len(fields)} fields, expected 7 separated by tabs.")
        language, sentence = fields[0], fields[3]
        try:
            pronoun, candidates = limits.parse_json(fields[5])[0], limits.parse_json(fields[6])
            choices = [c[0] for c in candidates]
            right = [c[0] for c in candidates if c[3]]
        except (DataError, LookupError, TypeError) as error:
            raise DataError(f"{shown}, row {number}: no list of candidates ({str(error)[:80]}).") from None
        if len(right) != 1 or not all(isinstance(c, str) for c in [pronoun, *choices]):
            raise DataError(
                f"{shown}, row {number}: {len(right)} right candidates, expected one, and all of them texts."
            )
        text = "\n".join([sentence, f"{pronoun}:"] + [f"{_letter(i)}. {c}" for i, c in enumerate(choices)])
        rows.append(_question(sentence, choices, right[0], "schema", text))
        names.append(f"xwinograd_{language}")
        ids.append(f"{language}-{counts[language]}")
        counts[language] += 1
    frame = table(rows, "", ids)
    frame["benchmark"] = names
    return frame


def read_truthfulqa(path: Path | str, benchmark: str = "truthfulqa") -> pd.DataFrame:
    """Read the TruthfulQA table: the best answer against every incorrect one (the single-true form, MC1)."""
    shown = limits.name(path)
    raw = limits.read_csv(path, columns=("Question", "Best Answer", "Incorrect Answers"), dtype=str)
    rows = []
    for question, best, wrong in zip(raw["Question"], raw["Best Answer"], raw["Incorrect Answers"], strict=True):
        choices = list(dict.fromkeys([best.strip()] + [w.strip() for w in wrong.split(";") if w.strip()]))
        if not question.strip() or not best.strip() or len(choices) < 2:
            raise DataError(f"{shown}, row {len(rows) + 2}: no question, no best answer or no incorrect one.")
        rows.append(_question(question, choices, best.strip(), "multiple choice", render(question, choices)))
    return table(rows, benchmark)


def sample(frame: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return at most `count` questions of each benchmark, the same ones for the same seed.

    A benchmark's draw does not depend on which other benchmarks are in the table.

    >>> t = table([parse({"question": str(i), "answer": "x"}) for i in range(9)], "b")
    >>> sample(t, 3, 0).equals(sample(t, 3, 0)), len(sample(t, 3, 0))
    (True, 3)
    """
    parts = []
    for name, group in frame.groupby("benchmark", sort=False):
        take = min(count, len(group))
        chosen = _generator(seed, name).choice(len(group), size=take, replace=False)
        parts.append(group.iloc[np.sort(chosen)])
    return pd.concat(parts) if parts else frame.iloc[:0]


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(str(name).encode())])


def words(texts: pd.Series) -> pd.Series:
    """Return the number of whitespace-separated words of each text."""
    return texts.str.split().str.len()


def sample_length_matched(frame: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return samples whose lengths have the same distribution in every benchmark.

    Lengths in words are cut into bins of half an octave; from every bin each benchmark gives as many questions as
    the poorest benchmark has there, thinned in proportion to `count` in all. DataError names the benchmarks when
    no bin is common to all.
    """
    bins = np.floor(2 * np.log2(words(frame["text"]).clip(lower=1))).astype(int)
    table_ = pd.crosstab(frame["benchmark"], bins)
    common = table_.min()
    common = common[common > 0]
    if common.empty:
        span = words(frame["text"]).groupby(frame["benchmark"]).quantile([0.05, 0.95]).unstack()
        listed = "; ".join(
            f"{n}: {low:.0f} to {high:.0f} words" for n, (low, high) in zip(span.index, span.to_numpy(), strict=True)
        )
        raise DataError(
            f"No question length is common to all benchmarks ({listed}). Compare them in pairs or fewer at once."
        )
    quota = common if common.sum() <= count else np.floor(common * count / common.sum()).astype(int)
    short = min(count, common.sum()) - quota.sum()
    richest = (common - quota).sort_values(ascending=False, kind="stable").index[:short]
    quota.loc[richest] += 1
    parts = []
    for name, group in frame.groupby("benchmark", sort=False):
        generator = _generator(seed, name)
        own = bins.loc[group.index]
        for value, take in quota.items():
            places = np.flatnonzero((own == value).to_numpy())
            parts.append(group.iloc[np.sort(generator.choice(places, size=take, replace=False))])
    return pd.concat(parts)


def normalise(text: str) -> str:
    """Return the text in lower case with letters and digits only, for comparing questions.

    >>> normalise("  Is ICE  cold?! ")
    'is ice cold'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def template(texts: Sequence[str], share: float = 0.9) -> tuple[str, str]:
    """Return the words that at least `share` of the texts begin with, and those they end with.

    >>> template(["Question: who? Answer:", "Question: when? Answer:"])
    ('Question:', 'Answer:')
    """
    split = [t.split() for t in texts]
    prefix = _common(split, share)
    suffix = _common([s[len(prefix) :][::-1] for s in split], share)[::-1]
    return " ".join(prefix), " ".join(suffix)


def _common(split: list[list[str]], share: float) -> list[str]:
    if len(split) < 2:
        return []
    found: list[str] = []
    alive = split
    while True:
        following = Counter(s[len(found)] for s in alive if len(s) > len(found))
        if not following:
            return found
        word, count = following.most_common(1)[0]
        if count < share * len(split) or count < 2:
            return found
        alive = [s for s in alive if len(s) > len(found) and s[len(found)] == word]
        found.append(word)


def strip_template(frame: pd.DataFrame, share: float = 0.9) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table with each benchmark's shared opening and closing words removed from ``text``, and a report.

    Only texts that have the words lose them. The report has ``benchmark``, ``prefix``, ``suffix`` (counts of words)
    and ``removed_share`` (of all words). A text that is nothing but template keeps it.
    """
    stripped, report = [], []
    for name, group in frame.groupby("benchmark", sort=False):
        opening, closing = (part.split() for part in template(group["text"].tolist(), share))
        before = after = 0
        for text in group["text"]:
            own = text.split()
            body = own[len(opening) :] if own[: len(opening)] == opening else own
            if closing and body[-len(closing) :] == closing:
                body = body[: -len(closing)]
            changed = bool(body) and len(body) < len(own)
            stripped.append(_cut(text, own, body) if changed else text)
            before, after = before + len(own), after + (len(body) if changed else len(own))
        report.append(
            {
                "benchmark": name,
                "prefix": len(opening),
                "suffix": len(closing),
                "removed_share": 1 - after / max(before, 1),
            }
        )
    order = [i for _, g in frame.groupby("benchmark", sort=False) for i in g.index]
    result = frame.copy()
    result["text"] = pd.Series(stripped, index=order).reindex(frame.index)
    return result, pd.DataFrame(report)


def _cut(text: str, own: list[str], body: list[str]) -> str:
    """Return `text` from the first to the last word of `body`, its own white space kept."""
    start = next(i for i in range(len(own)) if own[i : i + len(body)] == body)
    spans = [m.span() for m in re.finditer(r"\S+", text)]
    return text[spans[start][0] : spans[start + len(body) - 1][1]]


def shared(frame: pd.DataFrame, length: int = 8, share: float = 0.5, common: int = 50) -> pd.DataFrame:
    """Return the pairs of benchmarks that have questions in common (contamination, repeats, translations aside).

    Templates are removed first. Two questions are the same when their normalised texts are equal (``exact``) and
    near when at least `share` of the shorter one's runs of `length` words occur in the other (``near``, exact ones
    included); runs that occur in more than `common` questions are boilerplate and not counted. Columns: ``a``,
    ``b``, ``exact``, ``near`` (questions of the smaller benchmark) and ``share`` (near / its size).
    """
    body, _ = strip_template(frame.reset_index(drop=True))
    texts = body["text"].map(normalise)
    names = body["benchmark"].to_numpy()
    sizes = body["benchmark"].value_counts()
    runs_of: dict[int, list[int]] = {}
    holders: dict[int, list[int]] = {}
    for row, text in enumerate(texts):
        own = text.split()
        runs = {zlib.crc32(" ".join(own[i : i + length]).encode()) for i in range(max(1, len(own) - length + 1))}
        runs_of[row] = list(runs)
        for run in runs:
            holders.setdefault(run, []).append(row)
    hits: Counter[tuple[int, int]] = Counter()
    for rows in holders.values():
        if 1 < len(rows) <= common:
            hits.update((p, q) for i, p in enumerate(rows) for q in rows[i + 1 :] if names[p] != names[q])
    near: dict[tuple[str, str], set[int]] = {}
    exact: dict[tuple[str, str], set[int]] = {}
    for (p, q), count in hits.items():
        pair = tuple(sorted((names[p], names[q]), key=lambda n: (sizes[n], n)))
        member = p if names[p] == pair[0] else q
        if count >= share * min(len(runs_of[p]), len(runs_of[q])):
            near.setdefault(pair, set()).add(member)
        if texts[p] == texts[q] and texts[p]:
            exact.setdefault(pair, set()).add(member)
            near.setdefault(pair, set()).add(member)
    rows = [
        {
            "a": a,
            "b": b,
            "exact": len(exact.get((a, b), ())),
            "near": len(members),
            "share": len(members) / sizes[a],
        }
        for (a, b), members in near.items()
    ]
    report = pd.DataFrame(rows, columns=["a", "b", "exact", "near", "share"])
    return report.sort_values(["share", "a", "b"], ascending=[False, True, True], ignore_index=True)


def repeated(frame: pd.DataFrame, share: float = 0.3) -> dict[str, str]:
    """Return the benchmarks that ask another one's questions: {benchmark: the one to keep}.

    Two prompts, or two numbers of examples, for one set of questions are no two benchmarks of a function; counted as
    such they make every axis look as if it knew the function. A benchmark repeats another when at least `share` of
    the smaller set's texts (normalised) stand in the larger: a third, because large sets are samples, and samples of one
    set need not meet more often. The shorter name is kept, then the first.

    >>> frame = pd.DataFrame({"benchmark": ["a", "a", "a_cot", "a_cot", "b"], "text": ["1+1?", "2+2?"] * 2 + ["x?"]})
    >>> repeated(frame)
    {'a_cot': 'a'}
    """
    sets = {str(n): set(map(normalise, g["text"])) - {""} for n, g in frame.groupby("benchmark", sort=False)}
    kept: list[str] = []
    same: dict[str, str] = {}
    for name in sorted(sets, key=lambda n: (len(n), n)):
        own = sets[name]
        twin = next((k for k in kept if len(own & sets[k]) >= share * min(len(own), len(sets[k]))), None)
        if twin is None:
            kept.append(name)
        else:
            same[name] = twin
    return same


def display(text: str, limit: int = 600) -> str:
    """Return HTML that shows the text as text: markup in a question cannot become part of the page.

    >>> display("<b>2 < 3</b>")
    '<div class="question-text">&lt;b&gt;2 &lt; 3&lt;/b&gt;</div>'
    """
    short = text if len(text) <= limit else text[:limit] + " ..."
    return f'<div class="question-text">{escape(short).replace("&#10;", "<br>")}</div>'
