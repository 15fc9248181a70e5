"""The twelve networks of the Meta study: sizes, costs, and reinterpreted axes."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

import adaptive_nets as an
from adaptive_nets.layers import adaptive_avg_pool
from adaptive_nets.models.meta_heads import StudyHead
from adaptive_nets.models.meta_study import (
    BodyTest1,
    BodyTest2,
    BodyTest3,
    Replacement,
    Unit,
    pool_over_groups,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
KINDS = ("conv2d", "conv3d", "meta", "head")
SIZES = {
    1: (88_170, 83_526, 84_126, 26_750),
    2: (357_265, 176_761, 187_433, 292_961),
    3: (1_573_902, 846_222, 931_086, 1_516_766),
}
MACS = {
    1: (2_312_592, 1_354_128, 1_288_592, 2_251_312),
    2: (33_546_880, 21_750_400, 16_966_272, 33_483_392),
    3: (160_940_672, 106_676_864, 96_453_248, 160_884_352),
}
# Trainable slopes, and running statistics, in the order of KINDS.
SLOPES = {1: (4, 4, 8, 8), 2: (7, 7, 31, 23), 3: (68, 68, 324, 84)}
STATISTICS = {
    1: (108, 48, 76, 108),
    2: (864, 528, 864, 864),
    3: (6368, 3552, 6368, 6368),
}
BODIES = {1: 5_799, 2: 282_822, 3: 1_507_651}
# The small networks of every kind; larger ones are the same code.
networks = pytest.mark.parametrize(
    ("test", "kind"),
    [
        pytest.param(test, kind, marks=() if test == 1 else pytest.mark.slow)
        for test in SIZES
        for kind in range(4)
    ],
)


def name_of(test, kind):
    return f"meta_study_{KINDS[kind]}_{test}"


@networks
def test_published_sizes_and_costs(test, kind):
    name = name_of(test, kind)
    model = an.create_model(name)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    assert sum(leaf.size for _, leaf in leaves) == SIZES[test][kind]
    slopes = sum(leaf.size for path, leaf in leaves if "negative_slope" in str(path))
    assert slopes == SLOPES[test][kind]
    statistics = sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"]))
    assert statistics == STATISTICS[test][kind]
    assert an.count_macs(name) == MACS[test][kind]


def total_size(name, **overrides):
    """The known size of the plain body, and that of the head, which alone is traced."""
    test = int(name[-1])
    maps = jnp.zeros((1, 8, 8, {1: 32, 2: 128, 3: 64}[test]))

    def without_body(call, args, kwargs, context):
        if isinstance(context.module, BodyTest1 | BodyTest2 | BodyTest3):
            return maps
        return call(*args, **kwargs)

    model = an.create_model(f"meta_study_{name}", **overrides)
    with nn.intercept_methods(without_body):
        image = jnp.zeros((1, 32, 32, 3))
        head = jax.eval_shape(lambda: model.init(jax.random.key(0), image))["params"]
    assert set(head) == {"head"}
    return BODIES[test] + sum(leaf.size for leaf in jax.tree.leaves(head))


@pytest.mark.parametrize(
    ("test", "groups", "total"),
    [
        (1, 2, 47_216), (1, 4, 26_750), (1, 8, 16_562),
        (2, 2, 320_407), (2, 4, 301_989), (2, 8, 292_825), (2, 16, 288_417),
        (3, 2, 1_541_140), (3, 4, 1_524_770), (3, 8, 1_516_630), (3, 16, 1_512_734),
    ],
)  # fmt: skip
def test_heads_in_text_form(test, groups, total):
    assert total_size(f"head_{test}", form="text", groups=groups) == total


@pytest.mark.parametrize(("test", "total"), [(1, 6_129), (2, 284_112), (3, 1_508_301)])
def test_other_heads(test, total):
    for kind in ("conv2d", "head"):
        assert total_size(f"{kind}_{test}", head="gap") == total
    assert total_size(f"head_{test}", head="fc") == SIZES[test][0]
    assert total_size(f"conv2d_{test}", head="meta") == SIZES[test][3]
    hidden, features = (40, 2048) if test == 1 else (64, 1152 if test == 2 else 1024)
    grouped = features * hidden // 8 + hidden + 8 + hidden * 10 + 10
    options = {"head": "grouped", "form": "text", "groups": 8}
    assert total_size(f"head_{test}", **options) == BODIES[test] + grouped


@pytest.mark.parametrize(
    ("filters", "total", "macs"),
    [
        (2, 83_490, 1_206_672),
        (4, 83_802, 1_796_496),
        (8, 84_426, 2_091_408),
        (16, 85_674, 2_238_864),
        (32, 88_170, 2_312_592),
    ],
)
def test_convolutions_in_text_form(filters, total, macs):
    options = {"form": "text", "filters": filters}
    assert an.count_params("meta_study_conv3d_1", **options) == total
    assert an.count_macs("meta_study_conv3d_1", **options) == macs


def test_text_form_makes_the_maps_of_the_code_form():
    """u = C - depth + 1: here filters as many as published, deep enough to leave that depth."""
    text = (9 * (64 - 16 + 1) + 1) * 8 + (9 * (128 - 16 + 1) + 1) * 16
    code = (27 * 4 + 1) * 8 + (27 * 8 + 1) * 16
    total = an.count_params("meta_study_conv3d_2", form="text")
    assert total - SIZES[2][1] == text - code


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("head_1", {"head": "svm"}, "head is 'svm'; expected one of fc, meta, gap"),
        ("head_1", {"form": "prose"}, "form is 'prose'; expected 'code' or 'text'"),
        (
            "head_2",
            {"form": "text", "groups": 5},
            "5; expected a divisor of the head's 64",
        ),
        ("head_2", {"groups": 7}, "groups 7 must divide the number of channels, 1152"),
        ("conv3d_1", {"groups": 3}, "groups is 3; expected a divisor of 16, the number"),
        ("conv3d_1", {"filters": 4}, "filters is 4 with form 'code'; expected form='text'"),
        ("conv3d_1", {"form": "text", "filters": 3}, "filters 3 cannot make 32 maps of 16"),
        ("meta_1", {"groups": 0}, "groups is 0; expected a divisor of 16, the number"),
        ("meta_1", {"meta_init": "zero"}, "meta_init 'zero' is unknown"),
        ("meta_2", {"groups": 4}, "expected 8 groups, or scrambled=False"),
    ],
)
def test_overrides_that_make_no_network(name, options, message):
    with pytest.raises(UserError, match=message):
        an.count_params(f"meta_study_{name}", **options)


def test_groups_of_a_meta_layer_can_be_changed():
    groups, size = 2, 8
    front = groups * ((9 * size + 1) * size + 1 + 2 * size)
    place = front + groups * 2 * groups + 1
    assert an.count_params("meta_study_meta_1", groups=groups) == SIZES[1][2] - 661 + place
    assert an.count_params("meta_study_meta_2", groups=4, scrambled=False) > SIZES[2][2]
    assert an.count_params("meta_study_meta_2", scrambled=False) == SIZES[2][2]


def test_the_slip_of_test_2_takes_groups_for_columns(rng):
    """The authors' axes (channel in group, row, column, group), pooled over the last three."""
    x = rng.normal(size=(2, 16, 16, 128)).astype(np.float32)
    theirs = x.reshape(2, 16, 16, 16, 8).transpose(0, 4, 1, 2, 3)
    pooled = theirs.reshape(2, 8, 8, 2, 8, 2, 8, 2).max(axis=(3, 5, 7))
    maps = pooled.reshape(2, 64, 8, 8)
    actual = pool_over_groups(jnp.asarray(x), channels_per_group=8)
    np.testing.assert_array_equal(actual, maps.transpose(0, 2, 3, 1))
    for c, h, w, g in [(0, 0, 0, 0), (3, 1, 5, 7), (7, 7, 2, 4)]:
        assert actual[1, w, g, 8 * c + h] == pooled[1, c, h, w, g]


@pytest.fixture(scope="module")
def meta_body():
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    model = BodyTest2(Replacement("meta"))
    return jax.jit(model.init)(jax.random.key(0), images), images


@pytest.mark.slow
def test_the_corrected_network_keeps_positions(meta_body):
    """A change in one corner of the image stays near it; in the published network it does not."""
    variables, images = meta_body
    changed = images.at[:, :2, -2:].add(1.0)

    def h1_changes(scrambled):
        body = BodyTest2(Replacement("meta", scrambled=scrambled))
        apply = jax.jit(lambda v, x: body.apply(v, x, capture_intermediates=True)[1])
        outputs = [
            apply(variables, x)["intermediates"]["h2"]["conv"]["__call__"][0]
            for x in (images, changed)
        ]
        return np.any(np.asarray(outputs[0] != outputs[1]), axis=(0, 3))

    corrected = h1_changes(scrambled=False)
    assert corrected[0, -1]
    assert not np.any(corrected[5:])
    assert not np.any(corrected[:, :3])
    assert np.any(h1_changes(scrambled=True)[:, :3])


def test_a_unit_of_groups_is_separate_convolutions_then_meta(key):
    """Each group goes alone through convolution, PReLU and normalisation; Meta mixes them."""
    x = jax.random.normal(key, (2, 6, 5, 6))
    unit = Unit(Replacement("meta"), maps=12, groups=(1, 3))
    variables = unit.init(key, x)
    params = variables["params"]
    assert params["meta"]["weight"].shape == (3, 6)
    apply = lambda x: unit.apply(variables, x, capture_intermediates=True)[1]["intermediates"]  # noqa: E731
    before, after = (
        apply(images)["groups"]["bn"]["__call__"][0] for images in (x, x.at[..., 2:4].add(1))
    )
    np.testing.assert_array_equal(
        np.any(np.asarray(before != after), axis=(0, 1, 2)), [False] * 2 + [True] * 2 + [False] * 2
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(params["groups"])) == 3 * (19 * 2 + 1 + 4)


def test_pooling_8_onto_3_overlaps(rng):
    x = rng.normal(size=(2, 8, 8, 5))
    spans = [slice(0, 3), slice(2, 6), slice(5, 8)]
    expected = np.stack(
        [np.stack([x[:, r, c].mean(axis=(1, 2)) for c in spans], axis=1) for r in spans], axis=1
    )
    close(adaptive_avg_pool(jnp.float32(x), (3, 3)), expected, terms=16)


@pytest.mark.parametrize("test", [1, 2])
def test_groups_of_the_head_are_ranges_of_channels(test, key):
    """Changing one channel of the body's maps changes one group's features."""
    channels, groups, side = (32, 4, 8) if test == 1 else (128, 16, 3)
    x = jax.random.normal(key, (1, side, side, channels))
    head = StudyHead("meta", 64, (groups, 8, 8))
    variables = head.init(key, x)
    apply = lambda x: head.apply(variables, x, capture_intermediates=True)[1]["intermediates"]  # noqa: E731
    first, second = (
        np.asarray(apply(maps)["groups"]["__call__"][0]) for maps in (x, x.at[..., 9].add(1.0))
    )
    changed = np.any((first != second).reshape(groups, 8), axis=1)
    assert list(np.flatnonzero(changed)) == [9 * groups // channels]
