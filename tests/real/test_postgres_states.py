"""Each row of the table of SQLSTATEs in specs/postgres.md: the server refuses a commit of a
working gateway with it. The caller gets the error of the table, and when the server takes
commits again, every message that was taken is shown once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold.errors import (
    BusyError,
    DiskError,
    FateUnknownError,
    InvalidInputError,
    NoAccessError,
    NotAStoreError,
    ReadOnlyError,
    TurnfoldError,
)
from turnfold.messages import Route
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres

STATES: dict[str, type[TurnfoldError]] = {
    **dict.fromkeys(("40001", "40P01", "55P03"), BusyError),
    **dict.fromkeys(("53000", "53100", "53200", "53300", "53400"), DiskError),
    **dict.fromkeys(("57P03", "08001", "08004"), DiskError),
    **dict.fromkeys(("22001", "22003", "22021", "22P05", "54000"), InvalidInputError),
    **dict.fromkeys(("42P01", "42703", "3D000", "3F000"), NotAStoreError),
    **dict.fromkeys(("42501", "28000", "28P01"), NoAccessError),
    "25006": ReadOnlyError,
    # An input/output error, damaged data and indexes, a bug of the server, a statement
    # that an administrator ended, a server without the memory for a lock, one that stops.
    **dict.fromkeys(("58030", "XX001", "XX002", "XX000", "57014"), FateUnknownError),
    **dict.fromkeys(("57P01", "57P02", "08006", "58000", "P0001"), FateUnknownError),
}
REFUSE = """
CREATE FUNCTION {0}.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'made by a test' USING ERRCODE = '{1}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON {0}.log EXECUTE FUNCTION {0}.refuse();
"""
ALLOW = "DROP TRIGGER refuse ON {0}.log; DROP FUNCTION {0}.refuse()"


@asynccontextmanager
async def refusing(postgres: Postgres, schema: str, state: str) -> AsyncIterator[None]:
    await postgres.execute_all(REFUSE.format(schema, state))
    try:
        yield
    finally:
        await postgres.execute_all(ALLOW.format(schema))


@pytest.mark.parametrize("state", sorted(STATES))
async def test_a_gateway_lives_through_each_state_of_a_server(
    postgres: Postgres, state: str
) -> None:
    schema, platform = f"s_{state.lower()}", Platform()
    kernel = Kernel(postgres.address(schema))
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    async with kernel:
        await _shown(kernel, "before")
        async with refusing(postgres, schema, state):
            with pytest.raises(STATES[state]) as caught:
                await kernel.enqueue(Route(channel="t", conversation="1"), "refused")
            assert type(caught.value) is STATES[state]
        await _shown(kernel, "after")
        assert platform.contents == ["before", "after"]
        report = await audit_store(kernel.store)
        assert report.passed, report.first


async def _shown(kernel: Kernel, text: str) -> None:
    sent = await kernel.enqueue(Route(channel="t", conversation="1"), text)
    await kernel.settled(sent.entry_id, 20_000)
