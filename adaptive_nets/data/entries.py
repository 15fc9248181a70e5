"""Entries of the catalogue: files, counts, classes and checksums of data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """Official file of a set.

    Attributes:
        split: split that the file belongs to, ``"train"`` or ``"test"``.
        holds: contents, ``"images"``, ``"labels"`` or ``"both"``.
        names: possible file names in order of preference; each may also end in ``.gz``.
        count: number of examples.
        md5: md5 of the uncompressed content, if known.
        gz_md5: md5 of the published ``.gz``, for files whose content has no published sum.
    """

    split: str
    holds: str
    names: tuple[str, ...]
    count: int
    md5: str | None = None
    gz_md5: str | None = None

    @property
    def candidates(self) -> tuple[str, ...]:
        """Possible file names, the one with the best check first."""
        if not self.names[0].endswith("ubyte"):
            return self.names
        packed = tuple(f"{name}.gz" for name in self.names)
        # Without a checksum of the content, only the packed file can be verified.
        packed_first = self.md5 is None and self.gz_md5 is not None
        return packed + self.names if packed_first else self.names + packed


@dataclass(frozen=True, kw_only=True)
class Form:
    """Published form of a set.

    Attributes:
        kind: reader of the form: ``"idx"``, ``"binary"`` or ``"python"``.
        folders: folders below the data root in search order.
        files: files in the order of their examples.
    """

    kind: str
    folders: tuple[str, ...]
    files: tuple[OfficialFile, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Entry of a set in the catalogue.

    Attributes:
        name: name on the command line.
        title: human-readable name.
        image_shape: (H, W, C) of every image.
        label_names: TFDS's name of each kind of label -> class names.
        label_key: kind of label that this entry reads.
        splits: official number of examples of each split.
        optional_splits: splits that a complete set may lack.
        forms: forms of the official files in order of preference.
        licence: terms of use, as stated by the authors.
        stored_as: name of the entry whose prepared copy this entry reads.
        digests: `splits.digest` of each official split, if known.
        streamed: whether the set is too large for memory and is streamed from disk during training;
            `image_shape` is then the shape after decoding.
        channel_mean: mean of each channel of the training images, in [0, 1]; for streamed sets.
        channel_deviation: standard deviation of each channel; for streamed sets.
        box_form: layout of a set of photographs with boxes, ``"coco"`` or ``"voc"``, see `boxes`;
            empty for all others. Its sides in `image_shape` are 0, since they vary.
        folders: folders below the data root that may hold such a set, in search order.
    """

    name: str
    title: str
    image_shape: tuple[int, int, int]
    label_names: Mapping[str, tuple[str, ...]]
    splits: Mapping[str, int]
    forms: tuple[Form, ...]
    licence: str
    label_key: str = "label"
    optional_splits: tuple[str, ...] = ()
    stored_as: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    streamed: bool = False
    channel_mean: tuple[float, ...] = ()
    channel_deviation: tuple[float, ...] = ()
    box_form: str = ""
    folders: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.stored_as:
            object.__setattr__(self, "stored_as", self.name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.label_names[self.label_key]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def files(self) -> tuple[OfficialFile, ...]:
        """Official files of all forms."""
        return tuple(file for form in self.forms for file in form.files)

    @property
    def num_bytes(self) -> int:
        """Size of all pixels of the official splits, bytes."""
        return sum(self.splits.values()) * math.prod(self.image_shape)
