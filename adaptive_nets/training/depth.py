"""Objectives of networks of adaptive depth: task loss plus a penalty on computation.

`adaptive_depth` trains ACT, SACT and relaxed probabilistic networks; `sampled_depth` trains
discrete probabilistic networks with REINFORCE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adaptive_nets.halting import (
    Baseline,
    computation_penalty,
    decision_log_probs,
    expected_next_units,
    reinforce_loss,
    rewards_to_go,
    start_baseline,
    update_baseline,
)
from adaptive_nets.models import blocks_of, logits_of
from adaptive_nets.models.adaptive.network import AdaptiveNetwork
from adaptive_nets.models.output import BlockTrace, ModelOutput, penalty_factors_of
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.losses import cross_entropy, is_error
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch, Objective

TauSchedule = Callable[[Int[Array, ""]], Float[Array, ""]]
"""Step -> τ."""

BASELINE = "baseline"
"""Collection of the moving average of rewards."""


def adaptive_depth(rate: TauSchedule, *, label_smoothing: float = 0.0) -> Objective:
    """Builds the objective: mean cross-entropy + τ · Σ_blocks mean ponder cost.

    The mean is over images and, if positions halt independently, over positions. The ponder cost is
    ρ = N + R for ACT and SACT [figurnov2017], E[z] for probabilistic networks [figurnov2018]. Each
    image has a τ of its own if the output has `penalty_factors`.

    Args:
        rate: schedule of τ.
        label_smoothing: share of the target spread over all classes.
    """

    def objective(output, batch, params, step):
        losses, metrics = _task_loss(output, batch, label_smoothing)
        blocks = _blocks(output)
        penalty = computation_penalty([b.ponder_cost for b in blocks], rate(step))
        factors = penalty_factors_of(output)
        if factors is not None:
            penalty = penalty * factors
        loss = jnp.mean(losses) + jnp.mean(penalty)
        return loss, {**metrics, **_cost_metrics(blocks)}

    return objective


def sampled_depth(rate: TauSchedule, *, label_smoothing: float = 0.0) -> Objective:
    """Builds the objective of `adaptive_depth` for sampled units, with REINFORCE gradients.

    Args:
        rate: schedule of τ.
        label_smoothing: share of the target spread over all classes.

    Returns:
        Objective for the output of `SampledDepth`.
    """

    def objective(output, batch, params, step):
        losses, metrics = _task_loss(output, batch, label_smoothing)
        blocks, tau = _blocks(output), rate(step)
        log_probs = [
            column
            for block in blocks
            for column in decision_log_probs(block.halting_logits, block.num_units).T
        ]
        penalties = _step_penalties(blocks, tau)
        baseline = output.baseline.for_batch(rewards_to_go(-losses, penalties))
        loss = jnp.mean(reinforce_loss(-losses, log_probs, penalties, baseline=baseline))
        # The first unit of each block always runs.
        return loss + len(blocks) * tau, {**metrics, **_cost_metrics(blocks)}

    return objective


def update_reward_baseline(
    rate: TauSchedule, *, decay: float = 0.99, label_smoothing: float = 0.0
) -> Callable[[Any, Any, Batch, Int[Array, ""]], Any]:
    """Builds the update of the collection `baseline` after a step of `sampled_depth`.

    Args:
        rate: schedule of τ.
        decay: decay of the moving average of rewards, in [0, 1).
        label_smoothing: label smoothing of the objective.

    Returns:
        (model state, output, batch, step) -> model state that includes the rewards of this batch.
    """

    def update(model_state, output, batch, step):
        losses, _ = _task_loss(output, batch, label_smoothing)
        rewards = rewards_to_go(-losses, _step_penalties(_blocks(output), rate(step)))
        kept = model_state[BASELINE]
        new = update_baseline(Baseline(kept["total"], kept["weight"]), rewards, decay=decay)
        return {**model_state, BASELINE: {"total": new.total, "weight": new.weight}}

    return update


@flax.struct.dataclass
class SampledOutput(ModelOutput):
    """Output of a network whose depth is sampled in training.

    Attributes:
        baseline: moving average of the reward of each decision step, of the batches before.
    """

    baseline: Baseline = flax.struct.field(kw_only=True)


class SampledDepth(nn.Module):
    """Probabilistic network that runs discrete in training, with the baseline of REINFORCE.

    Its variables are those of the network and the collection `baseline`.

    Attributes:
        network: network of adaptive depth, called with ``mode``.
        num_steps: number of decision steps: Σ (L_k − 1) over blocks of L_k units.
    """

    network: AdaptiveNetwork
    num_steps: int

    def setup(self) -> None:
        """Shares the scope of the network and creates the baseline."""
        nn.share_scope(self, self.network)
        start = start_baseline(self.num_steps)
        self.total = self.variable(BASELINE, "total", lambda: start.total)
        self.weight = self.variable(BASELINE, "weight", lambda: start.weight)

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False, **options: Any) -> Any:
        """Computes logits; in training the network samples."""
        return self.full_output(x, train, **options).logits

    def full_output(self, x: Float[Array, "N H W C"], train: bool = False, **options: Any) -> Any:
        """Runs the network; in training it samples, and the output includes the baseline."""
        if not train:
            return self.network.full_output(x, train, **options)
        output = self.network.full_output(x, train, mode="discrete", **options)
        baseline = Baseline(self.total.value, self.weight.value)
        return SampledOutput(output.logits, output.auxiliary_logits, output.blocks,
                             baseline=baseline)  # fmt: skip


def set_head_bias(params: Any, bias: float) -> Any:
    """Returns the parameters with the bias of every halting head set to a value.

    Args:
        params: initial parameters of a network of adaptive depth.
        bias: initial bias; −3 in the authors' code. Higher values can leave late units dead.
    """

    def replace(path, leaf):
        names = [getattr(entry, "key", "") for entry in path]
        in_head = any(str(name).endswith("_head") for name in names)
        return jnp.full_like(leaf, bias) if in_head and _is_head_bias(names) else leaf

    return jax.tree_util.tree_map_with_path(replace, params)


def _is_head_bias(names: Sequence[Any]) -> bool:
    """Returns whether a path in a head ends in the bias of the logit, not of a normalisation."""
    return names[-1] == "bias" and not str(names[-2]).startswith("norm")


def _blocks(output: Any) -> tuple[BlockTrace, ...]:
    blocks = blocks_of(output)
    if not blocks:
        raise UserError(
            "the network has no halting blocks; expected a network of adaptive depth "
            "(adaptive-nets models '*act*' lists some)"
        )
    return blocks


def _step_penalties(blocks: Sequence[BlockTrace], rate: Array) -> list[Float[Array, "N"]]:
    """Returns the expected penalty of each decision step, given the earlier ones."""
    return [
        computation_penalty([costs[..., step]], rate)
        for costs in (expected_next_units(b.halting_probs, b.num_units) for b in blocks)
        for step in range(costs.shape[-1])
    ]


def _task_loss(output: Any, batch: Batch, smoothing: float) -> tuple[Array, dict[str, Mean]]:
    logits, labels = logits_of(output), batch["label"]
    losses = cross_entropy(logits, labels, label_smoothing=smoothing)
    return losses, {"nll": Mean.of(losses), "error": Mean.of(is_error(logits, labels))}


def _cost_metrics(blocks: Sequence[BlockTrace]) -> dict[str, Mean]:
    costs = {f"ponder/{i}": Mean.of(b.ponder_cost) for i, b in enumerate(blocks, start=1)}
    units = {f"units/{i}": Mean.of(b.num_units) for i, b in enumerate(blocks, start=1)}
    return {**costs, **units}
