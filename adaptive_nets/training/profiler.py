"""Traces of chosen steps, for TensorBoard's profiler or Perfetto."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import jax


class Profiler:
    """Starts and stops JAX's profiler at step boundaries; leaving the context stops it too.

    Args:
        directory: where the traces go.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self.running = False

    def start(self, state: Any) -> None:
        """Begins a trace once everything dispatched so far is done."""
        jax.block_until_ready(state)
        jax.profiler.start_trace(str(self._directory))
        self.running = True

    def stop(self, state: Any) -> None:
        """Ends the trace once the steps it is about are done."""
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
        self.running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            jax.profiler.stop_trace()
            self.running = False
