"""Branch dropout: stochastic depth, and drop-path of fractal networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from adaptive_nets.layers.arguments import as_array
from adaptive_nets.runtime.errors import UserError


def linear_survival(num_units: int, last: float) -> tuple[float, ...]:
    """Computes survival probabilities p_l = 1 - (l / L) (1 - p_L), l = 1..L (huang2016, eq. 4).

    Args:
        num_units: L.
        last: p_L, a fraction in (0, 1].

    Raises:
        UserError: p_L is outside (0, 1].
    """
    if not 0 < last <= 1:
        raise UserError(f"survival of the last unit is {last}; expected a fraction in (0, 1]")
    return tuple(1 - (unit / num_units) * (1 - last) for unit in range(1, num_units + 1))


def survives(key: Key[Array, ""], survival: float | Float[Array, ""]) -> Bool[Array, ""]:
    """Draws once for the mini-batch: True with probability ``survival``."""
    return jax.random.bernoulli(key, survival)


def stochastic_depth(
    key: Key[Array, ""] | None,
    residual: Float[Array, "N ..."],
    *,
    survival: float | Float[Array, ""],
    train: bool,
    per_example: bool = False,
) -> Float[Array, "N ..."]:
    """Drops a residual branch at random in training; scales it by ``survival`` at test (huang2016).

    The branch is already computed, so this saves no time; `stochastic_depth_branch` can skip it.

    Args:
        key: PRNG key of the draw; ignored at test.
        residual: float[N, ...], output of the branch.
        survival: probability that the branch is kept.
        train: whether to draw.
        per_example: whether to draw once per example instead of once per mini-batch.

    Raises:
        ValueError: `key` is None in training.
    """
    residual = as_array("residual", residual)
    if not train:
        return residual * jnp.asarray(survival, residual.dtype)
    if key is None:
        raise ValueError(
            "key is None; expected a PRNG key in training, such as make_rng('drop_path')"
        )
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
    """Applies a branch with stochastic depth, one draw per mini-batch from stream ``drop_path``.

    A dropped branch does not update its running statistics. A skipped branch runs neither the
    forward nor the backward pass. By default nothing is skipped on a CPU, where XLA runs
    convolutions inside conditionals about ten times slower.

    Args:
        module: owner of the branch's parameters.
        residual: (module, x) -> output of the branch.
        x: float[N, H, W, C], input of the branch.
        like: float[N, H', W', O], an array with the shape and dtype of the output, such as the
            shortcut.
        survival: probability that the branch is kept.
        train: whether to draw; otherwise the branch is computed and scaled by ``survival``.
        skip: whether `nn.cond` skips a dropped branch instead of computing and discarding it; None
            skips on every platform except the CPU.
    """
    if not train or module.is_initializing():
        return residual(module, x) * jnp.asarray(survival, like.dtype)

    def zeros(module: nn.Module, x: Array) -> Array:
        del module, x
        return jnp.zeros_like(like)

    kept = survives(module.make_rng("drop_path"), survival)
    if skip or (skip is None and jax.default_backend() != "cpu"):
        return nn.cond(kept, residual, zeros, module, x)
    before: dict[str, Any] = {}

    def save_statistics(variables: dict[str, Any]) -> dict[str, Any]:
        before.update(variables)
        return variables

    def select_statistics(variables: dict[str, Any]) -> dict[str, Any]:
        return jax.tree.map(
            lambda new, old: jnp.where(kept, new, old), dict(variables), dict(before)
        )

    computed = nn.map_variables(
        residual,
        "batch_stats",
        trans_in_fn=save_statistics,
        trans_out_fn=select_statistics,
        mutable=True,
    )(module, x)
    return jnp.where(kept, computed, zeros(module, x))


def local_drop_path(
    key: Key[Array, ""], num_inputs: int, *, drop_rate: float, num_draws: int = 1
) -> Bool[Array, "D J"]:
    """Draws the live inputs of a join: independent drops, but at least one is kept (larsson2017).

    If all inputs are dropped, one of them, chosen uniformly, is kept.

    Args:
        key: PRNG key of the join.
        num_inputs: J.
        drop_rate: probability of dropping an input.
        num_draws: D, 1 for one draw per mini-batch, N for one per example.

    Returns:
        bool[D, J], with at least one True per row.
    """
    key_drop, key_kept = jax.random.split(key)
    live = jax.random.bernoulli(key_drop, 1 - drop_rate, (num_draws, num_inputs))
    fallback = jax.random.randint(key_kept, (num_draws,), 0, num_inputs)
    all_dropped = ~jnp.any(live, axis=1, keepdims=True)
    return live | (all_dropped & jax.nn.one_hot(fallback, num_inputs, dtype=bool))


def global_drop_path(
    column: Int[Array, " D"], join_columns: Sequence[int]
) -> tuple[Bool[Array, "D J"], Bool[Array, " D"]]:
    """Selects the live input of a join if a single column is active (larsson2017).

    Args:
        column: int[D], active column, the same for every join.
        join_columns: columns of the join's J inputs.

    Returns:
        bool[D, J], one-hot over the inputs, and bool[D], whether the column is among the inputs. If
        it is not, no later live path reads the join.
    """
    live = jnp.asarray(column)[:, None] == jnp.asarray(join_columns)[None, :]
    return live, jnp.any(live, axis=1)


@flax.struct.dataclass
class DropPathDraw:
    """Drop-path sample shared by all joins of a network.

    Attributes:
        key: PRNG key of local sampling.
        is_global: bool[D], whether a single column is active; otherwise each join samples locally.
        column: int[D], active column; undefined where ``is_global`` is False.
        drop_rate: probability of dropping an input of a join in local sampling.
    """

    key: Key[Array, ""]
    is_global: Bool[Array, " D"]
    column: Int[Array, " D"]
    drop_rate: float = flax.struct.field(pytree_node=False)

    def live(self, join: int, join_columns: Sequence[int]) -> Bool[Array, "D J"]:
        """Returns the mask of live inputs of a join.

        Args:
            join: index of the join, unique in the network.
            join_columns: columns of its J inputs.
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
        key: PRNG key of the training step.
        num_columns: number of columns of the network's blocks.
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
    """Averages the live inputs of a join.

    Args:
        inputs: J arrays float[N, H, W, C].
        live: bool[D, J], D = 1 for the whole mini-batch or N; at least one True per row.
    """
    inputs, live = [as_array("inputs", branch) for branch in inputs], jnp.asarray(live)
    counts = jnp.sum(live, axis=1, keepdims=True)
    shares = jnp.where(live, 1.0 / counts, 0.0).astype(inputs[0].dtype)
    # Selected rather than multiplied by zero: a dropped input may not be finite.
    kept = (
        jnp.where(live[:, i, None, None, None], branch * shares[:, i, None, None, None], 0)
        for i, branch in enumerate(inputs)
    )
    total = next(kept)
    for branch in kept:
        total = total + branch
    return total
