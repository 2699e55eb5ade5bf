"""Subscriptions of OPC UA clients, each of which sleeps until there is something to send.

asyncua's own look at every publishing interval whether there is: with the shortest interval that a
client may ask for that is a thousand times a second for each client, and an interval of 0 has no
keep-alives at all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.subscription_service import SubscriptionService

from inspector.logs import say

SHORTEST_MS: Final = 1.0
"""The shortest publishing interval; a subscription that has it sends each event at once."""
LONGEST_MS: Final = 60_000.0
_KEEP_ALIVE_MS: Final = 1000.0
"""Keep-alives do not come more often than this, whatever the interval."""
_RETRY_S: Final = 0.1
"""Between two looks for a client that has asked for nothing; it may have another connection."""


class Subscription(InternalSubscription):  # type: ignore[misc]
    """One subscription; notifications leave on its own cycle, or at once at the shortest one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._news = asyncio.Event()
        self._period_s = self.data.RevisedPublishingInterval / 1000
        self._quiet_s = self._period_s * self.data.RevisedMaxKeepAliveCount
        self._life_s = self._period_s * self.data.RevisedLifetimeCount
        self._sent_s = time.monotonic()
        self._starved_s: float | None = None
        """Since when the client has asked for nothing while there was something to send."""

    @property
    def has_client(self) -> bool:
        """False while the connection is closed of which the client may still come back."""
        connection = getattr(self.pub_request_callback, "__self__", None)
        return not getattr(connection, "is_closed", False)

    async def _subscription_loop(self) -> None:
        begun_s = time.monotonic()
        is_at_once = self._period_s <= SHORTEST_MS / 1000
        try:
            # The first answer is due even if it is empty.
            await self.publish_results()
            while not self._closing:
                wait_s = max(self._period_s, _RETRY_S)
                if self._starved_s is None:
                    wait_s = max(0.0, self._sent_s + self._quiet_s - time.monotonic())
                try:
                    await asyncio.wait_for(self._news.wait(), wait_s)
                    if not is_at_once:
                        past_s = (time.monotonic() - begun_s) % self._period_s
                        await asyncio.sleep(self._period_s - past_s)
                except asyncio.TimeoutError:
                    pass
                self._news.clear()
                await self.publish_results()
        except Exception as crash:  # noqa: BLE001 - asyncua would lose it with the task
            say("opcua subscription failed", logging.ERROR, problem=repr(crash))

    async def publish_results(self, requestdata: Any = None) -> bool:
        """Send what there is, or a keep-alive if it is due; False when nothing was sent."""
        now_s = time.monotonic()
        # asyncua counts cycles; here they are what the clock says.
        is_over = self._starved_s is not None and now_s >= self._starved_s + self._life_s
        is_over = is_over and requestdata is None
        self._publish_cycles_count = self.data.RevisedLifetimeCount + 1 if is_over else 0
        is_due = now_s >= self._sent_s + self._quiet_s
        self._keep_alive_count = self.data.RevisedMaxKeepAliveCount if is_due else 0
        is_sent = await super().publish_results(requestdata)
        if self._publish_cycles_count == 1 and self._starved_s is None:
            self._starved_s = now_s
        return bool(is_sent)

    def _pop_publish_result(self) -> ua.PublishResult:
        self._sent_s, self._starved_s = time.monotonic(), None
        return super()._pop_publish_result()

    async def _trigger_publish(self) -> None:
        self._news.set()


class Subscriptions(SubscriptionService):  # type: ignore[misc]
    """All subscriptions of a server, each with an interval that the server can keep."""

    async def create_subscription(
        self,
        params: ua.CreateSubscriptionParameters,
        callback: Callable[..., Any],
        session_id: ua.NodeId,
        request_callback: Callable[..., Any] | None = None,
    ) -> ua.CreateSubscriptionResult:
        """Create one; what the client asked for comes back as it was revised.

        Raises :class:`ServiceError` where there are too many.
        """
        server = self.iserver
        if len(self.subscriptions) >= server.max_subscriptions:
            raise ServiceError(ua.StatusCodes.BadTooManySubscriptions)
        asked = params.RequestedPublishingInterval
        interval = SHORTEST_MS if math.isnan(asked) else min(max(asked, SHORTEST_MS), LONGEST_MS)
        alive = max(
            self._clamp_keep_alive_count(params.RequestedMaxKeepAliveCount),
            math.ceil(_KEEP_ALIVE_MS / interval),
        )
        # The specification has the one three times the other at least.
        life = max(self._clamp_lifetime_count(params.RequestedLifetimeCount), 3 * alive)
        self._sub_id_counter += 1
        number = self._sub_id_counter
        result = ua.CreateSubscriptionResult(
            SubscriptionId=number,
            RevisedPublishingInterval=interval,
            RevisedLifetimeCount=life,
            RevisedMaxKeepAliveCount=alive,
        )
        made = self.subscriptions[number] = Subscription(
            result,
            self.aspace,
            callback,
            session_id,
            request_callback=request_callback,
            delete_callback=lambda: self.subscriptions.pop(number, None),
            no_acks_limit=server.max_unacked_messages_per_subscription,
            max_queue_size=server.max_monitored_item_queue_size,
            publishing_enabled=params.PublishingEnabled,
        )
        await made.start()
        return result
