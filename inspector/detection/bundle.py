"""The bundle: one ONNX file with the memory bank and its manifest inside.

The file is an ONNX ``ModelProto`` whose last bytes are one more ``metadata_props`` entry,
``sha256`` → the hex digest of every byte before that entry. Protocol buffers append, so the file
stays a valid ONNX model, and the digest is checked before anything is parsed.

A signed bundle has one entry more right before that one, ``ed25519`` → the signer's public key and
the signature of every byte before the entry, hex. It is checked before anything is parsed, too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from pydantic import ValidationError

from inspector.errors import BundleError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
from inspector.detection.manifest import Manifest

INPUT: Final = "image"
OUTPUTS: Final = ("score", "anomaly_map")
BANK: Final = "memory_bank"

_FLOATS: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)

MANIFEST_KEY: Final = "inspector_manifest"

_SEAL_HEAD: Final = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""ModelProto field 14, length 74: key (field 1) ``sha256``, value (field 2) of 64 bytes."""
_SEAL_SIZE: Final = len(_SEAL_HEAD) + 64

_SIGNATURE_HEAD: Final = b"\x72\xcc\x01\x0a\x07ed25519\x12\xc0\x01"
"""ModelProto field 14, length 204: key ``ed25519``, value of 192 bytes: 64 key, 128 signature."""
_SIGNATURE_SIZE: Final = len(_SIGNATURE_HEAD) + 192
_SIGNED: Final = b"line-inspector bundle 1\n"
"""Before the digest that is signed: the key's signature of anything else never fits a bundle."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that passed its checks. ``data`` is the ONNX file, ``sha256`` the file's digest."""

    path: Path
    data: bytes
    sha256: str
    manifest: Manifest


def seal(model: bytes) -> bytes:
    """``model`` (a serialised ModelProto) with the closing digest entry."""
    return model + _SEAL_HEAD + hashlib.sha256(model).hexdigest().encode()


def sign(bundle: Bundle, key: Ed25519PrivateKey) -> bytes:
    """The file of ``bundle`` with ``key``'s signature, instead of one it has."""
    body, _ = _parted(bundle.data[:-_SEAL_SIZE])
    public = key.public_key().public_bytes_raw().hex().encode()
    signature = key.sign(_SIGNED + hashlib.sha256(body).digest()).hex().encode()
    return seal(body + _SIGNATURE_HEAD + public + signature)


def read(path: Path, keys: Sequence[Ed25519PublicKey] = ()) -> Bundle:
    """Read and check a bundle; raises :class:`BundleError` with one line that names the cause.

    With ``keys`` one of them must have signed it, else :class:`SignatureError`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{path}: no such bundle; export one with 'inspector-model export RUN -o {path.name}'"
        ) from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    model = unseal(data, path, keys)
    manifest = _manifest(model, path)
    return Bundle(path, data, hashlib.sha256(data).hexdigest(), manifest)


def unseal(data: bytes, path: Path, keys: Sequence[Ed25519PublicKey] = ()) -> onnx.ModelProto:
    """Check digest and signature, then parse; the model has neither entry.

    Raises :class:`BundleError`.
    """
    body, tail = data[:-_SEAL_SIZE], data[-_SEAL_SIZE:]
    if not tail.startswith(_SEAL_HEAD):
        raise BundleError(
            f"{path}: not a complete bundle (no closing checksum: truncated, or not exported by "
            f"'inspector-model export'); copy or export it again"
        )
    if tail[len(_SEAL_HEAD) :] != hashlib.sha256(body).hexdigest().encode():
        raise BundleError(
            f"{path}: checksum mismatch, the file was altered; copy or export it again"
        )
    body, signature = _parted(body)
    if keys:
        _verify(body, signature, path, keys)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(body)
    except DecodeError:
        raise BundleError(f"{path}: not an ONNX model; export it again") from None
    return model


def _parted(body: bytes) -> tuple[bytes, bytes]:
    """What is signed, and the value of the signature's entry, empty when there is none."""
    if body[-_SIGNATURE_SIZE:].startswith(_SIGNATURE_HEAD):
        return body[:-_SIGNATURE_SIZE], body[-_SIGNATURE_SIZE + len(_SIGNATURE_HEAD) :]
    return body, b""


def _verify(body: bytes, signature: bytes, path: Path, keys: Sequence[Ed25519PublicKey]) -> None:
    from cryptography.exceptions import InvalidSignature

    if not signature:
        raise SignatureError(
            f"{path}: not signed, and this station takes signed bundles only "
            f"(security.bundle_keys); sign it with 'inspector sign'"
        )
    if not re.fullmatch(rb"[0-9a-f]{192}", signature):
        raise SignatureError(f"{path}: its signature is damaged; sign it with 'inspector sign'")
    signer = signature[:64]
    key = next((key for key in keys if key.public_bytes_raw().hex().encode() == signer), None)
    if key is None:
        raise SignatureError(
            f"{path}: signed by key {signer[:16].decode()}..., which is none of the "
            f"station's security.bundle_keys; have it signed by one of them"
        )
    try:
        key.verify(bytes.fromhex(signature[64:].decode()), _SIGNED + hashlib.sha256(body).digest())
    except InvalidSignature:
        raise SignatureError(
            f"{path}: its signature is wrong: it was altered after signing; do not use it, get it "
            f"again from whom it comes"
        ) from None


def _manifest(model: onnx.ModelProto, path: Path) -> Manifest:
    props = {entry.key: entry.value for entry in model.metadata_props}
    if MANIFEST_KEY not in props:
        raise BundleError(f"{path}: an ONNX model without a manifest; export it again")
    try:
        manifest = Manifest.model_validate_json(props[MANIFEST_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{path}: manifest key '{where}': {first['msg']} (made by another version?); "
            f"export it again"
        ) from None
    _check_graph(model.graph, manifest, path)
    return manifest


def _check_graph(graph: onnx.GraphProto, manifest: Manifest, path: Path) -> None:
    inputs = {value.name: value for value in graph.input}
    if tuple(inputs) != (INPUT,) or tuple(v.name for v in graph.output) != OUTPUTS:
        found = [*inputs, *(v.name for v in graph.output)]
        raise BundleError(
            f"{path}: graph has inputs and outputs {found}, expected {[INPUT, *OUTPUTS]}; "
            f"export it again"
        )
    tensor = inputs[INPUT].type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)[1:]
    expected = (manifest.geometry.height, manifest.geometry.width, 3)
    if tensor.elem_type != onnx.TensorProto.UINT8 or shape != expected:
        raise BundleError(
            f"{path}: graph input has shape {shape}, the manifest says {expected}; export it again"
        )
    bank = next((t for t in graph.initializer if t.name == BANK), None)
    if bank is None:
        raise BundleError(f"{path}: graph has no initializer '{BANK}'; export it again")
    if manifest.cfa.bank_items not in bank.dims:
        raise BundleError(
            f"{path}: memory bank of shape {list(bank.dims)}, manifest says "
            f"{manifest.cfa.bank_items} items; export it again"
        )
    _check_constants(graph, path)
    for image in manifest.golden:
        if image.image().shape != expected:
            raise BundleError(
                f"{path}: golden image '{image.name}' is not {expected[1]}x{expected[0]} px; "
                f"export it again"
            )


def _check_constants(graph: onnx.GraphProto, path: Path) -> None:
    """No NaN or infinity: rounding to 8 bits, and OpenVINO's activations, make a number of it."""
    for tensor in graph.initializer:
        try:
            finite = (
                tensor.data_type not in _FLOATS or np.isfinite(numpy_helper.to_array(tensor)).all()
            )
        except (ValueError, TypeError):
            finite = False
        if not finite:
            raise BundleError(
                f"{path}: constant '{tensor.name}' is damaged: not every value is a finite "
                f"number; export it again"
            )
