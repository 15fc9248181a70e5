"""Times forward passes in PyTorch; imports nothing of this repository.

Reads one JSON job per line from standard input and answers each with one line, {"seconds": median}
or {"error": text}. `torch_peer` defines the jobs: networks and convolutions.
"""

import json
import sys
import time

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class Bottleneck(nn.Module):
    """Bottleneck unit: 1x1, 3x3 with the stride, 1x1 to four times the width, plus the shortcut."""

    def __init__(self, inputs, width, stride):
        """Makes the layers."""
        super().__init__()
        outputs = 4 * width
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        """Computes the unit's output."""
        return functional.relu(self.layers(x) + self.shortcut(x), inplace=True)


def resnet(name):
    """Builds a ResNet: stem, four stages of bottlenecks, mean, linear layer."""
    layers = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = 64
    for stage, count in enumerate(BLOCKS[name]):
        width = 64 * 2**stage
        for unit in range(count):
            layers.append(Bottleneck(inputs, width, 2 if unit == 0 and stage else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def vgg16():
    """Builds VGG-16: thirteen convolutions and three dense layers."""
    layers, inputs = [], 3
    for width in VGG16:
        if width:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        else:
            layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), *dense, nn.Linear(4096, 1000))


def make_job(job):
    """Returns a function without arguments that runs the job."""
    last = torch.channels_last if job["layout"] == "channels_last" else torch.contiguous_format
    shape = job["input"]
    x = torch.randn(shape[0], shape[3], shape[1], shape[2]).to(memory_format=last)
    if job["kind"] == "network":
        net = vgg16() if job["name"] == "vgg16" else resnet(job["name"])
        net = net.eval().to(memory_format=last)
        return lambda: net(x)
    if job["kind"] == "conv":
        height, width, inputs, outputs = job["kernel"]
        kernel = torch.randn(outputs, inputs, height, width).to(memory_format=last)
        (top, bottom), (left, right) = job["padding"]
        groups, stride = job.get("groups", 1), tuple(job["strides"])
        if (top, left) == (bottom, right):
            return lambda: functional.conv2d(x, kernel, None, stride, (top, left), 1, groups)
        sides = (left, right, top, bottom)
        return lambda: functional.conv2d(
            functional.pad(x, sides), kernel, None, stride, 0, 1, groups
        )
    raise ValueError(f"kind of the job is {job['kind']!r}; expected 'network' or 'conv'")


JOB_CACHE = {}


def time_job(job):
    """Returns the median seconds of a pass; equal jobs share one compiled module."""
    torch.set_num_threads(job["threads"])
    key = json.dumps(job, sort_keys=True)
    run = JOB_CACHE.get(key)
    warm = 0 if run is not None else job["warm"]
    if run is None:
        run = JOB_CACHE[key] = make_job(job)
    with torch.inference_mode():
        for _ in range(warm):
            run()
        times = []
        for _ in range(job["rounds"]):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
    return {"seconds": sorted(times)[len(times) // 2]}


def main():
    """Answers jobs until the input ends."""
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        try:
            result = time_job(json.loads(line))
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
