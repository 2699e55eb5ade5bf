"""Settings from a command line, and groups of arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from export.settings import TrainSettings, typed
from inspector.config.yaml_file import in_words, load_yaml
from inspector.errors import ConfigError
from inspector.imaging.geometry import STRIDE


def settings_of(given: dict[str, Any], config: Path | None = None) -> TrainSettings:
    """``given`` over the file ``config`` over the defaults; None stands for not given.

    ``model_fields_set`` of the result names what was given or stands in the file. Raises
    :class:`ConfigError`, which names the option, and :class:`Problems` for the file.
    """
    base = load_yaml(config, TrainSettings) if config else TrainSettings()
    named = {
        name: typed(name, given[name])
        for name in TrainSettings.model_fields
        if given.get(name) is not None
    }
    try:
        return TrainSettings.model_validate({**base.model_dump(exclude_unset=True), **named})
    except ValidationError as error:
        first = error.errors()[0]
        flag = f"--{'-'.join(str(first['loc'][0]).split('_'))}: " if first["loc"] else ""
        raise ConfigError(f"{flag}{in_words(first)}") from None


def shown(value: Any) -> str:
    """A setting as it would be typed."""
    if isinstance(value, tuple) and len(value) == 2 and max(value) >= STRIDE:
        return "x".join(map(str, value))
    return ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """``--data`` and ``--weights``: where photos and backbone lie, if no longer where they did."""
    parser.add_argument("--data", type=Path, help="data set; default: the one it was trained on")
    parser.add_argument(
        "--weights",
        type=Path,
        help="backbone weights file, or where the network's ONNX file lies now",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``: what computes."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """``--name`` and ``--precision`` of the bundle that is written."""
    parser.add_argument(
        "--name",
        help="name in every verdict; default: as at the last export, or the data folder's",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "mixed", "fp16", "int8"),
        default="auto",
        help="number format of the file; auto: int8 (8 bits) or mixed (8 bits in the search alone) "
        "where this machine's processor is quicker with it and the file still judges as the model "
        "does, else fp32, which runs alike everywhere",
    )
