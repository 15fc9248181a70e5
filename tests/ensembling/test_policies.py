"""Policies as values, arrays and JSON files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from adaptive_nets.data.augmentations import (
    CIFAR_OPERATIONS,
    OPERATIONS,
    random_sub_policies,
)
from adaptive_nets.ensembling import Policy, SubPolicy, load_policy, save_policy
from adaptive_nets.ensembling.policies import from_arrays

POLICY = Policy(
    "cifar",
    (
        SubPolicy((), crop=False),
        SubPolicy(),
        SubPolicy((("Rotate", -12.25), ("Cutout", 30.0), ("Identity", 45.0))),
        SubPolicy((("Solarize", 0.4999), ("Posterize", -20.0)), crop=False),
        SubPolicy((("ShearX", 0.25),)),
        SubPolicy(),
        SubPolicy((("Color", -20.5),)),
    ),
    {"origin": "a test", "length": 7},
)


def test_policy_is_saved_and_read(tmp_path):
    path = tmp_path / "new" / "policy.json"
    save_policy(path, POLICY)
    found = load_policy(path)
    assert found == POLICY
    assert found.note == {"origin": "a test", "length": 7}
    save_policy(tmp_path / "again.json", found)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert load_policy(str(path)) == POLICY


def test_random_magnitudes_are_read_exactly(tmp_path, rng):
    indices, magnitudes = random_sub_policies(
        rng, 9, operations=3, magnitude=45, protocol="imagenet"
    )
    policy = from_arrays(indices, magnitudes, "imagenet", crop=False)
    save_policy(tmp_path / "policy.json", policy)
    arrays = load_policy(tmp_path / "policy.json").arrays()
    np.testing.assert_array_equal(arrays.indices, indices)
    np.testing.assert_array_equal(arrays.magnitudes, magnitudes)


@pytest.mark.parametrize("count", [1, 6, 7, 8, 20])
def test_first_views_begin_again(count):
    first = POLICY.first(count)
    assert len(first) == count
    for i, sub_policy in enumerate(first.sub_policies):
        assert sub_policy is POLICY.sub_policies[i % 7]
    assert first.protocol == "cifar"
    assert first.note == POLICY.note


@pytest.mark.parametrize("count", [0, -1, 1.0, None])
def test_bad_number_of_views_is_one_line(count, complains):
    complains(lambda: POLICY.first(count), f"views is {count}", "at least 1")


def test_arrays_are_padded_with_the_identity():
    indices, magnitudes, crop = POLICY.arrays()
    assert indices.dtype == np.int32
    assert magnitudes.dtype == np.float32
    assert indices.shape == magnitudes.shape == (7, 3)
    names = [[OPERATIONS[i].name for i in row] for row in indices]
    assert names[0] == ["Identity"] * 3
    assert names[2] == ["Rotate", "Cutout", "Identity"]
    assert names[3] == ["Solarize", "Posterize", "Identity"]
    np.testing.assert_array_equal(magnitudes[2], np.float32([-12.25, 30, 45]))
    np.testing.assert_array_equal(magnitudes[3], np.float32([0.4999, -20, 0]))
    np.testing.assert_array_equal(crop, [False, True, True, False, True, True, True])
    assert crop.dtype == bool


def test_policy_without_operations_has_empty_arrays():
    arrays = Policy("cifar", (SubPolicy(), SubPolicy(crop=False))).arrays()
    assert arrays.indices.shape == arrays.magnitudes.shape == (2, 0)


def test_arrays_become_the_same_policy(rng):
    indices, magnitudes = random_sub_policies(rng, 5, operations=2, magnitude=20, protocol="cifar")
    crop = np.array([True, False, True, True, False])
    policy = from_arrays(indices, magnitudes, "cifar", crop=crop, note={"seed": 1})
    for i, sub_policy in enumerate(policy.sub_policies):
        assert sub_policy.crop is bool(crop[i])
        for (name, magnitude), index, m in zip(
            sub_policy.operations, indices[i], magnitudes[i], strict=True
        ):
            assert name == CIFAR_OPERATIONS[index].name
            assert magnitude == m
    np.testing.assert_array_equal(policy.arrays().crop, crop)
    assert policy.note == {"seed": 1}
    assert all(s.crop for s in from_arrays(indices, magnitudes, "cifar").sub_policies)


def test_summary_counts_sub_policies():
    # Magnitudes below 0.5 do nothing under CIFAR's protocol: entries 2, 5 and 6 are crops.
    assert POLICY.summary() == {
        "length": 7,
        "unique": 6,
        "repeats": 2,
        "unchanged": 1,
        "crops": 3,
        "strong": pytest.approx(2 / 7),
    }


def test_summary_of_imagenet_counts_small_magnitudes_as_operations():
    policy = Policy(
        "imagenet",
        (
            SubPolicy((("RandomResizedCrop", 0.1),), crop=False),
            SubPolicy((("Identity", 3.0),), crop=False),
        ),
    )
    assert policy.summary()["unchanged"] == 1
    assert policy.summary()["crops"] == 0
    assert policy.summary()["strong"] == 0


def test_sub_policies_are_described():
    assert str(SubPolicy((("Rotate", -12.25),))) == "Rotate -12.2, crop and flip"
    assert str(SubPolicy()) == "crop and flip"
    assert str(SubPolicy(crop=False)) == "unchanged"
    assert str(SubPolicy((("Invert", 1.0), ("Color", 2.0)), crop=False)) == "Invert 1.0, Color 2.0"


@pytest.mark.parametrize(
    ("protocol", "operations", "texts"),
    [
        ("cifar", (("Rotat", 1.0),), ("sub-policy 2", "'Rotat'", "did you mean 'Rotate'?")),
        ("cifar", (("Equalize", 1.0),), ("sub-policy 2", "'Equalize'", "'cifar'")),
        ("imagenet", (("Rotate", float("nan")),), ("sub-policy 2", "nan", "finite")),
        ("imagenet", (("Rotate", float("inf")),), ("sub-policy 2", "inf", "finite")),
    ],
)
def test_bad_operations_are_one_line(protocol, operations, texts, complains):
    complains(lambda: Policy(protocol, (SubPolicy(), SubPolicy(operations))), *texts)


def test_empty_policy_is_one_line(complains):
    complains(lambda: Policy("cifar", ()), "sub-policies is 0", "at least 1")


def content(**changes):
    entry = {"operations": [{"name": "Rotate", "magnitude": 3.5}], "crop": True}
    whole = {
        "format": "adaptive_nets policy 1",
        "protocol": "cifar",
        "note": {},
        "sub_policies": [entry],
    }
    return {**whole, **changes}


def with_entry(**changes):
    entry = {"operations": [{"name": "Rotate", "magnitude": 3.5}], "crop": True, **changes}
    return content(sub_policies=[{k: v for k, v in entry.items() if v != "absent"}])


def with_operation(**operation):
    return with_entry(operations=[operation])


def without(name):
    return {k: v for k, v in content().items() if k != name}


DAMAGED = {
    "unknown operation": (with_operation(name="Rotat", magnitude=1), ("'Rotat'", "'Rotate'")),
    "operation of another protocol": (with_operation(name="Invert", magnitude=1), ("'Invert'",)),
    "name that is a number": (with_operation(name=5, magnitude=1), ("5",)),
    "name that is a list": (with_operation(name=["Rotate"], magnitude=1), ()),
    "name that is null": (with_operation(name=None, magnitude=1), ()),
    "no magnitude": (with_operation(name="Rotate"), ("magnitude",)),
    "magnitude that is a word": (with_operation(name="Rotate", magnitude="much"), ("much",)),
    "magnitude that is a truth value": (with_operation(name="Rotate", magnitude=True), ()),
    "magnitude that is null": (with_operation(name="Rotate", magnitude=None), ()),
    "magnitude of 400 digits": (with_operation(name="Rotate", magnitude=10**400), ()),
    "operations that are a text": (with_entry(operations="Rotate"), ()),
    "operations that are a number": (with_entry(operations=3), ()),
    "operation that is a pair": (with_entry(operations=[["Rotate", 3]]), ()),
    "no operations": (with_entry(operations="absent"), ("operations",)),
    "no crop": (with_entry(crop="absent"), ("crop",)),
    "crop that is a number": (with_entry(crop=1), ("crop is 1",)),
    "entry that is a number": (content(sub_policies=[4]), ()),
    "no entries": (content(sub_policies=[]), ("sub-policies is 0",)),
    "entries that are an object": (content(sub_policies={}), ("'sub_policies' is an object",)),
    "other format": (content(format="policy 0"), ("'policy 0'", "'adaptive_nets policy 1'")),
    "format that is a number": (content(format=1), ("'format' is a number",)),
    "no format": (without("format"), ("'format'",)),
    "unknown protocol": (content(protocol="mnist"), ("'mnist'", "'cifar' or 'imagenet'")),
    "no protocol": (without("protocol"), ("'protocol'",)),
    "note that is a text": (content(note="a"), ("'note' is a text",)),
    "no note": (without("note"), ("'note'",)),
    "list": ([], ("a list",)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_file_is_one_line(case, tmp_path, complains):
    written, texts = DAMAGED[case]
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(written))
    complains(lambda: load_policy(path), path, *texts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ('{"format": "adaptive_nets pol', "not JSON"),
        (json.dumps(content())[:-20], "not JSON"),
        (json.dumps(content()).replace("3.5", "NaN"), "NaN"),
        (json.dumps(content()).replace("3.5", "1e999"), "1e999"),
        ("[" * 100_000, "nested"),
    ],
)
def test_text_that_is_no_json_is_one_line(text, reason, tmp_path, complains):
    path = tmp_path / "policy.json"
    path.write_text(text)
    complains(lambda: load_policy(path), path, reason)


@pytest.mark.parametrize("name", ["policy.json", "policy.npz", "policy.npy", "policy"])
def test_absent_file_is_one_line(name, tmp_path, complains):
    complains(lambda: load_policy(tmp_path / name), tmp_path / name, "No such file")


@pytest.mark.parametrize("name", ["policy.json", "policy.npz"])
def test_folder_is_one_line(name, tmp_path, complains):
    (tmp_path / name).mkdir()
    complains(lambda: load_policy(tmp_path / name), tmp_path / name, "directory")


def test_unwritable_place_is_left_unchanged(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        save_policy(tmp_path / "file" / "policy.json", POLICY)
