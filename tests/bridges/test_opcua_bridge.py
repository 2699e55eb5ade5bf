"""Station, OPC UA bridge and clients of asyncua, over real sockets."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import ErrorCode
from inspector.bridges.opcua_security import (
    Pki,
    Users,
    application_uri,
    make_password,
    make_pki,
)
from inspector.logs import Refusals
from tests import running
from tests.bridges.opcua_line import Caller, Opcua, connected
from tests.loops import in_a_loop

AUTOMATIC = ("VisionStateMachine", "AutomaticModeStateMachine")
RECIPES, RESULTS = ("RecipeManagement",), ("ResultManagement",)


@pytest.fixture
def opcua(line, tmp_path):
    return Opcua(line, tmp_path, line._stack)


def content(result: Any) -> list[Any]:
    return [one.Value for one in result.ResultContent]


@pytest.mark.peers
def test_a_line_with_jobs_recipes_results_and_deaths(opcua, line):
    line.start_station()
    child = opcua.start()

    async def parts(client: Caller) -> None:
        await client.until("Ready")
        heard = await client.listen(mv.RESULT_READY)
        acquired = await client.listen(mv.ACQUISITION_DONE)
        ids = set()
        for verdict, state in ((1, 1), (2, 1)):
            # The same part twice is two measurements.
            meas = await client.accepted(part="part-7", recipe="r", parameters=["lot=L1"])
            event = await heard.next()
            assert (event.PartId.Id, event.MeasId.Id, event.JobId.Id) == ("part-7", meas, meas)
            assert (event.ResultState, event.InternalRecipeId.Id) == (state, "r")
            told, reason, score, words, regions, live = content(event)
            assert (told, live, reason > 0, bool(words)) == (verdict, True, *[verdict == 2] * 2)
            assert (score >= 1.0, len(regions) >= 5) == (verdict == 2, verdict == 2)
            assert (await acquired.next()).JobId.Id == meas
            ids.add((event.MeasId.Id, event.ResultId.Id))
        assert len({meas for meas, _ in ids}) == len({result for _, result in ids}) == 2

        # A client's own id carries session and number, and is measured once.
        assert await client.start("shift-1:41") == ("shift-1:41", 0)
        assert (await heard.next()).MeasId.Id == "shift-1:41"
        for answer, arguments in (
            (ErrorCode.MEAS_ID_USED, {"meas": "shift-1:41"}),
            (ErrorCode.RECIPE_MISMATCH, {"recipe": "other"}),
            (ErrorCode.PART_ID, {"part": "x" * 65}),
            (ErrorCode.PART_ID, {"part": "a\nb"}),
            (ErrorCode.ARGUMENT, {"parameters": ["speed=9"]}),
        ):
            assert await client.start(**arguments) == ("", -int(answer)), arguments
        assert heard.events.empty()

        # Results of the past, which permit nothing.
        (_, newest, error) = await client.call(RESULTS, "GetResultById", event.ResultId, 0)
        assert error == 0 and newest.MeasId.Id == event.MeasId.Id
        assert content(newest)[:4] == content(event)[:4] and content(newest)[5] is False
        found = await client.call(
            RESULTS,
            "GetResultListFiltered",
            *(0, None, client.new("PartIdDataType", Id="part-7"), *[None] * 6, 1, 1, 0),
        )
        assert (found[0], found[1], found[3][0].MeasId.Id) == (True, 1, min(ids)[0])
        unknown = client.new("ResultIdDataType", Id="nobody:1")
        assert (await client.call(RESULTS, "GetResultById", unknown, 0))[-1] == -int(
            ErrorCode.RESULT_UNKNOWN
        )
        components = await client.call(RESULTS, "GetResultComponentsById", event.ResultId, 0)
        assert components[5].Id == event.MeasId.Id and components[-1] == 0

        # Recipes.
        listed = await client.call(RECIPES, "GetRecipeListFiltered", None, None, 1, 0, 0, 0)
        assert [one.Id for one in listed[3]] == ["r"]
        nothing = client.new("RecipeIdExternalDataType", Id="nothing")
        assert (await client.call(RECIPES, "PrepareRecipe", nothing, None))[-1] == -int(
            ErrorCode.RECIPE_UNKNOWN
        )
        recipe = client.new("RecipeIdExternalDataType", Id="r")
        assert (await client.call(RECIPES, "UnprepareRecipe", recipe, None))[-1] == 0
        await client.until("Initialized")
        assert (await client.start())[1] == -int(ErrorCode.TRIGGER_NOT_READY)
        assert (await client.call(RECIPES, "PrepareRecipe", recipe, None))[-1] == 0
        await client.until("Ready")
        assert (await client.call(AUTOMATIC, "Stop", 0, ""))[-1] == 0
        await client.until("Initialized")
        started = await client.call(AUTOMATIC, "StartContinuous", *[None] * 5)
        assert started[-1] == 0
        await client.until("Ready")

        # The cable to the station is cut with a job under way: it ends, as a FAULT.
        line.relay.cut()
        cut, error = await client.start()
        if not error:
            event = await heard.next()
            assert (event.MeasId.Id, event.ResultState, content(event)[0]) == (cut, 4, 3)
        await client.until(None, timeout_s=2)
        assert (await client.start())[1] == -int(ErrorCode.TRIGGER_NOT_READY)
        line.relay.mend()
        await client.until("Ready")

        # The station dies and starts again: what was judged before is a record.
        line.station.child.kill()
        await client.until(None, timeout_s=2)
        line.station.child.wait()
        await asyncio.to_thread(line.start_station)
        await client.until("Ready")
        old = client.new("ResultIdDataType", Id=min(ids)[1])
        assert content((await client.call(RESULTS, "GetResultById", old, 0))[1])[5] is False
        assert heard.events.empty()
        await client.accepted(part="after")
        event = await heard.next()
        assert event.PartId.Id == "after"

    async def whole() -> None:
        async with connected(opcua.url) as client:
            await parts(client)

    in_a_loop(whole())
    child.terminate()
    assert child.wait(20) == 0
    assert "Traceback" not in opcua.said() and "crash" not in opcua.said(), opcua.said()


def expire(pki: Path) -> None:
    """Give the same application a certificate that is of no more use."""
    old = x509.load_der_x509_certificate((pki / "own.der").read_bytes())
    key = serialization.load_pem_private_key((pki / "own.pem").read_bytes(), None)
    then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=2)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(then)
        .not_valid_after(then + datetime.timedelta(days=1))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    made = builder.sign(key, hashes.SHA256())
    (pki / "own.der").write_bytes(made.public_bytes(serialization.Encoding.DER))


def uri_of(pki: Path) -> str:
    return application_uri(x509.load_der_x509_certificate((pki / "own.der").read_bytes()))


@pytest.mark.peers
def test_who_may_connect(opcua, tmp_path):
    server, clients = tmp_path / "pki", {}
    make_pki(server, "bridge", ["127.0.0.1"])
    for name in ("good", "expired", "stranger"):
        clients[name] = tmp_path / name
        make_pki(clients[name], name, ["127.0.0.1"])
    expire(clients["expired"])
    for name in ("good", "expired"):
        shutil.copy(clients[name] / "own.der", server / "trusted" / f"{name}.der")
    users = {}
    for name, roles in (("plc", ["read", "trigger"]), ("viewer", ["read"])):
        make_password(tmp_path / f"{name}.password")
        users[name] = {"password_file": str(tmp_path / f"{name}.password"), "roles": roles}
    words = {
        name: (tmp_path / f"{name}.password").read_text().removeprefix("password: ").strip()
        for name in users
    }
    child = opcua.start(pki=str(server), users=users)

    def secured(who: str, user: str = "plc", password: str = "", **options: Any) -> Any:
        pki = clients[who]
        return connected(
            opcua.url,
            **{
                "policy": "Basic256Sha256",
                "pki": pki,
                "server": server / "own.der",
                "user": user,
                "password": password or words[user],
                "uri": uri_of(pki),
                **options,
            },
        )

    async def refused(context: Any, said: str) -> None:
        with pytest.raises((ua.UaError, ConnectionError, asyncio.TimeoutError)):
            async with context:
                pass
        # The log's line may come after the client was told.
        until = time.monotonic() + 10
        while said not in opcua.said() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert opcua.said().count(said) == 1, (said, opcua.said())

    async def whole() -> None:
        for policy in ("Basic256Sha256", "Aes256Sha256RsaPss"):
            async with secured("good", policy=policy) as client:
                assert await client.state() is None
                # No station: the call is understood, and answered with an error.
                assert (await client.start())[1] == -int(ErrorCode.TRIGGER_NOT_READY)
                with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                    await client.call(AUTOMATIC, "Stop", 0, "")
        async with secured("good", user="viewer") as client:
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                await client.start()
            assert (await client.call(RECIPES, "GetRecipeListFiltered", None, None, 2, 0, 0, 0))[1]
            # Nobody writes a variable, makes a node, or registers a server.
            state = client.at(*AUTOMATIC, "CurrentState")
            with pytest.raises(ua.UaStatusCodeError):
                await state.write_value(ua.LocalizedText("Ready"))
            with pytest.raises(ua.UaStatusCodeError):
                await client.at().add_folder(1, "mine")
        await refused(secured("stranger"), "certificate is not trusted")
        await refused(secured("expired"), "certificate expired on")
        await refused(secured("good", uri="urn:somebody:else"), "is another application's")
        await refused(secured("good", password="wrong-password"), "wrong password")
        await refused(secured("good", user="admin", password="admin-admin-admin"), "peer=admin")
        # Without security, with a password in clear text or none, there is one line for both.
        insecure = "asked for a session without certificate and encryption"
        await refused(connected(opcua.url), insecure)
        await refused(connected(opcua.url, user="plc", password=words["plc"]), insecure)
        nameless = secured("good", user="", password=" ")
        await refused(nameless, "logs in otherwise than by user and password")
        # Another one's certificate, without the key that belongs to it.
        stolen = tmp_path / "stolen"
        shutil.copytree(clients["good"], stolen)
        shutil.copy(clients["stranger"] / "own.pem", stolen / "own.pem")
        clients["stolen"] = stolen
        await refused(secured("stolen"), "signs with another key than that of its certificate")
        for said in ("Stop needs the role operate", "StartSingleJob needs the role trigger"):
            assert opcua.said().count(said) == 1
        # A person moves the stranger's certificate, and it is let in at once.
        (rejected,) = (server / "rejected").iterdir()
        rejected.rename(server / "trusted" / rejected.name)
        async with secured("stranger") as client:
            assert await client.state() is None

    in_a_loop(whole())
    assert child.poll() is None
    assert "Traceback" not in opcua.said()
    assert all(word not in opcua.said() for word in words.values())


def test_a_session_is_judged_by_the_certificate_of_its_channel(tmp_path):
    """A client may leave its certificate out of the request for a session."""
    for name in ("pki", "good", "stranger"):
        make_pki(tmp_path / name, name, ["127.0.0.1"])
    shutil.copy(tmp_path / "good" / "own.der", tmp_path / "pki" / "trusted" / "good.der")
    refusals = Refusals("opcua")
    known = {"plc": ("a-long-password", frozenset({"read"}))}
    users = Users(known, Pki(tmp_path / "pki", refusals), refusals)
    good, stranger = ((tmp_path / name / "own.der").read_bytes() for name in ("good", "stranger"))
    member = users.get_user(None, "plc", "a-long-password", good)
    assert member is not None and member.roles == {"read"}
    for certificate in (None, stranger, b"junk"):
        with pytest.raises(ServiceError):
            users.get_user(None, "plc", "a-long-password", certificate)
    for name, word in ((None, None), ("", ""), ("plc", ""), ("nobody", "")):
        assert users.get_user(None, name, word, good) is None


def test_a_flood_of_certificates_fills_no_folder(tmp_path):
    make_pki(tmp_path / "pki", "bridge", ["127.0.0.1"])
    make_pki(tmp_path / "stranger", "stranger", ["127.0.0.1"])
    rejected = tmp_path / "pki" / "rejected"
    for number in range(100):
        (rejected / f"{number}.der").write_bytes(b"")
    pki = Pki(tmp_path / "pki", Refusals("opcua"))
    with pytest.raises(ServiceError):
        pki.admit((tmp_path / "stranger" / "own.der").read_bytes())
    assert len(list(rejected.iterdir())) == 100


@pytest.mark.long
def test_a_certificate_of_the_bridge_that_clients_would_refuse_is_one_line(tmp_path):
    make_pki(tmp_path / "pki", "bridge", ["10.9.8.7"])
    make_password(tmp_path / "plc.password")
    file = tmp_path / "b.yaml"
    file.write_text(
        f"bridge: opcua\ncameras: [top]\nlisten: 127.0.0.1:0\npki: {tmp_path / 'pki'}\n"
        f"users: {{plc: {{password_file: {tmp_path / 'plc.password'}, roles: [read]}}}}\n"
    )
    code, out, err = running.inside("bridge", "opcua", file)
    assert (code, out, err.count("\n")) == (17, "", 1) and "is for 10.9.8.7" in err
    assert "own.der: is for 10.9.8.7" in running.inside("check", file)[1]
    shutil.rmtree(tmp_path / "pki")
    make_pki(tmp_path / "pki", "bridge", ["127.0.0.1"])
    expire(tmp_path / "pki")
    code, _, err = running.inside("bridge", "opcua", file)
    assert (code, err.count("\n")) == (17, 1) and "expired on" in err
    (tmp_path / "plc.password").chmod(0o644)
    code, _, err = running.inside("bridge", "opcua", file)
    assert (code, err.count("\n")) == (17, 1) and "a secret that others may read" in err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("listen: 0.0.0.0:4840", "pki: missing"),
        ("users: {a: {password_file: a, roles: [read]}}", "pki: missing"),
        ("pki: pki", "users: missing"),
        ("pki: pki\nusers: {a: {password_file: a, roles: [admin]}}", "roles"),
        ("listen: '4840'", "must be HOST:PORT, such as 127.0.0.1:4840"),
        ("recipes: [a, a]", "'a' stands twice"),
        ("word_order: low_first", "word_order"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, changes, said):
    file = tmp_path / "b.yaml"
    file.write_text(f"bridge: opcua\ncameras: [top]\n{changes}\n")
    code, _, err = running.inside("bridge", "opcua", file)
    assert (code, err.count("\n")) == (10, 1) and said in err


@pytest.mark.long
def test_a_nodeset_that_is_none_is_one_line(tmp_path):
    file = tmp_path / "b.yaml"
    (tmp_path / "n.xml").write_text("<UANodeSet/>")
    file.write_text(
        f"bridge: opcua\ncameras: [top]\nlisten: 127.0.0.1:0\nnodeset: {tmp_path / 'n.xml'}\n"
    )
    code, _, err = running.inspector("bridge", "opcua", file)
    assert code == 10 and err.count("\n") == 1 and "nodeset" in err
    _, out, err = running.inside("check", file)
    assert "problem  nodeset" in out + err


@pytest.mark.long
def test_keygen_makes_what_a_bridge_can_use(tmp_path):
    pki = tmp_path / "pki"
    code, out, _ = running.inside("keygen", pki, "--opcua", "--host", "127.0.0.1")
    assert code == 0 and f"pki: {pki}" in out and (pki / "own.pem").stat().st_mode & 0o077 == 0
    code, out, _ = running.inside("keygen", tmp_path, "--opcua", "--user", "plc-1")
    assert code == 0 and "plc-1.password" in out
    file = tmp_path / "b.yaml"
    file.write_text(
        f"bridge: opcua\ncameras: [top]\nlisten: 127.0.0.1:0\npki: {pki}\n"
        f"users: {{plc-1: {{password_file: {tmp_path / 'plc-1.password'}, roles: [read]}}}}\n"
    )
    _, out, _ = running.inside("check", file)
    assert "OPC UA bridge" in out and "is free" in out and "own.der" not in out
    # Neither is ever overwritten.
    before = (pki / "own.pem").read_bytes()
    for command in (("keygen", pki, "--opcua"), ("keygen", tmp_path, "--opcua", "--user", "plc-1")):
        code, _, err = running.inside(*command)
        assert (code, err.count("\n")) == (17, 1) and "is there" in err
    assert (pki / "own.pem").read_bytes() == before
    assert running.inside("keygen", tmp_path, "--user", "plc-1")[0] == 17
