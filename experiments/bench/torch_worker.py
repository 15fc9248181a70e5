"""Times forward passes and training steps in PyTorch; imports nothing of this repository.

Says its version and the names of its networks in one line, then reads one JSON job per line from
standard input and answers each with one line, {"seconds": median} or {"error": text}. `torch_peer`
defines the jobs: networks, training steps and convolutions.
"""

import json
import sys
import time

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]
from torch_networks import forms  # pyright: ignore[reportMissingImports]

FORMS = forms()


def make_training(job, net, x):
    """Returns a function that takes a step of SGD with momentum on one batch."""
    net.train()
    labels = torch.randint(job["classes"], (len(x),))
    optimiser = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)

    def step():
        optimiser.zero_grad(set_to_none=True)
        functional.cross_entropy(net(x), labels).backward()
        optimiser.step()

    return step


def make_job(job):
    """Returns a function without arguments that runs the job."""
    last = torch.channels_last if job["layout"] == "channels_last" else torch.contiguous_format
    shape = job["input"]
    x = torch.randn(shape[0], shape[3], shape[1], shape[2]).to(memory_format=last)
    if job["kind"] in ("network", "training"):
        net = FORMS[job["name"]](job["classes"], **job["options"]).to(memory_format=last)
        if job["kind"] == "training":
            return make_training(job, net, x)
        net.eval()
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
    raise ValueError(
        f"kind of the job is {job['kind']!r}; expected 'network', 'training' or 'conv'"
    )


JOB_CACHE = {}


def time_job(job):
    """Returns the median seconds of a pass; equal jobs share one compiled module."""
    torch.set_num_threads(job["threads"])
    key = json.dumps(job, sort_keys=True)
    run = JOB_CACHE.get(key)
    warm = 0 if run is not None else job["warm"]
    if run is None:
        run = JOB_CACHE[key] = make_job(job)
    with torch.inference_mode(job["kind"] != "training"):
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
    print(json.dumps({"torch": torch.__version__, "networks": list(FORMS)}), flush=True)
    for line in sys.stdin:
        try:
            result = time_job(json.loads(line))
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
