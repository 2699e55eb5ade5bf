"""What is wrong with a command, in our words."""

from __future__ import annotations

import pytest

from inspector.errors import WireError
from inspector.wire.messages import decode_command, decode_verdict

TRIGGER = '"command":"trigger","camera":"top","session":"s","trigger_seq":'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            '{"command":"triger"}',
            "whose field 'command' must be one of 'trigger', 'status', 'recipe', 'reload', "
            "'start', 'stop', 'reset', 'delivered', 'mark', 'limit', 'acknowledge', 'replay' "
            "(found 'triger'); did you mean 'trigger'?",
        ),
        ("{}", "whose field 'command' is missing; it says what is asked for, such as 'status'"),
        ("[]", "which must be an object (found [])"),
        ("{", "which is not JSON: EOF while parsing an object at line 1 column 1"),
        (f"{{{TRIGGER}-1}}", "whose field 'trigger_seq' must be at least 0 (found -1)"),
        (f'{{{TRIGGER}"1"}}', "whose field 'trigger_seq' must be a whole number (found '1')"),
        (f"{{{TRIGGER}1.5}}", "whose field 'trigger_seq' must be a whole number (found 1.5)"),
        (f'{{{TRIGGER}1,"repeat":1}}', "whose field 'repeat' must be true or false (found 1)"),
        (f'{{{TRIGGER}1,"sequence":1}}', "whose field 'sequence' is unknown here"),
        ('{"command":"trigger","camera":"top"}', "whose field 'session' is missing"),
        (
            '{"command":"recipe","recipe":"' + "x" * 65 + '"}',
            "whose field 'recipe' must have at most 64 characters (found 'xxx",
        ),
        (
            '{"command":"recipe","recipe":"\\u001b[2J\\n","id":7}',
            "field 'id' must be text (found 7)",
        ),
        ('{"command":"replay"}', "which is refused: replay needs epoch or since_us, and not both"),
        ('{"command":"status","schema":3}', "whose field 'schema' must be 2 (found 3)"),
    ],
)
def test_a_command_that_is_wrong_is_told_in_our_words(body: str, words: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_command(body.encode())
    assert str(caught.value).startswith("received command ")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    for word in ("Input", "tag", "union", "valid dictionary"):
        assert word not in str(caught.value)


def test_the_fields_of_other_messages_keep_their_whole_path() -> None:
    with pytest.raises(WireError, match="received verdict whose field 'station' is missing"):
        decode_verdict(b"{}")
