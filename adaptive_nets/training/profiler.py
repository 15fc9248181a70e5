"""Profiler traces of a range of steps, for TensorBoard or Perfetto."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import jax


class Profiler:
    """Starts and stops JAX's profiler at step boundaries; leaving the context stops it too.

    Args:
        directory: folder of the traces.
    """

    def __init__(self, directory: str | Path):
        directory = Path(directory)
        self._directory = directory
        self.running = False

    def start(self, state: Any) -> None:
        """Starts a trace after waiting for all dispatched steps."""
        jax.block_until_ready(state)
        jax.profiler.start_trace(str(self._directory))
        self.running = True

    def stop(self, state: Any) -> None:
        """Stops the trace after waiting for the traced steps."""
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        self.running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            jax.profiler.stop_trace()
            self.running = False
