"""adaptive-nets completion: completion scripts for bash, zsh and fish."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import tyro

from experiments.commands.parsing import parse

EXAMPLES = (
    'eval "$(adaptive-nets completion bash)"    # in ~/.bashrc',
    'eval "$(adaptive-nets completion zsh)"     # in ~/.zshrc, after compinit',
    "adaptive-nets completion fish > ~/.config/fish/completions/adaptive-nets.fish",
)

# A word without candidates is completed as a file name.
_BASH = """\
_adaptive_nets() {
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _adaptive_nets adaptive-nets
"""
_ZSH = """\
_adaptive_nets() {
    local -a found
    found=("${(@f)$("${words[1]}" complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( ${#found} )); then compadd -a found; else _files; fi
}
compdef _adaptive_nets adaptive-nets
"""
_FISH = """\
function __adaptive_nets
    set -l words (commandline -opc) (commandline -ct)
    $words[1] complete $words[2..-1] 2>/dev/null
end
complete -c adaptive-nets -a '(__adaptive_nets)'
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@dataclasses.dataclass(frozen=True)
class Completion:
    """Prints a script that completes commands, flags, ids of experiments, models and data sets."""

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Shell that reads the script."""


def main(arguments: Sequence[str]) -> None:
    """Prints the script."""
    options = parse(Completion, arguments, program="adaptive-nets completion", examples=EXAMPLES)
    print(SHELLS[options.shell], end="")
