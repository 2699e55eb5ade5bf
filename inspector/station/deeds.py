"""What people did to the station, as the journal keeps it: who, when, what, from and to."""

from __future__ import annotations

from inspector.detection.manifest import Manifest
from inspector.journal.schema import BundleInForce, Deed, LimitInForce
from inspector.wire.messages import (
    AcknowledgeCommand,
    DeedKind,
    InstallCommand,
    LimitCommand,
    RecipeCommand,
    ReloadCommand,
    ResetCommand,
    RevertCommand,
    StartCommand,
    StopCommand,
)
from inspector.wire.requests import Request

_Ordered = (
    RecipeCommand
    | ReloadCommand
    | StartCommand
    | StopCommand
    | ResetCommand
    | LimitCommand
    | AcknowledgeCommand
    | InstallCommand
    | RevertCommand
)


def deed_of(
    request: Request, *, subject: str = "", before: str = "", after: str = "", note: str = ""
) -> Deed:
    """What ``request`` ordered, done. Raises ValueError for a command that is no deed."""
    command = request.command
    if not isinstance(command, _Ordered):
        raise ValueError(f"'{command.command}' is no deed")
    kind: DeedKind = command.command
    return Deed(
        at_us=request.received_us,
        kind=kind,
        client=request.client,
        by=command.by,
        subject=subject,
        before=before,
        after=after,
        note=note,
    )


def parts_taught(before: Manifest, after: Manifest) -> int:
    """How many good parts ``after`` was taught that ``before`` was not; 0 for any other model."""
    more = after.lineage[len(before.lineage) :]
    if not more or more[0].parent_fingerprint != before.training_fingerprint:
        return 0
    return sum(lesson.parts for lesson in more)


def limit_deed(
    limit: LimitInForce,
    before: float,
    *,
    at_us: int,
    client: str = "",
    by: str = "",
    note: str = "",
) -> Deed:
    """A camera is judged by another factor on the limit."""
    subject = f"{limit.recipe}/{limit.camera}"
    return Deed(at_us, "limit", client, by, subject, f"{before:g}", f"{limit.limit_factor:g}", note)


def bundle_deed(
    bundle: BundleInForce, before: str, after: str, *, at_us: int, note: str = ""
) -> Deed:
    """A camera went back from ``before`` to ``after``, an earlier bundle, by nobody's command."""
    return Deed(at_us, "revert", "", "", f"{bundle.recipe}/{bundle.camera}", before, after, note)
