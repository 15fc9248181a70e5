# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# ---

# %% tags=["colab"]
# Open in Colab: this cell installs the package there, and does nothing elsewhere.
import subprocess
import sys

if "google.colab" in sys.modules:
    # The same as: %pip install adaptive-nets
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "adaptive-nets"], check=True)

# %% [markdown]
# # Perforated convolution and its break-even
#
# A perforated convolution computes its output at some positions and copies the nearest computed
# value to the others. The notebook shows the masks, measures from which perforation rate on a layer
# is faster than the dense one on this machine, and what a whole network loses in accuracy.

# %% tags=["parameters"]
STEPS = 300  # training steps of LeNet-5, 100 images each
SIZE = 56  # side of the maps of the timed layer
CHANNELS = 64  # its input and output channels
ROUNDS = 7  # timings of which the median is taken
SEED = 0

# %%
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data

import adaptive_nets as an
from adaptive_nets.data import load
from adaptive_nets.data.image_files import read_image
from adaptive_nets.perforation import (
    conv_layers,
    grid_mask,
    make_plan,
    nearest_kept,
    perforate,
    plan_macs,
    uniform_mask,
)
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import DataConfig, RunConfig, ScheduleConfig, TrainConfig
from adaptive_nets.training.loop import train
from kernels import perforated_conv
from kernels.perforated_conv import choose

key = jax.random.key(SEED)
device = jax.devices()[0]
print(f"device: {device.device_kind}, platform {device.platform}")

# %% [markdown]
# ## Masks and the nearest computed position
#
# A mask is fixed when the function is built. A *grid* mask keeps rows and columns at even
# distances; a *uniform* mask keeps random positions. The colours show which positions copy the
# same value.

# %%
masks = {"grid": grid_mask(key, (16, 16), 0.25), "uniform": uniform_mask(key, (16, 16), 0.25)}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.7))
colours = np.random.default_rng(SEED).permutation(16 * 16)
for pair, (kind, mask) in zip((axes[:2], axes[2:]), masks.items(), strict=True):
    pair[0].imshow(mask, cmap="Greys")
    pair[0].set_title(f"{kind}: {mask.sum()} of {mask.size} computed", fontsize=9)
    pair[1].imshow(colours[nearest_kept(key, mask)], cmap="nipy_spectral")
    pair[1].set_title("copied from", fontsize=9)
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## One layer on a photograph
#
# The layer is an edge filter. Three quarters of its positions are not computed.

# %%
name = get_sample_data("grace_hopper.jpg", asfileobj=False)
photograph = read_image(name, (128, 128, 1))[None] / np.float32(255)
filters = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]], np.float32)[..., None, None]
dense = perforated_conv(photograph, filters, np.ones((128, 128), bool))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.7))
axes[0].imshow(photograph[0, ..., 0], cmap="gray")
axes[0].set_title("photograph", fontsize=9)
axes[1].imshow(dense[0, ..., 0], cmap="gray")
axes[1].set_title("every position", fontsize=9)
for axis, make_mask in zip(axes[2:], (grid_mask, uniform_mask), strict=True):
    filled = perforated_conv(photograph, filters, make_mask(key, (128, 128), 0.25))
    deviation = float(jnp.sqrt(jnp.mean((filled - dense) ** 2)) / jnp.std(dense))
    axis.imshow(filled[0, ..., 0], cmap="gray")
    axis.set_title(f"{make_mask.__name__[:-5]}, deviation {deviation:.2f}", fontsize=9)
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Break-even of a layer
#
# The multiplications saved are the perforation rate. The time saved is less, since the computed
# positions have to be gathered and copied. The break-even is the rate at which both layers take the
# same time. An implementation is named, so that nothing falls back to the dense convolution.

# %%
x = jax.random.normal(key, (4, SIZE, SIZE, CHANNELS))
w = jax.random.normal(key, (3, 3, CHANNELS, CHANNELS)) / np.sqrt(9 * CHANNELS)
every = np.ones((SIZE, SIZE), bool)


def median_seconds(functions):
    """Times functions of (x, w) in turn, so that the load of the machine is the same for all."""
    for function in functions:
        jax.block_until_ready(function(x, w))
    times = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, found in zip(functions, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(function(x, w))
            found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in times]


def layer(mask, implementation):
    """Returns the compiled layer of a mask."""
    return jax.jit(lambda x, w: perforated_conv(x, w, mask, implementation=implementation))


kept = [grid_mask(key, (SIZE, SIZE), 1 - rate) for rate in (0.1, 0.25, 0.5, 0.67, 0.75, 0.9)]
rates = np.array([1 - mask.mean() for mask in kept])  # a grid cannot have every rate
sparse = choose(x, w, kept[-1]).implementation  # the fastest one here for few positions
baseline, *seconds = median_seconds([layer(every, "dense"), *(layer(m, sparse) for m in kept)])
ratios = np.array(seconds) / baseline
for rate, mask, ratio in zip(rates, kept, ratios, strict=True):
    chosen = choose(x, w, mask).implementation
    print(f"rate {rate:.2f}: {ratio:.2f} of the dense time; implementation=None takes {chosen!r}")

# %%
faster = np.flatnonzero(ratios < 1)
crossing = None
if len(faster) and faster[0] > 0:
    i = faster[0]
    crossing = float(np.interp(0, 1 - ratios[[i - 1, i]], rates[[i - 1, i]]))
plt.figure(figsize=(5.5, 3.4))
plt.plot(rates, ratios, "o-", label=f"measured, {sparse}")
plt.plot([0, 1], [1, 0], ":", color="grey", label="multiplications")
plt.axhline(1, color="black", linewidth=0.8)
if crossing is not None:
    plt.axvline(crossing, color="tab:red", linestyle="--", label=f"break-even {crossing:.2f}")
plt.xlabel("perforation rate")
plt.ylabel("time, share of the dense layer's")
plt.legend()
plt.show()
if crossing is not None:
    print(f"break-even at rate {crossing:.2f}: {sparse} is faster above it")
else:
    print(f"{sparse} is faster at {len(faster)} of {len(rates)} rates")

# %% [markdown]
# ## A whole network
#
# LeNet-5 is trained for a few seconds on the embedded MNIST. `perforate` then applies a plan of
# masks to it; the weights stay as they are.

# %%
digits = load("mnist", source="embedded")
model = an.create_model("lenet5_caffe")
with tempfile.TemporaryDirectory() as folder:
    result = train(
        classification_task(model),
        TrainConfig(
            data=DataConfig(batch_size=100, centre="none"),  # pixels from 0 to 1
            schedule=ScheduleConfig(length=f"{STEPS} steps"),
            run=RunConfig(eval_every="100%", checkpoint_every="100%", tensorboard=False),
        ),
        dataset=digits,
        directory=folder,
        seed=SEED,
    )
variables = result.state.eval_variables
images, labels = digits.test.images[:1000] / np.float32(255), digits.test.labels[:1000]

# %%
layers = conv_layers(model, variables, (28, 28, 1))
errors = {}
for kind in ("grid", "uniform", "pooling"):
    for rate in (0.0, 0.25, 0.5, 0.75, 0.9):
        rates_by_layer = {layer.name: rate for layer in layers}
        plan = make_plan(key, layers, rates_by_layer, kind)
        network = perforate(model, variables, plan)
        logits = jax.jit(network.apply)(variables, images)
        error = float(np.mean(np.argmax(logits, -1) != labels))
        errors[kind, rate] = (plan_macs(layers, plan), error)
whole = errors["grid", 0.0][0]
plt.figure(figsize=(5.5, 3.4))
for kind in ("grid", "uniform", "pooling"):
    points = np.array([found for (name, _), found in errors.items() if name == kind])
    plt.plot(points[:, 0] / whole, 100 * points[:, 1], "o-", label=kind)
plt.xlabel("multiplications of the convolutions, share")
plt.ylabel("error, %")
plt.legend(title="mask")
plt.show()
for (kind, rate), (macs, error) in errors.items():
    print(f"{kind:8} rate {rate:.2f}: {macs:9,} multiplications, error {error:.2%}")
