"""How many small random errors in the code do the tests notice? `python benchmarks/mutants.py --seed 0 --count 20`.

For each module, `--count` places are drawn at random and one mutation is made at each: a comparison, an arithmetic or
boolean operator, a constant, a condition, a returned value is changed or a statement removed. A mutant is *killed* when
a test that belongs to the module fails (or runs out of time). What is printed: the killed share of the module's own
tests, then of these with ``tests/test_sabotage.py``, and each survivor with its line. Some survivors are equivalent:
no input can tell them from the original (a tolerance, a block size, a message).

Mutants are made in memory: nothing is written to the working tree. Each runs in a forked child of a process that has
the libraries imported already, and only the tests that reach the changed line run, the fastest first.

No test of another module is asked, and texts of errors are not mutated, so shares are comparable between runs of this
program, not with those of other mutation testers.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("alignment", "perplexity", "screening", "selection", "overlap", "inference")
MORE = "tests/test_sabotage.py"
LIBRARIES = (
    "numpy", "pandas", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.covariance",
    "sklearn.manifold", "sklearn.cross_decomposition", "statsmodels.api", "statsmodels.stats.multitest", "skbio.stats.distance",
    "torch", "transformers.modeling_utils", "transformers.models.llama.modeling_llama", "tokenizers", "hypothesis.extra.numpy",
    "pyarrow.parquet", "networkx", "pydantic",
)  # fmt: skip
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}  # fmt: skip
OPERATORS = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Div,), ast.Mod: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A place and a change: the lines of the statement, what it says now, what it will say, and how to do it."""

    lines: tuple[int, int]
    before: str
    after: str
    apply: Callable[[], None]


def sites(tree: ast.Module) -> list[Site]:
    """Return every mutation of a module, in the order of the text; calling `apply` changes `tree` in place."""
    return list(_below(tree, (1, 1)))


def _below(node: ast.AST, lines: tuple[int, int]) -> Iterator[Site]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "ctx", "type_comment"):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.Subscript) and getattr(child.value, "id", "") == "Literal":
                continue
            own = _lines(child, lines)
            for new in _changes(child):
                yield Site(own, ast.unparse(child), ast.unparse(new), _setter(node, field, place, new))
            if not isinstance(child, ast.Raise):  # texts of errors are not mutated
                yield from _below(child, own)


def _lines(node: ast.AST, outer: tuple[int, int]) -> tuple[int, int]:
    if isinstance(node, ast.stmt) and not hasattr(node, "body"):
        return node.lineno, node.end_lineno or node.lineno
    if isinstance(node, ast.If | ast.While):
        return node.lineno, node.test.end_lineno or node.lineno
    if isinstance(node, ast.For | ast.With):
        return node.lineno, node.body[0].lineno
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return 0, 0  # defaults: run on import
    return outer


def _setter(parent: ast.AST, field: str, place: int | None, new: ast.AST) -> Callable[[], None]:
    def apply() -> None:
        if place is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[place] = new

    return apply


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in COMPARISONS.get(type(operator), ()):
                new = copy.deepcopy(node)
                new.ops[place] = other()
                yield new
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        for other in OPERATORS.get(type(node.op), ()):
            new = copy.deepcopy(node)
            new.op = other()
            yield new
    elif isinstance(node, ast.BoolOp):
        new = copy.deepcopy(node)
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield new
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = node.value
        changed = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 2 or 1.0
        yield ast.Constant(changed)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        new = copy.deepcopy(node)
        new.test = ast.UnaryOp(ast.Not(), new.test)
        yield new
    if isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))
    targets = getattr(node, "targets", [])
    stored = isinstance(node, ast.Assign) and isinstance(targets[0], ast.Subscript)
    called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if stored or called or isinstance(node, ast.AugAssign | ast.Raise):
        yield ast.Pass()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import `name` from a syntax tree instead of its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_source(self, name: str) -> str:
        return self.path.read_text(encoding="utf-8")

    def exec_module(self, module) -> None:
        exec(compile(ast.fix_missing_locations(self.tree), str(self.path), "exec"), module.__dict__)


class Chosen:
    """Pytest plugin: run only the given tests, in the given order; note durations and the lines each reaches."""

    def __init__(self, order: list[str] | None, traced: Path | None = None) -> None:
        self.order, self.traced = order, str(traced)
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, list[int]] = {}
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items) -> None:
        if self.order is not None:
            rank = {name: i for i, name in enumerate(self.order)}
            items[:] = sorted((i for i in items if i.nodeid in rank), key=lambda i: rank[i.nodeid])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if self.order is not None:
            yield
            return
        seen: set[int] = set()

        def local(frame, event, argument):
            seen.add(frame.f_lineno)
            return local

        def enter(frame, event, argument):
            return local(frame, event, argument) if frame.f_code.co_filename == self.traced else None

        began = time.perf_counter()
        threading.settrace(enter)
        sys.settrace(enter)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)
        self.seconds[item.nodeid] = time.perf_counter() - began
        self.lines[item.nodeid] = sorted(seen)

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def child(module: str, tree: ast.Module | None, files: list[str], order: list[str] | None, out: Path) -> int:
    """Run tests in this (forked) process; write what the plugin saw to `out`; return pytest's exit status."""
    import hypothesis
    import torch

    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    hypothesis.settings.load_profile("mutants")
    path = ROOT / "src" / "helpers" / f"{module}.py"
    if tree is not None:
        sys.meta_path.insert(0, Finder(f"helpers.{module}", path, tree))
    importlib.import_module(f"helpers.{module}")
    plugin = Chosen(order, path)
    quiet = ["-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
    quiet += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # libraries are imported before pytest sees them
    status = pytest.main([*quiet, *files], plugins=[plugin])
    out.write_text(json.dumps({"seconds": plugin.seconds, "lines": plugin.lines, "failed": plugin.failed}))
    return int(status)


def forked(seconds: float, *arguments) -> tuple[int | None, dict]:
    """Return the exit status of :func:`child` in a fork (None: out of time) and what it saw."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            status = 99
            try:
                status = child(*arguments, out)
            except BaseException as error:
                out.write_text(json.dumps({"failed": [f"{type(error).__name__}: {error}"]}))
            os._exit(status)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                seen = json.loads(out.read_text()) if out.exists() else {}
                return os.waitstatus_to_exitcode(code), seen
            time.sleep(0.02)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return None, {}


def measure(module: str, seed: int, count: int, stages: list[list[str]]) -> list[dict]:
    """Return one row a mutant: line, change, and for each stage of tests what killed it (empty: it lives)."""
    source = (ROOT / "src" / "helpers" / f"{module}.py").read_text(encoding="utf-8")
    known = []
    for files in stages:
        status, seen = forked(1800, module, None, files, None)
        if status != 0:
            raise SystemExit(f"{module}: the tests fail without any mutation (status {status}: {seen.get('failed')}).")
        known.append(seen)
    places = range(len(sites(ast.parse(source))))
    rows = []
    for number in sorted(random.Random(f"{seed} {module}").sample(places, min(count, len(places)))):
        tree = ast.parse(source)
        site = sites(tree)[number]
        site.apply()
        row = {"module": module, "line": site.lines[0], "before": site.before, "after": site.after, "killed_by": []}
        for files, seen in zip(stages, known):
            low, high = site.lines
            on_import = not high or not any(low <= n <= high for own in seen["lines"].values() for n in own)
            reach = [name for name, own in seen["lines"].items() if on_import or any(low <= n <= high for n in own)]
            reach.sort(key=seen["seconds"].get)
            limit = 15 + 3 * sum(seen["seconds"][name] for name in reach)
            status, result = forked(limit, module, tree, files, reach)
            killer = "" if status == 0 else "out of time" if status is None else (result.get("failed") or ["import"])[0]
            row["killed_by"].append(killer)
            if killer:
                break
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="which places are drawn")
    parser.add_argument("--count", type=int, default=20, help="mutants a module")
    parser.add_argument("--modules", nargs="*", default=MODULES, metavar="MODULE", help=f"of {', '.join(MODULES)}")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in LIBRARIES:
        importlib.import_module(name)
    print("module        mutants  own tests  with " + Path(MORE).name, file=sys.stderr)
    for module in options.modules:
        stages = [[f"src/helpers/{module}.py", f"tests/test_{module}.py"]]
        if (ROOT / MORE).exists():
            stages.append([MORE])
        rows = measure(module, options.seed, options.count, stages)
        first = sum(bool(row["killed_by"][0]) for row in rows)
        both = sum(any(row["killed_by"]) for row in rows)
        print(f"{module:12} {len(rows):8} {first / len(rows):10.0%} {both / len(rows):10.0%}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
