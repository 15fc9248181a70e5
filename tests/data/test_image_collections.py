"""Collections of photographs as people have them: nothing is dropped or mislabelled in silence."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections import Counter

import numpy as np
import pytest
from photographs import CLASSES, photograph
from PIL import Image

from adaptive_nets.data import build_dataset, load
from adaptive_nets.data.catalogue import lookup
from adaptive_nets.data.image_collections import find_parts
from adaptive_nets.data.image_locations import ImageFile
from adaptive_nets.data.image_records import _as_jpeg, build
from adaptive_nets.runtime.errors import UserError

IMAGE = photograph(1)


def silent(what, done, total):
    """Progress that nobody looks at."""


def lay_out(folder, *names, content=IMAGE):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def built(folder, tmp_path, **options):
    remarks: list[str] = []
    build_dataset("imagenet", folder, tmp_path / "root", remark=remarks.append, **options)
    return load("imagenet", root=tmp_path / "root", splits=("train",)), remarks


def shown(parts):
    return {part: [(i.class_name, i.name) for i in images] for part, images in parts.items()}


def test_names_that_begin_with_a_dot_are_passed_over_at_every_level(tmp_path):
    plain = ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg")
    hidden = ("train/.ipynb_checkpoints/1.jpg", ".trash/a/1.jpg", "train/cat/.1.jpg",
              "train/cat/.thumbnails/1.jpg", "val/.DS_Store", "train/.a/deep/1.jpg")  # fmt: skip
    folder = lay_out(tmp_path / "in", *plain, *hidden)
    data, remarks = built(folder, tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.count("train") == 2
    assert "5 hidden files and folders" in remarks[-1]


def test_images_in_folders_below_a_class_belong_to_it(tmp_path):
    """As in Tiny ImageNet."""
    folder = lay_out(tmp_path / "in", "train/cat/images/1.jpg", "train/dog/images/b/1.jpg")
    (folder / "train/cat/loop").symlink_to(folder / "train/cat")
    skipped = Counter()
    found = shown(find_parts(folder, silent, skipped))
    assert found == {"train": [("cat", "images/1.jpg"), ("dog", "images/b/1.jpg")]}
    assert skipped["links to folders"] == 1


def test_every_kind_of_image_is_read_and_others_are_counted(tmp_path):
    folder = tmp_path / "in"
    for suffix in ("bmp", "gif", "png", "ppm", "tif", "tiff", "webp", "jfif", "JPG"):
        path = lay_out(folder, f"train/cat/1.{suffix}") / f"train/cat/1.{suffix}"
        image = Image.open(io.BytesIO(IMAGE))
        image.save(path, {"jfif": "JPEG", "JPG": "JPEG"}.get(suffix))
    lay_out(folder, "train/dog/1.jpg", "train/dog/notes.txt", "train/dog/raw.CR2", "train/dog/x")
    lay_out(folder, "train/readme.txt")
    data, remarks = built(folder, tmp_path)
    assert data.count("train") == 10
    assert "1 files ending in .cr2, 2 files ending in .txt, 1 files of no ending" in remarks[-1]


def test_a_class_without_images_does_not_shift_the_labels(tmp_path, complains):
    folder = lay_out(tmp_path / "in", "train/ant/1.heic", "train/cat/1.jpg")
    complains(lambda: built(folder, tmp_path), "1 class folders", folder, "have no", ".webp")
    # The labels of official classes do not depend on which have images.
    official = lay_out(
        tmp_path / "official", f"train/{CLASSES[0]}/1.txt", f"train/{CLASSES[1]}/1.jpg"
    )
    data, remarks = built(official, tmp_path)
    assert data.num_classes == 1000
    assert "1 of 1000 classes have images" in remarks[0]
    assert "1 class folders without images" in remarks[1]


def test_classes_are_the_official_ones_or_others_but_not_both(tmp_path, complains):
    folder = lay_out(tmp_path / "in", *(f"train/{name}/1.jpg" for name in (*CLASSES, "extra")))
    complains(lambda: built(folder, tmp_path), "1 of 4 classes are not among the 1000", "'extra'")
    folder = lay_out(tmp_path / "own", "train/cat/1.jpg", "train/dog/1.jpg", "val/eel/1.jpg")
    complains(lambda: built(folder, tmp_path), "'eel' is in the part validation only")
    assert not (tmp_path / "root" / "tfds").exists()


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x07", "a\u2028b", " a", "a ", "a\r"])
def test_a_class_is_one_line(tmp_path, complains, name):
    folder = lay_out(tmp_path / "in", f"train/{name}/1.jpg", "train/cat/1.jpg")
    complains(lambda: built(folder, tmp_path), repr(name), "printable")


def test_names_that_are_not_utf8(tmp_path, complains):
    folder = lay_out(tmp_path / "in", "train/cat/1.jpg")
    name = os.fsdecode(b"caf\xe9.jpg")
    lay_out(folder, f"train/cat/{name}")
    data, _ = built(folder, tmp_path)
    assert data.count("train") == 2
    lay_out(folder, f"train/{os.fsdecode(b'ca' + bytes([0xFF]))}/1.jpg")
    message = complains(
        lambda: build_dataset("imagenet", folder, tmp_path / "other"), "'ca\\udcff'", "UTF-8"
    )
    message.encode()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_cut_off_image_is_named_when_the_set_is_built(tmp_path, complains, kind, share):
    content = photograph(1, kind=kind)
    folder = lay_out(tmp_path / "in", "train/cat/1.jpg")
    lay_out(folder, "train/cat/torn.png", content=content[: int(len(content) * share)])
    complains(lambda: built(folder, tmp_path), folder / "train/cat/torn.png", "damaged image")


def test_grey_of_sixteen_bits_is_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 120 * 160).reshape(120, 160).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        path = tmp_path / name
        Image.fromarray(ramp).save(path)
        image = ImageFile(path, 0, path.stat().st_size, name, "cat")
        stored = np.asarray(Image.open(io.BytesIO(_as_jpeg(image))))
        np.testing.assert_allclose(stored[..., 1], ramp / 257, atol=4)


@pytest.mark.parametrize("kind", ["FIFO", "device", "dangling link"])
def test_images_that_are_no_files(tmp_path, complains, kind):
    folder = lay_out(tmp_path / "in", "train/cat/1.jpg")
    path = folder / "train/cat/2.jpg"
    if kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/nowhere")
    complains(lambda: built(folder, tmp_path), path, "expected")


LABELS = "1.jpg n01440764\n2.jpg n01443537\n"


@pytest.mark.parametrize(
    "text",
    [
        LABELS,
        "\n\n" + LABELS,
        " \n" + LABELS,
        "\ufeff" + LABELS,
        LABELS.replace("\n", "\r\n"),
        LABELS.replace("\n", "\r"),
        LABELS.replace(" ", "\t"),
        LABELS.replace(" ", ","),
        "filename,label\n" + LABELS.replace(" ", ","),
        "\ufefffilename,wordnet_id\r\n\r\n" + LABELS.replace(" ", ",").replace("\n", "\r\n"),
    ],
)
def test_files_of_labels(tmp_path, text):
    folder = lay_out(tmp_path / "in", "train/1.jpg", "train/2.jpg")
    (folder / "train" / "val_labels.txt").write_bytes(text.encode())
    found = shown(find_parts(folder, silent))
    assert found == {"train": [("n01440764", "1.jpg"), ("n01443537", "2.jpg")]}


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", ["lacks the class of 1.jpg"]),
        (b"\n\n", ["lacks the class of 1.jpg"]),
        (b"\xff\xfe1\0.\0", ["is not UTF-8 at byte 0"]),
        ("1.jpg Männer".encode("latin-1"), ["is not UTF-8 at byte 7"]),
        (b"1.jpg a\n2.jpg\n", ["lacks the class of 2.jpg"]),
        (b"1.jpg a\n2.jpg b\n1.jpg c\n", ["gives 1.jpg the classes a and c"]),
        (b'1.jpg,a\n2.jpg,"\x01"\n', ["'\\x01'", "printable"]),
        (b"1.jpg," + b"x" * 200_000, ["damaged", "field larger"]),
    ],
)
def test_damaged_files_of_labels(tmp_path, complains, content, texts):
    folder = lay_out(tmp_path / "in", "train/1.jpg", "train/2.jpg")
    path = folder / "train" / "val_labels.txt"
    path.write_bytes(content)
    complains(lambda: find_parts(folder, silent), path, *texts)
    path.unlink()
    os.mkfifo(path)
    complains(lambda: find_parts(folder, silent), path, "FIFO")


def pack(*members):
    """A tar archive of (name, content or a change of the member)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                content(member)
                tar.addfile(member)
    return file.getvalue()


def linked(kind):
    def change(member):
        member.type, member.linkname = kind, "/etc/passwd"

    return change


INNER = pack(("a.JPEG", IMAGE), ("b.JPEG", IMAGE))
SECOND = pack(("c.JPEG", IMAGE))
ARCHIVE = pack((f"{CLASSES[0]}.tar", INNER), (f"{CLASSES[1]}.tar", SECOND))


def archived(tmp_path, content):
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(content)
    return tmp_path


def test_archives_hide_and_link(tmp_path):
    skipped = Counter()
    inner = pack(("a.JPEG", IMAGE), ("._a.JPEG", b""), ("./.git/b.JPEG", b""), ("./c.JPEG", IMAGE),
                 ("l.JPEG", linked(tarfile.SYMTYPE)), ("h.JPEG", linked(tarfile.LNKTYPE)),
                 ("f.JPEG", linked(tarfile.FIFOTYPE)), ("n.txt", b"x"))  # fmt: skip
    folder = archived(tmp_path, pack((f"{CLASSES[0]}.tar", inner), (".x.tar", inner)))
    found = find_parts(folder, silent, skipped)
    assert [image.name for image in found["train"]] == ["a.JPEG", "c.JPEG"]
    assert found["train"][1].read() == IMAGE
    assert skipped == {"hidden files and folders": 3, "links in archives": 2,
                       "special files": 1, "files ending in .txt": 1}  # fmt: skip


def with_size(content, size, at=0):
    """Sets the size of the member whose header is at a byte, and the header's checksum."""
    header = bytearray(content[at : at + 512])
    if size < 0:
        header[124:136] = b"\xff" * 4 + struct.pack(">q", size)
    else:
        header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + 512 :]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (with_size(ARCHIVE, -512), ["the size -512"]),
        (with_size(ARCHIVE, -(2**40)), ["the size -"]),
        (with_size(ARCHIVE, 2**32), ["cut off in the member"]),
        (with_size(ARCHIVE, -512, at=512), [f"{CLASSES[0]}.tar", "the size -512"]),
        (with_size(ARCHIVE, 10**6, at=512), [CLASSES[0], "cut off in the member 'a.JPEG'"]),
        (ARCHIVE[: len(INNER)], ["cut off"]),
        (ARCHIVE[: 512 + len(INNER)], ["neither a member nor its end"]),
        (ARCHIVE[:512] + INNER + b"\x01" * 512 + bytes(1024), ["neither a member nor its end"]),
        (b"", ["empty file"]),
        (b"no archive" * 100, ["damaged archive"]),
        (pack(("../x.JPEG", IMAGE)), ["leads out of the archive"]),
        (pack(("/etc/x.JPEG", IMAGE)), ["leads out of the archive"]),
        (pack(("a/../../x.JPEG", IMAGE)), ["leads out of the archive"]),
        (pack(("a\nb.tar", INNER)), ["'a\\nb'", "printable"]),
        (pack(("a\nb/x.JPEG", IMAGE)), ["'a\\nb'", "printable"]),
        (with_size(pack(("x" * 200, b"")), -512), ["header"]),
        (with_size(pack(("x" * 200, b"")), 2**32), ["header"]),
    ],
)  # fmt: skip
def test_damaged_archives(tmp_path, complains, content, texts):
    folder = archived(tmp_path, content)
    complains(lambda: find_parts(folder, silent), "ILSVRC2012_img_train.tar", *texts)


def test_every_truncation_of_an_archive_is_noticed(tmp_path):
    end = 2 * 512 + len(INNER) + len(SECOND)
    for length in range(0, end + 512, 128):
        with pytest.raises(UserError, match=r"train\.tar"):
            find_parts(archived(tmp_path, ARCHIVE[:length]), silent)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"sha256": 3}'])
def test_a_damaged_plan_begins_the_build_again(tmp_path, content):
    folder = lay_out(tmp_path / "in", "train/cat/1.jpg", "train/dog/1.jpg")
    work = tmp_path / "root" / "tfds" / ".building-imagenet2012"
    work.mkdir(parents=True)
    (work / "plan.json").write_bytes(content)
    assert built(folder, tmp_path)[0].count("train") == 2


def test_a_list_of_classes_of_another_length_is_noticed(tmp_path, complains):
    folder = lay_out(tmp_path / "in", "train/cat/1.jpg", "train/dog/1.jpg")
    target = build(lookup("imagenet"), folder, tmp_path / "root")
    path = target / "label.labels.txt"
    for content, text in ((b"cat\nd\nog\n", "3 classes, expected 2"), (b"\xff", "not UTF-8")):
        path.write_bytes(content)
        complains(lambda: load("imagenet", root=tmp_path / "root", splits=("train",)), path, text)
