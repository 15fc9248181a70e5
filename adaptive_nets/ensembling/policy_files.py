"""Policies as readable files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_nets.ensembling.policies import Policy, SubPolicy
from adaptive_nets.ensembling.released_policies import load_released_policy
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object

FORMAT = "adaptive_nets policy 1"
_REMEDY = "choose a policy that adaptive-nets wrote, or one of the authors' files"


def save_policy(path: str | Path, policy: Policy) -> None:
    """Writes a policy to a JSON file, atomically."""
    write_json_atomically(
        path,
        {
            "format": FORMAT,
            "protocol": policy.protocol,
            "note": dict(policy.note),
            "sub_policies": [
                {
                    "operations": [
                        {"name": name, "magnitude": magnitude}
                        for name, magnitude in sub_policy.operations
                    ],
                    "crop": sub_policy.crop,
                }
                for sub_policy in policy.sub_policies
            ],
        },
    )


def load_policy(path: str | Path, *, empty: str = "unchanged") -> Policy:
    """Reads a policy from a JSON file, or from a file that the authors released.

    Args:
        path: *.json from `save_policy`, or *.npz or *.npy of the authors.
        empty: view of a sub-policy without operations in a file of the authors: "unchanged", as
            their search scored it, or "crop", as their evaluation ran it.

    Raises:
        UserError: the file is absent, of another format, or has an unknown operation.
    """
    path = Path(path)
    if path.suffix in (".npz", ".npy"):
        return load_released_policy(path, empty=empty)
    content = read_json_object(
        path, remedy=_REMEDY,
        entries={"format": str, "protocol": str, "sub_policies": list, "note": dict},
    )  # fmt: skip
    if content["format"] != FORMAT:
        raise UserError(f"{path} has the format {content['format']!r}; expected {FORMAT!r}")
    if content["protocol"] not in ("cifar", "imagenet"):
        raise UserError(
            f"{path} has the protocol {content['protocol']!r}; expected 'cifar' or 'imagenet'"
        )
    try:
        sub_policies = tuple(
            SubPolicy(
                tuple((_text(o["name"]), _number(o["magnitude"])) for o in entry["operations"]),
                _truth(entry["crop"]),
            )
            for entry in content["sub_policies"]
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} has a damaged sub-policy ({error}); {_REMEDY}") from error
    try:
        return Policy(content["protocol"], sub_policies, content["note"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"crop is {value!r}, expected true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"name is {value!r}, expected a text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"magnitude is {value!r}, expected a number")
    return float(value)
