"""Choice of an implementation, and a record of the ones that were chosen.

Every operation resolves its implementation through `first_supported`, which notes the choice when
the operation runs or is traced. `record_implementations` collects these notes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Requested = None | str | Sequence[str]
"""None chooses and may fall back; a name is that one or an error; a sequence is tried in order."""

TUNED_TABLES = "tuned tables"
"""Key of a record for the tables of tuned tiles that were used."""

ImplementationRecord = dict[str, list[str]]
"""Operation -> labels of its chosen implementations, each once, in the order of first use."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen implementation.

    Attributes:
        implementation: its name.
        execution_path: algorithm within the implementation, if it has several.
        detail: execution path in words, with sizes, for people.
        passed_over: (name, reason) of every implementation tried before that cannot run.
    """

    implementation: str
    execution_path: str = ""
    detail: str = ""
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """``"implementation"`` or ``"implementation:execution_path"``, as in records."""
        return ":".join(part for part in (self.implementation, self.execution_path) if part)


# Shared by all threads: a data pipeline or a compilation may trace in a thread of its own.
_lock = threading.Lock()
_process_record: ImplementationRecord = {}
_open_records: list[ImplementationRecord] = []


@contextlib.contextmanager
def record_implementations() -> Iterator[ImplementationRecord]:
    """Collects the implementations that operations choose while the context is open.

    A choice is noted when an operation is called eagerly or traced, in any thread. Contexts may be
    nested or overlap; each one collects everything chosen while it is open. A function that was
    compiled before is not traced again, so it notes nothing: enter the context before the first
    trace, or read `process_implementations`, which covers the whole process. Tracing without
    running (`jax.eval_shape`, `jax.make_jaxpr`) is noted too; `choose` is not.

    Yields:
        Mapping from operation to labels, such as ``{"masked_conv": ["xla:sparse", "reference"]}``;
        it fills while the context is open and keeps its contents afterwards. Safe to write as JSON.

    Example:
        >>> import jax.numpy as jnp
        >>> from kernels import masked_conv
        >>> x, w = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 8, 16))
        >>> with record_implementations() as ran:
        ...     y = masked_conv(x, w, jnp.ones((1, 4, 4), bool), implementation="dense")
        >>> ran
        {'masked_conv': ['dense']}
    """
    record: ImplementationRecord = {}
    with _lock:
        _open_records.append(record)
    try:
        yield record
    finally:
        with _lock:
            # By identity: two open records may be equal.
            _open_records[:] = [other for other in _open_records if other is not record]


def process_implementations() -> ImplementationRecord:
    """Returns a copy of everything chosen since the process started."""
    with _lock:
        return {operation: list(labels) for operation, labels in _process_record.items()}


def note_choice(operation: str, choice: Choice) -> None:
    """Adds a choice to the record of the process and to every open one."""
    _note(operation, choice.label)


def note_tuned_table(name: str) -> None:
    """Adds a table of tuned tiles to the same records, under `TUNED_TABLES`."""
    _note(TUNED_TABLES, name)


def _note(operation: str, label: str) -> None:
    with _lock:
        for record in (_process_record, *_open_records):
            labels = record.setdefault(operation, [])
            if label not in labels:
                labels.append(label)


def first_supported(
    operation: str,
    requested: Requested,
    implementations: Mapping[str, Callable[[], Callable[..., Any]]],
    preferred: Sequence[str],
    *,
    execution_paths: Mapping[str, str] | None = None,
) -> tuple[Choice, Callable[..., Any]]:
    """Calls implementations in order until one accepts.

    Args:
        operation: name of the operation, for the record.
        requested: the caller's ``implementation`` argument.
        implementations: name -> function without arguments that returns the function to run, or
            raises `NotImplementedError` if it does not support these inputs or this machine.
        preferred: order in which they are tried if nothing is requested.
        execution_paths: name -> algorithm that this implementation uses, if it has several.

    Returns:
        The choice, and the chosen function; calling it notes the choice.

    Raises:
        ValueError: an unknown name, or an empty sequence.
        NotImplementedError: none of them can run; the message gives the reason of each.
    """
    if requested is None:
        names = tuple(preferred)
    else:
        names = (requested,) if isinstance(requested, str) else _names(requested)
    if not names:
        raise ValueError("implementation is an empty sequence; expected None, a name or names")
    for name in names:
        if name not in implementations:
            known = ", ".join(implementations)
            raise ValueError(f"implementation is {name!r}; expected None or one of {known}")
    reasons: list[tuple[str, str]] = []
    for name in names:
        try:
            compute = implementations[name]()
        except NotImplementedError as error:
            reasons.append((name, str(error)))
        else:
            path = (execution_paths or {}).get(name, "")
            choice = Choice(name, path, passed_over=tuple(reasons))
            return choice, _noting(operation, choice, compute)
    raise NotImplementedError("; ".join(f"{name}: {reason}" for name, reason in reasons))


def _names(requested: Any) -> tuple[Any, ...]:
    if not isinstance(requested, Sequence):
        raise ValueError(f"implementation is {requested!r}; expected None, a name or names")
    return tuple(requested)


def _noting(operation: str, choice: Choice, compute: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        note_choice(operation, choice)
        return compute(*arguments)

    return run
