"""The parts of serving that are made of LitServe's classes; litserve is only imported when they are made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from queue import Empty
from typing import Any

from lightning_adapt.reloop2.serving.api import Answer, MemoryService, end_with_parent

__all__ = ["make_api", "make_loop"]

_WAIT_S = 1.0


def make_api(service: MemoryService, path: str, max_group: int) -> Any:
    """Return a LitAPI around a service.

    LitServe pickles it to the worker; a class inside a function has no name to be found by there, so that the instance
    names this function instead.

    Args:
        service: What answers.
        path: Where requests are posted.
        max_group: Requests answered together at most.

    Returns:
        The LitAPI.
    """
    import litserve

    class ErrorMemoryAPI(litserve.LitAPI):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(api_path=path, loop=make_loop(service, max_group))

        def setup(self, device: str) -> None:
            end_with_parent()
            service.open(device)

        def __reduce__(self) -> tuple[Any, ...]:
            state = {name: value for name, value in vars(self).items() if name not in ("_loop", "_default_unbatch")}
            return make_api, (service, path, max_group), state

    return ErrorMemoryAPI()


def make_loop(service: MemoryService, max_group: int) -> Any:
    """Return a LitLoop that answers all requests that wait at once.

    Args:
        service: What answers.
        max_group: Requests answered together at most.

    Returns:
        The loop.
    """
    from litserve.loops import LitLoop
    from litserve.utils import LitAPIStatus, LoopResponseType, PickleableHTTPException

    class GroupLoop(LitLoop):  # type: ignore[misc]
        def run(self, lit_api: Any, device: str, worker_id: int, request_queue: Any, transport: Any, *_: Any) -> None:  # noqa: ARG002
            waiting = _all_that_wait(request_queue, max_group)
            answers = _answers(service, waiting, lit_api.request_timeout or -1)
            for (consumer, uid, _, _), (status, body) in zip(waiting, answers, strict=True):
                good = status == 200
                data = body if good else PickleableHTTPException(status, body)
                outcome = LitAPIStatus.OK if good else LitAPIStatus.ERROR
                self.put_response(transport, consumer, uid, data, outcome, LoopResponseType.REGULAR)

    return GroupLoop()


def _all_that_wait(queue: Any, most: int) -> Sequence[Any]:
    waiting: list[Any] = []
    try:
        waiting.append(queue.get(timeout=_WAIT_S))
        while len(waiting) < most:
            waiting.append(queue.get_nowait())
    except Empty:
        return waiting
    except (EOFError, KeyboardInterrupt, OSError):  # the server is being stopped
        raise SystemExit(0) from None
    return waiting


def _answers(service: MemoryService, waiting: Sequence[Any], limit_s: float) -> list[Answer]:
    """Answer what came in time (`limit_s` of -1: whenever), and say so to the rest."""
    late = [limit_s != -1 and time.monotonic() - since > limit_s for _, _, since, _ in waiting]
    in_time = [payload for (*_, payload), is_late in zip(waiting, late, strict=True) if not is_late]
    answers = iter(service.answer_all(in_time) if in_time else [])
    too_late = (504, "The request waited too long for its turn. Send it again.")
    return [too_late if is_late else next(answers) for is_late in late]
