import numpy as np
import pytest

from adaptive_nets.data.corruptions import ALEXNET_ERRORS, CORRUPTIONS, mean_ce, unnormalised_mce
from adaptive_nets.runtime.errors import UserError


def test_constants_cover_all_kinds():
    assert tuple(ALEXNET_ERRORS) == CORRUPTIONS
    assert all(0.5 < error < 1 for error in ALEXNET_ERRORS.values())


def test_hand_computed_values():
    errors = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.1, 0.1, 0.2, 0.6]])
    assert unnormalised_mce(errors) == pytest.approx(0.25)
    expected = (0.3 / 0.819324 + 0.2 / 0.6065) / 2
    assert mean_ce(errors, ["fog", "jpeg_compression"]) == pytest.approx(expected)
    # The same as the quotient of the sums over severities.
    alexnet = np.array([[0.819324] * 5, [0.6065] * 5])
    ratios = errors.sum(axis=1) / alexnet.sum(axis=1)
    assert mean_ce(errors, ["fog", "jpeg_compression"]) == pytest.approx(ratios.mean())


def test_alexnet_has_the_measure_one():
    errors = np.repeat([[error] for error in ALEXNET_ERRORS.values()], 5, axis=1)
    assert mean_ce(errors, CORRUPTIONS) == pytest.approx(1)
    assert mean_ce(errors[::-1], CORRUPTIONS[::-1]) == pytest.approx(1)
    assert unnormalised_mce(errors) == pytest.approx(11.834896 / 15)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="contain nan"):
        unnormalised_mce(np.array([[0.1, np.nan]]))
    with pytest.raises(ValueError, match=r"contain 11\.65; expected fractions"):
        unnormalised_mce(np.array([[11.65]]))
    for shape in ((5,), (0, 5), (1, 5, 1)):
        with pytest.raises(ValueError, match="errors have shape"):
            unnormalised_mce(np.zeros(shape))
    with pytest.raises(ValueError, match=r"shape \(2, 5\); expected \(1, 5\)"):
        mean_ce(np.zeros((2, 5)), ["fog"])
    with pytest.raises(ValueError, match=r"shape \(1, 4\); expected \(1, 5\)"):
        mean_ce(np.zeros((1, 4)), ["fog"])
    with pytest.raises(ValueError, match="repeat a name"):
        mean_ce(np.zeros((2, 5)), ["fog", "fog"])
    with pytest.raises(UserError, match=r"'snwo' .* did you mean 'snow'\?"):
        mean_ce(np.zeros((1, 5)), ["snwo"])
