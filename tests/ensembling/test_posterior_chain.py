"""Chains of training: members, resumption from a file, batch statistics and bad states."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_training import CLASSES, StopAt, make_dataset, network

from adaptive_nets.data.device import DeviceSplit, put_on_devices
from adaptive_nets.ensembling.posterior import (
    ChainEnsemble,
    ConstantRate,
    CosineCycles,
    DeepEnsemble,
    Training,
    member_predictors,
    sgd,
    statistics_estimator,
)
from adaptive_nets.ensembling.views import make_predictor
from adaptive_nets.models import create_model
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.training.batch_statistics import reestimate_statistics
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import DataConfig

STOPS = (3, 7, 12)


@pytest.fixture(scope="module")
def data() -> DeviceSplit:
    return put_on_devices(make_dataset(), DataConfig(), jax.device_put)[0]


@pytest.fixture(scope="module")
def training(data) -> Training:
    optimiser = sgd(CosineCycles(0.1, 6), weight_decay=1e-3)
    return Training(classification_task(network()), data, optimiser, batch_size=16)


def assert_equal(first, second) -> None:
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def differ(first, second) -> bool:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return any(np.any(a != b) for a, b in pairs)


def test_members_of_a_deep_ensemble_differ_and_start_anywhere(training, key):
    ensemble = DeepEnsemble(training, steps=5, count=3)
    members = list(ensemble.members(key))
    assert len(members) == 3
    assert differ(members[0], members[1])
    assert differ(members[1], members[2])
    assert_equal(members[1:], list(ensemble.members(key, first=1)))
    assert differ(members[0], next(ensemble.members(jax.random.key(1))))


def test_a_deep_ensemble_learns(training, data, key):
    member = next(DeepEnsemble(training, steps=60, count=1).members(key))
    inputs = (data.images / data.pixel_scale - data.offset[None]) * data.scale[None]
    logits = network().apply(member, inputs, train=False)
    assert np.mean(np.argmax(logits, axis=1) == np.asarray(data.labels)) > 2 / CLASSES


def test_snapshots_are_states_of_one_training(training, key):
    snapshots = list(ChainEnsemble(training, STOPS).members(key))
    (last,) = ChainEnsemble(training, STOPS[-1:]).members(key)
    assert len(snapshots) == len(STOPS)
    assert_equal(snapshots[-1], last)
    assert differ(snapshots[0], snapshots[1])


def test_an_interrupted_chain_resumes_from_its_file(training, key, tmp_path):
    whole = list(ChainEnsemble(training, STOPS).members(key))
    store = tmp_path / "chain.npz"
    broken = ChainEnsemble(training, STOPS, store=store, progress=StopAt(9)).members(key)
    assert_equal(next(broken), whole[0])
    assert_equal(next(broken), whole[1])
    with pytest.raises(Interrupted) as stopped:
        next(broken)
    assert stopped.value.step == 9
    resumed = ChainEnsemble(training, STOPS, store=store)
    assert_equal(list(resumed.members(key, first=2)), whole[2:])
    assert not store.exists()
    assert list(resumed.members(key, first=3)) == []


def test_a_chain_beyond_a_missing_member_is_refused(training, key, tmp_path):
    store = tmp_path / "chain.npz"
    chain = training.chain(key, store=store)
    chain.advance_to(5)
    chain.save()
    with pytest.raises(UserError, match="holds step 5; expected at most 3"):
        next(ChainEnsemble(training, STOPS, store=store).members(key))


def test_a_chain_starts_from_given_variables(training, key):
    start = next(DeepEnsemble(training, steps=4, count=1).members(key))
    assert_equal(training.chain(jax.random.key(9), start=start).advance_to(0), start)


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_file_is_one_line(training, key, tmp_path, content):
    store = tmp_path / "chain.npz"
    store.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: .*; remove it to train again"):
        training.chain(key, store=store)


def test_a_file_of_another_network_is_refused(training, data, key, tmp_path):
    store = tmp_path / "chain.npz"
    training.chain(key, store=store).save()
    optimiser = sgd(ConstantRate(0.1), momentum=0.0)
    other = Training(classification_task(network()), data, optimiser, batch_size=16)
    with pytest.raises(UserError, match="state of another training: opt_state"):
        other.chain(key, store=store)


def test_a_loss_that_is_not_finite_stops_the_chain(data, key):
    optimiser = sgd(ConstantRate(1e30))
    training = Training(classification_task(network()), data, optimiser, batch_size=16)
    with pytest.raises(UserError, match=r"not finite at step .*smaller learning rate"):
        training.chain(key).advance_to(6)


def test_a_batch_larger_than_the_set_is_refused(data):
    with pytest.raises(UserError, match="batch-size is 71; expected at most the 70"):
        Training(classification_task(network()), data, sgd(ConstantRate(0.1)), batch_size=71)


def test_statistics_of_several_members_share_a_program(key):
    module = create_model("resnet20_cifar10", depth=8)
    batches = list(jax.random.normal(key, (2, 4, 8, 8, 3)))
    init = jax.jit(functools.partial(module.init, train=False))
    members = [init(jax.random.key(seed), batches[0]) for seed in range(2)]
    traced = []

    class Counted:
        def apply(self, *arguments, **options):
            traced.append(1)
            return module.apply(*arguments, **options)

    estimate = statistics_estimator(Counted(), lambda: batches)
    for variables in members:
        found, expected = estimate(variables), reestimate_statistics(module, variables, batches)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert len(traced) == 1
    with pytest.raises(ValueError, match="no batches"):
        statistics_estimator(module, lambda: [])(members[0])


def test_members_share_a_program_and_predict_as_one_network_does(key):
    module = network()
    images = jnp.asarray(make_dataset().test.images, jnp.float32)
    normalisation = InputNormalisation(
        255.0, np.full((1, 1, 1), 0.2, np.float32), np.full((1, 1, 1), 3.0, np.float32)
    )
    predictor = member_predictors(module, normalisation)
    for number in range(2):
        variables = module.init(jax.random.fold_in(key, number), images[:1], train=False)
        expected = make_predictor(module, variables, normalisation)(images)
        np.testing.assert_allclose(predictor(variables)(images), expected, rtol=1e-5, atol=1e-6)
