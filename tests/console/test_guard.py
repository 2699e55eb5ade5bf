"""What the page refuses: other sites, other hosts, strangers, and too much of anything."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import yaml

from inspector.client import Gap, Subscriber
from inspector.console.users import add_user
from inspector.errors import ConfigError, SecretError
from inspector.wire.messages import VerdictMessage
from tests import running
from tests.console.serving import Served, serving, wait_for

WORD = "correct horse"
NOWHERE = {"line-1": {}}
"""A station that is not there: what the guard refuses never comes so far."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with users, and no station."""
    folder = tmp_path_factory.mktemp("guarded")
    for name, role in (("wall", "viewer"), ("anna", "operator"), ("eve", "engineer")):
        add_user(folder / "users.yaml", name, role, WORD)
    keys = {"users": str(folder / "users.yaml"), "state": str(folder / "state")}
    with serving(folder, NOWHERE, **keys) as made:
        made.folder = folder
        yield made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page without users, and no station."""
    with serving(tmp_path_factory.mktemp("alone"), NOWHERE, connections=50) as made:
        yield made


@contextlib.contextmanager
def visitor(page: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=page.url, timeout=20) as client:
        yield client


def log_in(client: httpx.Client, name: str, password: str = WORD) -> httpx.Response:
    answer = client.post("/api/log-in", json={"name": name, "password": password})
    if answer.status_code == 200:
        client.headers["X-CSRF-Token"] = client.get("/api/session").json()["csrf"]
    return answer


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_stranger_sees_the_frame_and_nothing_else(guarded):
    with visitor(guarded) as client:
        for path in ("/", "/static/main.js", "/api/texts/en"):
            assert client.get(path).status_code == 200
        for path in ("/api/session", "/api/events", "/api/stations/line-1/history"):
            assert refused(client.get(path)) == (401, "who")
        deed = client.post("/api/stations/line-1/deeds/stop", json={})
        assert refused(deed) == (401, "who")
        assert refused(client.post("/api/log-out")) == (401, "who")


def test_logging_in_and_out(guarded):
    with visitor(guarded) as client:
        answer = log_in(client, "eve")
        assert answer.json() == {"name": "eve", "role": "engineer"}
        cookie = answer.headers["set-cookie"]
        assert re.match(r"inspector-\d+=\S+; Path=/; HttpOnly; SameSite=Strict$", cookie)
        session = client.get("/api/session").json()
        assert (session["name"], session["role"], session["log_in"]) == ("eve", "engineer", True)
        stolen = dict(client.cookies)
        assert client.post("/api/log-out").status_code == 200
        assert refused(client.get("/api/session")) == (401, "who")
    # Whoever has the cookie still has nothing by it.
    with httpx.Client(base_url=guarded.url, cookies=stolen) as thief:
        assert refused(thief.get("/api/session")) == (401, "who")
    log = guarded.log
    assert "log-in name=eve role=engineer address=127.0.0.1" in log and "log-out name=eve" in log
    assert WORD not in log and cookie.split("=")[1][:20] not in log


def test_a_role_may_do_what_it_may_and_no_more(guarded):
    with visitor(guarded) as client:
        log_in(client, "wall")
        deed = client.post("/api/stations/line-1/deeds/mark", json={})
        assert refused(deed) == (403, "role")
        log_in(client, "anna")
        deed = client.post("/api/stations/line-1/deeds/limit", json={})
        assert refused(deed) == (403, "role")
        # It goes on to the deed itself, which lacks what it needs.
        deed = client.post("/api/stations/line-1/deeds/mark", json={})
        assert refused(deed) == (400, "malformed")


def test_a_deed_needs_the_token_of_its_own_session(guarded):
    path = "/api/stations/line-1/deeds/mark"
    with visitor(guarded) as anna, visitor(guarded) as wall:
        log_in(anna, "anna")
        log_in(wall, "wall")
        for token in ("", "x", wall.headers["X-CSRF-Token"]):
            assert refused(anna.post(path, headers={"X-CSRF-Token": token}))[1] == "csrf"
        assert refused(anna.post(path))[1] == "malformed"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_another_sites_page_does_nothing_here(alone, guarded, headers):
    for page in (alone, guarded):
        with visitor(page) as client:
            if page is guarded:
                # With the right password, too: nobody is logged in without knowing it.
                answer = client.post(
                    "/api/log-in", json={"name": "wall", "password": WORD}, headers=headers
                )
                assert refused(answer) == (403, "cross_site") and "set-cookie" not in answer.headers
            else:
                token = client.get("/api/session").json()["csrf"]
                told = {"X-CSRF-Token": token, **headers}
                answer = client.post("/api/stations/line-1/deeds/stop", json={}, headers=told)
                assert refused(answer) == (403, "cross_site")
            quiet = client.get("/api/session", headers={"Sec-Fetch-Site": "cross-site"})
            assert refused(quiet) == (403, "cross_site")
    leads = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert alone.client.get("/", headers=leads).status_code == 200


def test_a_form_of_another_site_does_nothing_here(alone):
    """What a page elsewhere can send without asking first: no header of its own."""
    answer = httpx.post(
        alone.url + "api/stations/line-1/deeds/stop", content="{}", headers={"Origin": "null"}
    )
    assert refused(answer)[1] == "cross_site"
    answer = httpx.post(alone.url + "api/stations/line-1/deeds/stop", data={"a": "b"})
    assert refused(answer)[1] == "csrf"


def test_a_name_that_is_turned_towards_this_address_is_no_name_of_the_page(alone):
    strange = ("127.0.0.1:80@evil.example", "127.0.0.1:80/evil", "[::1]evil.example", "localhost:x")
    for host in (
        *strange,
        "evil.example",
        "evil.example:80",
        "",
        "127.0.0.1.evil.example",
        "[::2]",
    ):
        for path in ("/", "/api/session", "/api/events", "/static/main.js"):
            answer = alone.client.get(path, headers={"Host": host})
            assert answer.status_code == 421
    # Somebody who typed that address reads what to do.
    answer = alone.client.get("/", headers={"Host": "line.plant.example"})
    assert "names them under hosts" in answer.text and "配置文件" in answer.text
    for host in ("localhost:1", "127.0.0.1", "LOCALHOST", "[::1]:8080"):
        assert alone.client.get("/api/session", headers={"Host": host}).status_code == 200


def test_every_answer_has_the_headers_that_keep_a_browser_safe(alone, guarded):
    answers = [
        alone.client.get("/"),
        alone.client.get("/api/none"),
        alone.client.get("/", headers={"Host": "evil.example"}),
        guarded.client.get("/api/session"),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    assert guarded.client.get("/api/session").headers["cache-control"] == "no-store"


def test_who_guesses_waits_and_others_do_not(guarded):
    with visitor(guarded) as client:
        answers = [log_in(client, "eve", f"wrong {number} password") for number in range(7)]
        codes = [refused(one)[1] for one in answers]
        assert codes[0] == "password" and codes[-1] == "too_often"
        assert set(codes) == {"password", "too_often"}
        assert re.fullmatch(r"\d+ s", answers[-1].json()["detail"])
        # Not even with the right one, or the answer would say that it is.
        assert refused(log_in(client, "eve"))[1] == "too_often"
        assert log_in(client, "anna").status_code == 200
        unknown = log_in(client, "my secret word", "x")
        assert refused(unknown) == (403, "password")
    assert "my secret word" not in guarded.log and "wrong 0" not in guarded.log


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"name": 1}', b'{"name": "a", "password": []}', b"\xff" * 99]
)
def test_what_is_no_log_in_is_refused_in_words(guarded, content):
    with visitor(guarded) as client:
        assert refused(client.post("/api/log-in", content=content)) == (400, "malformed")


@pytest.mark.long
def test_a_removed_users_session_and_stream_end(guarded, tmp_path):
    users = guarded.folder / "users.yaml"
    add_user(users, "bo", "viewer", WORD)
    wait_for(lambda: "users known=4" in guarded.log)
    with visitor(guarded) as client:
        assert log_in(client, "bo").status_code == 200
        with client.stream("GET", "/api/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 1000"
            code, _, err = running.inside(
                "console", guarded.folder / "console.yaml", "--remove-user", "bo"
            )
            assert (code, err) == (0, "")
            wait_for(lambda: client.get("/api/session").status_code == 401)
            for _ in lines:
                pass  # The stream ends with its next beat.
    assert "users known=3" in guarded.log


def test_pages_of_one_user_are_bounded(alone):
    with contextlib.ExitStack() as leave:
        opened = []
        for _ in range(16):
            stream = alone.client.stream("GET", "/api/events")
            # An iterator that is dropped closes its stream.
            opened.append(leave.enter_context(stream).iter_lines())
            assert next(opened[-1]) == "retry: 1000"
        assert refused(alone.client.get("/api/events")) == (429, "too_many_pages")
    wait_for(lambda: stream_opens(alone))


def stream_opens(page: Served) -> bool:
    with page.client.stream("GET", "/api/events") as stream:
        return stream.status_code == 200


def post(page: Served, path: str, token: str, headers: str = "") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", int(page.url.rsplit(":", 1)[1].strip("/"))), 10)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-CSRF-Token: {token}\r\n{headers}\r\n"
    made.sendall(head.encode())
    return made


def test_a_gigabyte_is_refused_before_it_is_sent(alone):
    token = alone.client.headers["X-CSRF-Token"]
    for length in ("Content-Length: 1000000000", "Transfer-Encoding: chunked"):
        sent = 0
        with post(alone, "/api/stations/line-1/deeds/mark", token, f"{length}\r\n") as peer:
            piece = b"x" * 65536
            piece = b"10000\r\n" + piece + b"\r\n" if length.startswith("T") else piece
            begun = time.monotonic()
            with contextlib.suppress(ConnectionError, TimeoutError):
                while sent < 1_000_000_000:
                    peer.sendall(piece)
                    sent += len(piece)
            assert sent < 100_000_000 and time.monotonic() - begun < 15
            with contextlib.suppress(ConnectionError):
                assert b" 413 " in peer.recv(65536).split(b"\r\n")[0]
    assert alone.client.get("/api/session").status_code == 200


def test_a_browser_that_sends_too_much_still_reads_the_answer(alone):
    answer = alone.client.post("/api/stations/line-1/deeds/mark", content=b"x" * 1_500_000)
    assert refused(answer) == (413, "too_long")
    answer = alone.client.post("/api/stations/line-1/deeds/mark", content=b"[" * 1_000_000)
    assert refused(answer) == (400, "malformed")


def test_a_stranger_may_send_next_to_nothing(guarded):
    with visitor(guarded) as client:
        answer = client.post("/api/log-in", content=b"x" * 5000)
        assert refused(answer) == (413, "too_long")
        answer = client.post("/api/stations/line-1/deeds/mark", content=b"x" * 500_000)
        assert refused(answer) == (401, "who")


@pytest.mark.parametrize(
    ("keys", "code", "said"),
    [
        ({"listen": "0.0.0.0:8443"}, ConfigError, "tls: missing; beyond loopback"),
        (
            {"listen": "10.0.0.1:8443", "tls": {"certificate": "a", "key": "b"}},
            ConfigError,
            "users: missing; beyond loopback",
        ),
        (
            {
                "listen": "0.0.0.0:8443",
                "tls": {"certificate": "a", "key": "b"},
                "users": "users.yaml",
            },
            ConfigError,
            "hosts: missing",
        ),
        ({"hosts": ["a/b"]}, ConfigError, "hosts"),
        ({"stations": {"a": {"queries": "bogus"}}}, ConfigError, "queries: must be tcp://HOST"),
        ({"stations": {"a": {"images": "tcp://h:99999"}}}, ConfigError, "images: must be tcp"),
        ({"stations": {"a": {"verdicts": "tcp://*:5555"}}}, ConfigError, "verdicts: must be tcp"),
        ({"stations": {"a": {"commands": "tcp://h:0"}}}, ConfigError, "commands: must be tcp"),
        ({"users": "none.yaml"}, SecretError, "--add-user NAME"),
        ({"tls": {"certificate": "none.pem", "key": "none.key"}}, SecretError, "none.key: no such"),
    ],
)
def test_a_page_that_would_not_be_safe_does_not_start(tmp_path, keys, code, said):
    path = tmp_path / "console.yaml"
    path.write_text(yaml.safe_dump({"stations": NOWHERE} | keys))
    # What is missing stands beside the file, and not where the tests run.
    found, out, err = running.inside("console", path)
    assert (found, out, err.count("\n")) == (code.exit_code, "", 1), err
    assert said in err


@pytest.fixture(scope="module")
def line(tiny_line: running.Running) -> running.Running:
    return tiny_line


@pytest.mark.long
def test_verdicts_go_on_whatever_browsers_do(line, served):
    """A thousand connections, floods of requests, a huge body and a stream that nobody reads."""
    port = int(served.url.rsplit(":", 1)[1].strip("/"))
    token = served.client.headers["X-CSRF-Token"]
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, httpx.HTTPError):
                httpx.get(served.url + "api/session", timeout=1)

    def unread() -> None:
        with contextlib.suppress(OSError), post(served, "/", token) as peer:
            peer.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            over.wait()

    threads = [threading.Thread(target=one) for one in (flood, flood, unread)]
    with Subscriber(line.verdicts, line.images) as subscriber, contextlib.ExitStack() as leave:
        wait_for(lambda: isinstance(subscriber.receive(1000), VerdictMessage))
        for thread in threads:
            thread.start()
        try:
            for _ in range(1000):
                peer = socket.socket()
                leave.callback(peer.close)
                peer.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    peer.connect(("127.0.0.1", port))
            heard, until_s = list[VerdictMessage](), time.monotonic() + 4
            while time.monotonic() < until_s:
                item = subscriber.receive(200)
                assert not isinstance(item, Gap)
                if isinstance(item, VerdictMessage):
                    heard.append(item)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert [one.seq for one in heard] == list(range(heard[0].seq, heard[0].seq + len(heard)))
    assert len(heard) >= 20, "the camera gives twenty parts a second"
    assert all(one.verdict != "FAULT" for one in heard), [one.reason for one in heard]
    # The page itself is there again, too.
    wait_for(lambda: served.client.get("/api/session").status_code == 200)
    lines = served.log.count("\n")
    assert lines < 100, "strangers fill no disk"


@pytest.mark.long
def test_the_log_of_a_page_has_few_lines_however_often_it_is_asked(alone):
    before = alone.log.count("\n")
    for number in range(60):
        alone.client.get("/", headers={"Host": f"evil-{number}.example"})
    assert alone.log.count("\n") - before <= 21


def test_whoever_leaves_or_asks_for_another_protocol_is_no_mistake_of_the_page(alone):
    token = alone.client.headers["X-CSRF-Token"]
    with post(alone, "/api/stations/line-1/deeds/mark", token, "Content-Length: 20\r\n") as peer:
        peer.sendall(b"{")
        time.sleep(0.2)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert alone.client.get("/api/session", headers=upgrade).status_code == 200
    with post(alone, "/", token) as peer:
        peer.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
        told = b""
        while piece := peer.recv(4096):
            told += piece
        assert b"HTTP/1.1 400 " in told and b"malformed" in told
    wait_for(lambda: alone.client.get("/api/session").status_code == 200)
    time.sleep(0.2)
    assert "Traceback" not in alone.log and "pip install" not in alone.log, alone.log
