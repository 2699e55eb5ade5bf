"""The table of the Machine Vision specification against the OPC Foundation's own file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua

from inspector.bridges.machine_vision_nodes import load
from tests.loops import in_a_loop
from tests.paths import ROOT

PACKAGES = ROOT / ".peers" / "node_modules"
FILE = "node-opcua-nodesets/nodesets/Opc.Ua.MachineVision.NodeSet2.xml"


def from_npm(name: str) -> Path:
    """A file of an npm package that .ci/peers has installed; without it the test is skipped."""
    path = PACKAGES / name
    if not path.exists():
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail(f"{path} is missing; run .ci/peers")
        pytest.skip(f"{name} is not installed; run .ci/peers")
    return path


async def described(nodeset: Path | None) -> dict[str, Any]:
    """Everything that a client can see of each node that the table has."""
    server = Server()
    await server.init()
    nodes = await load(server, nodeset)
    space = server.iserver.aspace
    numbers = [
        node.Identifier
        for node in list(space.keys())
        if node.NamespaceIndex == nodes.space and isinstance(node.Identifier, int)
    ]
    found: dict[str, Any] = {}
    for number in numbers:
        node = space[nodes.own(number)]
        told: dict[str, Any] = {}
        for name in ("NodeClass", "BrowseName", "IsAbstract", "DataType", "ValueRank", "Value"):
            attribute = node.attributes.get(ua.AttributeIds[name])
            told[name] = None if attribute is None else attribute.value.Value.Value
        told["refers"] = {
            (
                one.ReferenceTypeId.Identifier,
                one.IsForward,
                one.NodeId.NamespaceIndex,
                one.NodeId.Identifier,
            )
            for one in node.references
            if one.ReferenceTypeId.Identifier in REFERENCES
        }
        found[number] = told
    server.iserver.method_service.stop()
    return found


REFERENCES = {
    ua.ObjectIds.HasSubtype,
    ua.ObjectIds.HasComponent,
    ua.ObjectIds.HasProperty,
    ua.ObjectIds.HasTypeDefinition,
    ua.ObjectIds.HasModellingRule,
    ua.ObjectIds.HasEncoding,
}


def plain(name: str, value: Any) -> Any:
    """A value without what the two may say differently: descriptions, and lengths of lists."""
    if name == "Value" and isinstance(value, list):
        if value and isinstance(value[0], ua.Argument):
            return [(one.Name, one.DataType, one.ValueRank) for one in value]
        return [(one.Value, one.DisplayName.Text) for one in value]
    if name == "DataType" and value == ua.NodeId():
        # The file leaves it out, which the schema of such files takes for BaseDataType.
        return ua.NodeId(ua.ObjectIds.BaseDataType)
    return value


@pytest.mark.peers
def test_the_table_is_the_foundations_own(recwarn):
    nodeset = from_npm(FILE)
    ours = in_a_loop(described(None))
    theirs = in_a_loop(described(nodeset))
    assert len(ours) > 100 and set(ours) <= set(theirs)
    wrong = []
    for number, told in ours.items():
        for name, value in told.items():
            other = theirs[number][name]
            if name == "refers":
                # The file refers to nodes that are not in our subset, too.
                if not value <= other:
                    wrong.append((number, name, value - other))
            elif name in {"Value", "IsAbstract"} and not value and not isinstance(other, list):
                continue
            elif plain(name, value) != plain(name, other):
                wrong.append((number, name, plain(name, value), plain(name, other)))
    assert wrong == []
