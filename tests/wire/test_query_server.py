"""The query socket on its own: who may ask, how much, and that no one holds up another."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from inspector.client.viewer import Viewer
from inspector.config.station_file import Security
from inspector.errors import CommandError, PortError, WireError
from inspector.wire.gate import Gate
from inspector.wire.messages import encode
from inspector.wire.queries import (
    AnswerMessage,
    DeedsQuery,
    FrameField,
    HistoryQuery,
    PictureField,
    PreviewQuery,
    Query,
    decode_answer,
)
from inspector.wire.query_server import Answer, Queries, QuerySocket
from tests.parties import ANY, Parties, connected, plain, wait_until, was_cut_off

BIG = b"x" * (1 << 20)


class Shelf:
    """Answers everything at once, a preview with a megabyte, but holds back what has no limit."""

    def __init__(self, _wake: Callable[[], None]) -> None:
        self.held: list[tuple[Query, Answer]] = []
        self.asked: list[str] = []
        self.is_closed = False

    def answer(self, query: Query, answer: Answer) -> None:
        self.asked.append(query.id)
        if isinstance(query, HistoryQuery):
            self.held.append((query, answer))
        elif isinstance(query, PreviewQuery):
            frame = FrameField(content="picture", format="png", width=1, height=1)
            about: dict[str, Any] = {"origin": "camera", "camera": "top", "verdict": None}
            about |= {"at_us": 1, "width": 1, "height": 1, "heatmap_area": None}
            picture = PictureField.model_validate(about | {"frames": (frame,)})
            answer(AnswerMessage(id=query.id, kind="preview", picture=picture), [BIG])
        else:
            answer(AnswerMessage(id=query.id, kind="deeds"), ())

    def turn(self) -> float | None:
        return None

    def close(self) -> None:
        self.is_closed = True


class Served:
    def __init__(self, queries: Queries, shelf: Shelf) -> None:
        self.queries, self.shelf, self.address = queries, shelf, queries.address


@contextlib.contextmanager
def serving(security: Security | None = None, **options: Any) -> Iterator[Served]:
    gate = Gate(security or Security())
    shelves: list[Shelf] = []

    def make(wake: Callable[[], None]) -> Shelf:
        shelves.append(Shelf(wake))
        return shelves[0]

    try:
        queries = Queries(QuerySocket(gate, ANY), make, **options)
        queries.start()
        try:
            yield Served(queries, shelves[0])
        finally:
            queries.finish()
            assert not queries.crashed
            assert shelves[0].is_closed
    finally:
        gate.close()


def answers(peer: Any, count: int, within_s: float = 5.0) -> list[AnswerMessage]:
    found = []
    for _ in range(count):
        assert peer.poll(int(within_s * 1000)), found
        found.append(decode_answer(peer.recv_multipart())[0])
    return found


def test_who_listens_may_look_and_nobody_else(parties: Parties) -> None:
    with serving(parties.security) as served:
        for name in ("mes", "desk"):
            with Viewer(served.address, keys=parties.client_keys(name), timeout_s=5) as viewer:
                assert list(viewer.deeds()) == []
        before = len(served.shelf.asked)
        for keys in (parties.client_keys("plc"), parties.client_keys("stranger"), None):
            refused = pytest.raises(CommandError, match="does it know this key")
            with Viewer(served.address, keys=keys, timeout_s=0.4) as viewer, refused:
                list(viewer.deeds())
        assert len(served.shelf.asked) == before


def test_beyond_loopback_it_needs_keys() -> None:
    with contextlib.closing(Gate()) as gate, pytest.raises(PortError, match="which needs keys"):
        QuerySocket(gate, "tcp://0.0.0.0:*")


@pytest.mark.parametrize(
    ("frames", "id_", "words"),
    [
        ([b"{"], "", "is not JSON"),
        ([b'{"command":"history","id":"7","limt":5}'], "7", "'limt' is unknown here"),
        ([b'{"command":"history","id":"7","limit":101}'], "7", "must be at most 100"),
        ([b'{"command":"history","id":"7","before_seq":1}'], "7", "needs both before_epoch"),
        ([b'{"command":"history","id":"7","verdicts":["QASS"]}'], "7", "verdicts.0"),
        ([b'{"command":"history","id":"7","score_to":1e999}'], "7", "score_to"),
        ([b'{"command":"trigger","id":"7"}'], "7", "must be one of"),
        ([b'{"command":"preview","id":"7","camera":"a","longest_px":9999}'], "7", "at most 4096"),
        ([b"{}", b"{}"], "", "of 2 frames"),
    ],
)
def test_what_is_no_query_is_refused(frames: list[bytes], id_: str, words: str) -> None:
    with serving() as served, connected(zmq.DEALER, served.address, None) as peer:
        peer.send_multipart(frames)
        (answer,) = answers(peer, 1)
    assert (answer.kind, answer.code, answer.id) == ("refused", "malformed", id_)
    assert words in answer.detail
    assert served.shelf.asked == []


def test_a_flood_of_one_client_is_refused_and_others_are_served() -> None:
    with serving() as served, connected(zmq.DEALER, served.address, None) as greedy:
        for number in range(12):
            greedy.send(encode(HistoryQuery(id=str(number))))
        refused = answers(greedy, 4)
        assert {one.code for one in refused} == {"busy"}
        with Viewer(served.address, timeout_s=5) as other:
            assert list(other.deeds()) == []
        assert wait_until(lambda: len(served.shelf.held) == 8)
        # What was sent again while it waited for its turn is answered once.
        assert len(set(served.shelf.asked)) == len(served.shelf.asked)


def test_bytes_are_paced_for_each_client() -> None:
    with (
        serving(bytes_per_s=2 << 20) as served,
        connected(zmq.DEALER, served.address, None) as greedy,
        Viewer(served.address, timeout_s=5) as other,
    ):
        begun = time.monotonic()
        for number in range(7):
            greedy.send(encode(PreviewQuery(id=str(number), camera="top")))
        list(other.deeds())
        assert time.monotonic() - begun < 1.0
        answers(greedy, 7)
        # Two megabytes at once, and two a second.
        assert time.monotonic() - begun > 1.0


def test_who_does_not_read_loses_answers_and_holds_up_nobody() -> None:
    with serving() as served, connected(zmq.DEALER, served.address, None) as deaf:
        deaf.disconnect(deaf.getsockopt_string(zmq.LAST_ENDPOINT))
        deaf.setsockopt(zmq.RCVHWM, 1)
        deaf.setsockopt(zmq.RCVBUF, 4096)
        deaf.connect(served.address)
        deadline = time.monotonic() + 10
        while not served.queries.unsent:
            assert time.monotonic() < deadline
            deaf.send(encode(PreviewQuery(id=str(time.monotonic()), camera="top")))
            with Viewer(served.address, timeout_s=5) as other:
                assert list(other.deeds()) == []


def test_what_is_sent_again_is_answered_once() -> None:
    with (
        serving(bytes_per_s=1 << 20) as served,
        connected(zmq.DEALER, served.address, None) as peer,
    ):
        peer.send(encode(PreviewQuery(id="first", camera="top")))
        answers(peer, 1)
        for _ in range(3):
            peer.send(encode(DeedsQuery(id="again")))
        assert [one.id for one in answers(peer, 1)] == ["again"]
        assert not peer.poll(400)
        assert served.shelf.asked == ["first", "again"]


def test_a_large_query_is_cut_off() -> None:
    with serving() as served, plain(served.address) as connection:
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
        ready = b"\x05READY\x0bSocket-Type" + len(b"DEALER").to_bytes(4, "big") + b"DEALER"
        connection.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
        connection.sendall(b"\x02" + (17 << 10).to_bytes(8, "big") + b"x" * 1000)
        assert was_cut_off(connection)
        with Viewer(served.address, timeout_s=5) as other:
            assert list(other.deeds()) == []


def test_an_answer_that_the_page_does_not_allow_is_refused_by_the_client() -> None:
    answer = json.loads(encode(AnswerMessage(id="1", kind="deeds")))
    assert decode_answer([json.dumps(answer | {"new": 1}).encode()])[0].kind == "deeds"
    with pytest.raises(WireError, match="'kind'"):
        decode_answer([json.dumps(answer | {"kind": "odd"}).encode()])
    with pytest.raises(WireError, match="of 2 frames, expected 1"):
        decode_answer([json.dumps(answer).encode(), b""])
