"""TLS and service files with several hosts in the address, on a primary and its standby."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnfold import Kernel
from turnfold.errors import NoAccessError
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_adapters.stores.postgres.connection import Place

from .failover import Standby
from .postgres import Postgres, in_memory
from .tls import Authority, speaking_tls

NAME = "localhost"


class Pair:
    """A primary and a standby behind TLS; the standby is the first of the hosts."""

    def __init__(self, ports: tuple[int, int], root: Path, folder: Path) -> None:
        self.ports, self.root, self.folder = ports, root, folder
        self.hosts = ",".join(f"{NAME}:{port}" for port in ports)

    def address(self, *options: str, hosts: str = "") -> str:
        more = "&".join(options)
        return f"postgresql://postgres@{hosts or self.hosts}/postgres?{more}"

    @property
    def verified(self) -> tuple[str, str]:
        return "sslmode=verify-full", f"sslrootcert={self.root}"


@pytest.fixture
async def pair(postgres: Postgres) -> AsyncIterator[Pair]:
    with in_memory() as folder, Standby(postgres, folder / "s") as standby:
        authority = Authority(folder / "ca")
        context = authority.context(NAME)
        async with (
            speaking_tls(standby.folder, context) as behind,
            speaking_tls(postgres.folder, context) as primary,
        ):
            yield Pair((behind, primary), authority.root, folder)


async def opens(address: str) -> None:
    """A worker begins and ends there."""
    async with Kernel(address) as kernel:
        assert kernel.working


async def refused(address: str) -> str:
    store = PostgresStore(address)
    with pytest.raises(NoAccessError) as told:
        await store.open()
    await store.close()
    return str(told.value)


@pytest.mark.parametrize("mode", ["", "require", "verify-ca", "verify-full"])
async def test_a_worker_finds_the_primary_over_tls(pair: Pair, mode: str) -> None:
    options = ["schema=tls1", f"sslrootcert={pair.root}"]
    await opens(pair.address(*options, *([f"sslmode={mode}"] if mode else [])))


async def test_a_certificate_of_another_name_or_authority_is_refused(
    pair: Pair, tmp_path: Path
) -> None:
    """As an access that a person must mend, and not as a server that is away."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in pair.ports)
    said = await refused(pair.address(*pair.verified, hosts=hosts))
    assert "127.0.0.1" in said
    assert "that the certificate has the name" in said
    other = Authority(tmp_path / "other").root
    for each in (pair.hosts, f"{NAME}:{pair.ports[1]}"):
        where = pair.address("sslmode=verify-ca", f"sslrootcert={other}", hosts=each)
        assert "check `sslrootcert`" in await refused(where)


async def test_a_service_names_several_hosts(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby is the first one. The driver alone takes it."""
    file = pair.folder / "services"
    ports = ",".join(map(str, pair.ports))
    lines = [
        "# as libpq reads it",
        "[pair]",
        f"host={NAME},{NAME}",
        f"port={ports}",
        "user=postgres",
        "dbname=postgres",
        "password=per%cent",
        "connect_timeout=3",
        *pair.verified,
    ]
    file.write_text("\n".join(lines))
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    await opens("postgresql:///?service=pair&schema=tls2")
    await opens(f"postgresql://postgres@{pair.hosts}/postgres?service=pair&schema=tls2")
    monkeypatch.setenv("PGSERVICE", "pair")
    await opens("postgresql:///?schema=tls2")
    place = Place.parsed("postgresql:///?schema=tls2")
    assert [str(host) for host in place.hosts] == pair.hosts.split(",")
    assert "per%cent" not in place.address
