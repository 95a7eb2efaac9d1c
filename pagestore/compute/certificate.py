"""The certificate that a compute's server shows to safekeepers on other hosts.

It is made for one start, of one compute, and signed by itself. Whoever is a superuser there can
read its key, so it must prove nothing but that one is this compute. The host's own, or any that the
installation's or the operator's authority had signed, would prove that one is the *host*: the
superuser could pass himself off as its other parts. Safekeepers believe it because it stands in the
compute's address, which the installation's key has signed.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
from pathlib import Path

from pagestore.compute.places import write_readable
from pagestore.postgres.settings import CERTIFICATE_FILE, KEY_FILE

DAYS = 3650
_PRIVATE = 0o600


def make_certificate(directory: Path, host: str, group: int) -> str:
    """Puts one, and its key, into a compute's directory.

    Args:
        host: the address that safekeepers are told.
        group: of the server's user.

    Returns: the certificate, as base64url of DER, without padding.
    """
    # Not at the top: a start on one host is not to pay for it.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pagestore compute")])
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of other machines may be behind.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_readable(directory / KEY_FILE, key.private_bytes(pem, form, secret).decode(), group)
    if os.geteuid() != 0:
        # The server is of our own user then, and takes no key that a group can read.
        (directory / KEY_FILE).chmod(_PRIVATE)
    write_readable(directory / CERTIFICATE_FILE, certificate.public_bytes(pem).decode(), group)
    der = certificate.public_bytes(serialization.Encoding.DER)
    return base64.urlsafe_b64encode(der).decode().rstrip("=")
