"""The book around the notebooks: local browser libraries, and a build with warnings as errors."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from helpers import paths
from helpers.errors import CompanionError, UnavailableError

# file in the site's vendor folder -> (distribution, file inside it). They lie beside the pages,
# not in _static: Jupyter Book makes every page load every script that it finds there.
VENDOR = {
    "plotly.min.js": ("plotly", "plotly/package_data/plotly.min.js"),
    "mathjax/tex-svg-full.js": (
        "sphinx-mathjax-offline",
        "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js",
    ),
}


class BookError(CompanionError):
    """The book did not build without a warning."""


def copy_vendor(book: Path | str = paths.BOOK) -> list[Path]:
    """Copy plotly.js and MathJax from their installed packages to ``<book>/_extra/vendor``; return the files.

    Sphinx puts the content of ``_extra`` (option ``html_extra_path``) at the root of the site. A file that is
    there already is left alone. Raises UnavailableError when a package or its file is missing.
    """
    copied = []
    for name, (package, inside) in VENDOR.items():
        try:
            source = Path(str(importlib.metadata.distribution(package).locate_file(inside)))
        except importlib.metadata.PackageNotFoundError as error:
            raise UnavailableError(f"the book needs the package {package}: run `make setup`") from error
        if not source.is_file():
            version = importlib.metadata.version(package)
            raise UnavailableError(
                f"{package} {version} has no file {inside}; install the version of the lock file"
            )
        target = Path(book) / "_extra" / "vendor" / name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")
            shutil.copyfile(source, part)
            os.replace(part, target)
        copied.append(target)
    return copied


def build(book: Path | str = paths.BOOK, *, fresh: bool = False) -> Path:
    """Build the book with warnings as errors and return ``<book>/_build/html``.

    `fresh` rebuilds every page. Raises BookError that lists the warnings, each with its file and line.
    """
    book = Path(book)
    if not (book / "_config.yml").is_file():
        raise BookError(f"{paths.label(book)} has no _config.yml: it is not the folder of a book")
    copy_vendor(book)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command += ["build", str(book), "-W", "-n", "--keep-going"]
    run = subprocess.run(
        command + (["--all"] if fresh else []),
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    if run.returncode:
        raise BookError(_complaint(run.stdout + "\n" + run.stderr, book))
    return book / "_build" / "html"


def _complaint(log: str, book: Path) -> str:
    """Return a message with every warning of a build log, paths relative to the book.

    >>> print(_complaint("reading sources\\n/b/idea.md:3: WARNING: unknown document 'x'\\ndone", Path("/b")))
    the book did not build without warnings (1):
      idea.md:3: WARNING: unknown document 'x'
    """
    log = re.sub(r"\x1b\[[0-9;]*m", "", log).replace(f"{book.resolve()}{os.sep}", "")
    found = list(
        dict.fromkeys(
            line.strip() for line in log.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)
        )
    )
    if not found:
        found = [line.strip() for line in log.splitlines() if line.strip()][-15:]
    return f"the book did not build without warnings ({len(found)}):\n" + "\n".join(
        f"  {line}" for line in found
    )


if __name__ == "__main__":
    try:
        print(f"The book is in {paths.label(build(*sys.argv[1:2]))}/index.html")
    except CompanionError as error:
        sys.exit(str(error))
