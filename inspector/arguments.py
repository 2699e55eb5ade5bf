"""Numbers on the command line, for argparse."""

from __future__ import annotations

import argparse


def whole(text: str) -> int:
    """A whole number from 0 that JSON can carry. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and int(text) < 2**53):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)


def count(text: str) -> int:
    """A whole number above 0. Raises ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**53):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)
