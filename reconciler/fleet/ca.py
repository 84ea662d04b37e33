"""Makes two certificate authorities and their certificates, for a trial: that of the hosts, and that of etcd.

They are two so that no certificate of a host is worth anything at etcd. Each key is made where the command runs, so for
real use an authority of one's own, which never sees the keys of hosts, is better (docs/fleet.md).
"""

from __future__ import annotations

import datetime as dt
import enum
import os
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reconciler.errors import HostError
from reconciler.values import NamedTuple

# Days that certificates and authorities are valid. RFC 5280 has no limit; a trial that outlives this is none.
DAYS, CA_DAYS = 365, 3650
# A clock that is behind by less than this still accepts a new certificate.
_SKEW = dt.timedelta(hours=1)
_SECRET, _OPEN = 0o600, 0o644


class Authority(enum.StrEnum):
    """Which authority: its value is the beginning of the names of its files."""

    HOSTS = "hosts-ca"
    ETCD = "etcd-ca"


class Kind(NamedTuple):
    """What a certificate is for: who signs it, what it may do, and the folder that it is in."""

    authority: Authority
    is_server: bool
    is_client: bool
    folder: str


HOST = Kind(Authority.HOSTS, is_server=False, is_client=True, folder="hosts")
GATE = Kind(Authority.HOSTS, is_server=True, is_client=False, folder="gates")
# A member of etcd is also a client of the other members, and a gate or an administrator is a client of etcd.
MEMBER = Kind(Authority.ETCD, is_server=True, is_client=True, folder="etcd")
CLIENT = Kind(Authority.ETCD, is_server=False, is_client=True, folder="clients")


class Made(NamedTuple):
    """A certificate that was made: its files, and its fingerprint, the SHA-256 of its DER in hexadecimal digits."""

    certificate: str
    key: str
    fingerprint: str


def make_authorities(folder: str) -> list[Made]:
    """Make both authorities in a folder that is created, for its owner only. HostError if one of them exists."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return [_make_authority(folder, each) for each in Authority]


def issue(folder: str, kind: Kind, name: str, addresses: Sequence[str] = ()) -> Made:
    """Make a certificate in a folder of `make_authorities`, with a name and the addresses that lead to a server.

    HostError if it exists, or if the authority is missing.
    """
    authority, signer = _read_authority(folder, kind.authority)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * kind.is_server + [ExtendedKeyUsageOID.CLIENT_AUTH] * kind.is_client
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _begin(name, key, authority.subject, DAYS).add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if addresses:
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_address, addresses)]), critical=False)
    below = os.path.join(folder, kind.folder)
    os.makedirs(below, mode=0o700, exist_ok=True)
    return _write(os.path.join(below, name), key, builder.sign(signer, hashes.SHA256()))


def _make_authority(folder: str, which: Authority) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    name = f"reconciler {which.value}"
    builder = _begin(name, key, _name(name), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return _write(os.path.join(folder, which.value), key, builder.sign(key, hashes.SHA256()))


def _begin(name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _address(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs: bool) -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        decipher_only=False,
        **dict.fromkeys(others, False),
    )


def _read_authority(folder: str, which: Authority) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = os.path.join(folder, which.value)
    certificate = _read_certificate(f"{path}.crt")
    try:
        key = serialization.load_pem_private_key(_read(f"{path}.key"), None)
    except (ValueError, TypeError) as error:
        raise HostError(f"{path}.key is no private key in PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise HostError(f"{path}.key is not the key of {path}.crt")
    return certificate, key


def _read_certificate(path: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except (ValueError, InvalidSignature) as error:
        raise HostError(f"{path} is no certificate in PEM: {error}") from error


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        raise HostError(f"{path} does not exist; `reconciler fleet ca init FOLDER` makes the authorities") from None
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def _write(path: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Made:
    made = Made(f"{path}.crt", f"{path}.key", _fingerprint(certificate))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _create(
        (made.key, secret, _SECRET), (made.certificate, certificate.public_bytes(serialization.Encoding.PEM), _OPEN)
    )
    return made


def _create(*files: tuple[str, bytes, int]) -> None:
    """Create files, none of which may exist: a key that is replaced by mistake is lost."""
    _refuse_existing(path for path, _, _ in files)
    for path, data, mode in files:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error
        with open(descriptor, "wb") as file:
            file.write(data)


def _refuse_existing(paths: Iterable[str]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise HostError(f"{path} exists already; remove it first if it is to be replaced, or choose another folder")


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
