"""Settings of a detector."""

from __future__ import annotations

import dataclasses

from adaptive_nets.detection.arguments import check_share, check_sizes
from adaptive_nets.halting.arguments import check_number, check_positive_integer
from adaptive_nets.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProposalSettings:
    """Settings of the region proposal network [ren2015, section 3.1]."""

    anchor_sizes: tuple[float, ...] = (64.0, 128.0, 256.0, 512.0)
    """Square roots of the anchors' areas, pixels of the resized image."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    channels: int = 512
    """Width of the 3x3 convolution."""
    stride: int = 1
    """Stride of the 3x3 convolution: positions of the shared map per position with anchors."""
    positive_iou: float = 0.7
    """Least IoU with a true box of a positive anchor."""
    negative_iou: float = 0.3
    """IoU with every true box below which an anchor is negative."""
    samples: int = 256
    """Anchors per image in the loss."""
    positive_share: float = 0.5
    """Largest share of positives among them."""
    candidates: int = 2000
    """Anchors of largest score before suppression."""
    nms_iou: float = 0.7
    """Threshold of suppression."""
    proposals: int = 300
    """Proposals per image after suppression."""
    least_side: float = 1.0
    """Shortest side of a proposal, pixels."""

    def __post_init__(self) -> None:
        check_sizes("anchor_sizes", self.anchor_sizes)
        check_sizes("aspect_ratios", self.aspect_ratios)
        for name in ("channels", "stride", "samples", "candidates", "proposals"):
            check_positive_integer(name, getattr(self, name))
        for name in ("positive_iou", "negative_iou", "positive_share", "nms_iou"):
            check_share(name, getattr(self, name))
        if self.negative_iou > self.positive_iou:
            raise UserError(
                f"negative_iou is {self.negative_iou}; expected at most positive_iou, "
                f"{self.positive_iou}"
            )
        check_number("least_side", self.least_side)

    @property
    def anchors_per_position(self) -> int:
        """Number of anchors at each position."""
        return len(self.anchor_sizes) * len(self.aspect_ratios)


@dataclasses.dataclass(frozen=True)
class RegionSettings:
    """Settings of the part of the network that runs for every region."""

    crop_size: int = 14
    """Side of the map cut out for a region, before the strided first unit of the last stage."""
    sampling_ratio: int = 2
    """Samples per bin and axis of the cut, see `roi_align`."""
    samples: int = 64
    """Regions per image in training."""
    positive_share: float = 0.25
    """Largest share of positives among them."""
    positive_iou: float = 0.5
    """Least IoU with a true box of a positive region; others are background."""

    def __post_init__(self) -> None:
        for name in ("crop_size", "sampling_ratio", "samples"):
            check_positive_integer(name, getattr(self, name))
        for name in ("positive_share", "positive_iou"):
            check_share(name, getattr(self, name))


@dataclasses.dataclass(frozen=True)
class DetectorSettings:
    """Settings of a detector: proposals and regions."""

    proposals: ProposalSettings = ProposalSettings()
    """Region proposal network."""
    regions: RegionSettings = RegionSettings()
    """Part of the network that runs for every region."""
