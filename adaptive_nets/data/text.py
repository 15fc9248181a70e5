"""Character corpora: enwik8, Penn Treebank, and a text that comes with Python.

A corpus is read as characters of a vocabulary, numbered from 0, in three parts. The default,
`python-topics`, is the language reference that the interpreter ships for its `help`
(`pydoc_data.topics`, PSF licence), so it needs no download; its text differs between versions of
Python, as its fingerprint says.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import data_root
from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.runtime.errors import UserError, describe_os_error, did_you_mean
from adaptive_nets.runtime.reading import read_file

EMBEDDED = "python-topics"
"""Corpus that is always present."""
TEXT = "text"
"""Source of the data set of a corpus."""
TOKEN = "token"
"""Name of the array of character numbers in a batch."""
PARTS = ("train", "validation", "test")
ASCII = "\n" + "".join(map(chr, range(32, 127)))
"""Newline and the printable characters of ASCII."""

Vocabulary = Literal["corpus", "ascii"]
"""Characters of a vocabulary: those of the corpus, or `ASCII`."""

ENWIK8_BYTES = 100_000_000
# Characters of the validation and of the test part of a text that comes in one piece.
_HELD_OUT = 0.05


@dataclasses.dataclass(frozen=True)
class TextCorpus:
    """Text as numbers of characters.

    Attributes:
        name: name of the corpus.
        location: place that it was read from, for people.
        vocabulary: the characters, sorted; character i has number i.
        parts: ``"train"``, ``"validation"`` and ``"test"`` -> uint8[M], numbers of characters.
        fingerprint: sha256, hex, of vocabulary and text.
    """

    name: str
    location: str
    vocabulary: str
    parts: Mapping[str, np.ndarray]
    fingerprint: str

    def dataset(self, *, length: int, train_limit: int = 0, test_limit: int = 0) -> Dataset:
        """Returns training and test part as sequences of `length` + 1 characters.

        Consecutive sequences share one character, so that every character but the first is
        predicted once. Characters after the last whole sequence are left out.

        Args:
            length: predicted characters of a sequence.
            train_limit: number of training characters, from the first; 0 for all.
            test_limit: number of test characters, from the first; 0 for all.

        Raises:
            UserError: a part is shorter than a sequence.
        """
        splits = {}
        for part, limit in (("train", train_limit), ("test", test_limit)):
            tokens = self.parts[part][: limit or None]
            if len(tokens) <= length:
                raise UserError(
                    f"the {part} part of {self.name} has {len(tokens):,} characters; expected more "
                    f"than the length {length:,} of a sequence"
                )
            splits[part] = Split(**{TOKEN: sequences(tokens, length)})
        return Dataset(
            name=self.name,
            source=TEXT,
            location=self.location,
            num_classes=len(self.vocabulary),
            class_names=tuple(self.vocabulary),
            train=splits["train"],
            test=splits["test"],
            fingerprint=self.fingerprint,
            complete=not (train_limit or test_limit),
        )


def sequences(tokens: np.ndarray, length: int) -> np.ndarray:
    """Cuts a text into sequences that share their ends, [N, length + 1].

    Args:
        tokens: [M], numbers of characters, M > length.
        length: predicted characters of a sequence.
    """
    count = (len(tokens) - 1) // length
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)
    return np.ascontiguousarray(windows[: count * length : length])


def joined(split: Split) -> np.ndarray:
    """Returns the text of sequences that share their ends, [M], numbers of characters."""
    tokens = split.arrays[TOKEN]
    return np.concatenate([tokens[:, :-1].ravel(), tokens[-1:, -1]])


def encode(text: str, vocabulary: str, *, name: str) -> np.ndarray:
    """Converts a text to numbers of characters, uint8[M].

    Args:
        text: the text.
        vocabulary: at most 256 different characters; character i gets number i.
        name: name of the text, for messages.

    Raises:
        UserError: the text has characters outside the vocabulary, or the vocabulary is too large.
    """
    if len(vocabulary) > 256:
        raise UserError(f"the vocabulary of {name} has {len(vocabulary)} characters; expected 256")
    numbers = {character: number for number, character in enumerate(vocabulary)}
    unknown = sorted(set(text) - set(numbers))
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (" ..." if len(unknown) > 5 else "")
        raise UserError(
            f"{name} has {len(unknown)} characters outside the vocabulary of {len(vocabulary)}: "
            f"{shown}; expected a text of these characters, or the vocabulary of the corpus"
        )
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.zeros(max(map(ord, vocabulary)) + 1, np.uint8)
    table[[ord(character) for character in vocabulary]] = np.arange(len(vocabulary), dtype=np.uint8)
    return table[codes]


def read_corpus(
    name: str, *, root: str | Path | None = None, vocabulary: Vocabulary = "corpus"
) -> TextCorpus:
    """Reads a corpus.

    Args:
        name: name of a corpus, see `list_corpora`.
        root: data root; None for the default, see `folders.data_root`.
        vocabulary: "corpus" for the characters of a text in one piece, or of the training part of a
            text in several files; "ascii" for `ASCII`.

    Raises:
        UserError: the name is unknown, files are absent or damaged, or a part has characters
            outside the vocabulary.
    """
    if name not in _READERS:
        raise UserError(f"corpus {name!r} is unknown; {did_you_mean(name, _READERS)}")
    texts, location, known = _READERS[name](data_root(root))
    characters = ASCII if vocabulary == "ascii" else "".join(sorted(set(known)))
    parts = {
        part: encode(text, characters, name=f"the {part} part of {name}")
        for part, text in texts.items()
    }
    sums = hashlib.sha256(characters.encode())
    for part in PARTS:
        sums.update(f"{part} {len(parts[part])}\n".encode())
        sums.update(parts[part].tobytes())
    return TextCorpus(name, location, characters, parts, sums.hexdigest())


def list_corpora() -> tuple[str, ...]:
    """Returns the names of the corpora."""
    return tuple(_READERS)


_Texts = tuple[dict[str, str], str, str]
"""Texts by part, place, and the text whose characters are the vocabulary."""


def _divided(text: str, held_out: int, location: str) -> _Texts:
    """Divides a text in one piece; validation and test part are the last `held_out` characters."""
    first, second = len(text) - 2 * held_out, len(text) - held_out
    texts = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
    return texts, location, text


def _read_topics(root: Path) -> _Texts:
    del root
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise AbsentDataError(
            f"{EMBEDDED}: this Python comes without pydoc_data; install it (Debian: "
            "libpython3-stdlib), or read another corpus"
        ) from error
    text = "".join(topics[key] for key in sorted(topics))
    return _divided(text, int(_HELD_OUT * len(text)), "the documentation of this Python")


def _read_enwik8(root: Path) -> _Texts:
    path = _find(root, "enwik8", ("enwik8", "enwik8/enwik8"))
    # The published vocabulary is one of bytes; Latin-1 makes each byte one character.
    text = _content(path).decode("latin-1")
    if len(text) != ENWIK8_BYTES:
        raise DamagedDataError(f"{path} has {len(text):,} bytes; expected {ENWIK8_BYTES:,}")
    return _divided(text, ENWIK8_BYTES // 20, str(path))


def _read_ptb(root: Path) -> _Texts:
    texts, folder = {}, root
    for part, short in zip(PARTS, ("train", "valid", "test"), strict=True):
        names = (f"ptb.char.{short}.txt", f"ptb.{short}.txt")
        path = _find(root, "ptb", tuple(f"ptb/{name}" for name in names))
        folder = path.parent
        try:
            text = _content(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DamagedDataError(f"{path} is not UTF-8: {error}") from error
        # The form by characters separates them by spaces and writes a space as an underscore.
        if path.name.startswith("ptb.char."):
            text = text.replace(" ", "").replace("_", " ")
        texts[part] = text
    return texts, str(folder), texts["train"]


def _find(root: Path, name: str, candidates: tuple[str, ...]) -> Path:
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    raise AbsentDataError(
        f"corpus {name!r} is not in {root}; put its files there as {' or '.join(candidates)}, or "
        f"read {EMBEDDED!r}, which comes with Python"
    )


def _content(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise DamagedDataError(describe_os_error(error)) from error


_READERS: dict[str, Callable[[Path], _Texts]] = {
    EMBEDDED: _read_topics,
    "enwik8": _read_enwik8,
    "ptb": _read_ptb,
}
