"""The seats of one host: it takes its share of the shards and hands the others over."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from math import ceil
from typing import Any

from turnfold._runtime.calls import told
from turnfold.api.health import COMMAND_MS, LOST, Wellness, judge, of_server
from turnfold.api.shard_kernel import ShardKernel
from turnfold.api.unanswered import reason
from turnfold.logs import lines
from turnfold.ports.shards import Seating, Seats

_LOG = lines()
_POLL_S = 0.25
_IDLE = 4  # while nothing happens, one poll of so many asks the store
_PATIENCE = 4  # looks that find too many seats here before one is handed over
_BALANCE = "the balance of shards"
_COMES_BACK = (
    "time(s) a seat was lost with the lease; this host comes back by itself when their"
    " sends have ended and the server answers"
)
_HANGS = "call(s) of channels from before the loss have not ended; restart the process"
_KEPT = "call(s) of channels have not ended, and its seat is kept; restart the process"


class Balance:
    """`address` and `shards`: of the store. `made`: a kernel for a shard, not open yet.
    `gates`: of the accounts of this host."""

    def __init__(
        self,
        share: Seats,
        address: str,
        shards: int,
        made: Callable[[int], ShardKernel],
        gates: Callable[[], Sequence[str]],
    ) -> None:
        self._share, self._address, self._shards = share, address, shards
        self._made, self._gates = made, gates
        self.seats: dict[int, ShardKernel] = {}
        self.coming: dict[int, ShardKernel] = {}  # not open yet
        self.moving: set[int] = set()  # shards that are taken or handed over just now
        self._moves: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._hosts, self._too_many, self._lost = 1, 0, 0
        self._before = 0  # `_lost` when this host came back last
        self._kept: dict[int, ShardKernel] = {}  # closed, and their last calls hang
        self._last: Seating | None = None
        self._calm, self._left_out = False, 0  # `_left_out`: polls without a look
        # The balance and shards, each with its error.
        self._failing: dict[str, str] = {}

    async def begin(self) -> None:
        """Count as a host from now on. Raises StoreError."""
        try:
            await self._share.enter()
        except BaseException:  # the host may be recorded all the same
            await self._share.leave()
            raise
        self._task = asyncio.create_task(self._for_ever())

    async def stop(self) -> None:
        """Take and give up nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, *self._moves, return_exceptions=True)

    async def leave(self) -> None:
        """Count no more. All seats were given back before."""
        if self._task is not None:
            await self._share.leave()

    def working(self) -> list[int]:
        """The shards that this host works on now."""
        return sorted(n for n, kernel in self.seats.items() if kernel.working)

    def seat(self, shard: int) -> ShardKernel | None:
        """The worker of a shard, if it is here."""
        seat = self.seats.get(shard)
        return seat if seat is not None and seat.working else None

    @property
    def looks(self) -> bool:
        """Does it look at the shards a few times a second, and without an error?"""
        running = self._task is not None and not self._task.done()
        return running and _BALANCE not in self._failing

    @property
    def others(self) -> bool:
        """Do other hosts share the shards, as far as this one knows?"""
        return self._hosts > 1

    # --- how it is ---

    def facts(self) -> Mapping[str, Any]:
        """For `Shards.facts`, which names the fields."""
        seats = {str(n): self.seats[n].health() for n in self.working()}
        return {
            "hosts": self._hosts,
            "working": bool(seats),
            "fences_lost": self._fences_lost(),
            "stood_down": self._stood_down(),
            "moving": sorted(self.moving),
            "failing": self._failing | self._told_of_kept(),
            "seats": seats,
        }

    def _fences_lost(self) -> int:
        """How many seats were lost; one also if a host without a seat has lost its
        lease."""
        lost = self._lost + sum(seat.fences_lost for seat in self.seats.values())
        bare = lost == self._before and self._task is not None
        return lost + int(bare and not self._share.held)

    def _stood_down(self) -> str | None:
        """The state of the last loss, in words; None if this host has come back."""
        lost = self._fences_lost()
        if lost == self._before:
            return None
        if self._task is None or self._share.held:
            return f"{lost} {LOST}"
        hung = sum(kernel.hung for kernel in self._kept.values())
        return f"{hung} {_HANGS}" if hung else f"{lost} {_COMES_BACK}"

    def _told_of_kept(self) -> dict[str, str]:
        hung = {n: kernel.hung for n, kernel in self._kept.items()}
        return {_name(n): f"{count} {_KEPT}" for n, count in hung.items() if count}

    def _note(self, name: str, error: Exception | None) -> None:
        """Log an error once, and show it in `health` until the next success."""
        if error is None:
            self._failing.pop(name, None)
            return
        text = told(error)
        if self._failing.get(name) != text:
            _LOG.warning("%s: %s fails: %s", self._address, name, text)
        self._failing[name] = text

    def _forget_of_others(self, seating: Seating) -> None:
        """Forget the errors of shards that another host has taken."""
        here = {*seating.free, *self.seats, *self.moving}
        kept = {_BALANCE, *map(_name, here)}
        for name in self._failing.keys() - kept:
            del self._failing[name]

    # --- taking and giving up ---

    async def _for_ever(self) -> None:
        while True:
            if self._is_due():
                await self._try_look()
            else:
                self._left_out += 1
            await asyncio.sleep(_POLL_S)

    def _is_due(self) -> bool:
        """A host with nothing to do asks more rarely. It does not wait longer for what
        it can know without a question."""
        rare = self._calm and self._left_out < _IDLE - 1
        unseated = any(not kernel.working for kernel in self.seats.values())
        return not rare or bool(self.moving) or unseated or self._share.must_look()

    async def _try_look(self) -> None:
        self._left_out, self._calm = 0, False
        try:
            await self._look()
        except Exception as exc:  # noqa: BLE001  without it no shard finds a worker
            self._note(_BALANCE, exc)
        else:
            self._note(_BALANCE, None)

    async def _look(self) -> None:
        """Take free shards up to this host's share; hand over a shard beyond it."""
        self._kept = {n: kept for n, kept in self._kept.items() if kept.keeps_store}
        for shard, kernel in [*self.seats.items()]:
            if not kernel.working and shard not in self.moving:
                self._move(shard, self._give_up(shard))
        if not (self._share.held or await self._comes_back()):
            return
        seating = await self._share.look(self._gates())
        self._hosts = seating.hosts
        self._tell(seating)
        self._forget_of_others(seating)
        share = ceil(self._shards / seating.hosts)
        room = share - len({*self.seats, *self.moving, *self._kept})
        free = [n for n in seating.free if n not in self.moving]
        for shard in free[: max(room, 0)]:
            self._move(shard, self._take(shard))
        self._too_many = self._too_many + 1 if len(self.seats) > share else 0
        if self._too_many >= _PATIENCE and not self.moving:
            self._too_many = 0
            shard = next(iter(self.seats))
            self._move(shard, self._give_up(shard))
        self._calm = self._shows_calm(seating, room)

    async def _comes_back(self) -> bool:
        """Count as a host again after the lease was over, in a new life. Not before the
        last calls of its seats have ended: the old life is declared dead here, and the
        next owner of a shard relies on that. Raises StoreError."""
        if self.seats or self.moving or self._kept:
            return False
        lost = self._fences_lost()
        await self._share.enter()
        if not self._share.held:
            return False
        self._lost = self._before = lost
        text = "%s: this host takes a share of the shards again, in a new life"
        _LOG.warning(text, self._address)
        return True

    def _shows_calm(self, seating: Seating, room: int) -> bool:
        """Nothing has happened since the last look, nothing waits, and this host has its
        share of the shards."""
        same, self._last = seating == self._last, seating
        few = len(self.seats) < max(1, self._shards // seating.hosts)
        return same and not (seating.free or seating.waiting or few or room < 0)

    def _tell(self, seating: Seating) -> None:
        """Tell each seat what waits for it, and the limits that other hosts have met."""
        for shard in self.working():
            seat = self.seats[shard]
            seat.stir(seating)
            for limit in seating.limits:
                seat.heed(limit)

    def _move(self, shard: int, work: Coroutine[Any, Any, None]) -> None:
        self.moving.add(shard)
        task = asyncio.create_task(self._moved(shard, work))
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _moved(self, shard: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001  the next look tries it again
            self._note(_name(shard), exc)
        else:
            self._note(_name(shard), None)
        finally:
            self.moving.discard(shard)

    async def _take(self, shard: int) -> None:
        kernel = self.coming[shard] = self._made(shard)
        try:
            await kernel.open()
            if kernel.working:
                self.seats[shard] = kernel
            else:  # another host took it first
                await kernel.close()
        finally:
            del self.coming[shard]

    async def _give_up(self, shard: int) -> None:
        """Send nothing new, wait for sends and runs under way, then free the seat; while
        a call hangs, it is kept."""
        kernel = self.seats[shard]
        try:
            await kernel.close()
        finally:
            self._lost += kernel.fences_lost
            if kernel.keeps_store:
                self._kept[shard] = kernel
            del self.seats[shard]


def wellness(facts: Mapping[str, Any]) -> Wellness:
    """A judgement of `Shards.facts`."""
    lost = facts["stood_down"]
    reasons = [*([lost] if lost else []), *of_server(facts)]
    reasons += [f"{name} fails: {text}" for name, text in facts["failing"].items()]
    waits = reason(facts["unanswered"], COMMAND_MS)
    reasons += [] if waits is None else [waits]
    for shard, seat in facts["seats"].items():
        reasons += [f"{_name(shard)}: {reason}" for reason in judge(seat).reasons]
    return Wellness(tuple(reasons))


def _name(shard: object) -> str:
    return f"shard {shard}"
