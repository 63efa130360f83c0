"""Mutants of pruning and of copies: the streams that must stay, and the events that
must be logged."""

from typing import Final

from turnfold_model.mutants.code import Edit, Mutant, one

_PRUNE = "test:contract/test_pruning.py"
_ARCHIVE = "test:contract/test_archive.py"
_SENDER = "test:contract/test_redacting_sender.py"
_TEXT = "test:contract/test_without_text.py"
_COPY = "turnfold_adapters.stores.sqlite.copying"
_AUDIT = "test:contract/test_pruned_audit.py"
_ROOM = "test:contract/test_pruned_room.py"
_D = "turnfold._decide.pruning"
_R = "turnfold._decide.rules"
_S = "turnfold_adapters.stores.sqlite.pruning"


def _stays(name: str, old: str, killer: str) -> Mutant:
    """A reason to leave a group where it is, taken out."""
    where = f"{_D}:{'_part' if 'state.' in old else '_obstacle'}"
    return one(name, "guard", where, old, "if False:", f"{_PRUNE}::{killer}")


KEEPING: Final = (
    _stays("a live stream is pruned", "if state.open:", "what_is_open_stays"),
    _stays(
        "an entry is pruned without its turn",
        "if isinstance(first, Entry) and first.turn is not None:",
        "never_goes_without",
    ),
    _stays(
        "what has changed since it was seen is pruned",
        "if first.version != seen[first.stream]:",
        "changed_since_it_was_seen",
    ),
    _stays(
        "every status is pruned",
        "if wish.phases and state.phase not in wish.phases:",
        "phases_that_were_asked_for",
    ),
    Mutant(
        "what has moved lately is pruned",
        "guard",
        (Edit(f"{_R}:old_enough", "", "return True"),),
        (f"{_PRUNE}::moved_lately",),
    ),
    Mutant(
        "an age counts while the clock is not trusted",
        "guard",
        (Edit(f"{_R}:age_is_sure", "", "return True"),),
        (f"{_PRUNE}::clock_is_not_trusted",),
    ),
    Mutant(
        "a dead letter is pruned that nobody has seen",
        "guard",
        (Edit(f"{_R}:needs_person", "", "return False"),),
        (f"{_PRUNE}::until_somebody_has_seen",),
    ),
    Mutant(
        "a dedupe key is pruned inside its horizon",
        "guard",
        (Edit(f"{_R}:key_is_over", "", "return True"),),
        (f"{_PRUNE}::inside_its_horizon",),
    ),
    one(
        "the setting for an archive is ignored",
        "guard",
        f"{_D}:prune",
        "if draft.settings.archive_first and archive is None:",
        "if False:",
        f"{_PRUNE}::asks_for_an_archive_first",
    ),
    one(
        "one record says two prunes",
        "guard",
        f"{_D}:prune",
        "if draft.prune is not None:",
        "if False:",
        f"{_PRUNE}::never_in_one_commit",
    ),
    _stays(
        "what has moved since it was archived is pruned",
        "if wish.archived is not None and not _is_in(wish.archived, group):",
        "changed_since_it_was_seen",
    ),
    one(
        "an archive may hold the turn without its entries as they are",
        "guard",
        f"{_D}:_is_in",
        "all(archived.get(state.stream) == state.version for state in group)",
        "archived.get(group[0].stream) == group[0].version",
        f"{_PRUNE}::changed_since_it_was_seen",
    ),
    one(
        "what an earlier run has archived is archived again",
        "guard",
        "turnfold.api.archiving:Archiving.archive",
        "await run.finish()",
        "pass",
        f"{_ARCHIVE}::takes_nothing_twice",
    ),
    one(
        "an archive is pruned before it has its name",
        "guard",
        "turnfold.inspect.archive:write",
        "whole.replace(folder / name)",
        "pass",
        f"{_ARCHIVE}::as_it_was",
    ),
    one(
        "an archive is believed that is not what its manifest names",
        "guard",
        "turnfold.inspect.archive:read",
        "if digest.hexdigest() != manifest.digest:",
        "if False:",
        f"{_ARCHIVE}::named_as_such",
    ),
    one(
        "an archive is not held against the store that it was taken from",
        "guard",
        "turnfold.audit.side_checks:note_taken",
        "if mine is not None and mine.hash != record.hash:",
        "if False:",
        f"{_ARCHIVE}::breaks_a_rule",
    ),
    one(
        "a sender is found by the beginning of the id",
        "guard",
        "turnfold.inspect.senders:of_sender",
        'said = canonical.dumps({"sender": sender})[1:-1]',
        'said = canonical.dumps({"sender": sender})[1:-2]',
        f"{_SENDER}::those_with_a_message_of_theirs",
    ),
    one(
        "a copy without text keeps its bodies",
        "store",
        f"{_COPY}:_strip",
        "conn.execute(sql)",
        "pass",
        f"{_TEXT}::has_the_history_and_no_text",
    ),
    one(
        "a worker may have a copy without text",
        "guard",
        "turnfold_adapters.stores.sqlite.schema:check",
        "if kind == WITHOUT_TEXT and not read_only:",
        "if False:",
        f"{_TEXT}::nobody_works_on",
    ),
    one(
        "text in a copy without text is no finding",
        "guard",
        "turnfold.audit:_beside",
        "if facts is not None and not text:",
        "if False:",
        f"{_TEXT}::is_a_finding",
    ),
    one(
        "a backup leaves the state of plugins behind",
        "store",
        f"{_COPY}:copy",
        "_plugins(Path(conn.filename), new, part, folder.key_file)",
        "pass",
        f"{_TEXT}::plugins_along",
    ),
    one(
        "an encrypted file is called no store where no key is given",
        "guard",
        "turnfold_adapters.stores.cipher:_check",
        "if key is None and _is_encrypted(header):",
        "if False:",
        "test:contract/test_encrypted.py::named_as_such",
    ),
    one(
        "the audit does not look at the state of plugins",
        "guard",
        "turnfold.audit:_beside",
        "if plugins is not None:",
        "if False:",
        f"{_TEXT}::looks_at_the_state",
    ),
    one(
        "a commit goes on with what it has pruned",
        "decision",
        f"{_D}:_take_out",
        'draft.below = cast("View", _Without(draft.below, names, keys))',
        "pass",
        f"{_PRUNE}::act_in_the_same_commit",
    ),
    one(
        "memory keeps the keys that a prune took out",
        "recovery",
        "turnfold._runtime.committer:Committer._finish",
        "if draft.prune is not None:",
        "if False:",
        f"{_PRUNE}::go_with_their_entries",
    ),
    Mutant(
        "records may vanish behind their hashes",
        "guard",
        (Edit("turnfold.audit.pruned:_wrong", "", "return None"),),
        (f"{_AUDIT}::hidden_behind_hashes",),
    ),
    one(
        "records may be gone by a record that prunes nothing",
        "guard",
        "turnfold.audit.pruned:PrunedRecords.end",
        "if position not in self._said:",
        "if False:",
        f"{_AUDIT}::that_prunes_nothing",
    ),
    one(
        "counts of pruned streams are believed",
        "guard",
        "turnfold.audit.pruned:PrunedRecords.compare",
        "if odd:",
        "if False:",
        f"{_AUDIT}::not_those_of_the_log",
    ),
    one(
        "bodies of pruned streams are deleted as they are",
        "store",
        f"{_S}:_bodies",
        "conn.executemany(sql, [(place,) for place, _ in rows])",
        'conn.executemany(f"DELETE FROM {table} WHERE {column} = ?", '
        "[(place,) for place, _ in rows])",
        f"{_ROOM}::no_file_holds",
    ),
    one(
        "a pruned stream is forgotten by the counts",
        "store",
        f"{_S}:take_out",
        "conn.executemany(_COUNT, rows)",
        "pass",
        f"{_PRUNE}::counts_by_channel",
    ),
)
