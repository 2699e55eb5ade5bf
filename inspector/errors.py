"""Every error of the product, and the exit code each one ends a command with.

::

    InspectorError
    ├── StartupError                a command refuses to start
    │   ├── ConfigError       10    a station or training file: file, line, key, cure
    │   ├── BundleError       11    a bundle that is truncated, altered, or for another geometry
    │   ├── GoldenError       12    golden images no longer score as recorded
    │   ├── ProviderError     13    the execution provider asked for is not the one given
    │   ├── CameraError       14    a camera that is not there or gives no frame
    │   ├── PortError         15    an address in use or not to be bound
    │   ├── SecretError        17    a key file that is missing, readable by others, or no key
    │   ├── SignatureError    18    a bundle that no key of the station has signed
    │   ├── JournalError      19    a journal that cannot be opened, written or locked
    │   ├── SelfTestError           bundles that miss their known defect
    │   └── Problems          10    several of the above; the exit code is the first one's
    ├── WireError           16    a message that docs/wire.md does not allow, or none at all
    ├── CommandError        30    the station refused a command, or did not answer
    ├── TrainingError
    │   ├── DatasetError      20    a folder that is empty, missing or laid out otherwise
    │   ├── ImageError        21    an image that cannot be read, or has an impossible shape
    │   ├── MaskError         22    a mask without an image, or of another size
    │   ├── TooFewPartsError  23    fewer than ten good parts, or all of them identical
    │   ├── WeightsError      24    backbone weights or network file missing, or not fit
    │   ├── ParityError       25    the exported graph does not score as the trained model
    │   ├── OutputError       26    a result that cannot be written (disk full, no permission)
    │   └── RunError          27    a training run that is missing, unfinished or of other data
    └── Fault                       a part that cannot be judged: becomes a FAULT verdict
"""

from __future__ import annotations

from collections.abc import Sequence


class InspectorError(Exception):
    """Base of every error the product raises on purpose; ``str()`` is one line for a person."""

    exit_code: int = 1


class StartupError(InspectorError):
    """A command refuses to start."""


class ConfigError(StartupError):
    """A configuration file is wrong; the message names file, line, key and cure."""

    exit_code = 10


class BundleError(StartupError):
    """A bundle is truncated, altered, not a bundle, or made for another geometry."""

    exit_code = 11


class NoBundleError(BundleError):
    """There is no file where the bundle should lie."""


class GoldenError(BundleError):
    """A golden image moved beyond tolerance on this machine."""

    exit_code = 12


class ProviderError(StartupError):
    """The execution provider asked for is not available here."""

    exit_code = 13


class CameraError(StartupError):
    """A camera is not there, or opened and gave no frame."""

    exit_code = 14


class PortError(StartupError):
    """A socket address is in use or cannot be bound."""

    exit_code = 15


class SecretError(StartupError):
    """A key file is missing, readable by others, or holds no key."""

    exit_code = 17


class SignatureError(BundleError):
    """A bundle is not signed by a key that the station names."""

    exit_code = 18


class JournalError(StartupError):
    """The journal cannot be opened or written, or another daemon has it."""

    exit_code = 19


class SelfTestError(StartupError):
    """A bundle that was loaded beside the one at work misses its known defect."""


class Problems(StartupError):
    """Several start-up errors reported together, in the order they were met."""

    def __init__(self, problems: Sequence[StartupError]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.exit_code = problems[0].exit_code


class WireError(InspectorError):
    """A message was received that docs/wire.md does not allow, or one that was due did not come."""

    exit_code = 16


class CommandError(InspectorError):
    """The station refused a command, or did not answer; the message says why.

    ``code`` and ``cause`` are the refusal's, as docs/wire.md lists them; "" when there was no
    answer, or it names none. ``detail`` is what the station said, without whom it was asked.
    """

    exit_code = 30

    def __init__(
        self, message: str, code: str = "", *, cause: str = "", detail: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.cause = cause
        self.detail = message if detail is None else detail


class TrainingError(InspectorError):
    """A stage of the training wing refuses its input."""


class DatasetError(TrainingError):
    """A folder of parts is missing, empty, or laid out otherwise."""

    exit_code = 20


class ImageError(TrainingError):
    """An image file is unreadable, truncated, or has a shape the geometry cannot take."""

    exit_code = 21


class MaskError(TrainingError):
    """A ground-truth mask has no image, or not its size."""

    exit_code = 22


class TooFewPartsError(TrainingError):
    """There are fewer than ten good parts, or they are all the same picture."""

    exit_code = 23


class WeightsError(TrainingError):
    """Backbone weights are missing or belong to another network, or its ONNX file cannot serve."""

    exit_code = 24


class ParityError(TrainingError):
    """The exported graph and the trained model disagree; no file was left."""

    exit_code = 25


class OutputError(TrainingError):
    """A result cannot be written; nothing half-written was left."""

    exit_code = 26


class RunError(TrainingError):
    """A training run is missing, unfinished, or belongs to other data."""

    exit_code = 27


class Fault(InspectorError):
    """A part that cannot be judged. ``reason`` is a stable identifier from docs/wire.md."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
