"""What every part is told of how it knows who calls, and shows who it is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from pagestore.services.guard import Guard
from pagestore.services.identity import Identity


class Secured(BaseModel):
    """A part's settings, as far as they concern that."""

    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """For an address that other machines reach; see identity."""
    keys: Path | None = None
    """The file of public keys by which callers are known; see guard."""

    def secure(self) -> tuple[Guard, Identity | None]:
        """For its GrpcServer.

        Raises:
            FailedPrecondition: KEYS_MISSING, CERTIFICATE_UNUSABLE. DataLoss: FILE_CORRUPT.
        """
        guard = Guard.of_setting(self.keys)
        return guard, Identity.of_settings(self.tls_certificate, self.tls_key)
