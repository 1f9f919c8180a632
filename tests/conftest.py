"""Shared fixtures: a small project of its own, so that runner tests touch nothing of the real one."""

import asyncio
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

REQUIRED = bool(os.environ.get("CI") or os.environ.get("COMPANION_REQUIRE_BROWSER"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def lacking(reason):
    """Skip on a laptop, fail in continuous integration."""
    (pytest.fail if REQUIRED else pytest.skip)(reason)


def chromium():
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        if name and shutil.which(name):
            return shutil.which(name)
    lacking("no browser: install chromium, or set CHROMIUM to a browser of its family")


def visited(site, visit):
    """Serve `site` on this machine, open a browser and return what ``await visit(look, address)`` returns.

    ``await look(**options)`` gives a fresh browser context in which requests to any other host are refused, so
    that a page that makes one fails as it would offline.
    """
    async_api = pytest.importorskip("playwright.async_api", reason="playwright is in the extra `test`")
    executable = chromium()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"

    async def go():
        async with async_api.async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)

            async def look(**options):
                context = await browser.new_context(**options)
                context.set_default_timeout(60_000)
                await context.route(lambda url: not url.startswith(address), lambda route: route.abort())
                return context

            try:
                return await visit(look, address)
            finally:
                await browser.close()

    try:
        return asyncio.run(go())
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def missing():
    """The function that skips a test, or fails it in continuous integration, for want of what its argument says."""
    return lacking


@pytest.fixture(scope="session")
def in_browser():
    """The function ``(site, visit)`` that serves a folder and visits it with a browser."""
    return visited


STUDY = """
name: tiny
title: a tiny study
description: Two notebooks that pass a number on.
models: {kind: table}
corpus: {kind: table}
benchmarks: {kind: none}
notebooks:
  make-number: {number: 2}
  read-number: {}
"""

HEADER = """---
jupytext:
  text_representation: {{extension: .md, format_name: myst}}
kernelspec: {{display_name: Python 3, language: python, name: python3}}
companion: {companion}
---

"""

MAKE = (
    HEADER.format(companion="{outputs: [number.csv]}")
    + """# Make a number

```{code-cell} ipython3
:tags: [parameters]

study_name: str = "tiny"  # the study
number: int = 1  # what to write
```

```{code-cell} ipython3
import pandas as pd

from helpers import provenance, studies

study = studies.load(study_name)
provenance.write_table(study.results / "number.csv", pd.DataFrame({"number": [number]}))
print(study.results)
```
"""
)

READ = (
    HEADER.format(companion="{inputs: [number.csv]}")
    + """# Read the number

```{code-cell} ipython3
:tags: [parameters]

study_name: str = "tiny"
```

```{code-cell} ipython3
from helpers import paths, provenance

print(provenance.read_table(paths.results(study_name) / "number.csv"))
```
"""
)


class Project:
    """A project in a temporary folder, driven through the command line as `make` drives the real one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "notebooks" / "studies").mkdir(parents=True)
        (root / "data").mkdir()
        (root / "requirements.lock").write_text("torch==2.13.0\n")
        self.study = root / "notebooks" / "studies" / "tiny.yml"
        self.study.write_text(STUDY)
        self.notebook("make-number").write_text(MAKE)
        self.notebook("read-number").write_text(READ)

    def notebook(self, name: str) -> Path:
        return self.root / "notebooks" / f"{name}.md"

    def executed(self, name: str) -> Path:
        return self.root / "book" / "notebooks" / "tiny" / f"{name}.ipynb"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COMPANION_")}
        return kept | {"COMPANION_ROOT": str(self.root), "PYTHONWARNINGS": "ignore"}

    def run(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "helpers.runner", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class Tiny:
    """Random causal models of a few thousand parameters, with tokenizers of different families."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def tokenizer(self, kind: str = "bytes", bos: bool = True):
        """Return a fast tokenizer: ``bytes`` (byte-level BPE), ``pieces`` (SentencePiece-like), ``words``."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        text = ["the cat sat on the mat and the dog ate the cat's log in the fog 日本語 naïve"] * 5
        if kind == "bytes":
            made = Tokenizer(models.BPE())
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = decoders.ByteLevel()
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
            trainer = trainers.BpeTrainer(
                vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
            )
            made.train_from_iterator(text, trainer)
        elif kind == "pieces":
            letters = {"<s>": 0, "<unk>": 1} | {f"<0x{b:02X}>": b + 2 for b in range(256)}
            for token in ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁t", "he", "▁the", "at", "▁c", "▁cat"]:
                letters[token] = len(letters)
            merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("a", "t"), ("▁", "c"), ("▁c", "at")]
            made = Tokenizer(models.BPE(letters, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
            made.normalizer = normalizers.Replace(" ", "▁")
            made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
        else:
            made = Tokenizer(models.WordLevel({"<s>": 0, "<unk>": 1, "the": 2, "cat": 3}, unk_token="<unk>"))
            made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>" if bos else None)

    def model(self, seed: int = 0, vocabulary: int = 300, context: int = 64):
        """Return a random LlamaForCausalLM in float32."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=context,
            bos_token_id=0,
            eos_token_id=0,
        )
        return LlamaForCausalLM(config).eval()

    def folder(self, name: str, seed: int = 0, **options) -> Path:
        """Write a model and a byte-level tokenizer as a folder that transformers loads."""
        self.model(seed, **options).save_pretrained(self.root / name)
        self.tokenizer().save_pretrained(self.root / name)
        return self.root / name

    def study(self, models: int = 2, documents: int = 12, **extraction) -> Path:
        """Write a study file with `models` random models and a corpus of small documents; return its path."""
        import json

        words = "the cat sat on the mat and the dog ate the log in the fog".split()
        with open(self.root / "corpus.jsonl", "w", encoding="utf-8") as stream:
            for k in range(documents):
                text = " ".join(words[(k * i) % len(words)] for i in range(3 + 7 * (k % 9))) + f" {k} 日本🤗"
                stream.write(json.dumps({"text": text}) + "\n")
        made = [str(self.folder(f"model-{m}", m)) for m in range(models)]
        content = {
            "name": "small",
            "title": "a small study",
            "description": "Random models.",
            "models": {
                "kind": "list",
                "entries": [
                    {"name": f"m{i}", "source": "folder", "id": path, "family": f"f{i}"} for i, path in enumerate(made)
                ],
            },
            "corpus": {"kind": "files", "sources": [str(self.root / "corpus.jsonl")]},
            "benchmarks": {"kind": "none"},
            "extraction": {"window": 32, "stride": 16, "shard_documents": 3, "workers": 1} | extraction,
            "notebooks": {"extract-perplexity": {}},
        }
        path = self.root / "small.yml"
        path.write_text(json.dumps(content))
        return path


@pytest.fixture
def forkserver(monkeypatch):
    """Return a multiprocessing context whose children have imported torch and transformers already, once for all.

    Without it every process that a test starts and kills would pay six seconds for its imports.
    """
    import multiprocessing
    from multiprocessing.forkserver import ensure_running

    from helpers import extraction

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([extraction.__name__, *extraction.PRELOAD, "distributed"])
    ensure_running()
    return context


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)
