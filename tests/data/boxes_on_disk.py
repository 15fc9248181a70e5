"""Small sets of photographs with boxes, written by the tests in COCO's and Pascal VOC's layouts."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = [(3, "cat"), (1, "person"), (90, "brush")]  # Sparse, and not in order.
SIZES = {7: (40, 60), 9: (60, 40), 12: (40, 64), 15: (50, 50), 20: (40, 60)}  # id -> (h, w)
# (image, category, x, y, width, height, crowd)
BOXES = [
    (7, 1, 10.5, 4.0, 20.0, 30.25, 0),
    (7, 90, 0.0, 0.0, 60.0, 40.01, 0),  # Rounding carries it out of the image.
    (9, 3, 5.0, 10.0, 30.0, 20.0, 1),
    (12, 3, 1.0, 2.0, 3.0, 4.0, 0),
    (20, 1, 8.0, 8.0, 0.0, 5.0, 0),  # No width: left out.
]


def pixels_of(number: int) -> np.ndarray:
    """A photograph whose columns and rows can be told apart after a flip."""
    height, width = SIZES[number]
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x, 3 * y, np.full_like(x, 10 * number)], axis=-1).astype(np.uint8)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(number)).save(buffer, "PNG")
    return buffer.getvalue()


def file_name(number: int) -> str:
    return f"{number:012d}.png"


def coco_content(prefix: str = "") -> dict:
    """Content of an annotation file; `prefix` goes in front of the names of images."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": n, "file_name": prefix + file_name(n), "height": h, "width": w, "license": 1}
            for n, (h, w) in SIZES.items()
        ],
        "annotations": [
            {
                "id": 100 + place, "image_id": image, "category_id": category,
                "bbox": [x, y, w, h], "area": 0.5 * w * h, "iscrowd": crowd,
                "segmentation": {"size": [1, 1], "counts": "x"},
            }
            for place, (image, category, x, y, w, h, crowd) in enumerate(BOXES)
        ],
        "categories": [{"id": n, "name": name, "supercategory": "x"} for n, name in CATEGORIES],
    }  # fmt: skip


def write_coco(root: Path, content: dict | None = None, *, images: str = "folder") -> Path:
    """Writes annotations/instances_val2017.json, and the images as a folder or a zip archive."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    text = json.dumps(coco_content() if content is None else content)
    (root / "annotations" / "instances_val2017.json").write_text(text)
    if images == "folder":
        (root / "val2017").mkdir(exist_ok=True)
        for number in SIZES:
            (root / "val2017" / file_name(number)).write_bytes(png(number))
    else:
        method = zipfile.ZIP_DEFLATED if images == "deflated" else zipfile.ZIP_STORED
        with zipfile.ZipFile(root / "val2017.zip", "w", method) as archive:
            for number in SIZES:
                archive.writestr(f"val2017/{file_name(number)}", png(number))
    return root


def voc_object(name: str, box, *, difficult: int = 0) -> str:
    xmin, ymin, xmax, ymax = box
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        f"<ymin>{ymin}</ymin><xmin>{xmin}</xmin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    )


def voc_xml(number: int, objects: str) -> str:
    height, width = SIZES[number]
    return (
        f"<annotation><filename>{number:03d}.png</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )


VOC_OBJECTS = {
    7: voc_object("cell", (1, 1, 60, 40)) + voc_object("blob", (11, 6, 11, 6), difficult=1),
    9: voc_object("blob", (5, 10, 35, 30)),
    12: "",
}


def write_voc(root: Path, objects: dict[int, str] | None = None) -> Path:
    """Writes Annotations, JPEGImages and lists: 7 and 12 are of train, 9 of val."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, text in (VOC_OBJECTS if objects is None else objects).items():
        (root / "Annotations" / f"{number:03d}.xml").write_text(voc_xml(number, text))
        (root / "JPEGImages" / f"{number:03d}.png").write_bytes(png(number))
    lists = root / "ImageSets" / "Main"
    (lists / "train.txt").write_text("012\n007\n")
    (lists / "val.txt").write_text("009 \n\n")
    (lists / "trainval.txt").write_text("007\n009\n012\n")
    (lists / "cell_train.txt").write_text("007  1\n012 -1\n")
    return root
