"""A whole station with keys: ``inspector run`` and its clients."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
import zmq

from inspector.client.subscriber import Subscriber
from inspector.config.station_file import load_station
from inspector.detection import bundle
from inspector.detection.signing import load_signing_key
from inspector.wire.messages import VerdictMessage
from tests import running, tiny
from tests.parties import connected, make_keys
from tests.paths import ROOT


def section(parties) -> dict:
    return {
        "secret_key": str(parties.security.secret_key),
        "peers": {
            name: {"key": peer.key, "roles": list(peer.roles)}
            for name, peer in parties.security.peers.items()
        },
    }


def test_station_with_keys_serves_its_peers_alone(parties, tmp_path, bundle_path):
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture(), tiny.bad_picture())
    station = running.write_station(
        tmp_path / "station.yaml",
        bundle_path,
        running.folder_camera(parts, loop=True, rate_hz=20),
        security=section(parties),
    )
    with running.running(station) as daemon:
        held = parties.client_keys("mes")
        with (
            Subscriber(daemon.verdicts, keys=held) as mes,
            connected(zmq.SUB, daemon.verdicts, None) as keyless,
            connected(zmq.SUB, daemon.verdicts, parties.client_keys("stranger")) as stranger,
        ):
            verdicts = (item for item in mes if isinstance(item, VerdictMessage))
            first = next(verdicts)
            assert [next(verdicts).seq for _ in range(20)] == list(
                range(first.seq + 1, first.seq + 21)
            )
            assert not keyless.poll(0)
            assert not stranger.poll(0)
        daemon.wait_for_log(r' refused socket=verdicts why="unknown key"')
        daemon.child.terminate()
        assert daemon.child.wait(20) == 0, daemon.log


@pytest.mark.long
def test_station_does_not_start_with_keys_or_bundles_it_cannot_trust(
    parties, tmp_path, bundle_path
):
    secret, public = make_keys(tmp_path / "keys", "bundle", bundle=True)
    key = load_signing_key(secret)
    signed = tmp_path / "signed.onnx"
    signed.write_bytes(bundle.sign(bundle.read(bundle_path), key))
    parts = running.write_parts(tmp_path / "parts", tiny.good_picture())
    camera = running.folder_camera(parts)
    loose = tmp_path / "loose.secret"
    shutil.copyfile(parties.security.secret_key, loose)
    loose.chmod(0o644)
    trusted = {"bundle_keys": [str(public)]}

    def check(name: str, model, **security):
        journal = {"folder": str(tmp_path / "journals" / name)}
        path = running.write_station(
            tmp_path / name, model, camera, security=security, journal=journal
        )
        return ["check", path]

    good, unsigned, readable, orphan = running.at_once(
        check("good.yaml", signed, **section(parties), **trusted),
        check("unsigned.yaml", bundle_path, **section(parties), **trusted),
        check("loose.yaml", signed, **section(parties) | {"secret_key": str(loose)}),
        check("orphan.yaml", signed, peers=section(parties)["peers"]),
    )
    assert good[0] == 0, good
    assert (unsigned[0], "not signed" in unsigned[1]) == (18, True), unsigned
    assert (readable[0], "chmod 600" in readable[1]) == (17, True), readable
    assert (orphan[0], "without security.secret_key" in orphan[1]) == (17, True), orphan


def test_example_on_the_page_is_a_station_file(tmp_path):
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    found = {}
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        for key, value in yaml.safe_load(block).items():
            found[key] = found.get(key, {}) | value
    assert set(found) == {"sockets", "security"}
    station = load_station(
        running.write_station(
            tmp_path / "s.yaml", tmp_path / "b.onnx", running.folder_camera(tmp_path), **found
        )
    )
    assert set(station.security.peers) == {"mes", "plc-1", "desk"}
    assert station.security.bundle_keys == (tmp_path / "keys" / "bundle.public",)
    assert len(station.sockets.beyond_loopback) == 4
