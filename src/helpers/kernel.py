"""The process that runs a notebook's cells: ``python -m helpers.kernel``, an IPython kernel under watch.

It ends with the process that started it, and whatever it started ends with it; and it notes which files of the project the cells read, so that a change of
any of them runs the notebook again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from helpers import paths

PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h: the signal that a process gets when its parent ends
# Not data: code and settings that the key of a task holds already, and what the build itself makes.
_APART = (paths.SOURCE, paths.EXECUTED, paths.FROZEN, paths.GENERATED, paths.CACHE, paths.STUDIES, paths.ROOT / ".git")
_NOT_DATA = (".py", ".pyc", ".md", ".ipynb", ".lock", ".toml")


def end_with(parent: int) -> None:
    """Arrange that this process is killed as soon as the process `parent`, which started it, ends in any way.

    Linux tells a process of its parent's death; elsewhere a thread looks twice a second.
    """
    told = False
    if sys.platform == "linux":
        told = ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)
    if not told:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def end_all_with_this() -> None:
    """Arrange that the processes that this one starts, its process group, end with it, however it ends.

    A small process looks five times a second whether its parent, this one, is still there; nothing that this process
    computes can hold that up. Call it first, before threads. Does nothing in a group that others share.
    """
    kernel = os.getpid()
    if os.getpgid(0) != kernel or os.fork():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the cells
    while os.getppid() == kernel:
        time.sleep(0.2)
    os.killpg(kernel, signal.SIGKILL)  # this process is one of them


def note_reads() -> None:
    """Note from now on, in the journal of :mod:`helpers.provenance`, each data file of the project that Python opens.

    Libraries that open files without Python (Parquet, safetensors) are not seen; artifacts are noted when
    :func:`helpers.provenance.read_table` reads them.
    """
    from helpers import provenance  # loads pandas: after the fork above

    apart = tuple(f"{p}{os.sep}" for p in (*_APART, paths.results(""), Path(sys.prefix)))
    root, seen, busy = f"{paths.ROOT}{os.sep}", set(), threading.local()

    def hear(event: str, arguments: tuple) -> None:
        if event != "open" or getattr(busy, "now", False):
            return
        path, mode, flags = arguments
        reading = mode in ("r", "rb", "rt") if mode else not flags & (os.O_WRONLY | os.O_RDWR)
        if not reading or not isinstance(path, str | os.PathLike):
            return
        busy.now = True
        try:
            name = os.path.abspath(os.fsdecode(path))
            if name in seen or not name.startswith(root) or name.startswith(apart) or name.endswith(_NOT_DATA):
                return
            seen.add(name)
            if os.path.isfile(name):
                provenance.note("read", name)
        except (OSError, ValueError):  # the cell that opens the file is told
            return
        finally:
            busy.now = False

    sys.addaudithook(hear)


def main() -> None:
    """Run the kernel; its command line is that of ``ipykernel_launcher``."""
    end_all_with_this()
    end_with(int(os.environ["JPY_PARENT_PID"]))
    note_reads()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
