"""Names of variables in PyTorch's collections: torchvision, timm, akamaster's CIFAR networks.

The modules of the zoo are named as in these collections, with underscores in place of the dots
between nested modules (see `adaptive_nets.models.weights.state_dict`). A family's rules say which
underscores are dots, since names such as ``branch5x5_1`` have their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from adaptive_nets.models.weights.state_dict import foreign_shape
from adaptive_nets.runtime.errors import UserError

_Rules = tuple[tuple[str, str], ...]

_LEAVES = {
    "params/kernel": "weight",
    "params/scale": "weight",
    "params/bias": "bias",
    "batch_stats/mean": "running_mean",
    "batch_stats/var": "running_var",
}
# A number that ends a part of a name is the index of a sequence.
_SEQUENCES: _Rules = ((r"_(?=\d+(\.|$))", "."),)

# Collection and its networks -> rules. The first expression that matches the whole name counts.
_FAMILIES: tuple[tuple[str, str, _Rules], ...] = (
    ("torchvision", r"alexnet|vgg(11|13|16|19)(_bn)?", _SEQUENCES),
    ("torchvision", r"resnet(18|34|50|101|152)", _SEQUENCES),
    ("torchvision", r"googlenet", _SEQUENCES),
    ("torchvision", r"inception_v3", ()),
    ("torchvision", r"densenet(121|161|169|201|264)", ((r"_", "."),)),
    ("timm", r"inception_v4", _SEQUENCES),
    (
        "timm",
        r"inception_resnet_v2",
        ((r"^repeat_(\d+)(?=\.)", r"repeat.\1"), (r"^(repeat_\d+)_(\d+)", r"\1.\2"),
         (r"(branch\d+)_(\d+)", r"\1.\2")),
    ),
    ("timm", r"seresnet(18|34|50|101|152)", _SEQUENCES),
    (
        "timm",
        r"legacy_seresnet(18|34|50|101|152)|legacy_seresnext(50|101)_32x4d|senet154",
        ((r"^layer0_", "layer0."), *_SEQUENCES),
    ),
    ("akamaster", r"resnet(20|32|44|56|110|1202)_cifar(10|100)", _SEQUENCES),
    # Layers one after the other: code that names them so loads them.
    ("layers by name", r"lenet.*|linear_.*|mlp_.*|nin_.*", ()),
)  # fmt: skip

# Dense layers here that are convolutions of size 1 in the collections.
_POINTWISE = re.compile(r"(^|\.)(se|se_module)\.fc[12]\.weight$")

FAMILIES = (
    "alexnet, vgg*, resnet*, resnet*_cifar10, densenet*, googlenet, inception_*, seresnet*, "
    "senet154, lenet*, mlp_*, nin_*"
)
"""Families that have names, for messages."""


def torch_collection(model: str) -> str | None:
    """Returns the collection whose names a network has; None for a network without names.

    Args:
        model: registered name of the network.
    """
    return next((c for c, form, _ in _FAMILIES if re.fullmatch(form, model)), None)


def torch_names(model: str, paths: Iterable[str]) -> dict[str, str]:
    """Returns the name of every variable in a state dict.

    Args:
        model: registered name of the network.
        paths: paths of its variables, such as ``"params/layer1_0/conv1/kernel"``.

    Returns:
        Path -> name, such as ``"layer1.0.conv1.weight"``.

    Raises:
        UserError: no collection has the network, or a variable has no equal there.
    """
    rules = next((rules for _, form, rules in _FAMILIES if re.fullmatch(form, model)), None)
    if rules is None:
        raise UserError(
            f"network {model!r} has no names in PyTorch's collections; expected one of {FAMILIES}; "
            "--to safetensors and --to stablehlo export every network"
        )
    names: dict[str, str] = {}
    for path in paths:
        collection, *modules, leaf = path.split("/")
        kind = _LEAVES.get(f"{collection}/{leaf}")
        if kind is None:
            raise UserError(
                f"network {model!r} has the variable {path}, which layers of PyTorch do not have; "
                "--to safetensors and --to stablehlo export it"
            )
        scope = ".".join(modules)
        for pattern, replacement in rules:
            scope = re.sub(pattern, replacement, scope)
        names[path] = f"{scope}.{kind}"
    return names


def torch_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a variable in a state dict.

    Args:
        name: name in the state dict.
        shape: shape of the variable here: [H, W, I, O], [I, O] or [C].
    """
    foreign = foreign_shape(shape)
    return (*foreign, 1, 1) if _POINTWISE.search(name) and len(foreign) == 2 else foreign
