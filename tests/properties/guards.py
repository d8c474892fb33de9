"""Read spoilt files in a process of its own, and note all that a reader of files must never do."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import lightning_adapt

PACKAGE = str(Path(lightning_adapt.__file__).parent)
SECONDS = 2.0
MEBIBYTES = 200
_ROOM_BYTES = 2 * 2**30
_RUNS_CODE = (
    "exec",
    "compile",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
_ALSO_REFUSED = ("subprocess.Popen", "pickle.find_class", "socket.connect", "ctypes.dlopen", "webbrowser.open")


class TooSlow(BaseException):
    """An answer took longer than it may."""


@dataclass
class Finding:
    """What came of one kind of file.

    Attributes:
        read: Files that were accepted.
        refused: Files that were refused by an error of ours.
        faults: What should not have been, as (number of the input, text), the first few.
        n_faults: How many.
        slowest: Seconds of the slowest answer.
        largest: MiB by which the memory grew at most.
    """

    read: int = 0
    refused: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    n_faults: int = 0
    slowest: float = 0.0
    largest: float = 0.0

    def fault(self, number: int, text: str) -> None:
        self.n_faults += 1
        if len(self.faults) < 60:
            self.faults.append((number, text))


def ours(error: BaseException, allowed: tuple[type[BaseException], ...]) -> bool:
    """Whether an error is one that this package documents: of such a kind, raised by a line of its own, with a text.

    An `OSError` may come from the system itself. A subclass from elsewhere (JSONDecodeError is a ValueError) is none of
    ours: its text says nothing of what the user passed.
    """
    if isinstance(error, OSError) and OSError in allowed:
        return True
    frames = traceback.extract_tb(error.__traceback__)
    kind = type(error)
    known = kind in allowed or (kind.__module__.startswith("lightning_adapt") and issubclass(kind, allowed))
    return known and frames[-1].filename.startswith(PACKAGE) and len(str(error)) > 10


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class CodeWatch:
    """An audit hook that notes the running of code while it is armed; it stays for the life of the process."""

    def __init__(self) -> None:
        self.armed, self.seen = False, list[str]()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed or event not in (*_RUNS_CODE, *_ALSO_REFUSED):
            return
        self.armed = False  # what is asked here must not be noted
        try:
            if not _of_an_import(event, arguments):
                self.seen.append(f"{event}{arguments!r}"[:200])
        finally:
            self.armed = True


def _of_an_import(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether it is an installed module that runs at its first import, or a literal that is only taken apart."""
    if event == "exec":
        code = arguments[0]
        return getattr(code, "co_name", "") in ("<module>", "__create_fn__") and _inside_an_import()
    if event == "compile":
        return arguments[1] in ("<unknown>", b"<unknown>") or _inside_an_import()  # `ast.parse` makes no code
    # torch asks the driver whether there is a GPU
    return event == "ctypes.dlopen" and (arguments[0] == "libnvidia-ml.so.1" or _inside_an_import())


def _inside_an_import() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def resident_peak() -> float:
    """The most memory of this process since `forget_peak`, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def forget_peak() -> float:
    """Begin to look for the peak anew, and return the memory of now, MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def in_a_child(work: Callable[[Callable[[Any], None]], Any]) -> tuple[Any, Any]:
    """Call `work(note)` in a fork of this process: what it returned, or (None, the last thing that it noted)."""
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as notes:

        def note(value: Any) -> None:
            notes.seek(0)
            notes.write(pickle.dumps(value))
            notes.flush()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # threads of libraries that are not used in the child
            child = os.fork()
        if child == 0:
            code = 1
            try:
                torch.set_num_threads(1)
                answer.write(pickle.dumps(work(note)))
                answer.flush()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answer.seek(0)
        notes.seek(0)
        if status == 0:
            return pickle.loads(answer.read()), None
        content = notes.read()
        return None, (status, pickle.loads(content) if content else None)


def watched(
    read: Callable[[Path], Any],
    contents: Callable[[int], bytes],
    count: int,
    place: Callable[[int], Path],
    allowed: tuple[type[BaseException], ...],
) -> Finding:
    """Read `count` files in a child process, and say what came of it.

    Args:
        read: Reads the file at a path.
        contents: Number of an input -> its bytes.
        count: How many.
        place: Number -> where it is written to.
        allowed: Kinds of errors that are documented.
    """
    result, crash = in_a_child(lambda note: _read_all(read, contents, count, place, allowed, note))
    if crash is None:
        return result
    status, number = crash
    finding = Finding()
    finding.fault(-1 if number is None else number, f"the process ended with the status {status}")
    return finding


def _read_all(
    read: Callable[[Path], Any],
    contents: Callable[[int], bytes],
    count: int,
    place: Callable[[int], Path],
    allowed: tuple[type[BaseException], ...],
    note: Callable[[Any], None],
) -> Finding:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (room, room))  # what asks for more must not take it from other processes
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # warnings of libraries
    watch, finding = CodeWatch(), Finding()
    for number in range(count):
        path = place(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents(number))
        note(number)
        before, started = forget_peak(), time.process_time()
        try:
            with warnings.catch_warnings(), time_limit(10 * SECONDS):
                warnings.simplefilter("ignore")
                watch.armed = True
                read(path)
            finding.read += 1
        except Exception as error:
            watch.armed = False
            if ours(error, allowed):
                finding.refused += 1
            else:
                finding.fault(number, _told(error))
        except TooSlow as error:
            watch.armed = False
            finding.fault(number, f"TooSlow: {error}")
        watch.armed = False
        seconds, grown = time.process_time() - started, resident_peak() - before
        finding.slowest, finding.largest = max(finding.slowest, seconds), max(finding.largest, grown)
        if seconds > SECONDS:
            finding.fault(number, f"took {seconds:.1f} s")
        if grown > MEBIBYTES:
            finding.fault(number, f"took {grown:.0f} MiB")
        if watch.seen:
            finding.fault(number, f"ran code: {watch.seen[0]}")
            watch.seen.clear()
        path.unlink(missing_ok=True)
    return finding


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed((own or frames)[-3:]))
    return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:160]}"
