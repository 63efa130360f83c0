"""What an audit did not check, in words: `passed` says no more than what was checked."""

from attrs import frozen


@frozen(kw_only=True)
class Made:
    """The checks that were made beside those of the log alone. `store`: summaries and
    dedupe keys; `mark`: there was one beside the store."""

    store: bool = False
    bodies: bool = False
    mark: bool = False
    integrity: bool = False
    witness: bool = False
    heads: bool = False
    settled: bool = False


def unchecked(made: Made) -> tuple[str, ...]:
    """A sentence for each check that was not made, with the way to make it."""
    beside = made.store
    said = {
        "sends that the log never announced: give the platform's list (--witness)": (
            made.witness
        ),
        "a tail that was cut off together with its mark: keep heads elsewhere "
        "(turnfold head) and give them (--head)": made.heads,
        "whether everything is at rest: stop the gateway and ask for it (--settled)": (
            made.settled
        ),
        "summaries, dedupe keys, bodies and the mark: audit the store itself": beside,
        "bodies: audit without --no-bodies": made.bodies or not beside,
        "an older copy put in place of the store: there is no mark beside it": (
            made.mark or not beside
        ),
        "the database's own check of its files: audit without --no-integrity": (
            made.integrity or not beside
        ),
        "the record of the owner: it explains and decides nothing": False,
    }
    return tuple(text for text, done in said.items() if not done)
