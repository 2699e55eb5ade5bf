from __future__ import annotations

import json
import queue
import threading
import time
from typing import Any, get_args

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from inspector.client.keys import ClientKeys, configure_client
from inspector.config.station_file import Security
from inspector.errors import PortError
from inspector.wire import messages as wire
from inspector.wire.command_server import ADMITTED, Commands, CommandSocket
from inspector.wire.gate import Gate
from inspector.wire.messages import Command, ReplyMessage, TriggerCommand
from inspector.wire.requests import Request
from tests.parties import make_keys
from tests.stations import accept_and_answer, serving, verdict


class Peer:
    """A DEALER that speaks JSON, as a stranger would write it."""

    def __init__(
        self, address: str, keys: ClientKeys | None = None, high_water: int = 1000
    ) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.RCVHWM, high_water)
        configure_client(self.socket, keys)
        self.socket.connect(address)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(linger=0)
        self._context.term()

    def send(self, **fields: Any) -> None:
        self.socket.send(json.dumps(fields).encode())

    def receive(self, timeout_ms: int = 5000) -> dict[str, Any] | None:
        return json.loads(self.socket.recv()) if self.socket.poll(timeout_ms) else None

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        reply = self.receive()
        assert reply is not None, f"no reply to {fields}"
        return reply


def trigger(seq: int = 1, **fields: Any) -> dict[str, Any]:
    return {"command": "trigger", "camera": "top", "session": "s", "trigger_seq": seq} | fields


def test_trigger_is_accepted_then_answered_by_another_thread(recorded):
    requests: queue.Queue[Request] = queue.Queue()
    with serving(recorded, requests.put) as commands, Peer(commands.address) as peer:
        before_us, before_ns = time.time_ns() // 1000, time.monotonic_ns()
        peer.send(**trigger(41, id="a", session="s", part_id="widget"))
        request = requests.get(timeout=5)
        assert before_us <= request.received_us <= time.time_ns() // 1000
        assert before_ns <= request.received_ns <= time.monotonic_ns()
        command = request.command
        assert (command.camera, command.session, command.trigger_seq) == ("top", "s", 41)
        assert request.client == ""
        other = threading.Thread(target=accept_and_answer, args=(request,))
        other.start()
        assert peer.receive() == {
            "schema": 2,
            "id": "a",
            "kind": "accepted",
            "code": "",
            "cause": "",
            "detail": "",
            "grabbed_us": None,
            "verdict": None,
            "status": None,
            "epochs": [],
            "verdicts": [],
            "more": False,
            "next_epoch": None,
            "last_seq": 0,
            "offset": None,
        }
        second, third = peer.receive(), peer.receive()
        assert (second["id"], second["kind"], second["grabbed_us"]) == ("a", "acquired", 1)
        assert (third["id"], third["kind"]) == ("a", "verdict")
        assert third["verdict"]["part_id"] == "widget"
        other.join()


CALLS = {
    "accept": lambda request: request.accept(),
    "acquire": lambda request: request.acquire(5),
    "verdict": lambda request: request.answer(verdict(1, grabbed_us=5)),
    "no picture": lambda request: request.answer(verdict(1, grabbed_us=None, verdict="FAULT")),
    "unrecorded": lambda request: request.answer(verdict(1, grabbed_us=5), recorded=False),
    "refuse": lambda request: request.refuse("journal", "the disk is full"),
}


ANSWERING = {5: {"verdict", "unrecorded"}, None: {"no picture"}}


@given(st.lists(st.sampled_from(sorted(CALLS)), max_size=7))
def test_replies_of_a_trigger_come_once_and_in_order_whatever_the_threads_do(calls):
    heard: list[ReplyMessage] = []
    lasts: list[bool] = []

    def send(reply: ReplyMessage, last: bool) -> None:
        heard.append(reply)
        lasts.append(last)

    command = TriggerCommand(id="a", camera="top", session="s", trigger_seq=1)
    request = Request(command, "plc", send)
    for name in calls:
        CALLS[name](request)
    kinds = [reply.kind for reply in heard]
    last = kinds[-1] if kinds else ""
    assert kinds in (
        [],
        ["accepted"],
        ["accepted", "acquired"],
        ["accepted", "verdict"],
        ["accepted", "acquired", "verdict"],
        [*kinds[:-1], "refused"],
    )
    assert kinds[:-1] in ([], ["accepted"], ["accepted", "acquired"])
    assert lasts == [False] * (len(kinds) - 1) + [last in {"verdict", "refused"}] * bool(kinds)
    if last == "verdict":
        grabbed_us = heard[-1].verdict.grabbed_us
        before = calls[: next(i for i, name in enumerate(calls) if name in ANSWERING[grabbed_us])]
        assert ("acquired" in kinds) == (grabbed_us is not None or "acquire" in before)


def test_trigger_is_accepted_by_its_verdict_or_by_nothing(recorded):
    """Where it was not accepted before; what is accepted is in the journal."""

    def handle(request: Request) -> None:
        recorded_first, recorded_then = map(int, request.command.part_id)
        if recorded_first:
            request.accept()
        request.answer(verdict(1), bool(recorded_then))

    with serving(recorded, handle) as commands, Peer(commands.address) as peer:
        for part, kinds in (
            ("11", ["accepted", "acquired", "verdict"]),
            ("10", ["accepted", "acquired", "verdict"]),
            ("01", ["accepted", "acquired", "verdict"]),
            ("00", ["refused"]),
        ):
            peer.send(**trigger(1, part_id=part))
            replies = [peer.receive() for _ in kinds]
            assert [reply["kind"] for reply in replies] == kinds
            assert replies[-1]["code"] == ("journal" if part == "00" else "")
        assert peer.receive(100) is None


def test_only_the_first_answer_counts(recorded):
    def handle(request: Request) -> None:
        request.refuse("unknown", "no camera 'top'")
        request.answer(verdict(1))
        request.accept()

    with serving(recorded, handle) as commands, Peer(commands.address) as peer:
        reply = peer.ask(**trigger(id="x"))
        assert (reply["kind"], reply["code"], reply["detail"]) == (
            "refused",
            "unknown",
            "no camera 'top'",
        )
        assert peer.ask(command="status", id="next")["id"] == "next"


@pytest.mark.parametrize(
    ("body", "id_", "words"),
    [
        (b"", "", "is not JSON"),
        (b"\xff\xfe", "", "is not JSON"),
        (b"[]", "", "object"),
        (b"null", "", "object"),
        (b'{"id":"a"}', "a", "command"),
        (b'{"id":"a","command":"open the door"}', "a", "open the door"),
        (b'{"id":"a","command":"trigger"}', "a", "camera"),
        (
            b'{"id":"a","command":"trigger","camera":"top","session":"s","trigger_seq":"1"}',
            "a",
            "trigger_seq",
        ),
        (
            b'{"id":"a","command":"trigger","camera":"top","session":"s","trigger_seq":-1}',
            "a",
            "trigger_seq",
        ),
        (
            b'{"id":"a","command":"trigger","camera":"top","session":"s","trigger_seq":1.5}',
            "a",
            "trigger_seq",
        ),
        (
            b'{"id":"a","command":"trigger","camera":"top","session":"s","trigger_seq":true}',
            "a",
            "trigger_seq",
        ),
        (
            b'{"id":"a","command":"trigger","camera":"top","session":"s","trigger_seq":9007199254740992}',
            "a",
            "trigger_seq",
        ),
        (b'{"id":"a","command":"status","sttion":"1"}', "a", "sttion"),
        (b'{"id":"a","command":"status","schema":3}', "a", "schema"),
        (b'{"id":"a","command":"status","schema":1}', "a", "send schema 2"),
        (
            b'{"id":"a","schema":1,"command":"trigger","camera":"top","trigger_seq":1}',
            "a",
            "repeat",
        ),
        (b'{"id":"a","command":"trigger","camera":"top","trigger_seq":1}', "a", "session"),
        (
            b'{"id":"a","command":"trigger","camera":"top","session":"","trigger_seq":1}',
            "a",
            "session",
        ),
        (b'{"id":"a","command":"replay"}', "a", "epoch or since_us"),
        (b'{"id":"a","command":"replay","epoch":"e","since_us":1}', "a", "epoch or since_us"),
        (b'{"id":"a","command":"replay","epoch":"e","from_seq":0}', "a", "from_seq"),
        (b'{"id":7,"command":"status"}', "", "id"),
        (b'{"command":"status","id":"' + b"x" * 65 + b'"}', "", "id"),
        (b'{"command":"recipe","recipe":"' + b"x" * 60_000 + b'"}', "", "recipe"),
        (b"[" * 60_000, "", "JSON"),
        (
            b'{"id":"a","command":"trigger","camera":"\\ud800","session":"s","trigger_seq":1}',
            "a",
            "JSON",
        ),
        (b'{"id":"\\ud800","command":"status"}', "", "JSON"),
    ],
    ids=range(27),
)
def test_malformed_command_is_refused_with_its_id(recorded, body, id_, words):
    reached: list[Request] = []
    with serving(recorded, reached.append) as commands, Peer(commands.address) as peer:
        peer.socket.send(body)
        reply = peer.receive()
        assert (reply["kind"], reply["code"], reply["id"]) == ("refused", "malformed", id_)
        assert words in reply["detail"]
        assert "\n" not in reply["detail"]
        assert peer.ask(command="status", id="b")["kind"] == "status"
    assert reached == []


def test_command_of_several_frames_is_refused(recorded):
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        peer.socket.send_multipart([b"", b'{"command":"status"}'])
        assert peer.receive()["code"] == "malformed"


def test_command_beyond_64_kib_cuts_off_its_sender_alone(recorded):
    reached: list[Request] = []
    with (
        serving(recorded, reached.append) as commands,
        Peer(commands.address) as peer,
        Peer(commands.address) as other,
    ):
        assert other.ask(command="status")["kind"] == "status"
        peer.socket.send(json.dumps(trigger(part_id="x" * 70_000)).encode())
        assert peer.receive(300) is None
        assert other.ask(command="status")["kind"] == "status"
    assert reached == []


def test_status_has_the_ends_of_earlier_epochs(recorded):
    recorded.record(3)
    recorded.start()
    recorded.record(2)
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        reply = peer.ask(command="status", id="1")
    assert reply["status"] == json.loads(wire.encode(recorded.status()))
    assert reply["epochs"] == [
        {"epoch": "epoch-1", "last_seq": 3},
        {"epoch": "epoch-2", "last_seq": 2},
    ]


def test_replay_gives_chunks_of_a_hundred_as_they_were_published(recorded):
    sent = [json.loads(wire.encode(one)) for one in recorded.record(250)]
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        got: list[Any] = []
        sizes = []
        more = True
        while more:
            reply = peer.ask(command="replay", epoch="epoch-1", from_seq=len(got) + 1)
            got += reply["verdicts"]
            sizes.append(len(reply["verdicts"]))
            more = reply["more"]
        assert (got, sizes) == (sent, [100, 100, 50])
        part = peer.ask(command="replay", epoch="epoch-1", from_seq=7, to_seq=9)
        assert [one["seq"] for one in part["verdicts"]] == [7, 8, 9]
        assert part["more"] is False
        none = peer.ask(command="replay", epoch="epoch-1", from_seq=251)
        assert (none["kind"], none["verdicts"], none["more"]) == ("replayed", [], False)


def test_damaged_rows_are_left_out_of_a_replay_and_set_aside(recorded, caplog):
    sent = [json.loads(wire.encode(one)) for one in recorded.record(12)]
    for seq, row in (
        (3, ""),
        (4, json.dumps(sent[3])[:-2]),
        (7, '{"seq":7}'),
        (8, '"],"more":true,"x":["'),
        (12, json.dumps(sent[11] | {"verdict": "GOOD"})),
    ):
        recorded.damage(seq, row)
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        asked = {"epoch": "epoch-1"}, {"since_us": 0}, {"epoch": "epoch-1", "to_seq": 8}
        whole, since, part = (peer.ask(command="replay", **one) for one in asked)
        assert whole["verdicts"] == since["verdicts"] == [sent[i] for i in (0, 1, 4, 5, 8, 9, 10)]
        assert part["verdicts"] == [sent[i] for i in (0, 1, 4, 5)]
        assert (whole["more"], part["more"]) == (False, False)
        none = peer.ask(command="replay", epoch="epoch-1", from_seq=12)
        assert (none["kind"], none["verdicts"], none["more"]) == ("replayed", [], False)
        assert none["last_seq"] == 12
        assert (whole["last_seq"], part["last_seq"], since["last_seq"]) == (12, 12, 0)
        recorded.tend()
        assert (recorded.damaged, len(caplog.records)) == (5, 1)
        assert peer.ask(command="replay", epoch="epoch-1") == whole
        recorded.tend()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        'damaged rows=5 which="epoch-1/3, epoch-1/4, epoch-1/7, epoch-1/8, epoch-1/12" why='
    )
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_good_rows_behind_many_damaged_ones_are_sent(recorded):
    """A reply without a verdict would have been the end of the refill."""
    sent = [json.loads(wire.encode(one)) for one in recorded.record(300)]
    for seq in range(1, 151):
        recorded.damage(seq, "{}")
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        first = peer.ask(command="replay", epoch="epoch-1")
        assert first["verdicts"] == sent[150:250]
        assert first["more"] is True
        rest = peer.ask(command="replay", epoch="epoch-1", from_seq=251)
        assert rest["verdicts"] == sent[250:]
        assert rest["more"] is False


def test_replay_names_the_epoch_that_follows(recorded):
    recorded.record(2)
    for count in (0, 0, 4):
        recorded.start()
        recorded.record(count)
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        assert peer.ask(command="replay", epoch="epoch-1")["next_epoch"] == "epoch-4"
        assert peer.ask(command="replay", epoch="epoch-2")["next_epoch"] == "epoch-4"
        assert peer.ask(command="replay", epoch="epoch-4")["next_epoch"] is None
        for unknown in ({"epoch": "epoch-9"}, {"epoch": "epoch-2", "from_seq": 2}):
            assert peer.ask(command="replay", **unknown)["code"] == "unknown"


def test_replay_from_a_moment(recorded):
    recorded.record(3)
    time.sleep(0.002)
    moment_us = time.time_ns() // 1000
    recorded.start()
    recorded.record(2)
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        reply = peer.ask(command="replay", since_us=moment_us)
        assert [(one["epoch"], one["seq"]) for one in reply["verdicts"]] == [
            ("epoch-2", 1),
            ("epoch-2", 2),
        ]
        assert peer.ask(command="replay", since_us=2**53 - 1)["verdicts"] == []


def test_replay_without_a_journal_is_refused_until_there_is_one(tmp_path, recorded):
    recorded.record(1)
    recorded.folder = tmp_path / "elsewhere"
    with serving(recorded, accept_and_answer) as commands, Peer(commands.address) as peer:
        assert peer.ask(command="replay", epoch="epoch-1")["code"] == "journal"
        assert peer.ask(command="status")["epochs"] == []
        recorded.folder = tmp_path / "journal"
        assert len(peer.ask(command="replay", epoch="epoch-1")["verdicts"]) == 1


def test_replay_is_rate_limited(recorded):
    recorded.record(700)
    rate = 1000.0
    with (
        serving(recorded, accept_and_answer, replay_per_s=rate) as commands,
        Peer(commands.address) as peer,
    ):
        begun, got = time.monotonic(), 0
        while got < 700:
            reply = peer.ask(command="replay", epoch="epoch-1", from_seq=got + 1)
            got += len(reply["verdicts"])
        # The first two hundred are free: a full bucket, and one chunk on credit.
        assert time.monotonic() - begun >= 500 / rate * 0.95


def test_long_refill_does_not_hold_up_another_client(recorded):
    recorded.record(1000)
    with (
        serving(recorded, accept_and_answer, replay_per_s=500.0) as commands,
        Peer(commands.address) as greedy,
        Peer(commands.address) as modest,
    ):
        for number in range(4):
            greedy.send(command="replay", epoch="epoch-1", from_seq=200 * number + 1, id="g")
            greedy.send(command="replay", epoch="epoch-1", from_seq=1, id=str(number))
        begun = time.monotonic()
        assert len(modest.ask(command="replay", epoch="epoch-1")["verdicts"]) == 100
        assert time.monotonic() - begun < 0.5
        replies = [greedy.receive() for _ in range(3)]
        busy = [reply["code"] for reply in replies if reply["kind"] == "refused"]
        assert set(busy) <= {"busy"}


def test_one_client_has_four_replays_waiting_at_most(recorded):
    recorded.record(500)
    with (
        serving(recorded, accept_and_answer, replay_per_s=100.0) as commands,
        Peer(commands.address) as peer,
    ):
        for number in range(30):
            peer.send(command="replay", epoch="epoch-1", id=str(number))
        refused = [
            reply["id"]
            for reply in (peer.receive(200) for _ in range(30))
            if reply and reply["code"] == "busy"
        ]
        assert 24 <= len(refused) <= 26


def test_replies_that_come_all_at_once_all_arrive(recorded):
    # So it is after a pause of the journal's disk.
    requests: queue.Queue[Request] = queue.Queue()
    with serving(recorded, requests.put) as commands, Peer(commands.address) as peer:
        for number in range(1, 1001):
            peer.send(**trigger(number, id=str(number)))
        for request in [requests.get(timeout=5) for _ in range(1000)]:
            accept_and_answer(request)
        time.sleep(0.5)
        kinds: dict[str, list[str]] = {}
        for _ in range(3000):
            reply = peer.receive()
            assert reply is not None, len(kinds)
            kinds.setdefault(reply["id"], []).append(reply["kind"])
        assert commands.unsent == 0
    assert len(kinds) == 1000
    assert {tuple(found) for found in kinds.values()} == {("accepted", "acquired", "verdict")}


def test_client_that_does_not_read_costs_only_its_replies(recorded):
    recorded.record(100)
    with serving(recorded, accept_and_answer, replay_per_s=1e6) as commands:
        with Peer(commands.address, high_water=1) as deaf, Peer(commands.address) as other:
            deadline = time.monotonic() + 20
            while not commands.unsent and time.monotonic() < deadline:
                for number in range(4):
                    deaf.send(command="replay", epoch="epoch-1", id=str(number))
                begun = time.monotonic()
                assert other.ask(command="status")["kind"] == "status"
                assert time.monotonic() - begun < 1.0
            assert commands.unsent > 0
        with Peer(commands.address) as late:
            assert late.ask(command="status")["kind"] == "status"


def test_answer_to_a_client_that_has_gone_is_counted_and_forgotten(recorded):
    requests: queue.Queue[Request] = queue.Queue()
    with serving(recorded, requests.put) as commands:
        with Peer(commands.address) as peer:
            for number in range(1, 201):
                peer.send(**trigger(number, id=str(number)))
            waiting = [requests.get(timeout=5) for _ in range(200)]
        # That the client has gone is known a moment later, and each trigger is accepted once.
        while not commands.unsent and len(waiting) > 1:
            waiting.pop().accept()
            time.sleep(0.05)
        waiting[0].answer(verdict(1))
        assert commands.unsent
        with Peer(commands.address) as other:
            assert other.ask(command="status")["kind"] == "status"
    waiting[0].finish("after the end")


def test_client_with_a_thousand_open_commands_is_told_that_it_is_busy(recorded):
    requests: list[Request] = []
    with serving(recorded, requests.append) as commands, Peer(commands.address) as peer:
        for seq in range(1001):
            peer.send(**trigger(seq, id=str(seq)))
        reply = peer.receive()
        assert (reply["id"], reply["code"]) == ("1000", "busy")
        with Peer(commands.address) as other:
            other.send(**trigger(5, id="o"))
            requests[0].answer(verdict(1))
            assert [peer.receive()["id"] for _ in range(3)] == ["0", "0", "0"]
            assert other.receive(50) is None
        peer.send(**trigger(1002))
        assert peer.receive(100) is None
    assert len(requests) == 1002


@pytest.mark.parametrize("role", ["listen", "trigger", "operate", "engineer"])
def test_role_decides_what_a_peer_may_send(tmp_path, recorded, role):
    recorded.record(1)
    for name in ("station", "peer"):
        make_keys(tmp_path / "keys", name)
    keys = ClientKeys.load(tmp_path / "keys/peer.secret", tmp_path / "keys/station.public")
    security = Security.model_validate(
        {
            "secret_key": tmp_path / "keys/station.secret",
            "peers": {"plc": {"key": keys.own.public.decode(), "roles": [role]}},
        }
    )
    clients: list[str] = []

    def handle(request: Request) -> None:
        clients.append(request.client)
        request.finish()

    done = {}
    with (
        serving(recorded, handle, security=security) as commands,
        Peer(commands.address, keys) as peer,
    ):
        for fields in (
            trigger(),
            {"command": "status"},
            {"command": "recipe", "recipe": "r"},
            {"command": "reload"},
            {"command": "start"},
            {"command": "stop"},
            {"command": "reset"},
            {"command": "delivered", "epoch": "e", "seq": 1, "outcome": "failed", "at_us": 1},
            {"command": "mark", "epoch": "e", "seq": 1, "label": "good", "by": "Li"},
            {"command": "limit", "recipe": "r", "camera": "top", "limit_factor": 1},
            {"command": "acknowledge", "kind": "fail", "where": "top"},
            {"command": "replay", "epoch": "epoch-1"},
            {"command": "upload", "sha256": "0" * 64, "size": 1},
            {"command": "install", "recipe": "r", "camera": "top", "sha256": "0" * 64},
            {"command": "revert", "recipe": "r", "camera": "top"},
        ):
            reply = peer.ask(**fields)
            done[fields["command"]] = reply["code"] or reply["kind"]
    no = "forbidden"
    assert done == {
        "trigger": "done" if role == "trigger" else no,
        "status": "status",
        "recipe": "done" if role == "operate" else no,
        **dict.fromkeys(
            ("reload", "start", "stop", "reset", "mark", "limit", "acknowledge"),
            "done" if role == "operate" else no,
        ),
        "delivered": "done" if role == "trigger" else no,
        "replay": "replayed" if role == "listen" else no,
        **dict.fromkeys(("upload", "install", "revert"), "done" if role == "engineer" else no),
    }
    assert set(clients) <= {"plc"}
    # Whoever adds a command says here whose it is.
    assert done.keys() == {one.model_fields["command"].default for one in ADMITTED}
    union, _ = get_args(Command)
    assert set(get_args(union)) == ADMITTED.keys()


def test_only_an_upload_has_a_second_frame_and_a_turn_ends_with_it(recorded):
    heard: list[tuple[str, bytes]] = []

    def handle(request: Request) -> None:
        heard.append((request.command.command, request.data))
        if isinstance(request.command, wire.UploadCommand):
            request.tell_uploaded(len(request.data))
        else:
            request.finish()

    upload = {"command": "upload", "sha256": "0" * 64, "size": 100}
    with serving(recorded, handle) as commands, Peer(commands.address) as peer:
        for fields, frames, code in (
            (upload | {"id": "1"}, [b"abc"], ""),
            (upload | {"id": "2"}, [], ""),
            (upload | {"id": "3"}, [b"abc", b"d"], "malformed"),
            ({"command": "reload", "id": "4"}, [b"abc"], "malformed"),
            (upload | {"id": "5", "sha256": "../etc/passwd"}, [b"abc"], "malformed"),
            (upload | {"id": "6", "sha256": "A" * 64}, [b"abc"], "malformed"),
            (upload | {"id": "7", "size": 2**30 + 1}, [b"abc"], "malformed"),
            (upload | {"id": "8", "offset": -1}, [b"abc"], "malformed"),
        ):
            peer.socket.send_multipart([json.dumps(fields).encode(), *frames])
            reply = peer.receive()
            assert reply is not None
            assert reply["code"] == code, reply
            assert reply["id"] == fields["id"] or len(frames) == 2
        # The longest piece is within the socket's bound; beyond it a peer is cut off as ever.
        longest = bytes(wire.MOST_OF_CHUNK)
        peer.socket.send_multipart([json.dumps(upload | {"id": "9"}).encode(), longest])
        assert (peer.receive() or {})["offset"] == wire.MOST_OF_CHUNK
    assert heard == [("upload", b"abc"), ("upload", b""), ("upload", longest)]


def test_an_upload_does_not_wait_for_the_start(recorded):
    gate = Gate(Security())
    commands = Commands(CommandSocket(gate, "tcp://127.0.0.1:*"), status=recorded.status)
    commands.start()
    try:
        with Peer(commands.address) as peer:
            body = json.dumps({"command": "upload", "sha256": "0" * 64, "size": 9}).encode()
            peer.socket.send_multipart([body, b"abc"])
            assert (peer.receive() or {})["code"] == "not_ready"
    finally:
        commands.finish()
        gate.close()


def test_port_in_use_is_one_line(recorded):
    with (
        serving(recorded, accept_and_answer) as commands,
        pytest.raises(PortError, match="in use"),
        serving(recorded, accept_and_answer, commands.address),
    ):
        pass


def test_sender_that_measured_nothing_is_taken_to_have_the_stations_clock(recorded):
    ages: list[int | None] = []

    def handle(request: Request) -> None:
        ages.append(request.age_us)
        request.answer(verdict(1))

    with serving(recorded, handle) as commands, Peer(commands.address) as peer:
        now_us = time.time_ns() // 1000
        for number, fields in enumerate(({}, {"sent_us": now_us - 700_000}), 1):
            assert peer.ask(**trigger(number, **fields))["kind"] == "accepted"
            assert [peer.receive()["kind"] for _ in range(2)] == ["acquired", "verdict"]
        # From its second question on the station knows better.
        now_us = time.monotonic_ns() // 1000
        peer.ask(command="status", sent_us=now_us)
        peer.ask(command="status", sent_us=now_us + 1, answered_us=time.monotonic_ns() // 1000)
        peer.ask(**trigger(3, sent_us=time.monotonic_ns() // 1000))
    assert ages[0] is None
    assert 690_000 < ages[1] < 2_000_000
    assert abs(ages[2]) < 500_000
