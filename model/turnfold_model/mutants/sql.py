"""The mutants of the SQL of ownership, of commits and of failovers on PostgreSQL.

The tests of `tests/real` notice them, on one server for all of them. They are asked only
where the package of that server is installed.
"""

from typing import Final

from turnfold_model.mutants.code import Edit, Mutant, one

AREA = "sql"
_AT = "turnfold_adapters.stores.postgres"
_OWNERSHIP = f"{_AT}.ownership:LeaseOwnership"
_LIFE = f"{_AT}.ownership:Life"
_COMBINER = f"{_AT}.combining:Combiner"
_HOSTS = "server:test_postgres_contract"
_FAULTS = "server:test_postgres_faults"
_SHARDS = "server:test_postgres_shards"
_KEEPING = "server:test_postgres_keeping"
_BACK = "server:test_postgres_went_back"
_TOGETHER = "server:test_postgres_together"
_OWN = "r.shard IN (SELECT shard FROM own)"
_FENCED = f"{_TOGETHER}::test_a_shard_whose_token_is_outdated_stores_nothing"
# Both guards against it, since each holds without the other.
_AT_ITS_END = "_EXPIRE.replace('lease_until + make_interval(secs => $2)', 'lease_until + make_interval(secs => 0 * $2)')"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, AREA, where, old, new, *killers)


def _many(name: str, old: str, new: str, killer: str) -> Mutant:
    """A piece of the statement of several shards."""
    return _sql(name, f"{_COMBINER}._together", "MANY", old, new, killer)


def _goes_in(rows: str, before: str, after: str = "") -> Mutant:
    """The rows of a table go in, or out, for a shard that is fenced, too. `before`: the
    text of the statement before this guard."""
    name = f"{rows} of a fenced shard go with those of the others"
    return _many(name, before + _OWN + after, f"{before}true{after}", _FENCED)


def _sql(name: str, where: str, sql: str, old: str, new: str, killer: str) -> Mutant:
    """A piece of a statement is replaced where the statement is used."""
    return _broken(name, where, sql, f"{sql}.replace({old!r}, {new!r})", killer)


SQL: Final = (
    _broken(
        "a commit goes into a transaction that somebody left open",
        f"{_AT}.connection:Link._there",
        "there.is_in_transaction()",
        "False",
        f"{_FAULTS}::test_no_commit_goes_into_a_transaction_that_somebody_left_open",
    ),
    _broken(
        "a commit that no standby has counts as stored",
        f"{_AT}.connection:Link._check_replicated",
        "raise _AloneError(self._alone)",
        "pass",
        f"{_FAULTS}::test_a_commit_that_no_standby_has_is_of_unknown_fate",
    ),
    _sql(
        "a take ignores the token that it found free",
        f"{_OWNERSHIP}._take",
        "_TAKE",
        "token = $2",
        "($2::bigint IS NULL OR true)",
        f"{_FAULTS}::test_of_several_takers_one_gets_the_store",
    ),
    _sql(
        "a host that counts as dead takes a shard",
        f"{_OWNERSHIP}._take",
        "_TAKE",
        " AND state = 'alive' AND lease_until > clock_timestamp()",
        "",
        f"{_SHARDS}::test_only_a_host_that_counts_as_alive_takes_a_seat",
    ),
    _sql(
        "a seat is freed under the token of before",
        f"{_AT}.ownership:_free",
        "_FREE",
        "token = $3 + 1, freed = $3 + 1",
        "freed = token",
        f"{_SHARDS}::test_no_statement_of_before_is_stored_after_a_hand_over",
    ),
    _sql(
        "a take leaves the token as it is",
        f"{_OWNERSHIP}._take",
        "_TAKE",
        "token = token + 1",
        "token = token",
        f"{_FAULTS}::test_of_several_takers_one_gets_the_store",
    ),
    _sql(
        "a worker is expired at the end of its lease",
        f"{_LIFE}.is_over",
        "_EXPIRE",
        "lease_until + make_interval(secs => $2)",
        "lease_until - make_interval(secs => $2)",
        f"{_FAULTS}::test_a_lease_is_judged_by_the_database_when_it_is_ended",
    ),
    _sql(
        "a lease that is over is renewed",
        f"{_LIFE}._renewed",
        "_RENEW",
        " AND lease_until > clock_timestamp()",
        "",
        f"{_FAULTS}::test_a_lease_that_is_over_is_not_renewed",
    ),
    _sql(
        "a new token is given to a worker whose token is outdated",
        f"{_AT}.ownership:_next",
        "_NEXT",
        "owner = $1 AND token >= $2 AND token <= $3",
        "($1::text <> '' OR token >= $2)",
        f"{_HOSTS}::test_a_worker_that_lost_its_seat_commits_nothing",
    ),
    _sql(
        "a commit shows no token",
        f"{_COMBINER}._alone",
        "ONE",
        "token = $6::bigint)",
        "$6::bigint IS NOT NULL)",
        f"{_SHARDS}::test_no_statement_of_before_is_stored_after_a_hand_over",
    ),
    _sql(
        "a commit shows a token and not its owner",
        f"{_COMBINER}._alone",
        "ONE",
        "owner = $7 AND",
        "$7::text <> '' AND",
        f"{_BACK}::test_a_worker_of_a_lost_take_shares_its_token_with_nobody",
    ),
    _many(
        "a commit of several shards shows no token",
        "AND s.token = w.token",
        "",
        _FENCED,
    ),
    _many(
        "a commit of several shards shows a token and not its owner",
        "s.owner = w.owner AND ",
        "",
        f"{_TOGETHER}::test_a_shard_of_another_owner_stores_nothing",
    ),
    _many(
        "a commit of several shards follows any position",
        "s.position = w.base AND s.head = w.base_head",
        "true",
        f"{_TOGETHER}::test_a_shard_whose_log_has_moved_stores_nothing",
    ),
    _many(
        "a commit of several shards follows any head",
        " AND s.head = w.base_head",
        "",
        f"{_TOGETHER}::test_a_shard_with_another_head_stores_nothing",
    ),
    _goes_in("records", "head) WHERE ", "),\ns AS"),
    _goes_in("summaries", "person) WHERE "),
    _goes_in("bodies", "salt, data) WHERE "),
    _goes_in("erased bodies", "body.number = r.number\n        AND "),
    _goes_in("keys", "FROM keys AS r WHERE "),
    _goes_in("keys of commands", "dedupe.key = r.key AND "),
    _goes_in("ended commands", "p.id = r.id AND "),
    _goes_in("answers", "at, data) WHERE "),
    _many(
        "a key of a fenced shard is kept for it",
        " AND r.shard = i.shard",
        "",
        f"{_TOGETHER}::test_a_key_of_a_shard_that_is_refused_stays_free",
    ),
    _broken(
        "no commit stores keys, answers and what it erases",
        f"{_AT}.statement:Values.plain",
        "not any(self.tables[_MAIN:])",
        "True",
        f"{_SHARDS}::test_a_key_belongs_to_one_shard",
    ),
    _broken(
        "a commit without keys takes those of another shard with it",
        f"{_AT}.statement:of_many",
        "all(of.plain for of in values)",
        "any(of.plain for of in values)",
        "test:fast/test_postgres_statement.py::without_keys",
    ),
    _broken(
        "one answer for all shards of a statement",
        f"{_COMBINER}._together",
        "shard in stored",
        "bool(stored)",
        _FENCED,
    ),
    _broken(
        "an error of one shard is that of all",
        f"{_COMBINER}._answers",
        "not stored_nothing(exc)",
        "True",
        f"{_TOGETHER}::test_an_error_that_stored_nothing_is_that_of_the_culprit_alone",
    ),
    _broken(
        "a commit of unknown fate goes with others again",
        f"{_COMBINER}._taken",
        "part.alone or (batch and batch[0].alone)",
        "False",
        f"{_TOGETHER}::test_after_an_unknown_fate_each_commit_goes_alone",
    ),
    _broken(
        "two commits of one shard share a statement",
        f"{_COMBINER}._taken",
        "part.shard not in shards",
        "True",
        f"{_TOGETHER}::test_two_handles_of_one_shard_never_share_a_statement",
    ),
    _broken(
        "each shard of a cut statement makes all connections anew",
        f"{_AT}.shared:Shared.renew",
        "since in (None, self.renewals)",
        "True",
        f"{_TOGETHER}::test_connections_are_made_anew_once_for_all_shards_of_a_cut",
    ),
    _broken(
        "a worker goes on with a log that lacks what it stored",
        f"{_AT}.store:PostgresStore.load",
        "self._ownership.seat is not None",
        "False",
        f"{_BACK}::test_a_worker_appends_nothing_to_a_log_that_lacks_what_it_stored",
    ),
    Mutant(
        "the end of a lease is taken for a death",
        AREA,
        (
            Edit(f"{_LIFE}.is_over", "not row['lapsed']", "not row['lease_over']"),
            Edit(f"{_LIFE}.is_over", "_EXPIRE", _AT_ITS_END),
        ),
        (f"{_HOSTS}::test_a_lease_that_is_over_is_no_proof_of_death",),
    ),
    _broken(
        "an older layout is used as it is",
        f"{_AT}.schema:check",
        "number < LAYOUT",
        "False",
        f"{_KEEPING}::test_an_older_layout_is_migrated_by_a_command_alone",
    ),
    _broken(
        "a pooler is taken for the server",
        f"{_AT}.connection:Link._prepare",
        "self._unsafe(found) if mine else _POOLER",
        "self._unsafe(found)",
        f"{_FAULTS}::test_a_pooler_is_refused_in_words",
    ),
    _broken(
        "a new connection may forget its commits",
        f"{_AT}.connection:Link._unsafe",
        "found[name] not in safe",
        "False",
        "server:test_postgres_meddled::test_a_server_that_may_forget_commits_is_refused",
    ),
)
