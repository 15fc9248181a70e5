"""Dropping whole branches in training: stochastic depth, and drop-path of fractal networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from adaptive_nets.runtime.errors import UserError


def linear_survival(num_units: int, last: float) -> tuple[float, ...]:
    """Survival probabilities p_l = 1 - (l / L) (1 - p_L) of units l = 1..L (huang2016, eq. 4).

    Args:
        num_units: L.
        last: p_L, a fraction in (0, 1].

    Raises:
        UserError: p_L is out of range.
    """
    if not 0 < last <= 1:
        raise UserError(f"survival of the last unit is {last}; expected a fraction in (0, 1]")
    return tuple(1 - (unit / num_units) * (1 - last) for unit in range(1, num_units + 1))


def survives(key: Key[Array, ""], survival: float | Float[Array, ""]) -> Bool[Array, ""]:
    """One draw for a whole mini-batch: true with probability ``survival``."""
    return jax.random.bernoulli(key, survival)


def stochastic_depth(
    key: Key[Array, ""] | None,
    residual: Float[Array, "N ..."],
    *,
    survival: float | Float[Array, ""],
    train: bool,
    per_example: bool = False,
) -> Float[Array, "N ..."]:
    """The residual branch times its draw in training, times its probability at test (huang2016).

    The branch has been computed already, so nothing is saved; `stochastic_depth_branch` skips it.

    Args:
        key: for the draw; unused at test.
        residual: float[N, ...], output of the branch.
        survival: probability that the branch is kept.
        train: whether to draw.
        per_example: one draw for every example in place of one for the mini-batch.
    """
    if not train:
        return residual * jnp.asarray(survival, residual.dtype)
    if key is None:
        raise ValueError("key is None; expected a PRNG key in training")
    shape = (residual.shape[0] if per_example else 1, *(1,) * (residual.ndim - 1))
    kept = jax.random.bernoulli(key, survival, shape)
    return jnp.where(kept, residual, jnp.zeros_like(residual))


def stochastic_depth_branch(
    module: nn.Module,
    residual: Callable[[Any, Array], Array],
    x: Float[Array, "N H W C"],
    like: Float[Array, "N H2 W2 O"],
    *,
    survival: float | Float[Array, ""],
    train: bool,
    skip: bool | None = None,
) -> Float[Array, "N H2 W2 O"]:
    """Stochastic depth with one draw per mini-batch, from the module's stream ``drop_path``.

    A dropped branch leaves its running statistics as they were, and where it is skipped it is not
    computed at all, forwards or backwards. XLA on CPU runs convolutions inside conditionals an
    order of magnitude more slowly, so there nothing is skipped by default.

    Args:
        module: owner of the branch's parameters.
        residual: (module, x) -> the branch's output.
        x: float[N, H, W, C], input of the branch.
        like: float[N, H', W', O], an array of the output's shape and dtype, the shortcut for
            instance.
        survival: probability that the branch is kept.
        train: whether to draw; else the branch is computed and scaled by ``survival``.
        skip: whether a dropped branch is skipped by a conditional rather than computed and
            discarded; where None, on every platform but the CPU.
    """
    if not train or module.is_initializing():
        return residual(module, x) * jnp.asarray(survival, like.dtype)

    def nothing(module: nn.Module, x: Array) -> Array:
        del module, x
        return jnp.zeros_like(like)

    kept = survives(module.make_rng("drop_path"), survival)
    if skip or (skip is None and jax.default_backend() != "cpu"):
        return nn.cond(kept, residual, nothing, module, x)
    before: dict[str, Any] = {}

    def remember(variables: dict[str, Any]) -> dict[str, Any]:
        before.update(variables)
        return variables

    def choose(variables: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(
            lambda new, old: jnp.where(kept, new, old), dict(variables), dict(before)
        )

    computed = nn.map_variables(
        residual, "batch_stats", trans_in_fn=remember, trans_out_fn=choose, mutable=True
    )(module, x)
    return jnp.where(kept, computed, nothing(module, x))


def local_drop_path(
    key: Key[Array, ""], num_inputs: int, *, drop_rate: float, num_draws: int = 1
) -> Bool[Array, "D J"]:
    """Which inputs of one join live: each is dropped on its own, but one stays (larsson2017).

    Where all would be dropped, one of them, any with the same probability, is kept.

    Args:
        key: PRNG key of this join.
        num_inputs: J.
        drop_rate: probability of dropping an input.
        num_draws: D, 1 for one draw per mini-batch, N for one per example.

    Returns:
        bool[D, J], with a true one in every row.
    """
    key_drop, key_kept = jax.random.split(key)
    live = jax.random.bernoulli(key_drop, 1 - drop_rate, (num_draws, num_inputs))
    saved = jax.random.randint(key_kept, (num_draws,), 0, num_inputs)
    nothing_left = ~jnp.any(live, axis=1, keepdims=True)
    return live | (nothing_left & jax.nn.one_hot(saved, num_inputs, dtype=bool))


def global_drop_path(
    column: Int[Array, " D"], join_columns: Sequence[int]
) -> tuple[Bool[Array, "D J"], Bool[Array, " D"]]:
    """Which inputs of one join live where a single column runs through the network (larsson2017).

    Args:
        column: int[D], the chosen column, the same for every join.
        join_columns: columns that this join's J inputs come from.

    Returns:
        bool[D, J] and bool[D]: the live input, and whether the column is among the inputs at all;
        a join without it feeds nothing that is used.
    """
    live = column[:, None] == jnp.asarray(join_columns)[None, :]
    return live, jnp.any(live, axis=1)


@flax.struct.dataclass
class DropPathDraw:
    """One draw of drop-path for a whole network; the same in all of its joins.

    Attributes:
        key: PRNG key of the local draws.
        is_global: bool[D], whether a single column is sampled rather than every join on its own.
        column: int[D], that column, in use where ``is_global``.
        drop_rate: probability of dropping an input of a join in local sampling.
    """

    key: Key[Array, ""]
    is_global: Bool[Array, " D"]
    column: Int[Array, " D"]
    drop_rate: float = flax.struct.field(pytree_node=False)

    def live(self, join: int, join_columns: Sequence[int]) -> Bool[Array, "D J"]:
        """Which inputs of a join live.

        Args:
            join: number of the join, unique in the network.
            join_columns: columns that its J inputs come from.
        """
        key = jax.random.fold_in(self.key, join)
        draws = self.is_global.shape[0]
        local = local_drop_path(key, len(join_columns), drop_rate=self.drop_rate, num_draws=draws)
        single, is_among = global_drop_path(self.column, join_columns)
        return jnp.where((self.is_global & is_among)[:, None], single, local)


def draw_paths(
    key: Key[Array, ""],
    num_columns: int,
    *,
    drop_rate: float,
    global_share: float,
    num_draws: int = 1,
) -> DropPathDraw:
    """Draws local or global drop-path for a network (larsson2017).

    Args:
        key: PRNG key of this step.
        num_columns: of the network's blocks.
        drop_rate: probability of dropping an input of a join in local sampling.
        global_share: probability of global sampling.
        num_draws: D, 1 for one draw per mini-batch, N for one per example.
    """
    key_share, key_column, key_local = jax.random.split(key, 3)
    return DropPathDraw(
        key=key_local,
        is_global=jax.random.bernoulli(key_share, global_share, (num_draws,)),
        column=jax.random.randint(key_column, (num_draws,), 0, num_columns),
        drop_rate=drop_rate,
    )


def mean_of_live(
    inputs: Sequence[Float[Array, "N H W C"]], live: Bool[Array, "D J"]
) -> Float[Array, "N H W C"]:
    """Mean over the live inputs of a join.

    Args:
        inputs: J arrays float[N, H, W, C].
        live: bool[D, J], D = 1 for the whole mini-batch or N; a true one in every row.
    """
    counts = jnp.sum(live, axis=1, keepdims=True)
    shares = jnp.where(live, 1.0 / counts, 0.0).astype(inputs[0].dtype)
    # A dropped input is left out rather than multiplied by zero: it may not be finite.
    kept = (
        jnp.where(live[:, i, None, None, None], branch * shares[:, i, None, None, None], 0)
        for i, branch in enumerate(inputs)
    )
    total = next(kept)
    for branch in kept:
        total = total + branch
    return total
