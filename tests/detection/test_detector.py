"""The whole network: shapes, targets, padding, gradients, the skipping form, and its errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import (
    IMAGE_SIZE,
    SETTINGS,
    compiled,
    pictures,
    shapes_of,
    small_detector,
    variables_of,
)
from numpy_boxes import iou_matrix

from adaptive_nets import detection

pytestmark = pytest.mark.core
SACT, PLAIN = "resnetv1_20_sact_cifar10", "resnet20_cifar10"


def padded_batch():
    """Returns two pictures; of the second only the top left corner is not padding."""
    batch = pictures(2)
    batch["size"] = np.array([IMAGE_SIZE, [20, 26]], np.int32)
    batch["boxes"][1] = 0
    batch["boxes"][1, 0] = [2, 3, 14, 17]
    batch["labels"][1] = [1, -1, -1]
    return batch


def evaluated(name=SACT, batch=None):
    batch = padded_batch() if batch is None else batch
    return compiled(name)(variables_of(name), batch, jax.random.key(0))


@pytest.fixture(scope="module")
def trained():
    batch = padded_batch()
    return batch, compiled(SACT, train=True)(variables_of(SACT), batch, jax.random.key(1))


@pytest.mark.parametrize("name", [SACT, PLAIN])
def test_shapes_of_an_evaluation(name):
    batch, shapes = padded_batch(), shapes_of(name)
    output = jax.eval_shape(lambda v: small_detector(name).apply(v, batch), shapes)
    anchors = 8 * 12 * 6
    assert output.map_sizes == ((32, 48), (16, 24), (2, 2))
    assert output.anchors.logits.shape == (2, anchors)
    assert output.anchors.deltas.shape == (2, anchors, 4)
    assert output.regions.shape == (2, 6, 4)
    assert output.logits.shape == (2, 6, 3)
    assert output.box_deltas.shape == (2, 6, 2, 4)
    assert output.anchor_targets is output.region_targets is None
    shapes = [block.ponder_cost.shape for block in output.blocks]
    assert shapes == ([(2, 32, 48), (2, 16, 24), (12, 2, 2)] if name == SACT else [])


def test_anchors_lie_on_the_strided_map_in_pixels():
    anchors = np.asarray(evaluated().anchors.anchors)
    expected = detection.anchor_boxes(
        (8, 12), stride=4, sizes=(10, 20), ratios=SETTINGS.proposals.aspect_ratios
    )
    np.testing.assert_allclose(anchors, expected)


def test_proposals_lie_in_the_image_by_decreasing_score_and_do_not_overlap():
    output = evaluated()
    for n, (height, width) in enumerate([IMAGE_SIZE, (20, 26)]):
        regions = np.asarray(output.regions[n])[np.asarray(output.region_valid[n])]
        assert len(regions) > 1
        assert regions.min() >= 0
        assert regions[:, 2].max() <= height
        assert regions[:, 3].max() <= width
        overlaps = iou_matrix(regions, regions) - np.eye(len(regions))
        assert overlaps.max() <= SETTINGS.proposals.nms_iou + 1e-5


def test_anchors_in_padding_are_neither_samples_nor_proposals(trained):
    _, output = trained
    anchors, inside = np.asarray(output.anchors.anchors), np.asarray(output.anchors.inside[1])
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_array_equal(inside, (centres[:, 0] < 20) & (centres[:, 1] < 26))
    targets = output.anchor_targets
    chosen = np.asarray(targets.indices[1])[np.asarray(targets.valid[1])]
    assert len(chosen)
    assert inside[chosen].all()


def test_what_lies_in_the_padding_changes_nothing():
    batch = padded_batch()
    other = {**batch, "image": batch["image"].copy()}
    other["image"][1, 20:], other["image"][1, :, 26:] = 255, 7
    first, second = evaluated(batch=batch), evaluated(batch=other)
    np.testing.assert_array_equal(first.class_logits, second.class_logits)


def test_order_in_the_batch_changes_nothing():
    batch = padded_batch()
    turned = {name: value[::-1] for name, value in batch.items()}
    first, second = evaluated(batch=batch), evaluated(batch=turned)
    np.testing.assert_allclose(first.regions, second.regions[::-1], atol=1e-4)
    np.testing.assert_allclose(first.class_logits, second.class_logits[::-1], atol=1e-4)


def test_targets_of_anchors_and_regions(trained):
    batch, output = trained
    targets = output.anchor_targets
    for n in range(2):
        truth = batch["boxes"][n][batch["labels"][n] >= 0]
        valid, positive = np.asarray(targets.valid[n]), np.asarray(targets.positive[n])
        assert valid.shape == (16,)
        assert positive.any()
        boxes = np.asarray(output.anchors.anchors)[np.asarray(targets.indices[n])]
        overlaps = iou_matrix(boxes, truth).max(axis=1)
        assert overlaps[valid & ~positive].max() < 0.3
        decoded = np.asarray(detection.decode(targets.deltas[n], boxes))[positive]
        np.testing.assert_allclose(iou_matrix(decoded, truth).max(axis=1), 1, atol=1e-4)

        regions, labels = np.asarray(output.regions[n]), np.asarray(output.region_targets.labels[n])
        valid = np.asarray(output.region_valid[n])
        overlaps = iou_matrix(regions, truth)
        own = overlaps.argmax(axis=1)
        assert np.all(labels[valid & (overlaps.max(axis=1) < 0.5)] == 2)
        objects = valid & (labels < 2)
        assert objects.any()
        np.testing.assert_array_equal(labels[objects], batch["labels"][n][own[objects]])
        deltas = output.region_targets.deltas[n]
        decoded = detection.decode(deltas, regions, weights=(10, 10, 5, 5))
        np.testing.assert_allclose(np.asarray(decoded)[objects], truth[own[objects]], atol=1e-3)


def test_samples_depend_on_the_key_alone(trained):
    batch, output = trained
    run = compiled(SACT, train=True)
    again = run(variables_of(SACT), batch, jax.random.key(1))
    other = run(variables_of(SACT), batch, jax.random.key(2))
    chosen = [np.asarray(o.anchor_targets.indices) for o in (output, again, other)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


def test_crowd_regions_are_no_objects_and_not_background():
    batch = padded_batch()
    batch["boxes"][0, 0], batch["labels"][0] = [0, 0, 32, 48], [0, -1, -1]
    batch["crowd"][0, 0] = True
    output = compiled(SACT, train=True)(variables_of(SACT), batch, jax.random.key(1))
    targets = output.anchor_targets
    assert not targets.positive[0].any()
    boxes = np.asarray(output.anchors.anchors)[np.asarray(targets.indices[0])]
    sides = np.minimum(boxes[:, 2:], IMAGE_SIZE) - np.maximum(boxes[:, :2], 0)
    whole = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    share = np.prod(np.maximum(sides, 0), axis=1) / whole
    assert share[np.asarray(targets.valid[0])].max(initial=0) < 0.5
    assert not output.region_valid[0].any()
    losses = jax.tree.leaves(jax.jit(detection.detection_loss)(output))
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_gradients_are_finite_and_reach_every_part():
    detector, variables, batch = small_detector(SACT), variables_of(SACT), padded_batch()

    @jax.jit
    def gradient(params):
        def loss(params):
            rngs = {"sampling": jax.random.key(1)}
            output, changed = detector.apply(
                {**variables, "params": params}, batch, True, rngs=rngs, mutable=["batch_stats"]
            )
            return detection.detection_loss(output, tau=0.01).total, changed

        return jax.grad(loss, has_aux=True)(params)

    found, changed = gradient(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    for part in (
        found["rpn"]["conv"],
        found["network"]["conv1"],
        found["network"]["layer3_1"]["conv2"],
        found["network"]["layer1_0_sact_head"]["conv_local"],
        found["network"]["layer3_0_sact_head"]["conv_local"],
        found["network"]["linear"],
    ):
        assert np.any(np.abs(part["kernel"]) > 0)
    # The statistics of batch normalisation are frozen.
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])


def test_one_program_for_all_batches_of_a_bucket():
    detector, traces = small_detector(PLAIN), []

    @jax.jit
    def apply(variables, batch):
        traces.append(1)
        return detector.apply(variables, batch).class_logits

    shapes = shapes_of(PLAIN)
    for seed in range(2):
        jax.eval_shape(apply, shapes, {**pictures(2, seed=seed), "size": padded_batch()["size"]})
    assert len(traces) == 1


@pytest.mark.parametrize("name", [SACT, "resnetv1_20_act_cifar10"])
@pytest.mark.slow
def test_the_skipping_form_gives_the_same(name, rng):
    detector, variables = small_detector(name), variables_of(name)
    # Heads with large weights halt here and there.
    path = ("params", "network", "layer1_0_sact_head", "conv_local", "kernel")
    if name == SACT:
        head = variables["params"]["network"]["layer1_0_sact_head"]
        head = {**head, "conv_local": {"kernel": 9 * head["conv_local"]["kernel"]}}
        network = {**variables["params"]["network"], path[2]: head}
        variables = {**variables, "params": {**variables["params"], "network": network}}
    batch = padded_batch()
    dense = detector.apply(variables, batch)
    for given in (variables, detector.fold(variables)):
        found = detector.apply(given, batch, execution="skipping")
        np.testing.assert_allclose(found.class_logits, dense.class_logits, atol=1e-4)
        for ours, theirs in zip(found.blocks, dense.blocks, strict=True):
            np.testing.assert_array_equal(ours.num_units, theirs.num_units)
    if name == SACT:
        assert len(np.unique(np.asarray(dense.blocks[0].num_units))) == 2


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("resnetv2_50", ((16, 24), (8, 12), (4, 6), (7, 7))),
        pytest.param("resnet101_sact", ((16, 24), (8, 12), (4, 6), (7, 7)), marks=pytest.mark.slow),
        ("resnet50_act", ((16, 24), (8, 12), (4, 6), (7, 7))),
        ("resnet18", ((16, 24), (8, 12), (4, 6), (7, 7))),
        ("resnet32_cifar10", ((64, 96), (32, 48), (7, 7))),
        ("resnet32_sact_cifar10", ((64, 96), (32, 48), (7, 7))),
    ],
)
def test_networks_of_the_zoo_by_name(name, maps):
    detector = detection.create_detector(name, num_classes=3)
    batch = pictures(1, size=(64, 96))
    key = jax.random.key(0)
    keys = {"params": key, "sampling": key}
    output, _ = jax.eval_shape(lambda: detector.init_with_output(keys, batch))
    assert output.map_sizes == maps
    assert output.class_logits.shape == (1, 300, 4)
    assert len(output.blocks) == (len(maps) if "act" in name else 0)


def test_pictures_without_boxes_train():
    batch = pictures(2, slots=1)
    batch |= {
        "boxes": np.zeros((2, 0, 4)),
        "labels": np.zeros((2, 0), int),
        "crowd": np.zeros((2, 0)),
    }
    detector, shapes = small_detector(PLAIN), shapes_of(PLAIN)
    rngs = {"sampling": jax.random.key(0)}
    output = jax.eval_shape(lambda v: detector.apply(v, batch, True, rngs=rngs), shapes)
    assert output.region_targets.labels.shape == (2, 8)


def test_an_empty_batch_gives_an_empty_output():
    batch = {name: value[:0] for name, value in pictures(2).items()}
    detector, shapes = small_detector(SACT), shapes_of(SACT)
    rngs = {"sampling": jax.random.key(0)}
    output = jax.eval_shape(lambda v: detector.apply(v, batch, True, rngs=rngs), shapes)
    assert output.class_logits.shape == (0, 8, 3)
    assert jax.eval_shape(detection.detections, output).boxes.shape == (0, 100, 4)


def run(train=False, execution=None, **changes):
    batch = pictures(2) | changes
    batch = {key: value for key, value in batch.items() if value is not None}
    detector, shapes = small_detector(PLAIN), shapes_of(PLAIN)
    jax.eval_shape(lambda v: detector.apply(v, batch, train, execution=execution), shapes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(size=None), "expected 'size' too"),
        (lambda: run(train=True, crowd=None), "expected 'crowd' too"),
        (lambda: run(image=np.zeros((2, 32, 48, 1))), "image has shape (2, 32, 48, 1)"),
        (lambda: run(image=np.zeros((2, 32, 48, 3), int)), "image has dtype"),
        (lambda: run(size=np.zeros((2, 3), int)), "size has shape (2, 3); expected (2, 2)"),
        (lambda: run(size=np.zeros((2, 2))), "size has dtype"),
        (lambda: run(train=True, boxes=np.zeros((2, 3, 5))), "boxes has shape (2, 3, 5)"),
        (lambda: run(train=True, labels=np.zeros((2, 4), int)), "labels has shape (2, 4)"),
        (lambda: run(train=True), "expected rngs={'sampling': key}"),
        (lambda: run(train=True, labels=np.full((2, 3), 2)), "labels holds 2; expected numbers"),
        (lambda: run(size=np.full((2, 2), 99)), "size holds 99; expected numbers from 0 to 48"),
        (
            lambda: run(image=np.zeros((2, 2, 2, 3)), size=np.full((2, 2), 2)),
            "image is 2x2 pixels, no more than the stride of 'resnet20_cifar10'",
        ),
        (lambda: small_detector(PLAIN).fold({}), "of fixed depth"),
        (
            lambda: detection.create_detector("lenet5_caffe", num_classes=2),
            "backbone is 'lenet5_caffe'; expected a residual network with stages",
        ),
        (
            lambda: detection.create_detector("resnet32_pact_cifar10", num_classes=2),
            "which halts by the rule 'pact'",
        ),
        (lambda: detection.create_detector("resnet9000", num_classes=2), "'resnet9000' is unknown"),
        (lambda: detection.create_detector(PLAIN, num_classes=0), "num_classes is 0"),
        (lambda: detection.create_detector(PLAIN, num_classes=2, width=3), "takes no 'width'"),
        (lambda: detection.ProposalSettings(stride=0), "stride is 0"),
        (lambda: detection.ProposalSettings(anchor_sizes=()), "anchor_sizes is ()"),
        (lambda: detection.ProposalSettings(negative_iou=0.9), "negative_iou is 0.9"),
        (lambda: detection.RegionSettings(positive_share=2.0), "positive_share is 2.0"),
    ],
)
def test_a_mistake_is_named_in_one_line(complains, call, message):
    complains(call, message)


def test_training_with_the_skipping_form_is_refused(complains):
    detector, batch = small_detector(SACT), pictures(2)
    shapes = shapes_of(SACT)

    def call(execution, train):
        jax.eval_shape(lambda v: detector.apply(v, batch, train, execution=execution), shapes)

    complains(lambda: call("skipping", True), "expected execution='dense' in training")
    complains(lambda: call("fast", False), "execution is 'fast'")
    complains(lambda: run(execution="skipping"), "'resnet20_cifar10' is of fixed depth")


def test_a_trained_classifier_starts_the_detector(complains):
    import adaptive_nets as an

    plain = an.create_model(PLAIN, depth=8)
    own = jax.jit(lambda: plain.init(jax.random.key(9), jnp.zeros((1, 32, 32, 3))))()
    variables = variables_of(PLAIN)
    started = detection.start_from_classifier(variables, own)
    assert jax.tree.structure(started) == jax.tree.structure(variables)
    network = started["params"]["network"]
    jax.tree.map(np.testing.assert_array_equal, network["layer2_0"], own["params"]["layer2_0"])
    np.testing.assert_array_equal(
        network["linear"]["kernel"], variables["params"]["network"]["linear"]["kernel"]
    )
    jax.tree.map(
        np.testing.assert_array_equal, started["params"]["rpn"], variables["params"]["rpn"]
    )
    broken = {**own, "params": {k: v for k, v in own["params"].items() if k != "linear"}}
    complains(lambda: detection.start_from_classifier(variables, broken), "params/linear")
