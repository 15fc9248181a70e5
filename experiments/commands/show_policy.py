"""A test-time policy of a file, for people and for pipes."""

from __future__ import annotations

from pathlib import Path

from experiments.commands.layout import Column
from experiments.commands.output import print_json, show_listing

_SUFFIXES = (".json", ".npz", ".npy")
_COLUMNS = (
    Column("view"),
    Column("operations", rank=1),
    Column("crop", "crop and flip", rank=2, text=lambda crop: "yes" if crop else "no"),
)


def is_policy_file(name: str) -> bool:
    """Returns whether a name is that of a policy file rather than of an experiment."""
    return Path(name).suffix in _SUFFIXES


def show_policy(path: Path, *, as_json: bool = False) -> None:
    """Prints the sub-policies of a file in order, and their counts.

    Args:
        path: file of a policy.
        as_json: whether to print JSON instead.

    Raises:
        UserError: the file is absent or is no policy.
    """
    from adaptive_nets.ensembling import load_policy

    policy = load_policy(path)
    rows = [
        {
            "view": number,
            "operations": ", ".join(f"{name} {value:.1f}" for name, value in s.operations)
            or "none",
            "crop": s.crop,
        }
        for number, s in enumerate(policy.sub_policies, start=1)
    ]
    counts = policy.summary()
    if as_json:
        print_json(
            {"protocol": policy.protocol, "note": dict(policy.note), **counts, "views": rows}
        )
        return
    notes = [
        f"{counts['length']} sub-policies under the protocol {policy.protocol}, "
        f"{counts['unique']} distinct; the most frequent {counts['repeats']} times; "
        f"{counts['unchanged']} without any change, {counts['crops']} of crop and flip alone; "
        f"{100 * counts['strong']:.0f} % with a magnitude above 20"
    ]
    show_listing(_COLUMNS, rows, notes=notes)
