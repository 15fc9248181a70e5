import json

from adaptive_nets.data import CATALOGUE, import_dataset, load, survey, verify
from adaptive_nets.data.embedded import EMBEDDED
from adaptive_nets.data.fixations import FIXATION_SETS


def pick(findings, name="tiny"):
    return [finding for finding in findings if finding.name == name]


def check_lines(findings):
    for finding in findings:
        assert "\n" not in finding.message
        assert finding.message
    return findings


def test_empty_root(tiny, root, complains):
    found = check_lines(survey(root))
    assert [finding.name for finding in found] == [*CATALOGUE, *FIXATION_SETS]
    states = {finding.name: (finding.state, finding.source) for finding in found}
    embedded = dict.fromkeys(EMBEDDED, ("ok", "embedded"))
    assert {name: states.pop(name) for name in EMBEDDED} == embedded
    assert set(states.values()) == {("absent", None)}
    checked = check_lines(verify(None, root))
    assert {
        finding.name: (finding.state, finding.source) for finding in checked
    } == states | embedded
    mnist = pick(checked, "mnist")[0]
    assert {split: sum(n) for split, n in mnist.class_counts.items()} == {
        "train": 60000,
        "test": 10000,
    }
    assert mnist.fingerprint == load("mnist").fingerprint
    assert mnist.complete
    assert mnist.message == "60,000 train + 10,000 test, checked by the known md5 of 4 of 4 files"
    complains(lambda: verify("tyni", root), "'tyni'")
    complains(lambda: survey(root / "none"), "none does not exist")
    # The default root does not have to be there.
    assert pick(survey(), "tiny")[0].state == "absent"


def test_whole_copies(tiny, root):
    folder = tiny.write(root / "tiny")
    path = import_dataset("tiny", root, root)
    finding = pick(check_lines(survey(root)))[0]
    assert (finding.source, finding.form, finding.location) == ("tfds", "array_record", str(path))
    assert (finding.state, finding.complete, finding.fingerprint) == ("ok", True, None)
    tfds, files = check_lines(verify("tiny", root))
    assert (files.source, files.form, files.location) == ("files", "idx", str(folder))
    assert tfds.fingerprint == files.fingerprint == load("tiny", root=root).fingerprint
    for finding in (tfds, files):
        assert (finding.state, finding.complete) == ("ok", True)
        assert finding.counts == {"train": 30, "test": 10}
        assert {split: sum(n) for split, n in finding.class_counts.items()} == finding.counts
    assert "checksums of the import" in tfds.message
    assert "counts only" in files.message


def test_partial_and_damaged_copies(tiny, root):
    folder = tiny.write(root / "tiny")
    labels = folder / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1])
    assert pick(survey(root))[0].state == "ok"  # Nothing was read.
    finding = verify("tiny", root)[0]
    assert (finding.state, finding.location) == ("damaged", str(folder))
    assert str(labels) in finding.message
    labels.unlink()
    for finding in (pick(survey(root))[0], verify("tiny", root)[0]):
        assert finding.state == "partial"
        assert labels.name in finding.message
    labels.write_bytes(content)
    path = import_dataset("tiny", root, root)
    shard = next(path.glob("tiny-test*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    states = [(finding.source, finding.state) for finding in check_lines(verify("tiny", root))]
    assert states == [("tfds", "damaged"), ("files", "ok")]
    shard.unlink()
    finding = pick(survey(root))[0]
    assert (finding.source, finding.state) == ("tfds", "damaged")
    assert str(shard) in finding.message


def test_fewer_examples_than_the_official_set(tiny, root):
    from foreign_sets import write_foreign

    part = {s: (tiny.images[s][:5], {"label": tiny.labels[s][:5]}) for s in tiny.images}
    write_foreign(root, "tiny", part, tiny.info.label_names)
    for finding in (pick(survey(root))[0], verify("tiny", root)[0]):
        assert (finding.state, finding.complete) == ("partial", False)
        assert finding.counts == {"train": 5, "test": 5}
        assert "adaptive-nets data import tiny PATH" in finding.message
    assert not load("tiny", root=root).complete


def test_tfrecord(tiny, root):
    folder = root / "tfds" / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    info = {"name": "tiny", "splits": [], "fileFormat": "tfrecord"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for finding in (pick(survey(root))[0], verify("tiny", root)[0]):
        assert finding.state == "damaged"
        assert "tfrecord" in finding.message
