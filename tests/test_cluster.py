"""Workers: the local pool and a real Dask scheduler, with workers that are killed in the middle."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from helpers import cluster, corpora, extraction, studies
from helpers.errors import UnavailableError


def slow_square(number: int, folder: str) -> int:
    Path(folder, f"{number}-{os.getpid()}").touch()
    time.sleep(0.2)
    return number**2


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
def importable(monkeypatch):
    """Let worker processes import this file, as they import the project's modules."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
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


def test_an_unreachable_scheduler_is_named():
    pytest.importorskip("distributed")
    with (
        pytest.raises(UnavailableError, match="cannot be reached"),
        cluster.pool(scheduler="tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.filterwarnings("ignore")  # distributed's own, while workers die
def test_dask_survives_a_killed_worker_and_gives_the_same_matrix(tiny, tmp_path, monkeypatch, importable):
    """A real scheduler with two worker processes; one is killed while shards are computed."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    study = studies.load(tiny.study(models=1, documents=30))
    corpora.prepare(study)
    extraction.extract(study, workers=1)
    alone = (study.results / "surprisal.parquet").read_bytes()
    for path in (study.results / "surprisal").rglob("*.parquet"):
        path.unlink()

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, resources={"GPU": 1}
    ) as workers:
        with cluster.pool(scheduler=workers.scheduler_address) as pool:
            assert isinstance(pool, cluster.Dask) and pool.size == 2 and pool.resources == {"GPU": 1}
            pids = pool.client.run(os.getpid)
            victim = next(iter(pids.values()))
            tasks = [(k, str(tmp_path)) for k in range(12)]
            results = {}
            for number, value in pool.run(importable.slow_square, tasks):
                results[number] = value
                if len(results) == 2:
                    os.kill(victim, signal.SIGKILL)
            assert results == {k: k**2 for k in range(12)}
        report = extraction.extract(study, scheduler=workers.scheduler_address)
    assert report["computed"].tolist() == [10]
    assert (study.results / "surprisal.parquet").read_bytes() == alone
