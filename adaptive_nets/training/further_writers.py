"""Writers of metrics beside those of the run's folder, for the runs within a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from adaptive_nets.training.writers import Writer

WriterFactory = Callable[[Path, int], Writer]
"""(folder of the seed, step that it resumes from) -> writer."""

_FACTORIES: ContextVar[tuple[WriterFactory, ...]] = ContextVar("further_writers", default=())


@contextlib.contextmanager
def further_writers(*factories: WriterFactory) -> Iterator[None]:
    """Adds writers to every training within the block, in the process that writes files.

    Args:
        *factories: functions that open a writer for a seed.
    """
    token = _FACTORIES.set((*_FACTORIES.get(), *factories))
    try:
        yield
    finally:
        _FACTORIES.reset(token)


def open_further_writers(directory: Path, *, resume_step: int) -> Iterator[Writer]:
    """Opens the writers of the surrounding blocks.

    Args:
        directory: folder of the seed.
        resume_step: step that the run resumes from; 0 for a new run.
    """
    for factory in _FACTORIES.get():
        yield factory(directory, resume_step)
