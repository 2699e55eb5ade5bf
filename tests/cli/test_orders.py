"""``trigger``, ``recipe`` and ``reload`` on the command line."""

from __future__ import annotations

import argparse
import time
from typing import Any

import pytest

from inspector.cli import history, picture, preview, recipe, reload
from inspector.cli import trigger as trigger_command
from inspector.cli.arguments import ANSWERS_S
from inspector.errors import CommandError, SecretError
from inspector.wire import messages as wire
from inspector.wire.requests import Request
from tests.stations import free_ports, serving, verdict


def options(add: Any, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(("kind", "code"), [("PASS", 0), ("FAIL", 1), ("FAULT", 2)])
def test_trigger_command_ends_with_the_verdict(recorded, capsys, kind, code):
    score = None if kind == "FAULT" else 1.25

    def handle(request: Request) -> None:
        reason = "" if kind == "PASS" else "why"
        part = request.command.part_id
        request.answer(verdict(7, verdict=kind, score=score, reason=reason, part_id=part))

    with serving(recorded, handle) as commands:
        arguments = ["top", "--part", "w", "--seq", "3", "--address", commands.address]
        assert trigger_command.run(options(trigger_command.add_arguments, *arguments)) == code
    said = capsys.readouterr().out
    assert said.startswith(f"{kind} seq 7 part w")
    assert ("1.250" in said) == (score is not None)
    assert said.count("\n") == 1


def test_trigger_command_that_repeats_says_that_it_is_a_record(recorded, capsys):
    heard: list[wire.TriggerCommand] = []

    def handle(request: Request) -> None:
        heard.append(request.command)
        request.answer(verdict(7).told_again())

    with serving(recorded, handle) as commands:
        arguments = ["top", "--session", "s", "--repeat", "--address", commands.address]
        assert trigger_command.run(options(trigger_command.add_arguments, *arguments)) == 0
        assert "(again; it was judged at " in capsys.readouterr().out
        del arguments[1:3]
        with pytest.raises(CommandError, match="--repeat needs the --session"):
            trigger_command.run(options(trigger_command.add_arguments, *arguments))
    assert [(one.session, one.repeat) for one in heard] == [("s", True)]


def test_recipe_and_reload_commands_print_what_was_done(recorded, capsys):
    seen: list[Any] = []

    def handle(request: Request) -> None:
        seen.append(request.command)
        request.finish("2 cameras")

    with serving(recorded, handle) as commands:
        at = ["--address", commands.address]
        assert recipe.run(options(recipe.add_arguments, "flange", *at)) == 0
        assert reload.run(options(reload.add_arguments, *at)) == 0
    assert [(type(one).__name__, getattr(one, "recipe", "")) for one in seen] == [
        ("RecipeCommand", "flange"),
        ("ReloadCommand", ""),
    ]
    assert capsys.readouterr().out == "2 cameras\n2 cameras\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (recipe, ("flange", "--address")),
        (reload, ("--address",)),
        (trigger_command, ("top", "--address")),
        (history, ("--queries",)),
        (picture, ("e/1", "-o", "out.png", "--queries")),
        (preview, ("top", "-o", "out.png", "--queries")),
    ],
)
def test_where_no_station_is_is_told_within_the_time_of_an_answer(command, words, monkeypatch):
    assert ANSWERS_S == 3
    monkeypatch.setattr(command, "ANSWERS_S", 0.2)
    made = options(command.add_arguments, *words, free_ports(1)[0])
    begun = time.monotonic()
    with pytest.raises(CommandError, match=r"in 0\.2 s; is the station running"):
        command.run(made)
    assert time.monotonic() - begun < 2


def test_half_of_the_keys_is_refused(tmp_path):
    arguments = ["top", "--key", str(tmp_path / "me.secret")]
    with pytest.raises(SecretError, match="give both"):
        trigger_command.run(options(trigger_command.add_arguments, *arguments))
