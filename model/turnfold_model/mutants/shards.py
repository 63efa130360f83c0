"""The mutants of shards: where something lies, and how a shard changes hands."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_M = "turnfold.api.shards"
_K = "turnfold.api.shard_kernel"
_HOST = f"{_M}:Shards"
_BALANCE = "turnfold.api.balance:Balance"
_KERNEL = "turnfold.api.kernel:Kernel"
_TESTS = "test:contract/test_shards.py"
_POLLS = "test:contract/test_shard_polls.py"
_WHOLE = "test:contract/test_kernel_on_shards.py"


def _broken(name: str, where: str, old: str, new: str, killer: str) -> Mutant:
    return one(name, "shards", where, old, new, f"{_TESTS}::{killer}")


def _partly(name: str, where: str, old: str, new: str, killer: str) -> Mutant:
    """A kernel that forgets some of its shards."""
    return one(name, "shards", where, old, new, f"{_WHOLE}::{killer}")


SHARDS: Final = (
    _broken(
        "an id does not name its shard",
        f"{_K}:ShardKernel._placed",
        "",
        "return new_id",
        "a_message_is_answered",
    ),
    _broken(
        "a reply into another shard is taken",
        f"{_K}:ShardKernel._check_stays",
        "other != self._shard",
        "False",
        "a_reply_into_another_shard",
    ),
    _broken(
        "the cursor of a source moves before its message is durable",
        f"{_K}:ShardKernel._of_source",
        "done = await self._host.accept(inbound, **plan)",
        "await self.advance(cursor)\ndone = await self._host.accept(inbound, **plan)",
        "a_source_is_behind_its_messages",
    ),
    _broken(
        "a message of a source without a key is taken twice",
        f"{_K}:ShardKernel._of_source",
        "inbound.dedupe_key is None",
        "False",
        "a_message_of_a_source_that_comes_again",
    ),
    _broken(
        "a shard that is handed over closes the channels of its host",
        f"{_K}:ShardKernel._keep_channels",
        "self._desks = {}",
        "pass",
        "seats_are_shared_out_again",
    ),
    _broken(
        "a host takes more than its share",
        f"{_BALANCE}._look",
        "ceil(self._shards / seating.hosts)",
        "self._shards",
        "seats_are_shared_out_again",
    ),
    _broken(
        "a host whose lease is over takes a shard",
        f"{_BALANCE}._look",
        "not self._share.held",
        "False",
        "a_host_without_a_lease",
    ),
    _broken(
        "a host that has lost its seats counts as well",
        f"{_BALANCE}._give_up",
        "self._lost += kernel.fences_lost",
        "pass",
        "a_host_whose_lease_is_over",
    ),
    _broken(
        "a host without a seat does not say that its lease is over",
        f"{_BALANCE}._fences_lost",
        "not self._share.held",
        "False",
        "a_host_whose_lease_is_over",
    ),
    _broken(
        "the sharing out of shards ends with its first error",
        f"{_BALANCE}._try_look",
        "self._note(_BALANCE, exc)",
        "raise",
        "a_host_that_cannot_share",
    ),
    _broken(
        "the store is closed under a shard whose handler closes the host",
        f"{_KERNEL}._close_shards",
        "step_outside()",
        "pass",
        "a_handler_may_close",
    ),
    _broken(
        "a person's word about an account reaches one shard alone",
        f"{_HOST}._of_name",
        "len(parts) < 3",
        "False",
        "acts_find_their_shard",
    ),
    _broken(
        "an account that one shard alone holds back is said to be free",
        f"{_HOST}._let_go",
        "len(refused) == len(named)",
        "refused",
        "an_account_that_is_held_in_one",
    ),
    _broken(
        "each shard sends at the whole rate of the account",
        f"{_K}:part_of",
        "rate.account / shards",
        "rate.account",
        "each_shard_has_its_part",
    ),
    _broken(
        "the source of an account runs in every shard",
        f"{_K}:ShardKernel._has_account",
        "shard_of_place(channel, account, '', self._all.count) == self._shard",
        "True",
        "a_source_reads_on_one_host",
    ),
    one(
        "a store of one shard is copied into a store of four",
        "shards",
        "turnfold_cli.copy:_check_shards",
        "to.shards == shards",
        "True",
        "test:contract/test_copy.py::another_number_of_shards",
    ),
    one(
        "a copy that lacks records of one shard counts as whole",
        "shards",
        "turnfold_cli.copy:_difference",
        "ours != theirs",
        "False",
        "test:contract/test_copy.py::every_shard",
    ),
    _partly(
        "a question about one log is asked of a store of several",
        "turnfold.api.spread:Spread._check_one",
        "self._shards is not None",
        "False",
        "what_needs_one_log",
    ),
    _partly(
        "shards that have a clock each are given one",
        f"{_KERNEL}._open_shards",
        "self._own_time or self._probe is not None",
        "False",
        "what_needs_one_log",
    ),
    _partly(
        "a channel that is attached later is missing in the seats",
        f"{_HOST}._parts",
        "[*seats[0], *seats[1], *self._clients]",
        "self._clients",
        "a_channel_that_is_attached_later",
    ),
    _partly(
        "a seat that is taken just now misses what is attached",
        f"{_HOST}._parts",
        "[*seats[0], *seats[1], *self._clients]",
        "[*seats[0], *self._clients]",
        "what_is_attached_while",
    ),
    _partly(
        "a source that is added later runs on every host",
        f"{_HOST}.source",
        "self._of_account(name, account)",
        "[*self.balance.seats][0]",
        "a_source_that_is_added_later",
    ),
    _partly(
        "a disconnected account waits in one shard alone",
        f"{_HOST}._told",
        "return range(self.count)",
        "return [0]",
        "an_account_that_is_off",
    ),
    _partly(
        "a copy is declared in one shard alone",
        f"{_HOST}.declare_restored",
        "range(self.count)",
        "range(1)",
        "a_copy_is_declared",
    ),
    _partly(
        "a host that drains takes shards",
        f"{_HOST}.drain",
        "await self.balance.stop()",
        "pass",
        "a_host_that_drains",
    ),
    _partly(
        "a host says that all rests without the shards of others",
        f"{_HOST}.rests",
        "len(here) == self.count",
        "here",
        "at_rest_waits",
    ),
    _broken(
        "each shard of a host is refused once more",
        f"{_HOST}.limited",
        "seat is not by",
        "False",
        "a_limit_of_an_account",
    ),
    one(
        "a command whose ring was lost is never found in a shard",
        "shards",
        f"{_BALANCE}._tell",
        "seat.stir(seating)",
        "pass",
        f"{_POLLS}::a_command_whose_ring_is_lost",
    ),
    one(
        "a log that ends behind what memory knows is not read",
        "shards",
        f"{_K}:ShardKernel.stir",
        "more or self._shard in seating.waiting",
        "self._shard in seating.waiting",
        f"{_POLLS}::a_log_that_ends_behind",
    ),
    one(
        "no shard asks by itself while its host cannot look",
        "shards",
        f"{_K}:ShardKernel._polls",
        "not self._all.balance.looks or self._open_driver().journal.lost",
        "self._open_driver().journal.lost",
        f"{_POLLS}::asks_by_itself_while",
    ),
    one(
        "a shard with a commit of unknown outcome waits for a ring",
        "shards",
        f"{_K}:ShardKernel._polls",
        "not self._all.balance.looks or self._open_driver().journal.lost",
        "not self._all.balance.looks",
        f"{_POLLS}::commit_of_unknown_outcome",
    ),
    one(
        "each idle shard asks its store a few times a second",
        "shards",
        f"{_K}:ShardKernel._polls",
        "not self._all.balance.looks or self._open_driver().journal.lost",
        "True",
        f"{_POLLS}::an_idle_shard_asks",
    ),
    _broken(
        "each host is refused once more",
        f"{_BALANCE}._tell",
        "seat.heed(limit)",
        "pass",
        "a_limit_of_an_account_reaches_the_other_hosts",
    ),
    _broken(
        "a host whose clock is ahead makes the others wait for an hour",
        f"{_K}:ShardKernel.heed",
        "min(limit.until - now, limit.until - limit.since)",
        "limit.until - now",
        "a_limit_of_another_host_lasts",
    ),
    _broken(
        "a limit of another host is told again at each look",
        f"{_K}:ShardKernel.heed",
        "self._heeded.get(limit.gate, 0) < limit.until",
        "True",
        "a_limit_of_another_host_lasts",
    ),
    _broken(
        "a limit of one conversation stops the account in all shards",
        f"{_K}:_limits_account",
        "gate.stream.count('/') == 1",
        "True",
        "a_limit_of_an_account",
    ),
    _partly(
        "a list of a platform is held against each shard alone",
        "turnfold.audit.witness:Witness.end",
        "self._logs > 0",
        "False",
        "the_list_of_a_platform",
    ),
    _partly(
        "a client says that a text is erased, which only the worker knows",
        f"{_HOST}.erased",
        "seat is not None and await seat.erased()",
        "True",
        "what_is_erased",
    ),
    _broken(
        "a page of all shards begins anew in each",
        "turnfold.inspect.shards:_page",
        "listing.before is None",
        "True",
        "all_shards_are_read",
    ),
)
