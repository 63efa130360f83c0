"""The mutants that a stop beside one statement of a host finds (`crash_hosts`): guards of
leases, of commits that come late, and of answers that are lost."""

from typing import Final

from turnfold_model.mutants.code import one
from turnfold_model.mutants.sql import AREA

_AT = "turnfold_adapters.stores.postgres"
_OWNERSHIP = f"{_AT}.ownership:LeaseOwnership"
_STOPS = "server:test_postgres_crash::test"
_LATE = f"{_STOPS}_a_commit_of_a_dead_host_is_never_stored_later"
_SLEPT = f"{_STOPS}_a_host_that_slept_stores_nothing"
_TOLD = f"{_STOPS}_a_commit_told_as_not_stored_is_never_stored"
_LOST = f"{_STOPS}_a_commit_that_lost_its_answer_is_no_commit_that_failed"
_BESIDE = f"{_STOPS}_nobody_works_beside_a_host_that_may_live"
_SHARDS = "server:test_postgres_shards::test"
_TOKEN = f"{_STOPS}_a_worker_goes_on_after_the_answer_to_its_new_token_is_lost"
# Neither its token nor its owner is asked.
_NO_FENCE = "ONE.replace('owner = $7 AND token = $6::bigint', '$7 <> $6::bigint::text')"

STOPS: Final = (
    one(
        "a commit of a host that was taken over has no fence",
        AREA,
        f"{_AT}.combining:Combiner._alone",
        "ONE",
        _NO_FENCE,
        _LATE,
        _SLEPT,
    ),
    one(
        "a commit of unknown fate is looked up without a new token",
        AREA,
        f"{_AT}.store:PostgresStore.reopen",
        "not await self._ownership.renew_token()",
        "False",
        _TOLD,
    ),
    one(
        "a commit without an answer counts as not stored",
        AREA,
        f"{_AT}.connection:translated",
        "return FateUnknownError(path=address, problem=problem)",
        "return DiskError(path=address, problem=problem)",
        _LOST,
    ),
    one(
        "a shard is taken as soon as the lease of its host is over",
        AREA,
        f"{_OWNERSHIP}._take",
        "_is_free(row, life)",
        "(_is_free(row, life) or row['lease_over'])",
        _BESIDE,
    ),
    one(
        "a new token whose answer was lost counts as another host's",
        AREA,
        f"{_OWNERSHIP}.renew_token",
        "evolve(seat, asked=seat.asked + 1)",
        "seat",
        _TOKEN,
    ),
    one(
        "a seat is not freed if a new token had no answer",
        AREA,
        f"{_AT}.ownership:_free",
        "seat.asked",
        "seat.token",
        f"{_SHARDS}_a_seat_is_freed_though_its_new_token_had_no_answer",
    ),
    one(
        "a new token is the one above that of the shard",
        AREA,
        f"{_AT}.ownership:_next",
        "_NEXT",
        "_NEXT.replace('$3 + 1', 'token + 1 + 0 * $3')",
        f"{_SHARDS}_a_new_token_that_is_asked_for_late_is_nobodys",
    ),
)
