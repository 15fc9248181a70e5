"""Sets of fixations in the published layouts, as folders and as zip archives, and their defects."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io

from adaptive_nets.data.check import survey, verify
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError, PartialDataError
from adaptive_nets.data.fixations import FIXATION_SETS, load_fixations, read_fixations
from adaptive_nets.data.pictures import decode_picture
from adaptive_nets.saliency import auc_judd, centre_baseline, fixations_from_density

ROOT = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent"))
SMALL = ROOT / "mit1003_small"
HEIGHT, WIDTH = 20, 30


def encoded(pixels, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def matrix(values, name="fixLocs") -> bytes:
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {name: values}, do_compression=True)
    return buffer.getvalue()


def photograph(rng) -> bytes:
    return encoded(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), "JPEG")


def points(rng, count=6):
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found.ravel()[rng.choice(found.size, count, replace=False)] = 1
    return found


def cat2000(rng) -> dict[str, bytes]:
    """Two categories of three pictures, with the files that accompany the published ones."""
    files = {"trainSet/readme.txt": b"", "testSet/Stimuli/Action/009.jpg": photograph(rng)}
    for category in ("Action", "Art"):
        for i in range(1, 4):
            name = f"{category}/{i:03}"
            files[f"trainSet/Stimuli/{name}.jpg"] = photograph(rng)
            files[f"trainSet/Stimuli/{category}/Output/{i:03}_SaliencyMap.jpg"] = photograph(rng)
            files[f"trainSet/FIXATIONLOCS/{name}.mat"] = matrix(points(rng))
            files[f"trainSet/FIXATIONMAPS/{name}.jpg"] = encoded(255 * points(rng), "JPEG")
    return files


def mit1003(rng) -> dict[str, bytes]:
    files = {}
    for i in range(3):
        files[f"ALLSTIMULI/i{i}.jpeg"] = photograph(rng)
        fixated = 255 * points(rng)
        files[f"ALLFIXATIONMAPS/i{i}_fixPts.jpg"] = encoded(fixated, "JPEG", quality=75)
        files[f"ALLFIXATIONMAPS/i{i}_fixMap.jpg"] = encoded(fixated, "JPEG")
    return files


def small(rng) -> dict[str, bytes]:
    files = {"sizes.csv": b"file,width\n"}
    for i in range(3):
        files[f"images/i{i}.jpg"] = photograph(rng)
        files[f"fixation_maps/i{i}.jpg"] = encoded(40 * points(rng), "JPEG")
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def same(first, second) -> None:
    assert [p.name for p in first.pictures] == [p.name for p in second.pictures]
    assert first.fingerprint() == second.fingerprint()
    for i in range(first.size):
        a, b = first.read(i), second.read(i)
        np.testing.assert_array_equal(a.image, b.image)
        for x, y in ((a.points, b.points), (a.density, b.density)):
            assert (x is None) == (y is None)
            if x is not None:
                np.testing.assert_array_equal(x, y)


def test_cat2000_in_folders_and_archives(rng, tmp_path):
    files = cat2000(rng)
    found = load_fixations("cat2000", root=write_folder(tmp_path / "a", files))
    assert [p.name for p in found.pictures] == [
        f"{category}/{i:03}" for category in ("Action", "Art") for i in range(1, 4)
    ]
    assert (found.name, found.size, found.complete) == ("cat2000", 6, False)
    assert found.categories == ("Action",) * 3 + ("Art",) * 3
    example = found.read(4)
    assert example.name == "Art/002"
    stored = scipy_io.loadmat(io.BytesIO(files["trainSet/FIXATIONLOCS/Art/002.mat"]))["fixLocs"]
    assert example.points is not None
    np.testing.assert_array_equal(example.points, stored == 1)
    with Image.open(io.BytesIO(files["trainSet/Stimuli/Art/002.jpg"])) as image:
        np.testing.assert_array_equal(example.image, np.asarray(image))
    assert example.density is not None
    assert example.density.dtype == np.float32
    write_zip(tmp_path / "b" / "trainSet.zip", files)
    same(found, load_fixations("cat2000", root=tmp_path / "b"))
    write_zip(tmp_path / "c" / "cat2000" / "trainSet.zip", files, zipfile.ZIP_STORED)
    same(found, load_fixations("cat2000", root=tmp_path / "c"))


def test_limits_take_equally_many_of_each_category(rng, tmp_path):
    found = read_fixations(write_zip(tmp_path / "x.zip", cat2000(rng)))
    assert [p.name for p in found.first(3).pictures] == ["Action/001", "Action/002", "Art/001"]
    assert found.first(3).size == 3
    assert found.first(99) is found
    assert found.first(3).fingerprint() != found.fingerprint()


def test_mit1003_in_folders_and_archives(rng, tmp_path):
    files = mit1003(rng)
    found = load_fixations("mit1003", root=write_folder(tmp_path / "a", files))
    for i in range(3):
        example = found.read(i)
        pixels = files[f"ALLFIXATIONMAPS/i{i}_fixPts.jpg"]
        with Image.open(io.BytesIO(pixels)) as image:
            expected = np.asarray(image) > 127
        assert example.points is not None
        assert example.points.sum() == 6
        np.testing.assert_array_equal(example.points, expected)
        assert example.density is not None
    same(found, read_fixations(tmp_path / "a"))
    parts = {
        "ALLSTIMULI.zip": {n: c for n, c in files.items() if n.startswith("ALLS")},
        "ALLFIXATIONMAPS.zip": {n: c for n, c in files.items() if n.startswith("ALLF")},
    }
    for name, content in parts.items():
        write_zip(tmp_path / "b" / name, content | {"__MACOSX/._x.jpg": b"", ".hidden": b""})
    same(found, load_fixations("mit1003", root=tmp_path / "b"))
    same(found, read_fixations(tmp_path / "b"))


def test_blurred_maps_alone(rng, tmp_path):
    files = small(rng)
    found = load_fixations("mit1003", root=write_folder(tmp_path / "mit1003_small", files).parent)
    example = found.read(1)
    assert example.points is None
    assert example.density is not None
    assert 0 < example.density.max() <= 60
    same(found, read_fixations(write_zip(tmp_path / "z.zip", files)))


def test_pictures_at_their_own_size(rng, complains):
    pixels = rng.integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(decode_picture(encoded(pixels), "a.png"), pixels)
    grey = decode_picture(encoded(pixels[..., 0]), "a.png", mode="L")
    np.testing.assert_array_equal(grey[..., 0], pixels[..., 0])
    exif = Image.Exif()
    exif[0x112] = 6  # Turned by a quarter.
    turned = encoded(pixels, exif=exif)
    assert decode_picture(turned, "a.png").shape == (5, 7, 3)
    assert decode_picture(turned, "a.png", upright=True).shape == (7, 5, 3)
    complains(lambda: decode_picture(b"text", "a.png"), "a.png cannot be read as an image")
    complains(lambda: decode_picture(encoded(pixels)[:60], "a.png"), "a.png cannot be read")


def broken(files: dict[str, bytes], name: str, content: bytes | None) -> dict[str, bytes]:
    kept = {key: value for key, value in files.items() if key != name}
    return kept if content is None else {**kept, name: content}


WIDE = np.ones((HEIGHT, WIDTH + 1), np.uint8)
DEFECTS = {
    "map of another size": (
        cat2000, "trainSet/FIXATIONLOCS/Action/001.mat", matrix(WIDE),
        "001.mat|has 31x20 pixels; expected 30x20, the size of",
    ),
    "blurred map of another size": (
        small, "fixation_maps/i0.jpg", encoded(255 * WIDE), "i0.jpg|has 31x20 pixels",
    ),
    "no fixations": (
        cat2000, "trainSet/FIXATIONLOCS/Action/001.mat", matrix(0 * WIDE[:, 1:]),
        "001.mat|has no fixations",
    ),
    "black points": (
        mit1003, "ALLFIXATIONMAPS/i0_fixPts.jpg", encoded(0 * WIDE[:, :-1]), "has no fixations",
    ),
    "black map": (
        small, "fixation_maps/i0.jpg", encoded(0 * WIDE[:, :-1]), "i0.jpg|has no fixations",
    ),
    "no image": (small, "images/i0.jpg", b"text", "i0.jpg|cannot be read as an image"),
    "no matrix": (
        cat2000, "trainSet/FIXATIONLOCS/Action/001.mat", b"text", "cannot be read as a MATLAB file",
    ),
    "no such variable": (
        cat2000, "trainSet/FIXATIONLOCS/Action/001.mat",
        matrix({"a": 1, "b": 2}, "struct"), "has no matrix fixLocs (matrices: none)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("case", DEFECTS)
def test_defects_of_a_picture_are_one_line(rng, tmp_path, complains, case, packed):
    layout, name, content, message = DEFECTS[case]
    files = broken(layout(rng), name, content)
    place = tmp_path / ("set.zip" if packed else "set")
    found = read_fixations((write_zip if packed else write_folder)(place, files))
    with pytest.raises(DamagedDataError):
        found.read(0)
    complains(lambda: found.read(0), *message.split("|"), place)


def test_pictures_and_fixations_belong_together(rng, tmp_path, complains):
    cases = {
        "trainSet/FIXATIONLOCS/Art/002.mat": "Art/002.jpg has no fixations; expected FIXATIONLOCS",
        "trainSet/Stimuli/Art/002.jpg": "has no picture Art/002; expected one of each",
    }
    for i, (name, message) in enumerate(cases.items()):
        folder = write_folder(tmp_path / str(i), broken(cat2000(rng), name, None))
        with pytest.raises(PartialDataError):
            read_fixations(folder)
        complains(lambda f=folder: read_fixations(f), message)
    without = broken(small(rng), "fixation_maps/i1.jpg", None)
    complains(
        lambda: read_fixations(write_folder(tmp_path / "s", without)), "i1.jpg has no fixations"
    )


def test_absent_and_unknown_sets(rng, tmp_path, complains):
    complains(lambda: load_fixations("cat200", root=tmp_path), "did you mean 'cat2000'")
    with pytest.raises(AbsentDataError):
        load_fixations("cat2000", root=tmp_path)
    complains(
        lambda: load_fixations("cat2000", root=tmp_path), tmp_path, "Stimuli with FIXATIONLOCS"
    )
    complains(lambda: read_fixations(tmp_path / "none"), "none does not exist")
    complains(lambda: read_fixations(tmp_path), "no set of fixations; expected folders Stimuli")
    write_folder(tmp_path / "cat2000", mit1003(rng))
    complains(lambda: load_fixations("cat2000", root=tmp_path), "is no set of fixations")
    (tmp_path / "text.zip").write_text("no archive")
    complains(lambda: read_fixations(tmp_path / "text.zip"), "cannot be read as a zip archive")


def test_a_damaged_member_names_itself(rng, tmp_path, complains):
    path = write_zip(tmp_path / "set.zip", small(rng), zipfile.ZIP_STORED)
    found = read_fixations(path)
    content = bytearray(path.read_bytes())
    member = found.pictures[0].image
    start = member.offset + 60 + len(member.name)
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    complains(lambda: found.read(0), f"images/i0.jpg in {path}: damaged archive", "checksum")
    path.write_bytes(content[:100])
    complains(lambda: found.read(1), "damaged archive")
    path.unlink()
    complains(lambda: found.read(1), "set.zip")


@pytest.mark.data
@pytest.mark.skipif(not SMALL.is_dir(), reason="no mit1003_small in $ADAPTIVE_NETS_DATA")
def test_a_hundred_real_photographs():
    found = load_fixations("mit1003", root=ROOT)
    assert (found.size, found.complete) == (100, False)
    example = found.read(17)
    assert max(example.image.shape) == 384
    assert example.density is not None
    assert example.density.shape == example.image.shape[:2]
    assert example.density.max() == 255


@pytest.mark.data
@pytest.mark.skipif(not SMALL.is_dir(), reason="no mit1003_small in $ADAPTIVE_NETS_DATA")
def test_drawn_fixations_are_near_real_ones():
    """One photograph has both: AUC-Judd of drawn fixations is that of the real ones."""
    rows = (SMALL / "points" / "i210_fixations.csv").read_text().split()[1:]
    with Image.open(SMALL / "points" / "i210_fixation_map.jpg") as image:
        density = np.asarray(image.convert("L"))
    fixated = np.zeros(density.shape, bool)
    for x, y in (map(int, row.split(",")) for row in rows):
        fixated[y, x] = True
    assert fixated.sum() == 259
    columns = np.broadcast_to(np.arange(density.shape[1]), density.shape)
    for saliency in (centre_baseline(density.shape), columns, -columns):
        drawn = [
            auc_judd(saliency, fixations_from_density(density, count=259, seed=i)) for i in range(3)
        ]
        assert np.mean(drawn) == pytest.approx(auc_judd(saliency, fixated), abs=0.02)


def test_a_data_root_tells_of_its_sets(tmp_path, rng, complains):
    def states(findings):
        return {f.name: f.state for f in findings if f.name in FIXATION_SETS}

    assert states(survey(tmp_path)) == {"cat2000": "absent", "mit1003": "absent"}
    write_zip(tmp_path / "cat2000.zip", cat2000(rng))
    folder = write_folder(tmp_path / "mit1003", small(rng))
    assert states(survey(tmp_path)) == {"cat2000": "ok", "mit1003": "ok"}
    (whole,) = verify("cat2000", tmp_path)
    assert whole.counts == {"pictures": 6}
    assert not whole.complete
    assert whole.fingerprint == load_fixations("cat2000", root=tmp_path).fingerprint()
    assert "single fixations of 6" in whole.message
    (folder / "images" / "i1.jpg").write_bytes(b"no image")
    assert [f.state for f in verify("mit1003", tmp_path)] == ["damaged"]
    assert states(verify(None, tmp_path)) == {"cat2000": "ok", "mit1003": "damaged"}
    complains(lambda: verify("mit103", tmp_path), "'mit103'", "'mit1003'")
