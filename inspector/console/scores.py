"""What the page shows of models and limits: by what is judged, and how the last parts scored."""

from __future__ import annotations

import collections
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.client import Viewer
from inspector.console.access import RefusedError, person
from inspector.console.app import line_of, number, well_formed
from inspector.errors import CommandError
from inspector.wire.judging import JudgingField
from inspector.wire.messages import VerdictMessage
from inspector.wire.queries import HistoryQuery, PictureQuery

_PARTS: Final = 1000
"""The last parts of a camera that are compared with a limit."""
_MOST_PAGES: Final = 40
"""A journal may have long stretches that are not of this camera."""
_FRESH_S: Final = 1.0
_SHARE: Final = 0.1
"""Looking through the history may take this share of the time that a station is watched."""
_CONTROL_S: Final = 600.0
"""A PLC that has triggered so lately has the control."""
_LOOKED_THROUGH: Final = 10
_NEVER: Final = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Control:
    """A PLC, or its bridge, has triggered lately and may change the recipe.

    ``client`` is the name of its key, "" without keys; ``at_us``: when the last part that it
    triggered was judged.
    """

    client: str
    at_us: int


def control_of(viewer: Viewer, told: JudgingField | None = None) -> Control | None:
    """Who has the control of the line, if it is not the people before it.

    ``told``: what the station has just said of itself; None: it is asked. Raises
    :class:`CommandError`.
    """
    told = told or viewer.judging()
    # Both times are the station's.
    since_us = told.at_us - round(_CONTROL_S * 1e6)
    found: list[Control] = []
    for camera in told.cameras:
        # Each by itself: another one may see many parts that need no trigger.
        asked = HistoryQuery(camera=camera.camera, since_us=max(0, since_us), limit=_LOOKED_THROUGH)
        answer, _ = viewer.ask(asked)
        found += [
            Control(one.client, one.judged_us)
            for one in (entry.verdict for entry in answer.entries)
            if one.session and one.client in told.controllers
        ]
    return max(found, key=lambda one: one.at_us, default=None)


class _Recent:
    """The last production parts of one camera, the newest first; used by one thread."""

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._due_s = float("-inf")
        self.parts: collections.deque[dict[str, Any]] = collections.deque(maxlen=_PARTS)
        self.marked: list[dict[str, Any]] = []

    def refresh(self, viewer: Viewer) -> None:
        """Ask for what came since. Raises :class:`CommandError`."""
        begun_s = time.monotonic()
        if begun_s < self._due_s:
            return
        known = {(one["epoch"], one["seq"]) for one in self.parts}
        found: list[dict[str, Any]] = []
        query = HistoryQuery(camera=self._camera)
        for _ in range(_MOST_PAGES):
            answer, _ = viewer.ask(query)
            verdicts = [entry.verdict for entry in answer.entries]
            fresh = [one for one in verdicts if (one.epoch, one.seq) not in known]
            found += [_told(one) for one in fresh if one.counts]
            query = query.model_copy(
                update={"before_epoch": answer.next_epoch, "before_seq": answer.next_seq}
            )
            is_met = len(fresh) < len(verdicts)
            if is_met or answer.next_epoch is None or len(found) >= _PARTS:
                break
        for one in reversed(found[:_PARTS]):
            self.parts.appendleft(one)
        answer, _ = viewer.ask(HistoryQuery(camera=self._camera, marked=True))
        self.marked = [
            _told(entry.verdict) | {"label": entry.marks[-1].label}
            for entry in answer.entries
            if entry.marks
        ]
        done_s = time.monotonic()
        self._due_s = done_s + max(_FRESH_S, (done_s - begun_s) / _SHARE)


def _told(verdict: VerdictMessage) -> dict[str, Any]:
    """What the page needs of a verdict; ``raw`` is in units of the bundle's own limit."""
    score, factor = verdict.score, verdict.limit_factor
    return {
        "epoch": verdict.epoch,
        "seq": verdict.seq,
        "part_id": verdict.part_id,
        "at_us": verdict.judged_us,
        "verdict": verdict.verdict.value,
        "raw": None if score is None else score * factor,
        "recipe": verdict.recipe,
        "sha256": "" if verdict.model is None else verdict.model.sha256,
    }


class Scores:
    """The routes of models and limits; what was read of the history is kept between requests."""

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], _Recent] = {}
        """By station and camera; used by the thread that asks that station."""

    def routes(self) -> list[Route]:
        """For the application."""
        base = "/api/stations/{station}"
        return [
            Route(f"{base}/judging", self._judging),
            Route(f"{base}/scores/{{camera}}", self._scores),
            Route(f"{base}/thumbnails/{{epoch}}/{{seq:number}}", _thumbnail),
        ]

    async def _judging(self, request: Request) -> Response:
        person(request)

        def look(viewer: Viewer) -> dict[str, Any]:
            told = viewer.judging()
            control = control_of(viewer, told)
            found = None if control is None else asdict(control)
            return told.model_dump(mode="json") | {"control": found}

        return JSONResponse(await line_of(request).ask(look), headers=_NEVER)

    async def _scores(self, request: Request) -> Response:
        """The last parts under the recipe and model in force, and those that are marked."""
        person(request)
        line, camera = line_of(request), request.path_params["camera"]

        def look(viewer: Viewer) -> dict[str, Any]:
            judged = next((one for one in viewer.judging().cameras if one.camera == camera), None)
            if judged is None:
                raise RefusedError(404, "unknown")
            recent = self._recent.setdefault((line.name, camera), _Recent(camera))
            recent.refresh(viewer)
            sha256 = judged.model.sha256
            return {
                "parts": [
                    _without_model(one)
                    for one in recent.parts
                    # A part that was not judged has no model.
                    if one["recipe"] == judged.recipe and one["sha256"] in {sha256, ""}
                ],
                "marked": [_without_model(one) for one in recent.marked if one["sha256"] == sha256],
            }

        return JSONResponse(await line.ask(look), headers=_NEVER)


def _without_model(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in {"recipe", "sha256"}}


async def _thumbnail(request: Request) -> Response:
    """A small JPEG of a part; no content where there is none."""
    person(request)
    epoch, seq = request.path_params["epoch"], request.path_params["seq"]
    with well_formed():
        asked = PictureQuery(
            epoch=epoch, seq=seq, heatmap=False, longest_px=number(request, "px", "200")
        )

    def look(viewer: Viewer) -> bytes | None:
        try:
            _, frames = viewer.ask(asked)
        except CommandError as error:
            if error.code != "unknown":
                raise
            return None
        return frames[0]

    found = await line_of(request).look(look)
    if found is None:
        return Response(status_code=204, headers=_NEVER)
    return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private"})
