"""TLS 1.3 for both sides, and the certificate authority of a development machine.

Nothing below TLS 1.3 is spoken, and a server's certificate is always checked against the system's roots and, where
cities run their own authority, `tls.ca_file`.
"""

import fcntl
import os
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_VALID_DAYS = 3650
# Browsers refuse server certificates that are valid for much longer, also those of a private authority.
SERVER_VALID_DAYS = 397
# A certificate made this moment must also hold on a machine whose clock is a little behind.
BACKDATED = timedelta(hours=1)

Name = str | IPv4Address | IPv6Address


class TlsError(Exception):
    """A certificate or key that cannot be used. The text is meant for the operator and names the file."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The listener's context. TlsError where the files are missing, unreadable or do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load_chain(context, certificate, key)
    return context


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """The context for calling other nodes: the system's roots and those in `ca_file`, host names checked.

    TlsError where `ca_file` holds no certificates.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError:
            raise TlsError(f"{ca_file}: no certificates in PEM form") from None
        except OSError as error:
            raise TlsError(f"{ca_file}: {error.strerror}") from None
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise TlsError(f"{path}: {error.strerror}") from None

    def no_password() -> str:
        raise TlsError(f"{key}: the key is encrypted; a daemon has nobody to ask for the password")

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key}: not the key of the certificate {certificate}") from None
        raise TlsError(f"{certificate}, {key}: no certificate and key in PEM form that TLS accepts") from None


def certificate_problems(certificate: Path, key: Path, host: str, now: datetime) -> list[str]:
    """What is wrong with a listener's certificate, for the operator: unusable, out of date, not for `host`."""
    try:
        server_context(certificate, key)
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except TlsError as error:
        return [str(error)]
    except ValueError:
        return [f"{certificate}: not a certificate in PEM form"]
    problems = []
    if now < parsed.not_valid_before_utc:
        problems.append(f"{certificate}: valid from {parsed.not_valid_before_utc.isoformat()} on only")
    if now >= parsed.not_valid_after_utc:
        problems.append(f"{certificate}: expired at {parsed.not_valid_after_utc.isoformat()}")
    if not covers(parsed, host):
        problems.append(f"{certificate}: does not cover the endpoint's host {host} ({_names_text(parsed)})")
    if key.stat().st_mode & 0o077:
        problems.append(f"{key}: others than its owner may read it (mode {key.stat().st_mode & 0o777:04o}, not 0600)")
    return problems


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether the certificate is for the host (RFC 9525: subject alternative names, `*` stands for one first label)."""
    dns_names, addresses = _alternative_names(certificate)
    try:
        return ip_address(host.strip("[]")) in addresses
    except ValueError:
        wanted = host.rstrip(".").lower()
    wildcard = "*." + wanted.partition(".")[2]
    return any(name.lower() in (wanted, wildcard) for name in dns_names)


def _alternative_names(certificate: x509.Certificate) -> tuple[list[str], list[IPv4Address | IPv6Address]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    addresses = [
        address
        for address in names.get_values_for_type(x509.IPAddress)
        if isinstance(address, IPv4Address | IPv6Address)
    ]
    return names.get_values_for_type(x509.DNSName), addresses


def _names_text(certificate: x509.Certificate) -> str:
    dns_names, addresses = _alternative_names(certificate)
    names = [*dns_names, *map(str, addresses)]
    return "it is for " + ", ".join(names) if names else "it names no host"


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A server certificate and its private key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes


class DevelopmentAuthority:
    """A certificate authority for the nodes of one machine. Its key lies on disk: never trust it elsewhere."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, certificate_file: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.certificate_file = certificate_file

    @classmethod
    def open_or_create(cls, directory: Path, now: datetime) -> "DevelopmentAuthority":
        """The authority in `directory` (`ca.pem`, `ca.key`), made if absent; several processes may ask at once.

        TlsError where the files there are something else, or the certificate's key is missing.
        """
        certificate_file, key_file = directory / "ca.pem", directory / "ca.key"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            with _exclusive(directory / "ca.lock"):
                # A process killed between the two files leaves a key without certificate: it gets one now.
                if not certificate_file.exists():
                    key = _read_key(key_file) if key_file.exists() else _create_key(key_file)
                    _publish(certificate_file, _self_signed(key, now).public_bytes(Encoding.PEM))
                certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
                key = _read_key(key_file)
        except ValueError:
            raise TlsError(f"{certificate_file}: not a certificate in PEM form") from None
        except OSError as error:
            raise TlsError(f"{error.filename or directory}: {error.strerror}") from None
        if key.public_key() != certificate.public_key():
            raise TlsError(f"{key_file}: not the key of the certificate {certificate_file}")
        return cls(certificate, key, certificate_file)

    def issue(self, names: Iterable[Name], now: datetime) -> IssuedCertificate:
        """A server certificate for the host names and addresses, EC P-256 as browsers take it."""
        alternative = [
            x509.IPAddress(name) if isinstance(name, IPv4Address | IPv6Address) else x509.DNSName(name)
            for name in dict.fromkeys(names)
        ]
        if not alternative:
            raise ValueError("a server certificate needs at least one name")
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_key_id = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _builder(_common_name("loopd development node"), self._certificate.subject, key, now, SERVER_VALID_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False
            )
            .sign(self._key, SHA256())
        )
        return IssuedCertificate(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def development_names(listen_host: str, endpoint_host: str) -> list[Name]:
    """What a development certificate is for: the listen address, `localhost` beside loopback, the endpoint's host."""
    names: list[Name] = []
    for host in (listen_host, endpoint_host):
        try:
            address = ip_address(host.strip("[]"))
        except ValueError:
            names.append(host)
            continue
        if not address.is_unspecified:
            names.append(address)
        if address.is_loopback or address.is_unspecified:
            names.append("localhost")
    return list(dict.fromkeys(names))


@contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _publish(path: Path, content: bytes) -> None:
    """Write a file that readers without the lock see whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(path)


def _create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_key_pem(key))
    return key


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise TlsError(f"{path}: not an unencrypted private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsError(f"{path}: not an elliptic-curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _common_name("loopd development authority")
    return (
        _builder(name, name, key, now, AUTHORITY_VALID_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, valid_days: int
) -> x509.CertificateBuilder:
    start = now.astimezone(UTC).replace(microsecond=0) - BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=valid_days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
