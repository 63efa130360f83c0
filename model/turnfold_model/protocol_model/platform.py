"""The wire and the platform: requests land once, late or never; answers get lost.

Here is the witness: the messages that the user sees. A step that shows a
part twice, without a policy event that allows it, breaks INV-2.
"""

from collections.abc import Iterator
from typing import Final

from turnfold_model.protocol_model import facts
from turnfold_model.protocol_model.words import (
    DEAD,
    EDIT,
    EMPTY,
    GONE,
    HUNG,
    PLACEHOLDER,
    PREVIEW,
    SEND,
    SHORT,
    TEXT,
    Column,
    Config,
    Job,
    Request,
    Stage,
    Step,
)


def _landed(config: Config, column: Column, request: Request) -> tuple[Column, str]:
    """The platform takes the request, or knows its key and shows nothing new."""
    part = request.part
    column = _gone(column, request)
    seen = column.taken[part]
    young = column.age < 2 or part < column.log.settled
    keyed = config.keyed and request.act == SEND
    if seen and keyed and config.assume.key and young:
        return column, ""
    if config.edits:
        return _changed(column, request)
    taken = list(column.taken)
    taken[part] = min(seen + 1, 2)
    broken = "INV-2" if seen and not column.log.excused[part] else ""
    return column._replace(taken=tuple(taken)), broken


_CONTENT: Final = {PLACEHOLDER: EMPTY, EDIT: TEXT, PREVIEW: SHORT, SEND: TEXT}


def _changed(column: Column, request: Request) -> tuple[Column, str]:
    """A message appears, or shows something else."""
    part, shown = request.part, column.screen[request.part]
    message = request.target or len(shown) + 1
    after = facts.shows(column, part, message, _CONTENT[request.act])
    twice = after.taken[part] > 1 and not after.log.excused[part]
    return after, "INV-2" if twice else ""


def _gone(column: Column, request: Request) -> Column:
    wire = list(column.wire)
    wire.remove(request)
    return column._replace(wire=tuple(wire))


def _tagged(column: Column, request: Request, tag: int) -> Column:
    rest = list(_gone(column, request).wire)
    return column._replace(wire=tuple(sorted([*rest, request._replace(tag=tag)])))


def answers(
    config: Config, column: Column, job: Job, slot: int, faulty: bool
) -> Iterator[Step]:
    """The platform's, or the network's, answers to the request that a worker waits for."""
    if job.stage != Stage.SENT:
        return
    request = Request(job.part, job.attempt, slot, job.act, job.target)
    if job.act == EDIT and column.screen[job.part][job.target - 1] == GONE:
        gone = _gone(column, request)
        yield Step("message gone", gone, job._replace(stage=Stage.VANISHED))
        return
    taken, broken = _landed(config, column, request)
    gone = _gone(column, request)

    def step(label: str, after: Column, stage: Stage, fault: int = 0) -> Step:
        return Step(label, after, job._replace(stage=stage), fault)

    if job.act == PLACEHOLDER:
        made = job._replace(stage=Stage.PLACED, target=len(taken.screen[job.part]))
        yield Step("accepted", taken, made)
    else:
        yield step("accepted", taken, Stage.ACCEPTED)._replace(broken=broken)
    if not faulty:
        return
    yield step("answer lost", taken, Stage.LOST, 1)._replace(broken=broken)
    yield step("request lost", gone, Stage.LOST, 1)
    yield step("late request", _tagged(column, request, DEAD), Stage.LOST, 1)
    if job.act == EDIT:
        left = facts.shows(gone, job.part, job.target, GONE)
        yield step("message gone", left, Stage.VANISHED, 1)
    if config.hung:
        yield step("hung", _tagged(column, request, HUNG), Stage.LOST, 1)
    yield step("refused", gone, Stage.REFUSED, 1)
    yield step("refused for good", gone, Stage.ENDED, 1)
    if config.parts > 1:
        yield step("one part refused for good", gone, Stage.BARRED, 1)
    if config.gates:
        yield step("held back", gone, Stage.DEFERRED, 1)


def landings(config: Config, column: Column) -> Iterator[Step]:
    """Requests that nobody waits for still land, or never do."""
    for request in sorted(set(column.wire)):
        if request.act == PREVIEW and request.tag not in (DEAD, HUNG):
            after, broken = _landed(config, column, request)
            yield Step("preview lands", after, Job(), broken=broken)
            continue
        if request.tag not in (DEAD, HUNG):
            continue
        after, broken = _landed(config, column, request)
        yield Step("lands late", after, Job(), broken=broken)
        yield Step("never lands", _gone(column, request), Job())


def returns(config: Config, column: Column, job: Job) -> Iterator[Step]:
    """A hung call of a living worker answers after all: a late receipt."""
    for request in sorted(set(column.wire)):
        if request.tag == HUNG:
            after, broken = _landed(config, column, request)
            if request.act == EDIT and not after.taken[request.part]:
                continue  # its message is gone
            if request.act == PLACEHOLDER:
                yield _placed_late(config, after, job, request.part)
                continue
            after = facts.late_receipt(config, after, request.part)
            yield Step("late receipt", after, job, broken=broken)


def _placed_late(config: Config, column: Column, job: Job, part: int) -> Step:
    message = len(column.screen[part])
    after, taken = facts.late_placeholder(config, column, part, message)
    return Step("late placeholder" if taken else "stray", after, job)


def lost_previews(column: Column, slot: int) -> Iterator[Step]:
    """The outcome of the preview under way is lost."""
    for request in column.wire:
        if request.act == PREVIEW and request.tag == slot:
            yield Step("preview lost", _tagged(column, request, DEAD), Job(), 1)
