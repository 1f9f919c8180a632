"""The repository itself: pins agree, notebooks are in step, nothing is committed that must not be."""

import re
import subprocess
import tomllib

import jupytext
import pytest
import yaml

from helpers import paths, runner

SOURCES = sorted(paths.NOTEBOOKS.glob("*.md"))


def pins() -> dict[str, str]:
    lines = paths.LOCK.read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct() -> dict[str, str]:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "package-llms"}
    groups = [project["dependencies"], *extras.values()]
    found = (re.match(r"([A-Za-z0-9._-]+)(?:==(.+))?$", d).groups() for group in groups for d in group)
    return {normal(name): version for name, version in found}


def test_lock_pins_everything_without_addresses():
    for line in paths.LOCK.read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.!]+", line), line
    assert set(direct()) <= set(pins())


def test_extra_of_language_models_is_pinned_apart():
    lines = (paths.ROOT / "requirements-llms.lock").read_text().splitlines()
    pinned = {line.split("==")[0] for line in lines if not line.startswith("#")}
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]["package-llms"]) <= pinned
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9.]+", line) for line in lines if not line.startswith("#"))


def test_lock_pyproject_and_environment_agree():
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    renamed = {"pytorch": "torch", "playwright-python": "playwright"}
    stated = {}
    for item in conda:
        name, _, version = item.partition("=")
        stated[normal(renamed.get(name, name))] = version.strip("=")
    stated |= {normal(name): version for name, version in (p.split("==") for p in pip if not p.startswith("-"))}
    locked = {normal(k): v for k, v in pins().items()}
    assert {n: v for n, v in stated.items() if n not in ("python", "pip")} == {
        n: locked[n] for n in stated if n not in ("python", "pip")
    }
    project = direct()
    assert set(project) <= set(stated), "environment.yml lacks a direct dependency"
    for name, version in project.items():
        assert version in (None, locked[name]), name


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_paired_notebook_is_in_step_and_has_no_output(source):
    pair = source.with_suffix(".ipynb")
    assert pair.exists() and pair.read_text(encoding="utf-8") == runner.paired(source), "run `make notebooks`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_notebook_follows_the_conventions(source):
    notebook = jupytext.read(source)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert notebook.cells[0].source.startswith("# ")
    assert 8 <= len(notebook.cells) <= 60, "too short for a chapter, or too long for one sitting"
    assert not [c for c in code if re.search(r"^\s*(def|class) ", c.source, re.MULTILINE)], (
        "functions live in src/helpers"
    )
    assert not re.search(r"^\([a-z-]+\)=", text, re.MULTILINE), "every study runs the same file: no explicit labels"
    for heading in (
        "What you'll do",
        "What you'll learn",
        "What you need",
        "Limits",
        "Exercises",
        "What's next",
    ):
        assert re.search(heading, text, re.IGNORECASE), f"the section '{heading}' is missing"
    parameters = next(c for c in code if "parameters" in c.metadata.get("tags", []))
    for line in parameters.source.splitlines():
        assert re.match(r"\w+: \w[\w\[\], |]* = .+  # \S", line), f"type and comment: {line}"
    assert notebook.metadata["companion"].get("minutes"), "say under `companion:` how many minutes it takes"


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


@pytest.fixture(scope="module")
def files():
    try:
        return tracked()
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("not a git checkout")


def test_no_machine_path_and_no_registry_is_committed(files):
    # written in pieces, so that this file does not find itself
    forbidden = [
        r"/(?:work|root|farm)/",
        r"/home/\w+/",
        "py" + r"pi\.org",
        "python" + r"hosted\.org",
        r"download\.py" + "torch",
    ]
    pattern = re.compile("|".join(forbidden))
    for name in files:
        path = paths.ROOT / name
        if path.suffix in (".safetensors", ".parquet", ".png") or not path.is_file():
            continue
        hit = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
        assert not hit, f"{name}: {hit and hit.group()}"


def test_repository_stays_small(files):
    sizes = {name: (paths.ROOT / name).stat().st_size for name in files if (paths.ROOT / name).is_file()}
    assert sum(sizes.values()) <= 40 * 2**20
    assert not [n for n, s in sizes.items() if s > 5 * 2**20], "files over 5 MiB"


def test_nothing_derived_is_tracked(files):
    for start in (
        "book/_build",
        "book/notebooks",
        "book/generated",
        "book/_static/vendor",
        "data/cache",
        "data/results",
    ):
        assert not [n for n in files if n.startswith(start)]


def test_make_help_lists_the_targets():
    shown = subprocess.run(["make", "help"], cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("book", "test", "study", "lab", "adapt", "clean", "report", "plan"):
        assert re.search(rf"make {target}\s+\S", shown), target
