"""Faster R-CNN on backbones of fixed and of adaptive depth."""

from adaptive_nets.detection.alignment import roi_align
from adaptive_nets.detection.anchors import anchor_boxes
from adaptive_nets.detection.average_precision import average_precision, flatten_detections
from adaptive_nets.detection.boxes import area, clip, decode, encode, intersection, iou
from adaptive_nets.detection.cost import FeatureCost, feature_cost
from adaptive_nets.detection.decoding import Detections, detections
from adaptive_nets.detection.losses import DetectionLoss, detection_loss, mean_ponder_costs
from adaptive_nets.detection.network import FasterRCNN, create_detector
from adaptive_nets.detection.output import DetectorOutput, image_mask, image_ponder_map
from adaptive_nets.detection.ponder_contrast import PonderContrast, ponder_contrast
from adaptive_nets.detection.settings import DetectorSettings, ProposalSettings, RegionSettings
from adaptive_nets.detection.suppression import Kept, nms
from adaptive_nets.detection.task import detection_objective, detection_task
from adaptive_nets.detection.warm_start import start_from_classifier

__all__ = [
    "DetectionLoss",
    "Detections",
    "DetectorOutput",
    "DetectorSettings",
    "FasterRCNN",
    "FeatureCost",
    "Kept",
    "PonderContrast",
    "ProposalSettings",
    "RegionSettings",
    "anchor_boxes",
    "area",
    "average_precision",
    "clip",
    "create_detector",
    "decode",
    "detection_loss",
    "detection_objective",
    "detection_task",
    "detections",
    "encode",
    "feature_cost",
    "flatten_detections",
    "image_mask",
    "image_ponder_map",
    "intersection",
    "iou",
    "mean_ponder_costs",
    "nms",
    "ponder_contrast",
    "roi_align",
    "start_from_classifier",
]
