"""Logging in and out."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inspector.console.access import RefusedError, take_up_to
from inspector.console.app import body
from inspector.console.sessions import Session, Sessions, Tries, network_of
from inspector.console.users import LONGEST, BusyError, Users
from inspector.logs import Refusals, say

LOG_IN: Final = "/api/log-in"
_BODY: Final = 4096


class LogIn:
    """The routes ``/api/log-in`` and ``/api/log-out``, where there are users."""

    def __init__(self, users: Users, sessions: Sessions, refusals: Refusals) -> None:
        self._users = users
        self._sessions = sessions
        self._refusals = refusals
        self._tries_of_name = Tries(5, 12.0)
        self._tries_of_address = Tries(20, 6.0)
        self.routes = (
            Route(LOG_IN, self._log_in, methods=["POST"]),
            Route("/api/log-out", self._log_out, methods=["POST"]),
        )

    async def _log_in(self, request: Request) -> Response:
        take_up_to(request, _BODY)
        told = await body(request)
        name, password = told.get("name"), told.get("password")
        if not isinstance(name, str) or not isinstance(password, str) or len(password) > LONGEST:
            raise RefusedError(400, "malformed")
        address = request.client.host if request.client else ""
        # The address comes first: whoever tries many names takes no try from any of them.
        wait_s = self._tries_of_address.take(network_of(address))
        wait_s = wait_s or self._tries_of_name.take(name[:LONGEST])
        if wait_s:
            self._refusals.say(address, "tries to log in too often")
            raise RefusedError(429, "too_often", f"{math.ceil(wait_s)} s")
        try:
            user = await self._users.check(name, password)
        except BusyError:
            raise RefusedError(503, "many_log_in") from None
        if user is None:
            # A name that nobody has may be a password, typed one field too early.
            known = f" for {name}" if self._users.find(name) else ", or unknown name"
            self._refusals.say(address, f"wrong password{known}")
            raise RefusedError(403, "password")
        session = self._sessions.begin(name, user)
        request.state.set_cookie = self._sessions.cookie(session)
        say("log-in", name=name, role=user.role, address=address)
        return JSONResponse({"name": name, "role": user.role})

    async def _log_out(self, request: Request) -> Response:
        session: Session | None = getattr(request.state, "session", None)
        if session is not None:
            self._sessions.end(session)
            await asyncio.to_thread(self._sessions.remember)
            say("log-out", name=session.name)
        request.state.set_cookie = ""
        return JSONResponse({})
