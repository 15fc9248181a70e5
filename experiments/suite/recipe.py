"""The rule that tells changes of a recipe from changes of the row that an experiment reproduces.

The paper's number of a row belongs to the values that define the row: the network, τ, the factor of
a search, the number of latent variables. A run in which one of them is changed measures another
row. The recipe leads to the number: data limits and augmentation, batch size, optimiser, schedule,
devices. A run with a changed recipe is compared, and the changes are listed beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

# Groups of values that belong to the recipe, whatever the experiment.
RECIPE_GROUPS = ("data", "optimiser", "schedule", "mesh", "run")
# Values in these groups that define the row nevertheless: they change what is learned.
DEFINING = ("data.name", "data.labels")


def is_recipe(name: str, own: Iterable[str] = ()) -> bool:
    """Returns whether a value belongs to the recipe; otherwise it defines the row.

    Args:
        name: name of the value, such as "halting.tau".
        own: names of further values of the recipe, `Experiment.recipe`.
    """
    if name in DEFINING:
        return False
    return name.split(".", 1)[0] in RECIPE_GROUPS or name in own
