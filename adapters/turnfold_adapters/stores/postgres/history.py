"""The history of the database: without it a failover to a standby that lacks the last
commits looks like a server that runs on.

A server names its history by its identifier and its timeline. A standby that is
promoted begins a new timeline; a database that was put back elsewhere has another
identifier. The table `mark` keeps the name from the creation of the tables on. Only an
owner renews it, if the log contains the owner's head. So the mark names the last
history in which the log was known to be whole.
"""

from __future__ import annotations

import asyncpg

# A server that cannot name it (another product, or a missing right) has the empty name,
# and then a failover is not noticed. A standby is in recovery and has no name of its
# own.
_NAME = """
SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE
    (SELECT system_identifier FROM pg_control_system()) || '/'
    || ltrim(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), '0') END
"""
_CANNOT_SAY = (
    asyncpg.UndefinedFunctionError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.FeatureNotSupportedError,
)


async def name(connection: asyncpg.Connection) -> str | None:
    """The name of the server's history. None on a standby, empty where the server
    cannot name it."""
    try:
        async with connection.transaction():
            found = await connection.fetchval(_NAME)
    except _CANNOT_SAY:
        return ""
    return None if found is None else str(found)


def failover(noted: str, found: str | None) -> str | None:
    """The found history, if it differs from the noted one."""
    if found is None or not noted or found == noted:
        return None
    return found or "a server that does not name its history"
