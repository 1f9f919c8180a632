"""Workers: the local pool and a real Dask scheduler, with workers that are killed in the middle."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from helpers import cluster, corpora, extraction, studies
from helpers.errors import UnavailableError
from helpers.lab import model_names


def die_once(number: int, folder: str) -> int:
    """Kill the worker that gets task 3, the first time."""
    mark = Path(folder, "died")
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise ValueError(f"task {number} is wrong")


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)


@pytest.fixture
def importable(monkeypatch, forkserver):
    """Let worker processes import this file, as they import the project's modules."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_cluster as itself

    return itself


def test_one_worker_runs_here_and_errors_pass():
    with cluster.pool(workers=1) as pool:
        assert list(pool.run(pow, [(2, 3), (3, 2)])) == [(0, 8), (1, 9)]
        with pytest.raises(ValueError, match="task 0 is wrong"):
            list(pool.run(fail, [(0,)]))


def test_a_killed_local_worker_is_replaced(importable, tmp_path):
    with cluster.pool(workers=2) as pool:
        results = dict(pool.run(importable.die_once, [(k, str(tmp_path)) for k in range(6)]))
    assert results == {k: k for k in range(6)} and (tmp_path / "died").exists()


def test_workers_that_always_die_end_the_run(importable):
    with cluster.pool(workers=2) as pool, pytest.raises(UnavailableError, match="died 3 times"):
        list(pool.run(importable.die, [(0,), (1,)]))


def ask(folder: str) -> None:
    """Ask two workers for two endless tasks."""
    import test_cluster as itself

    with cluster.pool(workers=2) as pool:
        list(pool.run(itself.work, [(folder,), (folder,)]))


def work(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    while True:
        sum(range(1000))


def test_workers_end_with_a_killed_parent(importable, tmp_path, forkserver):
    """They once computed on, for nobody, until their task was done, and then waited for ever."""
    asking = forkserver.Process(target=importable.ask, args=(str(tmp_path),))
    asking.start()
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    workers = [int(p.name) for p in tmp_path.iterdir()]
    asking.kill()
    asking.join()
    patience = time.monotonic() + 10
    while (left := [w for w in workers if _runs(w)]) and time.monotonic() < patience:
        time.sleep(0.01)
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_unreachable_scheduler_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with (
        pytest.raises(UnavailableError, match="cannot be reached"),
        cluster.pool(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.filterwarnings("ignore")  # distributed's own, while workers die
def test_dask_survives_a_worker_killed_while_it_extracts(tmp_path, monkeypatch, forkserver):
    """A real scheduler, two worker processes, a model of the laboratory: the matrix is the local one, bit for bit."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    study = laboratory_study(tmp_path, documents=48)
    corpora.prepare(study)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have
    try:
        extraction.extract(study, workers=1)
    finally:
        torch.set_num_threads(threads)
    alone = (study.results / "surprisal.parquet").read_bytes()
    shards = study.results / "surprisal"
    shutil.rmtree(shards)

    def kill_one(workers: distributed.LocalCluster, killed: list) -> None:
        """Wait for the first shards, then kill a worker that has tasks in hand."""
        with distributed.Client(workers.scheduler_address, set_as_default=False) as client:
            pids = client.run(os.getpid)
            limit = time.monotonic() + 120
            while len(list(shards.rglob("*.json"))) < 3:
                assert time.monotonic() < limit, "no three shards in two minutes"
                time.sleep(0.002)
            busy = {worker: len(keys) for worker, keys in client.processing().items() if keys}
            victim = max(busy, key=busy.get)
            os.kill(pids[victim], signal.SIGKILL)
            killed.append((busy[victim], len(list(shards.rglob("*.json")))))

    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, resources={"GPU": 1}
        ) as workers,
    ):
        with cluster.pool(scheduler=workers.scheduler_address) as pool:
            assert isinstance(pool, cluster.Dask) and pool.size == 2 and pool.resources == {"GPU": 1}
            assert dict(pool.run(pow, [(2, 3), (3, 2)])) == {0: 8, 1: 9}
        killed: list = []
        killer = threading.Thread(target=kill_one, args=(workers, killed))
        killer.start()
        report = extraction.extract(study, scheduler=workers.scheduler_address)
        killer.join()
    [(tasks, finished)] = killed
    assert tasks > 0 and finished < 24  # it had shards in hand, and the run was not over
    assert report["computed"].tolist() == [24] and report["redone"].tolist() == [""]
    assert (study.results / "surprisal.parquet").read_bytes() == alone


def laboratory_study(root: Path, documents: int) -> studies.Study:
    """Return a study of one laboratory model on documents of our own, two of them a shard."""
    words = "what is the capital of the country where the river ends and who wrote the first book about it".split()
    chance = random.Random(0)
    rows = [{"text": " ".join(chance.choices(words, k=600)) + f" {k}"} for k in range(documents)]
    (root / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return studies.Study(
        name="laboratory",
        title="one laboratory model",
        description="A trained model on text of our own.",
        models={"kind": "list", "entries": [{"name": "one", "source": "lab", "id": model_names()[-1]}]},
        corpus={"kind": "files", "sources": [str(root / "corpus.jsonl")]},
        benchmarks={"kind": "none"},
        extraction={"window": 64, "stride": 32, "batch_tokens": 2048, "shard_documents": 2},
        notebooks={"extract-perplexity": {}},
    )
