"""A process that never rests, beside what is measured."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

_SPIN = "print(flush=True)\nwhile True: pass"


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Within it, that process is at work."""
    with subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield
        finally:
            child.kill()
