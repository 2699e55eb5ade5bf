"""The engine that ``inspector tune`` chose for a bundle on this machine, in a file beside it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from inspector.config.yaml_file import FrozenModel
from inspector.detection.bundle import Bundle
from inspector.detection.engines.base import Engine, usable_cores
from inspector.errors import OutputError
from inspector.files import read_within, write_output
from inspector.logs import say


class TunedEngine(FrozenModel):
    """The engine chosen, and for what it was chosen: no other bundle or machine may use it."""

    format: Literal[1] = 1
    sha256: str
    """Digest of the bundle's file, in hex."""
    processor: str
    """The CPU's name."""
    cores: int
    """Physical cores that the process could use."""
    library: str
    """The library that runs the graph, and its version."""
    created: str
    """Time in UTC, ISO 8601."""
    engine: Engine
    median_ms: float
    p99_ms: float


def file_of(bundle: Path) -> Path:
    """Where the record for the bundle file ``bundle`` lies."""
    return bundle.with_name(f"{bundle.name}.tune.json")


def write(path: Path, record: TunedEngine) -> None:
    """Write ``record`` to the file ``path``. Raises :class:`OutputError`."""
    write_output(path, record.model_dump_json(indent=2) + "\n")


def forget(bundle: Path) -> bool:
    """Delete the record for ``bundle``; False when there was none. Raises :class:`OutputError`."""
    path = file_of(bundle)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"{path}: cannot be deleted: {error.strerror}") from None
    return True


def recall(bundle: Bundle, read_file: Callable[[Path], bytes] = read_within) -> Engine | None:
    """The engine chosen for ``bundle`` on this machine, or None.

    ``read_file`` gives the bytes of a file, within a time, or raises OSError. A record that cannot
    be used, and why, goes to the log.
    """
    path = file_of(bundle.path)
    try:
        record = TunedEngine.model_validate_json(read_file(path))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        cause = "cannot be read"
    else:
        cause = _unusable(record, bundle)
    if cause:
        detail = f"{cause}; run 'inspector tune' again, or delete it"
        say("tune_ignored", logging.WARNING, file=path, detail=detail)
        return None
    say("tuned", file=path, engine=record.engine, median_ms=f"{record.median_ms:.1f}")
    return record.engine


def processor() -> str:
    """The name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def library(engine: Engine) -> str:
    """The library that runs the graph for ``engine``, and its version."""
    if engine.provider == "openvino":
        from inspector.detection.engines import openvino

        return f"OpenVINO {openvino.version()}"
    from inspector.detection.engines import onnxruntime

    return f"ONNX Runtime {onnxruntime.version()}"


def _unusable(record: TunedEngine, bundle: Bundle) -> str:
    """Why ``record`` does not hold for ``bundle`` on this machine; "" when it does."""
    if record.sha256 != bundle.sha256:
        return "made for another file of this name"
    if (record.processor, record.cores) != (processor(), len(usable_cores())):
        return f"made on {record.processor} with {record.cores} cores"
    if record.engine.provider == "openvino":
        from inspector.detection.engines import openvino

        if not openvino.version():
            return "made with OpenVINO, which is not installed here"
    if (found := library(record.engine)) != record.library:
        return f"made with {record.library}, here is {found}"
    if record.engine.provider in {"cuda", "tensorrt"}:
        from inspector.detection.engines import onnxruntime

        return onnxruntime.missing(record.engine.provider)
    return ""
