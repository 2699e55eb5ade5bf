"""What a person at the page may have a station do, and which role it takes."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.client import Commander
from inspector.console.access import RefusedError, Role, allowed
from inspector.console.app import body, line_of
from inspector.console.scores import control_of
from inspector.logs import say

_ROLES: Final[dict[str, Role]] = {
    "mark": "operator",
    "acknowledge": "operator",
    "recipe": "operator",
    "start": "operator",
    "stop": "operator",
    "reset": "operator",
    "reload": "engineer",
    "limit": "engineer",
}


async def _deed(request: Request) -> Response:
    deed = request.path_params["deed"]
    if deed not in _ROLES:
        raise RefusedError(404, "unknown")
    who = allowed(request, _ROLES[deed])
    line, told = line_of(request), await body(request)
    if deed == "recipe" and await line.ask(control_of) is not None:
        # The PLC may change it back: somebody must know what they do.
        allowed(request, "engineer")
        if told.get("take_over") is not True:
            raise RefusedError(409, "plc_control")

    def act(commander: Commander) -> str | None:
        match deed:
            case "mark":
                commander.mark(
                    told["epoch"], told["seq"], told["label"], told.get("note", ""), by=who.name
                )
                return ""
            case "acknowledge":
                return commander.acknowledge(told["kind"], told["where"], by=who.name)
            case "recipe":
                return commander.recipe(told["recipe"], by=who.name)
            case "limit":
                return commander.limit(
                    told["recipe"], told["camera"], told["limit_factor"], by=who.name
                )
            case _:
                order: Any = getattr(commander, deed)
                return str(order(by=who.name))

    try:
        detail = await line.order(act)
    except (KeyError, TypeError) as error:
        raise RefusedError(400, "malformed", str(error)) from None
    say("deed", station=line.name, deed=deed, by=who.name)
    return JSONResponse({"detail": detail or ""})


ROUTES: Final = (Route("/api/stations/{station}/deeds/{deed}", _deed, methods=["POST"]),)
