"""Certificates of authorities, servers and clients, made anew for a test."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """Signs certificates, and writes them and their keys into a folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        object.__setattr__(self, "_key", key)
        self.path.write_bytes(self._signed(self.name, key, is_authority=True))

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def issue(self, name: str, password: str = "") -> tuple[Path, Path]:
        """The files of a certificate for this machine, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(self._signed(name, key, is_authority=False))
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(password.encode()) if password else NoEncryption()
        )
        key_file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        )
        return certificate, key_file

    def _signed(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool
    ) -> bytes:
        signer: ec.EllipticCurvePrivateKey = getattr(self, "_key")  # noqa: B009
        now = datetime.now(timezone.utc)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([here]), critical=False)
            .add_extension(identifier, critical=False)
        )
        return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
