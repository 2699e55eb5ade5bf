"""The OPC UA server of a bridge: a VisionSystem for each camera, its methods, states and events."""

from __future__ import annotations

import asyncio
import datetime
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from asyncua import ua
from asyncua.common.event_objects import BaseEvent, TransitionEvent
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from inspector.bridges import machine_vision as mv
from inspector.bridges.codes import ErrorCode
from inspector.bridges.jobs import JobError
from inspector.bridges.machine_vision_nodes import Nodes, load
from inspector.bridges.opcua_connections import BoundedServer
from inspector.bridges.opcua_security import (
    Member,
    Pki,
    Users,
    application_uri,
)
from inspector.bridges.opcua_sessions import caller
from inspector.errors import PortError
from inspector.files import reason_of
from inspector.logs import Refusals, say
from inspector.version import VERSION

_O = ua.ObjectIds
_POLICIES: Final = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]
_ROLES: Final = {
    "StartSingleJob": "trigger",
    "GetRecipeListFiltered": "read",
    "GetResultById": "read",
    "GetResultComponentsById": "read",
    "GetResultListFiltered": "read",
}
"""Which role a method needs; that of the others is operate."""
_EVENT_TYPES: Final = {"UtcTime": "DateTime", "ResultStateDataType": "Int32", "Boolean": "Boolean"}

Handler: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]
"""A method's work: camera and inputs come in, its outputs but for Error come out."""


class VisionServer:
    """Serves the cameras to OPC UA clients; used in the thread of one event loop."""

    def __init__(
        self,
        cameras: Sequence[str],
        address: tuple[str, int],
        *,
        pki: Path | None,
        passwords: Mapping[str, tuple[str, frozenset[str]]],
        connections: int,
        nodeset: Path | None,
        handlers: Mapping[str, Handler],
    ) -> None:
        self._cameras = cameras
        self._address = address
        self._nodeset = nodeset
        self._handlers = handlers
        self._refusals = Refusals("opcua")
        self._pki = None if pki is None else Pki(pki, self._refusals)
        users = Users(passwords, self._pki, self._refusals)
        self._server = BoundedServer(users, self._refusals, connections)
        self._owner: dict[ua.NodeId, str] = {}
        """The camera that an object with methods belongs to."""
        self._shown: dict[str, str | None] = {}
        self.nodes: Nodes

    async def open(self) -> int:
        """Build the nodes and listen; returns the port.

        Raises :class:`PortError`, :class:`SecretError`, :class:`ConfigError`.
        """
        # What peers do wrong is one line of the bridge's; asyncua would log tracebacks.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        host, port = self._address
        server = self._server
        uri = "urn:line-inspector:bridge"
        if self._pki is not None:
            certificate, key = self._pki.own(host)
            uri = application_uri(certificate)
            await server.load_certificate(
                certificate.public_bytes(serialization.Encoding.DER), "der"
            )
            await server.load_private_key(key, None, "pem")
            server.set_certificate_validator(self._admit)
        await server.init()
        server.name = "Line Inspector"
        server.product_uri = "urn:line-inspector"
        server.manufacturer_name = "Line Inspector"
        await server.set_application_uri(uri)
        now = datetime.datetime.now(datetime.timezone.utc)
        await server.set_build_info(
            server.product_uri, server.manufacturer_name, server.name, VERSION, "0", now
        )
        server.set_endpoint(f"opc.tcp://{f'[{host}]' if ':' in host else host}:{port}")
        server.socket_address = (host, port)
        if self._pki is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            server.set_identity_tokens([ua.AnonymousIdentityToken])
        else:
            server.set_security_policy(_POLICIES)
            server.set_identity_tokens([ua.UserNameIdentityToken])
        self.nodes = await load(server, self._nodeset)
        for camera in self._cameras:
            self._add_system(camera)
        self._bind()
        for camera in self._cameras:
            await self._let_subscribe(camera)
            await self.show(camera, "")
        try:
            await server.start()
        except OSError as error:
            raise PortError(
                f"{host}:{port}: cannot be bound: {reason_of(error)} (docs/plc/opc-ua.md)"
            ) from None
        # asyncua tells the port nowhere.
        sockets = server.bserver._server.sockets
        return int(sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Hang up on every client, and listen no more."""
        await self._server.stop()
        self._server.iserver.method_service.stop()

    async def show(self, camera: str, state: str) -> None:
        """Have clients read a camera's state; "": there is no station."""
        machine = f"{camera}.VisionStateMachine"
        automatic = f"{machine}.AutomaticModeStateMachine"
        is_automatic = bool(state) and mv.STATES[state][0] == mv.AUTOMATIC_MODE
        before = self._shown.get(camera)
        self._shown[camera] = state
        if before == state:
            return
        outer = "Operational" if is_automatic else state
        gone = ua.StatusCodes.BadNoCommunication
        await self._show_state(machine, outer, gone)
        await self._show_state(
            automatic,
            state if is_automatic else "",
            ua.StatusCodes.BadStateNotActive if state else gone,
        )
        if before is not None:
            event = TransitionEvent()
            event.FromState = ua.LocalizedText(before or "no station")
            event.ToState = ua.LocalizedText(state or "no station")
            event.Transition = ua.LocalizedText(f"{before or 'None'}To{state or 'None'}")
            await self._fire(
                camera, mv.STATE_CHANGED, event, f"{camera}: {state or 'no station'}", {}
            )

    async def fire(
        self, camera: str, kind: int, message: str, severity: int = 100, **fields: Any
    ) -> bool:
        """Fire an event of the specification; False when there is nobody who hears it."""
        event = BaseEvent()
        event.Severity = severity
        return await self._fire(camera, kind, event, message, fields)

    async def _fire(
        self,
        camera: str,
        kind: int,
        event: Any,
        message: str,
        fields: Mapping[str, Any],
    ) -> bool:
        now = datetime.datetime.now(datetime.timezone.utc)
        event.EventType = self.nodes.own(kind)
        event.EventId = uuid.uuid4().bytes
        event.SourceNode = self._node(camera)
        event.SourceName = camera
        event.Time = event.ReceiveTime = now
        event.Message = ua.LocalizedText(message)
        for name, _, text in mv.EVENTS[kind][2]:
            value = fields.get(name)
            kind_name = text.removesuffix("?").removesuffix("[]")
            if kind_name in _EVENT_TYPES:
                type_ = ua.VariantType[_EVENT_TYPES[kind_name]]
            elif kind_name == "BaseDataType":
                type_ = ua.VariantType.Variant
            else:
                type_ = ua.VariantType.ExtensionObject
            event.add_property(name, value, type_)
        # A client subscribes to the camera, or to the server for all of them.
        heard = False
        subscriptions = self._server.iserver.subscription_service.subscriptions
        for emitter in (self._node(camera), ua.NodeId(_O.Server)):
            event.emitting_node = emitter
            for one in list(subscriptions.values()):
                is_there = await one.monitored_item_srv.trigger_event(event)
                heard |= is_there and one.has_client
        return heard

    async def _show_state(self, machine: str, state: str, otherwise: int) -> None:
        if state:
            text = ua.Variant(ua.LocalizedText(state), ua.VariantType.LocalizedText)
            node = ua.Variant(self.nodes.own(mv.STATES[state][1]), ua.VariantType.NodeId)
            values = ua.DataValue(text), ua.DataValue(node)
        else:
            bad = ua.StatusCode(otherwise)
            values = ua.DataValue(StatusCode=bad), ua.DataValue(StatusCode=bad)
        for name, value in zip(("CurrentState", "CurrentState.Id"), values, strict=True):
            await self._server.write_attribute_value(self._node(f"{machine}.{name}"), value)

    def _node(self, path: str) -> ua.NodeId:
        return ua.NodeId(path, 1)

    def _add_system(self, camera: str) -> None:
        nodes = self.nodes
        nodes.object(
            self._node(camera),
            camera,
            ua.NodeId(_O.ObjectsFolder),
            nodes.own(mv.VISION_SYSTEM),
            reference=_O.Organizes,
            space=1,
        )
        parts = (
            ("VisionStateMachine", camera, mv.VISION_STATE_MACHINE),
            (
                "AutomaticModeStateMachine",
                f"{camera}.VisionStateMachine",
                mv.AUTOMATIC_MODE,
            ),
            ("RecipeManagement", camera, mv.RECIPE_MANAGEMENT),
            ("ResultManagement", camera, mv.RESULT_MANAGEMENT),
        )
        for name, parent, kind in parts:
            path = f"{parent}.{name}"
            node = nodes.object(self._node(path), name, self._node(parent), nodes.own(kind))
            self._owner[node] = camera
            for method in mv.METHODS[kind]:
                own = f"{path}.{method.name}"
                arguments = (
                    self._node(f"{own}.InputArguments"),
                    self._node(f"{own}.OutputArguments"),
                )
                nodes.method(method, self._node(own), arguments, node)
            if kind in {mv.VISION_STATE_MACHINE, mv.AUTOMATIC_MODE}:
                self._add_current_state(path)

    def _add_current_state(self, path: str) -> None:
        nodes = self.nodes
        state = nodes.variable(
            self._node(f"{path}.CurrentState"),
            "CurrentState",
            self._node(path),
            ua.NodeId(_O.LocalizedText),
            kind=_O.FiniteStateVariableType,
            space=0,
        )
        nodes.variable(
            self._node(f"{path}.CurrentState.Id"), "Id", state, ua.NodeId(_O.NodeId), space=0
        )

    async def _let_subscribe(self, camera: str) -> None:
        node = self._node(camera)
        for one in (node, ua.NodeId(_O.Server)):
            events = [ua.EventNotifier.SubscribeToEvents]
            await self._server.get_node(one).set_event_notifier(events)
        self.nodes.refer(ua.NodeId(_O.Server), _O.HasNotifier, node)
        for kind in mv.EVENTS:
            self.nodes.refer(node, _O.GeneratesEvent, self.nodes.own(kind))

    def _bind(self) -> None:
        """Give each method its work: at the cameras, and at its type, which a call may name."""
        add = self._server.iserver.isession.add_method_callback
        for methods in mv.METHODS.values():
            for method in methods:
                work = self._method(method)
                add(self.nodes.own(method.number), work)
                for node in self._owner:
                    own = ua.NodeId(f"{node.Identifier}.{method.name}", 1)
                    if own in self._server.iserver.aspace:
                        add(own, work)

    def _method(self, method: mv.Method) -> Callable[..., Awaitable[Any]]:
        role = _ROLES.get(method.name, "operate")

        async def call(parent: ua.NodeId, *arguments: ua.Variant) -> Any:
            who = caller.get(None)
            if not isinstance(who, Member) or role not in who.roles:
                name = who.name if isinstance(who, Member) else "?"
                self._refusals.say(str(name), f"{method.name} needs the role {role}")
                return ua.StatusCode(ua.StatusCodes.BadUserAccessDenied)
            camera = self._owner.get(parent)
            if camera is None or not str(parent.Identifier).endswith(_home(method)):
                return ua.StatusCode(ua.StatusCodes.BadMethodInvalid)
            if len(arguments) != len(method.inputs):
                few = len(arguments) < len(method.inputs)
                codes = ua.StatusCodes
                return ua.StatusCode(
                    codes.BadArgumentsMissing if few else codes.BadTooManyArguments
                )
            try:
                found = await self._handlers[method.name](camera, *[one.Value for one in arguments])
                error = 0
            except JobError as wrong:
                self._refusals.say(
                    str(who.name), f"{camera}: {method.name}: {wrong.code.name.lower()}"
                )
                found, error = [None] * (len(method.outputs) - 1), -int(wrong.code)
            except Exception as crash:  # noqa: BLE001 - one call shall not end the others'
                say("opcua call failed", logging.ERROR, method=method.name, problem=repr(crash))
                return ua.StatusCode(ua.StatusCodes.BadInternalError)
            return [
                self.nodes.variant(text.partition(": ")[2], value)
                for text, value in zip(method.outputs, [*found, error], strict=True)
            ]

        return call

    async def _admit(self, certificate: x509.Certificate, application: Any) -> None:
        if self._pki is not None:
            der = certificate.public_bytes(serialization.Encoding.DER)
            await asyncio.to_thread(self._pki.admit, der, application.ApplicationUri)


def text_of(structure: Any) -> str:
    """The ``Id`` of a structure that a client sent; "" for none. Raises :class:`JobError`."""
    if structure is None:
        return ""
    found = getattr(structure, "Id", structure)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise JobError(ErrorCode.ARGUMENT)
    return found


def _home(method: mv.Method) -> str:
    """How the path of the object ends that a method belongs to."""
    for kind, methods in mv.METHODS.items():
        if method in methods:
            return {
                mv.VISION_STATE_MACHINE: ".VisionStateMachine",
                mv.AUTOMATIC_MODE: ".AutomaticModeStateMachine",
                mv.RECIPE_MANAGEMENT: ".RecipeManagement",
                mv.RESULT_MANAGEMENT: ".ResultManagement",
            }[kind]
    raise ValueError(method.name)
