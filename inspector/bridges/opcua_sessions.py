"""Sessions of OPC UA clients, with bounds on what one request may ask for.

asyncua answers a request of some kilobytes with hundreds of megabytes if it is asked to, and serves
nobody else meanwhile.
"""

from __future__ import annotations

import contextvars
import secrets
from collections.abc import Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession

from inspector.bridges.opcua_security import Users
from inspector.bridges.opcua_subscriptions import Subscriptions
from inspector.logs import Refusals

MOST_OPERATIONS: Final = 1000
"""Nodes or methods in one request."""
_LIMITS: Final = "Server_ServerCapabilities_OperationLimits_"
OPERATION_LIMITS: Final = [
    getattr(ua.ObjectIds, f"{_LIMITS}{name}")
    for name in (
        "MaxNodesPerRead",
        "MaxNodesPerWrite",
        "MaxNodesPerMethodCall",
        "MaxNodesPerBrowse",
        "MaxNodesPerTranslateBrowsePathsToNodeIds",
        "MaxMonitoredItemsPerCall",
    )
]
_MOST_REFERENCES: Final = 3000
"""In the answer to one request to browse."""
_LONGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of the values that one request reads."""
_MOST_ITEMS: Final = 1000
"""Monitored items of one subscription."""
_NOBODY: Final = User(role=UserRole.Anonymous)

caller: Final[contextvars.ContextVar[User]] = contextvars.ContextVar("caller")
"""Who calls the method that is at work."""


class Session(InternalSession):  # type: ignore[misc]
    """One client's session."""

    iserver: Internal

    async def call(self, params: list[ua.CallMethodRequest]) -> list[ua.CallMethodResult]:
        """Call methods, each of which hears who calls it."""
        _check_count(params)
        caller.set(self.user)
        return await super().call(params)  # type: ignore[no-any-return]

    async def read(self, params: ua.ReadParameters) -> list[ua.DataValue]:
        """Read values, as long as the answer stays small."""
        _check_count(params.NodesToRead)
        found = await super().read(params)
        # The descriptions of the base specification's types are 200 kB.
        blobs = [one.Value.Value for one in found if one.Value is not None]
        if sum(len(one) for one in blobs if isinstance(one, bytes)) > _LONGEST_ANSWER:
            raise ServiceError(ua.StatusCodes.BadResponseTooLarge)
        return found  # type: ignore[no-any-return]

    async def write(self, params: ua.WriteParameters) -> list[ua.StatusCode]:
        """Write values, of which there are none that a client may write."""
        _check_count(params.NodesToWrite)
        return await super().write(params)  # type: ignore[no-any-return]

    async def browse(self, params: ua.BrowseParameters) -> list[ua.BrowseResult]:
        """Tell what nodes refer to, as long as the answer stays small."""
        asked = params.NodesToBrowse or []
        _check_count(asked)
        found: list[ua.BrowseResult] = []
        references = 0
        for one in asked:
            params.NodesToBrowse = [one]
            found += await super().browse(params)
            references += len(found[-1].References or ())
            if references > _MOST_REFERENCES:
                raise ServiceError(ua.StatusCodes.BadResponseTooLarge)
        return found

    async def translate_browsepaths_to_nodeids(
        self, params: list[ua.BrowsePath]
    ) -> list[ua.BrowsePathResult]:
        """Find nodes by their names."""
        _check_count(params)
        return await super().translate_browsepaths_to_nodeids(params)  # type: ignore[no-any-return]

    def activate_session(self, params: Any, peer_certificate: bytes | None) -> Any:
        """Log a client in, or log why not."""
        try:
            return super().activate_session(params, peer_certificate)
        except ServiceError as error:
            tokens = ua.StatusCodes.BadIdentityTokenRejected, ua.StatusCodes.BadIdentityTokenInvalid
            if error.code in tokens:
                self.iserver.refusals.say(
                    self.name[0], "logs in otherwise than by user and password"
                )
            raise

    async def create_monitored_items(
        self, params: ua.CreateMonitoredItemsParameters
    ) -> list[ua.MonitoredItemCreateResult]:
        """Watch values and events, as long as they are not too many."""
        _check_count(params.ItemsToCreate)
        made = self.subscription_service.subscriptions.get(params.SubscriptionId)
        known = 0 if made is None else len(made.monitored_item_srv._monitored_items)
        if known + len(params.ItemsToCreate or ()) > _MOST_ITEMS:
            raise ServiceError(ua.StatusCodes.BadTooManyMonitoredItems)
        return await super().create_monitored_items(params)  # type: ignore[no-any-return]


class Internal(InternalServer):  # type: ignore[misc]
    """A server without a discovery service, which asyncua offers to everybody."""

    def __init__(self, users: Users, refusals: Refusals) -> None:
        super().__init__(user_manager=users)
        self.refusals = refusals
        self.allow_remote_admin = False
        self.max_monitored_item_queue_size = 1000
        self.max_unacked_messages_per_subscription = 500
        self.max_subscriptions = 200
        self.subscription_service = Subscriptions(self.aspace, iserver=self)
        self.isession.subscription_service = self.subscription_service

    def create_session(self, name: str, user: User = _NOBODY, external: bool = False) -> Session:
        """A session that a client, or the server itself, is about to have."""
        made = Session(
            self, self.aspace, self.subscription_service, name, user=user, external=external
        )
        if external:
            # By its token another connection takes a session over, and asyncua counts them up.
            self.unregister_external_session(made)
            made.auth_token = ua.NodeId(secrets.token_bytes(32))
            self.register_external_session(made)
        return made

    def register_server(self, *_: Any) -> None:
        """Refuse a client that wants to be listed as a server."""
        raise ServiceError(ua.StatusCodes.BadServiceUnsupported)

    register_server2 = register_server


def _check_count(operations: Sequence[Any] | None) -> None:
    if operations is not None and len(operations) > MOST_OPERATIONS:
        raise ServiceError(ua.StatusCodes.BadTooManyOperations)
