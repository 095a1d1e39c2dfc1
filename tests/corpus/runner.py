"""Runs cases, each in a child forked from a process that has imported the libraries already: with a limit on its memory and its time, one thread each."""

from __future__ import annotations

import faulthandler
import os
import resource
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import IO

from tests.corpus.case import Case, Result

Measure = Callable[[Case], Result]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Per case: address space in GiB, wall time in seconds; `jobs` run at once."""

    gigabytes: float = 10.0
    seconds: float = 120.0
    jobs: int = 2


@dataclass(kw_only=True)
class _Child:
    case: Case
    pid: int
    pipe: IO[bytes]
    began: float = field(default_factory=time.perf_counter)
    answer: bytearray = field(default_factory=bytearray)


def run(cases: Iterable[Case], measure: Measure, limits: Limits) -> Iterator[Result]:
    """The results, in the order in which they come. `measure` runs in the child; nothing that it does reaches this process but its answer."""
    waiting, running = deque(cases), dict[int, _Child]()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < limits.jobs:
                    child = _start(waiting.popleft(), measure, limits)
                    running[child.pid] = child
                    selector.register(child.pipe, selectors.EVENT_READ, child)
                for event, _ in selector.select(timeout=0.5):
                    chunk = os.read(event.fd, 1 << 16)
                    event.data.answer += chunk
                    if not chunk:
                        selector.unregister(event.fileobj)
                        yield _finish(running.pop(event.data.pid))
                for child in [c for c in running.values() if time.perf_counter() - c.began > limits.seconds]:
                    selector.unregister(child.pipe)
                    del running[child.pid]
                    yield _stop(child, limits)
        finally:
            for child in running.values():
                _stop(child, limits)


def _start(case: Case, measure: Measure, limits: Limits) -> _Child:
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(case, measure, limits, writing)
    os.close(writing)
    return _Child(case=case, pid=pid, pipe=os.fdopen(reading, "rb"))


def _answer(case: Case, measure: Measure, limits: Limits, writing: int) -> None:
    """The child: never returns, so that nothing of the parent (progress bars, open files, pytest) is finished a second time."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        faulthandler.disable()
        bytes_ = int(limits.gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with _silence():
            result = measure(case)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
        line = replace(result, gigabytes=round(peak, 2)).to_line().encode()
        while line:
            line = line[os.write(writing, line) :]
        code = 0
    finally:
        os._exit(code)


@contextmanager
def _silence() -> Iterator[None]:
    """What models print is not the corpus's."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    yield


def _finish(child: _Child) -> Result:
    child.pipe.close()
    _, status = os.waitpid(child.pid, 0)
    seconds = time.perf_counter() - child.began
    if child.answer:
        return replace(Result.from_line(child.answer.decode()), seconds=round(seconds, 2))
    ended = os.waitstatus_to_exitcode(status)
    how = f"killed by {signal.Signals(-ended).name}" if ended < 0 else f"exit code {ended} without an answer"
    return Result(key=child.case.key, status="died", error=how, seconds=round(seconds, 2))


def _stop(child: _Child, limits: Limits) -> Result:
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    child.pipe.close()
    return Result(key=child.case.key, status="timeout", error=f"no answer within {limits.seconds:g} s", seconds=limits.seconds)
