"""By what a browser knows the page: a certificate, and its secret key."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from inspector.config.console_file import ServerTls
from inspector.errors import SecretError
from inspector.files import read_guarded, reason_of, write_new

_DAYS: Final = 820
"""Browsers of one maker refuse a certificate of more than 825 days."""
_SOON_DAYS: Final = 30
_MAKE: Final = "make one with 'inspector keygen FOLDER --console --host NAME'"


def load(tls: ServerTls) -> ssl.SSLContext:
    """What the server shows and asks. Raises :class:`SecretError`."""
    read_guarded(tls.key, secret=True, always=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password here OpenSSL would ask for one at the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except FileNotFoundError:
        raise SecretError(f"{tls.certificate}: no such certificate; {_MAKE}") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f"is not the certificate of {tls.key}"
        elif b"ENCRYPTED" in tls.key.read_bytes():
            raise SecretError(
                f"{tls.key}: asks for a password, which nobody could type at a service's start; "
                f"take it off with 'openssl pkey'"
            ) from None
        else:
            why = f"holds no certificate (PEM), or {tls.key} no key"
        raise SecretError(f"{tls.certificate}: {why}; {_MAKE}") from None
    except OSError as error:
        raise SecretError(f"{tls.certificate}: cannot be read: {reason_of(error)}") from None
    return context


def doubts(tls: ServerTls, names: Sequence[str]) -> list[str]:
    """What browsers would complain of: its time, and names of the page that it lacks."""
    certificate = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    now = datetime.datetime.now(datetime.timezone.utc)
    found = []
    end = certificate.not_valid_after_utc
    if certificate.not_valid_before_utc > now:
        begin = certificate.not_valid_before_utc
        found.append(f"is valid from {begin:%Y-%m-%d} on; compare the clocks")
    elif end < now:
        found.append(f"expired on {end:%Y-%m-%d}; {_MAKE}")
    elif end < now + datetime.timedelta(days=_SOON_DAYS):
        found.append(f"expires on {end:%Y-%m-%d}; {_MAKE}")
    try:
        alternatives = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        found.append(f"names no host, which browsers demand; {_MAKE}")
        return found
    dns = [one.lower() for one in alternatives.get_values_for_type(x509.DNSName)]
    addresses = [str(one) for one in alternatives.get_values_for_type(x509.IPAddress)]
    missing = [name for name in names if not _is_named(name, dns, addresses)]
    if missing:
        there = ", ".join([*dns, *addresses]) or "no host"
        found.append(f"is for {there}, not for {', '.join(missing)}; {_MAKE}")
    return found


def _is_named(name: str, dns: Sequence[str], addresses: Sequence[str]) -> bool:
    try:
        return str(ipaddress.ip_address(name)) in addresses
    except ValueError:
        return name in dns or f"*.{name.partition('.')[2]}" in dns


def make_certificate(folder: Path, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
    """A self-signed certificate for ``hosts`` and its key; returns the paths of both.

    Raises :class:`SecretError`; a file that is there is never overwritten.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(one) for one in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SecretError(f"{folder}: cannot be made: {reason_of(error)}") from None
    write_new(key_path, secret, 0o600)
    try:
        write_new(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except SecretError:
        key_path.unlink(missing_ok=True)
        raise
    return certificate_path, key_path


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise SecretError(f"--host {host}: is no name of a host; use letters a to z") from None
