"""Which history of the database this is: a failover to a standby that lacks the last
commits looks like a server that runs on.

A server names its history by its identifier and its timeline. A standby that is
promoted begins a new timeline; a database that was put back elsewhere has another
identifier. The name is kept in the table `mark`: from the moment the tables are made, and
renewed only by an owner whose own head the log contains. So it says in which history
the log was last known to be whole.
"""

from __future__ import annotations

import asyncpg

# A server that cannot say it (another make, or no right to ask) has the empty name, and
# then nothing is noticed. A standby is in recovery and has no name of its own.
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
    """None on a standby, empty where the server cannot say it."""
    try:
        async with connection.transaction():
            found = await connection.fetchval(_NAME)
    except _CANNOT_SAY:
        return ""
    return None if found is None else str(found)


def failover(noted: str, found: str | None) -> str | None:
    """The history found, if the log was last known to be whole in another one."""
    if found is None or not noted or found == noted:
        return None
    return found or "a server that does not name its history"
