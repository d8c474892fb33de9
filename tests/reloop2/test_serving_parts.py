"""What a server is made of, without one: the gate, the schema of requests, the service, and what LitServe is given."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import time
from functools import partial
from queue import Queue
from typing import Any

import pytest
import torch
from torch import nn

from lightning_adapt._shared import imports
from lightning_adapt.reloop2.memory import ErrorMemory
from lightning_adapt.reloop2.serving.api import MemoryService, check_host, error_memory_api, gates, serve
from lightning_adapt.reloop2.serving.journal import Journal
from lightning_adapt.reloop2.serving.predictor import ErrorMemoryPredictor
from lightning_adapt.reloop2.serving.request_gate import RequestGate
from lightning_adapt.reloop2.serving.request_schema import RequestError, RequestSchema
from lightning_adapt.reloop2.serving.serving_loop import make_loop
from tests.reloop2.journal_parts import entries
from tests.reloop2.predictor_parts import Clicks, predictor, rows

TOKEN = "correct horse battery"
KIND = (b"content-type", b"application/json")


# -- the gate ----------------------------------------------------------------------------------------------------------
async def application(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was sent."""
    message = await receive()
    after = await receive()
    body = json.dumps([scope["path"], message["body"].decode(), after["type"]]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def through(
    *parts: bytes | None,
    headers: Any = (KIND,),
    path: str = "/x",
    method: str = "POST",
    gate: Any = RequestGate,
    **options: Any,
) -> tuple[int, Any]:
    """Send a body in parts through a gate; None: wait for ever."""
    gate = gate(application, **{"token": None, "max_body_bytes": 100, **options})
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts if part is not None]
    if None not in parts and messages:
        messages[-1]["more_body"] = False

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        if None in parts:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers)}
    asyncio.run(gate(scope, receive, send))
    return (sent[0]["status"], _as_json(sent[1]["body"])) if sent else (0, None)


def _as_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # the text of a gate that is not ours
        return body.decode()


def all_gates(app: Any, **options: Any) -> Any:
    """What `serve` puts before an application."""
    for gate in gates(**options):
        app = gate[0](app, **gate[1]) if isinstance(gate, tuple) else gate(app)
    return app


def test_without_a_token_only_the_names_of_this_machine_are_answered():
    for host, status in (
        (b"localhost:8000", 200),
        (b"127.0.0.1:8000", 200),
        (b"rebound.example.org:8000", 400),
        (b"localhost.example.org", 400),
        (b"", 400),
    ):
        for kind in ({"method": "POST"}, {"method": "GET", "path": "/health"}):
            assert through(b"{}", headers=[KIND, (b"host", host)], gate=all_gates, **kind)[0] == status, host
    named = [KIND, (b"host", b"model.example.org"), (b"authorization", f"Bearer {TOKEN}".encode())]
    assert through(b"{}", headers=named, gate=all_gates, token=TOKEN)[0] == 200
    assert through(b"{}", headers=named[:2], gate=all_gates, token=TOKEN)[0] == 401


def test_json_passes_as_it_came():
    assert through(b'{"a"', b": 1}") == (200, ["/x", '{"a": 1}', "http.disconnect"])
    headers = [(b"Content-Type", b"application/json; charset=utf-8")]
    assert through(b"[1]", headers=headers)[0] == 200
    assert through(b"anything", method="PUT")[1] == ["/x", "anything", "http.disconnect"]


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"[1, -Infinity]", b"\xff\xfe", b"[" * 50_000, b"9" * 5000])
def test_what_is_no_json_is_refused(body):
    for path in ("/x", "/x\n", "/other"):
        status, said = through(body, path=path, max_body_bytes=10**6)
        assert status == 400
        assert "no JSON" in said["detail"]


def test_the_size_is_limited_whatever_the_parts():
    for parts in ([b" " * 99 + b"1"], [b" "] * 99 + [b"1"]):
        assert through(*parts)[0] == 200
    for parts in ([b"1" * 101], [b"1"] * 101, [b"1" * 60, b"1" * 60], [b"1" * 50] * 60):
        status, said = through(*parts)
        assert (status, "larger than 100 bytes" in said["detail"]) == (413, True)


def test_a_body_that_is_too_long_is_read_on_so_that_its_sender_hears_the_answer():
    for parts, read in ((30, 30), (60, 33)):  # of 50 bytes; up to 16 times the limit of 100
        received = 0

        async def receive():
            nonlocal received
            received += 1
            return {"type": "http.request", "body": b"1" * 50, "more_body": received < parts}  # noqa: B023

        async def send(message):
            pass

        scope = {"type": "http", "path": "/x", "method": "POST", "headers": [KIND]}
        asyncio.run(RequestGate(application, token=None, max_body_bytes=100)(scope, receive, send))
        assert received == read


def test_a_body_that_does_not_come_is_not_waited_for():
    status, said = through(b"{", None, body_timeout_s=0.05)
    assert (status, "within 0.05 seconds" in said["detail"]) == (408, True)


def test_nobody_is_left_to_answer_when_the_sender_has_gone():
    assert through() == (0, None)


def test_other_content_is_refused():
    for kind in (b"text/plain", b"multipart/form-data; boundary=x", b"", b"application/jsonp"):
        assert through(b"{}", headers=[(b"content-type", kind)])[0] == 415


def test_what_does_not_say_that_it_is_json_is_refused():
    status, said = through(b"{}", headers=[(b"origin", b"https://example.org")])  # what a web page may post unasked
    assert (status, "Content-Type: application/json" in said["detail"]) == (415, True)
    assert through(b"", method="GET", headers=[])[0] == 200


def test_the_token_is_asked_for_everywhere():
    for path in ("/x", "/health", "/docs"):
        for headers in ([], [(b"authorization", b"Bearer wrong")], [(b"authorization", f"bearer {TOKEN}".encode())]):
            assert through(b"{}", path=path, headers=headers, token=TOKEN)[0] == 401
        right = [KIND, (b"Authorization", f"Bearer {TOKEN}".encode())]
        assert through(b"{}", path=path, headers=right, token=TOKEN)[0] == 200


# -- the schema --------------------------------------------------------------------------------------------------------
def test_rows_become_tensors():
    schema = RequestSchema.of(Clicks())
    features = {"user": [3, 0], "item": [1, 11], "price": [1, 0.5]}
    request = schema.parse({"type": "predict", "ids": ["a", 7], "features": features})
    assert {name: (values.dtype, values.tolist()) for name, values in request.batch.items()} == {
        "user": (torch.int64, [3, 0]),
        "item": (torch.int64, [1, 11]),
        "price": (torch.float32, [1.0, 0.5]),
    }
    labels = schema.parse({"type": "feedback", "ids": ["a", "a"], "labels": [1, 0.25]}).labels
    assert (labels.dtype, labels.tolist()) == (torch.float32, [1.0, 0.25])


@pytest.mark.parametrize("label", [-1e-9, 1.5, math.nan, math.inf, None, "1", True, [1], 10**400])
def test_labels_of_clicks_and_values(label):
    request = {"type": "feedback", "ids": ["a"], "labels": [label]}
    with pytest.raises(RequestError, match=r"`labels\[0\]` must be a number from 0 to 1"):
        RequestSchema({"user": 3}).parse(request)
    values = RequestSchema({"user": 3}, binary=False)
    if label in (-1e-9, 1.5):
        assert values.parse(request).labels.item() == pytest.approx(label)
    else:
        with pytest.raises(RequestError, match="finite number"):
            values.parse(request)


def test_texts_name_what_is_wrong_and_stay_short():
    schema = RequestSchema({"user": 3}, max_rows=2)
    for request, text in (
        ({"type": "predict", "ids": ["a"], "features": {"user": [3]}}, r"`features.user\[0\]` .* from 0 to 2"),
        ({"type": "predict", "ids": ["a"], "features": {}}, "Add 'user'"),
        ({"type": "predict", "ids": ["a"], "features": {"user": [1], "b" * 5000: 1}}, "Leave out 'bbb"),
        ({"type": "predict", "ids": ["a", "b", "c"], "features": {}}, "1 to 2 ids"),
        ({"type": "feedback", "ids": ["a"], "labels": [0], "x": 1}, "Leave out 'x'"),
        ({"type": "x" * 5000}, "`type` must be one of"),
        (["x" * 5000], "a JSON object"),
    ):
        with pytest.raises(RequestError, match=text) as found:
            schema.parse(request)
        assert len(str(found.value)) < 500


def test_a_module_that_does_not_say_its_fields_needs_a_schema():
    with pytest.raises(TypeError, match="schema=RequestSchema"):
        RequestSchema.of(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="max_rows"):
        RequestSchema({"user": 3}, max_rows=0)


# -- the service -------------------------------------------------------------------------------------------------------
def asked(number: int, n: int = 1) -> dict[str, Any]:
    features = {name: values.tolist() for name, values in rows(n, seed=number).items()}
    return {"type": "predict", "ids": [f"{number}-{row}" for row in range(n)], "features": features}


def opened(**options: Any) -> MemoryService:
    service = MemoryService(lambda device: predictor("knn", **options), max_rows=5)
    service.open("cpu")
    return service


def test_answers_in_order_each_for_itself():
    feedback = {"type": "feedback", "ids": ["1-0", "1-0", "?"], "labels": [1, 0, 0]}
    answers = opened().answer_all([asked(1), {"type": "oops"}, feedback, asked(2, 3), {"type": "status"}])
    assert [status for status, _ in answers] == [200, 422, 200, 200, 200]
    assert answers[2][1] == {"accepted": ["1-0"], "unknown": ["?"], "expired": [], "duplicate": ["1-0"]}
    assert len(answers[3][1]["probabilities"]) == 3
    assert answers[4][1]["feedback_rows"] == 1
    assert answers[4][1]["waiting_rows"] == 3
    json.dumps(answers)


def test_before_it_is_open_it_says_so():
    assert MemoryService(predictor).answer_all([{}, {}])[1][0] == 503


def test_a_fault_inside_is_answered_and_goes_no_further(monkeypatch, caplog):
    service = opened()
    with monkeypatch.context() as patch:

        def fail(*_):
            raise ZeroDivisionError("secret")

        patch.setattr(service.predictor, "feedback", fail)
        answers = service.answer_all([{"type": "feedback", "ids": ["a"], "labels": [1]}, asked(1)])
    assert [status for status, _ in answers] == [500, 200]
    assert "secret" not in answers[0][1]
    assert "secret" in caplog.text


def test_a_model_that_gives_nan_is_the_fault_of_the_rows():
    service = opened()
    with torch.no_grad():
        service.predictor.module.user.weight[3] = math.inf
    features = {"user": [3], "item": [0], "price": [0]}
    status, text = service.answer_all([{"type": "predict", "ids": ["a"], "features": features}])[0]
    assert status == 422
    assert "inf" in text or "nan" in text
    assert service.answer_all([asked(1)])[0][0] == 200


@pytest.mark.parametrize("memory", ["adaptive", "knn"])
def test_a_number_whose_square_overflows_is_refused_and_ends_nothing(memory, tmp_path):
    def build(_: str) -> ErrorMemoryPredictor:  # whitened by what it serves
        return predictor(memory, calibration=(), journal=tmp_path / "journal")

    service = MemoryService(build)
    service.open("cpu")
    large = {"type": "predict", "ids": ["a"], "features": {"user": [3], "item": [0], "price": [1e22]}}
    status, text = service.answer_all([large])[0]
    assert status == 422
    assert "`keys` must be rows of length" in text
    assert (entries(tmp_path / "journal"), service.predictor.n_pending) == ([], 0)
    feedback = {"type": "feedback", "ids": ["1-0"], "labels": [1]}
    assert [status for status, _ in service.answer_all([asked(1), large, feedback, asked(2)])] == [200, 422, 200, 200]
    service.predictor.close()
    with build("cpu") as again:
        assert (again.memory.n_written, again.n_pending) == (1, 1)


def test_a_disk_that_fails_acknowledges_nothing(tmp_path, caplog):
    service = opened(journal=Journal(tmp_path / "journal"))
    assert service.answer_all([asked(1)])[0][0] == 200
    service.predictor._kept.journal._connection.execute("PRAGMA query_only=ON")
    feedback = {"type": "feedback", "ids": ["1-0"], "labels": [1]}
    for _ in range(2):  # the journal is closed after the first
        answers = service.answer_all([{"type": "status"}, feedback])
        assert [status for status, _ in answers] == [503, 503]
    again = opened(journal=Journal(tmp_path / "journal"))
    assert again.answer_all([feedback])[0][1]["accepted"] == ["1-0"]


# -- what LitServe is given --------------------------------------------------------------------------------------------
def build(text: str, device: str) -> ErrorMemoryPredictor:
    assert text == "mine"
    return ErrorMemoryPredictor(Clicks(), ErrorMemory(whiten=False))


def test_the_api_is_sent_to_its_worker():
    api = error_memory_api(partial(build, "mine"), path="/mine", max_rows=7)
    api.request_timeout = 3.0
    again = pickle.loads(pickle.dumps(api))
    assert (again.api_path, again.request_timeout) == ("/mine", 3.0)
    assert type(again.loop).__name__ == "GroupLoop"


class Transport(list):
    def send(self, item: Any, consumer_id: int) -> None:
        self.append((consumer_id, item))


def test_the_loop_answers_all_that_wait_and_is_honest_to_the_late():
    service, queue, said = opened(), Queue(), Transport()
    loop = make_loop(service, max_group=3)
    api = type("Api", (), {"request_timeout": 5.0})()
    now = time.monotonic()
    for number, since in enumerate((now, now - 6, now, now)):
        queue.put((number % 2, f"uid {number}", since, asked(number)))
    queue.put((0, "uid 4", now, {"type": "no"}))
    loop.run(api, "cpu", 0, queue, said, {}, None)
    assert [(consumer, item[0]) for consumer, item in said] == [(0, "uid 0"), (1, "uid 1"), (0, "uid 2")]
    late = said[1][1][1][0]
    assert (late.status_code, "too long" in late.detail) == (504, True)
    assert service.predictor.n_pending == 2, "the late one was not acted on"
    loop.run(api, "cpu", 0, queue, said, {}, None)
    refused = said[4][1][1][0]
    assert (refused.status_code, "`type` must be" in refused.detail) == (422, True)
    pickle.loads(pickle.dumps(refused))
    api.request_timeout = False  # LitServe's word for no limit
    queue.put((0, "uid 5", now - 1000, asked(5)))
    loop.run(api, "cpu", 0, queue, said, {}, None)
    assert "probabilities" in said[5][1][1][0]


def test_the_loop_ends_when_the_server_does():
    class Gone:
        def get(self, timeout):
            raise EOFError

    with pytest.raises(SystemExit):
        make_loop(opened(), 3).run(None, "cpu", 0, Gone(), Transport(), {}, None)


def test_others_are_let_in_with_a_token_only():
    check_host("127.0.0.1", None)
    check_host("0.0.0.0", TOKEN)
    for host, token in (("0.0.0.0", None), ("::", None), ("0.0.0.0", ""), ("127.0.0.1", "short"), ("::", "käsekuchen")):
        with pytest.raises(ValueError, match="`token` must be a text of 8 or more"):
            check_host(host, token)
    with pytest.raises(ValueError, match="`host` must be one of"):
        check_host("example.org", TOKEN)


def test_a_server_does_not_start_with_wrong_arguments():
    api = error_memory_api(partial(build, "mine"))
    for options, text in (
        ({"host": "0.0.0.0"}, "token"),
        ({"port": 80}, "port"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"timeout_s": 0}, "timeout_s"),
    ):
        with pytest.raises(ValueError, match=text):
            serve(api, **options)
    for options in ({"max_rows": 0}, {"max_group": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            error_memory_api(partial(build, "mine"), **options)


def test_without_litserve_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(imports.EXTRAS["serve"], "litserve", imports.RequirementCache("litserve>=999"))
    with pytest.raises(ModuleNotFoundError, match=r"lightning-adapt\[serve\]"):
        error_memory_api(partial(build, "mine"))
