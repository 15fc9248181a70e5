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
# # Ponder maps of SACT on photographs
#
# Spatially adaptive computation time stops computing a position of an image as soon as the network
# has decided about it. The ponder map shows how many units were evaluated where. The notebook tunes
# a SACT network for a minute at most and draws its maps over photographs.
#
# Data, the best that is there: CIFAR-10 and trained weights of ResNet-20
# (`resnet_cifar10/resnet20-12fca82f.th` in the data root); CIFAR-10 alone; else the embedded
# digits as 32x32 images of three channels. The output of the cells says which was used. For a
# network of your own, give the folder of a finished run of SACT as `RUN`.

# %% tags=["parameters"]
RUN = ""  # folder of a finished run of a SACT network; empty to tune one here
STEPS = 60  # training steps of 64 images
TAU = 0.1  # price of one unit at every position, nats
TEST_IMAGES = 256
SIDE = 128  # side of the large photographs
SEED = 0

# %%
import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data

import adaptive_nets as an
from adaptive_nets.data import AbsentDataError, data_root, load
from adaptive_nets.data.image_files import find_images, read_image
from adaptive_nets.models import ponder_map
from adaptive_nets.models.adaptive.cost import flops_per_image, plain_flops
from adaptive_nets.models.adaptive.weights import init_from_plain, is_head
from adaptive_nets.models.normalisation import InputNormalisation, standard_normalisation
from adaptive_nets.models.weights.trained import load_weights
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.depth import adaptive_depth, set_head_bias
from adaptive_nets.training.loop import train

# %% [markdown]
# ## Data and network


# %%
def coloured(split):
    """Returns digits as 32x32 images of three equal channels, padded by black."""
    padded = np.pad(split.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return split.replace(image=np.repeat(padded, 3, axis=3))


statistics = standard_normalisation(3)
weights = data_root(must_exist=False) / "resnet_cifar10" / "resnet20-12fca82f.th"
try:
    dataset, given = load("cifar10"), weights if weights.is_file() else None
except AbsentDataError:
    digits, given = load("mnist", source="embedded"), None
    dataset = dataclasses.replace(
        digits, train=coloured(digits.train.first(10000)), test=coloured(digits.test.first(1000))
    )
print(f"data: {dataset.name}, {len(dataset.train):,} training images")

# %% [markdown]
# The loss is the cross-entropy plus τ times the ponder cost. If there are trained weights, the new
# halting heads learn at the full rate, and the other weights at a fifth of it. The initial bias of
# the heads lets every unit run at first.

# %%
if RUN:
    model, variables, config = an.load_run(RUN)
    normalisation = InputNormalisation(**config["normalisation"])
    print(f"network: {config['model']['name']} of {RUN}")
else:
    normalisation = statistics.to_input_normalisation()
    small = {} if given else {"widths": (8, 16, 32)}
    model = an.create_model("resnetv1_20_sact_cifar10", **small)

    def start(params, model_state):
        """Sets the bias of the heads and takes the trained weights, if there are any."""
        params = set_head_bias(params, -1.0)
        if not given:
            return params, model_state
        _, trained, _ = load_weights(given, "resnet20_cifar10")
        merged = init_from_plain({"params": params, **model_state}, trained)
        return merged.pop("params"), merged

    def rate_factors(params):
        """Returns 1 for halting heads, and for all other parameters 0.2 if they are trained."""
        factors = {name: 0.2 if given and not is_head(name) else 1.0 for name in params}
        return {
            name: jax.tree.map(lambda leaf, factor=factors[name]: factor, tree)
            for name, tree in params.items()
        }

    task = classification_task(
        model,
        lambda timing: adaptive_depth(lambda step: jnp.float32(TAU)),
        start=start,
        rate_factors=rate_factors,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            task,
            TrainConfig(
                data=DataConfig(
                    batch_size=64,
                    eval_batch_size=64,
                    centre="none",
                    mean=statistics.mean,
                    std=statistics.std,
                    flip=dataset.name == "cifar10",
                    test_limit=64,
                ),
                optimiser=OptimiserConfig(name="sgd", learning_rate=0.1, momentum=0.9),
                schedule=ScheduleConfig(length=f"{STEPS} steps", kind="cosine"),
                run=RunConfig(eval_every="100%", checkpoint_every="100%", tensorboard=False),
            ),
            dataset=dataset,
            directory=folder,
            seed=SEED,
        )
    variables = result.state.eval_variables
    origin = f"the weights {given.name}" if given else "random weights"
    print(f"network: resnetv1_20_sact_cifar10, {STEPS} steps from {origin}, {result.seconds:.0f} s")

# %% [markdown]
# ## What it spends
#
# FLOPs are counted from the decisions of each image, halting heads included.

# %%
apply = jax.jit(lambda images: model.apply(variables, images, method="full_output"))
pixels, labels = dataset.test.images[:TEST_IMAGES], dataset.test.labels[:TEST_IMAGES]
output = apply(normalisation.apply(pixels))
error = float(np.mean(np.argmax(output.logits, -1) != labels))
share = flops_per_image(model, output, image_size=pixels.shape[1:3]) / plain_flops(
    model, output, image_size=pixels.shape[1:3]
)
print(f"error {error:.1%} on {len(pixels)} test images")
print(f"FLOPs {share.mean():.1%} of the plain network, deviation {share.std():.1%} over images")

# %% [markdown]
# ## Maps over test images
#
# Bright positions were computed longer. The images of the smallest and the largest cost are shown.

# %%
maps = np.asarray(ponder_map(output, pixels.shape[1:3]))
order = np.argsort(maps.mean(axis=(1, 2)))
chosen = np.concatenate([order[:5], order[-5:]])
low, high = np.percentile(maps, (1, 99))
figure, axes = plt.subplots(2, len(chosen), figsize=(12, 3))
for column, index in enumerate(chosen):
    axes[0, column].imshow(pixels[index])
    axes[1, column].imshow(maps[index], vmin=low, vmax=high, cmap="viridis")
    axes[1, column].set_title(f"{maps[index].mean():.1f} units", fontsize=8)
for axis in axes.ravel():
    axis.axis("off")
plt.suptitle("five cheapest and five most expensive images")
plt.show()

# %% [markdown]
# ## Maps over photographs
#
# The network is convolutional, so it also runs on larger photographs than it was trained on. Its
# classes mean little there; its ponder cost still shows where it hesitates.

# %%
folder = data_root(must_exist=False) / "imagenet_samples"
if folder.is_dir():
    files = find_images([folder])
    files = files[:: max(1, len(files) // 4)][:4]
else:
    files = [get_sample_data("grace_hopper.jpg", asfileobj=False)]
print("photographs:", ", ".join(str(file).replace("\\", "/").rsplit("/", 1)[-1] for file in files))
photographs = np.stack([read_image(file, (SIDE, SIDE, 3)) for file in files])
output = apply(normalisation.apply(photographs))
maps = np.asarray(ponder_map(output, photographs.shape[1:3]))
figure, axes = plt.subplots(3, len(files), figsize=(3 * len(files), 9), squeeze=False)
for column, (photograph, ponder) in enumerate(zip(photographs, maps, strict=True)):
    axes[0, column].imshow(photograph)
    drawn = axes[1, column].imshow(ponder, cmap="viridis")
    axes[1, column].set_title(f"{ponder.min():.1f} to {ponder.max():.1f} units", fontsize=9)
    axes[2, column].imshow(photograph.mean(axis=-1), cmap="gray")
    axes[2, column].imshow(ponder, cmap="inferno", alpha=0.55)
for axis in axes.ravel():
    axis.axis("off")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## By block
#
# Each block of the network halts by itself, at its own resolution.

# %%
figure, axes = plt.subplots(1, len(output.blocks), figsize=(3.3 * len(output.blocks), 3))
for number, (axis, block) in enumerate(zip(axes, output.blocks, strict=True), start=1):
    units = np.asarray(block.broadcast_to_map(block.num_units))[0]
    drawn = axis.imshow(units, vmin=1, vmax=block.weights.shape[-1], cmap="viridis")
    axis.set_title(f"block {number}: {units.mean():.2f} of {block.weights.shape[-1]} units")
    axis.axis("off")
    figure.colorbar(drawn, ax=axis, fraction=0.046)
plt.show()
