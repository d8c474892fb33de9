"""A server in a process of its own, a client that survives its death, and a hundred requests that are wrong."""

from __future__ import annotations

import ctypes
import http.client
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATH = "/reloop2"
JSON = {"Content-Type": "application/json"}
START_S = END_S = 120.0  # at most, on a machine that does other things besides


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Let a child end when this process is killed, so that no server is left behind (Linux)."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


class Server:
    """A server process with all its children, which end with the block whatever happens in it.

    Args:
        command: The command that starts it.
        port: Where it will listen.
        log: File for what it says.
        cwd: Where it is started.
        headers: Headers of the question whether it is ready.
    """

    def __init__(
        self, command: Sequence[str], port: int, log: Path, cwd: Path | None = None, headers: Mapping[str, str] = JSON
    ) -> None:
        self.command, self.port, self.log, self.cwd, self.headers = command, port, log, cwd, dict(headers)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it answers; return the seconds that took."""
        began = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                cwd=self.cwd,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        while not self._is_ready():
            if self.process.poll() is not None or time.perf_counter() - began > START_S:
                self.stop()
                raise RuntimeError(f"The server did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        return time.perf_counter() - began

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health", headers=self.headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self, *, only_parent: bool = False) -> None:
        """End it by SIGKILL, as a machine that runs out of memory would: all its processes, or the first alone."""
        if self.process is not None:
            try:
                (os.kill if only_parent else os.killpg)(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    def wait_until_gone(self) -> None:
        """Wait until the process has ended and nobody listens any more."""
        if self.process is not None:
            self.process.wait(END_S)
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self.port))
                    return
                except OSError:
                    time.sleep(0.02)
        raise RuntimeError(f"Port {self.port} is still in use.")

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process is not None:
            self.kill()
            self.process.wait(END_S)
            self.process = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Client:
    """Posts requests over one connection; opens another when that has gone.

    Args:
        port: Where the server listens.
        headers: Headers of every request.
    """

    def __init__(self, port: int, headers: Mapping[str, str] = JSON) -> None:
        self.headers = dict(headers)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, payload: Any) -> Any:
        """Post a request and return what the answer says; raise ConnectionError if the server has gone."""
        status, text = self.send(Wrong("", json.dumps(payload).encode(), self.headers))
        if status != 200:
            raise RuntimeError(f"status {status}: {text}")
        return json.loads(text)

    def send(self, request: Wrong) -> tuple[int, str]:
        """Send any request and return status and text of the answer."""
        if self._was_closed():
            self.connection.close()  # the next request opens it again
        try:
            self.connection.request(request.method, request.path, request.body, request.headers)
            response = self.connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise ConnectionError(str(error)) from error

    def _was_closed(self) -> bool:
        """Whether the server has closed the connection, as it does after 5 s without a request."""
        idle = self.connection.sock
        return idle is not None and bool(select.select([idle], [], [], 0)[0])

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@dataclass
class Wrong:
    """A request that has to be refused.

    Attributes:
        what: What is wrong with it.
        body: Its body.
        headers: Its headers.
        method: Its method.
        path: Where it goes.
    """

    what: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON))
    method: str = "POST"
    path: str = PATH


NO_IDS: list[Any] = [None, "a", 5, {}, [], [None], [1.5], [True], [["a"]], [{}], [""], ["x" * 257], [2**63], ["\ud800"]]
NO_NUMBERS: list[Any] = [None, "1", [1], {}, True]


def malformed(good: Mapping[str, Any], field_sizes: Mapping[str, int], limits: Mapping[str, int]) -> list[Wrong]:
    """Return a hundred or more requests that are wrong, each in one way.

    Args:
        good: A request of type "predict" for two rows that would be met.
        field_sizes: Id field -> number of its rows.
        limits: "rows" and "bytes" that the server takes.
    """
    feedback = {"type": "feedback", "ids": good["ids"], "labels": [0, 1]}
    wrong = [Wrong(f"no JSON: {body[:20]!r}", body) for body in _no_json(good)]
    wrong += [_json("no object", value) for value in (None, 3, "text", True, [], [good])]
    wrong += [_json("type", {**good, "type": kind}) for kind in (None, 1, "", "PREDICT", "delete", ["predict"], {})]
    for request, rest in ((good, "features"), (feedback, "labels")):
        for name in ("type", "ids", rest):
            wrong.append(_json(f"no {name}", {key: value for key, value in request.items() if key != name}))
        wrong.append(_json("unknown key", {**request, "user": 1}))
        wrong += [_json("ids", {**request, "ids": ids}) for ids in NO_IDS]
        wrong += [_json(rest, {**request, rest: value}) for value in (None, "1", 1, [[0, 1]], [0])]
    wrong.append(_json("unknown key", {"type": "status", "ids": ["a"]}))
    wrong.append(_json("the same id twice", {**good, "ids": ["a", "a"]}))
    wrong += [_json("labels", {**feedback, "labels": [0, value]}) for value in (*NO_NUMBERS, -0.1, 1.1, 10**400)]
    wrong.append(Wrong("infinite label", json.dumps({**feedback, "labels": [0, 7]}).replace("7", "1e999").encode()))
    for name, size in field_sizes.items():
        for value in (*NO_NUMBERS, -1, size, 2**70, 0.5):
            wrong.append(_json(f"{name} {value!r}", _with(good, name, [0, value])))
        wrong.append(_json(f"{name} for one row", _with(good, name, [0])))
        features = {key: value for key, value in good["features"].items() if key != name}
        wrong.append(_json(f"no {name}", {**good, "features": features}))
    wrong.append(_json("unknown field", _with(good, "nobody's", [0, 0])))
    many = limits["rows"] + 1
    wrong.append(_json("too many rows", {**feedback, "ids": list(range(many)), "labels": [0] * many}))
    body = json.dumps(good).encode()
    wrong.append(Wrong("too long", body + b" " * limits["bytes"]))
    wrong += [
        Wrong(kind, body, {"Content-Type": kind})
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
    ]
    wrong += [Wrong(method, b"", method=method) for method in ("GET", "PUT", "DELETE")]
    wrong.append(Wrong("another path", body, path="/predict"))
    wrong.append(Wrong("no JSON, path with a new line", b"no json", path=f"{PATH}%0A"))
    return wrong


def _json(what: str, value: Any) -> Wrong:
    return Wrong(what, json.dumps(value).encode())


def _with(request: Mapping[str, Any], name: str, values: list[Any]) -> dict[str, Any]:
    return {**request, "features": {**request["features"], name: values}}


def _no_json(good: Mapping[str, Any]) -> list[bytes]:
    text = json.dumps(good).encode()
    return [
        b"",
        b"no json",
        text[:-1],
        text + text,
        text.replace(b'"', b"'"),
        b"\xff\xfe\x00",
        json.dumps({**good, "ids": [math.nan, 1]}).encode(),
        json.dumps({**good, "ids": [-math.inf, 1]}).encode(),
        b"[" * 100_000,
        b'{"type": ' + b"9" * 5000 + b"}",
    ]
