"""Faster R-CNN [ren2015] over a residual network of the zoo, of fixed or adaptive depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.detection.alignment import roi_align
from adaptive_nets.detection.anchors import anchor_boxes, inside_image
from adaptive_nets.detection.backbone import check_backbone, run_backbone
from adaptive_nets.detection.batch import checked
from adaptive_nets.detection.output import (
    AnchorScores,
    DetectorOutput,
    inside_sizes,
    map_stride,
)
from adaptive_nets.detection.proposals import ProposalHead, Proposals, propose
from adaptive_nets.detection.settings import DetectorSettings
from adaptive_nets.detection.targets import Truth, sample_anchors, sample_regions
from adaptive_nets.halting.arguments import check_positive_integer
from adaptive_nets.models import create_model
from adaptive_nets.models.adaptive.network import Execution, check_execution
from adaptive_nets.models.normalisation import Normalisation
from adaptive_nets.models.registry import model_entry
from adaptive_nets.runtime.errors import UserError

STREAM = "sampling"
"""Random stream of the samples of anchors and regions in training."""


class FasterRCNN(nn.Module):
    """Faster R-CNN with a split backbone; created by `create_detector`.

    Stages of the backbone but the last run on the image. A region proposal network scores anchors
    on their map, and the last stage runs on a map cut out for each proposal. The backbone's linear
    layer gives C + 1 class logits and 4 regression targets for each of the C classes.

    Batch normalisation uses its running statistics in training too, as is usual when a trained
    network is tuned with few images per step; scales and shifts are trained. New halting heads
    therefore start with the identity as their normalisation: the formula of [figurnov2017].
    Padding enters the network as 0, and its positions count neither in the loss nor in the cost;
    the network computes them all the same, so features near the border of a padded image, and means
    over the map in halting heads, depend on the padding.

    Attributes:
        network: residual network of the zoo with C + 1 + 4·C outputs, see `check_backbone`.
        backbone: its name in the registry.
        num_classes: C, classes of objects.
        normalisation: normalisation of 8-bit images; floating-point images are taken as normalised.
        settings: numbers and thresholds.
    """

    network: nn.Module
    backbone: str
    num_classes: int
    normalisation: Normalisation
    settings: DetectorSettings = DetectorSettings()

    def setup(self) -> None:
        """Creates the region proposal network."""
        chosen = self.settings.proposals
        self.rpn = ProposalHead(chosen.channels, chosen.anchors_per_position, chosen.stride)

    def __call__(
        self,
        batch: Mapping[str, Array],
        train: bool = False,
        *,
        execution: Execution | None = None,
    ) -> DetectorOutput:
        """Computes scores of anchors, and classes and boxes of regions.

        Args:
            batch: ``image`` uint8 or float[N, H, W, 3], padded at the bottom and the right, and
                ``size`` int[N, 2], (height, width) without padding. In training also ``boxes``
                float[N, G, 4], ``labels`` int[N, G], −1 for padding, and ``crowd`` bool[N, G].
            train: whether to sample anchors and regions for the loss, from the random stream
                ``sampling``; otherwise all proposals are regions.
            execution: "dense" or "skipping" of a backbone of adaptive depth; if None, its own.

        Raises:
            UserError: an array of the batch is missing or has another shape, images are smaller
                than the network's stride, the random stream is missing in training, or the
                execution is unknown or cannot train.
        """
        batch = checked(batch, train=train, num_classes=self.num_classes)
        own: Execution = "dense" if train else getattr(self.network, "execution", "dense")
        chosen = own if execution is None else execution
        check_execution(chosen)
        if train and chosen == "skipping":
            raise UserError(
                "execution is 'skipping' and train is True; expected execution='dense' in training"
            )
        if train and not self.has_rng(STREAM):
            raise UserError(
                f"train is True, which draws random numbers; expected rngs={{{STREAM!r}: key}}"
            )
        if chosen == "skipping" and not hasattr(self.network, "execution"):
            raise UserError(
                f"execution is 'skipping' and the backbone {self.backbone!r} is of fixed depth; "
                "expected one of adaptive depth, or execution='dense'"
            )
        images, size = batch["image"], batch["size"]
        image_size = (images.shape[1], images.shape[2])
        found: dict[str, Any] = {}

        def cut(x: Array) -> Array:
            if x.shape[1:3] == (1, 1):
                raise UserError(
                    f"image is {image_size[0]}x{image_size[1]} pixels, no more than the stride of "
                    f"{self.backbone!r}; expected larger images"
                )
            stride = map_stride(image_size, (x.shape[1], x.shape[2]))
            found["anchors"] = self._score_anchors(x, size, stride)
            found.update(self._choose_regions(found["anchors"], batch, train))
            return self._cut_regions(x, found["regions"], stride)

        # With train=False the statistics of batch normalisation are frozen.
        run = run_backbone(
            self.network, self._prepared(images, size), cut, train=False, execution=chosen
        )
        shape = found["region_valid"].shape
        outputs = run.outputs.astype(jnp.float32).reshape(*shape, run.outputs.shape[-1])
        return DetectorOutput(
            class_logits=outputs[..., : self.num_classes + 1],
            box_deltas=outputs[..., self.num_classes + 1 :].reshape(*shape, self.num_classes, 4),
            size=size,
            blocks=run.blocks,
            image_size=image_size,
            map_sizes=run.map_sizes,
            **found,
        )

    @nn.nowrap
    def fold(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Folds the variables of a backbone of adaptive depth for ``execution="skipping"``.

        Args:
            variables: variables of the detector.

        Returns:
            Variables that a skipping call takes without folding normalisations again.

        Raises:
            UserError: the backbone is of fixed depth.
        """
        network: Any = self.network
        if not hasattr(network, "fold"):
            raise UserError(
                f"backbone is {self.backbone!r}, of fixed depth; expected one of adaptive depth"
            )
        own = {kind: tree["network"] for kind, tree in variables.items() if "network" in tree}
        folded = {kind: {"network": tree} for kind, tree in network.fold(own).items()}
        return {kind: {**variables.get(kind, {}), **tree} for kind, tree in folded.items()}

    def _prepared(self, images: Array, size: Array) -> Float[Array, "N H W 3"]:
        """Normalises 8-bit images, and sets the padding to 0."""
        if images.dtype == jnp.uint8:
            chosen = self.normalisation.to_input_normalisation()
            pixels = images.astype(jnp.float32) / chosen.pixel_scale
            images = (pixels - chosen.offset[None]) * chosen.scale[None]
        mask = inside_sizes(size, (images.shape[1], images.shape[2]))
        return jnp.where(mask[..., None], images, jnp.zeros((), images.dtype))

    def _score_anchors(self, x: Array, size: Array, stride: int) -> AnchorScores:
        chosen = self.settings.proposals
        logits, deltas, map_size = self.rpn(x)
        anchors = jnp.asarray(
            anchor_boxes(
                map_size,
                stride=stride * chosen.stride,
                sizes=chosen.anchor_sizes,
                ratios=chosen.aspect_ratios,
            )
        )
        inside = jax.vmap(lambda size: inside_image(anchors, size))(size)
        return AnchorScores(logits, deltas, anchors, inside)

    def _choose_regions(
        self, scores: AnchorScores, batch: Mapping[str, Array], train: bool
    ) -> dict[str, Any]:
        """Returns regions, and in training a sample of them with its targets."""
        chosen = self.settings.proposals
        proposals = jax.vmap(
            lambda logits, deltas, inside, size: propose(
                logits, deltas, scores.anchors, inside, size, chosen
            )
        )(scores.logits, scores.deltas, scores.inside, batch["size"])
        if not train:
            return {
                "regions": proposals.boxes,
                "region_valid": proposals.valid,
                "anchor_targets": None,
                "region_targets": None,
            }
        keys = jax.random.split(self.make_rng(STREAM), batch["image"].shape[0])
        labels = batch["labels"]
        truth = Truth(
            batch["boxes"], labels, (labels >= 0) & ~batch["crowd"], (labels >= 0) & batch["crowd"]
        )

        def draw(key: Array, inside: Array, proposals: Proposals, truth: Truth) -> Any:
            first, second = jax.random.split(key)
            anchors = sample_anchors(first, scores.anchors, inside, truth, chosen)
            regions = sample_regions(
                second, proposals, truth, self.settings.regions, num_classes=self.num_classes
            )
            return anchors, regions

        anchors, regions = jax.vmap(draw)(keys, scores.inside, proposals, truth)
        return {
            "regions": regions.boxes,
            "region_valid": regions.valid,
            "anchor_targets": anchors,
            "region_targets": regions.targets,
        }

    def _cut_regions(self, x: Array, regions: Array, stride: int) -> Float[Array, "M h w C"]:
        chosen = self.settings.regions
        maps = jax.vmap(
            lambda x, boxes: roi_align(
                x,
                boxes,
                output_size=chosen.crop_size,
                spatial_scale=1.0 / stride,
                sampling_ratio=chosen.sampling_ratio,
            )
        )(x, regions)
        return maps.reshape(-1, *maps.shape[2:])


def create_detector(
    backbone: str,
    *,
    num_classes: int,
    settings: DetectorSettings | None = None,
    **overrides: Any,
) -> FasterRCNN:
    """Creates a detector over a network of the zoo.

        detector = create_detector("resnet101_sact", num_classes=80)
        variables = detector.init({"params": key, "sampling": key}, batch)
        found = detections(detector.apply(variables, batch))

    Args:
        backbone: name of a residual network: of fixed depth such as ``"resnetv2_50"`` or
            ``"resnet32_cifar10"``, or its form with ACT or SACT such as ``"resnet50_sact"``.
        num_classes: C, classes of objects without background.
        settings: numbers and thresholds; None for the defaults.
        **overrides: further arguments of the network's builder, such as ``execution``.

    Raises:
        UserError: the name or an override is unknown, the network cannot be split, or the number of
            classes is not positive.
    """
    entry = model_entry(backbone)
    classes = check_positive_integer("num_classes", num_classes)
    network = create_model(entry.name, num_classes=classes + 1 + 4 * classes, **overrides)
    check_backbone(entry.name, network)
    return FasterRCNN(
        network, entry.name, classes, entry.normalisation, settings or DetectorSettings()
    )
