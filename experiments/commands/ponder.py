"""adaptive-nets ponder: maps of the depth that a network of adaptive depth spends on pictures."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from adaptive_nets.data.image_files import find_images, passed_over
from adaptive_nets.data.pictures import fitted_size, read_picture, resize_picture
from adaptive_nets.runtime.errors import UserError, describe_os_error
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.progress import ConsoleProgress
from adaptive_nets.training.ranges import Range
from experiments.commands.layout import Column, grouped, rounded
from experiments.commands.network_flags import check_network_flags
from experiments.commands.output import console, note, print_json, show_listing
from experiments.commands.parsing import parse, print_error

if TYPE_CHECKING:
    from experiments.shared.adaptive_depth.ponder_maps import PonderNetwork

PROGRAM = "adaptive-nets ponder"
EXAMPLES = (
    "adaptive-nets ponder photographs --run runs/ID/quick --out maps",
    "adaptive-nets ponder photo.jpg --run runs/ID/quick --out maps --size 320 --plain",
)
_COLUMNS = (
    Column("image", rank=1, least=12),
    Column("width", rank=4, align="right"),
    Column("height", rank=4, align="right"),
    Column("ponder", "mean ponder cost", align="right", text=rounded(2), pipe=rounded(4)),
    Column("lowest", rank=3, align="right", text=rounded(2), pipe=rounded(4)),
    Column("highest", rank=3, align="right", text=rounded(2), pipe=rounded(4)),
    Column("flops", "FLOPs", rank=5, align="right", text=grouped),
    Column("plain_flops", "of the plain network", rank=6, align="right", text=grouped),
    Column("share", "share, %", align="right", text=rounded(1, 100), pipe=rounded(6)),
    Column("map", rank=2, least=12),
)


@dataclasses.dataclass(frozen=True)
class Ponder:
    """Draws where a network of adaptive depth spends computation, for each picture.

    The ponder map is the sum over blocks of the ponder cost of each position, at the size of the
    picture. The network is that of a run (--run), or a network of the zoo with weights from a file
    (--model, --weights).
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; a folder stands for all images in it."""
    out: Path | None = None
    """Folder for the maps: NAME.ponder.png is the map as colour over the picture."""
    run: Path | None = None
    """Folder of a finished run, such as runs/ID/quick, or a file that a run exported."""
    model: str | None = None
    """With --weights: name of the network, see 'adaptive-nets models'."""
    weights: Path | None = None
    """With --model: file of a run, or a PyTorch or safetensors state dict."""
    mean: tuple[float, ...] | None = None
    """Mean per channel of pixels from 0 to 1, for a state dict; ImageNet's if not given."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel, for a state dict; ImageNet's if not given."""
    size: Annotated[tuple[int, ...], Range(1, 2**15)] = ()
    """Longer side to which pictures are resized, or height and width; if not given, pictures keep
    their size."""
    plain: bool = False
    """Also write NAME.map.png, the map alone: grey from 0, the lowest cost, to 255, the highest."""
    json: bool = False
    """Print JSON."""


def load(options: Ponder) -> tuple[PonderNetwork, str]:
    """Loads the network that the flags name; returns it and the file or folder.

    Raises:
        UserError: the flags name no network or two, or it has no ponder map.
    """
    check_network_flags(
        PROGRAM, "--run DIR", options.run, options.model, options.weights, options.mean, options.std
    )
    from adaptive_nets.models.normalisation import InputNormalisation
    from adaptive_nets.models.weights.trained import load_run, load_weights
    from experiments.shared.adaptive_depth.ponder_maps import PonderNetwork

    if options.run is not None:
        flag, source = "--run", str(options.run)
        module, variables, config = load_run(options.run)
    else:
        assert options.model is not None
        assert options.weights is not None
        flag, source = "--weights", str(options.weights)
        module, variables, config = load_weights(
            options.weights, options.model, mean=options.mean, std=options.std
        )
    normalisation = InputNormalisation(**config["normalisation"])
    network = PonderNetwork.of(
        module, variables, normalisation, name=config["model"]["name"], source=f"{flag} {source}"
    )
    return network, source


def output_names(files: Sequence[Path]) -> list[str]:
    """Returns the beginning of the names of each picture's maps: its own, shortened where unique.

    Raises:
        UserError: two pictures of different folders have the same name.
    """
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else file.name for file in files]
    if len(set(names)) < len(names):
        name, _ = Counter(names).most_common(1)[0]
        first, second, *_ = (f for f, n in zip(files, names, strict=True) if n == name)
        raise UserError(
            f"images {first} and {second} have the same name, and so would their maps; expected "
            "distinct names, so give the folders one after the other with an --out of their own"
        )
    return names


def make_folder(path: Path | None) -> Path:
    """Creates the folder for the maps and checks, before any work, that it can be written.

    Raises:
        UserError: no folder is given, or it cannot be written.
    """
    if path is None:
        raise UserError(
            f"--out is not given; expected a folder for the maps (see: {PROGRAM} --help)"
        )
    path = path.expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except FileExistsError as error:
        raise UserError(f"--out {path} is a file; expected a folder for the maps") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"--out {path} cannot be written: {reason}; expected a folder that you may write"
        ) from error
    return path


def target_size(size: tuple[int, int], wanted: tuple[int, ...]) -> tuple[int, int]:
    """Returns (H, W) of a picture after the resize that --size asks for."""
    if not wanted:
        return size
    return fitted_size(size, wanted[0]) if len(wanted) == 1 else (wanted[0], wanted[1])


def prepared(network: PonderNetwork, file: Path, options: Ponder) -> np.ndarray:
    """Reads a picture at the size that --size asks for; returns uint8[H, W, C].

    Raises:
        UserError: it cannot be read, or is smaller than the network's stride.
    """
    pixels = read_picture(file, mode="RGB" if network.channels == 3 else "L")
    size = target_size((pixels.shape[0], pixels.shape[1]), options.size)
    network.check_size(size, name=f"image {file}")
    return resize_picture(pixels, size)


def draw(network: PonderNetwork, file: Path, begin: Path, options: Ponder) -> dict[str, Any]:
    """Computes and writes the map of one picture; returns its row of the table.

    Args:
        network: network of adaptive depth.
        file: the picture.
        begin: path of its maps without ".ponder.png".
        options: flags of the command.

    Raises:
        UserError: the picture cannot be read or is too small, or a map cannot be written.
    """
    from experiments.report.heat_maps import levels, overlaid, png

    pixels = prepared(network, file, options)
    size = (pixels.shape[0], pixels.shape[1])
    found = network.run(pixels[None])
    ponder, flops, plain = found.maps[0], int(found.flops[0]), network.plain_flops(size)
    scaled = levels(ponder)
    pictures = {".ponder.png": overlaid(pixels, scaled)}
    if options.plain:
        pictures[".map.png"] = np.rint(255 * scaled).astype(np.uint8)
    paths = [begin.with_name(begin.name + end) for end in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        try:
            write_bytes_atomically(path, png(picture))
        except OSError as error:
            raise UserError(describe_os_error(error)) from error
    return {
        "image": str(file),
        "width": size[1],
        "height": size[0],
        "ponder": float(ponder.mean()),
        "lowest": float(ponder.min()),
        "highest": float(ponder.max()),
        "flops": flops,
        "plain_flops": plain,
        "share": flops / plain,
        "map": str(paths[0]),
        "plain_map": str(paths[1]) if options.plain else None,
    }


def main(arguments: Sequence[str]) -> None:
    """Draws the ponder map of every picture and prints what was spent."""
    options = parse(Ponder, arguments, program=PROGRAM, examples=EXAMPLES)
    if not options.images:
        raise UserError(f"{PROGRAM} expects image files or folders (see: {PROGRAM} --help)")
    if len(options.size) > 2:
        sizes = " ".join(map(str, options.size))
        raise UserError(f"--size is {sizes}; expected one number, or height and width")
    skipped: Counter[str] = Counter()
    files = find_images(options.images, skipped)
    if skipped:
        print_error(f"passed over: {passed_over(skipped)}")
    names = output_names(files)
    network, source = load(options)
    out = make_folder(options.out)
    for file in files:
        # All of them before any map is written; decoding is short beside the network.
        prepared(network, file, options)
    rows = []
    with ConsoleProgress(console(stderr=True)) as progress:
        progress.start("ponder maps", done=0, total=len(files), unit="pictures")
        for file, name in zip(files, names, strict=True):
            rows.append(draw(network, file, out / name, options))
            progress.update(len(rows))
        progress.finish()
    if options.json:
        print_json({"model": network.name, "network": source, "images": rows})
        return
    show_listing(_COLUMNS, rows)
    note(f"{len(rows)} map{'s' if len(rows) > 1 else ''} written to {out}")
