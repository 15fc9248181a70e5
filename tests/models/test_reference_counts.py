"""Parameter counts of the zoo, to the unit, against every count that others state."""

from __future__ import annotations

import pytest

from adaptive_nets.analysis.reference_counts import model_count, reference_counts
from adaptive_nets.models import list_models
from adaptive_nets.models.char_lm import CHAR_MODELS

pytestmark = pytest.mark.core
REFERENCES = reference_counts()
# Deep networks take seconds to trace, and their shallow relatives are the same code.
DEEP = ("152", "154", "161", "169", "201", "100_k24", "bc190", "bc250", "C5", "C6", "enwik8")
DEEP += ("110_cifar", "101", "inception_resnet_v2", "densenet100_k12", "bc100")


def test_every_reference_is_of_a_network_of_the_zoo():
    assert len(REFERENCES) == 171
    known = {*list_models(), *CHAR_MODELS}
    assert {reference.model for reference in REFERENCES.values()} <= known


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if any(d in name for d in DEEP) else ())
        for name in REFERENCES
    ],
)
def test_counts_agree_to_the_unit(name):
    assert model_count(REFERENCES[name]) == REFERENCES[name].parameters
