"""The mutants of placeholders, edits and live replies."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_D = "turnfold._decide"
_TESTS = "test:contract/test_editable.py"
_SECOND = "test:contract/test_second_class.py"


def _broken(
    name: str, where: str, old: str, new: str, *kills: str, world: str = ""
) -> Mutant:
    return one(name, "decision", where, old, new, *kills, world=world)


EDITING: Final = (
    _broken(
        "a run ends before the last preview of its open reply",
        "turnfold.api.callbacks:Handlers._call",
        "await live.end_previews()",
        "pass",
        f"{_TESTS}::ends_behind_its_last_preview",
    ),
    _broken(
        "the previews of an open reply outlive the kernel",
        "turnfold.api.callbacks:Handlers._call",
        "live.drop_previews()",
        "pass",
        f"{_TESTS}::leaves_no_preview",
    ),
    _broken(
        "a placeholder in doubt is made again for ever",
        f"{_D}.rules:repeatable",
        "empty and (not entry.remade)",
        "empty",
        "crash:editable-twice",
        f"{_TESTS}::a_second_placeholder_in_doubt",
        world="remade",
    ),
    _broken(
        "a key whose window is over is relied on, though the part can be edited",
        f"{_D}.schedule:_act_of",
        "rules.edits_after_key(entry, _key_now(draft, entry), draft.sure_from)",
        "False",
        f"{_SECOND}::counts_once_the_window",
    ),
    _broken(
        "a placeholder is made inside the window of a key",
        f"{_D}.rules:edits_after_key",
        "not key_window_open(entry, now, sure_from)",
        "True",
        f"{_SECOND}::counts_once_the_window",
    ),
    _broken(
        "after the window of a key a placeholder goes beside a part in doubt",
        f"{_D}.rules:edits_after_key",
        "not entry.planned or entry.doubt or entry.handle",
        "not entry.planned or entry.handle",
        f"{_SECOND}::allowed_again_goes_whole",
    ),
    _broken(
        "a placeholder goes beside a part that went out whole",
        f"{_D}.rules:repeatable",
        "entry.act is not PartAct.SEND",
        "True",
        f"{_SECOND}::learns_to_edit",
        world="beside",
    ),
    _broken(
        "the audit lets a placeholder stand beside a part that may be there whole",
        "turnfold.audit.entry_rules:act",
        "before.doubt and before.act is PartAct.SEND and (not before.resend)",
        "False",
        "test:fast/test_part_logs.py::wrong_log",
    ),
    _broken(
        "a part with a placeholder is sent beside it",
        f"{_D}.rules:next_act",
        "if entry.handle:\n    return PartAct.EDIT",
        "pass",
        "crash:editable",
        world="edit",
    ),
    _broken(
        "the handle of a placeholder counts as the receipt of its part",
        f"{_D}.outcomes:settle",
        "_placed(draft, entry, number, outcome.receipt)",
        "accepted(draft, entry, number, outcome.receipt)",
        "crash:editable",
    ),
    _broken(
        "an edit in doubt is not made again",
        f"{_D}.rules:repeatable",
        "act is PartAct.EDIT",
        "False",
        "crash:editable",
    ),
    _broken(
        "a live reply outside of its block takes words that nobody sees",
        "turnfold.api.live:Live._check_entered",
        "not self._entered",
        "False",
        f"{_TESTS}::outside_of_its_block",
    ),
    _broken(
        "a look-up is asked for a placeholder",
        f"{_D}.rules:may_look_up",
        "next_act(entry) is PartAct.SEND",
        "True",
        f"{_TESTS}::a_look_up_is_never_asked",
    ),
    _broken(
        "a placeholder is begun though nothing can be edited any more",
        f"{_D}.schedule:_act",
        "_act_of(draft, as_offered(draft, entry))",
        "act",
        f"{_TESTS}::no_placeholder_is_begun",
    ),
    _broken(
        "a late placeholder counts as the receipt of its part",
        f"{_D}.outcomes:settle",
        "if act is PartAct.PLACEHOLDER:\n"
        "    return _late_placeholder(draft, entry, part, number, outcome)",
        "pass",
        f"{_TESTS}::placeholder",
    ),
    _broken(
        "a placeholder takes the place of one that stands",
        f"{_D}.outcomes:_late_placeholder",
        "entry.phase is Phase.IN_DOUBT and entry.part == part and (not entry.handle)",
        "True",
        f"{_TESTS}::a_placeholder_too_many",
        world="handle",
    ),
    _broken(
        "a message that may show the answer is taken back",
        "turnfold._runtime.retract:left_over",
        "entry.handle and (not entry.doubt) and (not entry.open)",
        "entry.handle and (not entry.open)",
        f"{_TESTS}::an_answer_that_may_stand",
    ),
    _broken(
        "a failed entry leaves its placeholder",
        "turnfold._runtime.retract:left_over",
        "yield entry.handle",
        "pass",
        f"{_TESTS}::takes_its_placeholder_back",
    ),
    _broken(
        "a live reply waits for a plan before its placeholder goes out",
        f"{_D}.rules:is_live",
        "entry.live and (not entry.planned) and entry.open",
        "False",
        f"{_TESTS}::a_live_reply_is_one_message",
    ),
    _broken(
        "a growing reply holds back what is said meanwhile",
        f"{_D}.outcomes:_placed",
        "draft.emit(entry.stream, o.LaneYielded(reason='live'))",
        "after",
        f"{_TESTS}::what_is_said_meanwhile",
    ),
    _broken(
        "a turn ends and leaves its growing reply",
        f"{_D}.outbox:end_live",
        "",
        "return",
        f"{_TESTS}::without_an_answer",
    ),
    _broken(
        "a live reply is sealed and its turn does not answer",
        f"{_D}.turns:reply",
        "rules.not_answered(turn)",
        "rules.not_answered(turn) and grown is None",
        "crash:live",
    ),
    _broken(
        "a live reply is queued anew by each run",
        f"{_D}.live:begin",
        "if known is None:",
        "if known is None or known.handle:",
        f"{_TESTS}::taken_up_by_the_next_run",
    ),
    _broken(
        "a placeholder that was sealed in doubt is sent whole",
        f"{_D}.rules:next_act",
        "PLACEHOLDER if empty else SEND",
        "SEND",
        f"{_TESTS}::whose_placeholder_is_in_doubt",
    ),
    _broken(
        "the seal does not wait for the last preview",
        "turnfold.api.live:Live.end_previews",
        "async with self._wire:\n    task.cancel()",
        "task.cancel()",
        f"{_TESTS}::no_preview_overwrites",
        world="seal",
    ),
)
