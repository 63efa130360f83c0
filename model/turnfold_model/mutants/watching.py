"""The mutants of the watchdog: whom it ends, and when it says that somebody is dead."""

from typing import Final

from turnfold_model.mutants.code import Edit, Mutant, one
from turnfold_model.mutants.sql import AREA

_AT = "turnfold_adapters.stores.postgres.watchdog"
_DOG = f"{_AT}:Watchdog"
_REAL = "server:test_postgres_watchdog"
_LEFT = f"{_REAL}::test_its_own_process_and_a_hidden_start_are_left"
_ALONE = f"{_REAL}::test_a_living_lease_and_another_machine_are_left_alone"
_OTHER = f"{_REAL}::test_another_process_of_the_same_id_is_left_alone"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, AREA, where, old, new, *killers)


WATCHING: Final = (
    _broken(
        "the watchdog ends a worker with a live lease",
        f"{_DOG}._is_over",
        "bool(await self._asked(lambda c: c.fetchval(_OVER, *_name(row))))",
        "True",
        _ALONE,
    ),
    _broken(
        "the watchdog asks about one life of a process that has another",
        f"{_DOG}._is_over",
        "_OVER",
        "_OVER.replace('bool_and', 'bool_or')",
        f"{_REAL}::test_a_process_that_has_begun_a_new_life_is_left_alone",
    ),
    _broken(
        "the watchdog does not ask again before it ends a process",
        f"{_DOG}._end",
        "not await self._is_over(row)",
        "False",
        f"{_REAL}::test_a_worker_that_goes_on_meanwhile_is_left_alone",
    ),
    _broken(
        "the watchdog says that a process is dead before it is gone",
        f"{_AT}:_ends",
        "is_gone(row)",
        "True",
        f"{_REAL}::test_it_certifies_nobody_before_the_process_is_gone",
    ),
    Mutant(
        "the watchdog does not compare the start time",
        AREA,
        (
            Edit(f"{_DOG}.look", "is_gone(row)", "False"),
            Edit(f"{_AT}:_checked", "is_gone(row)", "False"),
        ),
        (_OTHER,),
    ),
    _broken(
        "the watchdog ends a process whose start time is hidden",
        f"{_AT}:_checked",
        "UNKNOWN in (start_time(row['pid']), row['started'])",
        "False",
        _LEFT,
    ),
    _broken(
        "the watchdog takes processes of another machine for its own",
        f"{_AT}:_lives",
        "_LIVES",
        "_LIVES.replace('w.boot = $1 AND w.room = $2', '($1 || $2) IS NOT NULL')",
        _ALONE,
    ),
    _broken(
        "the watchdog ends itself",
        f"{_AT}:_held",
        "pid == os.getpid()",
        "False",
        _LEFT,
    ),
    _broken(
        "the watchdog ends a process of another user",
        f"{_AT}:_checked",
        "user != os.geteuid()",
        "False",
        f"{_REAL}::test_a_process_of_another_user_is_left",
    ),
    _broken(
        "the watchdog acts by an old answer",
        f"{_DOG}._end",
        "_now() - asked > _FRESH_S",
        "False",
        f"{_REAL}::test_an_answer_of_the_server_that_is_old_ends_nobody",
    ),
    _broken(
        "the watchdog believes a standby",
        f"{_DOG}.look",
        "any(row['standby'] for row in rows)",
        "False",
        f"{_REAL}::test_a_standby_says_nothing_about_leases",
    ),
)
