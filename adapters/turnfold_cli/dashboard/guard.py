"""Access control, before any page is made.

A browser also sends cookies with requests that another site has triggered. So a request
counts only if its `Host` is this host. A request that changes anything counts only if a
page of this host sent it, with the secret in the form that was made for this session.
`refusal` is the whole rule.
"""

from collections.abc import Mapping
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from attrs import frozen
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnfold_cli.dashboard.site import Session, Site

FREE = ("/login", "/style.css")  # without being logged in
_MOST = 65_536  # bytes of a form
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not `no-referrer`: a browser would then hide the origin of a form.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
Form = Mapping[str, str]


@frozen
class Refusal:
    status: int
    text: str


@frozen
class Asked:
    """The parts of a request that decide about its access."""

    method: str
    path: str
    headers: Headers
    session: Session | None
    form: Form


def refusal(site: Site, asked: Asked) -> Refusal | None:
    """Why this request is refused; None: it is allowed."""
    if asked.headers.get("host", "").lower() not in site.hosts():
        text = "this host name is not served here: start with --url ADDRESS"
        return Refusal(421, text)
    changes = asked.method not in ("GET", "HEAD")
    if changes and not _from_here(site, asked.headers):
        return Refusal(403, "this form was sent by another site")
    if asked.path in FREE or site.token is None:
        return None
    if asked.session is None:
        return Refusal(401, "log in first, or send Authorization: Bearer TOKEN")
    if changes and not _has_word(asked.session, asked.form):
        return Refusal(403, "this form is out of date: load the page again")
    return None


def _from_here(site: Site, headers: Headers) -> bool:
    """Does the request come from a page of this site, or from a program? A browser
    names the origin of every form; a program names none."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    parts = urlsplit(origin)
    scheme = "https" if site.secure else parts.scheme
    return parts.netloc.lower() in site.hosts() and parts.scheme == scheme


def _has_word(session: Session, form: Form) -> bool:
    """Does the form have the session's secret? With a bearer token it needs none: no
    other site can know the token."""
    given = form.get("csrf", "").encode("utf-8", "replace")
    return session.bearer or compare_digest(given, session.csrf.encode())


@frozen
class Guard:
    """Wraps all pages: finds the session, refuses requests, and sets security
    headers."""

    app: ASGIApp
    site: Site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        scope = dict(scope, path=_inside(self.site.prefix, scope["path"]))
        await (await self._answer(scope, receive))(scope, receive, safe)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        body = await _body(receive) if scope["method"] == "POST" else b""
        headers = Headers(scope=scope)
        if body is None:
            return PlainTextResponse("the form is too long", 413)
        scope["state"] = state = dict(scope.get("state", {}))
        state["session"] = _session(self.site, headers)
        state["form"] = _form(body)
        path = scope["path"]
        found = refusal(
            self.site,
            Asked(scope["method"], path, headers, state["session"], state["form"]),
        )
        if found is None:
            return self.app
        if found.status == 401 and not path.endswith(".json"):
            query = scope["query_string"].decode("latin-1")
            back = urlencode({"to": f"{path}?{query}" if query else path})
            return RedirectResponse(f"{self.site.prefix}/login?{back}", 303)
        return _said(found, path)


def _inside(prefix: str, path: str) -> str:
    """The path without the proxy's prefix; some proxies have removed it already."""
    return path[len(prefix) :] if path.startswith(f"{prefix}/") else path


def _said(found: Refusal, path: str) -> ASGIApp:
    if path.endswith(".json"):
        error = {"code": "refused", "message": found.text}
        more = {"www-authenticate": "Bearer"} if found.status == 401 else {}
        return JSONResponse({"error": error}, found.status, more)
    return PlainTextResponse(f"{found.text}\n", found.status)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too long."""
    data = b""
    while True:
        message = await receive()
        data += bytes(message.get("body", b""))
        if len(data) > _MOST:
            return None
        if not message.get("more_body"):
            return data


def _form(body: bytes) -> Form:
    found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[-1] for name, values in found.items()}


def _session(site: Site, headers: Headers) -> Session | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if kind.lower() == "bearer" else None
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        cookies = SimpleCookie()
    cookie = cookies[site.cookie].value if site.cookie in cookies else None
    return site.session(cookie, bearer)
