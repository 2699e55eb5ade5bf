"""Who may log in: the file, the sessions, and how often somebody may try."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import pytest
import yaml
from argon2 import extract_parameters

from inspector.config.console_users import load_users
from inspector.console import users as users_module
from inspector.console.sessions import Sessions, Store, Tokens, Tries, network_of
from inspector.console.users import BusyError, Users, add_user, remove_user
from inspector.errors import ConfigError, InspectorError, SecretError
from tests import running
from tests.loops import in_a_loop

WORD = "correct horse"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of three users; hashing a password takes a moment by design."""
    path = tmp_path_factory.mktemp("users") / "users.yaml"
    for name, role in (("wall", "viewer"), ("anna", "operator"), ("张伟", "engineer")):
        assert add_user(path, name, role, WORD)
    return path.read_bytes()


@pytest.fixture
def path(made: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "users.yaml"
    path.write_bytes(made)
    path.chmod(0o600)
    return path


@pytest.fixture
def page(tmp_path: Path, path: Path) -> Path:
    page = tmp_path / "console.yaml"
    page.write_text(yaml.safe_dump({"stations": {"line-1": {}}, "users": str(path)}))
    return page


def console(monkeypatch, page: Path, *arguments: str, typed: str = "") -> tuple[int, str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return running.inside("console", page, *arguments)


def test_a_user_is_added_changed_and_removed(monkeypatch, page, path):
    path.unlink()
    add = ("--add-user", "bo", "--role", "viewer")
    code, out, err = console(monkeypatch, page, *add, typed="a long password\n")
    assert (code, err) == (0, "") and "bo may log in, as viewer" in out
    assert path.stat().st_mode & 0o777 == 0o600
    first = load_users(path)["bo"].password
    assert first.startswith("$argon2id$") and "a long password" not in path.read_text("utf-8")
    add = ("--add-user", "bo", "--role", "engineer")
    code, out, _ = console(monkeypatch, page, *add, typed="another password\n")
    assert code == 0 and "new password, as engineer" in out
    assert load_users(path)["bo"].password != first
    assert console(monkeypatch, page, "--remove-user", "bo")[0] == 0
    assert load_users(path) == {}
    code, _, err = console(monkeypatch, page, "--remove-user", "bo")
    assert code == ConfigError.exit_code and "has no user 'bo'" in err


def test_at_a_terminal_the_password_is_typed_twice(monkeypatch, page, path):
    typed = iter(["a long password", "a long passwort", "a long password", "a long password"])

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    add = ("--add-user", "bo", "--role", "viewer")
    code, _, err = running.inside("console", page, *add)
    assert code == SecretError.exit_code and "the two passwords differ" in err
    assert "bo" not in load_users(path)
    assert running.inside("console", page, *add)[0] == 0
    assert load_users(path)["bo"].role == "viewer"


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (("--add-user", "bo", "--role", "viewer"), "ninechars\n", "10 to 256 letters"),
        (("--add-user", "bo"), WORD, "add --role"),
        (("--add-user", "bo\n../x", "--role", "viewer"), WORD, "a name has letters"),
        (("--add-user", "", "--role", "viewer"), WORD, "a name has letters"),
        (("--role", "viewer"), "", "--role is of --add-user"),
    ],
)
def test_what_is_no_user_is_one_line(monkeypatch, page, path, arguments, typed, said):
    before = path.read_bytes()
    code, out, err = console(monkeypatch, page, *arguments, typed=typed)
    assert code in {ConfigError.exit_code, SecretError.exit_code} and out == ""
    assert err.count("\n") == 1 and said in err
    assert path.read_bytes() == before


def test_without_a_file_of_users_the_cure_is_named(monkeypatch, tmp_path):
    page = tmp_path / "console.yaml"
    page.write_text("stations: {line-1: {}}\n")
    code, _, err = console(monkeypatch, page, "--add-user", "bo", "--role", "viewer", typed=WORD)
    assert code == ConfigError.exit_code and "add a line such as 'users: " in err


@pytest.mark.parametrize(
    "text",
    [
        "users: {bo: hunter2-secret}",
        "users: {bo: {role: viewer, password: hunter2-secret}}",
        "users: {bo: {role: viewer, password: [hunter2-secret]}}",
        "users: {bo: {role: viewer, passwort: hunter2-secret}}",
    ],
)
def test_a_password_that_stands_in_the_file_is_not_shown(path, text):
    path.write_text(text)
    with pytest.raises(InspectorError) as refusal:
        load_users(path)
    assert "users.bo" in str(refusal.value) and "hunter2" not in str(refusal.value)


def test_a_file_that_others_may_read_is_refused(path):
    path.chmod(0o640)
    with pytest.raises(SecretError, match="chmod 600"):
        load_users(path)


def test_more_users_than_a_key_file_is_long(path):
    one = yaml.safe_load(path.read_text("utf-8"))["users"]["anna"]
    many = {f"user-{number}": dict(one) for number in range(200)}
    path.write_text(yaml.safe_dump({"users": many}))
    assert len(load_users(path)) == 200


def test_passwords_are_checked_and_unknown_names_take_as_much_work(path, monkeypatch):
    users = Users(path)
    tried: list[str] = []
    is_right = users_module._is_right

    def watched(hashed: str, password: str) -> bool:
        tried.append(hashed)
        return is_right(hashed, password)

    monkeypatch.setattr(users_module, "_is_right", watched)

    async def whole() -> None:
        found = await users.check("张伟", WORD)
        assert found is not None and found.role == "engineer"
        for word in ("", "correct hors", WORD + " ", "\ud800" * 10):
            assert await users.check("anna", word) is None
        tried.clear()
        for name in ("anna", "bob"):
            assert await users.check(name, "wrong") is None
        known, unknown = map(extract_parameters, tried)
        assert known == unknown
        asked = [asyncio.ensure_future(users.check("anna", "wrong")) for _ in range(12)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, BusyError) for one in told) == 4

    try:
        in_a_loop(whole())
    finally:
        users.close()


def test_a_password_is_the_same_however_its_letters_are_composed(tmp_path):
    path = tmp_path / "users.yaml"
    add_user(path, "bo", "viewer", "gr\u00fcne Teile")
    users = Users(path)
    try:
        assert in_a_loop(users.check("bo", "gru\u0308ne Teile")) is not None
    finally:
        users.close()


def test_a_changed_file_is_taken_over_and_a_damaged_one_is_not(path, caplog):
    caplog.set_level("INFO", "inspector")
    users = Users(path)
    try:
        remove_user(path, "anna")
        users.refresh()
        assert users.find("anna") is None and users.find("wall") is not None
        path.write_text("users: {wall")
        users.refresh()
        users.refresh()
        assert users.find("wall") is not None
        assert sum("those known so far stay" in one.getMessage() for one in caplog.records) == 1
        path.unlink()
        users.refresh()
        assert users.find("wall") is not None
    finally:
        users.close()


def sessions_of(path: Path, clock: Clock, store: Store | None = None) -> tuple[Users, Sessions]:
    users = Users(path)
    users.close()
    made = Sessions(users, store or Store(None), hours=12, idle_minutes=60, clock=clock)
    return users, made


@pytest.mark.parametrize(("name", "idle_s"), [("anna", 3601), ("wall", None)])
def test_a_session_ends_by_age_and_by_idleness(path, name, idle_s):
    clock = Clock()
    users, sessions = sessions_of(path, clock)
    cookie = sessions.cookie(sessions.begin(name, users.find(name)))
    begun_s = clock.now_s
    clock.now_s += 3599
    assert sessions.find(cookie) is not None
    clock.now_s = begun_s + 3601
    assert (sessions.find(cookie) is None) == (idle_s is not None)
    # Used all the time it ends all the same.
    clock.now_s = begun_s
    while clock.now_s < begun_s + 12 * 3600:
        found = sessions.find(cookie)
        assert found is not None
        cookie = sessions.use(found[0]) or cookie
        clock.now_s += 1800
    clock.now_s += 60
    assert sessions.find(cookie) is None


def test_a_session_ends_with_its_user_and_with_their_password(path):
    users, sessions = sessions_of(path, Clock())
    cookies = {
        name: sessions.cookie(sessions.begin(name, users.find(name))) for name in ("anna", "wall")
    }
    remove_user(path, "anna")
    users.refresh()
    assert sessions.find(cookies["anna"]) is None
    add_user(path, "wall", "viewer", "another password")
    users.refresh()
    assert sessions.find(cookies["wall"]) is None


def test_a_cookie_that_was_changed_or_made_elsewhere_is_none(path):
    users, sessions = sessions_of(path, Clock())
    cookie = sessions.cookie(sessions.begin("anna", users.find("anna")))
    assert sessions.find(cookie) is not None
    _, others = sessions_of(path, Clock())
    strange = others.cookie(others.begin("张伟", users.find("张伟")))
    for wrong in ("", ".", cookie[:-1], cookie[::-1], "x" + cookie, strange, "WyJhIl0.AAAA"):
        assert sessions.find(wrong) is None


def test_sessions_and_log_outs_outlive_a_restart(path, tmp_path):
    clock, state = Clock(), tmp_path / "state"
    users, sessions = sessions_of(path, clock, Store(state))
    kept, left = (sessions.begin(name, users.find(name)) for name in ("anna", "wall"))
    sessions.end(left)
    sessions.remember()
    assert (state / "sessions.json").stat().st_mode & 0o777 == 0o600
    _, after = sessions_of(path, clock, Store(state))
    assert after.find(sessions.cookie(kept)) is not None
    assert after.find(sessions.cookie(left)) is None


@pytest.mark.parametrize(
    "told",
    [
        "{}",
        "[" * 100_000,
        '{"secret": "", "ended": {}}',
        '{"secret": "0", "ended": {}}',
        '{"secret": 5, "ended": {}}',
        '{"secret": null, "ended": {}}',
        f'{{"secret": "{"0" * 64}", "ended": {{"a": {"1" * 400}}}}}',
    ],
)
def test_a_file_of_sessions_that_is_no_such_file_is_refused(tmp_path, told):
    """Whoever knew the secret could make cookies: no page goes on with one that can be guessed."""
    Store(tmp_path)
    (tmp_path / "sessions.json").write_text(told)
    with pytest.raises(SecretError, match="is damaged; remove it"):
        Store(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_a_folder_in_which_others_may_put_a_secret_is_refused_at_once(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    for _ in range(2):
        with pytest.raises(SecretError, match="chmod go-w"):
            Store(state)


@pytest.mark.long
def test_a_month_of_log_outs_keeps_nobody_from_starting_again(tmp_path):
    store = Store(tmp_path)
    store.ended = {f"{number:032x}": 1.8e9 + number / 7 for number in range(216_000)}
    store.write()
    assert len(Store(tmp_path).ended) == 216_000


def test_a_password_that_is_no_text_is_one_line(monkeypatch, page, path):
    before = path.read_bytes()
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe long enough\n"), "utf-8")
    )
    code, out, err = running.inside("console", page, "--add-user", "bo", "--role", "viewer")
    assert (code, out, err.count("\n")) == (SecretError.exit_code, "", 1)
    assert "no UTF-8 text" in err and path.read_bytes() == before


def test_a_hash_that_would_take_the_machine_is_refused(tmp_path):
    path = tmp_path / "users.yaml"
    tail = "$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43
    for cost in ("m=9999999,t=2,p=1", "m=19456,t=99,p=1", "m=19456,t=2,p=99"):
        text = f"users: {{eve: {{role: engineer, password: '$argon2id$v=19${cost}{tail}'}}}}\n"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(InspectorError, match="no argon2id hash"):
            load_users(path)


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_a_secret_that_others_may_read_is_refused(tmp_path):
    Store(tmp_path)
    (tmp_path / "sessions.json").chmod(0o644)
    with pytest.raises(SecretError, match="chmod 600"):
        Store(tmp_path)


def test_a_token_is_of_its_session_alone():
    tokens, others = Tokens("secret"), Tokens("another")
    assert tokens.fits(tokens.of("a"), "a") and tokens.fits(tokens.of(""), "")
    for wrong in ("", tokens.of("b"), others.of("a"), tokens.of("a")[:-1], "é"):
        assert not tokens.fits(wrong, "a")


def test_tries_come_back_one_by_one():
    clock = Clock()
    tries = Tries(3, 10.0, clock)
    assert [tries.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 10.0]
    assert tries.take("b") == 0.0
    clock.now_s += 9
    assert tries.take("a") == pytest.approx(1.0)
    clock.now_s += 1
    assert tries.take("a") == 0.0 and tries.take("a") == 10.0
    clock.now_s += 1000
    assert [tries.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 10.0]
    for number in range(30_000):
        tries.take(f"name {number}")
    assert len(tries._full_s) == 10_000


def test_a_machine_with_many_addresses_is_one():
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:3::1") != network_of("2001:db8:1:2::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth0")
