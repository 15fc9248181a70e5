"""Annotations in COCO's and Pascal VOC's layouts: every number where it belongs, faults named."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
from boxes_on_disk import (
    SIZES,
    coco_content,
    file_name,
    pixels_of,
    png,
    voc_object,
    voc_xml,
    write_coco,
    write_voc,
)
from PIL import Image

from adaptive_nets.data import import_dataset
from adaptive_nets.data.boxes import BadAnnotationsError, ground_truth, load_boxes
from adaptive_nets.data.boxes.coco import find_coco, read_coco
from adaptive_nets.data.boxes.locations import ImageLocation, ZipStore, decode_image
from adaptive_nets.data.boxes.voc import find_voc, read_voc
from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.runtime.errors import UserError


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def coco_problems(root, content):
    write_coco(root, content)
    parsed = read_coco(find_coco(root))
    assert all("\n" not in line for line in parsed.problems)
    assert all(str(root / "annotations/instances_val2017.json") in line for line in parsed.problems)
    return parsed


@pytest.mark.parametrize("images", ["folder", "stored", "deflated"])
def test_coco_from_a_folder_and_from_archives(root, images):
    write_coco(root / "coco", images=images)
    found = load_boxes("coco", root=root)
    assert (found.name, found.source, found.form) == ("coco", "files", "coco")
    # Sparse category ids become labels in the order of the ids.
    assert found.class_names == ("person", "cat", "brush")
    assert found.counts() == {"val": 5}
    assert found.left_out == {"boxes of zero width or height": 1}
    images_by_id = {image.number: image for image in found.split("val")}
    assert list(images_by_id) == list(SIZES)
    first = images_by_id[7]
    assert (first.height, first.width) == SIZES[7]
    np.testing.assert_array_equal(first.boxes, [[4, 10.5, 34.25, 30.5], [0, 0, 40, 60]])
    np.testing.assert_array_equal(first.labels, [0, 2])
    np.testing.assert_allclose(first.area, [0.5 * 20 * 30.25, 0.5 * 60 * 40.01])
    assert first.boxes.dtype == np.float32
    assert images_by_id[9].crowd.tolist() == [True]
    assert not images_by_id[9].has_objects  # A crowd alone is nothing to learn from.
    assert images_by_id[15].boxes.shape == (0, 4)
    for number, image in images_by_id.items():
        assert image.file.read() == png(number)
        height, width = SIZES[number]
        pixels = decode_image(image.file.read(), "x", height=height, width=width)
        np.testing.assert_array_equal(pixels, pixels_of(number))
    assert found.class_counts("val") == (1, 2, 1)


def test_the_fingerprint_is_of_the_content(root, tmp_path):
    write_coco(root / "coco")
    write_coco(tmp_path / "b" / "coco", images="deflated")
    content = coco_content()
    content["annotations"][0]["iscrowd"] = 1
    write_coco(tmp_path / "c" / "coco", content)
    sums = [load_boxes("coco", root=r).fingerprint for r in (root, tmp_path / "b", tmp_path / "c")]
    assert sums[0] == sums[1] != sums[2]
    assert len(sums[0]) == 64


def test_annotation_files_are_split_by_name(root):
    for name in ("instances_val2017", "instances_train2014", "instances_minival", "captions_val"):
        (root / f"{name}.json").write_text("{}")
    assert [file.split for file in find_coco(root)] == ["train", "val", "minival"]
    (root / "instances_train2017.json").write_text("{}")
    with pytest.raises(UserError, match="two annotation files of the part train"):
        find_coco(root)
    assert find_coco(root / "none") == []


def test_one_plain_annotation_file_is_the_training_part(tmp_path):
    write_coco(tmp_path)
    os.rename(tmp_path / "annotations/instances_val2017.json", tmp_path / "annotations.json")
    os.rename(tmp_path / "val2017", tmp_path / "images")
    parsed = read_coco(find_coco(tmp_path))
    assert parsed.problems == []
    assert len(parsed.splits["train"]) == 5


@pytest.mark.parametrize("prefix", ["./", "val2017/", "./val2017//"])
@pytest.mark.parametrize("images", ["folder", "deflated"])
def test_names_of_images_may_hold_folders(root, prefix, images):
    write_coco(root / "coco", coco_content(prefix), images=images)
    found = load_boxes("coco", root=root)
    import_dataset("coco", root / "coco", root)
    for read in (found, load_boxes("coco", root=root)):
        assert [image.file.read() for image in read.split("val")] == [png(n) for n in SIZES]


def test_coco_classes_that_do_not_fit(root, tmp_path):
    write_coco(root)
    files = find_coco(root)
    parsed = read_coco(files, ("brush", "dog", "person", "cat"))
    assert parsed.splits["val"][0].labels.tolist() == [2, 0]
    with pytest.raises(UserError, match="category 'brush'; expected the classes person, cat"):
        read_coco(files, ("person", "cat"))
    content = coco_content()
    content["categories"][0]["name"] = "dog"
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has other categories than"):
        read_coco(find_coco(root))
    for change, message in (
        ({"id": 1, "name": "x"}, "two categories of the same id"),
        ({"id": 2, "name": "cat"}, "the class 'cat' twice"),
        ({"id": 2, "name": ""}, "named ''"),
    ):
        content = coco_content()
        content["categories"].append(change)
        with pytest.raises(UserError, match=message) as error:
            coco_problems(tmp_path, content)
        one_line(error)
    content = coco_content()
    content["annotations"][1]["category_id"] = 2
    (line,) = coco_problems(tmp_path, content).problems
    assert "annotation 1 (id 101) has the category 2; expected one of its 3 categories" in line


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([-2, 0, 10, 10], "x -2, y 0, width 10, height 10 of '000000000007.png' is outside"),
        ([50, 0, 11, 10], "is outside the image; expected a box within 60 x 40 pixels"),
        ([0, 35, 10, 6], "is outside the image"),
        ([70, 50, 5, 5], "is outside the image"),
        ([10, 10, -3, 5], "has a negative area"),
        ([10, 10, 5, -0.5], "has a negative area"),
    ],
)
def test_a_box_of_coco_that_is_wrong(tmp_path, box, message):
    content = coco_content()
    content["annotations"][0]["bbox"] = box
    parsed = coco_problems(tmp_path, content)
    (line,) = parsed.problems
    assert "annotation 0 (id 100)" in line
    assert message in line
    assert len(parsed.splits["val"][0].boxes) == 1


def test_other_faults_of_coco(tmp_path, root):
    content = coco_content()
    content["annotations"][3]["image_id"] = 999
    (line,) = coco_problems(tmp_path, content).problems
    assert "annotation 3 (id 103) is of image 999, which is not among its images" in line

    content = coco_content()
    content["images"][1]["file_name"] = "../val2017/none.png"
    (line,) = coco_problems(tmp_path, content).problems  # One line for the image and its boxes.
    assert "'../val2017/none.png', id 9) is not in" in line

    content = coco_content()
    content["images"][1] |= {"id": 7}
    content["images"][2] |= {"width": 0}
    content["images"][3] |= {"id": 2**31}
    lines = coco_problems(tmp_path, content).problems
    assert len(lines) == 4  # The box of image 9 has lost its image, too.
    for text in ("id of another image", "0 x 40 pixels", "beyond 32 bits", "is of image 9"):
        assert any(text in line for line in lines), text

    write_coco(root / "coco", content)
    with pytest.raises(BadAnnotationsError, match=r"\(and 3 more\)") as error:
        load_boxes("coco", root=root)
    one_line(error)
    assert len(error.value.lines) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an annotation file of COCO's form"),
        ("[]", "Expected `object`, got `array`"),
        ('{"images": []}', "missing required field"),
        ("\x80", "not an annotation file"),
        ('{"images": [], "categories": [], "annotations": [{"image_id": "a"}]}', "image_id"),
    ],
)
def test_a_file_that_is_not_cocos(root, text, message):
    write_coco(root)
    path = root / "annotations/instances_val2017.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DamagedDataError, match=message) as error:
        read_coco(find_coco(root))
    assert str(path) in one_line(error)


def test_coco_without_images_or_annotations(tmp_path):
    write_coco(tmp_path)
    os.rename(tmp_path / "val2017", tmp_path / "elsewhere")
    with pytest.raises(UserError, match="has no images beside it; expected them in") as error:
        read_coco(find_coco(tmp_path))
    assert str(tmp_path / "val2017.zip") in one_line(error)
    with pytest.raises(AbsentDataError):
        read_coco([])


def test_archives_that_are_damaged(tmp_path):
    write_coco(tmp_path, images="deflated")
    path = tmp_path / "val2017.zip"
    whole = path.read_bytes()
    location = ZipStore(path).find(file_name(9))
    assert location is not None
    assert location.where == f"{file_name(9)} in {path}"
    assert ZipStore(path).find("none.png") is None
    path.write_bytes(whole[: location.offset] + bytes(30) + whole[location.offset + 30 :])
    with pytest.raises(DamagedDataError, match="the archive has changed"):
        location.read()
    path.write_bytes(whole[: location.offset + 60])
    with pytest.raises(DamagedDataError, match=r"in .*\.zip"):
        location.read()
    with pytest.raises(DamagedDataError, match="cannot be read as a zip archive"):
        ZipStore(path)
    path.unlink()
    with pytest.raises(DamagedDataError, match="is missing; put it back"):
        location.read()
    with zipfile.ZipFile(path, "w") as archive:
        for folder in ("a", "b"):
            archive.writestr(f"{folder}/1.png", b"x" if folder == "a" else b"yy")
    store = ZipStore(path)
    with pytest.raises(DamagedDataError, match=r"several members named '1\.png'"):
        store.find("1.png")
    found = store.find("b/1.png")
    assert found is not None
    assert found.read() == b"yy"


def test_images_that_are_none_or_of_another_size(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    location = ImageLocation(str(path), "a.png", 8)
    with pytest.raises(DamagedDataError, match="cannot be read as an image") as error:
        decode_image(location.read(), location.where, height=1, width=1)
    assert str(path) in one_line(error)
    with pytest.raises(DamagedDataError, match=r"a\.png has 60 x 40 pixels; expected 40 x 60"):
        decode_image(png(7), "a.png", height=60, width=40)
    with pytest.raises(DamagedDataError, match="cannot be read as an image"):
        decode_image(png(7)[:-40], "a.png", height=40, width=60)
    path.write_bytes(b"longer now")
    with pytest.raises(DamagedDataError, match="bytes, expected 8; it has changed"):
        location.read()
    # EXIF turns a picture only where its annotation is of the upright one.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels_of(7)).save(path, exif=exif)
    content = path.read_bytes()
    assert decode_image(content, "a", height=60, width=40).shape == (60, 40, 3)
    np.testing.assert_array_equal(decode_image(content, "a", height=40, width=60), pixels_of(7))


def test_voc_counts_pixels_from_one(root):
    write_voc(root / "voc")
    found = load_boxes("voc", root=root)
    assert (found.form, found.class_names) == ("voc", ("blob", "cell"))
    assert found.counts() == {"train": 2, "val": 1}
    twelve, seven = found.split("train")
    assert (twelve.number, seven.number) == (2, 0)  # Places in alphabetical order.
    # Both ends are inside: the whole image, and one pixel.
    np.testing.assert_array_equal(seven.boxes, [[0, 0, 40, 60], [5, 10, 6, 11]])
    assert seven.labels.tolist() == [1, 0]
    assert seven.crowd.tolist() == [False, True]  # Difficult.
    assert seven.area.tolist() == [2400, 1]
    assert twelve.boxes.shape == (0, 4)
    assert found.split("val")[0].file.read() == png(9)
    with pytest.raises(AbsentDataError, match="split 'test' of voc"):
        found.split("test")


def test_lists_of_voc(tmp_path):
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    found = find_voc(tmp_path)
    assert found is not None
    assert found.folder == tmp_path / "VOCdevkit" / "VOC2012"
    assert found.splits == {"train": ("012", "007"), "val": ("009",)}
    lists = found.folder / "ImageSets" / "Main"
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    again = find_voc(tmp_path)
    assert again is not None
    assert again.splits == {"trainval": ("007", "009", "012")}
    for path in lists.iterdir():
        path.unlink()
    plain = find_voc(found.folder)
    assert plain is not None
    assert plain.splits == {"train": ("007", "009", "012")}
    write_voc(tmp_path / "VOCdevkit" / "VOC2007")
    with pytest.raises(UserError, match=r"VOC2007 and .*VOC2012; expected the folder of one"):
        find_voc(tmp_path)
    for text, message in (("", "is empty"), ("007\n007\n", "names '007' twice")):
        (lists / "train.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            find_voc(found.folder)
    assert find_voc(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 1, 10, 10), "xmin 0, ymin 1, xmax 10, ymax 10 is outside the image"),
        ((1, 1, 61, 10), "is outside the image; expected pixels counted from 1 within 60 x 40"),
        ((1, 5, 10, 41), "is outside the image"),
        ((10, 5, 9, 8), "has a negative area"),
        ((10, 8, 12, 5), "has a negative area"),
        (("x", 8, 12, 5), "lacks its name or a number of its bndbox"),
        (("nan", 8, 12, 15), "is not of finite numbers"),
    ],
)
def test_a_box_of_voc_that_is_wrong(tmp_path, box, message):
    write_voc(
        tmp_path, {7: voc_object("cell", box) + voc_object("cell", (1, 1, 2, 2)), 9: "", 12: ""}
    )
    found = find_voc(tmp_path)
    assert found is not None
    parsed = read_voc(found)
    (line,) = parsed.problems
    assert line.startswith(f"{tmp_path / 'Annotations' / '007.xml'}: object 1")
    assert message in line
    assert len(parsed.splits["train"][1].boxes) == 1


def test_voc_files_that_are_wrong(tmp_path):
    write_voc(tmp_path)
    found = find_voc(tmp_path)
    assert found is not None
    path = tmp_path / "Annotations" / "009.xml"
    for text, message in (
        ("<annotation>", "is not XML"),
        ("", "is not XML"),
        (voc_xml(9, "").replace("<width>40</width>", ""), "has the size None x '60'"),
        (voc_xml(9, "").replace("<height>60", "<height>-1"), "has the size '40' x '-1'"),
    ):
        path.write_text(text)
        (line,) = read_voc(found).problems
        assert line.startswith(str(path))
        assert message in line
        assert "\n" not in line
    path.unlink()
    (line,) = read_voc(found).problems
    assert "009.xml is missing; expected the annotation of the listed image 009" in line
    path.write_text(voc_xml(9, ""))
    (tmp_path / "JPEGImages" / "009.png").unlink()
    (line,) = read_voc(found).problems
    assert "009.xml is the annotation of 009, which has no image in" in line


def test_voc_classes_that_do_not_fit(tmp_path):
    write_voc(tmp_path)
    found = find_voc(tmp_path)
    assert found is not None
    assert read_voc(found, known=("cat", "cell", "blob")).class_names == ("cat", "cell", "blob")
    assert read_voc(found, known=CATALOGUE["voc"].class_names).class_names == ("blob", "cell")
    with pytest.raises(UserError, match="has the class 'blob'; expected only cell, cat"):
        read_voc(found, known=("cell", "cat"))
    parsed = read_voc(found, ("cell", "cat"))
    assert parsed.class_names == ("cell", "cat")
    assert len(parsed.problems) == 2
    assert "object 2 ('blob') has an unknown class; expected cell, cat" in parsed.problems[0]
    with pytest.raises(UserError, match="--classes has the class 'a' twice"):
        read_voc(found, ("a", "a"))


def test_names_and_absent_sets(root):
    for name, message in (
        ("mnist", "'mnist' has no boxes"),
        ("coca", "'coca' is unknown; did you mean 'coco'?"),
        ("coco", "run `adaptive-nets data import coco PATH`"),
        ("bccd", "Annotations/"),
    ):
        with pytest.raises(UserError, match=message) as error:
            load_boxes(name, root=root)
        one_line(error)
    with pytest.raises(UserError, match="data source 'tfds' is unknown"):
        load_boxes("coco", root=root, source="tfds")


def test_ground_truth_of_images(root):
    write_coco(root / "coco")
    images = load_boxes("coco", root=root).split("val")
    truth = ground_truth(images)
    assert truth["image_ids"].tolist() == [7, 7, 9, 12]
    assert truth["labels"].tolist() == [0, 2, 1, 1]
    assert truth["crowd"].tolist() == [False, False, True, False]
    assert truth["boxes"].shape == (4, 4)
    empty = ground_truth([])
    assert {name: array.shape for name, array in empty.items()} == {
        "image_ids": (0,), "boxes": (0, 4), "labels": (0,), "crowd": (0,), "area": (0,),
    }  # fmt: skip


@pytest.mark.data("bccd", "coco128")
def test_real_sets_have_their_known_counts(official_root):
    bccd = load_boxes("bccd", root=official_root("bccd"))
    assert bccd.counts() == {"train": 205, "val": 87, "test": 72}
    assert bccd.num_boxes() == 4888
    classes = zip(*(bccd.class_counts(split) for split in bccd.splits), strict=True)
    assert [sum(each) for each in classes] == [361, 4155, 372]  # Platelets, RBC, WBC.
    coco = load_boxes("coco128", root=official_root("coco128"))
    assert (coco.counts(), coco.num_boxes()) == ({"train": 128}, 929)
    assert coco.class_names == CATALOGUE["coco"].class_names
    assert sum(count > 0 for count in coco.class_counts("train")) == 71
    assert sum(image.has_objects for image in coco.split("train")) == 126
