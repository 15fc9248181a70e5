"""Convolution shapes of the papers' networks, for benchmarks and, scaled down, for tests."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Layer:
    """Convolution of a network at the network's original input size.

    Attributes:
        network: name of the network.
        name: name of the layer in the network.
        size: height and width of the input.
        channels: number of input channels.
        outputs: number of output channels.
        window: height and width of the kernel.
        stride: stride in both directions.
        padding: padding on each side.
        groups: number of channel groups.
    """

    network: str
    name: str
    size: int
    channels: int
    outputs: int
    window: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1

    @property
    def label(self) -> str:
        """Returns network and name."""
        return f"{self.network} {self.name}"

    @property
    def output_size(self) -> int:
        """Returns height and width of the output."""
        return (self.size + 2 * self.padding - self.window) // self.stride + 1

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of one image."""
        depth = self.window**2 * self.channels // self.groups
        return self.output_size**2 * depth * self.outputs


LAYERS = (
    Layer("AlexNet", "conv1", 227, 3, 96, window=11, stride=4, padding=0),
    Layer("AlexNet", "conv2", 27, 96, 256, window=5, padding=2, groups=2),
    Layer("AlexNet", "conv3", 13, 256, 384),
    Layer("AlexNet", "conv4", 13, 384, 384, groups=2),
    Layer("VGG-16", "conv1_2", 224, 64, 64),
    Layer("VGG-16", "conv2_2", 112, 128, 128),
    Layer("VGG-16", "conv3_2", 56, 256, 256),
    Layer("VGG-16", "conv4_2", 28, 512, 512),
    Layer("VGG-16", "conv5_2", 14, 512, 512),
    Layer("NIN", "conv1", 32, 3, 192, window=5, padding=2),
    Layer("NIN", "conv2", 16, 96, 192, window=5, padding=2),
    Layer("NIN", "conv3", 8, 192, 192),
    Layer("ResNet-32", "conv2", 32, 16, 16),
    Layer("ResNet-32", "conv3", 16, 32, 32),
    Layer("ResNet-32", "conv4", 8, 64, 64),
    Layer("ResNet-101", "conv2", 56, 64, 64),
    Layer("ResNet-101", "conv3", 28, 128, 128),
    Layer("ResNet-101", "conv4", 14, 256, 256),
    Layer("ResNet-101", "conv5", 7, 512, 512),
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """Residual unit of stride 1.

    Attributes:
        network: name of the network.
        name: name of the stage.
        size: height and width of its maps.
        channels: (input channels, inner channels).
        windows: kernel size of each convolution.
    """

    network: str
    name: str
    size: int
    channels: tuple[int, int]
    windows: tuple[int, ...]

    @property
    def label(self) -> str:
        """Returns network and name."""
        return f"{self.network} {self.name}"

    @property
    def kernel_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Returns the HWIO kernel shape of each convolution."""
        outer, inner = self.channels
        widths = [outer] + [inner] * (len(self.windows) - 1) + [outer]
        return tuple(
            (k, k, i, o) for k, i, o in zip(self.windows, widths, widths[1:], strict=False)
        )


UNITS = (
    Unit("ResNet-101", "conv2", 56, (256, 64), (1, 3, 1)),
    Unit("ResNet-101", "conv3", 28, (512, 128), (1, 3, 1)),
    Unit("ResNet-101", "conv4", 14, (1024, 256), (1, 3, 1)),
    Unit("ResNet-32", "conv4", 8, (64, 64), (3, 3)),
)
