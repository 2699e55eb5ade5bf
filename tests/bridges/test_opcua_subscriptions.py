"""When a notification leaves: on the subscription's own cycle, and never by looking for news."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from asyncua import ua
from asyncua.server.internal_server import InternalServer

from inspector.bridges.opcua_subscriptions import LONGEST_MS, SHORTEST_MS, Subscriptions
from tests.loops import in_a_loop


class Client:
    """What a client's connection is for a subscription: requests to answer, and their answers."""

    def __init__(self, requests: int = 100) -> None:
        self.requests = requests
        self.came: asyncio.Queue[ua.PublishResult] = asyncio.Queue()

    def request(self, _number: int) -> Any:
        if not self.requests:
            return None
        self.requests -= 1
        return object()

    async def answer(self, result: ua.PublishResult, _request: Any) -> None:
        self.came.put_nowait(result)

    async def next(self, timeout_s: float = 10) -> list[Any]:
        """The fields of the events in the next answer; [] for a keep-alive."""
        result = await asyncio.wait_for(self.came.get(), timeout_s)
        data = result.NotificationMessage.NotificationData
        return [event for part in data for event in part.Events]


async def subscribed(
    client: Client, interval: float, *, alive: int = 1000, life: int = 3000
) -> tuple[Subscriptions, Any, ua.CreateSubscriptionResult]:
    server = InternalServer()
    server.method_service.stop()
    service = Subscriptions(server.aspace, iserver=server)
    params = ua.CreateSubscriptionParameters(
        RequestedPublishingInterval=interval,
        RequestedLifetimeCount=life,
        RequestedMaxKeepAliveCount=alive,
        PublishingEnabled=True,
    )
    result = await service.create_subscription(
        params, client.answer, ua.NodeId(1), request_callback=client.request
    )
    return service, service.subscriptions[result.SubscriptionId], result


async def turns(count: int = 5) -> None:
    """Let tasks run that wait for nothing; no clock goes on."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("asked", [SHORTEST_MS, 0.0, -5.0, 1e-9, float("nan")])
def test_with_the_shortest_interval_an_event_waits_for_no_clock(asked):
    async def whole() -> None:
        client = Client()
        service, made, result = await subscribed(client, asked)
        assert result.RevisedPublishingInterval == SHORTEST_MS
        assert await client.next() == []
        for number in range(3):
            await made.enqueue_event(1, ua.EventFieldList(number), 10)
            await turns()
            assert [one.ClientHandle for one in await client.next(0.001)] == [number]
        await service.delete_subscriptions([result.SubscriptionId])

    in_a_loop(whole())


def test_an_idle_subscription_does_nothing(monkeypatch):
    async def whole() -> None:
        client = Client()
        service, made, result = await subscribed(client, SHORTEST_MS)
        assert await client.next() == []
        looks = []
        monkeypatch.setattr(made, "has_published_results", lambda: looks.append(1))
        await asyncio.sleep(0.05)
        assert looks == []
        await service.delete_subscriptions([result.SubscriptionId])

    in_a_loop(whole())


def test_the_interval_that_a_client_chose_is_kept():
    async def whole() -> None:
        client = Client()
        begun = time.monotonic()
        service, made, result = await subscribed(client, 150.0)
        assert await client.next() == []
        await made.enqueue_event(1, ua.EventFieldList(1), 10)
        await made.enqueue_event(1, ua.EventFieldList(2), 10)
        await turns()
        assert client.came.empty()
        # Both leave together when the cycle ends.
        assert [one.ClientHandle for one in await client.next()] == [1, 2]
        assert time.monotonic() - begun >= 0.149
        await service.delete_subscriptions([result.SubscriptionId])

    in_a_loop(whole())


def test_keep_alives_come_and_not_too_often():
    async def whole() -> None:
        client = Client()
        service, _, result = await subscribed(client, SHORTEST_MS, alive=1, life=1)
        assert (result.RevisedMaxKeepAliveCount, result.RevisedLifetimeCount) == (1000, 3000)
        assert await client.next() == []
        begun = time.monotonic()
        assert await client.next() == []
        assert time.monotonic() - begun > 0.9
        await service.delete_subscriptions([result.SubscriptionId])
        _, _, slow = await subscribed(Client(), 1e300)
        assert slow.RevisedPublishingInterval == LONGEST_MS

    in_a_loop(whole())


def test_an_event_waits_for_a_client_that_has_asked_for_nothing_yet():
    async def whole() -> None:
        client = Client(requests=1)
        service, made, result = await subscribed(client, SHORTEST_MS)
        assert await client.next() == []
        for number in range(5):
            await made.enqueue_event(1, ua.EventFieldList(number), 3)
        await asyncio.sleep(0.02)
        assert client.came.empty()
        # The client came back by another connection, which tells nobody that it has a request.
        client.requests = 1
        assert [one.ClientHandle for one in await client.next()] == [2, 3, 4]
        await service.delete_subscriptions([result.SubscriptionId])

    in_a_loop(whole())


def test_a_subscription_whose_client_never_asks_again_ends(monkeypatch):
    async def whole() -> None:
        client = Client(requests=1)
        service, made, result = await subscribed(client, SHORTEST_MS)
        assert await client.next() == []
        # Many events are many attempts to send; only time ends a subscription.
        for number in range(20):
            await made.enqueue_event(number, ua.EventFieldList(number), 1)
            await turns()
        assert result.SubscriptionId in service.subscriptions
        monkeypatch.setattr(made, "_life_s", 0.05)
        until = time.monotonic() + 10
        while result.SubscriptionId in service.subscriptions:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    in_a_loop(whole())
