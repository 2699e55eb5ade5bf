"""Who may speak to an OPC UA bridge: certificates in folders, and users with roles.

The folder of certificates (``pki``) is laid out as other servers have it::

    own.der, own.pem    the bridge's certificate and its secret key
    trusted/            certificates of clients that may connect, DER or PEM
    rejected/           those that came and were refused; move one to trusted/ to let it in

A client's certificate is compared as a whole: one of an authority in ``trusted/`` lets nobody else
in. The folders are read at each connection, so that a move takes effect at once.
"""

from __future__ import annotations

import datetime
import hmac
import ipaddress
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from inspector.errors import SecretError
from inspector.files import read_guarded, reason_of, write_new, write_whole
from inspector.logs import Refusals, say

ROLES: Final = frozenset({"read", "trigger", "operate"})
SIGNATURE_ERRORS: Final = (InvalidSignature, uacrypto.InvalidSignature)
"""What asyncua raises for a wrong signature: in some places its own, in others cryptography's."""
_MOST_REJECTED: Final = 100
"""Files in rejected/; a flood of certificates fills no disk."""
_LARGEST: Final = 65_536
_YEARS: Final = 5


@dataclass
class Member(User):  # type: ignore[misc]
    """A user with a session; ``roles`` says what for."""

    roles: frozenset[str] = frozenset()


class Pki:
    """The folder of certificates."""

    def __init__(self, folder: Path, refusals: Refusals) -> None:
        self._folder = folder
        self._refusals = refusals

    def own(self, host: str) -> tuple[x509.Certificate, bytes]:
        """The bridge's certificate and its secret key, PEM.

        ``host`` is where the bridge listens, which the certificate must name; an address that
        stands for all, such as 0.0.0.0, is not looked for. Raises :class:`SecretError`.
        """
        path = self._folder / "own.der"
        try:
            certificate = _parsed(read_guarded(path, False))
        except ValueError:
            raise SecretError(f"{path}: holds no certificate; {_MAKE}") from None
        key = read_guarded(self._folder / "own.pem", True)
        try:
            secret = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError):
            raise SecretError(f"{self._folder / 'own.pem'}: holds no key; {_MAKE}") from None
        if secret.public_key() != certificate.public_key():
            raise SecretError(f"{path}: is not the certificate of own.pem; {_MAKE}")
        wrong = _out_of_time(certificate)
        if wrong:
            raise SecretError(f"{path}: {wrong}; {_MAKE}")
        if not application_uri(certificate):
            raise SecretError(f"{path}: names no application URI; {_MAKE}")
        named = _hosts(certificate)
        if not _stands_for_all(host) and host not in named:
            raise SecretError(
                f"{path}: is for {', '.join(sorted(named)) or 'no host'}, and 'listen' is {host}, "
                f"so that clients would refuse it; {_MAKE} --host {host}"
            )
        return certificate, key

    def admit(self, der: bytes | None, uri: str | None = None) -> None:
        """Let the client with this certificate in.

        ``uri`` is the application that it says it is. Raises :class:`ServiceError`.
        """
        if der is None:
            self._refuse("?", "has no certificate", ua.StatusCodes.BadCertificateInvalid)
            return
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            self._refuse("?", "certificate cannot be read", ua.StatusCodes.BadCertificateInvalid)
            return
        who = _who(certificate)
        if not self._is_trusted(der):
            kept = self._keep(certificate, der)
            problem = f"certificate is not trusted; move {kept} to trusted/ to let it in"
            self._refuse(who, problem, ua.StatusCodes.BadCertificateUntrusted)
        wrong = _out_of_time(certificate)
        if wrong:
            self._refuse(who, f"certificate {wrong}", ua.StatusCodes.BadCertificateTimeInvalid)
        if uri is not None and uri != application_uri(certificate):
            problem = f"certificate is another application's, and this is {uri}"
            self._refuse(who, problem, ua.StatusCodes.BadCertificateUriInvalid)

    def _refuse(self, who: str, problem: str, code: int) -> None:
        self._refusals.say(who, problem)
        raise ServiceError(code)

    def _is_trusted(self, der: bytes) -> bool:
        try:
            paths = sorted((self._folder / "trusted").iterdir())
        except OSError:
            return False
        for path in paths:
            try:
                if path.stat().st_size > _LARGEST:
                    continue
                found = _parsed(path.read_bytes())
            except (OSError, ValueError):
                continue
            if found.public_bytes(serialization.Encoding.DER) == der:
                return True
        return False

    def _keep(self, certificate: x509.Certificate, der: bytes) -> str:
        name = f"{certificate.fingerprint(hashes.SHA1()).hex()}.der"  # noqa: S303 - the usual name
        folder = self._folder / "rejected"
        path = folder / name
        try:
            folder.mkdir(exist_ok=True)
            if not path.exists() and sum(1 for _ in folder.iterdir()) < _MOST_REJECTED:
                write_whole(path, der, durable=False)
        except OSError as error:
            say("opcua", logging.WARNING, problem=f"{path}: not kept: {reason_of(error)}")
        return f"rejected/{name}"


class Users:
    """Who may log in; what asyncua calls a user manager."""

    def __init__(
        self,
        passwords: Mapping[str, tuple[str, frozenset[str]]],
        pki: Pki | None,
        refusals: Refusals,
    ) -> None:
        self._passwords = passwords
        self._pki = pki
        self._refusals = refusals

    def get_user(
        self,
        iserver: Any,  # noqa: ARG002 - asyncua's signature
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Member | None:
        """The user of a session that is about to begin; None: nobody.

        ``certificate`` is that of the channel, which a client may have left out of its request for
        a session. Raises :class:`ServiceError`.
        """
        if self._pki is None:
            return Member(UserRole.User, "anybody", ROLES)
        self._pki.admit(certificate)
        known, roles = self._passwords.get(username or "", ("", frozenset[str]()))
        # Compare for unknown names, too, so that the time tells nothing.
        is_right = hmac.compare_digest(known.encode(), (password or "").encode())
        if not known or not is_right:
            self._refusals.say(str(username), "user unknown, or wrong password")
            return None
        return Member(UserRole.User, username, roles)


def read_password(path: Path) -> str:
    """The password in a file. Raises :class:`SecretError`."""
    text = read_guarded(path, True).decode("utf-8", "replace")
    found = text.strip().removeprefix("password:").strip()
    if not text.startswith("password:") or len(found) < 12:
        raise SecretError(
            f"{path}: holds no 'password: ...' of 12 letters or more; make one with 'inspector "
            f"keygen --opcua --user NAME'"
        )
    return found


def make_password(path: Path) -> None:
    """Write a new password. Raises :class:`SecretError`."""
    write_new(path, f"password: {secrets.token_urlsafe(18)}\n".encode(), 0o600)


def make_pki(folder: Path, name: str, hosts: list[str]) -> None:
    """Make the folder of certificates of a bridge, or of a client. Raises :class:`SecretError`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(f"urn:line-inspector:{name}:{secrets.token_hex(4)}")
    ]
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        for part in ("trusted", "rejected"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SecretError(f"{folder}: cannot be made: {reason_of(error)}") from None
    write_new(folder / "own.pem", secret, 0o600)
    write_new(folder / "own.der", certificate.public_bytes(serialization.Encoding.DER), 0o644)


def application_uri(certificate: x509.Certificate) -> str:
    """The application that a certificate is for; "" for none."""
    found = _alternatives(certificate)
    uris = [] if found is None else found.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else ""


_MAKE: Final = "make another folder with 'inspector keygen FOLDER --opcua'"


def _parsed(data: bytes) -> x509.Certificate:
    if b"-----BEGIN" in data:
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data)


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _hosts(certificate: x509.Certificate) -> set[str]:
    found = _alternatives(certificate)
    if found is None:
        return set()
    names = set(found.get_values_for_type(x509.DNSName))
    return names | {str(one) for one in found.get_values_for_type(x509.IPAddress)}


def _stands_for_all(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _out_of_time(certificate: x509.Certificate) -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    if certificate.not_valid_after_utc < now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if certificate.not_valid_before_utc > now:
        return f"is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on; compare the clocks"
    return ""


def _who(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else application_uri(certificate) or "?"
