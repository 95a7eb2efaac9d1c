"""By what a part shows, to whoever comes from another machine, that it is the one meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from pagestore.errors import FailedPrecondition

CERTIFICATE_VARIABLE, KEY_VARIABLE = "PAGESTORE_TLS_CERTIFICATE", "PAGESTORE_TLS_KEY"
"""Name the two files, where no option does."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Files in PEM: a certificate, with those above it but for the authority's, and its key."""

    certificate: Path
    key: Path

    @classmethod
    def of_settings(cls, certificate: Path | None, key: Path | None) -> Identity | None:
        """As a part was told, or as the environment says; None where nobody said anything.

        Raises:
            FailedPrecondition: CERTIFICATE_UNUSABLE.
        """
        named = certificate or os.environ.get(CERTIFICATE_VARIABLE)
        its_key = key or os.environ.get(KEY_VARIABLE)
        if not named and not its_key:
            return None
        if not named or not its_key:
            raise _unusable("a certificate and its key go together, and one was not named")
        return cls(Path(named), Path(its_key))

    def credentials(self) -> grpc.ServerCredentials:
        """
        Raises:
            FailedPrecondition: CERTIFICATE_UNUSABLE.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            certificate, key = self.certificate.read_bytes(), self.key.read_bytes()
            found = x509.load_pem_x509_certificates(certificate)[0].public_key()
            if load_pem_private_key(key, None).public_key() != found:
                raise ValueError(f"{self.key} is not the key of {self.certificate}")
        except (OSError, ValueError, TypeError) as error:
            raise _unusable(str(error)) from error
        return grpc.ssl_server_credentials([(key, certificate)])


def _unusable(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "CERTIFICATE_UNUSABLE",
        f"The certificate cannot be used: {why}.",
        "See [tls] in pagestore.toml; `pagestore certificate HOST` makes another.",
    )
