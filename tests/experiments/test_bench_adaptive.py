"""bench adaptive: shares of the FLOPs that are asked for, and the break-even."""

from __future__ import annotations

import json

import numpy as np
import pytest

from adaptive_nets.models.adaptive.cost import block_flops
from adaptive_nets.runtime.errors import UserError
from experiments.bench import adaptive_case
from experiments.bench.adaptive_depth import Comparison, break_even


def point(flops: float, time: float) -> Comparison:
    return Comparison("network", 0.5, flops, time, time / flops, {}, 5)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.5, 0.6), (0.7, 0.9), (0.9, 1.1)], 0.8),
        ([(0.9, 1.1), (0.5, 0.6)], 0.82),
        ([(0.5, 0.6), (0.7, 0.8)], 0.7),
        ([(0.5, 1.0), (0.7, 1.2)], None),
        ([], None),
    ],
)
def test_break_even(points, expected):
    found = break_even([point(*values) for values in points])
    assert found == (None if expected is None else pytest.approx(expected))


def test_only_networks_of_adaptive_depth_have_a_plain_form():
    assert adaptive_case.plain_name("resnet32_sact_cifar10") == "resnetv2_32_cifar10"
    assert adaptive_case.plain_name("resnetv1_20_act_cifar10") == "resnet20_cifar10"
    with pytest.raises(UserError, match="is not a network of adaptive depth"):
        adaptive_case.plain_name("resnet20_cifar10")


@pytest.fixture(scope="module")
def network():
    return adaptive_case.Network(
        adaptive_case.Settings("resnetv1_20_sact_cifar10", height=32, width=32, batch=2)
    )


@pytest.mark.parametrize("share", [0.5, pytest.param(0.8, marks=pytest.mark.slow)])
def test_blocks_spend_the_share_that_is_asked_for(network, share):
    case = network.case(flops=share)
    spent = block_flops(network.model, case.output).mean(axis=0)
    plain = 2 * np.asarray(network.block_macs)
    np.testing.assert_allclose(spent / plain, share, atol=0.05)


def test_positions_stop_early_as_asked_for(network):
    assert network.case(stop_early=0.5).stop_early == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_rows_and_break_even_are_written(call, tmp_path):
    flags = ("--height", "32", "--width", "32", "--flops", "0.5", "0.9", "--seconds", "0.1")
    code, _, err = call("bench", "adaptive", "resnet32_sact_cifar10", *flags, "--json", "a.json")
    assert code == 0, err
    values = json.loads((tmp_path / "a.json").read_text())["values"]
    assert [part["part"] for part in values["parts"]] == ["network", "network"]
    assert set(values) == {"settings", "parts", "break_even"}
    for part, share in zip(values["parts"], (0.5, 0.9), strict=True):
        assert part["flops_share"] == pytest.approx(share, abs=0.1)
        assert part["excess"] == pytest.approx(part["time_share"] / part["flops_share"], rel=1e-2)
