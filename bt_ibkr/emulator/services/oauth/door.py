"""Who is let in: one door before the API and its WebSocket, and the paths at which credentials are had."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import web

from bt_ibkr.emulator.services import errors
from bt_ibkr.emulator.services.errors import JSON, ApiError
from bt_ibkr.emulator.services.json import decode, encode
from bt_ibkr.emulator.services.oauth import refusals
from bt_ibkr.emulator.services.oauth.client_folder import write_folder
from bt_ibkr.emulator.services.oauth.material import Material
from bt_ibkr.emulator.services.oauth.oauth1 import OAuth1
from bt_ibkr.emulator.services.oauth.oauth2 import OAuth2
from bt_ibkr.emulator.services.oauth.signature import Signed, parse
from bt_ibkr.emulator.services.session.state import Tier

if TYPE_CHECKING:
    from bt_ibkr.emulator.services.core import Core

_Answer = Callable[[web.Request], Awaitable[object]]


class Door:
    """Authentication of one emulator.

    Args:
        core: Its settings say what is asked for; a new credential logs the user on.
        prefix: Of the API's paths.

    Attributes:
        material: Keys and tokens; ``material.write(folder)`` gives a client its half.

    Raises:
        UsageError: A key file cannot be used.
    """

    def __init__(self, core: Core, prefix: str) -> None:
        self._core = core
        self._prefix = prefix
        settings = core.settings.authentication
        self._settings = settings
        self.kind = settings.kind
        self.material = Material(settings)
        wall = self._wall
        self.oauth1 = OAuth1(settings, self.material, wall)
        self.oauth2 = OAuth2(settings, self.material, core.settings.username, wall)
        #: The login file of a client, if its half was to be written.
        self.login_file: Path | None = None
        if settings.key_folder:
            self.login_file = write_folder(settings, core.settings.username, self.material)
        if self.kind != "gateway" and core.session.tier is Tier.READY:
            # A log-on by OAuth or token opens no brokerage session: the client must.
            core.set_tier(Tier.NO_BRIDGE)

    def _wall(self) -> float:
        # With the clock fault in it: a server whose clock differs refuses signatures, too.
        return self._core.wall_ms() / 1000

    def expire(self) -> None:
        """End every credential that was issued."""
        self.oauth1.expire()
        self.oauth2.expire()

    def admit(self, request: web.Request) -> None:
        """Let a request of the API pass; paths outside it have no door.

        Raises:
            ApiError: 400 or 401, as the real server refuses it.
        """
        if not request.path.startswith(self._prefix):
            return
        if self.kind == "oauth1a":
            self.oauth1.admit(_signed(request))
        elif self.kind in ("oauth2", "token"):
            self.oauth2.admit(request.headers.get("Authorization", ""), {})

    def admit_socket(self, request: web.Request) -> None:
        """Let a WebSocket pass; raises as ``admit``."""
        if self.kind == "oauth1a":
            self.oauth1.admit_socket(request.query.get("oauth_token", ""))
        elif self.kind in ("oauth2", "token"):
            self.oauth2.admit(request.headers.get("Authorization", ""), request.query)

    def add_routes(self, app: web.Application) -> None:
        """Serve the paths of the kind that is emulated."""
        router, prefix = app.router, self._prefix
        if self.kind == "oauth1a":
            router.add_post(f"{prefix}/oauth/request_token", self._endpoint(self._request_token))
            router.add_post(f"{prefix}/oauth/access_token", self._endpoint(self._access_token))
            router.add_post(f"{prefix}/oauth/live_session_token", self._endpoint(self._live_session_token))
            router.add_get("/authorize", self._authorize)
        elif self.kind == "oauth2":
            if self._settings.variant == "standard":
                router.add_post("/oauth2/api/v1/token", self._endpoint(self._token_by_form))
            else:
                router.add_post("/oauth/token", self._endpoint(self._token_by_json))
            router.add_post("/gw/api/v1/sso-sessions", self._endpoint(self._sso_session))

    def _endpoint(self, answer: _Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def respond(request: web.Request) -> web.Response:
            try:
                if "Content-Length" not in request.headers:
                    raise errors.length_required()
                self._core.pacing.admit(request.method, request.path)
                body = encode(await answer(request))
            except ApiError as problem:
                return _response(problem.status, problem.body, problem.content_type)
            return _response(200, body, JSON)

        return respond

    async def _request_token(self, request: web.Request) -> object:
        return self.oauth1.request_token(_signed(request))

    async def _access_token(self, request: web.Request) -> object:
        return self.oauth1.access_token(_signed(request))

    async def _live_session_token(self, request: web.Request) -> object:
        answer = self.oauth1.live_session_token(_signed(request))
        self._logged_on()
        return answer

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        """The page on which a user grants access; here every user does at once."""
        token = request.query.get("oauth_token", "")
        try:
            verifier = self.oauth1.authorize(token)
        except ApiError as problem:
            return _response(problem.status, problem.body, problem.content_type)
        target = request.query.get("redirect_uri", "")
        if target:
            more = urlencode({"oauth_token": token, "oauth_verifier": verifier})
            return web.Response(
                status=302, headers={"Location": f"{target}{'&' if '?' in target else '?'}{more}"}
            )
        return web.Response(text=verifier)

    async def _token_by_form(self, request: web.Request) -> object:
        if request.content_type != "application/x-www-form-urlencoded":
            raise refusals.problem(415, "Unsupported Media Type", "a form is expected")
        text = (await request.read()).decode("utf-8", "replace")
        return self.oauth2.token(dict(parse_qsl(text)), _url(request))

    async def _token_by_json(self, request: web.Request) -> object:
        if request.content_type != JSON:
            raise refusals.problem(415, "Unsupported Media Type", "JSON is expected")
        return self.oauth2.token(_object(await request.read()), _url(request))

    async def _sso_session(self, request: web.Request) -> object:
        if request.content_type != "application/jwt":
            raise refusals.problem(415, "Unsupported Media Type", "application/jwt is expected")
        answer = self.oauth2.sso_session(request.headers.get("Authorization", ""), await request.read())
        self._logged_on()
        return answer

    def _logged_on(self) -> None:
        if self._core.session.tier is Tier.LOGGED_OUT:
            self._core.set_tier(Tier.NO_BRIDGE)


def _object(raw: bytes) -> Mapping[str, object]:
    try:
        body = decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise refusals.bad("the body must be a JSON object")
    return body


def _url(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}{request.url.raw_path}"


def _signed(request: web.Request) -> Signed:
    authorization = request.headers.get("Authorization", "")
    return parse(request.method, _url(request), request.query, authorization)


def _response(status: int, body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": f"{content_type}; charset=utf-8", "Cache-Control": "no-store"}
    return web.Response(status=status, body=body, headers=headers)
