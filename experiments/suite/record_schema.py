"""Schema of a record, validated whenever one is read, published or rendered.

Schema 2 adds run inputs, the load of the machine and the kernel implementations that the dispatch
recorded. Records of schema 1 are still read; their missing entries are None, "not recorded".
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from adaptive_nets.runtime.errors import UserError

SCHEMA = 2

_Count = Annotated[int, Meta(ge=0)]
_Duration = Annotated[float, Meta(ge=0)]
_Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=80)]
# Non-empty parts separated by dots: ids become file names and must not escape a folder.
_Id = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_][A-Za-z0-9_+-]*)+$", max_length=160),
]
_Digest = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]+$", max_length=64)]


class Measured(Struct, frozen=True, forbid_unknown_fields=True):
    """One measured number; see `experiments.suite.experiment.Metric`."""

    value: float | None
    unit: str
    count: _Count = 1
    note: str = ""


class Code(Struct, frozen=True):
    """Commit of the code and dirty flag; None outside a checkout."""

    commit: str | None
    dirty: bool | None


class Devices(Struct, frozen=True):
    """Devices that JAX used."""

    platform: str
    kind: str
    count: _Count
    processes: _Count = 1
    cpu_cores: int | None = None


class Data(Struct, frozen=True):
    """The data set of the run."""

    name: str
    source: str
    train: _Count
    test: _Count
    complete: bool
    fingerprint: str


class Input(Struct, frozen=True):
    """Weights or earlier run that the run started from, without its path."""

    flag: str
    kind: str
    digest: str
    experiment: str | None = None
    seed: int | None = None
    step: int | None = None


class Machine(Struct, frozen=True):
    """Load averages over one and five minutes at start and end of the run, and CPU governor."""

    load_at_start: tuple[float, ...]
    load_at_end: tuple[float, ...]
    governor: str | None = None


class Content(Struct, frozen=True):
    """Record of one seed, as stored in JSON."""

    schema: Annotated[int, Meta(ge=1, le=SCHEMA)]
    experiment: _Id
    preset: _Word
    row: str
    seed: _Count
    metrics: dict[str, Measured]
    config: dict[str, Any]
    config_hash: _Digest
    changed: list[str]
    code: Code
    packages: dict[str, str]
    devices: Devices
    seconds: _Duration
    steps: _Count
    dataset: Data
    kernels: dict[str, Any] | None
    finished: str
    history: dict[str, list[tuple[float, float]]]
    tuned_table: Any = None
    inputs: list[Input] = []
    machine: Machine | None = None


def validated(content: Any, *, source: str) -> dict[str, Any]:
    """Validates the content of a record and converts it to the current schema.

    Args:
        content: decoded JSON value.
        source: name of the file, for messages.

    Raises:
        UserError: it is not a record; the message names the entry.
    """
    if not isinstance(content, dict):
        raise UserError(f"record {source} is not a JSON object; expected the record of a run")
    try:
        msgspec.convert(content, Content)
    except msgspec.ValidationError as error:
        raise UserError(f"record {source} does not match the schema: {error}") from error
    if content["schema"] == 1:
        # Runners of schema 1 did not record their kernels.
        content = {**content, "schema": SCHEMA, "kernels": None, "inputs": [], "machine": None}
    return content


def decode(text: bytes, *, source: str) -> dict[str, Any]:
    """Decodes and validates a record file; see `validated`.

    Raises:
        UserError: it is not JSON, has a number that is not finite, or is not a record.
    """
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"record {source} cannot be read: {error}") from error
    return validated(content, source=source)
