"""Parameter counts of the zoo, to the unit, against every count that others state."""

from __future__ import annotations

import re

import pytest

from adaptive_nets.analysis.reference_counts import model_count, reference_counts
from adaptive_nets.models import list_models
from adaptive_nets.models.char_lm import CHAR_MODELS

pytestmark = pytest.mark.core
REFERENCES = reference_counts()
# The smallest of each family, by the reference's name up to its first digit, stands for all: the
# others are the same code with other widths and depths. All the counts that ship are compared with
# the references in tests/analysis/test_model_counts.py, without tracing.
SMALLEST: dict[str, str] = {}
for _name in sorted(REFERENCES, key=lambda name: REFERENCES[name].parameters):
    SMALLEST.setdefault(re.sub(r"\d.*", "", _name), _name)
# Networks of other sources with the same code and overrides, and some that take seconds to trace.
TRACED = set(SMALLEST.values()) - {
    "timm/legacy_senet154", "caffe/senet154", "timm/inception_resnet_v2", "timm/densenet121",
}  # fmt: skip


def test_every_reference_is_of_a_network_of_the_zoo():
    assert len(REFERENCES) == 171
    known = {*list_models(), *CHAR_MODELS}
    assert {reference.model for reference in REFERENCES.values()} <= known


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in TRACED else pytest.mark.slow) for name in REFERENCES],
)
def test_counts_agree_to_the_unit(name):
    assert model_count(REFERENCES[name]) == REFERENCES[name].parameters
