"""The commands by group, as the help lists them."""

from __future__ import annotations

# Group -> command -> help text. Each command is a module of its name in experiments.commands with
# a function main(arguments).
GROUPS = {
    "run an experiment": {
        "list": "experiments: the paper's cell each one reproduces, cost, state",
        "show": "one experiment: resolved values, network, deviations from the paper",
        "run": "train and measure an experiment, or resume an interrupted one",
        "sweep": "one run for each combination of values, here or on a cluster",
        "launch": "scripts that run an experiment on a cluster: SLURM, Kubernetes, SSH",
    },
    "look at results": {
        "table": "the paper's values beside ours",
        "report": "one HTML page with tables, curves and pictures",
    },
    "networks and data": {
        "models": "networks by name, with parameters and multiply-accumulates",
        "data": "list, check and prepare data sets",
        "predict": "classes of image files, by the network of a run or by stored weights",
        "ponder": "where a network of adaptive depth computes, drawn over pictures",
        "detect": "objects in image files, by a trained detector, with its ponder map",
        "export": "a trained network for other programs: safetensors, PyTorch, StableHLO",
        "evaluate": "error of a stored network on a data set",
    },
    "machine": {
        "doctor": "devices, versions, data, and what works here",
        "bench": "measure time: training, networks, kernels",
        "completion": "complete ids, names and flags in bash, zsh or fish",
    },
    "maintain": {
        "publish": "add the records of a run to those that come with the code",
        "docs": "render the tables of the documentation again from the records",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}
