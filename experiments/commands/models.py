"""adaptive-nets models: the zoo by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from adaptive_nets.errors import UserError, did_you_mean
from experiments.commands.parsing import parse


@dataclasses.dataclass(frozen=True)
class Models:
    """Lists networks: name, parameters, multiply-accumulates per image, input size, source."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern, such as 'lenet*'."""
    json: bool = False
    """Print JSON instead of a table."""


def main(arguments: Sequence[str]) -> None:
    """Prints the networks that match."""
    options = parse(Models, arguments, program="adaptive-nets models")
    from adaptive_nets import count_macs, count_params, list_models
    from adaptive_nets.models import model_entry

    names = list_models(options.pattern)
    if not names:
        raise UserError(
            f"no model matches {options.pattern!r}; {did_you_mean(options.pattern, list_models())}"
        )
    rows = []
    for name in names:
        entry = model_entry(name)
        rows.append(
            {
                "name": name,
                "parameters": count_params(name),
                "macs": count_macs(name),
                "input_shape": list(entry.input_shape),
                "num_classes": entry.num_classes,
                "source": entry.source,
                "description": entry.description,
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "parameters", "MACs", "input", "classes", "source", "what"):
        right = column in ("parameters", "MACs", "classes")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
            "x".join(map(str, row["input_shape"])),
            str(row["num_classes"]),
            row["source"],
            row["description"],
        )
    Console().print(table)
