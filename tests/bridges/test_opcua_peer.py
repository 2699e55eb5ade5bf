"""A client of another maker's stack, node-opcua, by which a part is judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from inspector.bridges.opcua_security import make_password, make_pki
from tests.bridges.opcua_line import Opcua
from tests.bridges.test_machine_vision import PACKAGES, from_npm
from tests.bridges.test_opcua_bridge import uri_of

SCRIPT = Path(__file__).with_name("opcua_peer.js")


@pytest.mark.peers
@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes256_Sha256_RsaPss"])
def test_a_part_is_judged_for_a_client_of_another_stack(line, tmp_path, policy):
    from_npm("node-opcua-client/package.json")
    if shutil.which("node") is None:
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("node is not installed")
        pytest.skip("node is not installed")
    for name in ("pki", "peer"):
        make_pki(tmp_path / name, name, ["127.0.0.1", "localhost"])
    shutil.copy(tmp_path / "peer" / "own.der", tmp_path / "pki" / "trusted" / "peer.der")
    make_password(tmp_path / "plc.password")
    password = (tmp_path / "plc.password").read_text().removeprefix("password: ").strip()
    line.start_station()
    opcua = Opcua(line, tmp_path, line._stack)
    opcua.start(
        pki=str(tmp_path / "pki"),
        users={
            "plc": {
                "password_file": str(tmp_path / "plc.password"),
                "roles": ["read", "trigger"],
            }
        },
    )
    done = subprocess.run(
        [
            *("node", str(SCRIPT), opcua.url, policy),
            *(str(tmp_path / "peer" / "own.der"), str(tmp_path / "peer" / "own.pem")),
            *("plc", password, str(tmp_path / "node-pki")),
        ],
        env=os.environ
        | {
            "APPLICATION_URI": uri_of(tmp_path / "peer"),
            "NODE_NO_WARNINGS": "1",
            "NODE_PATH": str(PACKAGES),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr, opcua.said())
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == "Good" and told["job"][1] == 0, told
    event = told["event"]
    assert (event["MeasId"]["id"], event["PartId"]["id"]) == ("peer:1", "part-9")
    assert (event["ResultState"], event["ResultContent"][0]["value"]) == (1, 1), event
