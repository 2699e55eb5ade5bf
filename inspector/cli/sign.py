"""``sign``: sign a bundle, for stations that take only signed ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from inspector.detection import bundle
from inspector.detection.signing import load_signing_key
from inspector.files import write_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``sign``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE.onnx")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE.secret",
        help="secret key of 'inspector keygen --bundle'",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.onnx", help="default: BUNDLE.onnx itself"
    )


def run(options: argparse.Namespace) -> int:
    """Sign a bundle; the signature replaces one that it has; 0.

    Raises :class:`BundleError`, :class:`SecretError` and :class:`OutputError`.
    """
    out: Path = options.output or options.bundle
    key = load_signing_key(options.key)
    signed = bundle.sign(bundle.read(options.bundle), key)
    write_output(out, signed)
    digest = bundle.read(out, (key.public_key(),)).sha256
    print(f"{out}: signed with {options.key}, sha256 {digest}")
    return 0
