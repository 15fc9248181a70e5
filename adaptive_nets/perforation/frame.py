"""Environment of one jaxpr during interpretation: values and the network variables behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptive_nets.perforation import compact_rules, equations

# Paths of the network variables from which a value is computed, {IMAGE} if also from the image or
# from random keys, empty for constants.
Sources = frozenset[str]
IMAGE = ""
_DEPENDENT: Sources = frozenset((IMAGE,))


def kernel_path(sources: Sources) -> str:
    """Returns the path of the kernel among the sources of a convolution's weights.

    Weights may be computed from several variables, such as a kernel and its norm.

    Returns:
        The only source, or the only one named "kernel"; "" if there is none.
    """
    if len(sources) == 1:
        return next(iter(sources))
    kernels = [path for path in sources if path.rpartition("/")[2] == "kernel"]
    return kernels[0] if len(kernels) == 1 else ""


class Frame:
    """Values of the variables of one jaxpr and their sources.

    Args:
        program: the jaxpr.
        constants: its constants.
        arguments: its inputs.
        sources: sources of each input.

    Attributes:
        awaited: sum of a convolution's output and its bias -> name of the convolution, until the
            sum is computed.
    """

    def __init__(
        self,
        program: Any,
        constants: Sequence[Any],
        arguments: Sequence[Any],
        sources: Sequence[Sources],
    ) -> None:
        self._program = program
        self._values = dict(zip(program.constvars, constants, strict=True))
        self._values.update(zip(program.invars, arguments, strict=True))
        self._sources = dict(zip(program.invars, sources, strict=True))
        for equation in program.eqns:
            self._sources.update(dict.fromkeys(equation.outvars, self._joint_sources(equation)))
        self._unbroadcast: dict[Any, Any] = {}
        self.awaited: dict[Any, str] = {}

    def read(self, atom: Any) -> Any:
        """Returns the value of an operand."""
        return self._values[atom] if equations.is_variable(atom) else atom.val

    def read_unbroadcast(self, atom: Any) -> Any:
        """Returns the value of an operand before its broadcast over positions, if there is one."""
        known = equations.is_variable(atom) and atom in self._unbroadcast
        return self._unbroadcast[atom] if known else self.read(atom)

    def sources(self, atom: Any) -> Sources:
        """Returns the sources of an operand."""
        known = equations.is_variable(atom)
        return self._sources.get(atom, frozenset()) if known else frozenset()

    def _joint_sources(self, equation: Any) -> Sources:
        joint = frozenset().union(*(self.sources(atom) for atom in equation.invars))
        return _DEPENDENT if IMAGE in joint else joint

    def write(self, equation: Any, outputs: Sequence[Any]) -> None:
        """Stores the values of an equation's outputs."""
        self._values.update(zip(equation.outvars, outputs, strict=True))
        if equation.primitive.name == "broadcast_in_dim" and equation.outvars[0].aval.ndim == 4:
            operand = self.read_unbroadcast(equation.invars[0])
            unbroadcast = compact_rules.unbroadcast(equation, operand)
            if unbroadcast is not None:
                self._unbroadcast[equation.outvars[0]] = unbroadcast

    def sum_with_bias(self, output: Any, bias: str) -> Any:
        """Returns the variable to which the bias at path `bias` and `output` add up, or None."""
        for equation in self._program.eqns:
            if equation.primitive.name != "add":
                continue
            summands = [atom for atom in equation.invars if equations.is_variable(atom)]
            if output in summands and any(self.sources(atom) == {bias} for atom in summands):
                return equation.outvars[0]
        return None
