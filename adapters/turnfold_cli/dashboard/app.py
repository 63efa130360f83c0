"""The dashboard as an ASGI application: addresses, forms, and errors as pages."""

from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from turnfold_cli.common import RefusedError, SeveralError, shown_rows
from turnfold_cli.dashboard import looks, pages
from turnfold_cli.dashboard.asking import KNOWN, Query, Trouble, trouble
from turnfold_cli.dashboard.deciding import Desk
from turnfold_cli.dashboard.guard import Guard
from turnfold_cli.dashboard.jobs import Jobs
from turnfold_cli.dashboard.looks import Cell, Page, link, table
from turnfold_cli.dashboard.site import Session, Site
from turnfold_cli.output import to_json

LOOKS: Mapping[str, Callable[[Site, Query], Page]] = {
    "status": pages.status,
    "list": pages.list_,
    "turns": pages.turns,
    "find": pages.find,
    "show": pages.show,
    "stats": pages.stats,
    "gates": pages.gates,
    "worker": pages.worker,
    "channels": pages.channels,
    "inbox": pages.inbox,
}
_LIVE = (2, 3600)  # seconds between two loads of a page


class Dashboard:
    """All pages of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.desk = Desk(site, Jobs(site))
        self.looks = looks.environment(site)

    def app(self) -> ASGIApp:
        """The application, with its guard around it."""
        makes = {name: self._look(make) for name, make in LOOKS.items()}
        makes["act"] = self._preview
        makes["run"] = lambda request: self.desk.run(_query(request))
        makes["audit"] = lambda request: self.desk.audit(_query(request))
        routes = [
            Route("/", self._page(makes["status"], "status")),
            Route("/style.css", _style),
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
            Route("/act", self._decide, methods=["POST"]),
            Route("/audit", self._audit, methods=["POST"]),
        ]
        for name, make in makes.items():
            routes.append(Route(f"/{name}", self._page(make, name)))
            routes.append(Route(f"/{name}.json", self._data(make)))
        errors = {HTTPException: self._no_page}
        inner = Starlette(routes=routes, exception_handlers=errors, lifespan=self._life)
        return Guard(inner, self.site)

    @asynccontextmanager
    async def _life(self, _: object) -> Any:
        yield
        self.site.stopping.set()

    def _look(self, make: Callable[[Site, Query], Page]) -> Callable[[Request], Page]:
        return lambda request: make(self.site, _query(request))

    # --- pages and data ---

    def _page(self, make: Callable[[Request], Page], name: str) -> Any:
        def handle(request: Request) -> Response:
            try:
                page = make(request)
            except KNOWN as exc:
                page = _error(exc)
            return self._html(request, page, name)

        return handle

    def _data(self, make: Callable[[Request], Page]) -> Any:
        def handle(request: Request) -> Response:
            try:
                page = make(request)
            except KNOWN as exc:
                page = _error(exc)
            return _json(page.data, page.status)

        return handle

    def _html(self, request: Request, page: Page, name: str) -> Response:
        session = _session(request)
        given = dict(request.query_params)
        live = _live(given.pop("live", ""))
        text = self.looks.get_template(f"{page.template}.html").render(
            page=page,
            name=name,
            session=session,
            acts=self.site.acts and session is not None,
            csrf=Markup("") if session is None else session.csrf,
            live=live if page.moves else None,
            here=link(f"/{name}", given),
            moving=link(f"/{name}", given | {"live": "10"}),
            data=link(f"/{name}.json", given),
            **page.facts,
        )
        # No text of a store has a lone surrogate, but an address may have one.
        return Response(
            text.encode("utf-8", "replace"),
            page.status,
            media_type="text/html; charset=utf-8",
        )

    def _no_page(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)  # noqa: S101  registered for it alone
        text = {404: "there is no such page", 405: "this page takes no such request"}
        said = Trouble(exc.status_code, "page", text.get(exc.status_code, exc.detail))
        page = _told(said)
        if request.url.path.endswith(".json"):
            return _json(page.data, page.status)
        return self._html(request, page, "error")

    # --- forms ---

    def _preview(self, request: Request) -> Page:
        return self.desk.preview(_query(request), self._actor(request))

    def _actor(self, request: Request) -> Session | None:
        return _session(request) if self.site.acts else None

    def _decide(self, request: Request) -> Response:
        try:
            where = self.desk.decide(request.state.form, self._actor(request))
        except KNOWN as exc:
            return self._html(request, _error(exc), "act")
        return self._go(where)

    def _audit(self, request: Request) -> Response:
        try:
            self.desk.start_audit()
        except RefusedError as exc:
            return self._html(request, _error(exc), "audit")
        return self._go("/audit?live=2")

    def _login_page(self, request: Request) -> Response:
        page = _login(_inner(request.query_params.get("to", "")))
        return self._html(request, page, "login")

    def _log_in(self, request: Request) -> Response:
        form = request.state.form
        name, to = form.get("name", "").strip()[:100], _inner(form.get("to", ""))
        if not self.site.knows(form.get("token", "").strip()):
            return self._html(request, _login(to, "that is not the token"), "login")
        if not name:
            wrong = "say who you are: the log keeps it beside what you decide"
            return self._html(request, _login(to, wrong), "login")
        answer = self._go(to)
        self._set_cookie(answer, self.site.log_in(name))
        return answer

    def _set_cookie(self, answer: Response, session: Session) -> None:
        answer.set_cookie(
            self.site.cookie,
            session.key,
            httponly=True,
            samesite="lax",
            secure=self.site.secure,
            path=self.site.prefix or "/",
        )

    def _log_out(self, request: Request) -> Response:
        session = _session(request)
        if session is not None:
            self.site.sessions.take(session.key)
        answer = self._go("/login")
        answer.delete_cookie(self.site.cookie, path=self.site.prefix or "/")
        return answer

    def _go(self, where: str) -> Response:
        return RedirectResponse(f"{self.site.prefix}{where}", 303)


def _login(to: str, wrong: str = "") -> Page:
    """`wrong`: the reason why a log-in was refused."""
    facts = {"to": to, "wrong": wrong}
    page = Page(template="login", title="Log in", data={}, facts=facts, moves=False)
    return evolve(page, status=403) if wrong else page


def _style(_: Request) -> Response:
    return Response(looks.STYLE, media_type="text/css; charset=utf-8")


def _query(request: Request) -> Query:
    return Query(request.query_params)


def _session(request: Request) -> Session | None:
    found = getattr(request.state, "session", None)
    return found if isinstance(found, Session) else None


def _inner(where: str) -> str:
    """An address of this site; an address of another site becomes the start page."""
    outer = not where.startswith("/") or where.startswith("//") or "\\" in where
    return "/" if outer else where


def _live(word: str) -> int | None:
    least, most = _LIVE
    if not (word.isascii() and word.isdigit()):
        return None
    return max(least, min(most, int(word[:6])))


def _json(data: object, status: int) -> Response:
    text = to_json(data) + "\n"
    return Response(text.encode(), status, media_type="application/json")


# --- errors ---


def _error(exc: Exception) -> Page:
    found = trouble(exc)
    rows: list[dict[str, str | Cell]] = []
    if isinstance(exc, SeveralError):
        for row, cells in zip(exc.rows, shown_rows(exc.rows), strict=True):
            rows.append({**cells, "id": Cell(row.short, link("/show", {"id": row.id}))})
    return _told(found, rows)


def _told(found: Trouble, rows: list[dict[str, str | Cell]] | None = None) -> Page:
    return Page(
        template="error",
        title="Not found" if found.status == 404 else "That did not work",
        data={"error": {"code": found.code, "message": found.text}},
        facts={"text": found.text, "found": table(rows or [])},
        status=found.status,
        moves=found.status == 503,
    )
