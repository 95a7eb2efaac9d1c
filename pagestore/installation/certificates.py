"""Certificates of an installation's own making, for parts that other machines reach.

::

    DATA/tls/authority.pem       whom clients believe; to be copied to every machine
    DATA/tls/authority-key.pem   signs certificates; stays here
    DATA/tls/certificate.pem, key.pem
                                 what the parts of this machine show

An authority of the operator's own takes its place by [tls] in pagestore.toml.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from pagestore import durable
from pagestore.client.credentials import AUTHORITY
from pagestore.errors import FailedPrecondition, InvalidInput

DAYS = 3650
AUTHORITY_KEY = Path("tls/authority-key.pem")
CERTIFICATE, KEY = "certificate.pem", "key.pem"
MAX_HOST = 253
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*")
_ALWAYS = ("localhost", "127.0.0.1", "::1")


def settle_authority(data: Path, configured: Path) -> None:
    """Puts the operator's own where clients of this data directory look.

    Raises:
        FailedPrecondition: CERTIFICATE_UNUSABLE.
    """
    try:
        content = configured.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            "CERTIFICATE_UNUSABLE",
            f"{configured} cannot be read: {error.strerror}.",
            "See `authority` of [tls] in pagestore.toml.",
        ) from error
    _make_folder((data / AUTHORITY).parent)
    durable.replace(data / AUTHORITY, content)


def make(data: Path, names: Iterable[str], out: Path | None = None) -> Path:
    """A certificate for `names` (host names and IP addresses), by this installation's authority,
    which is made if there is none.

    Args:
        out: for another machine: a folder to copy there, with the authority's certificate.

    Returns: the folder with the certificate.

    Raises:
        InvalidInput: INVALID_NAME. FailedPrecondition: CERTIFICATE_UNUSABLE.
    """
    folder = (data / AUTHORITY).parent
    _make_folder(folder)
    authority, signing = _authority(data)
    key = _new_key()
    subject = _subject("pagestore")
    builder = _builder(subject, authority.subject, key)
    certificate = _for_names(builder, [*dict.fromkeys([*names, *_ALWAYS])]).sign(
        signing, hashes.SHA256()
    )
    place = out or folder
    _make_folder(place)
    durable.replace(place / KEY, _key_pem(key))
    durable.replace(place / CERTIFICATE, _pem(certificate))
    if out is not None:
        durable.replace(place / AUTHORITY.name, _pem(authority))
    return place


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _authority(data: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    if not (data / AUTHORITY_KEY).exists():
        if (data / AUTHORITY).exists():
            raise FailedPrecondition(
                "CERTIFICATE_UNUSABLE",
                f"{data / AUTHORITY} is another's: its key is not here, so it signs nothing here.",
                "Have that authority sign a certificate, and name it in [tls] of pagestore.toml.",
            )
        return _make_authority(data)
    try:
        key = load_pem_private_key((data / AUTHORITY_KEY).read_bytes(), None)
        found = x509.load_pem_x509_certificate((data / AUTHORITY).read_bytes())
        if not isinstance(key, EllipticCurvePrivateKey):
            raise ValueError("another kind of key")
    except (OSError, ValueError, TypeError) as error:
        raise FailedPrecondition(
            "CERTIFICATE_UNUSABLE",
            f"The authority in {data / AUTHORITY.parent} cannot be read: {error}.",
            "Restore it; or remove that folder, and make every certificate anew.",
        ) from error
    return found, key


def _make_authority(data: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    key = _new_key()
    # A name of its own: clients must not take one installation's authority for another's.
    subject = _subject(f"pagestore authority {os.urandom(8).hex()}")
    builder = _builder(subject, subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    durable.replace(data / AUTHORITY_KEY, _key_pem(key))
    durable.replace(data / AUTHORITY, _pem(certificate))
    return certificate, key


def _for_names(builder: x509.CertificateBuilder, names: list[str]) -> x509.CertificateBuilder:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if _HOST.fullmatch(name) is None or len(name) > MAX_HOST:
                raise InvalidInput(
                    "INVALID_NAME",
                    f"{name[:40]!r} is neither a host's name nor an IP address.",
                    "Name it as other machines reach it, without a port.",
                ) from None
            found.append(x509.DNSName(name))
    return builder.add_extension(x509.SubjectAlternativeName(found), critical=False)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of other machines may be behind.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _new_key() -> EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
