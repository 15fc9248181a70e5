"""What is written down about a data set: its files, counts, classes and checksums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """One file of a set as its authors publish it.

    Attributes:
        split: the split it belongs to, ``"train"`` or ``"test"``.
        holds: ``"images"``, ``"labels"`` or ``"both"``.
        names: names the file is met under, best first; each may also end in ``.gz``.
        count: examples in it.
        md5: md5 of the uncompressed content, where known.
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
        """Every name the file may have in a folder, the one that can be checked best first."""
        if not self.names[0].endswith("ubyte"):
            return self.names
        packed = tuple(f"{name}.gz" for name in self.names)
        # Without a sum of the content only the packed file can be told from a damaged one.
        packed_first = self.md5 is None and self.gz_md5 is not None
        return packed + self.names if packed_first else self.names + packed


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the forms a set is published in.

    Attributes:
        kind: ``"idx"``, ``"binary"`` or ``"python"``: which reader reads it.
        folders: folders below the data root it is looked for in, best first.
        files: its files in the order their examples are numbered.
    """

    kind: str
    folders: tuple[str, ...]
    files: tuple[OfficialFile, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known about a set before any of its files is seen.

    Attributes:
        name: the name people type.
        title: the name people read.
        image_shape: height, width and channels of every image, pixels.
        label_names: class names of each kind of label the files hold, by TFDS's name of that label.
        label_key: the kind of label that this entry reads.
        splits: official number of examples of each split.
        optional_splits: splits that the set is also complete without.
        forms: the forms its official files come in, best first.
        licence: terms of use, as far as the authors state any.
        stored_as: name of the entry whose prepared copy this one reads.
        digests: `splits.digest` of each official split, where known.
        streamed: whether it is too large for memory and read while training; `image_shape` is then
            what its images are brought to.
        channel_mean: mean of each channel of the training images, in [0, 1]; for streamed sets.
        channel_deviation: their standard deviation.
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
        """The official files of all forms."""
        return tuple(file for form in self.forms for file in form.files)

    @property
    def num_bytes(self) -> int:
        """Size of all pixels of the official splits, bytes."""
        return sum(self.splits.values()) * math.prod(self.image_shape)
