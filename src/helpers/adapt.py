"""Command line for a reader's own benchmark: check the files, place the benchmark, scaffold a study.

``python -m helpers.adapt --scores FILE [--questions FILE] [--study NAME]`` runs the notebook
``adapt-your-benchmark`` on the files and writes one HTML page that needs nothing beside it.
"""

from __future__ import annotations

import argparse
import base64
import html
import importlib.metadata
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import yaml
from markdown_it import MarkdownIt

from helpers import errors, paths, provenance, studies
from helpers.errors import StudyError, nearest
from helpers.fragments import content_policy

NOTEBOOK = "adapt-your-benchmark"
EXAMPLES = paths.DATA / "examples"
_LOOK = """
:root { --pst-color-text-base: #1c2733; --pst-color-background: #fff; --pst-color-surface: #f4f6f8;
  --pst-color-border: #c9d1d9; --pst-color-link: #1f5f99; --pst-color-text-muted: #55606b; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --pst-color-text-base: #e4e8ec; --pst-color-background: #14181d;
  --pst-color-surface: #1f252c; --pst-color-border: #3a434d; --pst-color-link: #8cc2f2; --pst-color-text-muted: #a5b0bb; } }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 16px/1.6 system-ui, sans-serif;
  color: var(--pst-color-text-base); background: var(--pst-color-background); }
a { color: var(--pst-color-link); } pre, details.code { background: var(--pst-color-surface); border-radius: .3rem; }
pre { overflow-x: auto; padding: .6rem; font-size: .85rem; } details.code { margin: .5rem 0; padding: .2rem .6rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .6rem; text-align: left; } img { max-width: 100%; }
.question-text { white-space: pre-wrap; }
"""


def page(notebook: nbformat.NotebookNode, title: str, foot: str = "") -> str:
    """Return an executed notebook as one HTML page: no request leaves it, code folded, figures live.

    Markdown comes out as text; raw HTML in Markdown cells is escaped. HTML outputs are the notebook's own figures.
    """
    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    parts = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            parts.append(render(cell.source))
            continue
        if cell.cell_type != "code":
            continue
        if "remove-cell" not in tags:
            parts.append(
                f'<details class="code"><summary>Code</summary><pre>{html.escape(cell.source)}</pre></details>'
            )
        parts += [_output(o, render) for o in cell.get("outputs", [])]
    plots = any("companion-plot" in p for p in parts)
    style = _LOOK + (paths.BOOK / "_static" / "companion.css").read_text(encoding="utf-8")
    texts = []
    if plots:
        library = importlib.metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")
        own = (paths.BOOK / "_static" / "companion.js").read_text(encoding="utf-8")
        texts = [_script_text(t) for t in (Path(str(library)).read_text(encoding="utf-8"), own)]
    scripts = "".join(f"<script>{text}</script>" for text in texts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{content_policy(texts)}'
        f'<meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{style}</style></head><body>'
        f"<main>{''.join(parts)}</main><footer>{foot}</footer>{scripts}</body></html>\n"
    )


def _script_text(text: str) -> str:
    """Return script text that cannot end its element early."""
    return re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE)


def _output(output: nbformat.NotebookNode, render) -> str:
    if output.output_type == "stream":
        return f"<pre>{html.escape(output.text)}</pre>" if output.name == "stdout" else ""
    data = output.get("data", {})
    if "text/html" in data:
        return data["text/html"]
    if "text/markdown" in data:
        return render(data["text/markdown"])
    if "image/png" in data:
        raw = data["image/png"].replace("\n", "")
        base64.b64decode(raw, validate=True)
        return f'<img alt="" src="data:image/png;base64,{raw}">'
    return f"<pre>{html.escape(data['text/plain'])}</pre>" if "text/plain" in data else ""


def new_study(name: str, folder: Path | None = None) -> Path:
    """Write a commented study file for someone's own benchmark and return its path.

    Raises StudyError for a name that cannot be one or that is taken; nothing is overwritten.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,79}", name):
        raise StudyError(
            f"'{name[:99]}' cannot name a study: use at most 80 lower-case letters, digits and hyphens, as in "
            "`make new-study NAME=my-study`."
        )
    target = (folder or paths.STUDIES) / f"{name}.yml"
    if target.exists():
        raise StudyError(f"{paths.label(target)} exists; choose another name or edit it.")
    word = name if yaml.safe_load(name) == name else f'"{name}"'  # 2024 or null would be no text in YAML
    text = _SCAFFOLD.format(name=name, word=word)
    provenance.write_atomic(target, lambda t: t.write_text(text, encoding="utf-8"))
    return target


_SCAFFOLD = """\
# A study of your own. It runs as it stands, in a minute or two: two models of the laboratory on docstrings of numpy.
# Change one part, type `make study STUDY={name}`, look at the pages, change the next. Every key is checked before
# anything runs: a wrong one is named together with the nearest right one.
name: {word}             # the file's name
title: {word}
description: >-
  Say in two sentences which models are measured, on which text and on which benchmarks.

# The models; they are measured here, so small ones on a laptop. Signatures need at least eight, better twenty.
#   source  folder: `id` is a folder with config.json, *.safetensors and the tokenizer's files, as
#             model.save_pretrained(FOLDER); tokenizer.save_pretrained(FOLDER) write them
#           hub: `id` is owner/name (downloaded: set HF_HUB_OFFLINE=0 once); package, lab: as below
#   parameters  billions, where no folder is here to count them; the maps hold size constant
#   family  the lineage. Relatives (sizes or checkpoints of one recipe) are held out together; without it a model
#           counts as a lineage of its own. Intervals resample lineages where there are eight or more.
models:
  kind: list
  entries:
    - {{name: lab-a, source: lab, id: lab-48x2-0, family: small}}
    - {{name: lab-b, source: lab, id: lab-48x2-1, family: small}}
    # - {{name: mine-100m, source: folder, id: runs/mine-100m, family: mine}}
    # - {{name: SmolLM2-135M, source: hub, id: HuggingFaceTB/SmolLM2-135M, family: smollm2, parameters: 0.135}}

# The reference text whose surprisal makes signatures: text from the wild that nobody wrote as a test.
#   kind: packages (docstrings of installed packages), files (sources: paths or patterns such as data/my-text/*.txt;
#   .jsonl and .parquet hold a document a row in text_field), hub (a data set)
# Cost grows with models x documents. 100 of numpy's docstrings are about 20,000 words: seconds
# for a model of the laboratory, a minute or two for one of 100 million parameters on two cores (500 tokens a second).
# `make plan STUDY={name}` estimates yours. Take more once everything runs: screening keeps the most telling percent.
corpus:
  kind: packages
  sources: [numpy]
  max_documents: 100     # a random sample, always the same one
  max_characters: 20000  # of a document
  unit: piece            # piece (a word), bytes, chunk or document

# The benchmarks. Take kind `files` once you have scores; `none` measures the models on text only.
#   scores     a table with columns model, benchmark, score and n_items (over how many questions; without it nobody
#              can tell a difference from luck), one row a score; or a wide table (model, then a column a benchmark);
#              or the output folder of lm-evaluation-harness. Model names as above.
#   questions  JSON lines with benchmark, question, answer and, where there are options, choices and format
#              ("cloze" if models did not see the options, else "multiple choice"). Optional; opens the semantic axis.
#   functions  what benchmarks are for, so that pages can ask whether overlap follows function. The maps need it.
# Try the files first: make check-benchmark SCORES=... QUESTIONS=... STUDY={name} OPTIONS="--benchmark NAME"
benchmarks:
  kind: none
  # kind: files
  # scores: data/my_scores.csv
  # questions: data/my_questions.jsonl
  # functions: {{arithmetic: [gsm8k, "*-sums"], reading: [squad]}}

# window: tokens read at once, stride: how far it moves on (at most half of it). 64 is all that the laboratory's models
# can read; take 512 and 256 for models that can read more.
extraction: {{mode: stream, window: 64, stride: 32}}
screening: {{ratio: 0.01}}  # the share of words that may enter signatures; with few words take more
overlap: {{groups: family, splits: 20}}

# Which notebooks run, and what to change in their parameters cells (the first cell of notebooks/<name>.md).
notebooks:
  meet-the-study: {{}}
  extract-perplexity: {{}}
  # these need benchmarks and at least eight models:
  # select-signatures: {{}}
  # compare-overlaps: {{}}
  # these need functions too; then `make report STUDY={name}` writes one page for everything:
  # test-the-claims: {{}}
  # draw-disentanglement-maps: {{}}
"""


def write_example(folder: Path | None = None, skill: str = "knowledge-capitals-cloze", seed: int = 7) -> list[Path]:
    """Write the example files: new items for a skill of the laboratory, answered by its whole population.

    The items are drawn with another seed than the study's benchmark of that skill, so the example is a new
    benchmark whose true place is known.
    """
    from helpers import lab
    from helpers.lab import text

    items = text.questions(seed=seed)
    items = items[items["benchmark"] == skill]
    if items.empty:
        raise StudyError(f"no skill '{skill}'; {nearest(skill, text.questions()['benchmark'].unique())}")
    table = lab.score_population(lab.load_model, lab.model_names(), items.assign(benchmark="my-benchmark"))
    folder = folder or EXAMPLES
    percent = table.assign(score=(100 * table["score"]).round(1))[["model", "score", "n_items"]]
    rows = [
        {
            "question": p,
            "choices": list(map(str, c)),
            "answer": a if isinstance(a, str) else str(c[int(a)]),
            "format": f,  # the choices alone do not say whether a model saw them
        }
        for p, c, a, f in zip(items["prompt"], items["choices"], items["answer"], items["format"], strict=True)
    ]
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    targets = [folder / "my_scores.csv", folder / "my_questions.jsonl"]
    provenance.write_atomic(targets[0], lambda t: percent.to_csv(t, index=False, lineterminator="\n"))
    provenance.write_atomic(targets[1], lambda t: t.write_text(lines, encoding="utf-8"))
    return targets


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m helpers.adapt", description=__doc__.splitlines()[0])
    parser.add_argument("--scores", default="", help="score table, harness folder or dataset:NAME")
    parser.add_argument("--questions", default="", help="file of questions, optional")
    parser.add_argument("--study", default="lab", help="study to place the benchmark in")
    parser.add_argument("--benchmark", default="", help="which benchmark of the score file")
    parser.add_argument("--scale", default="auto", choices=["auto", "fraction", "percent", "raw"])
    parser.add_argument("--lower-is-better", action="store_true")
    parser.add_argument("--metric", default="", help="metric to take, or metric,filter")
    parser.add_argument(
        "--runs", default="newest", help="run of a harness folder: a part of its path, or shots such as 5shot"
    )
    parser.add_argument("--alias", action="append", default=[], metavar="YOURS=STUDYS", help="a model's name")
    parser.add_argument("--models", default="", metavar="NAME=PLACE,...", help="your own models: folders or hub ids")
    parser.add_argument("--family", action="append", default=[], metavar="NAME=LINEAGE", help="their lineages")
    parser.add_argument("--check", action="store_true", help="say what is wrong with the files and stop")
    parser.add_argument("--out", default="", help="folder for the results")
    parser.add_argument("--new-study", default=None, metavar="NAME", help="scaffold a study file and stop")
    parser.add_argument("--example", action="store_true", help="write the example files again and stop")
    options = parser.parse_args(arguments)
    for flag, given in (("alias YOURS=STUDYS", options.alias), ("family NAME=LINEAGE", options.family)):
        wrong = [a for a in given if "=" not in a]
        if wrong:
            parser.error(f"--{flag.split()[0]} {wrong[0]}: write {flag.split()[1]}")
    if options.new_study is None and not options.example:
        for flag, use in (("scores", "SCORES=my_scores.csv"), ("study", "STUDY=lab")):
            if not getattr(options, flag).strip():
                parser.error(
                    f"--{flag} is empty or missing: say {use}, as in "
                    "`make adapt SCORES=my_scores.csv [QUESTIONS=my_questions.jsonl] [STUDY=lab]`"
                )
    return options


def _parameters(options: argparse.Namespace) -> dict:
    return {
        "study_name": options.study,
        "scores_file": _portable(options.scores),
        "questions_file": _portable(options.questions),
        "benchmark": options.benchmark,
        "scale": options.scale,
        "lower_is_better": options.lower_is_better,
        "metric": options.metric,
        "runs": options.runs,
        "aliases": dict(a.split("=", 1) for a in options.alias),
        "own_models": {n: _portable(p) for n, p in _own(options).items()},
        "families": dict(a.split("=", 1) for a in options.family),
    }


def _own(options: argparse.Namespace) -> dict[str, str]:
    if not options.models:
        return {}
    from helpers import own_models  # torch is slow to import: only where models must run

    return own_models.parse(options.models)


def _portable(name: str) -> str:
    """Return a path as the notebook finds it from any folder: relative to the project inside it, else absolute."""
    if not name or name.startswith("dataset:"):
        return name
    try:
        path = Path(name).resolve()
    except (ValueError, OSError):
        return name
    if not path.exists() and (paths.ROOT / name).exists():
        return name
    return path.relative_to(paths.ROOT).as_posix() if path.is_relative_to(paths.ROOT) else str(path)


def check(options: argparse.Namespace):
    """Read the files, print everything there is to say about them, and return the submission."""
    from helpers import placement

    study = studies.load(options.study)
    families = dict(a.split("=", 1) for a in options.family)
    submission = placement.check_benchmark(
        placement.source(options.scores),
        placement.source(options.questions) if options.questions else None,
        tables=placement.ready(study, _own(options), families),
        benchmark=options.benchmark or None,
        scale=options.scale,
        lower_is_better=options.lower_is_better,
        metric=options.metric or None,
        runs=options.runs,
        aliases=dict(a.split("=", 1) for a in options.alias),
    )
    for line in _said(submission, study.name, [n for n in _own(options) if n not in submission.scores.index]):
        print("".join(c if c.isprintable() else "\ufffd" for c in line))  # names may hold control characters
    return submission


def _said(submission, study: str, unscored: Sequence[str]) -> list[str]:
    """Return what there is to say about the files, the line that matters first."""
    wrong = [f"WRONG  {p}" for p in submission.problems if p.serious]
    if wrong:
        lines = [*wrong, f"{len(wrong)} thing(s) must be put right; nothing was computed."]
    else:
        asked = 0 if submission.questions is None else len(submission.questions)
        lines = [f"'{submission.name}': scores of {len(submission.scores)} models of study '{study}', {asked} questions: fit to compare."]  # fmt: skip
    matched, unknown, left = submission.matching.matched, submission.matching.unmatched, submission.not_compared
    if len(matched):
        named = [k if g == k else f"{k} (written '{g}')" for g, k in zip(matched["given"], matched["known"])]
        lines.append(f"matched  {len(matched)} model(s): {', '.join(named)}")
    if unknown:
        shown = ", ".join(f"'{n}'" for n in list(unknown)[:40]) + (" ..." if len(unknown) > 40 else "")
        lines.append(f"not in the study, left out  {len(unknown)} model(s): {shown}")
    if unscored:
        lines.append(f"measured, but without a score: no part in it  {len(unscored)} model(s): {', '.join(unscored)}")
    if left and len(submission.scores):
        lines.append(f"not compared  {len(left)} benchmark(s) of the study: " + "; ".join(f"{b} ({w})" for b, w in left.items()))  # fmt: skip
    return lines + [f"note   {p}" for p in submission.problems if not p.serious]


def adapt(options: argparse.Namespace) -> Path:
    """Run the notebook on the files and write the page beside the executed copy; return the page's path."""
    from helpers import runner

    study = studies.load(options.study)
    slug = re.sub(r"[^a-z0-9]+", "-", (options.benchmark or Path(options.scores).stem).lower()).strip("-") or "yours"
    folder = Path(options.out).resolve() if options.out else study.results / "adapt" / slug
    executed = folder / f"{NOTEBOOK}.ipynb"
    parameters = _parameters(options)
    runner.execute(paths.NOTEBOOKS / f"{NOTEBOOK}.md", parameters, executed, heading=study.title)
    notebook = nbformat.read(executed, as_version=4)
    target = folder / "report.html"
    text = page(notebook, f"{slug} in study {study.name}", _foot(parameters))
    provenance.write_atomic(target, lambda t: t.write_text(text, encoding="utf-8"))
    for cell in notebook.cells:
        if "verdict" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                print(html.unescape(output.get("data", {}).get("text/markdown", "").replace("**", "")))
    return target


def _foot(parameters: dict) -> str:
    """Return the command that makes this page again, and the versions it was made with."""
    flags = {"scores_file": "--scores", "questions_file": "--questions", "study_name": "--study"}
    plain = {"benchmark": "--benchmark", "scale": "--scale", "metric": "--metric", "runs": "--runs"}
    words = [".venv/bin/python", "-m", "helpers.adapt"]
    for key, flag in (flags | plain).items():
        value = parameters[key]
        shown = value if not Path(str(value)).is_absolute() else Path(value).name
        words += [flag, str(shown)] if value not in ("", "auto", "newest") else []
    words += ["--lower-is-better"] if parameters["lower_is_better"] else []
    words += [w for k, v in parameters["aliases"].items() for w in ("--alias", f"{k}={v}")]
    own = {k: Path(v).name if Path(v).is_absolute() else v for k, v in parameters["own_models"].items()}
    words += ["--models", ",".join(f"{k}={v}" for k, v in own.items())] if own else []
    words += [w for k, v in parameters["families"].items() for w in ("--family", f"{k}={v}")]
    versions = ", ".join(f"{k} {v}" for k, v in provenance.versions().items())
    return f"<hr><p>Made by <code>{html.escape(shlex.join(words))}</code> with {html.escape(versions)}.</p>"


@errors.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (1: something is wrong with the files or the study)."""
    options = _arguments(arguments)
    if options.new_study is not None:
        made = paths.label(new_study(options.new_study))
        print(f"{made} is yours to edit; run it with `make study STUDY={options.new_study}`.")
        print(f"The executed pages will lie in book/notebooks/{options.new_study}/.")
        return 0
    if options.example:
        print("wrote " + ", ".join(paths.label(p) for p in write_example()))
        return 0
    with provenance.lock([studies.load(options.study).name]):  # a build under way changes the tables that are read here
        if not check(options).sound:
            return 1
        if not options.check:
            print(f"Running the notebook {NOTEBOOK} on it: about two minutes on two cores.", flush=True)
            target = adapt(options)
            print(f"{target}: open it in a browser; the executed notebook lies beside it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
