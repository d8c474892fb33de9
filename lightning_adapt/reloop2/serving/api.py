"""Serving over HTTP with LitServe (extra `serve`): one process owns the memory; what it answers is on the disk."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning_adapt._shared.checks import check_integer, check_positive, problem
from lightning_adapt._shared.imports import require
from lightning_adapt.reloop2.serving.journal import JournalError
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor
from lightning_adapt.reloop2.serving.request_gate import RequestGate
from lightning_adapt.reloop2.serving.request_schema import RequestError, RequestSchema

__all__ = ["MemoryService", "error_memory_api", "serve"]

LOOPBACK, HOSTS = "127.0.0.1", ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - only with a token
Answer = tuple[int, Any]  # status, body

log = logging.getLogger(__name__)


class MemoryService:
    """Answers requests, one after the other; needs no server to be tried out.

    Args:
        build: Takes a device ("cpu") and returns the predictor; called by `open`, in the process that serves.
        schema: What requests look like; None: taken from the fields of the predictor's module.
        max_rows: Rows in one request at most, where the schema is taken from the module.
    """

    def __init__(
        self,
        build: Callable[[str], ErrorMemoryPredictor],
        schema: RequestSchema | None = None,
        *,
        max_rows: int = 1000,
    ) -> None:
        self.build, self.schema, self.max_rows = build, schema, max_rows
        self.predictor: ErrorMemoryPredictor | None = None

    def open(self, device: str) -> None:
        """Build the predictor.

        Args:
            device: Where the model is to run.
        """
        self.predictor = self.build(device)
        if self.schema is None:
            binary = self.predictor.memory.settings.task == "binary"
            self.schema = RequestSchema.of(self.predictor.module, max_rows=self.max_rows, binary=binary)

    def answer_all(self, payloads: Sequence[Any]) -> list[Answer]:
        """Answer requests in their order; they share one wait for the disk.

        Args:
            payloads: What the JSON of each said.

        Returns:
            Status and body of each. All have status 503 if the disk failed: none of them is acknowledged.
        """
        if self.predictor is None:
            return [(503, "The model is not loaded yet. Try again.")] * len(payloads)
        try:
            with self.predictor.group():
                return [self._answer(self.predictor, payload) for payload in payloads]
        except JournalError as error:
            log.exception("The journal cannot be written.")
            return [(503, str(error))] * len(payloads)

    def _answer(self, predictor: ErrorMemoryPredictor, payload: Any) -> Answer:
        try:
            return 200, self._act(predictor, payload)
        except RequestError as error:
            return 422, str(error)
        except JournalError as error:
            return 503, str(error)
        except Exception:  # one request must never end the server
            log.exception("A request failed.")
            return 500, "The server failed at this request, and goes on. Its log says more."

    def _act(self, predictor: ErrorMemoryPredictor, payload: Any) -> dict[str, Any]:
        if self.schema is None:
            raise JournalError("The server has no schema: open() was not called.")
        request = self.schema.parse(payload)
        if request.kind == "status":
            memory = predictor.memory
            return {"feedback_rows": memory.n_written, "waiting_rows": predictor.n_pending, "bytes": memory.nbytes}
        try:
            if request.labels is not None:
                return dict(vars(predictor.feedback(request.ids, request.labels)))
            return {"probabilities": predictor.predict(request.batch, request.ids).tolist()}
        except ValueError as error:  # such as numbers so large that the model gives NaN
            raise RequestError(str(error)) from error


def error_memory_api(
    build: Callable[[str], ErrorMemoryPredictor],
    schema: RequestSchema | None = None,
    *,
    path: str = "/reloop2",
    max_rows: int = 1000,
    max_group: int = 64,
) -> Any:
    """Return a LitAPI that predicts and takes feedback: `litserve.LitServer(error_memory_api(build))`, or `serve`.

    All requests go to one path, because LitServe runs each API in a process of its own and the memory is to be in one.
    Requests that have come in meanwhile are answered together: they share one commit of the journal.

    Args:
        build: As in `MemoryService`. A function of a module, or a `functools.partial` of one: it is sent to the worker.
        schema: As in `MemoryService`.
        path: Where requests are posted.
        max_rows: As in `MemoryService`.
        max_group: Requests that share one commit at most.

    Returns:
        The LitAPI.

    Raises:
        ModuleNotFoundError: If litserve is not installed.
        TypeError, ValueError: If an argument is out of range.
    """
    require("serve", "Serving")
    from lightning_adapt.reloop2.serving.serving_loop import make_api

    max_group = check_integer("max_group", max_group, "Pass 64, say.", minimum=1)
    service = MemoryService(build, schema, max_rows=check_integer("max_rows", max_rows, "Pass 1000.", minimum=1))
    return make_api(service, path, max_group)


def serve(
    api: Any,
    *,
    host: str = LOOPBACK,
    port: int = 8000,
    token: str | None = None,
    max_body_bytes: int = 2**20,
    timeout_s: float = 30.0,
    accelerator: str = "cpu",
) -> None:
    """Serve an API until the process is stopped.

    Args:
        api: What `error_memory_api` returned.
        host: "127.0.0.1" for this machine only; "0.0.0.0" or "::" for others, too.
        port: The port, in 1024..65535.
        token: What `Authorization: Bearer <token>` must say in every request; may only be left out on "127.0.0.1",
            and then the server answers only to the names of this machine: Host must be localhost or 127.0.0.1.
        max_body_bytes: Largest body of a request.
        timeout_s: Seconds that a request waits for its turn.
        accelerator: "cpu", "cuda" or "mps".

    Raises:
        ModuleNotFoundError: If litserve is not installed.
        TypeError, ValueError: If an argument is out of range, or a token is needed.
    """
    require("serve", "Serving")
    import litserve

    check_host(host, token)
    port = check_integer("port", port, "Pass 8000, say.", minimum=1024, maximum=65535)
    max_body_bytes = check_integer("max_body_bytes", max_body_bytes, "Pass 1048576, say.", minimum=1)
    timeout_s = check_positive("timeout_s", timeout_s, "Pass 30, say.")
    server = litserve.LitServer(
        api,
        accelerator=accelerator,
        devices=1,
        workers_per_device=1,  # the one that owns the memory
        timeout=timeout_s,
        middlewares=gates(token, max_body_bytes),
        disable_openapi_url=True,
    )
    end_children_with_parent()
    server.run(host=host, port=port, num_api_servers=1, log_level="warning", generate_client_file=False)


def gates(token: str | None, max_body_bytes: int) -> list[Any]:
    """Return what a request passes before the API, the outermost last, as LitServe takes it."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    gate = partial(RequestGate, token=token, max_body_bytes=max_body_bytes)
    if token is not None:
        return [gate]
    # to a browser, a web page whose name comes to mean 127.0.0.1 (DNS rebinding) is no stranger to this server
    return [gate, (TrustedHostMiddleware, {"allowed_hosts": [LOOPBACK, "localhost"]})]


def check_host(host: str, token: str | None) -> None:
    """Raise ValueError unless the host is one that LitServe takes, with a token where others can reach it."""
    if host not in HOSTS:
        raise ValueError(problem("host", f"one of {', '.join(HOSTS)}", host, "LitServe takes no others."))
    if token is None and host == LOOPBACK:
        return
    if not isinstance(token, str) or len(token) < 8 or not token.isascii() or not token.isprintable():
        shown = None if token is None else f"{len(token)} characters"
        remedy = "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'."
        raise ValueError(problem("token", "a text of 8 or more ASCII characters on this host", shown, remedy))


def end_children_with_parent() -> None:
    """Let the processes that LitServe forks end when this one is killed: they would keep the port (Linux)."""
    if sys.platform == "linux":
        import ctypes

        libc, parent = ctypes.CDLL(None), os.getpid()

        def ask() -> None:
            libc.prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
            if os.getppid() != parent:  # it has ended in between
                os._exit(1)

        os.register_at_fork(after_in_child=ask)


def end_with_parent() -> None:
    """Let this worker process end when its parent does, so that a server that is started anew gets the journal."""
    parent = multiprocessing.parent_process()

    def wait(process: Any) -> None:
        process.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=wait, args=(parent,), daemon=True).start()
