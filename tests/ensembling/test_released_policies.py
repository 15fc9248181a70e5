"""Policies that the authors released, and files that only look like them."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from adaptive_nets.ensembling import SubPolicy, load_policy
from adaptive_nets.ensembling.released_policies import load_released_policy

ROOT = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent")) / "gps_policies"
needs_files = pytest.mark.skipif(
    not ROOT.is_dir(), reason="needs gps_policies in $ADAPTIVE_NETS_DATA"
)

# Counts of the table of learned policies: distinct, repeats of the most frequent, unaugmented, pure
# crop and flip, share with a magnitude above 20.
COUNTS = {
    "CIFAR10-VGG16BN-randaugment-policy.npz": (53, 6, 1, 24, 0.31),
    "CIFAR10-PreResNet110-randaugment-policy.npz": (47, 9, 0, 33, 0.38),
    "CIFAR10-WideResNet28x10-randaugment-policy.npz": (47, 7, 0, 10, 0.38),
    "CIFAR100-VGG16BN-randaugment-policy.npz": (88, 2, 0, 6, 0.55),
    "CIFAR100-PreResNet110-randaugment-policy.npz": (79, 3, 1, 14, 0.49),
    "CIFAR100-WideResNet28x10-randaugment-policy.npz": (79, 4, 0, 6, 0.64),
    "CIFAR100-WideResNet28x10-ens-policy.npz": (50, 6, 0, 1, 0.56),
}
IMAGENET = {
    "resnet50_ll.npy": 0.55,
    "efficientnet_b2_ll.npy": 0.55,
    "tf_efficientnet_b5_ll.npy": 0.30,
}


@pytest.mark.data
@needs_files
@pytest.mark.parametrize("name", COUNTS)
def test_released_cifar_policy_has_the_counts_of_the_table(name):
    policy = load_policy(ROOT / name)
    unique, repeats, unchanged, crops, strong = COUNTS[name]
    assert policy.protocol == "cifar"
    assert policy.note["file"] == name
    assert policy.summary() == {
        "length": 100,
        "unique": unique,
        "repeats": repeats,
        "unchanged": unchanged,
        "crops": crops,
        "strong": pytest.approx(strong),
    }
    largest = max(abs(m) for s in policy.sub_policies for _, m in s.operations)
    assert 20 < largest <= 45


@pytest.mark.data
@needs_files
def test_released_policies_of_clean_networks_are_in_the_ranges_of_the_table():
    paths = sorted(ROOT.glob("*-clean-policy.npz"))
    assert paths
    for path in paths:
        summary = load_policy(path).summary()
        assert summary["length"] == 100
        for name, low, high in (
            ("unique", 42, 91), ("repeats", 4, 13), ("unchanged", 2, 13), ("crops", 14, 37),
            ("strong", 0.05, 0.30),
        ):  # fmt: skip
            assert low <= summary[name] <= high, (path.name, name)


@pytest.mark.data
@needs_files
@pytest.mark.parametrize("name", IMAGENET)
def test_released_imagenet_policy_has_the_counts_of_the_table(name):
    policy = load_policy(ROOT / name)
    summary = policy.summary()
    assert policy.protocol == "imagenet"
    assert (summary["length"], summary["unique"], summary["repeats"]) == (20, 20, 1)
    assert summary["unchanged"] == 0
    assert summary["strong"] == pytest.approx(IMAGENET[name])
    for sub_policy in policy.sub_policies:
        assert sub_policy.operations[0][0] == "RandomResizedCrop"
        assert 1 <= len(sub_policy.operations) <= 4
        assert not sub_policy.crop


@pytest.mark.data
@needs_files
def test_unaugmented_entries_become_crops_on_demand():
    path = ROOT / "CIFAR10-VGG16BN-randaugment-policy.npz"
    as_scored, as_run = load_policy(path), load_policy(path, empty="crop")
    assert as_scored.sub_policies[0] == SubPolicy((), crop=False)
    assert as_run.sub_policies[0] == SubPolicy((), crop=True)
    assert as_run.sub_policies[1:] == as_scored.sub_policies[1:]
    assert as_run.summary()["crops"] == as_scored.summary()["crops"] + 1


def objects(values, *, shape=None) -> np.ndarray:
    array = np.empty(len(values) if shape is None else shape, object)
    for i, value in enumerate(values):
        array.reshape(-1)[i] = value
    return array


def write(path: Path, values, **options) -> Path:
    array = values if isinstance(values, np.ndarray) else objects(values, **options)
    if path.suffix == ".npz":
        np.savez(path, array)
    else:
        np.save(path, array)
    return path


EXPECTED = (
    SubPolicy((), crop=False),
    SubPolicy((("Rotate", -3.5), ("Identity", 0.0))),
    SubPolicy((("Cutout", 45.0),)),
    SubPolicy((), crop=False),
)
ENTRIES = [None, [(5, -3.5), (0, 0)], [[14, 45.0]], []]


@pytest.mark.parametrize("name", ["policy.npz", "policy.npy"])
def test_object_arrays_are_read(name, tmp_path):
    policy = load_policy(write(tmp_path / name, ENTRIES))
    assert policy.protocol == "cifar"
    assert policy.sub_policies == EXPECTED
    assert policy.note == {"file": name}
    cropped = load_policy(tmp_path / name, empty="crop").sub_policies
    assert [s.crop for s in cropped] == [True] * 4
    assert [s.operations for s in cropped] == [s.operations for s in EXPECTED]


def test_sub_policies_of_equal_lengths_are_read(tmp_path):
    # NumPy makes three axes of them.
    array = np.array([[(5, -3.5), (0, 0.0)], [(14, 45.0), (1, 2.0)], [(2, 1.5), (3, 4.0)]], object)
    assert array.shape == (3, 2, 2)
    found = load_policy(write(tmp_path / "policy.npz", array)).sub_policies
    assert found == (
        SubPolicy((("Rotate", -3.5), ("Identity", 0.0))),
        SubPolicy((("Cutout", 45.0), ("ShearX", 2.0))),
        SubPolicy((("ShearY", 1.5), ("TranslateX", 4.0))),
    )


def test_texts_are_read(tmp_path):
    texts = np.array(["[(15, -8.3), (5, 2)]", "[(15, 1.0), (17, -43.0), (16, 0.5)]"])
    policy = load_policy(write(tmp_path / "policy.npy", texts))
    assert policy.protocol == "imagenet"
    assert policy.sub_policies == (
        SubPolicy((("RandomResizedCrop", -8.3), ("Rotate", 2.0)), crop=False),
        SubPolicy((("RandomResizedCrop", 1.0), ("Equalize", -43.0), ("Invert", 0.5)), crop=False),
    )


class Runs:
    """Writes a file when it is unpickled by a careless reader."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["entry", "operation", "magnitude", "array"])
@pytest.mark.parametrize("name", ["policy.npz", "policy.npy"])
def test_hostile_pickle_runs_nothing(place, name, tmp_path, complains):
    mark = tmp_path / "ran"
    attack = Runs(os.system, f"touch {mark}")
    entries = {
        "entry": [[(5, 1.0)], attack],
        "operation": [[(5, 1.0), attack]],
        "magnitude": [[(5, attack)]],
        "array": [[(5, 1.0)]],
    }[place]
    path = write(tmp_path / name, entries)
    if place == "array":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|O", "fortran_order": False, "shape": (1,)}
        )
        path.write_bytes(header.getvalue() + pickle.dumps(attack, protocol=2))
    complains(lambda: load_policy(path), path, "no released policy")
    assert not mark.exists()
    # The attack would work on a reader that trusts the file.
    pickle.loads(pickle.dumps(attack))
    assert mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        Runs(eval, "__import__('builtins').ran.append(1)"),
        Runs(getattr, "text", "upper"),
        Runs(__import__, "antigravity"),
        Runs(bytearray, 1 << 40),
    ],
    ids=["eval", "getattr", "import", "bytearray"],
)
def test_named_functions_are_not_called(attack, tmp_path, complains):
    path = write(tmp_path / "policy.npz", [[(5, 1.0)], attack])
    complains(lambda: load_policy(path), path, "no released policy")


def test_references_outside_the_file_are_refused(tmp_path, complains):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    path = tmp_path / "policy.npy"
    path.write_bytes(header.getvalue() + b"Pabc\n.")
    complains(lambda: load_policy(path), path, "outside the file")


def test_memory_of_a_small_file_is_bounded(tmp_path, complains):
    # Nineteen lists, each of which holds the one before twice: its text has 2^19 brackets.
    nested: list = []
    for _ in range(19):
        nested = [nested, nested]
    path = write(tmp_path / "policy.npz", [[(5, nested)]])
    assert path.stat().st_size < 2000
    tracemalloc.start()
    try:
        complains(lambda: load_policy(path), path, "no released policy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3e6


@pytest.mark.parametrize("name", ["policy.npz", "policy.npy"])
def test_truncated_file_is_one_line(name, tmp_path, complains):
    path = write(tmp_path / name, ENTRIES)
    whole = path.read_bytes()
    for size in [*range(0, len(whole) - 1, 7), len(whole) - 1]:
        path.write_bytes(whole[:size])
        complains(lambda: load_policy(path), path, "no released policy")


def test_flipped_bytes_are_one_line_or_a_policy(tmp_path, complains):
    path = write(tmp_path / "policy.npy", ENTRIES)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        path.write_bytes(bytes(damaged))
        try:
            policy = load_policy(path)
        except Exception:
            complains(lambda: load_policy(path), path)
        else:
            assert len(policy) >= 1


def two_arrays(path: Path) -> None:
    np.savez(path, a=objects(ENTRIES), b=objects(ENTRIES))


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


def huge(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", bytes(1 << 25))


OTHER = {
    "numbers": (lambda path: np.savez(path, np.zeros((3, 2))), "float64"),
    "whole numbers": (lambda path: np.savez(path, np.zeros(3, np.int32)), "int32"),
    "bytes": (lambda path: np.savez(path, np.array([b"[(5, 1.0)]"])), "S10"),
    "two arrays": (two_arrays, "2 arrays"),
    "no array": (no_array, "0 arrays"),
    "a large array": (huge, "33,554,432"),
    "a text file": (lambda path: path.write_text("policy"), "policy"),
    "nothing": (lambda path: path.write_bytes(b""), "policy"),
    "an empty array": (lambda path: write(path, []), "sub-policies is 0"),
    "one value": (lambda path: np.savez(path, np.array(None)), "shape ()"),
    "a matrix": (lambda path: write(path, [None] * 4, shape=(2, 2)), "shape (2, 2)"),
    "triples": (lambda path: write(path, [1] * 12, shape=(2, 2, 3)), "shape (2, 2, 3)"),
    "a number": (lambda path: write(path, [[(5, 1.0)], 7]), "7"),
    "a text": (lambda path: write(path, ["[(5, 1.0)]"]), "(5, 1.0)"),
    "three parts": (lambda path: write(path, [[(5, 1.0, 2)]]), "policy"),
    "a part that is no pair": (lambda path: write(path, [[5]]), "policy"),
    "an unknown operation": (lambda path: write(path, [[(15, 1.0)]]), "operation 15"),
    "a negative operation": (lambda path: write(path, [[], [(-1, 1.0)]]), "sub-policy 2"),
    "a fractional operation": (lambda path: write(path, [[(5.0, 1.0)]]), "(5.0, 1.0)"),
    "a truth value": (lambda path: write(path, [[(True, 1.0)]]), "(True, 1.0)"),
    "an infinite magnitude": (lambda path: write(path, [[(5, float("inf"))]]), "inf"),
    "an undefined magnitude": (lambda path: write(path, [[(5, float("nan"))]]), "nan"),
    "a magnitude of 400 digits": (lambda path: write(path, [[(5, 10**400)]]), "policy"),
    "a magnitude of words": (lambda path: write(path, [[(5, "much")]]), "much"),
    "code": (lambda path: np.savez(path, np.array(["[(15, abs(-1))]"])), "policy"),
    "a word": (lambda path: np.savez(path, np.array(["crop"])), "policy"),
    "an unknown text": (lambda path: np.savez(path, np.array(["[(18, 1.0)]"])), "operation 18"),
    "nested texts": (lambda path: np.savez(path, np.array(["[" * 5000])), "policy"),
}


@pytest.mark.parametrize("case", OTHER)
def test_other_content_is_one_line(case, tmp_path, complains):
    make, text = OTHER[case]
    path = tmp_path / "policy.npz"
    make(path)
    complains(lambda: load_policy(path), path, text)


@pytest.mark.parametrize("empty", ["none", None, True])
def test_unknown_view_of_empty_entries_is_one_line(empty, tmp_path, complains):
    path = write(tmp_path / "policy.npz", ENTRIES)
    for load in (load_policy, load_released_policy):
        complains(lambda load=load: load(path, empty=empty), f"empty is {empty!r}", "unchanged")
