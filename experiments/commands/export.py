"""adaptive-nets export: a trained network as a file for other programs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import is_stream, write_bytes_atomically, write_json_atomically
from experiments.commands.hub import check_hub, upload
from experiments.commands.layout import json_value
from experiments.commands.network_flags import check_network_flags
from experiments.commands.output import hint, is_terminal, note, show_fields
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets export"
EXAMPLES = (
    "adaptive-nets export runs/{id}/quick --to stablehlo",
    "adaptive-nets export --model resnet20_cifar10 --weights resnet20.th --to safetensors",
)
_SUFFIXES = {"safetensors": ".safetensors", "pytorch": ".pth", "stablehlo": ".stablehlo"}
# Largest difference of logits, relative to the largest logit where that is above 1.
TOLERANCE = 1e-5
# Batch of a program where any batch is not possible.
_FIXED_BATCH = 1


@dataclasses.dataclass(frozen=True)
class Export:
    """Writes a trained network for other programs, reads the file back and compares the logits.

    The network is that of a run (DIR), or a network of the zoo with weights from a file (--model,
    --weights). FILE.json beside the file describes its inputs and outputs.
    """

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a finished run, such as runs/ID/quick, or a file that a run exported."""
    to: Literal["safetensors", "pytorch", "stablehlo"] = "safetensors"
    """safetensors: one file for adaptive_nets.load_run; pytorch: a state dict with the names of
    torchvision, timm or akamaster; stablehlo: a program that needs only JAX."""
    out: Path | None = None
    """File to write; MODEL.safetensors, MODEL.pth or MODEL.stablehlo here if not given."""
    batch: str | None = None
    """With --to stablehlo: dynamic for any batch, or a number of images; if not given, dynamic
    where it works, else 1."""
    pixels: bool = False
    """With --to stablehlo: the program takes pixels from 0 to 255 and normalises them itself."""
    model: str | None = None
    """With --weights: name of the network, see 'adaptive-nets models'."""
    weights: Path | None = None
    """With --model: file of a run, or a PyTorch or safetensors state dict."""
    mean: tuple[float, ...] | None = None
    """Mean per channel of pixels from 0 to 1, for a state dict; ImageNet's if not given."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel, for a state dict; ImageNet's if not given."""
    hub: str | None = None
    """Repository of the Hugging Face hub, USER/NAME, that gets the files too; needs the extra
    hub."""
    json: bool = False
    """Print JSON."""


def main(arguments: Sequence[str]) -> None:
    """Writes the file, reads it back and prints what was written."""
    options = parse(Export, arguments, program=PROGRAM, examples=EXAMPLES)
    check_network_flags(
        PROGRAM, "DIR", options.run, options.model, options.weights, options.mean, options.std
    )
    batch = _batch(options)
    if options.pixels and options.to != "stablehlo":
        raise UserError(
            f"--pixels is for --to stablehlo; a file of --to {options.to} holds no program, so "
            "leave it out"
        )
    if options.hub is not None:
        check_hub(options.hub)
    from adaptive_nets.models.weights import export

    if options.run is not None:
        source = export.source_of_run(options.run)
    else:
        assert options.weights is not None
        assert options.model is not None
        source = export.source_of_weights(
            options.weights, options.model, mean=options.mean, std=options.std
        )
    _check_target(source, options.to)
    path = _out(options, source)
    with _staged(path) as staged:
        if options.to == "safetensors":
            details = _write_safetensors(source, staged)
        elif options.to == "pytorch":
            details = _write_pytorch(source, staged)
        else:
            details = _write_program(source, staged, batch, pixels=options.pixels)
    description = _description(source, path, options, details)
    described = path.with_name(path.name + ".json")
    write_json_atomically(described, json_value(description))
    report = {
        "file": path,
        "description": described,
        "to": options.to,
        "model": source.model,
        "source": source.file,
        "bytes": path.stat().st_size,
        **details,
    }
    if options.hub is not None:
        report["hub"] = upload(options.hub, (path, described), description)
    show_fields(json_value(report), as_json=options.json)
    if details.get("reason"):
        note(f"the batch is fixed: {details['reason']}")
    if is_terminal() and not options.json:
        hint(*_next_steps(options, path, source.model))


def _batch(options: Export) -> int | Literal["dynamic"] | None:
    text = options.batch
    if text is None:
        return None
    if options.to != "stablehlo":
        raise UserError(
            f"--batch is for --to stablehlo; weights of --to {options.to} take any batch, so leave "
            "it out"
        )
    if text == "dynamic":
        return "dynamic"
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1 << 16):
        raise UserError(f"--batch is {text!r}; expected dynamic, or a number from 1 to 65536")
    return int(text)


def _check_target(source: Any, target: str) -> None:
    """Raises `UserError` for a network that a target does not support."""
    if target == "pytorch" and source.halting_rule is not None:
        raise UserError(
            f"{source.model} halts by {source.halting_rule!r}, which no PyTorch collection has; "
            "expected --to safetensors or --to stablehlo, which export networks of adaptive depth"
        )
    if target != "safetensors" and not source.takes_images:
        shape = "x".join(map(str, source.input_shape))
        raise UserError(
            f"{source.model} takes inputs of {shape}, not images; expected --to safetensors"
        )
    if target == "pytorch" and source.note.get("overrides", {}).get("scan_units"):
        raise UserError(
            f"{source.model} stores the units of a stage as one array (scan_units); expected --to "
            "safetensors or --to stablehlo"
        )


def _out(options: Export, source: Any) -> Path:
    path = options.out or Path(source.model + _SUFFIXES[options.to])
    if path.is_dir():
        raise UserError(
            f"--out is {str(path)!r}, which is a folder; expected a file such as "
            f"{path / (source.model + _SUFFIXES[options.to])}"
        )
    if is_stream(path):
        raise UserError(f"--out is {str(path)!r}; expected a file, which is read back")
    with contextlib.suppress(OSError):
        if path.samefile(source.file):
            raise UserError(
                f"--out is {str(path)!r}, the file that is exported; expected another file"
            )
    return path


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Yields a file beside `path` that takes its place if the block ends without an error."""
    target = Path(os.path.realpath(path))
    staged = target.with_name(f".{target.stem[:100]}.{os.getpid()}.export{target.suffix}")
    try:
        yield staged
        os.replace(staged, target)
    except OSError as error:
        raise UserError(
            f"--out is {str(path)!r}, which cannot be written ({error.strerror or error}); "
            "expected a file in a folder that can"
        ) from error
    finally:
        staged.unlink(missing_ok=True)


def _probe(shape: tuple[int, ...], count: int) -> np.ndarray:
    """Returns normalised noise float32[count, H, W, C], the same in every call."""
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


def _logits(module: Any, variables: Any, images: np.ndarray) -> np.ndarray:
    import jax

    forward = jax.jit(lambda variables, x: module.apply(variables, x, train=False))
    return np.asarray(forward(variables, images))


def _compare(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference of logits.

    Raises:
        UserError: the difference is above the tolerance.
    """
    difference = float(np.max(np.abs(found - expected), initial=0.0))
    if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(expected), initial=0.0))):
        raise UserError(
            f"nothing is written: logits of the exported file differ by {difference:.3g} from the "
            f"network's; expected at most {TOLERANCE:g}"
        )
    return difference


def _write_safetensors(source: Any, path: Path) -> dict[str, Any]:
    from adaptive_nets.models.weights import load_run
    from adaptive_nets.models.weights.export import save_source

    save_source(source, path)
    module, variables, _ = load_run(path)
    if not source.takes_images:
        _check_equal(variables, source.variables)
        return {"max_difference": 0.0}
    images = _probe(source.input_shape, 2)
    expected = _logits(source.module, source.variables, images)
    return {"max_difference": _compare(_logits(module, variables, images), expected)}


def _check_equal(found: Any, expected: Any) -> None:
    """Raises `UserError` unless the variables are the same; for networks of other inputs."""
    from adaptive_nets.models.weights import flatten

    one, other = flatten(found), flatten(expected)
    if one.keys() != other.keys() or not all(np.array_equal(one[n], other[n]) for n in one):
        raise UserError("nothing is written: the variables do not read back as they are")


def _write_pytorch(source: Any, path: Path) -> dict[str, Any]:
    from adaptive_nets.models.weights.export import (
        from_state_dict,
        to_state_dict,
        torch_archive,
        torch_collection,
    )
    from adaptive_nets.models.weights.files import read_state_dict

    shape = source.input_shape
    tensors = to_state_dict(source.model, source.module, source.variables, shape)
    write_bytes_atomically(path, torch_archive(tensors))
    back = from_state_dict(
        read_state_dict(path),  # pyright: ignore[reportArgumentType]
        source.module, source.variables, shape, source=str(path),
    )  # fmt: skip
    images = _probe(shape, 2)
    expected = _logits(source.module, source.variables, images)
    return {
        "names": torch_collection(source.model),
        "tensors": len(tensors),
        "max_difference": _compare(_logits(source.module, back, images), expected),
    }


def _write_program(source: Any, path: Path, batch: Any, *, pixels: bool) -> dict[str, Any]:
    from adaptive_nets.models.weights.export import (
        export_program,
        forward_function,
        read_program,
    )

    forward = forward_function(
        source.module, source.variables, pixels=source.normalisation if pixels else None
    )
    program = export_program(
        forward,
        source.input_shape,
        batch=batch if isinstance(batch, int) else None,
        fixed_batch=_FIXED_BATCH if batch is None else None,
    )
    write_bytes_atomically(path, program.content)
    called = read_program(path.read_bytes(), source=str(path))
    difference = 0.0
    # A program for any batch is tried with two sizes.
    for count in (1, 3) if program.batch is None else (program.batch,):
        images = _probe(source.input_shape, count)
        if pixels:
            images = np.clip(np.round(127.5 + 60 * images), 0, 255)
            normalised = source.normalisation.apply(images)
        else:
            normalised = images
        expected = _logits(source.module, source.variables, normalised)
        difference = max(difference, _compare(np.asarray(called.call(images)), expected))
    details: dict[str, Any] = {
        "batch": "dynamic" if program.batch is None else program.batch,
        "input": "pixels" if pixels else "normalised",
        "platforms": list(program.platforms),
        "max_difference": difference,
    }
    return details | ({"reason": program.reason} if program.reason else {})


def _description(source: Any, path: Path, options: Export, details: Any) -> dict[str, Any]:
    """Returns what a program that reads the file has to know, as JSON values."""
    import jax

    import adaptive_nets

    height, width, channels = (*source.input_shape, None, None, None)[:3]
    first = options.to == "pytorch"
    normalisation = source.normalisation
    described: dict[str, Any] = {
        "format": "adaptive_nets.export",
        "version": 1,
        "to": options.to,
        "model": source.model,
        "overrides": dict(source.note.get("overrides", {})),
        "data": source.config.get("data", {}).get("name"),
        "num_classes": source.num_classes,
        "class_names": source.config.get("class_names"),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "packages": {"adaptive_nets": adaptive_nets.__version__, "jax": jax.__version__},
        **details,
    }
    if source.takes_images:
        described["input"] = {
            "layout": "NCHW" if first else "NHWC",
            "shape": [channels, height, width] if first else [height, width, channels],
            "dtype": "float32",
            "values": "pixels from 0 to 255" if options.pixels else
            "(pixels / pixel_scale - offset) * scale, pixels from 0 to 255",
        }  # fmt: skip
        described["output"] = "logits, float32[N, num_classes]"
    described["normalisation"] = {
        "pixel_scale": normalisation.pixel_scale,
        "offset": normalisation.offset.tolist(),
        "scale": normalisation.scale.tolist(),
        "per_image": normalisation.per_image,
    }
    if source.halting_rule is not None:
        # A probabilistic rule decides by a threshold, the others by a sum of scores.
        mode = "thresholded" if source.halting_rule.startswith("p") else "cumulative scores"
        described["halting"] = {
            "rule": source.halting_rule, "mode": mode, "execution": "dense",
        }  # fmt: skip
    return described


def _next_steps(options: Export, path: Path, model: str) -> list[str]:
    name = str(path)
    if options.to == "safetensors":
        return [
            f"adaptive-nets predict IMAGE... --run {path}",
            f'model, variables, config = adaptive_nets.load_run("{name}")',
        ]
    if options.to == "pytorch":
        return [
            f'network.load_state_dict(torch.load("{name}", weights_only=True))  # {model}',
        ]
    return [
        f'program = jax.export.deserialize(pathlib.Path("{name}").read_bytes())',
        "logits = program.call(images)  # float32 NHWC, see FILE.json",
    ]
