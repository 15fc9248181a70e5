import json
import os
import shutil
import sys

import numpy as np
import pytest

from adaptive_nets.data import CATALOGUE, import_dataset, load
from adaptive_nets.data.tfds_sets import find_prepared


def sort_rows(split):
    rows = np.concatenate([split.labels[:, None], split.images.reshape(len(split), -1)], axis=1)
    return rows[np.lexsort(rows.T)]


def foreign_arrays(tiny):
    return {s: (tiny.images[s], {"label": tiny.labels[s]}) for s in tiny.images}


@pytest.fixture
def imported(tiny, root, tmp_path):
    """The folder of an imported tiny set."""
    tiny.write(tmp_path / "official" / "tiny")
    return import_dataset("tiny", tmp_path / "official", root)


@pytest.fixture
def foreign(tiny, root):
    from foreign_sets import write_foreign

    return write_foreign(root, "tiny", foreign_arrays(tiny), tiny.info.label_names)


def test_reads_back_in_order_with_the_same_fingerprint(tiny, root, imported, tmp_path):
    data = load("tiny", root=root)
    assert (data.source, data.location, data.complete) == ("tfds", str(imported), True)
    for name, split in (("train", data.train), ("test", data.test)):
        assert split is not None
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images, tiny.images[name])
        np.testing.assert_array_equal(split.labels, tiny.labels[name])
    files = load("tiny", root=tmp_path / "official")
    assert files.source == "files"
    assert files.fingerprint == data.fingerprint
    test = load("tiny", root=root, splits=("test",))
    assert test.train is None


@pytest.mark.parametrize("image_feature", ["png", "list"])
def test_reads_sets_of_tfds_itself(tiny, root, image_feature, tmp_path):
    from foreign_sets import write_foreign

    folder = write_foreign(
        root, "tiny", foreign_arrays(tiny), tiny.info.label_names, image_feature=image_feature
    )
    data = load("tiny", root=root)
    assert data.location == str(folder)
    assert data.train is not None
    np.testing.assert_array_equal(
        sort_rows(data.train),
        sort_rows(type(data.train)(tiny.images["train"], tiny.labels["train"])),
    )
    # They are shuffled on disk, which the fingerprint does not mind.
    assert (data.train.images != tiny.images["train"]).any()
    tiny.write(tmp_path / "files" / "tiny")
    assert load("tiny", root=tmp_path / "files").fingerprint == data.fingerprint


def test_coarse_labels_of_cifar100(root):
    from foreign_sets import write_foreign

    random = np.random.default_rng(1)
    images = random.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = {"label": random.integers(0, 100, 8), "coarse_label": random.integers(0, 20, 8)}
    arrays = dict.fromkeys(("train", "test"), (images, labels))
    write_foreign(root, "cifar100", arrays, CATALOGUE["cifar100"].label_names)
    for name, key in (("cifar100", "label"), ("cifar100_coarse", "coarse_label")):
        data = load(name, root=root)
        assert not data.complete
        assert data.test is not None
        assert sorted(data.test.labels) == sorted(labels[key])


def test_imported_goes_before_tfds_and_newest_first(tiny, root, foreign, tmp_path):
    shutil.copytree(foreign, root / "tiny" / "3.0.10")
    found = find_prepared(tiny.info, root)
    assert found is not None
    assert found.folder.name == "3.0.10"
    tiny.write(tmp_path / "official")
    path = import_dataset("tiny", tmp_path / "official", root)
    assert load("tiny", root=root).location == str(path)


def test_damaged_imports(root, imported, complains):
    sums = imported / "checksums.json"
    for path in sorted(imported.iterdir()):
        content = path.read_bytes()
        if path != sums:
            path.unlink()
            complains(lambda: load("tiny", root=root), path, "missing", "data import tiny PATH")
            for place in (0, len(content) // 2, len(content) - 1):
                flipped = bytearray(content)
                flipped[place] ^= 0x20
                path.write_bytes(bytes(flipped))
                complains(lambda: load("tiny", root=root), imported, "data import tiny PATH")
        path.write_bytes(content[: len(content) // 2])
        complains(lambda: load("tiny", root=root), imported)
        path.write_bytes(content)
    sums.write_text("[]")
    complains(lambda: load("tiny", root=root), sums, "damaged")


def test_damaged_records_without_checksums(root, foreign, complains):
    shard = next(foreign.glob("tiny-train.array_record*"))
    content = shard.read_bytes()
    middle = content.find(b"image") + 40
    for damage in (
        b"",
        content[:100],
        content[: len(content) // 2],
        content[:-1],
        b"\0" * len(content),
        content[:middle]
        + bytes(byte ^ 0xFF for byte in content[middle : middle + 8])
        + content[middle + 8 :],
    ):
        shard.write_bytes(damage)
        complains(lambda: load("tiny", root=root), shard, "damaged", "data import tiny PATH")
    shard.unlink()
    complains(lambda: load("tiny", root=root), shard, "missing")


@pytest.mark.parametrize("count", [29, 31])
def test_record_counts_that_differ(root, foreign, complains, count):
    path = foreign / "dataset_info.json"
    path.write_text(path.read_text().replace('"30"', f'"{count}"'))
    complains(lambda: load("tiny", root=root), "tiny-train", "30 records", f"expected {count}")


def test_damaged_descriptions(root, foreign, complains):
    for name, damages in {
        "dataset_info.json": [
            "",
            "{",
            "[]",
            "{}",
            '{"name": "tiny", "splits": 3}',
            '{"name": "other", "splits": []}',
        ],
        "features.json": ["", "{", "[]", "{}", '{"featuresDict": {"features": {"image": {}}}}'],
    }.items():
        path = foreign / name
        content = path.read_text()
        for damage in damages:
            path.write_text(damage)
            complains(lambda: load("tiny", root=root), foreign, "data import tiny PATH")
        path.unlink()
        complains(lambda: load("tiny", root=root), path, "missing")
        path.write_text(content)
    # A description that TFDS itself cannot use.
    path = foreign / "features.json"
    path.write_text(content.replace("image_feature.Image", "image_feature.Nothing"))
    complains(lambda: load("tiny", root=root), foreign)


def test_wrong_shapes_and_labels(tiny, root, complains):
    from foreign_sets import write_foreign

    wide = {"train": (np.zeros((3, 6, 6, 1), np.uint8), {"label": np.zeros(3, int)})}
    folder = write_foreign(root, "tiny", wide, {"label": "abc"})
    complains(lambda: load("tiny", root=root, splits=("train",)), folder, "36 bytes, expected 30")
    complains(lambda: load("tiny", root=root), folder, "the test split is not in", "only train")
    shutil.rmtree(root / "tiny")
    five = {"train": (np.zeros((3, 6, 5, 1), np.uint8), {"label": np.full(3, 4)})}
    folder = write_foreign(root, "tiny", five, {"label": "abcde"})
    complains(
        lambda: load("tiny", root=root, splits=("train",)), folder, "label 4, expected 0 to 2"
    )


@pytest.mark.parametrize("stated", [True, False])
def test_tfrecord_is_refused(tiny, root, complains, stated):
    folder = root / "tiny" / "3.0.1"
    folder.mkdir(parents=True)
    info = {"name": "tiny", "splits": [{"name": "train", "shardLengths": ["30"]}]}
    (folder / "dataset_info.json").write_text(
        json.dumps(info | ({"fileFormat": "tfrecord"} if stated else {}))
    )
    for source in ("auto", "tfds"):
        complains(
            lambda s=source: load("tiny", root=root, source=s),
            folder,
            "tfrecord",
            "array_record",
            "TensorFlow",
            "adaptive-nets data import tiny PATH",
        )
    tiny.write(root / "tiny")
    assert load("tiny", root=root, source="files").complete


def test_remains_of_an_interrupted_preparation_are_not_read(root, foreign, complains):
    os.rename(foreign, root / "tiny" / "incomplete.ABC123_3.0.2")
    complains(lambda: load("tiny", root=root), "nothing found")


def test_data_packages_missing(root, imported, monkeypatch, complains):
    for name in ("tensorflow_datasets", "importlib_resources"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            complains(lambda: load("tiny", root=root), name, "adaptive-nets[data]")
