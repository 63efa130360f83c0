"""The options of an address that speak of the connection: TLS, a service file, and those
that only libpq knows. The driver would send what it does not know to the server, which
refuses it as a setting."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from turnfold.errors import InvalidInputError

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# They say how libpq waits and keeps a connection alive; turnfold has its own limits.
_OF_LIBPQ = frozenset(
    {
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
        *("keepalives_count", "tcp_user_timeout", "fallback_application_name"),
        *("sslcompression", "sslsni", "gssdelegation"),
    }
)
# They ask for a protection that the driver does not have.
_PROTECTIONS = ("channel_binding", "gssencmode", "requirepeer", "require_auth")


def check_connection(options: MutableMapping[str, str]) -> None:
    """Take out what the driver does not need. Raises InvalidInputError for what it cannot
    do, and for a file that is not there: the driver would say only that no server
    answers."""
    for name in _OF_LIBPQ & options.keys():
        del options[name]
    for name in _PROTECTIONS:
        asked = options.pop(name, "")
        if asked not in ("", "disable", "prefer"):
            way = "take it out, and write sslmode=verify-full with sslrootcert"
            raise _refused(f"{name}={asked:.40} is more than the driver can do: {way}")
    mode = options.get("sslmode", "")
    if mode and mode not in _MODES:
        raise _refused(f"sslmode={mode:.40} is none of {', '.join(_MODES)}")
    for name in _FILES:
        _check_file(name, options.get(name, ""))


def _check_file(name: str, path: str) -> None:
    if name == "sslrootcert" and path == "system":
        way = "give the file of its certificates, as /etc/ssl/certs/ca-certificates.crt"
        raise _refused(f"sslrootcert=system is more than the driver can do: {way}")
    if path and not os.access(path, os.R_OK):
        raise _refused(f"{name}={path}: there is no such file, or it may not be read")


def of_service(options: MutableMapping[str, str], *, hosts: bool) -> Mapping[str, str]:
    """What the service file says of `service` (the variable PGSERVICE); `options` lose
    it. `hosts`: the address names its hosts, so those of the service count for nothing.
    Raises InvalidInputError if no file has it."""
    name = options.pop("service", "") or os.environ.get("PGSERVICE", "")
    file = options.pop("servicefile", "")
    if not name:
        return {}
    for path in [Path(file)] if file else _service_files():
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(path, "utf-8")
        except (configparser.Error, UnicodeDecodeError) as exc:
            raise _refused(f"the service file {path} cannot be read: {exc}") from exc
        if parser.has_section(name):
            skipped = ("host", "port", "hostaddr") if hosts else ()
            found = dict(parser.items(name))
            return {key: found[key] for key in found if key not in skipped}
    asked = file or ", ".join(map(str, _service_files()))
    raise _refused(f"no service file has service={name:.60} (asked: {asked})")


def _service_files() -> list[Path]:
    """The user's file before that of the system, as libpq."""
    own = os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf"
    system = os.environ.get("PGSYSCONFDIR") or "/etc/postgresql-common"
    return [Path(own).expanduser(), Path(system) / "pg_service.conf"]


def _refused(problem: str) -> InvalidInputError:
    return InvalidInputError(field="address", problem=problem)
