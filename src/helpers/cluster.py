"""One function that gives workers: a local process pool, or a Dask cluster.

:func:`pool` decides by the scheduler's address. Work is a function and a list of argument tuples; results come
back to the caller as they finish, so workers need neither a shared disk nor a hold on the caller's files, and
a lost worker costs the tasks it had in hand.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from helpers.errors import UnavailableError

ATTEMPTS = 3  # times a task may be lost with its worker before the run gives up
PATIENCE = 20  # seconds to wait for a scheduler


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pool(workers: int | None = None, scheduler: str | None = None) -> Iterator[Local | Dask]:
    """Give workers for the time of a ``with`` block.

    ``DASK_SCHEDULER_ADDRESS``, else `scheduler`, names a Dask scheduler; without either there are `workers`
    local processes (default: one a core; 1 runs in this process). Both have ``size`` (workers at the start)
    and ``run(function, tasks, preload=())``; `preload` names modules that every task needs and that are slow to
    import.

    Raises UnavailableError when the scheduler cannot be reached or Dask is not installed.

    >>> with pool(workers=1) as here:
    ...     sorted(here.run(divmod, [(7, 2), (9, 4)]))
    [(0, (3, 1)), (1, (2, 1))]
    """
    address = os.environ.get("DASK_SCHEDULER_ADDRESS") or scheduler
    if not address:
        yield Local(workers or cores())
        return
    try:
        from distributed import Client
    except ImportError:
        raise UnavailableError("a Dask scheduler is named but Dask is missing: install the extra cluster") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise UnavailableError(f"the Dask scheduler {address} cannot be reached: {error}") from None
    try:
        yield Dask(client)
    finally:
        client.close()


class Local:
    """Processes on this machine. Their parent's death ends them; one that dies is replaced."""

    def __init__(self, size: int):
        self.size = size

    def run(
        self, function: Callable[..., Any], tasks: Sequence[tuple], preload: Sequence[str] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, result) as tasks finish. The first error stops the run and is raised."""
        if self.size == 1 or len(tasks) < 2:
            for number, task in enumerate(tasks):
                yield number, function(*task)
            return
        method = "spawn" if sys.platform == "win32" else "forkserver"
        context = multiprocessing.get_context(method)
        if method == "forkserver":  # imports once, in a process that has computed nothing, and forks from there
            context.set_forkserver_preload([function.__module__, *preload])
        waiting = dict(enumerate(tasks))
        for attempt in range(1, ATTEMPTS + 1):
            executor = concurrent.futures.ProcessPoolExecutor(
                min(self.size, len(waiting)), mp_context=context, initializer=_end_with_parent
            )
            try:
                futures = {executor.submit(function, *task): n for n, task in waiting.items()}
                for future in concurrent.futures.as_completed(futures):
                    result = future.result()
                    number = futures.pop(future)
                    del waiting[number]
                    yield number, result
                return
            except BrokenProcessPool:
                if attempt == ATTEMPTS:
                    raise UnavailableError(
                        f"worker processes died {ATTEMPTS} times ({len(waiting)} tasks open): most likely memory "
                        "ran out (fewer workers, a smaller batch_tokens or model), or a script without `if __name__ == '__main__'`"
                    ) from None
            finally:
                executor.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker as soon as the process that asked for it is gone, also one killed without a chance to say so.

    A worker's own parent is the server that forked it, so no signal of the system tells; the pipe to the asking process does.
    """
    asking = multiprocessing.parent_process()
    if asking is not None:
        threading.Thread(target=lambda: (asking.join(), os._exit(1)), daemon=True).start()


class Dask:
    """Workers of a Dask scheduler. Where workers offer the resource ``GPU``, a task takes one whole GPU."""

    def __init__(self, client: Any):
        self.client = client
        known = client.scheduler_info(n_workers=-1)["workers"].values()
        self.size = sum(w["nthreads"] for w in known)
        self.resources = {"GPU": 1} if any("GPU" in (w.get("resources") or {}) for w in known) else None

    def run(
        self, function: Callable[..., Any], tasks: Sequence[tuple], preload: Sequence[str] = ()
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, result) as tasks finish; a lost worker's tasks go to the others.

        Workers of a cluster import once by themselves; `preload` is not used.
        """
        from distributed import as_completed

        options = {"pure": False, "retries": 0}
        if self.resources:
            options["resources"] = self.resources
        futures = {}
        for number, task in enumerate(tasks):  # earlier tasks first: blocks of one model stay together
            futures[self.client.submit(function, *task, priority=-number, **options)] = number
        try:
            for future in as_completed(list(futures), loop=self.client.loop):
                result = future.result()
                yield futures.pop(future), result
                future.release()  # the scheduler forgets the result at once
        finally:
            self.client.cancel(list(futures))
