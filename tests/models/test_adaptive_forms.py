"""Plain networks and their forms of adaptive depth find each other by name."""

from __future__ import annotations

import jax
import pytest

from adaptive_nets.models import create_model, list_models, model_entry
from adaptive_nets.models.adaptive.forms import adaptive_form, plain_form
from adaptive_nets.models.adaptive.weights import is_head
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("plain", "rule", "form"),
    [
        ("resnet32_cifar10", "sact", "resnetv1_32_sact_cifar10"),
        ("resnet56_cifar100", "pact", "resnetv1_56_pact_cifar100"),
        ("resnetv2_32_cifar10", "act", "resnet32_act_cifar10"),
        ("resnet18", "sact", "resnetv1_18_sact"),
        ("resnetv2_101", "pact", "resnet101_pact"),
    ],
)
def test_names(plain, rule, form):
    assert adaptive_form(plain, rule) == form
    assert adaptive_form(form, rule) == form
    assert plain_form(form) == plain_form(plain) == model_entry(plain).name


def test_every_form_names_a_plain_network_of_its_input():
    forms = [entry for entry in map(model_entry, list_models()) if entry.adapts is not None]
    assert {entry.adapts[1] for entry in forms} == {"act", "sact", "pact"}
    for entry in forms:
        plain = model_entry(entry.adapts[0])
        assert plain.adapts is None
        assert plain.input_shape == entry.input_shape
        assert adaptive_form(plain.name, entry.adapts[1]) == entry.name


def test_a_form_has_the_variables_of_its_plain_network_and_heads():
    def scopes(name):
        model = create_model(name, num_classes=7)
        shapes = abstract_variables(model, model_entry(name).input_shape)
        return {
            scope: jax.tree.map(lambda leaf: leaf.shape, leaves)
            for scope, leaves in shapes["params"].items()
        }

    form = scopes("resnetv1_20_sact_cifar10")
    assert scopes("resnet20_cifar10") == {n: s for n, s in form.items() if not is_head(n)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vgg16", "'vgg16' has no form of adaptive depth with the rule 'sact'; expected one of"),
        ("resnet32_act_cifar10", "halts by the rule 'act'; expected one of the rule 'sact'"),
        ("resnet23_cifar10", "'resnet23_cifar10' is unknown; did you mean"),
    ],
)
def test_networks_without_the_form(name, message):
    with pytest.raises(UserError, match=message):
        adaptive_form(name, "sact")
