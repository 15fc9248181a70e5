"""Operations and policies of greedy policy search, on the device and in batches."""

from adaptive_nets.data.augmentations.crops import crop_and_flip
from adaptive_nets.data.augmentations.operations import (
    CIFAR_OPERATIONS,
    IMAGENET_OPERATIONS,
    OPERATIONS,
    Operation,
    Protocol,
    operation_index,
    operation_value,
)
from adaptive_nets.data.augmentations.random_augment import RandomAugment, apply_per_image
from adaptive_nets.data.augmentations.sub_policy import (
    apply_operation,
    apply_sub_policy,
    random_sub_policies,
)

__all__ = [
    "CIFAR_OPERATIONS",
    "IMAGENET_OPERATIONS",
    "OPERATIONS",
    "Operation",
    "Protocol",
    "RandomAugment",
    "apply_operation",
    "apply_per_image",
    "apply_sub_policy",
    "crop_and_flip",
    "operation_index",
    "operation_value",
    "random_sub_policies",
]
