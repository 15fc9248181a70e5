"""Random views, and networks as functions of pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax
from tolerances import close

from adaptive_nets.ensembling import (
    Policy,
    SubPolicy,
    crop_views,
    make_predictor,
    policy_views,
    unchanged_views,
    views,
)
from adaptive_nets.ensembling.policies import from_arrays
from adaptive_nets.models.normalisation import InputNormalisation, Normalisation

SHAPE = (6, 9, 8, 3)


@pytest.fixture
def images(rng):
    return rng.integers(1, 256, SHAPE, dtype=np.uint8)


@pytest.fixture
def pixels(images):
    return jnp.asarray(images, jnp.float32)


def crops_of(image: np.ndarray, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """All crops of an image with a black border, plain and mirrored."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    found = {}
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            crop = padded[y : y + height, x : x + width]
            found[np.ascontiguousarray(crop).tobytes()] = (y, x, False)
            found[np.ascontiguousarray(crop[:, ::-1]).tobytes()] = (y, x, True)
    return found


def places(view, images, padding=4) -> list[tuple[int, int, bool]]:
    view = np.asarray(view)
    assert view.shape == images.shape
    return [
        crops_of(image, padding)[np.ascontiguousarray(v.astype(np.uint8)).tobytes()]
        for v, image in zip(view, images, strict=True)
    ]


def test_unchanged_views_are_the_images(pixels, key):
    np.testing.assert_array_equal(unchanged_views(key, pixels, 3), pixels)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_views_are_crops_of_the_padded_images(padding, images, pixels, key):
    view = crop_views(padding)
    found = [place for k in jax.random.split(key, 5) for place in
             places(view(k, pixels, 0), images, padding)]  # fmt: skip
    assert {mirrored for _, _, mirrored in found} == {False, True}
    if padding == 0:
        assert {(y, x) for y, x, _ in found} == {(0, 0)}
    else:
        assert len({(y, x) for y, x, _ in found}) > 4


@pytest.mark.parametrize("padding", [-1, 1.5, None])
def test_bad_padding_is_one_line(padding, complains):
    complains(lambda: crop_views(padding), f"padding is {padding}", "at least 0")


ENTRIES = {
    "unchanged": SubPolicy(crop=False),
    "crop": SubPolicy(),
    "strong": SubPolicy((("Rotate", 30.0), ("Color", 9.0))),
    # A magnitude of 45 is the threshold 64, and one of 60 is 0.
    "solarize and crop": SubPolicy((("Solarize", 60.0),)),
    "solarize, posterize": SubPolicy((("Solarize", 45.0), ("Posterize", 20.0)), crop=False),
    "posterize, solarize": SubPolicy((("Posterize", 20.0), ("Solarize", 45.0)), crop=False),
    "cutout": SubPolicy((("Cutout", 20.0),), crop=False),
}
NUMBERS = {name: number for number, name in enumerate(ENTRIES)}


@pytest.fixture(scope="module")
def policy_view():
    """Views of all entries, and the traces of their program."""
    traces = []
    with pytest.MonkeyPatch.context() as patch:
        apply_sub_policy = views.apply_sub_policy

        def counted(*arguments, **options):
            traces.append(1)
            return apply_sub_policy(*arguments, **options)

        patch.setattr(views, "apply_sub_policy", counted)
        yield policy_views(Policy("cifar", tuple(ENTRIES.values()))), traces


def test_one_program_serves_every_sub_policy(policy_view, pixels, key):
    view, traces = policy_view
    for number in range(2 * len(ENTRIES)):
        found = np.asarray(view(jax.random.fold_in(key, number), pixels, number))
        assert found.shape == SHAPE
        assert found.min() >= 0
        assert found.max() <= 255
    assert len(traces) == 1


def test_unchanged_entry_returns_the_images(policy_view, pixels, key):
    # Beside entries with operations it is padded with the identity.
    found = policy_view[0](key, pixels, NUMBERS["unchanged"])
    np.testing.assert_array_equal(found, pixels)
    alone = policy_views(Policy("cifar", (SubPolicy(crop=False),)))
    np.testing.assert_array_equal(alone(key, pixels, 0), pixels)
    strong = policy_view[0](key, pixels, NUMBERS["strong"])
    assert (np.asarray(strong) != np.asarray(pixels)).any((1, 2, 3)).all()


def test_entry_without_operations_is_a_crop(policy_view, images, pixels, key):
    found = [place for k in jax.random.split(key, 3) for place in
             places(policy_view[0](k, pixels, NUMBERS["crop"]), images)]  # fmt: skip
    assert len({(y, x) for y, x, _ in found}) > 4
    assert {mirrored for _, _, mirrored in found} == {False, True}


def test_operations_precede_the_crop(policy_view, images, pixels, key):
    # Solarizing after the crop would turn its black border white.
    found = places(policy_view[0](key, pixels, NUMBERS["solarize and crop"]), 255 - images)
    assert len({(y, x) for y, x, _ in found}) > 2


def test_operations_are_applied_in_order(policy_view, images, pixels, key):
    def solarize(x):
        return np.where(x < 64, x, 255 - x)

    def posterize(x):
        return x & 0b11110000

    first = policy_view[0](key, pixels, NUMBERS["solarize, posterize"])
    second = policy_view[0](key, pixels, NUMBERS["posterize, solarize"])
    np.testing.assert_array_equal(first, posterize(solarize(images)))
    np.testing.assert_array_equal(second, solarize(posterize(images)))


def test_views_begin_again_after_the_last(policy_view, pixels, key):
    view, length = policy_view[0], len(ENTRIES)
    for number in (length, length + NUMBERS["strong"], 5 * length - 1):
        np.testing.assert_array_equal(view(key, pixels, number), view(key, pixels, number % length))


def test_random_parts_come_from_the_key_and_differ_between_images(policy_view, pixels, key):
    view = policy_view[0]
    other = jax.random.fold_in(key, 1)
    same = jnp.repeat(pixels[:1], SHAPE[0], axis=0)
    for name in ("crop", "strong", "cutout"):
        found = np.asarray(view(key, same, NUMBERS[name]))
        np.testing.assert_array_equal(found, view(key, same, NUMBERS[name]))
        assert (found != np.asarray(view(other, same, NUMBERS[name]))).any()
        assert len(np.unique(found.reshape(SHAPE[0], -1), axis=0)) > 2


def test_imagenet_entries_get_no_crop_of_cifar(pixels, key):
    # Their crop is an operation; arrays of operations do not name it again.
    policy = from_arrays(np.zeros((1, 0), int), np.zeros((1, 0)), "imagenet")
    np.testing.assert_array_equal(policy_views(policy)(key, pixels, 0), pixels)


class SmallNetwork(nn.Module):
    """Convolution, a norm that acts differently in training, and a classifier."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Conv(5, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


class Output(nn.Module):
    """The same with an output that has logits."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        class Full:
            logits = SmallNetwork()(x, train=train)

        return Full


NORMALISATIONS = {
    "of channels": Normalisation((0.49, 0.48, 0.45), (0.2, 0.25, 0.3), "test"),
    "of pixels": None,
    "per image": None,
}


def normalisation_of(case, rng) -> InputNormalisation:
    if case == "of channels":
        return NORMALISATIONS[case].to_input_normalisation()
    if case == "of pixels":
        mean = rng.uniform(0.3, 0.7, SHAPE[1:]).astype(np.float32)
        return InputNormalisation(255.0, mean, rng.uniform(2, 5, SHAPE[1:]).astype(np.float32))
    zero, one = np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    return InputNormalisation(1.0, zero, one, per_image=True)


@pytest.mark.parametrize("module", [SmallNetwork(), Output()], ids=["logits", "output"])
@pytest.mark.parametrize("case", NORMALISATIONS)
def test_predictor_equals_the_network_on_normalised_images(case, module, images, key, rng):
    normalisation = normalisation_of(case, rng)
    images[2] = 77  # Without deviation.
    inputs = normalisation.apply(images)
    variables = module.init(key, jnp.asarray(inputs), train=False)
    variables = jax.tree.map(lambda x: x + 0.1 * rng.random(x.shape, np.float32), variables)
    output = module.apply(variables, jnp.asarray(inputs), train=False)
    logits = np.asarray(getattr(output, "logits", output), np.float64)
    predict = make_predictor(module, variables, normalisation)
    found = predict(jnp.asarray(images, jnp.float32))
    assert found.dtype == jnp.float32
    close(found, log_softmax(logits, axis=-1), terms=4000)
    np.testing.assert_allclose(np.exp(np.asarray(found, np.float64)).sum(1), 1, rtol=1e-5)


def test_predictor_does_not_depend_on_the_batch(images, key, rng):
    module, normalisation = SmallNetwork(), normalisation_of("per image", rng)
    variables = module.init(key, jnp.zeros(SHAPE), train=False)
    predict = make_predictor(module, variables, normalisation)
    whole = predict(jnp.asarray(images, jnp.float32))
    close(predict(jnp.asarray(images[3:5], jnp.float32)), whole[3:5], terms=1000)


class HalfPrecision(nn.Module):
    """Logits in bfloat16."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return nn.Dense(4, dtype=jnp.bfloat16)(x.reshape(x.shape[0], -1))


def test_narrow_logits_are_normalised_in_float32(pixels, key, rng):
    module = HalfPrecision()
    variables = module.init(key, pixels, train=False)
    found = make_predictor(module, variables, normalisation_of("of channels", rng))(pixels)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.exp(np.asarray(found, np.float64)).sum(1), 1, rtol=1e-5)


def test_predictor_is_traced_once_for_a_batch_shape(pixels, rng):
    traces = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x, *, train: bool):
            traces.append(train)
            return x.mean((1, 2))

    predict = make_predictor(Counted(), {}, normalisation_of("of channels", rng))
    for _ in range(3):
        predict(pixels)
    assert traces == [False]
