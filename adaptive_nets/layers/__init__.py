"""Thin linen modules that own parameters and call pure functions."""

from adaptive_nets.layers.conv3d import Conv3d, channels_to_depth, depth_to_channels
from adaptive_nets.layers.conv_norm import ConvNorm, batch_norm, conv
from adaptive_nets.layers.halting_head import HaltingHead
from adaptive_nets.layers.hyper_kernel import GeneratedConv, HyperKernels, generate_kernels
from adaptive_nets.layers.layer_factory import PLAIN, LayerKind, PlainLayers, SparseVDLayers
from adaptive_nets.layers.local_response_norm import local_response_norm
from adaptive_nets.layers.meta import GroupedDense, Meta
from adaptive_nets.layers.pooling import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool
from adaptive_nets.layers.prelu import PReLU
from adaptive_nets.layers.recurrent_cells import LSTM, HyperLSTM, HyperRNN
from adaptive_nets.layers.sparse_network import SparseNetwork
from adaptive_nets.layers.sparse_vd import SparseConv, SparseDense
from adaptive_nets.layers.squeeze_excitation import SqueezeExcitation

__all__ = [
    "LSTM",
    "PLAIN",
    "Conv3d",
    "ConvNorm",
    "GeneratedConv",
    "GroupedDense",
    "HaltingHead",
    "HyperKernels",
    "HyperLSTM",
    "HyperRNN",
    "LayerKind",
    "Meta",
    "PReLU",
    "PlainLayers",
    "SparseConv",
    "SparseDense",
    "SparseNetwork",
    "SparseVDLayers",
    "SqueezeExcitation",
    "adaptive_avg_pool",
    "avg_pool",
    "batch_norm",
    "channels_to_depth",
    "conv",
    "depth_to_channels",
    "generate_kernels",
    "global_avg_pool",
    "local_response_norm",
    "max_pool",
]
