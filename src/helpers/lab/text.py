"""Text of the laboratory: worlds of facts, wild and quiz text, benchmarks, real text, tokenizer.

Real text is cut from the docstrings and source files of the pinned scientific packages, never from the Python
standard library (which differs between the supported Python versions) and never committed; the manifest of
``data/lab`` holds its sha256, so another package version is noticed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from helpers import paths
from helpers.errors import DataError, UnavailableError

CONTEXT = 64  # tokens a model sees at once, the beginning-of-document token included
VOCABULARY = 1280
SPECIAL = ("<unk>", "<s>", "</s>")
ZIPF = 0.7
SIGN = "="  # stands before the answer in quiz practice, and nowhere in wild text
CHOICES = 4
ITEMS = 100
FORMATS = {"cloze": "cloze", "quiz": "multiple choice"}  # part of a benchmark's name -> its format
NEUTRAL = ("docstrings", "source")  # real text; no benchmark asks about it
SEED = 20260101

# Folders of the installed packages that real text is taken from (no tests, no generated files).
REAL = {
    "docstrings": (
        "numpy/lib",
        "sklearn/linear_model",
        "sklearn/ensemble",
        "statsmodels/tsa",
        "scipy/signal",
    ),
    "source": ("sklearn/metrics", "sklearn/model_selection", "scipy/sparse", "statsmodels/discrete"),
}


@dataclass(frozen=True)
class Table:
    """One lookup table ("skill") of a domain: sentence templates, and a key and an answer per fact."""

    domain: str
    skill: str
    templates: tuple[str, ...]
    keys: tuple[str, ...]
    answers: tuple[str, ...]

    def facts(self, practice: bool) -> np.ndarray:
        """Return the indices of the facts for quiz practice, or of those that benchmarks ask."""
        index = np.arange(len(self.keys))
        return index[(index % 3 == 0) == practice]

    def stem(self, fact: int, template: int) -> str:
        """Return the sentence of a fact up to its answer."""
        return self.templates[template].replace("KEY", self.keys[fact])


@functools.cache
def world() -> dict[str, dict[str, Table]]:
    """Return domain -> skill -> :class:`Table`, read from ``data/lab/facts.yml``.

    >>> sum(len(tables) for tables in world().values())
    24
    """
    raw = yaml.safe_load((paths.LAB / "facts.yml").read_text(encoding="utf-8"))
    result: dict[str, dict[str, Table]] = {}
    for domain, tables in raw.items():
        result[domain] = {}
        for skill, entry in tables.items():
            words = entry["facts"].split()
            table = Table(domain, skill, tuple(entry["templates"]), tuple(words[::2]), tuple(words[1::2]))
            if len(table.keys) != len(table.answers) or len(set(table.keys)) != len(table.keys):
                raise DataError(f"data/lab/facts.yml: {domain}.{skill}: keys must be unique, each with one answer.")
            for practice in (True, False):
                if len({table.answers[i] for i in table.facts(practice)}) < CHOICES:
                    raise DataError(f"data/lab/facts.yml: {domain}.{skill}: fewer than {CHOICES} answers in a split.")
            result[domain][skill] = table
    return result


def tables() -> list[Table]:
    """Return all tables, domain by domain."""
    return [table for by_skill in world().values() for table in by_skill.values()]


def generator(*key: int | str) -> np.random.Generator:
    """Return a random generator that depends on `key` alone, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


@dataclass
class Document:
    """A document as whitespace pieces, each with its skill ("" for none) and whether it is an answer."""

    source: str
    pieces: list[str]
    skills: list[str]
    answers: list[bool]

    @property
    def text(self) -> str:
        return " ".join(self.pieces)


def wild(domain: str, rng: np.random.Generator, count: int, sentences: int = 8) -> Iterator[Document]:
    """Yield documents that state facts of a domain's tables, frequent facts more often (Zipf)."""
    pool = list(world()[domain].values())
    weights = [(1.0 + np.arange(len(t.keys))) ** -ZIPF for t in pool]
    size = count * sentences
    chosen = rng.integers(len(pool), size=size)
    facts = np.stack([rng.choice(len(w), size=size, p=w / w.sum()) for w in weights])
    shapes = rng.integers(len(pool[0].templates), size=size)
    for start in range(0, size, sentences):
        document = Document(domain, [], [], [])
        for i in range(start, start + sentences):
            table = pool[chosen[i]]
            fact = facts[chosen[i], i]
            words = [*table.stem(fact, shapes[i]).split(), table.answers[fact] + "."]
            document.pieces += words
            document.skills += [table.skill] * len(words)
            document.answers += [False] * (len(words) - 1) + [True]
        yield document


def quiz_item(table: Table, fact: int, template: int, rng: np.random.Generator, practice: bool) -> tuple[str, list]:
    """Return a multiple-choice prompt (options first) and its options, all of one split."""
    others = sorted({table.answers[i] for i in table.facts(practice)} - {table.answers[fact]})
    options = [table.answers[fact], *rng.choice(others, CHOICES - 1, replace=False).tolist()]
    options = [options[i] for i in rng.permutation(CHOICES)]
    return f"quiz [ {' / '.join(options)} ] {table.stem(fact, template)}", options


def quizzes(rng: np.random.Generator, count: int, items: int = 3) -> Iterator[Document]:
    """Yield documents of solved quiz items, on the practice facts of every domain alike."""
    pool = tables()
    for _ in range(count):
        document = Document("quiz", [], [], [])
        for _ in range(items):
            table = pool[rng.integers(len(pool))]
            fact = int(rng.choice(table.facts(practice=True)))
            prompt, _ = quiz_item(table, fact, int(rng.integers(len(table.templates))), rng, practice=True)
            words = [*prompt.split(), SIGN, table.answers[fact] + "."]
            document.pieces += words
            document.skills += [table.skill] * len(words)
            document.answers += [False] * (len(words) - 1) + [True]
        yield document


def _folder(package_path: str) -> Path:
    package, _, inner = package_path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UnavailableError(f"package '{package}' is not installed; install the project's lock file.")
    return Path(spec.origin).parent / inner


def _is_heldout(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] < 64  # a quarter of the files


def _passages(kind: str, file: Path) -> list[str]:
    """Return the docstrings of a file, or its code without long strings and comments."""
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    for whole in ast.walk(tree):  # from Python 3.12 on, parts of an f-string have places of their own
        if isinstance(whole, ast.JoinedStr):
            for part in ast.walk(whole):
                if isinstance(part, ast.Constant):
                    ast.copy_location(part, whole)
    strings = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 150
    ]
    strings.sort(key=lambda node: (node.lineno, node.col_offset))
    if kind == "docstrings":
        return [node.value for node in strings]
    covered = {line for node in strings for line in range(node.lineno, node.end_lineno + 1)}
    lines = [
        line
        for number, line in enumerate(source.splitlines(), 1)
        if number not in covered and not line.lstrip().startswith(("#", "import ", "from "))
    ]
    return ["\n".join(lines)]


def _readable(piece: str) -> bool:
    return piece.isascii() and len(piece) <= 30 and (len(piece) <= 3 or any(c.isalnum() for c in piece))


@functools.cache
def real(kind: str, heldout: bool) -> list[list[str]]:
    """Return passages of real text as lists of whitespace pieces.

    Parameters
    ----------
    kind : "docstrings" or "source"
    heldout : the quarter of the files that no model and no tokenizer is trained on, or the rest
    """
    result = []
    for folder in REAL[kind]:
        for file in sorted(_folder(folder).glob("*.py")):
            if _is_heldout(f"{folder}/{file.name}") == heldout:
                result += [[p for p in text.split() if _readable(p)] for text in _passages(kind, file)]
    return result


def real_digest() -> str:
    """Return the sha256 of all held-out real text: equal package versions give an equal digest."""
    digest = hashlib.sha256()
    for kind in NEUTRAL:
        for passage in real(kind, heldout=True):
            digest.update(" ".join(passage).encode() + b"\n")
    return digest.hexdigest()


class Counter:
    """Token ids of whitespace pieces, remembered; the tokenizer never joins pieces, so pieces suffice."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def ids(self, pieces: Iterable[str]) -> list[int]:
        result: list[int] = []
        for piece in pieces:
            if piece not in self.known:
                self.known[piece] = self.tokenizer.encode(piece).ids
            result += self.known[piece]
        return result


def cut(kind: str, passages: Iterable[list[str]], counter: Counter, room: int = CONTEXT - 1) -> Iterator[Document]:
    """Cut passages into documents of at most `room` tokens; scraps under a third of that are left out."""
    for passage in passages:
        pieces: list[str] = []
        used = 0
        for piece in [*passage, None]:
            size = room + 1 if piece is None else len(counter.ids([piece]))
            if used + size > room:
                if used > room / 3:
                    yield Document(kind, pieces, [""] * len(pieces), [False] * len(pieces))
                pieces, used = [], 0
            if piece is not None and size <= room:
                pieces.append(piece)
                used += size


def fit(document: Document, counter: Counter, room: int = CONTEXT - 1) -> Document:
    """Return the document cut at a sentence end so that it has at most `room` tokens."""
    used, keep = 0, 0
    for i, piece in enumerate(document.pieces):
        used += len(counter.ids([piece]))
        if used > room:
            break
        if piece.endswith("."):
            keep = i + 1
    return Document(document.source, document.pieces[:keep], document.skills[:keep], document.answers[:keep])


def corpus(counter: Counter, units: int = 5000, quiz: bool = False, seed: int = SEED) -> list[Document]:
    """Return the held-out documents: about `units` whitespace pieces of each source, one window each.

    The main corpus has no quiz text; ``quiz=True`` adds it as a source of its own (an ablation).
    """
    result = []
    for domain in world():
        result += _take((fit(d, counter) for d in wild(domain, generator(seed, "heldout", domain), units)), units)
    for kind in NEUTRAL:
        documents = list(cut(kind, real(kind, heldout=True), counter))
        order = generator(seed, "heldout", kind).permutation(len(documents))
        result += _take((documents[i] for i in order), units)
    if quiz:
        result += _take((fit(d, counter) for d in quizzes(generator(seed, "heldout", "quiz"), units)), units)
    return result


def _take(documents: Iterable[Document], units: int) -> list[Document]:
    result, used = [], 0
    for document in documents:
        if used >= units:
            return result
        result.append(document)
        used += len(document.pieces)
    raise DataError(f"held-out text has only {used} units, {units} are needed; install the project's lock file.")


def units_table(documents: Iterable[Document]) -> pd.DataFrame:
    """Return units.parquet: index ``unit_id``; document, source, character span, bytes, text, ground truth.

    ``domain`` and ``skill`` are empty for real text; ``is_answer`` marks the piece that completes a fact.
    """
    rows = []
    for number, document in enumerate(documents):
        position = 0
        for piece, skill, answer in zip(document.pieces, document.skills, document.answers):
            end = position + len(piece)
            domain = "" if document.source in (*NEUTRAL, "quiz") else document.source
            doc_id = f"{document.source}-{number:05d}"
            rows.append((doc_id, document.source, position, end, len(piece.encode()), piece, domain, skill, answer))
            position = end + 1
    columns = ["doc_id", "source", "start", "end", "bytes", "text", "domain", "skill", "is_answer"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.index.name = "unit_id"
    return frame


def questions(sign: bool = False, seed: int = SEED) -> pd.DataFrame:
    """Return the 48 benchmarks' items: 24 skills x {cloze, quiz}, 100 items each, 4 options.

    Columns: ``benchmark``, ``question_id``, ``prompt`` (ends where the answer begins), ``choices`` (list),
    ``answer`` (the right choice), ``format``, ``text`` (what a model sees), ``domain``, ``skill``.
    Facts of the practice split are never asked; distractors come from the split of the answer. Multiple-choice
    prompts give the options first. With ``sign=True`` they end with the sign that stands before the answer in
    quiz practice: a model must have practised to know that an answer is due, which makes format a strong factor.
    """
    rows = []
    for table in tables():
        pool = [(int(f), t) for f in table.facts(practice=False) for t in range(len(table.templates))]
        for form, title in FORMATS.items():
            rng = generator(seed, "benchmark", table.skill, form)
            name = f"{table.domain}-{table.skill}-{form}"
            order = np.concatenate([rng.permutation(len(pool)) for _ in range(1 + ITEMS // len(pool))])
            for number in range(ITEMS):
                fact, template = pool[order[number]]
                prompt, options = quiz_item(table, fact, template, rng, practice=False)
                if form == "cloze":
                    prompt = table.stem(fact, template)
                elif sign:
                    prompt = f"{prompt} {SIGN}"
                answer = table.answers[fact]
                rows.append(
                    (
                        name,
                        f"{name}-{number:03d}",
                        prompt,
                        options,
                        answer,
                        title,
                        prompt,
                        table.domain,
                        table.skill,
                    )
                )
    columns = ["benchmark", "question_id", "prompt", "choices", "answer", "format", "text", "domain", "skill"]
    return pd.DataFrame(rows, columns=columns)


def lexicon() -> list[str]:
    """Return every word of the worlds, sorted; each is one token."""
    words = {"quiz"}
    for table in tables():
        words.update(table.keys, table.answers)
        for template in table.templates:
            words.update(template.replace("KEY", " ").split())
    return sorted(words)


def train_tokenizer() -> Tokenizer:
    """Return a WordPiece tokenizer: the lexicon as whole words, then the subwords most useful for real text.

    Text is lower-cased and split at whitespace and punctuation, so no token crosses a unit border. The words are
    always the same; neighbours of equal count may change places from one training to the next (the library's order of
    ties), which is why the shipped file is kept and models are never trained on another.
    """
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    signs = [chr(c) for c in range(33, 127) if not chr(c).isalnum()]
    vocabulary = [*SPECIAL, *letters, *signs, *(f"##{c}" for c in letters)]
    vocabulary += [word for word in lexicon() if word not in vocabulary]

    sketch = Tokenizer(models.WordPiece(unk_token=SPECIAL[0]))
    _split(sketch)
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=letters + signs,
    )
    sample = [" ".join(p) for kind in NEUTRAL for p in real(kind, heldout=False)]
    sketch.train_from_iterator(sample, trainer)
    learned = sorted(sketch.get_vocab().items(), key=lambda item: item[1])
    known = set(vocabulary)
    vocabulary += [word for word, _ in learned if word not in known][: VOCABULARY - len(vocabulary)]

    tokenizer = Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token=SPECIAL[0], max_input_chars_per_word=200)
    )
    _split(tokenizer)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _split(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
