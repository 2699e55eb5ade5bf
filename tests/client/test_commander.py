"""A client's commands: what is sent, when again, and what an answer becomes."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from inspector.client import Answer, Sent
from inspector.client.commander import Commander
from inspector.errors import CommandError
from inspector.wire import messages as wire
from inspector.wire.requests import Request
from tests.stations import accept_and_answer, free_ports, serving, verdict


def test_commander_gets_the_verdict_of_its_part(recorded):
    with (
        serving(recorded, accept_and_answer) as commands,
        Commander(commands.address, session="s") as commander,
    ):
        assert commander.trigger("top", 1, "widget").part_id == "widget"
        assert commander.status() == recorded.status()


def test_commander_repeats_the_same_trigger_until_it_is_answered(recorded):
    heard: list[wire.TriggerCommand] = []

    def handle(request: Request) -> None:
        heard.append(request.command)
        if len(heard) == 1:
            return
        if len(heard) == 2:
            request.accept()
            return
        accept_and_answer(request)

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        assert commander.trigger("top", 9, "w").part_id == "w"
    assert len({(one.session, one.trigger_seq, one.part_id, one.sent_us) for one in heard}) == 1
    assert [one.repeat for one in heard] == [False, True, True]
    assert heard[0].sent_us is not None


def test_commander_repeats_for_its_caller_without_a_time_that_it_does_not_know(recorded):
    heard: list[wire.TriggerCommand] = []

    def handle(request: Request) -> None:
        heard.append(request.command)
        request.answer(verdict(1).told_again())

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        assert commander.trigger("top", 9, "w", repeat=True).repeated
        for repeat in (False, True):
            commander.trigger("top", 10, "w", repeat=repeat)
    assert [one.repeat for one in heard] == [True, False, True]
    unknown, first, again = (one.sent_us for one in heard)
    assert unknown is None
    assert first == again is not None


@pytest.mark.parametrize("ahead_s", [-3600, 0, 3600])
def test_station_knows_the_age_of_a_trigger_by_the_commanders_round_trips(recorded, ahead_s):
    ages: list[int | None] = []

    def handle(request: Request) -> None:
        ages.append(request.age_us)
        request.answer(verdict(1))

    with serving(recorded, handle) as commands:
        commander = Commander(commands.address)
        commander._clock_us += ahead_s * 1_000_000
        with commander:
            for number in range(1, 4):
                commander.trigger("top", number)
    assert all(-50_000 < age < 2_000_000 for age in ages), ages


def test_trigger_that_waited_for_a_station_that_was_down_says_so(recorded):
    [address] = free_ports(1)
    ages: list[int | None] = []

    def handle(request: Request) -> None:
        ages.append(request.age_us)
        request.answer(verdict(1))

    with Commander(address) as commander:
        caller = threading.Thread(target=commander.trigger, args=("top", 1))
        begun = time.monotonic()
        caller.start()
        time.sleep(0.7)
        with serving(recorded, handle, address):
            caller.join(10)
    assert len(ages) == 1
    assert 650_000 < ages[0] < (time.monotonic() - begun) * 1e6


def test_commander_outlives_a_restart_of_the_station(recorded):
    [address] = free_ports(1)
    silent = threading.Event()
    with contextlib.ExitStack() as first:
        first.enter_context(serving(recorded, lambda request: silent.set(), address))
        found: list[wire.VerdictMessage] = []

        def work() -> None:
            with Commander(address) as commander:
                found.append(commander.trigger("top", 1, "w", timeout_s=20.0))

        caller = threading.Thread(target=work)
        caller.start()
        assert silent.wait(5)
    with serving(recorded, accept_and_answer, address):
        caller.join(15)
    assert [one.part_id for one in found] == ["w"]


def test_commander_names_what_the_station_refused(recorded):
    def handle(request: Request) -> None:
        request.refuse("unknown", "no recipe 'x'; there are r, s")

    with (
        serving(recorded, handle) as commands,
        Commander(commands.address) as commander,
        pytest.raises(CommandError, match="refused recipe: unknown: no recipe 'x'") as caught,
    ):
        commander.recipe("x")
    assert (caught.value.code, caught.value.exit_code) == ("unknown", 30)


def test_trigger_for_a_station_that_is_down_does_not_come_later(recorded):
    [address] = free_ports(1)
    reached: list[Request] = []
    with Commander(address) as commander:
        with pytest.raises(CommandError, match=r"no answer to trigger in 0\.2 s; is the station"):
            commander.trigger("top", 1, "gone", timeout_s=0.2)
        with serving(recorded, reached.append, address):
            assert commander.status() == recorded.status()
    assert reached == []


@pytest.mark.parametrize("call", [lambda one: one.recipe("r"), lambda one: one.reload()])
def test_order_ends_with_its_connection_and_not_minutes_later(recorded, call):
    heard: queue.Queue[Request] = queue.Queue()
    with contextlib.ExitStack() as station:
        commands = station.enter_context(serving(recorded, heard.put))
        with Commander(commands.address) as commander, ThreadPoolExecutor() as pool:
            ordered = pool.submit(call, commander)
            heard.get(timeout=5)
            station.close()
            with pytest.raises(CommandError, match=r"the station went while .* waited"):
                ordered.result(timeout=5)


def test_answer_given_in_the_last_moment_is_heard(recorded):
    for _ in range(20):
        heard: queue.Queue[Request] = queue.Queue()
        with contextlib.ExitStack() as station:
            commands = station.enter_context(serving(recorded, heard.put))
            with Commander(commands.address) as commander:
                sent = commander.send(wire.RecipeCommand(recipe="r"))
                while heard.empty():
                    commander.receive(0.01)
                heard.get().finish("done at last")
                station.close()
                time.sleep(0.05)
                until_done(commander, sent)
                assert sent.result().detail == "done at last"


def test_trigger_is_sent_again_by_the_next_connection(recorded):
    [address] = free_ports(1)
    heard: queue.Queue[Request] = queue.Queue()
    with Commander(address) as commander:
        with serving(recorded, heard.put, address):
            sent = commander.send_trigger("top", 1, "w")
            order = commander.send(wire.RecipeCommand(recipe="r"))
            while heard.qsize() < 2:
                commander.receive(0.01)
        until_done(commander, order)
        assert order.error is not None and not sent.is_done
        with serving(recorded, accept_and_answer, address):
            until_done(commander, sent)
    assert sent.result().verdict is not None


def test_late_answer_is_not_taken_for_the_next_one(recorded):
    requests: queue.Queue[Request] = queue.Queue()
    with serving(recorded, requests.put) as commands, Commander(commands.address) as commander:
        with pytest.raises(CommandError, match="still running"):
            commander.trigger("top", 1, "first", timeout_s=0.2)
        late = requests.get(timeout=5)
        late.answer(verdict(1, part_id="first"))
        answering = threading.Thread(target=lambda: accept_and_answer(requests.get(timeout=5)))
        answering.start()
        assert commander.trigger("top", 2, "second").part_id == "second"
        answering.join()


def test_command_that_cannot_be_written_is_one_line():
    with Commander(free_ports(1)[0]) as commander:
        for call in (
            lambda: commander.trigger("top", -1),
            lambda: commander.trigger("t" * 65, 1),
            lambda: commander.trigger("top", 1, "p" * 257),
            lambda: commander.recipe("r" * 65),
        ):
            with pytest.raises(CommandError) as caught:
                call()
            assert (caught.value.code, "\n" in str(caught.value)) == ("malformed", False)


def until_done(commander: Commander, *sent: Sent) -> list[Answer]:
    """What ``receive`` hands out until all of these are done."""
    found: list[Answer] = []
    deadline = time.monotonic() + 10
    while not all(one.is_done for one in sent):
        assert time.monotonic() < deadline
        if (answer := commander.receive(0.5)) is not None:
            found.append(answer)
    while (answer := commander.receive(0.0)) is not None:
        found.append(answer)
    return found


def test_several_triggers_are_under_way_and_each_gets_its_own_replies(recorded):
    requests: list[Request] = []

    def handle(request: Request) -> None:
        requests.append(request)
        if len(requests) < 3:
            return
        # The last one first: what is answered says itself whose it is.
        for each in reversed(requests):
            each.accept()
            each.acquire(100 + each.command.trigger_seq)
        for each in requests:
            each.answer(verdict(1, part_id=each.command.part_id, grabbed_us=7))

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        sent = [commander.send_trigger("top", n, f"p{n}", lot="L1") for n in (1, 2, 3)]
        answers = until_done(commander, *sent)
        assert [one.verdict.part_id for one in sent] == ["p1", "p2", "p3"]
        assert [one.acquired_us for one in sent] == [101, 102, 103]
        for one in sent:
            kinds = [answer.kind for answer in answers if answer.sent is one]
            assert kinds == ["accepted", "acquired", "verdict"]
        assert {request.command.lot for request in requests} == {"L1"}
        # The calls that wait go on beside it.
        assert commander.status() == recorded.status()


def test_simple_trigger_tells_when_the_part_may_move(recorded):
    told: list[int] = []

    def handle(request: Request) -> None:
        request.accept()
        if request.command.trigger_seq == 1:
            request.acquire(55)
        request.answer(verdict(1, grabbed_us=55 if request.command.trigger_seq == 1 else None))

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        for number in (1, 2):
            commander.trigger("top", number, on_acquired=told.append)
    assert told == [55]


def test_trigger_that_is_sent_again_meanwhile_is_told_once(recorded):
    requests: list[Request] = []

    def handle(request: Request) -> None:
        requests.append(request)
        request.accept()
        request.acquire(55)
        if request.command.repeat:
            for each in requests:
                each.answer(verdict(1, grabbed_us=55))

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        sent = commander.send_trigger("top", 1)
        kinds = [answer.kind for answer in until_done(commander, sent)]
    assert [one.command.repeat for one in requests] == [False, True]
    assert kinds == ["accepted", "acquired", "verdict"]


def test_waiting_for_answers_is_ended_by_another_thread(recorded):
    with (
        serving(recorded, lambda request: None) as commands,
        Commander(commands.address) as commander,
    ):
        threading.Timer(0.1, commander.wake).start()
        begun = time.monotonic()
        assert commander.receive(10.0) is None
        assert time.monotonic() - begun < 5
        commander.wake()
        # What came while the thread was at something else is not lost.
        assert commander.status() == recorded.status()
        begun = time.monotonic()
        assert commander.receive(10.0) is None
        assert time.monotonic() - begun < 5
    commander.wake()


def test_one_trigger_without_an_answer_does_not_cost_the_others_theirs(recorded):
    requests: list[Request] = []

    def handle(request: Request) -> None:
        requests.append(request)
        if request.command.part_id == "good":
            request.accept()

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        silent = commander.send_trigger("top", 1, "silent", timeout_s=0.3)
        good = commander.send_trigger("top", 2, "good")
        answers = until_done(commander, silent)
        assert "no answer to trigger in 0.3 s" in str(silent.error)
        assert [answer.kind for answer in answers if answer.sent is silent] == ["unanswered"]
        next(one for one in requests if one.command.part_id == "good").answer(verdict(1))
        until_done(commander, good)
        assert not any(one.command.repeat for one in requests if one.command.part_id == "good")


def test_station_that_was_started_again_measures_the_clock_of_who_only_receives(recorded):
    [address] = free_ports(1)
    with Commander(address) as commander:
        with serving(recorded, accept_and_answer, address):
            until_done(commander, commander.send_trigger("top", 1))
        ages: list[int | None] = []

        def handle(request: Request) -> None:
            ages.append(request.age_us)
            request.answer(verdict(len(ages), recorded.epoch))

        recorded.start()
        commander._clock_us += 3_600_000_000
        with serving(recorded, handle, address):
            deadline = time.monotonic() + 10
            while not ages or ages[-1] < 0:
                assert time.monotonic() < deadline
                until_done(commander, commander.send_trigger("top", 1 + len(ages)))
                for _ in range(10):
                    commander.receive(0.01)
    assert -2_000_000 < ages[-1] < 2_000_000


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda one: one.start(), {"command": "start", "by": ""}),
        (lambda one: one.stop(), {"command": "stop", "by": ""}),
        (lambda one: one.reset(), {"command": "reset", "by": ""}),
        (
            lambda one: one.delivered("epoch-1", 4, "timed_out", 77),
            {
                "command": "delivered",
                "epoch": "epoch-1",
                "seq": 4,
                "outcome": "timed_out",
                "at_us": 77,
            },
        ),
        (
            lambda one: one.send(wire.RecipeCommand(recipe="r")),
            {"command": "recipe", "recipe": "r", "by": ""},
        ),
        (
            lambda one: one.mark("epoch-1", 4, "good", "a scratch", by="Li"),
            {
                "command": "mark",
                "epoch": "epoch-1",
                "seq": 4,
                "label": "good",
                "note": "a scratch",
                "by": "Li",
            },
        ),
        (
            lambda one: one.limit("r", "top", 1.25, by="Li"),
            {
                "command": "limit",
                "recipe": "r",
                "camera": "top",
                "limit_factor": 1.25,
                "by": "Li",
            },
        ),
        (lambda one: one.stop(by="Li"), {"command": "stop", "by": "Li"}),
    ],
)
def test_orders_as_they_arrive(recorded, call, expected):
    heard: queue.Queue[Request] = queue.Queue()

    def handle(request: Request) -> None:
        heard.put(request)
        request.finish("so be it")

    with serving(recorded, handle) as commands, Commander(commands.address) as commander:
        said = call(commander)
        if isinstance(said, Sent):
            (answer,) = until_done(commander, said)
            said = answer.sent.result().detail
            assert answer.kind == "done"
        arrived = heard.get(timeout=5).command.model_dump(exclude={"id", "schema_"})
    assert said in ("so be it", None)
    assert arrived == expected
