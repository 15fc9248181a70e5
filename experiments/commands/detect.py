"""adaptive-nets detect: objects in image files, by a trained detector."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from adaptive_nets.data.image_files import find_images, passed_over
from adaptive_nets.data.pictures import read_picture
from adaptive_nets.runtime.errors import UserError, describe_os_error
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.progress import ConsoleProgress
from adaptive_nets.training.ranges import Range
from experiments.commands.layout import Column, rounded
from experiments.commands.output import console, note, print_json, show_listing
from experiments.commands.parsing import parse, print_error
from experiments.commands.ponder import make_folder, output_names

if TYPE_CHECKING:
    from adaptive_nets.detection.stored import StoredDetector

PROGRAM = "adaptive-nets detect"
EXAMPLES = (
    "adaptive-nets detect photo.jpg --run runs/ID/day --out detections",
    "adaptive-nets detect photographs --run runs/ID/day --threshold 0.8 --json",
)
_COLUMNS = (
    Column("file", rank=1, least=12),
    Column("class", rank=0),
    Column("score", align="right", text=rounded(3), pipe=rounded(4)),
    *(
        Column(side, rank=2, align="right", text=rounded(1), pipe=rounded(2))
        for side in ("y1", "x1", "y2", "x2")
    ),
    Column("share", "FLOPs, %", rank=3, align="right", text=rounded(1, 100), pipe=rounded(6)),
)


@dataclasses.dataclass(frozen=True)
class Detect:
    """Finds objects in image files with the detector of a run.

    Boxes are in pixels of the picture. The FLOPs are those of the feature extractor, as a share of
    the plain network's on the same picture.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; a folder stands for all images in it."""
    run: Path | None = None
    """Folder of a finished run of a detector, such as runs/ID/day, or its detector.safetensors."""
    out: Path | None = None
    """Folder for pictures with the boxes: NAME.boxes.png; and, of adaptive depth, NAME.ponder.png
    with the boxes over the ponder map."""
    threshold: Annotated[float, Range(0, 1)] = 0.5
    """Least score of a detection."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold is {self.threshold}; expected a score from 0 to 1")


class Finder:
    """Detector as a function from pictures to objects; one program for each padded shape.

    Args:
        stored: trained detector.
        threshold: least score of a detection.
    """

    def __init__(self, stored: StoredDetector, threshold: float):
        import jax

        from adaptive_nets.detection import detections, image_ponder_map

        self.stored, self.adaptive = stored, hasattr(stored.detector.network, "execution")
        apply: Any = stored.detector.apply

        @jax.jit
        def forward(variables: Any, batch: Any) -> Any:
            output = apply(variables, batch, execution="dense")
            maps = image_ponder_map(output) if self.adaptive else None
            return output, detections(output, score_threshold=threshold), maps

        self._forward = forward

    def find(self, pixels: np.ndarray, *, name: str) -> dict[str, Any]:
        """Finds the objects of one picture.

        Args:
            pixels: uint8[H, W, 3].
            name: name of the picture, for messages.

        Returns:
            ``boxes`` float[D, 4] in pixels of the picture, ``labels``, ``scores``, ``share`` of
            the plain network's FLOPs, and ``ponder`` float[H, W], None for a fixed depth.

        Raises:
            UserError: the picture is smaller than the stride.
        """
        import jax

        from adaptive_nets.data.boxes.resizing import scale_boxes
        from adaptive_nets.detection import feature_cost
        from adaptive_nets.saliency import resized

        batch, scale = self.stored.prepare(pixels, name=name)
        output, found, maps = jax.device_get(self._forward(self.stored.variables, batch))
        valid = np.asarray(found.valid[0])
        size = (pixels.shape[0], pixels.shape[1])
        ponder = None
        if maps is not None:
            height, width = batch["size"][0]
            ponder = resized(maps[0, :height, :width], size)
        return {
            "boxes": scale_boxes(found.boxes[0][valid], 1 / scale, size),
            "labels": found.labels[0][valid],
            "scores": found.scores[0][valid],
            "share": feature_cost(self.stored.detector, output).mean_share,
            "ponder": ponder,
        }


def draw(
    pixels: np.ndarray, found: dict[str, Any], class_names: Sequence[str], begin: Path
) -> dict[str, Path]:
    """Writes the pictures with boxes; returns their paths by kind.

    Args:
        pixels: uint8[H, W, 3].
        found: from `Finder.find`.
        class_names: names of the classes by label.
        begin: path of the pictures without ".boxes.png".

    Raises:
        UserError: a picture cannot be written.
    """
    from experiments.report.box_drawings import class_colour, draw_boxes
    from experiments.report.heat_maps import levels, overlaid, png

    labels = [int(label) for label in found["labels"]]
    texts = [
        f"{class_names[label]} {score:.2f}"
        for label, score in zip(labels, found["scores"], strict=True)
    ]
    pictures = {"boxes": pixels}
    if found["ponder"] is not None:
        pictures["ponder"] = overlaid(pixels, levels(found["ponder"]))
    paths = {}
    for kind, picture in pictures.items():
        drawn = draw_boxes(picture, found["boxes"], texts, [class_colour(n) for n in labels])
        path = begin.with_name(f"{begin.name}.{kind}.png")
        try:
            write_bytes_atomically(path, png(drawn))
        except OSError as error:
            raise UserError(describe_os_error(error)) from error
        paths[kind] = path
    return paths


def _listed(
    file: Path, found: dict[str, Any], names: Sequence[str], paths: dict[str, Path]
) -> dict[str, Any]:
    """Returns what was found in one picture, for JSON."""
    objects = [
        {
            "class": names[int(label)],
            "score": float(score),
            **dict(zip(("y1", "x1", "y2", "x2"), map(float, box), strict=True)),
        }
        for label, score, box in zip(found["labels"], found["scores"], found["boxes"], strict=True)
    ]
    ponder = found["ponder"]
    return {
        "file": str(file),
        "share": found["share"],
        "ponder": None if ponder is None else float(ponder.mean()),
        "pictures": {kind: str(path) for kind, path in paths.items()},
        "objects": objects,
    }


def main(arguments: Sequence[str]) -> None:
    """Prints, and draws if asked to, the objects in every picture."""
    options = parse(Detect, arguments, program=PROGRAM, examples=EXAMPLES)
    if not options.images:
        raise UserError(f"{PROGRAM} expects image files or folders (see: {PROGRAM} --help)")
    if options.run is None:
        raise UserError(f"--run is not given; expected the folder of a run (see: {PROGRAM} --help)")
    skipped: Counter[str] = Counter()
    files = find_images(options.images, skipped)
    if skipped:
        print_error(f"passed over: {passed_over(skipped)}")
    names = output_names(files) if options.out is not None else [""] * len(files)

    from adaptive_nets.detection.stored import load_detector

    stored = load_detector(options.run)
    out = make_folder(options.out) if options.out is not None else None
    for file in files:
        # All of them before any is drawn; decoding is short beside the network.
        stored.prepare(read_picture(file), name=f"image {file}")
    finder = Finder(stored, options.threshold)
    images = []
    with ConsoleProgress(console(stderr=True)) as progress:
        progress.start("detections", done=0, total=len(files), unit="pictures")
        for file, name in zip(files, names, strict=True):
            pixels = read_picture(file)
            found = finder.find(pixels, name=f"image {file}")
            paths = {} if out is None else draw(pixels, found, stored.class_names, out / name)
            images.append(_listed(file, found, stored.class_names, paths))
            progress.update(len(images))
        progress.finish()
    if options.json:
        print_json(
            {
                "backbone": stored.detector.backbone,
                "detector": str(options.run),
                "classes": stored.class_names,
                "threshold": options.threshold,
                "images": images,
            }
        )
        return
    rows = [
        {"file": image["file"], "share": image["share"], **found}
        for image in images
        for found in image["objects"]
    ]
    show_listing(_COLUMNS, rows)
    count = f"{len(rows)} object{'' if len(rows) == 1 else 's'}"
    note(f"{count} in {len(images)} picture{'' if len(images) == 1 else 's'}")
    if out is not None:
        note(f"pictures written to {out}")
