"""Networks in PyTorch, to be timed beside ours; imports nothing of this repository.

Layers, widths and normalisation are those of the networks of the same names here, in the form that
a user of PyTorch would write. Weights are random.
"""

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)} | {
    152: (3, 8, 36, 3)
}
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


def conv(inputs, outputs, size, stride=1, bias=False):
    """Convolution padded to the same size."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias)


class Shortcut(nn.Module):
    """Parameter-free shortcut: every second pixel or the mean of four, and zero channels."""

    def __init__(self, inputs, outputs, stride, mean):
        """Stores the sizes."""
        super().__init__()
        self.zeros, self.stride, self.mean = (outputs - inputs) // 2, stride, mean

    def forward(self, x):
        """Computes the shortcut."""
        if self.stride > 1:
            x = functional.avg_pool2d(x, 2) if self.mean else x[:, :, ::2, ::2]
        return functional.pad(x, (0, 0, 0, 0, self.zeros, self.zeros)) if self.zeros else x


class Residual(nn.Module):
    """A residual branch plus a shortcut, and ReLU after the sum unless it is pre-activated."""

    def __init__(self, before, branch, shortcut, after):
        """Stores the parts: both branches read what `before` makes of the input."""
        super().__init__()
        self.before, self.branch, self.shortcut, self.after = before, branch, shortcut, after

    def forward(self, x):
        """Computes the unit's output."""
        if self.before is None:
            y = self.branch(x) + self.shortcut(x)
        else:
            activated = self.before(x)
            y = self.branch(activated)
            y = y + (x if self.shortcut is None else self.shortcut(activated))
        return functional.relu(y, inplace=True) if self.after else y


def basic(inputs, width, stride, bottleneck, projection=True):
    """Unit of ResNet: normalisation after the convolutions, ReLU after the sum."""
    if bottleneck:
        outputs, sizes = 4 * width, ((width, 1, 1), (width, 3, stride), (4 * width, 1, 1))
    else:
        outputs, sizes = width, ((width, 3, stride), (width, 3, 1))
    layers, channels = [], inputs
    for features, size, step in sizes:
        layers += [conv(channels, features, size, step), nn.BatchNorm2d(features)]
        layers += [nn.ReLU(inplace=True)]
        channels = features
    shortcut = nn.Identity()
    if stride != 1 or inputs != outputs:
        shortcut = Shortcut(inputs, outputs, stride, mean=False)
        if projection:
            shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
    return Residual(None, nn.Sequential(*layers[:-1]), shortcut, after=True), outputs


def resnet(depth, classes):
    """ResNet for ImageNet."""
    layers = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(STAGES[depth]):
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            unit, inputs = basic(inputs, 64 * 2**stage, stride, depth >= 50)
            layers.append(unit)
    return nn.Sequential(*layers, *mean_and_linear(inputs, classes))


def resnet_cifar(depth, classes):
    """ResNet for CIFAR with shortcuts of option A."""
    layers = [conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    inputs = 16
    for stage in range(3):
        for i in range((depth - 2) // 6):
            stride = 2 if i == 0 and stage else 1
            unit, inputs = basic(inputs, 16 * 2**stage, stride, False, projection=False)
            layers.append(unit)
    return nn.Sequential(*layers, *mean_and_linear(inputs, classes))


def resnet_v2_cifar(depth, classes):
    """Pre-activation ResNet for CIFAR with leaky ReLU and shortcuts of means."""

    def activate(channels):
        return [nn.BatchNorm2d(channels, eps=1e-3), nn.LeakyReLU(0.1, inplace=True)]

    layers, inputs = [conv(3, 16, 3)], 16
    for stage in range(3):
        for i in range((depth - 2) // 6):
            first, stride = i == 0 and stage == 0, 2 if i == 0 and stage else 1
            width = 16 * 2**stage
            begin = activate(inputs)
            branch = [conv(inputs, width, 3, stride), *activate(width), conv(width, width, 3)]
            if first:
                unit = Residual(nn.Sequential(*begin), nn.Sequential(*branch), nn.Identity(), False)
            else:
                # The branch changes nothing in place that the shortcut reads.
                begin[1] = nn.LeakyReLU(0.1)
                shortcut = Shortcut(inputs, width, stride, mean=True)
                unit = Residual(None, nn.Sequential(*begin, *branch), shortcut, after=False)
            layers.append(unit)
            inputs = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), *activate(inputs), nn.Flatten(),
        nn.Linear(inputs, classes),
    )  # fmt: skip


def resnet_v2(depth, classes):
    """Pre-activation ResNet for ImageNet."""

    def activate(channels):
        return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]

    layers, inputs = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate(STAGES[depth]):
        for i in range(count):
            width, stride = 64 * 2**stage, 2 if i == 0 and stage else 1
            changes = stride != 1 or inputs != 4 * width
            # Not in place: the shortcut reads the input.
            before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=False))
            branch = nn.Sequential(
                conv(inputs, width, 1), *activate(width), conv(width, width, 3, stride),
                *activate(width), conv(width, 4 * width, 1),
            )  # fmt: skip
            shortcut = conv(inputs, 4 * width, 1, stride) if changes else None
            layers.append(Residual(before, branch, shortcut, after=False))
            inputs = 4 * width
    return nn.Sequential(*layers, *activate(inputs), *mean_and_linear(inputs, classes))


def mean_and_linear(inputs, classes):
    """Last layers of a residual network."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)


def vgg(depth, classes, normalised=False):
    """VGG for ImageNet."""
    layers, inputs = [], 3
    for width, repeats in zip(WIDTHS, VGG[depth], strict=True):
        for _ in range(repeats):
            layers.append(conv(inputs, width, 3, bias=True))
            layers += [nn.BatchNorm2d(width)] if normalised else []
            layers.append(nn.ReLU(inplace=True))
            inputs = width
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    dense += [nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()]
    return nn.Sequential(*layers, nn.Flatten(), *dense, nn.Linear(4096, classes))


def vgg_cifar(classes, width=1.0, dropout=True):
    """VGG-like network for CIFAR."""
    layers, inputs = [], 3
    for stage, (channels, repeats) in enumerate(zip(WIDTHS, (2, 2, 3, 3, 3), strict=True)):
        outputs = int(channels * width)
        for place in range(repeats):
            layers += [conv(inputs, outputs, 3, bias=True), nn.BatchNorm2d(outputs, eps=1e-3)]
            layers.append(nn.ReLU(inplace=True))
            if dropout and place < repeats - 1:
                layers.append(nn.Dropout(0.3 if stage == 0 else 0.4))
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    hidden = int(512 * width)
    layers += [nn.Flatten(), nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden, eps=1e-3)]
    layers += [nn.ReLU(inplace=True), *([nn.Dropout(0.5)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))


def nin_cifar(classes, dropout_rate=0.5):
    """Network in network for CIFAR."""
    layers, inputs = [], 3
    units = ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192, classes)))
    for i, (size, widths) in enumerate(units):
        for place, width in enumerate(widths):
            layers += [conv(inputs, width, 1 if place else size, bias=True), nn.ReLU(inplace=True)]
            inputs = width
        if i < 2:
            layers += [nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(dropout_rate)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def alexnet(classes):
    """AlexNet in torchvision's form."""
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    layers += [conv(64, 192, 5, bias=True), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        layers += [conv(inputs, outputs, 3, bias=True), nn.ReLU(inplace=True)]
    layers += [nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(6), nn.Flatten()]
    for inputs in (256 * 36, 4096):
        layers += [nn.Dropout(), nn.Linear(inputs, 4096), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(4096, classes))


def lenet_caffe(classes):
    """LeNet-5 in Caffe's form."""
    layers = [nn.Conv2d(1, 20, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(20, 50, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, classes))


class GroupMix(nn.Module):
    """Meta layer: groups of channels mixed by one small matrix."""

    def __init__(self, groups, outputs):
        """Makes the matrix."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(groups, outputs))

    def forward(self, x):
        """Mixes the groups."""
        groups, outputs = self.weight.shape
        n, channels, height, width = x.shape
        parts = x.reshape(n, groups, channels // groups, height, width)
        return torch.einsum("ngchw,gm->nmchw", parts, self.weight).reshape(
            n, outputs * channels // groups, height, width
        )


def meta_study(classes, meta):
    """Test 1 of the Meta study, with a Meta layer or with a convolution in its place."""

    def block(inputs, outputs, groups=1):
        layer = nn.Conv2d(inputs, outputs, 3, 1, 1, groups=groups)
        return [layer, nn.PReLU(), nn.BatchNorm2d(outputs)]

    layers = [*block(3, 6), *block(6, 16), nn.MaxPool2d(2), nn.Dropout2d(0.1)]
    if meta:
        layers += [*block(16, 16, 4), nn.MaxPool2d(2), GroupMix(4, 8), nn.PReLU()]
    else:
        layers += [*block(16, 32), nn.MaxPool2d(2), nn.Dropout2d(0.1)]
    dense = [nn.Flatten(), nn.Linear(32 * 64, 40), nn.PReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, *dense, nn.Linear(40, classes))


def forms():
    """Returns builders by name: (number of classes, **options) -> module."""
    found = {"alexnet": alexnet, "lenet5_caffe": lenet_caffe, "vgg_cifar10": vgg_cifar}
    found["meta_study_meta_1"] = lambda classes: meta_study(classes, True)
    found["meta_study_conv2d_1"] = lambda classes: meta_study(classes, False)
    for depth in STAGES:
        found[f"resnet{depth}"] = lambda classes, d=depth: resnet(d, classes)
        if depth >= 50:
            found[f"resnetv2_{depth}"] = lambda classes, d=depth: resnet_v2(d, classes)
    for depth in VGG:
        found[f"vgg{depth}"] = lambda classes, d=depth: vgg(d, classes)
        found[f"vgg{depth}_bn"] = lambda classes, d=depth: vgg(d, classes, True)
    for data in ("cifar10", "cifar100"):
        found[f"nin_{data}"] = nin_cifar
        for depth in (20, 32, 44, 56, 110):
            found[f"resnet{depth}_{data}"] = lambda classes, d=depth: resnet_cifar(d, classes)
        for depth in (32, 110):
            found[f"resnetv2_{depth}_{data}"] = lambda classes, d=depth: resnet_v2_cifar(d, classes)
    return found
