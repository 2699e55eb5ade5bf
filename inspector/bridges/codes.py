"""The numbers that a PLC program is written against; none of them ever changes its meaning.

A new reason, error or command gets the next free number. PLC programs hold these numbers for
twenty years, so a number that is no longer used stays reserved.
"""

from __future__ import annotations

import enum
from typing import Final

from inspector.verdict import Reason, Verdict

LAYOUT_VERSION: Final = 1
"""Version of the handshake block; never 0, since a PLC that reads only zeros has no bridge."""


class Command(enum.IntEnum):
    """What the PLC may ask for besides a trigger."""

    NONE = 0
    START = 1
    STOP = 2
    RESET = 3
    RECIPE = 4
    """Change over to the recipe that RecipeID names."""


class CommandState(enum.IntEnum):
    """How the command stands that CommandEcho names."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3


class ErrorCode(enum.IntEnum):
    """What the PLC did that could not be obeyed; docs/plc/states-and-errors.md says the cure."""

    NONE = 0
    COMMAND_UNKNOWN = 1
    COMMAND_NOT_READY = 2
    COMMAND_NOT_CLEARED = 3
    COMMAND_STANDING = 4
    COMMAND_REFUSED = 5
    RECIPE_UNKNOWN = 6
    SESSION_STANDING = 7
    TRIGGER_NO_SESSION = 8
    TRIGGER_NOT_READY = 9
    TRIGGER_STEP = 10
    TRIGGER_STANDING = 11
    PART_ID = 12
    LOT = 13
    RESULTS_FULL = 14
    COUNT_MISMATCH = 15
    RESET_NOT_EMPTY = 16
    RECIPE_MISMATCH = 17
    MEAS_ID_USED = 18
    ARGUMENT = 19
    RESULT_UNKNOWN = 20


ERROR_MEANINGS: Final = {
    ErrorCode.NONE: ("no error", ""),
    ErrorCode.COMMAND_UNKNOWN: ("Command has a number that is none", "write 0, then a known one"),
    ErrorCode.COMMAND_NOT_READY: (
        "a command came while the bridge has no station",
        "wait for State, write 0, then the command again",
    ),
    ErrorCode.COMMAND_NOT_CLEARED: (
        "another command came before Command was 0 again",
        "write 0, wait for CommandEcho 0, then the next",
    ),
    ErrorCode.COMMAND_STANDING: (
        "Command stood there when the bridge started",
        "write 0, then the command if it is still wanted",
    ),
    ErrorCode.COMMAND_REFUSED: (
        "the station refused the command or did not answer",
        "see the bridge's log for its words",
    ),
    ErrorCode.RECIPE_UNKNOWN: (
        "RecipeID is not in 'recipes' of the bridge's file",
        "add it there, or correct the PLC",
    ),
    ErrorCode.SESSION_STANDING: (
        "Session stood there when the bridge started",
        "write 0 or another number",
    ),
    ErrorCode.TRIGGER_NO_SESSION: (
        "TriggerSeq changed before SessionEcho answered",
        "wait for SessionEcho, then trigger",
    ),
    ErrorCode.TRIGGER_NOT_READY: (
        "TriggerSeq changed while Ready was 0",
        "wait for Ready; the part is a FAULT",
    ),
    ErrorCode.TRIGGER_STEP: (
        "TriggerSeq repeats a number, or rose by more than 32,767",
        "only another Session clears this",
    ),
    ErrorCode.TRIGGER_STANDING: (
        "TriggerSeq stood there when the bridge started",
        "write 0 and another Session",
    ),
    ErrorCode.PART_ID: (
        "PartID has more than 64 characters, or one that is not printable ASCII",
        "correct it; the part is a FAULT",
    ),
    ErrorCode.LOT: (
        "Lot has more than 64 characters, or one that is not printable ASCII",
        "correct it; the part is a FAULT",
    ),
    ErrorCode.RESULTS_FULL: (
        "results wait in hundreds, because none is acknowledged",
        "acknowledge, or open another Session; the trigger gets no result",
    ),
    ErrorCode.COUNT_MISMATCH: (
        "camera and PLC counted different numbers of parts",
        "empty the line, then write another ResetCount",
    ),
    ErrorCode.RESET_NOT_EMPTY: (
        "ResetCount came while parts were on their way, or results waited for ResultAck",
        "wait for their results and acknowledge them; it then counts",
    ),
    ErrorCode.RECIPE_MISMATCH: (
        "RecipeID of a trigger is not ActiveRecipe",
        "change over first; the part is a FAULT",
    ),
    ErrorCode.MEAS_ID_USED: (
        "OPC UA: the MeasId of a call was used before",
        "give each part another one, or none",
    ),
    ErrorCode.ARGUMENT: (
        "OPC UA: a call names a product, or a parameter that there is not",
        "leave ProductId empty; Parameters may hold lot=... alone",
    ),
    ErrorCode.RESULT_UNKNOWN: (
        "OPC UA: no result has this ResultId, or the station does not answer",
        "take the ResultId from the event or the list",
    ),
}
"""What each error means, and its cure."""


class BridgeReason(str, enum.Enum):
    """Why a part is a FAULT for the PLC although the station may have judged it."""

    RESULT_OVERRUN = "result_overrun"
    RECIPE_MISMATCH = "recipe_mismatch"
    COUNT_MISMATCH = "count_mismatch"
    BAD_TEXT = "bad_text"
    REFUSED = "refused"
    RECORD_ONLY = "record_only"
    OTHER_PART = "other_part"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


REASON_CODES: Final[dict[str, int]] = {
    Reason.NONE.value: 0,
    Reason.ANOMALY.value: 1,
    Reason.NOT_FINITE.value: 2,
    Reason.FRAME_SHAPE.value: 3,
    Reason.FRAME_UNREADABLE.value: 4,
    Reason.INFERENCE_ERROR.value: 5,
    Reason.CAMERA_LOST.value: 6,
    Reason.QUEUE_FULL.value: 7,
    Reason.DEADLINE_MISSED.value: 8,
    Reason.TOO_DARK.value: 9,
    Reason.SATURATED.value: 10,
    Reason.OUT_OF_FOCUS.value: 11,
    Reason.FROZEN.value: 12,
    Reason.OVER_TRIGGER.value: 13,
    Reason.TRIGGER_CONFLICT.value: 14,
    Reason.NOT_READY.value: 15,
    Reason.RESTARTED.value: 16,
    Reason.JOURNAL_FAILED.value: 17,
    BridgeReason.RESULT_OVERRUN.value: 100,
    BridgeReason.RECIPE_MISMATCH.value: 101,
    BridgeReason.COUNT_MISMATCH.value: 102,
    BridgeReason.BAD_TEXT.value: 103,
    BridgeReason.REFUSED.value: 104,
    BridgeReason.RECORD_ONLY.value: 105,
    BridgeReason.OTHER_PART.value: 106,
    BridgeReason.ABORTED.value: 107,
    BridgeReason.UNKNOWN.value: 255,
}
"""Reason as a number: below 100 the station's (docs/wire.md), from 100 on the bridge's own."""

REASON_MEANINGS: Final = {
    BridgeReason.RESULT_OVERRUN.value: "eight results waited already for ResultAck",
    BridgeReason.RECIPE_MISMATCH.value: "RecipeID was not the recipe in force",
    BridgeReason.COUNT_MISMATCH.value: "camera and PLC counted different numbers of parts",
    BridgeReason.BAD_TEXT.value: "PartID or Lot cannot be read",
    BridgeReason.REFUSED.value: "the station refused the trigger",
    BridgeReason.RECORD_ONLY.value: "the verdict came as a record, which permits no PASS",
    BridgeReason.OTHER_PART.value: "the verdict that came was another part's",
    BridgeReason.ABORTED.value: "OPC UA: Abort or Halt was called before the verdict came",
    BridgeReason.UNKNOWN.value: "a reason of a later station than this bridge",
}
"""What the bridge's own reasons mean; docs/wire.md has the station's."""

VERDICT_CODES: Final = {Verdict.PASS: 1, Verdict.FAIL: 2, Verdict.FAULT: 3}
"""Verdict as a number; 0 is none."""

STATE_CODES: Final = {
    "": 0,
    "Preoperational": 1,
    "Initialized": 2,
    "Ready": 3,
    "SingleExecution": 4,
    "ContinuousExecution": 5,
    "Halted": 6,
    "Error": 7,
}
"""State as a number; 0: the bridge has no station."""


def reason_code(reason: str) -> int:
    """The number of a reason; that of ``unknown`` for one of a later station."""
    return REASON_CODES.get(reason, REASON_CODES[BridgeReason.UNKNOWN.value])
