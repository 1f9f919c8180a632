"""Kill a build of a small study with SIGKILL at random moments: what stays behind, and is the result the same?

``python benchmarks/kill_build.py [KILLS] [NOTEBOOK ...]`` runs notebooks (default: ``meet-the-study``) of the scaffold of
``make new-study`` in a temporary project once for reference, then starts it over and over, kills only the build's own process after a random time, and looks whether any
process that it had started lives on. Whenever the study is finished its pages and artifacts are compared, byte by byte,
with the reference, and it starts from nothing. Prints one line of counts.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from helpers import adapt, paths

VARIES = ("created", "seconds")  # of a provenance file: when, and for how long


def project(root: Path, notebooks: list[str]) -> None:
    """Lay out a project that holds nothing but the notebooks, the laboratory and one scaffolded study."""
    for name in ("notebooks", "data/lab"):
        shutil.copytree(paths.ROOT / name, root / name)
    for file in (paths.LOCK, paths.DATA / "manifest.yml"):
        shutil.copy(file, root / file.relative_to(paths.ROOT))
    study = adapt.new_study("small", root / "notebooks" / "studies")
    head = study.read_text(encoding="utf-8").split("\nnotebooks:")[0]
    study.write_text("\n".join([head, "notebooks:", *(f"  {n}: {{}}" for n in notebooks), ""]), encoding="utf-8")


def results(root: Path) -> dict[str, bytes]:
    """Return every page and artifact of the study; provenance files without their times."""
    found = {}
    for folder in (root / "data" / "results" / "small", root / "book" / "notebooks" / "small"):
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".run.json")):
            content = path.read_bytes()
            if path.name.endswith(".provenance.json"):
                known = json.loads(content)
                content = json.dumps({k: v for k, v in known.items() if k not in VARIES}).encode()
            found[path.relative_to(root).as_posix()] = content
    return found


def main(kills: int, notebooks: list[str]) -> int:
    """Run the trial; return 1 when a process was left, a result differed or something half-written stayed."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root, notebooks)
        environment = os.environ | {"COMPANION_ROOT": folder, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "helpers.runner", "run", "small"]
        quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        begun = time.monotonic()
        subprocess.run(command, check=True, **quiet)
        length, reference = time.monotonic() - begun, results(root)
        counts = {"kills": 0, "processes left": 0, "half-written": 0, "finished": 0, "different": 0}
        chance = random.Random(1)
        while counts["kills"] < kills:
            for made in (root / "data" / "results", root / "book"):
                shutil.rmtree(made, ignore_errors=True)
            while True:
                build = subprocess.Popen(command, **quiet)
                try:
                    build.wait(chance.uniform(0, length) if counts["kills"] < kills else None)
                except subprocess.TimeoutExpired:
                    started = psutil.Process(build.pid).children(recursive=True)
                    build.kill()
                    _, alive = psutil.wait_procs(started, timeout=5)
                    counts["kills"] += 1
                    counts["processes left"] += len(alive)
                    build.communicate()
                    continue
                assert build.returncode == 0, build.communicate()
                build.communicate()
                break
            now = results(root)
            parts = [n for n in now if n.endswith(".part")]
            counts["finished"] += 1
            counts["half-written"] += len(parts)
            differing = {n for n in {*now, *reference} - {*parts} if now.get(n) != reference.get(n)}
            counts["different"] += len(differing)
            if differing:
                print("different:", ", ".join(sorted(differing)))
        print(f"one run takes {length:.0f} s; " + ", ".join(f"{k}: {v}" for k, v in counts.items()))
        return int(any(counts[k] for k in ("processes left", "different")))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 12, sys.argv[2:] or ["meet-the-study"]))
