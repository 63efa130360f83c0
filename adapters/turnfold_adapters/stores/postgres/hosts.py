"""The hosts in the address of a store: `postgresql://user@a:5432,b:5433/database`.

They are the servers of one cluster: a primary and its standbys. The same list is taken
as `?host=a,b&port=5432,5433`, and from the variables PGHOST and PGPORT if the address
names no host. A socket is the path of its folder (`%2Ftmp` before the database), an
IPv6 address stands in brackets.
"""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from urllib.parse import unquote

from attrs import frozen

from turnfold.errors import InvalidInputError

_MAX_PORT = 65_535
_PARTS = re.compile(r"(?:[^:/?#]*:)?(?://([^/?#]*))?(.*)", re.DOTALL)
_BRACKETS = re.compile(r"\[(?P<name>[^\[\]]+)\](?::(?P<port>.*))?")
_PRIMARY = {"read-write", "primary"}
_ENCODE = (
    "write each of @ : / ? # % and , in a user, a password or a name as its code:"
    " %40 %3A %2F %3F %23 %25 %2C"
)


@frozen
class Host:
    """A server by its name, its IP address or the folder of its socket. `port`: None
    for the default, PGPORT or 5432."""

    name: str
    port: int | None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@frozen
class Parts:
    """An address without its hosts. `login`: user and password, as they are written;
    `rest`: from the database on."""

    login: str
    hosts: str
    rest: str


def parts_of(url: str) -> Parts:
    """The parts of an address. Python's own parser knows only one host. No error shows
    a piece of it: a password with an odd character may stand in any place."""
    before, rest = _PARTS.findall(url)[0]
    login, _, hosts = before.rpartition("@")
    path, _, query = rest.partition("?")
    names = [pair.partition("=")[0] for pair in query.split("&")]
    if "@" in login or "@" in path or any("@" in name for name in names):
        raise _refused(f"an @ stands in an odd place: {_ENCODE}")
    return Parts(login, hosts, rest)


def several(hosts: str, options: MutableMapping[str, str]) -> tuple[Host, ...]:
    """The hosts, if they are several; else nothing, and `options` stay as they are.
    `hosts`: before the database; `options`: behind it, which lose what names a host.
    Raises InvalidInputError."""
    port = options.get("port", "")
    if "," not in hosts + options.get("host", ""):
        named = hosts or options.get("host") or os.environ.get("PGHOST", "")
        if "," not in named:
            _check_one(hosts, port)
            return ()
        port = port or os.environ.get("PGPORT", "")
    elif hosts and "host" in options:
        raise _refused("it names its hosts twice: take `host=` out of it")
    else:
        named = hosts or options["host"]
    made = [_host(text) for text in named.split(",")]
    for name in ("host", "port"):
        options.pop(name, None)
    return tuple(_with_ports(made, port) if port else made)


def check_role(options: MutableMapping[str, str]) -> None:
    """Take the options about the choice of a server out. Raises InvalidInputError for
    one that asks for a standby: turnfold itself looks for the primary."""
    options.pop("load_balance_hosts", None)  # there is one primary
    role = options.pop("target_session_attrs", "read-write")
    if role not in _PRIMARY:
        raise _refused(
            f"target_session_attrs={role:.40}: a store is written on the primary alone."
            " Write read-write, or leave it out; to look at a standby, give the"
            " address of that standby alone"
        )


def _check_one(host: str, port: str) -> None:
    if "," in port:
        raise _refused("it has several ports and one host: name as many hosts")
    if host:
        _host(host)


def _host(text: str) -> Host:
    if not text:
        raise _refused("a host between two commas, or beside one, is empty")
    if text.startswith("/"):
        return Host(text, None)
    if text.startswith("["):
        found = _BRACKETS.fullmatch(text)
        if found is None:
            raise _refused("a host with [ is no IPv6 address like [::1]:5432")
        return Host(found["name"], _port(found["port"] or ""))
    name, _, port = text.partition(":")
    if ":" in port:
        raise _refused("an IPv6 address stands in brackets, as in [::1]:5432")
    if not name:
        raise _refused("a port has no host before it")
    return Host(unquote(name), _port(port))


def _port(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_PORT:
        return int(text)
    problem = f"a port is no number from 1 to {_MAX_PORT}; if it belongs to a password,"
    raise _refused(f"{problem} {_ENCODE}")


def _with_ports(hosts: list[Host], text: str) -> list[Host]:
    """The hosts with the ports of `port=`: one for all, or one for each."""
    ports = [_port(each) for each in text.split(",")]
    if any(host.port for host in hosts):
        raise _refused("it names ports twice: take `port=` out of it")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        counts = f"{len(hosts)} hosts and {len(ports)} ports"
        raise _refused(f"it has {counts}: give one port for all, or one for each")
    return [Host(host.name, port) for host, port in zip(hosts, ports, strict=True)]


def _refused(problem: str) -> InvalidInputError:
    return InvalidInputError(field="address", problem=problem)
