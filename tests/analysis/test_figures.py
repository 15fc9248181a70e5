"""Sheets of masks and impacts: everything is on them, in files that do not change."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from adaptive_nets.analysis.figures import impact_sheet, mask_sheet
from adaptive_nets.perforation import PerforationPlan, layer_mask, uniform_mask
from adaptive_nets.runtime.errors import UserError


def plan_of(count):
    key = jax.random.key(0)
    masks = {
        f"conv{i}": layer_mask(key, uniform_mask(key, (6, 4 + i), 0.5), "uniform")
        for i in range(count)
    }
    return PerforationPlan("0" * 16, masks, "small")


def test_every_mask_is_drawn(tmp_path):
    plan = plan_of(8)
    figure = mask_sheet(plan, tmp_path / "masks.svg")
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title().split("\n")[0] for axes in drawn] == list(plan.layers)
    assert "uniform, rate 0.5" in drawn[0].get_title()
    for axes, layer in zip(drawn, plan.layers.values(), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), layer.mask)
    first = (tmp_path / "masks.svg").read_bytes()
    mask_sheet(plan, tmp_path / "masks.svg")
    assert (tmp_path / "masks.svg").read_bytes() == first


def test_every_impact_is_drawn(tmp_path):
    impacts = {"conv1": np.arange(12.0).reshape(3, 4), "conv2": np.ones((2, 2))}
    figure = impact_sheet(impacts, tmp_path / "impacts.png", title="NIN")
    assert (tmp_path / "impacts.png").read_bytes()[1:4] == b"PNG"
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), impacts["conv1"])


def test_mistakes_take_one_line(tmp_path):
    with pytest.raises(UserError, match="plan has no layers"):
        mask_sheet(plan_of(0))
    with pytest.raises(UserError, match="impacts has no layers"):
        impact_sheet({})
    with pytest.raises(UserError, match=r"expected a file ending in \.svg"):
        mask_sheet(plan_of(1), tmp_path / "masks.gif")
