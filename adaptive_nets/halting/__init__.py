"""Adaptive depth as pure functions on arrays: ACT, SACT and probabilistic ACT."""

from adaptive_nets.halting.adaptive_computation_time import (
    ActResult,
    ActState,
    act,
    act_start,
    act_step,
    active_units,
    combine_states,
)
from adaptive_nets.halting.budget import (
    BudgetCalibration,
    budget_shift,
    check_budget,
    image_dither,
    shift_logits,
)
from adaptive_nets.halting.budget_calibration import (
    calibrate_shifts,
    load_calibration,
    save_calibration,
)
from adaptive_nets.halting.discrete import (
    sample_indicators,
    stopping_unit,
    threshold_indicators,
    units_that_run,
)
from adaptive_nets.halting.flops import (
    act_flops,
    conv_flops,
    sact_head_flops,
    sact_unit_flops,
)
from adaptive_nets.halting.positions import (
    count_latents,
    dilate,
    group_average,
    group_sizes,
    mask_residual,
    spread_groups,
)
from adaptive_nets.halting.prior import (
    computation_penalty,
    expected_log_prior,
    kl_from_prior,
    truncated_geometric,
)
from adaptive_nets.halting.reinforce import (
    Baseline,
    decision_log_probs,
    expected_next_units,
    log_prob_of_units,
    reinforce_loss,
    rewards_to_go,
    start_baseline,
    update_baseline,
)
from adaptive_nets.halting.relaxation import (
    TEMPERATURE,
    relaxed_bernoulli,
    relaxed_bernoulli_logits,
)
from adaptive_nets.halting.stopping import (
    expected_units,
    log_stick_breaking,
    stick_breaking,
    survival,
)

__all__ = [
    "TEMPERATURE",
    "ActResult",
    "ActState",
    "Baseline",
    "BudgetCalibration",
    "act",
    "act_flops",
    "act_start",
    "act_step",
    "active_units",
    "budget_shift",
    "calibrate_shifts",
    "check_budget",
    "combine_states",
    "computation_penalty",
    "conv_flops",
    "count_latents",
    "decision_log_probs",
    "dilate",
    "expected_log_prior",
    "expected_next_units",
    "expected_units",
    "group_average",
    "group_sizes",
    "image_dither",
    "kl_from_prior",
    "load_calibration",
    "log_prob_of_units",
    "log_stick_breaking",
    "mask_residual",
    "reinforce_loss",
    "relaxed_bernoulli",
    "relaxed_bernoulli_logits",
    "rewards_to_go",
    "sact_head_flops",
    "sact_unit_flops",
    "sample_indicators",
    "save_calibration",
    "shift_logits",
    "spread_groups",
    "start_baseline",
    "stick_breaking",
    "stopping_unit",
    "survival",
    "threshold_indicators",
    "truncated_geometric",
    "units_that_run",
    "update_baseline",
]
