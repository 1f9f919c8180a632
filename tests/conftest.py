"""Shared fixtures: a small project of its own, so that runner tests touch nothing of the real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=300, **options
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
