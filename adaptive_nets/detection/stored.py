"""Trained detectors in files: the format of the zoo's networks, with the detector in its note."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from adaptive_nets.data.boxes import Resize, bucket_shapes
from adaptive_nets.data.boxes.buckets import choose_bucket
from adaptive_nets.data.boxes.resizing import pad_image, resize_image
from adaptive_nets.detection.network import FasterRCNN, create_detector
from adaptive_nets.detection.settings import DetectorSettings, ProposalSettings, RegionSettings
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights import check_fits, load_network, save_network
from adaptive_nets.models.weights.locate import RECORD
from adaptive_nets.runtime.errors import UserError

DETECTOR_FILE = "detector.safetensors"
"""Name of the file in the folder of a seed."""
_NOTE = "detector"
_SEED = re.compile(r"seed(\d+)")
_EXPECTED = "the folder of a finished run that trained a detector, such as runs/ID/day"


@dataclasses.dataclass(frozen=True)
class StoredDetector:
    """Trained detector, ready for pictures.

    Attributes:
        detector: the network.
        variables: its variables.
        normalisation: normalisation of its images.
        class_names: names of the classes by label.
        resize: sizes of the photographs that it was trained on.
        multiple: stride, pixels: sides of padded images are multiples of it.
    """

    detector: FasterRCNN
    variables: dict[str, Any]
    normalisation: InputNormalisation
    class_names: tuple[str, ...]
    resize: Resize
    multiple: int

    def __post_init__(self):
        if len(self.class_names) != self.detector.num_classes:
            raise UserError(
                f"class_names has {len(self.class_names)} names; expected "
                f"{self.detector.num_classes}, the classes of the detector"
            )
        if self.multiple < 1:
            raise UserError(f"multiple is {self.multiple}; expected at least 1 pixel")

    def prepare(
        self, pixels: UInt8[np.ndarray, "H W 3"], *, name: str = "image"
    ) -> tuple[dict[str, np.ndarray], float]:
        """Resizes, pads and normalises a picture as in training.

        Args:
            pixels: uint8[H, W, 3].
            name: name of the picture, for messages.

        Returns:
            A batch of one image, ``image`` float32[1, h, w, 3] and ``size`` int32[1, 2]; and the
            scale, resized / original pixels.

        Raises:
            UserError: the picture has no three channels, or is smaller than the stride.
        """
        pixels = np.asarray(pixels)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise UserError(
                f"{name} is {pixels.dtype}{list(pixels.shape)}; expected uint8[H, W, 3]"
            )
        height, width = pixels.shape[:2]
        # Without pixels there is no scale.
        size = self.resize.size(height, width) if min(height, width) else (0, 0)
        if min(height, width, *size) < self.multiple:
            resized = f" and {size[1]}x{size[0]} after resizing" if min(size) else ""
            raise UserError(
                f"{name} is {width}x{height} pixels (width x height){resized}; the detector has a "
                f"stride of {self.multiple}, expected at least {self.multiple}x{self.multiple}"
            )
        shapes = bucket_shapes(self.resize, stride=self.multiple)
        shape = shapes[choose_bucket(size, shapes)]
        image = pad_image(resize_image(pixels, size), shape)
        batch = {
            "image": self.normalise(image[None]),
            "size": np.array([size], np.int32),
        }
        return batch, self.resize.scale(height, width)

    def normalise(self, images: UInt8[np.ndarray, "N H W 3"]) -> Float32[np.ndarray, "N H W 3"]:
        """Normalises 8-bit images as in training."""
        return self.normalisation.apply(images)


def save_detector(
    path: str | Path, stored: StoredDetector, *, note: Mapping[str, Any] | None = None
) -> int:
    """Writes a detector to one file, atomically.

    Args:
        path: file to write, usually ``detector.safetensors``.
        stored: detector with variables, classes and sizes of images.
        note: provenance, JSON values; ``overrides`` are the options of the backbone's builder.

    Returns:
        Size of the file in bytes.
    """
    detector = stored.detector
    return save_network(
        path,
        model=detector.backbone,
        num_classes=detector.num_classes,
        variables=jax.device_get(stored.variables),
        normalisation=stored.normalisation,
        note={
            **(note or {}),
            _NOTE: {
                "settings": dataclasses.asdict(detector.settings),
                "class_names": list(stored.class_names),
                "resize": [stored.resize.short, stored.resize.long],
                "multiple": stored.multiple,
            },
        },
    )


def load_detector(path: str | Path) -> StoredDetector:
    """Loads the detector of a finished run, or of a file of `save_detector`.

    Args:
        path: folder of a run, whose first finished seed counts; folder of a seed; or the file.

    Raises:
        UserError: there is none, the run is not finished or of another kind, or the file is damaged
            or of another program.
    """
    file = find_detector(path)
    stored = load_network(file)
    if _NOTE not in stored.note:
        raise UserError(
            f"weights file {file} holds the classification network {stored.model!r}; expected a "
            f"detector: {_EXPECTED}"
        )
    try:
        entry = stored.note[_NOTE]
        settings = entry["settings"]
        detector = create_detector(
            stored.model,
            num_classes=stored.num_classes,
            settings=DetectorSettings(
                ProposalSettings(**_tuples(settings["proposals"])),
                RegionSettings(**_tuples(settings["regions"])),
            ),
            **_tuples(stored.note.get("overrides", {})),
        )
        found = StoredDetector(
            detector,
            stored.variables,
            stored.normalisation,
            tuple(map(str, entry["class_names"])),
            Resize(*entry["resize"]),
            int(entry["multiple"]),
        )
    except UserError as error:
        raise UserError(f"weights file {file}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"weights file {file} is damaged: its note has no settings of a detector "
            f"({type(error).__name__}: {error})"
        ) from error
    check_fits(found.variables, abstract_variables(detector), source=str(file))
    return found


def abstract_variables(detector: FasterRCNN) -> dict[str, Any]:
    """Returns the shapes and dtypes of a detector's variables, without computing them."""
    batch = {
        "image": jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32),
        "size": np.array([[128, 128]], np.int32),
    }
    keys = {"params": jax.random.key(0), "sampling": jax.random.key(0)}
    return jax.eval_shape(
        lambda image: detector.init(keys, {**batch, "image": image}), batch["image"]
    )


def find_detector(path: str | Path) -> Path:
    """Finds the file of a detector.

    Args:
        path: folder of a run or of a seed, or the file.

    Raises:
        UserError: there is none.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if path.exists():
            return path
        raise UserError(f"no run in {path}: it does not exist; expected {_EXPECTED}")
    if (path / DETECTOR_FILE).is_file():
        return path / DETECTOR_FILE
    seeds = sorted(
        (child for child in path.iterdir() if _SEED.fullmatch(child.name) and child.is_dir()),
        key=lambda seed: int(seed.name[4:]),
    )
    for seed in seeds:
        if (seed / RECORD).is_file() and (seed / DETECTOR_FILE).is_file():
            return seed / DETECTOR_FILE
    if (path / RECORD).is_file() or any((seed / RECORD).is_file() for seed in seeds):
        raise UserError(f"the run in {path} trained no detector; expected {_EXPECTED}")
    if seeds or _SEED.fullmatch(path.name):
        raise UserError(f"the run in {path} is not finished; the command that began it resumes it")
    raise UserError(f"no run in {path}; expected {_EXPECTED}")


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
