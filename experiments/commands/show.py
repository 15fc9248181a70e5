"""adaptive-nets show: values, cost and network of an experiment, or a policy of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from adaptive_nets.training.ranges import described_ranges
from experiments.commands.layout import Column, grouped, table_lines, wrap
from experiments.commands.list import cell_text
from experiments.commands.models import size_text
from experiments.commands.output import console, hint, is_terminal, show_fields, terminal_width
from experiments.commands.parsing import parse
from experiments.commands.show_policy import is_policy_file, show_policy
from experiments.suite import config as config_lib
from experiments.suite.comparison import best_verdict_text
from experiments.suite.cost import cost_text, seed_costs
from experiments.suite.experiment import PresetName
from experiments.suite.records import collect, default_roots
from experiments.suite.registry import find_experiment, find_preset, load_paper

EXAMPLES = (
    "adaptive-nets show {id}",
    "adaptive-nets show {id} --preset quick --json",
    "adaptive-nets show policy.json",
)
_PARAMETERS = (
    Column("name", "parameter"),
    Column("shape", rank=1, text=lambda shape: size_text(shape) or "scalar"),
    Column("elements", rank=2, align="right", text=grouped),
    Column("dtype", rank=3),
)


@dataclasses.dataclass(frozen=True)
class Show:
    """Shows an experiment: command, cell, resolved values, network, deviations from the paper.

    With the name of a policy file, shows the test-time policy in it.
    """

    id: tyro.conf.Positional[str]
    """Id, see 'adaptive-nets list'; or a policy file (*.json, *.npz, *.npy)."""
    preset: PresetName = "paper"
    """Size whose values are shown."""
    json: bool = False
    """Print JSON instead."""


def described(name: str, preset_name: PresetName) -> dict[str, Any]:
    """Returns everything known about one experiment without running it."""
    experiment = find_experiment(name)
    preset = find_preset(experiment, preset_name)
    row = load_paper(experiment.paper).rows[experiment.row]
    records = collect(default_roots())
    model = getattr(config_lib.group(preset.config, "model"), "name", None)
    options = getattr(config_lib.group(preset.config, "network"), "overrides", dict)()
    return {
        "id": experiment.id,
        "title": experiment.title,
        "presets": list(experiment.presets),
        "preset": preset_name,
        "command": f"adaptive-nets run {experiment.id} --preset {preset_name}",
        "data": experiment.data,
        "state": best_verdict_text(experiment, records),
        "paper": {
            "name": experiment.paper,
            "cell": cell_text(experiment),
            "tag": row.tag,
            "source": row.source,
            "setup": row.setup,
            "values": dict(row.values),
        },
        "cost": [dataclasses.asdict(cost) for cost in seed_costs(experiment, records)],
        "cost_text": cost_text(seed_costs(experiment, records)),
        "seeds": preset.seeds,
        "expected": [dataclasses.asdict(bound) for bound in preset.bounds],
        "config_hash": config_lib.identity_hash(preset.config),
        "config": config_lib.to_dict(preset.config),
        "ranges": described_ranges(type(preset.config)),
        "network": described_network(model, options) if model else None,
        "deviations": list(experiment.deviations),
    }


def described_network(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns counts and parameters of a network of the zoo at its canonical input.

    Args:
        name: name of the network.
        options: options of `create_model` that the configuration sets; those of a paper's own
            variant, which the zoo does not have, are left out.
    """
    from adaptive_nets.analysis import count_macs
    from adaptive_nets.analysis.model_counts import shipped_counts
    from adaptive_nets.analysis.parameters import abstract_variables
    from adaptive_nets.models import create_model, model_entry
    from adaptive_nets.models.shapes import flatten_paths

    entry = model_entry(name)
    known = {option: value for option, value in options.items() if option in entry.overrides}
    model = create_model(name, **known)
    leaves = flatten_paths(abstract_variables(model, entry.input_shape)["params"])
    shipped = None if known else shipped_counts().get(entry.name)
    return {
        "name": entry.name,
        "input_shape": list(entry.input_shape),
        "parameters": sum(leaf.size for leaf in leaves.values()),
        "macs": shipped["macs"] if shipped else count_macs(model, input_shape=entry.input_shape),
        "arrays": [
            {
                "name": path,
                "shape": list(leaf.shape),
                "elements": leaf.size,
                "dtype": str(leaf.dtype),
            }
            for path, leaf in leaves.items()
        ],
    }


def _values_text(content: Mapping[str, Any]) -> str:
    """Formats the values, one per line, each with its range."""
    lines = config_lib.text_of(content["config"]).splitlines()
    ranges = [content["ranges"].get(line.split(" = ")[0], "") for line in lines]
    return "\n".join(
        f"{line}    # {words}" if words else line for line, words in zip(lines, ranges, strict=True)
    )


def _draw(content: Mapping[str, Any]) -> None:
    """Prints the sections on a terminal."""
    screen, width = console(), terminal_width()

    def section(title: str, text: str) -> None:
        screen.print(title, style="bold")
        for line in wrap(text, width, "  "):
            screen.print(line, soft_wrap=True)

    paper = content["paper"]
    section(content["id"], content["title"])
    section("command", content["command"])
    section("data", content["data"])
    source = f"{paper['cell']} ({paper['tag']}: {paper['source']})"
    section("paper", f"{source}\n{paper['setup']}".rstrip())
    values = ", ".join(
        f"{name} {value if isinstance(value, str) else f'{value:g}'}"
        for name, value in paper["values"].items()
    )
    section("paper's values", values or "none printed")
    section("state", content["state"])
    section("cost of a seed", content["cost_text"])
    bounds = [f"{b['measure']} in [{b['low']:g}, {b['high']:g}]" for b in content["expected"]]
    section("expected", "\n".join(bounds) or "no bounds for this preset")
    section(f"values ({content['config_hash']})", _values_text(content))
    if content["network"]:
        network = content["network"]
        screen.print(f"network {network['name']}", style="bold")
        for line in table_lines(_PARAMETERS, network["arrays"], width=width - 2):
            screen.print("  ", line, sep="", soft_wrap=True)
        macs = network["macs"]
        section(
            f"{network['parameters']:,} parameters",
            f"{macs:,} MACs ({2 * macs:,} FLOPs) per image of {size_text(network['input_shape'])}",
        )
    section("deviations from the paper", "\n".join(content["deviations"]) or "none known")


def main(arguments: Sequence[str]) -> None:
    """Prints everything known about one experiment without running it."""
    options = parse(Show, arguments, program="adaptive-nets show", examples=EXAMPLES)
    if is_policy_file(options.id):
        show_policy(Path(options.id), as_json=options.json)
        return
    content = described(options.id, options.preset)
    if options.json or not is_terminal():
        show_fields(content, as_json=options.json)
    else:
        _draw(content)
    if not options.json:
        preset = "quick" if "quick" in content["presets"] else options.preset
        hint(f"adaptive-nets run {content['id']} --preset {preset}")
