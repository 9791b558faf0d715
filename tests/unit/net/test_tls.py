import asyncio
import multiprocessing
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from loopd.net.tls import (
    DevelopmentAuthority,
    TlsError,
    certificate_problems,
    client_context,
    covers,
    development_names,
    server_context,
)

NOW = datetime.now(UTC)


def issue(directory: Path, *names: str) -> tuple[Path, Path, Path]:
    """CA file, certificate file, key file."""
    authority = DevelopmentAuthority.open_or_create(directory / "ca", NOW)
    issued = authority.issue(development_names(names[0], names[-1]), NOW)
    certificate, key = directory / "tls-cert.pem", directory / "tls-key.pem"
    certificate.write_bytes(issued.certificate_pem)
    key.write_bytes(issued.key_pem)
    key.chmod(0o600)
    return authority.certificate_file, certificate, key


async def exchange(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """Serve one connection on loopback, dial it as `host`, give back the TLS version that was agreed."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=host)
        try:
            assert await reader.read() == b"hello"
            version: str | None = writer.get_extra_info("ssl_object").version()
        finally:
            writer.close()
    return version


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "munich.example"])
async def test_a_development_certificate_is_accepted_for_each_of_its_names(tmp_path: Path, host: str) -> None:
    ca_file, certificate, key = issue(tmp_path, "127.0.0.1", "munich.example")
    assert await exchange(server_context(certificate, key), client_context(ca_file), host) == "TLSv1.3"


async def test_another_name_or_another_authority_is_refused(tmp_path: Path) -> None:
    ca_file, certificate, key = issue(tmp_path, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        await exchange(server_context(certificate, key), client_context(ca_file), "vienna.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        await exchange(server_context(certificate, key), client_context(), "localhost")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_1_2_is_spoken_by_neither_side(tmp_path: Path) -> None:
    ca_file, certificate, key = issue(tmp_path, "127.0.0.1")
    old_client = ssl.create_default_context(cafile=ca_file)
    old_client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await exchange(server_context(certificate, key), old_client, "localhost")
    old_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old_server.maximum_version = ssl.TLSVersion.TLSv1_2
    old_server.load_cert_chain(certificate, key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await exchange(old_server, client_context(ca_file), "localhost")


def open_authority(directory: Path) -> bytes:
    return DevelopmentAuthority.open_or_create(directory, NOW).certificate_file.read_bytes()


def test_processes_that_race_for_the_authority_agree_on_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("forkserver").Pool(4) as pool:
        certificates = pool.map(open_authority, [tmp_path / "ca"] * 8, chunksize=1)
    assert len(set(certificates)) == 1
    key = load_pem_private_key((tmp_path / "ca" / "ca.key").read_bytes(), password=None)
    assert key.public_key() == x509.load_pem_x509_certificate(certificates[0]).public_key()
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600


def test_an_authority_whose_certificate_was_never_written_gets_one_for_its_key(tmp_path: Path) -> None:
    first = DevelopmentAuthority.open_or_create(tmp_path, NOW)
    key = (tmp_path / "ca.key").read_bytes()
    first.certificate_file.unlink()
    DevelopmentAuthority.open_or_create(tmp_path, NOW)
    assert (tmp_path / "ca.key").read_bytes() == key
    assert (tmp_path / "ca.pem").exists()


def test_an_authority_is_never_replaced(tmp_path: Path) -> None:
    authority = DevelopmentAuthority.open_or_create(tmp_path, NOW)
    certificate = authority.certificate_file.read_bytes()
    (tmp_path / "ca.key").unlink()
    with pytest.raises(TlsError, match=r"ca\.key"):
        DevelopmentAuthority.open_or_create(tmp_path, NOW)
    authority.certificate_file.write_text("something else")
    with pytest.raises(TlsError, match=r"ca\.pem"):
        DevelopmentAuthority.open_or_create(tmp_path, NOW)
    authority.certificate_file.write_bytes(certificate)
    (tmp_path / "other").mkdir()
    DevelopmentAuthority.open_or_create(tmp_path / "other", NOW)
    (tmp_path / "other" / "ca.key").rename(tmp_path / "ca.key")
    with pytest.raises(TlsError, match="not the key of"):
        DevelopmentAuthority.open_or_create(tmp_path, NOW)


def test_problems_are_named(tmp_path: Path) -> None:
    _, certificate, key = issue(tmp_path, "127.0.0.1")
    assert certificate_problems(certificate, key, "127.0.0.1", NOW) == []
    assert "vienna.example" in certificate_problems(certificate, key, "vienna.example", NOW)[0]
    assert "expired" in certificate_problems(certificate, key, "localhost", NOW + timedelta(days=400))[0]
    assert "valid from" in certificate_problems(certificate, key, "localhost", NOW - timedelta(days=1))[0]
    key.chmod(0o644)
    assert "0644" in certificate_problems(certificate, key, "localhost", NOW)[0]


def test_unusable_files_are_named(tmp_path: Path) -> None:
    ca_file, certificate, key = issue(tmp_path, "127.0.0.1")
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("no pem")
    with pytest.raises(TlsError, match=r"missing\.pem: No such file"):
        server_context(missing, key)
    with pytest.raises(TlsError, match=r"text\.pem"):
        server_context(text, key)
    with pytest.raises(TlsError, match="not the key of the certificate"):
        server_context(certificate, ca_file.with_name("ca.key"))
    with pytest.raises(TlsError, match=r"text\.pem: no certificates"):
        client_context(text)
    with pytest.raises(TlsError, match=r"missing\.pem: No such file"):
        client_context(missing)


def test_an_encrypted_key_is_refused_instead_of_asking_on_the_terminal(tmp_path: Path) -> None:
    _, certificate, key = issue(tmp_path, "127.0.0.1")
    parsed = load_pem_private_key(key.read_bytes(), password=None)
    assert isinstance(parsed, ec.EllipticCurvePrivateKey)
    key.write_bytes(parsed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")))
    with pytest.raises(TlsError, match="encrypted"):
        server_context(certificate, key)


def test_names_of_a_development_certificate() -> None:
    assert development_names("127.0.0.1", "127.0.0.1") == [ip_address("127.0.0.1"), "localhost"]
    assert development_names("0.0.0.0", "munich.example") == ["localhost", "munich.example"]  # noqa: S104
    assert development_names("[::1]", "10.0.0.7") == [ip_address("::1"), "localhost", ip_address("10.0.0.7")]


def test_a_wildcard_covers_one_label(tmp_path: Path) -> None:
    issued = DevelopmentAuthority.open_or_create(tmp_path, NOW).issue(["*.munich.example"], NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    assert covers(certificate, "loop.munich.example")
    assert not covers(certificate, "munich.example")
    assert not covers(certificate, "a.loop.munich.example")
