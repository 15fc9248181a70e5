"""adaptive-nets bench autotune: tile sizes of the Pallas kernels, by measured time."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.training.ranges import Range
from experiments.commands.parsing import parse

EXAMPLES = ("adaptive-nets bench autotune 'ResNet-101 conv4' --batch 32",)


@dataclasses.dataclass(frozen=True)
class Autotune:
    """Times the tiles of a Pallas kernel on this device and writes the best into its table.

    No other command tunes. Kernels use the table from then on, and records name it.
    """

    pattern: tyro.conf.Positional[str] = "ResNet-101 conv*"
    """Shell pattern of layers."""
    implementation: Literal["pallas_triton", "mosaic_tpu"] = "pallas_triton"
    """Kernel to tune."""
    batch: Annotated[tuple[int, ...], Range(1, 2**16, least=1)] = (32,)
    """Batch sizes."""
    keep: Annotated[tuple[float, ...], Range(0, 1, open_low=True, least=1)] = (0.5, 0.25)
    """Shares of positions that are computed."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of inputs and weights."""
    folder: Path | None = None
    """Folder of the tables; the one that the kernels read if not given."""


def main(arguments: Sequence[str]) -> None:
    """Tunes layer by layer."""
    options = parse(Autotune, arguments, program="adaptive-nets bench autotune", examples=EXAMPLES)
    from experiments.bench.tuning import tune_layer
    from kernels._common.layer_shapes import LAYERS
    from kernels._common.requirements import KERNEL_PLATFORMS
    from kernels._common.target import require_platform

    layers = [layer for layer in LAYERS if fnmatch.fnmatch(layer.label, options.pattern)]
    if not layers:
        labels = [layer.label for layer in LAYERS]
        raise UserError(
            f"no layer matches {options.pattern!r}; {did_you_mean(options.pattern, labels)}"
        )
    try:
        target = require_platform(
            KERNEL_PLATFORMS[options.implementation], f"--implementation {options.implementation}"
        )
    except NotImplementedError as error:
        raise UserError(str(error)) from error
    for layer in layers:
        for batch in options.batch:
            for keep in options.keep:
                tile = tune_layer(
                    layer,
                    batch=batch,
                    keep=keep,
                    dtype=options.dtype,
                    implementation=options.implementation,
                    device_kind=target.device_kind,
                    folder=options.folder,
                )
                print(f"{layer.label}, batch {batch}, keep {keep:g}: {tile}")
