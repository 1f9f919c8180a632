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
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import paths
from helpers.errors import DataError, nearest
from helpers.fragments import escape
from helpers.problems import Problem, refuse

FORMATS = ("multiple choice", "cloze", "schema", "language modeling", "generation", "code")
COLUMNS = ("benchmark", "question_id", "prompt", "choices", "answer", "format", "text")
MAX_BYTES = 512 * 2**20

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


def parse(row: Mapping[str, Any]) -> Question:
    """Return one question from a record in any known vocabulary; ValueError says what is missing or wrong.

    A field ``format`` (one of :data:`FORMATS`) overrules what the vocabulary says.

    Known: llm-foundry (``query, choices, gold``; ``context_options, continuation, gold``;
    ``context, continuation``; ``context, answer``; ``task_id, prompt, canonical_solution``), the simple words
    ``question, choices, answer``, lm-evaluation-harness words (``doc_to_text, doc_to_choice, doc_to_target``) and
    its sample logs (``doc, arguments, target``).

    >>> q = parse({"question": "Is ice cold?", "choices": ["yes", "no"], "answer": 0})
    >>> q["answer"], q["format"]
    ('yes', 'multiple choice')
    >>> parse({"question": "Ice is", "choices": ["cold", "warm"], "answer": 0, "format": "cloze"})["text"]
    'Ice is'
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object with named fields, found {type(row).__name__}")
    question = _parse(row)
    if row.get("format") not in (None, ""):
        told = row["format"]
        if told not in FORMATS:
            raise ValueError(f"field 'format' is {_short(told)}; {nearest(str(told), FORMATS)}")
        shown = question["choices"] if told == "multiple choice" else ()
        text = question["text"] if told == "schema" else render(question["prompt"], shown)
        question |= {"format": told, "text": text or question["text"]}
    return question


def _parse(row: Mapping[str, Any]) -> Question:
    keys = set(row)
    if {"context_options", "continuation"} <= keys:
        options = _strings(row["context_options"], "context_options")
        continuation = _string(row, "continuation")
        choices = [f"{o} {continuation}" for o in options]
        gold = _pick(row.get("gold"), choices, "gold")
        return _question("", choices, gold, "schema", "\n".join(f"{_letter(i)}. {c}" for i, c in enumerate(choices)))
    if {"query", "choices"} <= keys:
        return _closed(_string(row, "query"), row["choices"], row.get("gold"), "gold")
    if {"task_id", "prompt", "canonical_solution"} <= keys:
        prompt = _string(row, "prompt")
        return _question(prompt, [], _string(row, "canonical_solution"), "code", prompt.strip())
    if "context" in keys and keys & {"continuation", "answer"}:
        key, kind = ("continuation", "language modeling") if "continuation" in keys else ("answer", "generation")
        prompt = _string(row, "context")
        return _question(prompt, [], _string(row, key, empty=True), kind, prompt.strip())
    if {"doc", "arguments"} <= keys:
        return _sample_log(row)
    for prompt_key, choices_key, answer_key in (
        ("question", "choices", "answer"),
        ("doc_to_text", "doc_to_choice", "doc_to_target"),
        ("prompt", "choices", "answer"),
    ):
        if prompt_key in keys:
            if answer_key not in keys:
                raise ValueError(f"field '{answer_key}' is missing (fields here: {', '.join(sorted(keys))})")
            if choices_key in keys and row[choices_key] not in (None, [], ""):
                question = _closed(_string(row, prompt_key), row[choices_key], row[answer_key], answer_key)
                return _as_seen(question) if prompt_key == "doc_to_text" else question
            prompt = _string(row, prompt_key)
            return _question(prompt, [], _string(row, answer_key, empty=True), "generation", prompt.strip())
    raise ValueError(
        f"no question field; fields here: {', '.join(sorted(map(str, keys))) or 'none'}; expected 'question' with "
        "'answer' (and 'choices'), or the words of lm-evaluation-harness or llm-foundry"
    )


def _question(prompt: str, choices: list[str], answer: str, kind: str, text: str) -> Question:
    return {"prompt": prompt, "choices": choices, "answer": answer, "format": kind, "text": text}


def _closed(prompt: str, choices: Any, gold: Any, field: str) -> Question:
    options = _strings(choices, "choices")
    return _question(prompt, options, _pick(gold, options, field), "multiple choice", render(prompt, options))


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
        arguments = [[a.get("arg_0"), a.get("arg_1")] for a in arguments.values()]
    if not arguments or not all(isinstance(a, (list, tuple)) and a for a in arguments):
        raise ValueError("field 'arguments' holds no [context, continuation] pairs")
    prompt = str(arguments[0][0])
    if len(arguments) > 1 and all(len(a) > 1 and isinstance(a[1], str) for a in arguments):
        contexts = {a[0] for a in arguments}
        choices = [a[1].strip() if len(contexts) == 1 else f"{a[0]} {a[1].strip()}" for a in arguments]
        answer = _pick(row.get("target"), choices, "target")
        if len(contexts) == 1:
            return _as_seen(_question(prompt, choices, answer, "", ""))
        return _question(prompt, choices, answer, "schema", render("", choices))
    return _question(prompt, [], str(row.get("target", "")), "generation", prompt.strip())


def _string(row: Mapping[str, Any], key: str, empty: bool = False) -> str:
    value = row[key]
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        value = value[0]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"field '{key}' is {type(value).__name__}, expected text")
    if not empty and not value.strip():
        raise ValueError(f"field '{key}' is empty")
    return value


def _strings(value: Any, key: str) -> list[str]:
    if isinstance(value, Mapping) and "text" in value:  # the form of ARC: {"text": [...], "label": [...]}
        value = value["text"]
    if isinstance(value, str):
        value = [v.strip() for v in value.split(";")] if ";" in value else value
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        raise ValueError(f"field '{key}' must be a list of at least two choices, found {_short(value)}")
    options = [str(v) if isinstance(v, (str, int, float)) and not isinstance(v, bool) else None for v in value]
    if None in options:
        raise ValueError(f"field '{key}' holds a {type(value[options.index(None)]).__name__}, expected text")
    if any(not o.strip() for o in options):
        raise ValueError(f"field '{key}': choice {[bool(o.strip()) for o in options].index(False) + 1} is empty")
    return options


def _pick(gold: Any, choices: Sequence[str], field: str) -> str:
    """Return the right choice named by index, by letter or by its text; a text match wins over an index."""
    if gold is None:
        raise ValueError(f"field '{field}' (the right answer) is missing")
    if isinstance(gold, bool):
        raise ValueError(f"field '{field}' is {gold}; write the index, the letter or the text of the right choice")
    stripped = [c.strip() for c in choices]
    if isinstance(gold, str):
        if gold.strip() in stripped:
            return choices[stripped.index(gold.strip())]
        if gold.strip().lstrip("-").isdigit():
            gold = int(gold)
        elif len(gold.strip()) == 1 and gold.strip().isalpha():
            gold = ord(gold.strip().upper()) - ord("A")
        else:
            raise ValueError(f"field '{field}' is {_short(gold)}, which is not one of the {len(choices)} choices")
    if not isinstance(gold, (int, np.integer)) or not 0 <= gold < len(choices):
        raise ValueError(f"field '{field}' is {_short(gold)}, expected 0 to {len(choices) - 1} (counted from 0)")
    return choices[int(gold)]


def _short(value: Any, limit: int = 40) -> str:
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def table(rows: Iterable[Question], benchmark: str, ids: Iterable[Any] | None = None) -> pd.DataFrame:
    """Return a question table of one benchmark from parsed questions."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS[2:]))
    frame.insert(0, "benchmark", benchmark)
    frame.insert(1, "question_id", [str(i) for i in (range(len(frame)) if ids is None else ids)])
    return frame


def read(path: Path | str, benchmark: str | None = None, problems: list[Problem] | None = None) -> pd.DataFrame:
    """Read a question file: ``.jsonl``, ``.json`` (a list), ``.csv``/``.tsv`` with the same field names.

    `benchmark` defaults to a field ``benchmark`` or ``task`` of the records, or the file name. With `problems`
    given, every problem is appended and the sound questions are returned; without, DataError lists them.
    """
    path = Path(path)
    found: list[Problem] = []
    rows: list[Question] = []
    names: list[str] = []
    ids: list[str] = []
    shown = paths.label(path)
    for number, record in _records(path, shown, found):
        try:
            question = parse(record)
        except ValueError as error:
            found.append(Problem(shown, number, None, str(error), "correct or remove this line"))
            continue
        rows.append(question)
        names.append(str(benchmark or record.get("benchmark") or record.get("task") or path.stem))
        ids.append(str(record.get("question_id", record.get("id", record.get("doc_id", number - 1)))))
    frame = table(rows, "", ids)
    frame["benchmark"] = names
    twice = frame[frame.duplicated(["benchmark", "question_id"], keep=False)]
    for (name, key), group in twice.groupby(["benchmark", "question_id"]):
        found.append(
            Problem(
                shown,
                None,
                "question_id",
                f"'{key}' names {len(group)} questions of '{name}'",
                "make it unique",
            )
        )
    same = frame[frame.duplicated(["benchmark", "text"])]
    if len(same):
        found.append(
            Problem(
                shown,
                None,
                None,
                f"{len(same)} question(s) repeat an earlier one word for word",
                "remove the repeats if they are not meant",
                serious=False,
            )
        )
    double = frame["choices"].map(lambda c: len({x.strip() for x in c}) < len(c))
    if double.any():
        first = frame.loc[double, "question_id"].iloc[0]
        found.append(
            Problem(
                shown,
                None,
                "choices",
                f"{double.sum()} question(s) offer the same choice twice (first: '{first}')",
                "give different choices: two equal ones cannot be told apart",
                serious=False,
            )
        )
    if not len(frame) and not found:
        found.append(Problem(shown, None, None, "no questions in this file", "give at least one question"))
    if problems is None:
        refuse(found)
    else:
        problems.extend(found)
    return frame


def _records(path: Path, shown: str, found: list[Problem]) -> Iterable[tuple[int, Any]]:
    text = _text(path, shown, found)
    if text is None:
        return
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from _table_records(text, path.suffix.lower(), shown, found)
        return
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            found.append(Problem(shown, error.lineno, None, f"not valid JSON: {error.msg}", "repair the file"))
            return
        if not isinstance(content, list):
            found.append(Problem(shown, None, None, f"a JSON {type(content).__name__}", "write a list of questions"))
            return
        yield from enumerate(content, 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                do = "one JSON object on each line (a whole list belongs in a .json file)"
                found.append(Problem(shown, number, None, f"not valid JSON: {error.msg} at character {error.pos}", do))


def _text(path: Path, shown: str, found: list[Problem]) -> str | None:
    """Return the file's text, or None after saying why not."""
    if path.is_dir():
        found.append(Problem(shown, None, None, "a folder", "give one file of questions"))
    elif not path.is_file():
        found.append(Problem(shown, None, None, "no such file", "check the path"))
    elif path.stat().st_size > MAX_BYTES:
        size = path.stat().st_size / 2**20
        found.append(Problem(shown, None, None, f"{size:.0f} MiB", f"give at most {MAX_BYTES // 2**20} MiB: sample it"))
    else:
        raw = path.read_bytes()
        if not raw.strip():
            found.append(Problem(shown, None, None, "an empty file", "give at least one question"))
            return None
        try:
            return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            found.append(Problem(shown, line, None, f"byte {raw[error.start]:#04x} is not UTF-8", "save it as UTF-8"))
    return None


def _table_records(text: str, suffix: str, shown: str, found: list[Problem]) -> Iterable[tuple[int, Any]]:
    csv.field_size_limit(2**24)
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if suffix == ".tsv" else ",")
    try:
        for row in reader:
            if None in row or None in row.values():
                do = "quote fields that hold the separator"
                found.append(Problem(shown, reader.line_num, None, "another number of fields than the header", do))
                continue
            record = {k: v for k, v in row.items() if v != ""}
            choices = record.get("choices", "").strip()
            if choices.startswith("["):
                try:
                    record["choices"] = json.loads(choices)
                except json.JSONDecodeError:
                    try:
                        record["choices"] = ast.literal_eval(choices)
                    except (ValueError, SyntaxError):
                        do = 'write a JSON list such as ["yes", "no"]'
                        found.append(Problem(shown, reader.line_num, "choices", _short(choices), do))
                        continue
            yield reader.line_num, record
    except csv.Error as error:
        found.append(Problem(shown, reader.line_num, None, f"not a valid table: {error}", "repair the quoting"))


def read_xwinograd(path: Path | str) -> pd.DataFrame:
    """Read the XWinograd table (no header, tab separated) as benchmarks ``xwinograd_<language>``."""
    rows, names, ids = [], [], []
    counts: Counter[str] = Counter()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 7:
            raise DataError(f"{paths.label(path)}, row {number}: {len(fields)} fields, expected 7 separated by tabs.")
        language, sentence = fields[0], fields[3]
        pronoun, candidates = json.loads(fields[5])[0], json.loads(fields[6])
        right = [c[0] for c in candidates if c[3]]
        if len(right) != 1:
            raise DataError(f"{paths.label(path)}, row {number}: {len(right)} right candidates, expected one.")
        choices = [c[0] for c in candidates]
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
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows = []
    for question, best, wrong in zip(raw["Question"], raw["Best Answer"], raw["Incorrect Answers"], strict=True):
        choices = list(dict.fromkeys([best.strip()] + [w.strip() for w in wrong.split(";") if w.strip()]))
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
