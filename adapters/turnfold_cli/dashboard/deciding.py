"""The pages that act: a preview, the person's decision, and its result.

A preview keeps the version of each turn and entry that it showed. An act on a stream
that has moved since is refused. The first form with a preview uses the preview up.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import typer
from attrs import field, frozen

from turnfold.api.acts import Act, Acted
from turnfold.audit import Report
from turnfold.inspect import GateView, Inspect, Row
from turnfold_cli import USAGE, filters
from turnfold_cli.acting import (
    PAGE,
    Chosen,
    Preview,
    act_on,
    asked_for,
    previewed,
    told_of,
)
from turnfold_cli.audit import (
    Wanted,
    audits_of,
    finding_cells,
    head_text,
    redacted,
    seen,
    shape,
    verdict,
)
from turnfold_cli.common import RefusedError, ask, opened, place_text
from turnfold_cli.dashboard.asking import ENTRIES, TIMES, TURNS, VERDICTS, Query
from turnfold_cli.dashboard.jobs import Job, Jobs
from turnfold_cli.dashboard.looks import Cell, Page, link, table
from turnfold_cli.dashboard.site import Kept, Session, Site
from turnfold_cli.gates import gate_cells
from turnfold_cli.holding import GATE, moved, places_of
from turnfold_cli.output import age, clean, clock, now_ms, plain, span, when
from turnfold_cli.times import length

_SHOWN = 50  # rows of a preview
_HOW = ("do", "id", "seen", "verdict", "accept_duplicate", "turns", "for", "open")
_READ_ONLY = "this dashboard only reads; start it with --acts, or type the command"


@frozen(kw_only=True)
class Ready:
    """A preview that waits for one person's decision. `places`: of gates. `gates`: the
    gates that were closed there, each with its closing time."""

    act: str
    of: str  # the session
    extra: Mapping[str, Any]
    targets: Sequence[Chosen] = ()
    places: Sequence[str] = ()
    gates: Mapping[str, tuple[int, str | None]] = field(factory=dict)
    about: str = ""


@frozen
class Desk:
    """The waiting previews, and the jobs that they started."""

    site: Site
    jobs: Jobs
    ready: Kept[Ready] = field(factory=lambda: Kept(900, 20))

    # --- what would be done ---

    def preview(self, query: Query, session: Session | None) -> Page:
        if session is None:
            raise RefusedError(_READ_ONLY, USAGE)
        query = query.check(*_HOW, *ENTRIES, *TURNS, *TIMES, "sender")
        act = query.one("do") or ""
        if act in ("open", "close"):
            ready, facts = self._places(act, query, session)
        else:
            ready, facts = self._streams(act, query, session)
        name = secrets.token_urlsafe(18)
        self.ready.put(name, ready)
        rows: Any = facts["rows"]
        data = {
            "act": act,
            "preview": name,
            "lines": facts["lines"],
            "ids": [plain(one) for one in ready.targets] or list(ready.places),
        }
        facts |= {"preview": name, "count": len(ready.targets) or len(ready.places)}
        facts |= {"found": table(rows), "act": act, "word": _word(act, ready.extra)}
        title = _word(act, ready.extra)
        return Page(template="act", title=title, data=data, facts=facts, moves=False)

    def _streams(
        self, name: str, query: Query, session: Session
    ) -> tuple[Ready, dict[str, Any]]:
        act = _act(name)
        extra = _extra(act, query)
        wanted = query.one("id")
        if wanted is not None:
            found = self._one(act, wanted)
        else:
            want = _wanted(act, query)
            question = want.filter(self.site.address, limit=PAGE)
            found = asyncio.run(previewed(act, self.site.address, question, want))
        version = query.number("seen", None, 10**15)
        targets = [_chosen(act, row, version) for row in found.rows]
        lines = list(told_of(act, found, **extra))
        about = f"{_word(name, extra)}: {lines[0].partition(': ')[2]}"
        ready = Ready(
            act=act, of=session.key, extra=extra, targets=targets, about=about
        )
        rows = [_shown(row) for row in found.rows[:_SHOWN]]
        return ready, {"lines": [about, *lines[1:]], "rows": rows}

    def _one(self, act: Act, wanted: str) -> Preview:
        async def found(i: Inspect) -> tuple[Row, ...]:
            return await i.rows((await i.resolve(wanted),), words=True)

        rows = ask(self.site.address, found)
        if not rows:
            raise RefusedError(f"{wanted!r:.80} is no turn and no entry", USAGE)
        asked = asyncio.run(self._asked(act))
        left = tuple(row for row in rows if row.id not in asked)
        return Preview(rows=left, others=0, asked=len(rows) - len(left))

    async def _asked(self, act: Act) -> set[str]:
        async with opened(self.site.address) as store:
            return await asked_for(act, store)

    def _places(
        self, act: str, query: Query, session: Session
    ) -> tuple[Ready, dict[str, Any]]:
        names = [query.one(n) for n in ("id", "channel", "account")]
        if (names[0] is None) == (names[1] is None and names[2] is None):
            raise RefusedError("which? give a place, or a channel", USAGE)
        address = self.site.address
        places = asyncio.run(places_of(act, address, *names))
        closed = ask(address, lambda i: i.gates())
        for_ = query.one("for")
        extra = {} if for_ is None else {"for_ms": length(for_, "for")}
        ready = Ready(
            act=act,
            of=session.key,
            extra=extra,
            places=places,
            gates=_states(closed),
            about=f"{act} {', '.join(p.removeprefix(GATE) for p in places[:5])}",
        )
        shown = [gate_cells(g) for g in closed if _about(g, places)]
        lines = [f"{ready.about}" + (f" for {for_}" if for_ else "")]
        return ready, {"lines": lines, "rows": shown}

    # --- doing it ---

    def decide(self, form: Mapping[str, str], session: Session | None) -> str:
        """Begin the act of a preview. Returns the address of the page with its
        progress."""
        if session is None:
            raise RefusedError(_READ_ONLY, USAGE)
        by = session.name or form.get("by", "").strip()
        if not by:
            raise RefusedError("by: say who decides", USAGE)
        ready = self.ready.get(form.get("preview", ""))
        if ready is None or ready.of != session.key:
            text = "this preview is used up or too old: look again"
            raise RefusedError(text, USAGE)
        total = len(ready.targets) or len(ready.places)
        why = form.get("why", "").strip()
        job = Job(about=ready.about, by=by, why=why, total=total)
        self.jobs.start(job, partial(self._do, ready))
        self.ready.take(form["preview"])
        typer.echo(f"{clock(job.began)} {clean(by)}: {clean(job.about)}", err=True)
        return link("/run", {"id": job.id, "live": "2"})

    def _do(self, ready: Ready, job: Job) -> None:
        if ready.places:
            self._move(ready, job)
            return

        def tell(acted: Acted) -> bool:
            error = None if acted.error is None else str(acted.error)
            job.note(acted.done, acted.id, error)
            self.jobs.go_on()
            return True

        said = {"by": job.by, "why": job.why, **ready.extra}
        work = act_on(Act(ready.act), self.site.address, ready.targets, tell, **said)
        asyncio.run(work)

    def _move(self, ready: Ready, job: Job) -> None:
        now = _states(ask(self.site.address, lambda i: i.gates()))
        changed = [p for p in ready.places if now.get(p) != ready.gates.get(p)]
        for place in changed:
            job.note(None, place, "it has changed since you looked; look again")
        places = [place for place in ready.places if place not in changed]
        done = asyncio.run(
            moved(
                ready.act,
                self.site.address,
                places,
                ready.extra,
                by=job.by,
                why=job.why,
            )
        )
        for place, said in done:
            failed = said.startswith("not done")
            job.note(said.partition(":")[0], place, said if failed else None)

    def run(self, query: Query) -> Page:
        """The progress of a job."""
        name = query.check("id").one("id") or ""
        job = self.jobs.get(name)
        if job is None:
            raise RefusedError("there is no job of this name", USAGE)
        data = {
            "about": job.about,
            "by": job.by,
            "why": job.why,
            "state": job.word,
            "of": job.total,
            "done": dict(job.done),
            "refused": [{"id": i, "error": e} for i, e in job.refused],
            "error": job.error,
        }
        refused: list[dict[str, str | Cell]] = [
            {"id": Cell(i, link("/show", {"id": i})), "why": e} for i, e in job.refused
        ]
        facts = {
            "job": job,
            "done": ", ".join(f"{n} {c:,}" for n, c in job.done.most_common()),
            "refused": table(refused),
            "took": span((job.ended or now_ms()) - job.began),
        }
        return Page(
            template="run", title=job.about, data=data, facts=facts, moves=job.active
        )

    # --- the audit ---

    def audit(self, query: Query) -> Page:
        query.check()
        job = self.jobs.audit
        data: dict[str, Any] = {"audit": None if job is None else job.word}
        facts: dict[str, Any] = {"job": job, "report": None}
        reports: Sequence[Report] = () if job is None else job.result or ()
        if job is not None and job.ended is not None and reports:
            seconds = (job.ended - job.began) / 1000
            data = shape(self.site.shown, reports, seconds)
            facts["when"] = (
                f"{when(job.ended)}, {age(job.ended)} ago, in {seconds:.1f} s"
            )
        facts["reports"] = [_told(report) for report in reports]
        moves = job is not None and job.active
        return Page(
            template="audit", title="Audit", data=data, facts=facts, moves=moves
        )

    def start_audit(self) -> None:
        def work(job: Job) -> object:
            def tell(position: int) -> None:
                job.at = position
                self.jobs.go_on()

            return audits_of(self.site.address, Wanted(limit=100), tell)

        self.jobs.start_audit(work)


def _told(report: Report) -> Mapping[str, Any]:
    """The audit of one chain for the page."""
    return {
        "verdict": verdict(report),
        "seen": seen(report),
        "head": head_text(report),
        "passed": report.passed,
        "rows": table(finding_cells(one) for one in report.findings),
        "more": report.found - len(report.findings),
        "redacted": redacted(report) if report.redacted else "",
        "unchecked": report.unchecked,
    }


_OF_TURNS = (Act.UNHOLD, Act.RESUBMIT)


def _wanted(act: Act, query: Query) -> filters.Wanted:
    """The filters, as the command of the act takes them."""
    whole = act is Act.REDACT and query.one("sender") is not None
    of_turns = query.flag("turns") or act in _OF_TURNS or whole
    want = query.wanted(turns=of_turns)
    if not want.any:
        raise RefusedError("which? give an id, or filters", USAGE)
    return want


def _act(name: str) -> Act:
    if name not in [*Act]:
        text = f"do: no act {name!r:.40}; there are: {', '.join(Act)}, close"
        raise RefusedError(text, USAGE)
    return Act(name)


def _extra(act: Act, query: Query) -> dict[str, Any]:
    if act is Act.RETRY:
        return {"accept_duplicate": query.flag("accept_duplicate")}
    if act is not Act.RESOLVE:
        return {}
    said = query.one("verdict")
    if said not in VERDICTS:
        raise RefusedError(f"verdict: one of {', '.join(VERDICTS)}", USAGE)
    return {"verdict": said}


def _chosen(act: Act, row: Row, version: int | None) -> Chosen:
    """The id with its version. An abort names no version, as on the command line: it
    applies to any later state."""
    if version is not None:
        return Chosen(id=row.id, version=None if act is Act.ABORT else version)
    return Chosen(id=row.id, version=row.version)


def _word(act: str, extra: Mapping[str, Any]) -> str:
    more = extra.get("verdict", "")
    if extra.get("accept_duplicate"):
        more = "even if it may be seen twice"
    return f"{act} {more}".strip()


def _shown(row: Row) -> Mapping[str, str | Cell]:
    return {
        "id": Cell(row.short, link("/show", {"id": row.id})),
        "age": age(row.created),
        "status": row.status,
        "to": place_text(row.channel, row.account, row.conversation),
        "why": row.failure or row.reason or "",
        "words": row.words or "",
    }


def _states(closed: Sequence[GateView]) -> dict[str, tuple[int, str | None]]:
    """The closed gates by their names and their places, each with time and reason,
    which show a later move."""
    states = {}
    for gate in closed:
        states[gate.id] = states[gate.id.removeprefix(GATE)] = gate.since, gate.reason
    return states


def _about(gate: GateView, places: Sequence[str]) -> bool:
    names = [place.removeprefix(GATE) for place in places]
    own = gate.id.removeprefix(GATE)
    return any(own == name or own.startswith(f"{name}/") for name in names)
