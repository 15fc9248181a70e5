"""adaptive-nets show: one experiment before it is paid for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tyro
from rich.console import Console

from experiments.commands.list import cell_text, cost_text
from experiments.commands.parsing import parse
from experiments.suite import config as config_lib
from experiments.suite.experiment import PresetName
from experiments.suite.records import collect, default_roots
from experiments.suite.registry import find_experiment, find_preset, load_paper


@dataclasses.dataclass(frozen=True)
class Show:
    """Shows an experiment: command, cell, resolved values, network, deviations from the paper."""

    id: tyro.conf.Positional[str]
    """Id, see 'adaptive-nets list'."""
    preset: PresetName = "paper"
    """Which size to resolve."""


def main(arguments: Sequence[str]) -> None:
    """Prints everything known about one experiment without running it."""
    options = parse(Show, arguments, program="adaptive-nets show")
    experiment = find_experiment(options.id)
    preset = find_preset(experiment, options.preset)
    row = load_paper(experiment.paper).rows[experiment.row]
    console = Console(highlight=False)

    def section(title: str, text: Any) -> None:
        console.print(title, style="bold")
        for line in str(text).splitlines():
            console.print("  " + line, markup=False, soft_wrap=True)

    section(experiment.id, experiment.title)
    section("command", f"adaptive-nets run {experiment.id} --preset {options.preset}")
    section("paper", f"{cell_text(experiment)} ({row.tag}: {row.source})\n{row.setup}".rstrip())
    values = ", ".join(f"{name} {value:g}" for name, value in row.values.items())
    section("paper's values", values)
    section("cost of a seed", cost_text(experiment, collect(default_roots())))
    bounds = "\n".join(f"{b.measure} in [{b.low:g}, {b.high:g}]" for b in preset.bounds)
    section("expected", bounds or "no bounds for this preset")
    section(f"values ({config_lib.identity_hash(preset.config)})", config_lib.text(preset.config))
    model = config_lib.group(preset.config, "model")
    if model is not None:
        _show_model(console, model.name)
    section("deviations from the paper", "\n".join(experiment.deviations) or "none known")


def _show_model(console: Console, name: str) -> None:
    from adaptive_nets.analysis import count_macs
    from adaptive_nets.analysis.parameters import abstract_variables
    from adaptive_nets.models import create_model, model_entry
    from adaptive_nets.runtime.pytrees import parameter_table

    entry = model_entry(name)
    params = abstract_variables(create_model(name), entry.input_shape)["params"]
    console.print(parameter_table(params, title=f"network {name}"))
    macs = count_macs(name)
    console.print(
        f"  {macs:,} MACs ({2 * macs:,} FLOPs) per image of {entry.input_shape}", markup=False
    )
