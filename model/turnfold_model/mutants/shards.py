"""The mutants of shards: where something lies, and how a shard changes hands."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_M = "turnfold.api.shards"
_K = "turnfold.api.shard_kernel"
_HOST = f"{_M}:ShardedKernel"
_BALANCE = "turnfold.api.balance:Balance"
_TESTS = "test:contract/test_shards.py"


def _broken(name: str, where: str, old: str, new: str, killer: str) -> Mutant:
    return one(name, "shards", where, old, new, f"{_TESTS}::{killer}")


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
        f"{_BALANCE}._for_ever",
        "self._note(_BALANCE, exc)",
        "raise",
        "a_host_that_cannot_share",
    ),
    _broken(
        "the store is closed under a shard whose handler closes the host",
        f"{_HOST}._close",
        "step_outside()",
        "pass",
        "a_handler_may_close",
    ),
    _broken(
        "a person's word about an account reaches one shard alone",
        f"{_HOST}._of_place",
        "len(parts) < 3",
        "False",
        "acts_find_their_shard",
    ),
    _broken(
        "an account that one shard alone holds back is said to be free",
        f"{_HOST}.let_go",
        "len(refused) == len(named)",
        "refused",
        "an_account_that_is_held_in_one",
    ),
    _broken(
        "each shard sends at the whole rate of the account",
        f"{_M}:_part",
        "rate.account / shards",
        "rate.account",
        "what_is_attached",
    ),
    _broken(
        "shards are pruned, which nobody has tried",
        f"{_M}:_check_settings",
        "settings.prune_after_ms is not None",
        "False",
        "what_is_attached",
    ),
    _broken(
        "a kernel of one shard opens a store of several",
        "turnfold.ports.shards:one_shard",
        "shards > 1",
        "False",
        "a_kernel_of_one_shard",
    ),
    _broken(
        "a page of all shards begins anew in each",
        "turnfold.inspect.shards:_page",
        "listing.before is None",
        "True",
        "all_shards_are_read",
    ),
)
