"""The bundle: one ONNX file with the memory bank and its manifest inside.

The file is an ONNX ``ModelProto`` whose last bytes are one more ``metadata_props`` entry, the seal:
``sha256`` → the hex digest of every byte before the entry. Fields of a protocol buffer may be
appended, so the file stays a valid ONNX model, and the digest is checked before anything is parsed.

A signed bundle has one more entry right before the seal: ``ed25519`` → the signer's public key and
the signature of every byte before the entry, both in hex. It, too, is checked before anything is
parsed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from pydantic import ValidationError

from inspector.detection.manifest import Manifest
from inspector.errors import BundleError, NoBundleError, SignatureError
from inspector.files import read_within
from inspector.imaging.formats import HEAD_BYTES, format_of
from inspector.imaging.images import png_size
from inspector.shown import plain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

INPUT: Final = "image"
"""The graph's input: uint8 BGR ``[N, H, W, 3]``."""
OUTPUTS: Final = ("score", "anomaly_map")
"""The graph's outputs: float32 ``[N]`` and ``[N, H, W]``, in units of the calibrated limit."""
BANK: Final = "memory_bank"
"""The initializer that holds the memory bank."""
OPSET: Final = 17
"""The version of the ONNX operators that our graphs are written in."""
MANIFEST_KEY: Final = "inspector_manifest"
"""The metadata entry that holds the manifest, as JSON."""

SEAL_HEAD: Final = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""Encodes: ModelProto field 14, length 74: key (field 1) ``sha256``, value (field 2), 64 bytes."""
SEAL_SIZE: Final = len(SEAL_HEAD) + 64

SIGNATURE_HEAD: Final = b"\x72\xcc\x01\x0a\x07ed25519\x12\xc0\x01"
"""Encodes: field 14, length 204: key ``ed25519``, value of 192 bytes: 64 key, 128 signature."""
SIGNATURE_SIZE: Final = len(SIGNATURE_HEAD) + 192
_SIGNED_PREFIX: Final = b"line-inspector bundle 1\n"
"""Comes before the digest that is signed: no signature made for another purpose fits a bundle."""

_OUTPUT_AXES: Final = (1, 3)
_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan"})

_FLOAT_TYPES: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Bundle:
    """A bundle that passed its checks: ``data`` is the whole file, ``sha256`` its digest in hex."""

    path: Path
    data: bytes
    sha256: str
    manifest: Manifest


def seal(model: bytes) -> bytes:
    """The bytes of a bundle file: ``model`` (a serialised ModelProto) with the closing digest."""
    return model + SEAL_HEAD + hashlib.sha256(model).hexdigest().encode()


def sign(bundle: Bundle, key: Ed25519PrivateKey) -> bytes:
    """The bytes of ``bundle``'s file signed with ``key``; a signature that it has is replaced."""
    body, _ = _split_signature(bundle.data[:-SEAL_SIZE])
    public = key.public_key().public_bytes_raw().hex().encode()
    signature = key.sign(_SIGNED_PREFIX + hashlib.sha256(body).digest()).hex().encode()
    return seal(body + SIGNATURE_HEAD + public + signature)


def read(
    path: Path,
    keys: Sequence[Ed25519PublicKey] = (),
    read_file: Callable[[Path], bytes] = read_within,
) -> Bundle:
    """Read a bundle and check digest, signature, manifest and graph.

    With ``keys``, one of them must have signed the bundle. ``read_file`` gives the bytes of a file,
    within a time, or raises OSError. Raises :class:`BundleError` and :class:`SignatureError` with
    one line that names the cause.
    """
    with in_one_line():
        return _read(path, keys, read_file)


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Have an error name what a bundle holds in one line of a bearable length, whatever it is."""
    try:
        yield
    except BundleError as error:
        raise type(error)(plain(str(error), 1000)) from None


def _read(
    path: Path, keys: Sequence[Ed25519PublicKey], read_file: Callable[[Path], bytes]
) -> Bundle:
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise NoBundleError(
            f"{path}: no such bundle; export one with 'inspector-model export RUN -o {path.name}'"
        ) from None
    except IsADirectoryError:
        if (path / "run.json").exists():
            raise BundleError(
                f"{path}: a run, not a bundle; write its bundle with 'inspector-model export "
                f"{path} -o part.onnx', then name that"
            ) from None
        raise BundleError(f"{path}: a folder, not a bundle; name the .onnx file itself") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    model = unseal(data, path, keys)
    manifest = _read_manifest(model, path)
    return Bundle(path, data, hashlib.sha256(data).hexdigest(), manifest)


_MOST_OF_TEXT: Final = 512


def _other_kind(data: bytes) -> str:
    """What a file is that was taken for a bundle; "" where it may be the beginning of one."""
    if format_of(data[:HEAD_BYTES]):
        return "a photo"
    try:
        text = data[:_MOST_OF_TEXT].decode("utf-8").strip()
    except UnicodeDecodeError:
        return ""
    return "a text file" if text and all(map(_is_of_text, text)) else ""


def _is_of_text(letter: str) -> bool:
    return letter.isprintable() or letter.isspace()


def unseal(data: bytes, path: Path, keys: Sequence[Ed25519PublicKey] = ()) -> onnx.ModelProto:
    """Check digest and signature of the file's ``data``, then parse it.

    The model returned has neither entry. With ``keys``, one of them must have signed it. Raises
    :class:`BundleError` and :class:`SignatureError`, which name ``path``.
    """
    body, tail = data[:-SEAL_SIZE], data[-SEAL_SIZE:]
    if not tail.startswith(SEAL_HEAD):
        if other := _other_kind(data):
            raise BundleError(
                f"{path}: {other}, not a bundle; name the file that 'inspector-model export RUN -o "
                f"part.onnx' wrote"
            )
        raise BundleError(
            f"{path}: not a complete bundle (no closing checksum: truncated, or not exported by "
            f"'inspector-model export'); copy or export it again"
        )
    if tail[len(SEAL_HEAD) :] != hashlib.sha256(body).hexdigest().encode():
        raise BundleError(
            f"{path}: checksum mismatch, the file was altered; copy or export it again"
        )
    body, signature = _split_signature(body)
    if keys:
        _verify(body, signature, path, keys)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(body)
    except DecodeError:
        raise BundleError(f"{path}: not an ONNX model; export it again") from None
    return model


def _split_signature(body: bytes) -> tuple[bytes, bytes]:
    """The bytes that are signed, and the value of the signature's entry; empty without one."""
    if body[-SIGNATURE_SIZE:].startswith(SIGNATURE_HEAD):
        return body[:-SIGNATURE_SIZE], body[-SIGNATURE_SIZE + len(SIGNATURE_HEAD) :]
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
        key.verify(
            bytes.fromhex(signature[64:].decode()), _SIGNED_PREFIX + hashlib.sha256(body).digest()
        )
    except InvalidSignature:
        raise SignatureError(
            f"{path}: its signature is wrong: it was altered after signing; do not use it, get it "
            f"again from whom it comes"
        ) from None


def _read_manifest(model: onnx.ModelProto, path: Path) -> Manifest:
    props = {entry.key: entry.value for entry in model.metadata_props}
    if MANIFEST_KEY not in props:
        raise BundleError(f"{path}: an ONNX model without a manifest; export it again")
    try:
        manifest = Manifest.model_validate_json(props[MANIFEST_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{path}: manifest key '{where}': {first['msg']} (made by another "
            f"version?); export it again"
        ) from None
    if foreign := find_foreign(model):
        raise BundleError(f"{path}: {foreign}; export it again")
    _check_graph(model.graph, manifest, path)
    _check_golden(manifest, path)
    return manifest


def find_foreign(model: onnx.ModelProto) -> str:
    """What a model has that no bundle may have, in words; "" when there is nothing.

    That is what its file does not hold itself, and what may run for ever.
    """
    if model.functions:
        return "graph has functions of its own"
    for node in model.graph.node:
        if node.op_type in _CONTROL_FLOW or any(_is_graph(one) for one in node.attribute):
            return f"graph has a loop or a branch ({node.op_type}), which might never end"
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            return f"constant '{tensor.name}' lies in another file, and a bundle is one file"
    return ""


def _is_graph(attribute: onnx.AttributeProto) -> bool:
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return attribute.type in kinds or attribute.HasField("g") or bool(attribute.graphs)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph, in its initializers and in the attributes of its nodes."""
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += (attribute.sparse_tensor, *attribute.sparse_tensors)
    for one in sparse:
        yield from (one.values, one.indices)


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
    for value, axes in zip(graph.output, _OUTPUT_AXES, strict=True):
        found_type = value.type.tensor_type
        shape_given = found_type.HasField("shape")
        if found_type.elem_type != onnx.TensorProto.FLOAT or (
            shape_given and len(found_type.shape.dim) != axes
        ):
            raise BundleError(
                f"{path}: graph output '{value.name}' is not float32 with {axes} axes; export it "
                f"again"
            )
    if bad := find_not_finite(graph):
        raise BundleError(f"{path}: {bad}; export it again")


def _check_golden(manifest: Manifest, path: Path) -> None:
    """Refuse golden images that are no pictures of the network's size."""
    height, width = manifest.geometry.height, manifest.geometry.width
    for golden in manifest.golden:
        try:
            # The size is read first: a small file can hold a picture of gigabytes.
            fits = png_size(golden.data()) == (width, height)
            fits = fits and golden.image().shape == (height, width, 3)
        except ValueError as error:
            raise BundleError(
                f"{path}: golden image '{golden.name}' cannot be read ({error}); export it again"
            ) from None
        if not fits:
            raise BundleError(
                f"{path}: golden image '{golden.name}' is not {width}x{height} px; export it again"
            )


def find_not_finite(graph: onnx.GraphProto) -> str:
    """Which initializer holds NaN or infinity, in words; "" when none does.

    8-bit rounding and OpenVINO's activations would make a number of these.
    """
    for tensor in graph.initializer:
        try:
            is_float = tensor.data_type in _FLOAT_TYPES
            finite = not is_float or np.isfinite(numpy_helper.to_array(tensor)).all()
        except (ValueError, TypeError):
            finite = False
        if not finite:
            return f"constant '{tensor.name}' is damaged: not every value is a finite number"
    return ""
