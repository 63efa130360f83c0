"""Work that outlives a request: acts on many, and audits. A job runs in a thread of its
own, ends early when the dashboard stops, and a page shows its progress."""

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field

from turnfold.errors import TurnfoldError
from turnfold_cli.common import RefusedError
from turnfold_cli.dashboard.site import Site
from turnfold_cli.output import now_ms

_MOST = 50  # jobs that are remembered
_AT_ONCE = 4
_REFUSED = 100  # refusals that are listed


class StoppedError(Exception):
    """The dashboard ends; a job stops between two acts."""


@define
class Job:
    """`word`: under way, done, stopped or failed. `done`: how many reached each result.
    `total`: None if not known."""

    about: str
    by: str = ""
    why: str = ""
    total: int | None = None
    began: int = field(factory=now_ms)
    ended: int | None = None
    word: str = "under way"
    error: str = ""
    at: int = 0
    done: Counter[str] = field(factory=Counter)
    refused: list[tuple[str, str]] = field(factory=list)
    others_refused: int = 0
    result: Any = None
    id: str = field(factory=lambda: secrets.token_urlsafe(12))

    @property
    def active(self) -> bool:
        return self.ended is None

    def note(self, done: str | None, name: str, error: str | None) -> None:
        """Record the result of one of many."""
        self.at += 1
        if error is None:
            self.done[done or "done"] += 1
        elif len(self.refused) < _REFUSED:
            self.refused.append((name, error))
        else:
            self.others_refused += 1


@define
class Jobs:
    """The jobs of a dashboard. `audit`: the last one, or the one that runs."""

    site: Site
    audit: Job | None = None
    _jobs: dict[str, Job] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock, repr=False)

    def get(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def start(self, job: Job, work: Callable[[Job], object]) -> None:
        """Start a job. Raises RefusedError if too many are under way."""
        with self._lock:
            if sum(one.active for one in self._jobs.values()) >= _AT_ONCE:
                raise RefusedError("too much is under way; wait for it to end", 2)
            self._jobs[job.id] = job
            while len(self._jobs) > _MOST:
                del self._jobs[next(iter(self._jobs))]
        threading.Thread(target=_worked, args=(job, work), name="dashboard").start()

    def start_audit(self, work: Callable[[Job], object]) -> None:
        """Start an audit, unless one is running: all callers share it."""
        if self.audit is None or not self.audit.active:
            job = Job(about="audit")
            self.start(job, work)
            self.audit = job

    def go_on(self) -> None:
        """Raises StoppedError once the dashboard ends."""
        if self.site.stopping.is_set():
            raise StoppedError


def _worked(job: Job, work: Callable[[Job], object]) -> None:
    try:
        job.result = work(job)
        job.word = "done"
    except StoppedError:
        job.word = "stopped"
    except (TurnfoldError, RefusedError, OSError) as exc:
        job.word, job.error = "failed", str(exc)
    except BaseException as exc:
        job.word, job.error = "failed", f"a bug: {type(exc).__name__}"
        raise
    finally:
        job.ended = now_ms()
