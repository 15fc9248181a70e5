"""PerforatedCNNs: masks of computed positions, nearest-kept maps, perforated networks, search."""

from adaptive_nets.perforation.adapters import adapt_network
from adaptive_nets.perforation.baselines import FractionalStride, SmallerInput
from adaptive_nets.perforation.candidates import SearchSettings
from adaptive_nets.perforation.cost import ActivationBytes, activation_bytes, plan_macs
from adaptive_nets.perforation.filled_loss import FilledLoss
from adaptive_nets.perforation.find_layers import conv_layers
from adaptive_nets.perforation.impact import average_impact
from adaptive_nets.perforation.layers import ConvLayer, Pooling, fingerprint
from adaptive_nets.perforation.masks import (
    graham_sequence,
    grid_mask,
    impact_mask,
    pooling_structure_mask,
    regular_mask,
    uniform_mask,
)
from adaptive_nets.perforation.measured_time import MeasuredTime
from adaptive_nets.perforation.nearest import nearest_kept
from adaptive_nets.perforation.network import PerforatedModel
from adaptive_nets.perforation.own import PerforatedNetwork, perforate
from adaptive_nets.perforation.plan import (
    LayerMask,
    PerforationPlan,
    check_plan,
    layer_mask,
    make_plan,
)
from adaptive_nets.perforation.plan_files import load_plan, load_plan_variables, save_plan
from adaptive_nets.perforation.pooling_counts import pooling_counts
from adaptive_nets.perforation.search import GreedySearch, SearchResult

__all__ = [
    "ActivationBytes",
    "ConvLayer",
    "FilledLoss",
    "FractionalStride",
    "GreedySearch",
    "LayerMask",
    "MeasuredTime",
    "PerforatedModel",
    "PerforatedNetwork",
    "PerforationPlan",
    "Pooling",
    "SearchResult",
    "SearchSettings",
    "SmallerInput",
    "activation_bytes",
    "adapt_network",
    "average_impact",
    "check_plan",
    "conv_layers",
    "fingerprint",
    "graham_sequence",
    "grid_mask",
    "impact_mask",
    "layer_mask",
    "load_plan",
    "load_plan_variables",
    "make_plan",
    "nearest_kept",
    "perforate",
    "plan_macs",
    "pooling_counts",
    "pooling_structure_mask",
    "regular_mask",
    "save_plan",
    "uniform_mask",
]
