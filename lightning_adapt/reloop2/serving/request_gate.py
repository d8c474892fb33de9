"""What stands before a server's model: a token, a limit on the size, and nothing but JSON; plain ASGI, no framework."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["RequestGate"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_DRAINED = 16  # times the limit that is read of a body that is too long: who is still writing would not see the answer


class RequestGate:
    """Answers what must not reach the application, each with a status of 400 to 499 and a JSON text that says why.

    Without the right token, everything gets 401. What is posted, to whatever path, must be JSON (400) and say so in its
    Content-Type (415), be within the size limit (413), and come within the time limit (408). NaN and Infinity are no
    JSON.

    Args:
        app: The ASGI application behind it.
        token: What `Authorization: Bearer <token>` must say; None: nothing is asked for.
        max_body_bytes: Largest body.
        body_timeout_s: Seconds within which a body must be there.
    """

    def __init__(self, app: App, *, token: str | None, max_body_bytes: int, body_timeout_s: float = 30.0) -> None:
        self.app, self.token = app, token
        self.max_body_bytes, self.body_timeout_s = max_body_bytes, body_timeout_s

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._may_enter(headers):
            await _refuse(send, 401, "Send the header 'Authorization: Bearer <token>' with the token of this server.")
            return
        if scope["method"] != "POST":  # nothing that is read has a body
            await self.app(scope, receive, send)
            return
        # any web page may have a browser on this machine post what does not say that it is JSON
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            await _refuse(send, 415, f"Send JSON, as 'Content-Type: application/json', not {kind.decode('latin-1')!r}.")
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self.body_timeout_s)
        except asyncio.TimeoutError:
            await _refuse(send, 408, f"The body did not come within {self.body_timeout_s:g} seconds. Send it again.")
            return
        if body is None:  # the sender has gone
            return
        fault = self._fault(body)
        if fault is not None:
            await _refuse(send, *fault)
            return
        await self.app(scope, _Replay(body, receive), send)

    def _may_enter(self, headers: dict[bytes, bytes]) -> bool:
        if self.token is None:
            return True
        expected = b"Bearer " + self.token.encode()
        return hmac.compare_digest(headers.get(b"authorization", b""), expected)  # takes as long for any wrong token

    async def _body(self, receive: Receive) -> bytes | None:
        """Read a body, of one that is too long a byte too many."""
        kept, seen, more = bytearray(), 0, True
        while more and seen <= _DRAINED * self.max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            seen += len(part)
            kept += part[: self.max_body_bytes + 1 - len(kept)]
            more = message.get("more_body", False)
        return bytes(kept)

    def _fault(self, body: bytes) -> tuple[int, str] | None:
        if len(body) > self.max_body_bytes:
            return 413, f"The body is larger than {self.max_body_bytes} bytes. Spread the rows over several requests."
        try:
            json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:  # also of bytes that are no text
            return 400, f"The body is no JSON: {str(error)[:200]}. Send an object such as {{'type': 'status'}}."
        return None


class _Replay:
    """Hands a body that was read to the application, then whatever comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.message: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self.receive = receive

    async def __call__(self) -> Message:
        message, self.message = self.message, None
        return await self.receive() if message is None else message


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
