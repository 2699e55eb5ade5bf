"""A station and an OPC UA bridge, each a process of its own, and clients of asyncua."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from asyncua import Client, Node, ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)

from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import ErrorCode
from tests.bridges.lines import Line
from tests.commands import Started, start

SPACE = 2
"""The namespace of the specification at every bridge: the first after its own."""
POLICIES = {
    "Basic256Sha256": SecurityPolicyBasic256Sha256,
    "Aes256Sha256RsaPss": SecurityPolicyAes256Sha256RsaPss,
}


class Opcua:
    """The bridge of a line."""

    def __init__(self, line: Line, folder: Path, stack: contextlib.ExitStack) -> None:
        self.line = line
        self._stack = stack
        self.file = folder / "opcua.yaml"
        self.url = f"opc.tcp://127.0.0.1:{line.port}"

    def start(self, **changes: Any) -> Started | subprocess.Popen[bytes]:
        document: dict[str, Any] = {
            "bridge": "opcua",
            "listen": f"127.0.0.1:{self.line.port}",
            "station": {"commands": self.line.relay.address},
            "cameras": ["top"],
            "recipes": ["r", "other"],
        }
        self.file.write_text(yaml.safe_dump(document | changes), encoding="utf-8")
        log = self._stack.enter_context(self.file.with_suffix(".log").open("wb"))
        child = start(["bridge", "opcua", self.file], stderr=log)

        def end() -> None:
            child.kill()
            child.wait()

        self._stack.callback(end)
        deadline = time.monotonic() + 40
        while " listening " not in self.said():
            assert child.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return child

    def said(self) -> str:
        return self.file.with_suffix(".log").read_text(encoding="utf-8")


class Heard:
    """Events as they come."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def event_notification(self, event: Any) -> None:
        self.events.put_nowait(event)

    async def next(self, timeout_s: float = 10) -> Any:
        return await asyncio.wait_for(self.events.get(), timeout_s)


class Caller:
    """A client that calls the methods of one camera."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.nodes = mv.Types(SPACE)
        self.nodes.register()

    def at(self, *path: str) -> Node:
        return self.client.get_node(ua.NodeId(".".join(("top", *path)), 1))

    def new(self, name: str, **fields: Any) -> Any:
        return self.nodes.new(name, **fields)

    async def call(self, where: Sequence[str], method: str, *values: Any) -> list[Any]:
        found = next(
            one for methods in mv.METHODS.values() for one in methods if one.name == method
        )
        assert len(values) == len(found.inputs), found.inputs
        arguments = [
            self.nodes.variant(text.partition(": ")[2], value)
            for text, value in zip(found.inputs, values, strict=True)
        ]
        node = self.at(*where)
        result = await node.call_method(ua.NodeId(".".join(("top", *where, method)), 1), *arguments)
        return list(result) if isinstance(result, list) else [result]

    async def start(
        self, meas: str = "", part: str = "", recipe: str = "", parameters: Sequence[str] = ()
    ) -> tuple[str, int]:
        job, error = await self.call(
            ("VisionStateMachine", "AutomaticModeStateMachine"),
            "StartSingleJob",
            self.new("MeasIdDataType", Id=meas),
            self.new("PartIdDataType", Id=part),
            self.new("RecipeIdExternalDataType", Id=recipe),
            None,
            [ua.Variant(one) for one in parameters],
        )
        return job.Id, error

    async def accepted(self, **arguments: Any) -> str:
        """The id of a job, tried again while a camera that has just started is not ready."""
        deadline = time.monotonic() + 20
        while True:
            job, error = await self.start(**arguments)
            if error != -int(ErrorCode.TRIGGER_NOT_READY):
                assert error == 0, error
                return job
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def state(self) -> str | None:
        path = ("VisionStateMachine", "AutomaticModeStateMachine", "CurrentState")
        value = await self.at(*path).read_data_value(raise_on_bad_status=False)
        return value.Value.Value.Text if value.StatusCode.is_good() else None

    async def until(self, state: str | None, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while await self.state() != state:
            assert time.monotonic() < deadline, await self.state()
            await asyncio.sleep(0.01)

    async def listen(self, kind: int) -> Heard:
        heard = Heard()
        subscription = await self.client.create_subscription(10, heard)
        await subscription.subscribe_events(
            self.at(), self.client.get_node(ua.NodeId(kind, SPACE)), queuesize=100
        )
        return heard


@contextlib.asynccontextmanager
async def connected(
    url: str,
    *,
    policy: str = "",
    pki: Path | None = None,
    server: Path | None = None,
    user: str = "",
    password: str = "",
    uri: str = "",
) -> AsyncIterator[Caller]:
    """A client that is connected, with a certificate where there is a folder of them."""
    client = Client(url, timeout=30)
    if pki is not None and server is not None:
        await client.set_security(
            POLICIES[policy], str(pki / "own.der"), str(pki / "own.pem"), None, str(server)
        )
        client.application_uri = uri
    if user:
        client.set_user(user)
        client.set_password(password)
    async with client:
        yield Caller(client)
