"""TLS, service files and options of libpq in the address of a store in PostgreSQL."""

import ssl
from pathlib import Path

import pytest

from turnfold.errors import InvalidInputError, NoAccessError
from turnfold_adapters.stores.postgres.connection import Place, _unconnected


def test_what_is_written_wins_over_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services"
    file.write_text("[s]\nhost=a,b\nport=1,2\nuser=u\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "none"))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path))
    file.rename(tmp_path / "pg_service.conf")
    place = Place.parsed("postgresql://me@c:9/d?service=s")
    assert (place.hosts, place.address) == ((), "postgresql://me@c:9/d?schema=turnfold")
    place = Place.parsed("postgresql:///d?service=s")
    assert [str(host) for host in place.hosts] == ["a:1", "b:2"]
    with pytest.raises(InvalidInputError, match="no service file has service=t"):
        Place.parsed("postgresql:///d?service=t")
    (tmp_path / "pg_service.conf").write_text("host=a\n")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Place.parsed("postgresql:///d?service=s")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("sslmode=verify", "is none of disable"),
        ("sslrootcert=/nowhere.crt", "sslrootcert=/nowhere.crt: there is no such file"),
        ("sslkey=/nowhere.key", "sslkey=/nowhere.key: there is no such file"),
        ("sslrootcert=system", "ca-certificates.crt"),
        ("channel_binding=require", "more than the driver can do"),
        ("gssencmode=require", "more than the driver can do"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(option: str, says: str) -> None:
    """Before any server is asked: the driver would say that none answers."""
    with pytest.raises(InvalidInputError, match=says):
        Place.parsed(f"postgresql://a,b/d?{option}")


def test_options_of_libpq_alone_do_not_go_to_the_server() -> None:
    """The server refuses a setting that it does not know."""
    asked = "connect_timeout=3&keepalives=1&channel_binding=prefer&gssencmode=disable"
    place = Place.parsed(f"postgresql://a,b/d?{asked}&sslmode=require")
    assert place.dsn == "postgresql:/d?sslmode=require&target_session_attrs=any"


def test_a_certificate_that_does_not_fit_is_for_a_person() -> None:
    """`tests/real/test_postgres_tls.py` has it from a server."""
    error = _unconnected(ssl.SSLCertVerificationError("not the name"), "postgresql://h")
    assert isinstance(error, NoAccessError)
    assert "check `sslrootcert`" in str(error)
