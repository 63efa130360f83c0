"""The mutants of an address with several hosts: which of them is the primary, and what an
error may show of the address."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one
from turnfold_model.mutants.sql import AREA

_AT = "turnfold_adapters.stores.postgres"
_WAY = f"{_AT}.primary:Way"
_LINK = f"{_AT}.connection:Link"
_FAST = "test:fast/test_postgres_hosts.py"
_ODD = f"{_FAST}::odd_hosts"
_SECRETS = f"{_FAST}::odd_hosts or hosts_are_read"
_REAL = "server:test_postgres_shards"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(f"hosts: {name}", AREA, where, old, new, *killers)


HOSTS: Final = (
    _broken(
        "a standby is taken for the primary",
        f"{_AT}.primary:_ask",
        "None if standby else await history.name(connection)",
        "await history.name(connection) or ''",
        f"{_FAST}::standby",
    ),
    _broken(
        "a writer takes a standby where no primary answers",
        f"{_WAY}._best",
        "looks and standbys",
        "standbys",
        f"{_FAST}::only_a_look",
    ),
    _broken(
        "a look takes the first standby beside a primary",
        f"{_WAY}._best",
        "best is not None",
        "best is not None and not (looks and standbys)",
        f"{_FAST}::standby_is_skipped",
    ),
    _broken(
        "of two primaries the earlier one is used",
        f"{_WAY}._primary",
        "max(found, key=lambda server: server.timeline)",
        "min(found, key=lambda server: server.timeline)",
        f"{_FAST}::the_later_one_is_used",
    ),
    _broken(
        "two primaries of one timeline are no reason to stop",
        f"{_WAY}._primary",
        "server.system != newest.system or server.timeline == newest.timeline",
        "server.system != newest.system",
        f"{_FAST}::none_is_the_later",
    ),
    _broken(
        "primaries of two clusters are no reason to stop",
        f"{_WAY}._primary",
        "server.system != newest.system or server.timeline == newest.timeline",
        "server.timeline == newest.timeline",
        f"{_FAST}::none_is_the_later",
    ),
    _broken(
        "a process goes back to an earlier timeline",
        f"{_WAY}._is_past",
        "server.timeline < known.timeline",
        "False",
        f"{_FAST}::never_goes_back",
    ),
    _broken(
        "a process goes on in another cluster",
        f"{_WAY}._is_past",
        "server.system != known.system",
        "False",
        f"{_FAST}::never_goes_back",
    ),
    _broken(
        "the other connections stay at the earlier primary",
        f"{_WAY}._go",
        "self.turn += 1",
        "return",
        f"{_FAST}::all_leave_theirs",
    ),
    _broken(
        "a connection of the earlier primary is used again",
        f"{_LINK}._there",
        "self._turn != self._way.turn",
        "False",
        f"{_FAST}::used_no_more",
    ),
    _broken(
        "the server that was asked a moment ago is not compared",
        f"{_WAY}._again",
        "answer.server == self._known",
        "True",
        f"{_FAST}::shortly_after_a_find",
    ),
    _broken(
        "a machine that is gone is waited for",
        f"{_AT}.primary:_until_known",
        "min(end, time.monotonic() + more)",
        "end",
        f"{_FAST}::machine_that_is_gone",
    ),
    _broken(
        "connections to other hosts stay open",
        f"{_AT}.primary:_end",
        "task.result().connection.terminate()",
        "pass",
        f"{_FAST}::standby_is_skipped",
    ),
    _broken(
        "a statement without an answer waits for it alone",
        f"{_WAY}.watched",
        "not self._hosts",
        "True",
        f"{_FAST}::without_an_answer",
    ),
    _broken(
        "a password with an @ stands in an address for people",
        f"{_AT}.hosts:parts_of",
        "'@' in path",
        "False",
        _SECRETS,
    ),
    _broken(
        "any server will do",
        f"{_AT}.hosts:check_role",
        "role not in _PRIMARY",
        "False",
        _ODD,
    ),
    _broken(
        "hosts without a port of their own get the first one",
        f"{_AT}.hosts:_with_ports",
        "len(ports) != len(hosts)",
        "False",
        _ODD,
    ),
    _broken(
        "a copy gets its name on a server that failed over",
        f"{_AT}.staging:StagedSchema._renamed",
        "not await connection.fetchval(sql, found)",
        "False",
        "server:test_postgres_copy::test_a_copy_of_another_history_gets_no_name",
    ),
    _broken(
        "a seat whose hand-over was lost stays with its host",
        f"{_AT}.ownership:LeaseSeats._give_back",
        "row['shard'] not in life.seated and row['freed'] != row['token']",
        "False",
        f"{_REAL}::test_a_seat_whose_hand_over_was_lost_is_freed_at_the_next_look",
    ),
    _broken(
        "a host frees a seat that it uses",
        f"{_AT}.ownership:LeaseSeats._give_back",
        "row['shard'] not in life.seated and row['freed'] != row['token']",
        "row['freed'] != row['token']",
        f"{_REAL}::test_a_seat_whose_hand_over_was_lost_is_freed_at_the_next_look",
    ),
    _broken(
        "a worker that has stood down renews its lease",
        f"{_AT}.ownership:Life.end_lease",
        "self.seated == {shard}",
        "False",
        "server:test_postgres_went_back::test_nobody_waits_for_the_end_of_a_worker_that_has_stood_down",
    ),
)
