"""Import, listing and check of sets with boxes: checked whole, indexed, never half."""

from __future__ import annotations

import json
import os
import shutil
import time

import numpy as np
import pytest
from boxes_on_disk import (
    coco_content,
    file_name,
    png,
    voc_object,
    write_coco,
    write_voc,
)

from adaptive_nets.data import (
    AlreadyImportedError,
    build_dataset,
    import_dataset,
    load,
    survey,
    verify,
)
from adaptive_nets.data.boxes import load_boxes
from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.runtime.errors import UserError
from experiments.__main__ import main


@pytest.fixture
def source(tmp_path):
    return write_coco(tmp_path / "source", images="deflated")


@pytest.fixture
def call(capsys):
    """Runs a command; returns code, standard output and the lines of standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def finding_of(name, findings):
    return [finding for finding in findings if finding.name == name]


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(first, second):
    assert first.class_names == second.class_names
    assert first.fingerprint == second.fingerprint
    for split, images in first.splits.items():
        for a, b in zip(images, second.splits[split], strict=True):
            assert a.file.read() == b.file.read()
            for name in ("boxes", "labels", "crowd", "area"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
                assert getattr(a, name).dtype == getattr(b, name).dtype


def test_an_import_reads_as_its_source(root, source, call):
    code, out, err = call("data", "import", "coco", source, "--data-dir", root)
    assert code == 0
    assert out == f"prepared in {root / 'boxes' / 'coco'}\n"
    said = (
        "coco: 5 val, 4 boxes (1 of them ignore regions) of 3 classes, "
        "left out 1 boxes of zero width or height"
    )
    assert said in err
    found = load_boxes("coco", root=root)
    assert (found.source, found.form) == ("import", "coco")
    shutil.copytree(source, root / "coco")
    same(found, load_boxes("coco", root=root, source="files"))
    assert found.split("val")[0].file.path == str(source / "val2017.zip")
    imported, files = verify("coco", root)
    assert (imported.state, imported.source, imported.form) == ("ok", "import", "coco")
    assert (files.state, files.source) == ("ok", "files")
    assert imported.fingerprint == files.fingerprint == found.fingerprint
    assert imported.counts == {"val": 5}
    assert imported.class_counts == {"val": (1, 2, 1)}
    assert not imported.complete
    assert "the official set has 118,287 train + 5,000 val" in imported.message
    listed = finding_of("coco", survey(root))[0]
    assert "5 val, 4 boxes of 3 classes, not read" in listed.message
    with pytest.raises(AlreadyImportedError, match="is already imported") as error:
        import_dataset("coco", source, root)
    assert str(root / "boxes" / "coco") in str(error.value)


def test_a_set_of_ones_own(root, tmp_path, call):
    write_voc(tmp_path / "cells")
    code, out, _ = call(
        "data", "import", "voc", tmp_path / "cells", "--as", "my-cells", "--data-dir", root,
        "--classes", "cell, blob",
    )  # fmt: skip
    assert code == 0
    assert out == f"prepared in {root / 'boxes' / 'my-cells'}\n"
    found = load_boxes("my-cells", root=root)
    assert found.class_names == ("cell", "blob")
    assert found.counts() == {"train": 2, "val": 1}
    (finding,) = verify("my-cells", root)
    assert (finding.state, finding.form) == ("ok", "voc")
    assert finding_of("my-cells", survey(root))[0].counts == {"train": 2, "val": 1}
    code, out, _ = call("data", "check", "my-cells", "--data-dir", root, "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert (row["name"], row["counts"]) == ("my-cells", {"train": 2, "val": 1})
    code, out, _ = call("data", "list", "--data-dir", root)
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names.index("my-cells") == names.index("cat2000") - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("coco", "PATH", "--as", "mnist"), "--as is 'mnist', which is a set of the catalogue"),
        (("coco", "PATH", "--as", "A b"), "--as is 'A b'; expected a name of lower-case letters"),
        (("coca", "PATH", "--as", "own"), "NAME is 'coca' with --as own; expected the layout"),
        (("coca", "PATH"), "'coca' is unknown; did you mean 'coco'?"),
        (("voc", "PATH"), "has no annotations; expected Annotations/*.xml"),
        (("bccd", "PATH"), "has no annotations; expected Annotations/*.xml"),
        (("coco", "PATH", "--classes", "cat,dog"), "has the category 'brush'; expected the cl"),
        (("coco", "PATH", "--classes", "cat,cat"), "--classes has the class 'cat' twice"),
        (("coco", "PATH/none"), "none does not exist"),
        (("mnist", "PATH", "--skip-bad"), "--skip-bad is True; expected it for a set with boxes"),
        (("mnist", "PATH", "--classes", "a"), "--classes is 'a'; expected it for a set with box"),
    ],
)
def test_flags_that_are_wrong(root, source, call, arguments, message):
    arguments = [str(argument).replace("PATH", str(source)) for argument in arguments]
    code, out, err = call("data", "import", *arguments, "--data-dir", root)
    assert (code, out) == (2, "")
    assert message in err[-1]
    assert files_below(root) == []


def bad_box(content):
    content["annotations"][0]["bbox"] = [55, 0, 10, 10]


def bad_area(content):
    content["annotations"][0]["bbox"] = [5, 0, -1, 10]


def bad_image(content):
    content["annotations"][0]["image_id"] = 8


def bad_class(content):
    content["annotations"][0]["category_id"] = 4


@pytest.mark.parametrize("change", [bad_box, bad_area, bad_image, bad_class])
def test_one_fault_is_one_line(root, tmp_path, call, change):
    content = coco_content()
    change(content)
    write_coco(tmp_path / "bad", content)
    code, out, err = call("data", "import", "coco", tmp_path / "bad", "--data-dir", root)
    assert (code, out) == (2, "")
    (line,) = [line for line in err if "annotation 0 (id 100)" in line]
    assert str(tmp_path / "bad" / "annotations" / "instances_val2017.json") in line
    assert line.endswith("correct it, or leave out what is wrong with --skip-bad")
    assert files_below(root) == []
    code, _, err = call(
        "data", "import", "coco", tmp_path / "bad", "--data-dir", root, "--skip-bad"
    )
    assert code == 0
    assert any("left out 1 boxes of zero width or height, left out 1 wrong ann" in e for e in err)
    assert load_boxes("coco", root=root).num_boxes() == 3
    assert "1 wrong annotations" in verify("coco", root)[0].message


def test_every_fault_has_a_line(root, tmp_path, call):
    write_voc(
        tmp_path / "bad",
        {
            7: voc_object("cell", (1, 1, 99, 9)) + voc_object("cell", (5, 1, 3, 9)),
            9: voc_object("blob", (1, 1, 2, 2)),
            12: voc_object("cell", (1, 1, 2, 2)),
        },
    )
    (tmp_path / "bad" / "JPEGImages" / "009.png").unlink()
    (tmp_path / "bad" / "JPEGImages" / "012.png").write_bytes(b"no image")
    code, _, err = call("data", "import", "voc", tmp_path / "bad", "--data-dir", root)
    assert code == 2
    for text in (
        "007.xml: object 1 ('cell'): the box xmin 1, ymin 1, xmax 99, ymax 9 is outside",
        "007.xml: object 2 ('cell'): the box xmin 5, ymin 1, xmax 3, ymax 9 has a negative area",
        "009.xml is the annotation of 009, which has no image in",
        "012.png cannot be read as an image",
    ):
        assert sum(text in line for line in err[:-1]) == 1, text
    assert "(and 3 more); correct it" in err[-1]
    assert files_below(root) == []
    code, _, err = call("data", "import", "voc", tmp_path / "bad", "--data-dir", root, "--skip-bad")
    assert code == 0
    assert load_boxes("voc", root=root).counts() == {"train": 1, "val": 0}


def test_official_files_that_are_damaged(root, call):
    write_coco(root / "coco")
    path = root / "coco" / "val2017" / file_name(9)
    path.write_bytes(b"no image")
    (finding,) = verify("coco", root)
    assert finding.state == "damaged"
    assert f"{path} cannot be read as an image" in finding.message
    code, _, err = call("data", "check", "coco", "--data-dir", root)
    assert code == 2
    assert str(path) in err[-1]
    (root / "coco" / "annotations" / "instances_val2017.json").write_text("{")
    assert verify("coco", root)[0].state == "damaged"
    assert finding_of("coco", survey(root))[0].state == "ok"  # Nothing was read.


def test_an_import_that_has_changed_since(root, tmp_path):
    source = write_coco(tmp_path / "source")
    import_dataset("coco", source, root)
    path = source / "val2017" / file_name(9)
    content = path.read_bytes()
    path.write_bytes(content[:-5] + b"12345")
    (finding,) = verify("coco", root)
    assert finding.state == "damaged"
    assert f"{path}: sha256 is" in finding.message
    path.unlink()
    assert "is missing; put it back" in verify("coco", root)[0].message
    # An import whose images are gone is replaced.
    path.write_bytes(content)
    moved = tmp_path / "moved"
    os.rename(source, moved)
    assert import_dataset("coco", moved, root) == root / "boxes" / "coco"
    assert verify("coco", root)[0].state == "ok"
    assert os.listdir(root / "boxes") == ["coco"]


def test_an_index_that_is_damaged(root, source):
    import_dataset("coco", source, root)
    folder = root / "boxes" / "coco"
    whole = {path: path.read_bytes() for path in files_below(folder)}
    info, split = folder / "info.json", folder / "split-val.json"
    for path, content, message in (
        (info, b"{", "damaged index of coco"),
        (info, whole[info].replace(b'"format": 1', b'"format": 9'), "the format 9, expected 1"),
        (info, whole[info].replace(b'"val": 5', b'"val": 6'), "5 images, expected 6"),
        (split, b"[]", "damaged index of coco"),
        (split, whole[split].replace(b"10.5", b"11.5"), "another checksum"),
        (split, whole[split].replace(b"[4.0,", b"["), "damaged"),
    ):
        assert content != whole[path]
        path.write_bytes(content)
        with pytest.raises(DamagedDataError, match=message) as error:
            load_boxes("coco", root=root)
        assert "delete" in str(error.value)
        assert "\n" not in str(error.value)
        assert verify("coco", root)[0].state == "damaged"
        path.write_bytes(whole[path])
    split.unlink()
    with pytest.raises(DamagedDataError, match=r"split-val\.json is missing"):
        load_boxes("coco", root=root)
    # What is damaged may be imported again.
    import_dataset("coco", source, root)
    assert load_boxes("coco", root=root).counts() == {"val": 5}


def test_a_data_root_may_be_moved_with_its_images(root, tmp_path):
    write_coco(root / "pictures")
    import_dataset("coco", root / "pictures", root)
    os.rename(root, tmp_path / "new root")
    assert load_boxes("coco", root=tmp_path / "new root").split("val")[0].file.read() == png(7)


def test_interruption_leaves_nothing(root, source):
    def interrupt(what, done, total):
        if what == "checking the images":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_dataset("coco", source, root, progress=interrupt)
    assert files_below(root) == []


def test_remains_of_killed_imports_are_swept_up(root, source, complains):
    remains = [root / "boxes" / f".importing-coco-{age}" for age in ("old", "new")]
    for folder in remains:
        folder.mkdir(parents=True)
    os.utime(remains[0], (time.time() - 48 * 3600,) * 2)
    complains(lambda: load_boxes("coco", root=root), "nothing found")
    import_dataset("coco", source, root)
    assert [folder.exists() for folder in remains] == [False, True]
    assert [f.name for f in survey(root) if f.source == "import"] == ["coco"]


def test_a_root_that_cannot_be_written(root, source, complains):
    (root / "boxes").write_text("a file")
    complains(lambda: import_dataset("coco", source, root), "coco cannot be written to", root)


def test_sets_with_boxes_are_no_sets_of_labels(root, source):
    import_dataset("coco", source, root)
    with pytest.raises(UserError, match="has boxes instead of one label per image"):
        load("coco", root=root)
    with pytest.raises(UserError, match="is not built but imported; run `adaptive-nets data imp"):
        build_dataset("coco", source, root)


@pytest.mark.data("bccd", "coco128")
def test_check_finds_the_real_sets(official_root, root):
    for name, splits, boxes in (
        ("bccd", {"train": 205, "val": 87, "test": 72}, 4888),
        ("coco128", {"train": 128}, 929),
    ):
        (finding,) = finding_of(name, verify(name, official_root(name)))
        assert (finding.state, finding.complete, finding.source) == ("ok", True, "files")
        assert finding.counts == splits
        assert sum(map(sum, finding.class_counts.values())) == boxes
        assert f"{boxes:,} boxes" in finding.message
    folder = official_root("coco128") / "coco128_small"
    import_dataset("coco", folder, root, known_as="little")
    assert load_boxes("little", root=root).num_boxes() == 929
