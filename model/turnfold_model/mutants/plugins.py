"""The mutants of plugin state: one taker, one decision, and a store that is left alone."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_API = "turnfold.api.plugins"
_MEMORY = "turnfold.api.plugin_memory:Memory"
_SQLITE = "turnfold_adapters.plugins.sqlite:SqlitePluginStore"
_TESTS = "test:contract/test_plugin_state.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "store", where, old, new, *killers)


PLUGINS: Final = (
    _broken(
        "a value that was taken stays in the store",
        f"{_API}:Namespace.consume",
        "store.take(self.space, key, now, schema)",
        "next(iter(store.get(self.space, (key,), now)))",
        f"{_TESTS}::consumed_once",
    ),
    _broken(
        "a value that was taken stays in memory",
        f"{_MEMORY}.take",
        "self.forget(key)",
        "pass",
        f"{_TESTS}::consumed_once",
    ),
    _broken(
        "a value of a newer schema is taken by who cannot read it",
        f"{_SQLITE}.take",
        "row is None or row.schema > schema",
        "row is None",
        f"{_TESTS}::problem_of_its_key",
    ),
    _broken(
        "what is expected is not compared in the store",
        f"{_SQLITE}.write",
        "write.expect is not None and write.expect != version",
        "False",
        f"{_TESTS}::over_the_version",
    ),
    _broken(
        "what another process has changed is not seen",
        f"{_API}:Shared._look",
        "seen != self._seen",
        "False",
        f"{_TESTS}::another_process",
    ),
    _broken(
        "a store that fails is asked again",
        f"{_API}:Shared.ask",
        "self.store is None or self.failing is not None",
        "self.store is None",
        f"{_TESTS}::told_once",
    ),
    _broken(
        "an eviction leaves its namespace",
        "turnfold_adapters.plugins.sqlite:_room",
        "db.execute(_EVICT, (*space, over))",
        "db.execute('DELETE FROM items WHERE key IN (SELECT key FROM items"
        " ORDER BY version LIMIT ?)', (over,))",
        f"{_TESTS}::of_its_own_namespace",
    ),
    _broken(
        "every user of the machine may read the state of plugins",
        f"{_SQLITE}._connect",
        "make_private(self.address)",
        "pass",
        f"{_TESTS}::of_the_gateway_alone",
    ),
)
