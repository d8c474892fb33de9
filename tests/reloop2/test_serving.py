"""A real server on loopback: killed, attacked and asked again, it answers as a predictor that was never stopped."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.benchmarks._reloop2_serving import JSON, Client, Server, Wrong, free_port, malformed
from tests.reloop2.light_server import LIMITS
from tests.reloop2.predictor_parts import SIZES, Call, calls, do, predictor, rows

ROOT = Path(__file__).parents[2]
TOKEN = "correct horse battery"
HEADERS = {**JSON, "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "tests.reloop2.light_server", str(folder), str(port), TOKEN]
    with Server(command, port, folder / "log", ROOT, HEADERS) as running:
        yield running


@pytest.fixture
def client(server) -> Iterator[Client]:
    one = Client(server.port, HEADERS)
    yield one
    one.close()


def payload(call: Call) -> dict[str, Any]:
    kind, (ids, values) = call
    if kind == "feedback":
        return {"type": kind, "ids": ids, "labels": values.tolist()}
    return {"type": kind, "ids": ids, "features": {name: column.tolist() for name, column in values.items()}}


def answer(client: Client, call: Call) -> Any:
    said = client.post(payload(call))
    return said["probabilities"] if call[0] == "predict" else said


def answer_of_restarted(server: Server, client: Client, call: Call) -> Any:
    """Ask again of a server that was killed: it may have acted on the call already, or not."""
    server.wait_until_gone()
    server.start()
    return answer(client, call)


def test_killed_three_times_it_answers_as_one_that_never_was(server, client):
    every, reference = list(calls(60)), predictor("adaptive")
    kills = {20: 0.0, 45: 0.004, 80: 0.008}  # number of the call -> seconds after it was sent
    assert len(every) > 90
    for number, call in enumerate(every):
        expected = do(reference, call)
        timer = None
        if number in kills:
            options = {"only_parent": number == 45}  # its children must not keep the port and the journal
            timer = threading.Timer(kills[number], server.kill, kwargs=options)
            timer.start()
        try:
            said = answer(client, call)
        except ConnectionError:
            said = answer_of_restarted(server, client, call)
            if call[0] == "feedback" and said != expected:  # it was on the disk, only nobody had heard of it
                assert set(said["duplicate"]) == {*expected["accepted"], *expected["duplicate"]}
                continue
        finally:
            if timer is not None:
                timer.join()
        assert said == expected, number
        if timer is not None and server.process.poll() is not None:
            server.wait_until_gone()
            server.start()
    status = client.post({"type": "status"})
    assert status["feedback_rows"] == reference.memory.n_written > 100
    assert status["waiting_rows"] == reference.n_pending > 0


def test_feedback_changes_the_next_prediction(client):
    asked = payload(("predict", (["change me"], rows(1, seed=3))))
    before = client.post(asked)["probabilities"]
    assert client.post(asked)["probabilities"] == before
    assert client.post({"type": "feedback", "ids": ["change me"], "labels": [1]})["accepted"] == ["change me"]
    assert client.post(asked)["probabilities"][0] > before[0]
    assert client.post({"type": "feedback", "ids": ["nobody"], "labels": [1]})["unknown"] == ["nobody"]


def test_requests_that_are_wrong_are_refused_with_a_text_and_end_nothing(server, client):
    asked = payload(("predict", (["a", "b"], rows(2))))
    good = {**asked, "features": {**asked["features"], "user": [0, 1]}}
    before = client.post({"type": "status"})
    wrong = malformed(good, SIZES, LIMITS)
    for value in (None, "1", True, 10**400, 1e30):
        wrong.append(Wrong(f"price {value!r:.9}", json.dumps(_priced(good, value)).encode()))
    assert len(wrong) >= 100
    for request in wrong:
        status, text = client.send(replace(request, headers={**HEADERS, **request.headers}))
        assert 400 <= status < 500, (request.what, status, text)
        assert json.loads(text)["detail"], request.what
        assert len(text) < 2000, request.what
    for token in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}):
        for request in (Wrong("", json.dumps(good).encode()), Wrong("", b"", method="GET", path="/health")):
            status, text = client.send(replace(request, headers={**JSON, **token}))
            assert (status, "Bearer" in text) == (401, True)
    assert server.process.poll() is None
    assert client.post({"type": "status"}) == before
    assert len(client.post(good)["probabilities"]) == 2


def _priced(good: dict[str, Any], price: Any) -> dict[str, Any]:
    return {**good, "features": {**good["features"], "price": [0.0, price]}}


def test_many_clients_at_once_get_the_answers_to_their_own_rows(server, client):
    reference = predictor("adaptive")
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        one = Client(server.port, HEADERS)
        batch = rows(3, seed=500 + number)
        for turn in range(4):
            ids = [f"{number}-{turn}-{row}" for row in range(3)]
            answers[number] = answer(one, ("predict", (ids, batch)))
        one.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        again = answer(client, ("predict", ([f"{number} again {row}" for row in range(3)], rows(3, seed=500 + number))))
        assert answers[number] == again
    assert len({tuple(said) for said in answers.values()}) == 8
    assert reference.n_pending == 0  # nothing of this went elsewhere


def test_the_answers_are_numbers_in_full(client):
    said = client.post(payload(("predict", (["full"], rows(1, seed=8)))))["probabilities"]
    assert torch.tensor(said, dtype=torch.float32).double().tolist() == said
