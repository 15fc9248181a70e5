"""The zoo: one family per file, made by name."""

# A family registers its models when it is imported.
from adaptive_nets.models import (  # noqa: F401
    adaptive_recurrent,
    alexnet,
    bn_inception,
    densenet,
    densenet_cifar,
    fractalnet,
    googlenet,
    hypernet,
    inception_resnet,
    inception_v3,
    inception_v4,
    lenet,
    meta_study,
    mlp,
    nin,
    resnet,
    resnet_act,
    resnet_cifar,
    resnet_v2,
    resnet_v2_cifar,
    senet,
    stochastic_depth,
    vgg,
    vgg_cifar,
    wide_resnet,
)
from adaptive_nets.models.output import (
    BlockTrace,
    ModelOutput,
    auxiliary_logits_of,
    blocks_of,
    logits_of,
    ponder_map,
)
from adaptive_nets.models.registry import ModelEntry, create_model, list_models, model_entry

__all__ = [
    "BlockTrace",
    "ModelEntry",
    "ModelOutput",
    "auxiliary_logits_of",
    "blocks_of",
    "create_model",
    "list_models",
    "logits_of",
    "model_entry",
    "ponder_map",
]
