"""Faster R-CNN on adaptive backbones: the paper's Table 1, and a small set of photographs."""
