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
# # Meta layers: channels mixed by one small matrix
#
# A Meta layer splits C channels into N groups and mixes whole groups: output group m is
# Σ_n W[n, m] · group n. It has N·M weights instead of the C² of a 1x1 convolution. In the networks
# of the study, small convolutions of separate groups and a Meta layer replace a convolution.
#
# Data: CIFAR-10 if it is in the data root, else the embedded MNIST as 32x32 images of three
# channels. The output of the cells says which was used.

# %% tags=["parameters"]
STEPS = 60  # training steps of each network, 64 images
TEST_IMAGES = 1000
SEED = 0

# %%
import dataclasses
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import adaptive_nets as an
from adaptive_nets.data import AbsentDataError, load
from adaptive_nets.layers import Conv3d, GroupedDense, Meta
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.loop import train

key = jax.random.key(SEED)

# %% [markdown]
# ## A Meta layer is a structured 1x1 convolution
#
# Its matrix acts on groups, so the equivalent 1x1 convolution has the kernel W ⊗ I. The picture
# shows both, and the outputs agree.

# %%
layer = Meta(groups=4, outputs=6)
x = jax.random.normal(key, (2, 8, 8, 32))
variables = layer.init(key, x)
weight = variables["params"]["weight"]
kernel = jnp.kron(weight, jnp.eye(x.shape[-1] // 4))
difference = np.abs(np.asarray(layer.apply(variables, x)) - x @ kernel).max()
figure, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].imshow(weight, cmap="RdBu", vmin=-2, vmax=2)
axes[0].set_title(f"Meta layer, {weight.size} weights", fontsize=9)
axes[1].imshow(kernel, cmap="RdBu", vmin=-2, vmax=2)
axes[1].set_title(f"equal 1x1 convolution, {kernel.size:,} weights", fontsize=9)
for axis in axes:
    axis.set_xlabel("outputs")
    axis.set_ylabel("inputs")
plt.tight_layout()
plt.show()
print(f"largest difference of the outputs {float(difference):.1e}")

# %% [markdown]
# ## Parameters of single layers
#
# All layers read 64 channels and give 64.


# %%
def count(module, shape=(1, 8, 8, 64)):
    """Counts the parameters of a module."""
    found = jax.eval_shape(module.init, key, jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(found["params"]))


sizes = {
    "3x3 convolution": 9 * 64 * 64 + 64,
    "3-D convolution, 1 volume": count(Conv3d(filters=1, groups=1)),
    "3-D convolution, 8 volumes": count(Conv3d(filters=8, groups=8)),
    "dense layer": 64 * 64 + 64,
    "8 grouped dense layers": count(GroupedDense(groups=8, features=8), (1, 64)),
    "Meta layer, 8 groups": count(Meta(groups=8, outputs=8)),
}
plt.figure(figsize=(6, 2.6))
plt.barh(list(sizes), list(sizes.values()))
plt.xscale("log")
plt.xlabel("parameters")
plt.gca().invert_yaxis()
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Networks of the study
#
# Test 1 has two fixed convolutions and a varied layer. The variants: a convolution, a 3-D
# convolution, a Meta layer, and a convolution with a Meta head in place of the dense head.


# %%
def coloured(split):
    """Returns digits as 32x32 images of three equal channels, padded by black."""
    padded = np.pad(split.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return split.replace(image=np.repeat(padded, 3, axis=3))


try:
    dataset = load("cifar10")
except AbsentDataError:
    digits = load("mnist", source="embedded")
    dataset = dataclasses.replace(
        digits,
        train=coloured(digits.train.first(10000)),
        test=coloured(digits.test.first(TEST_IMAGES)),
    )
print(f"data: {dataset.name}, {len(dataset.train):,} training images")


def fit(name):
    """Trains a network; returns the logged training and test errors."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            classification_task(an.create_model(name)),
            TrainConfig(
                data=DataConfig(
                    batch_size=64,
                    pixel_scale=127.5,
                    centre="middle",  # pixels from -1 to 1
                    eval_batch_size=250,
                    test_limit=TEST_IMAGES,
                ),
                optimiser=OptimiserConfig(learning_rate=0.003),
                schedule=ScheduleConfig(length=f"{STEPS} steps"),
                run=RunConfig(
                    log_every="5%", eval_every="100%", checkpoint_every="100%", tensorboard=False
                ),
            ),
            dataset=dataset,
            directory=folder,
            seed=SEED,
        )
        lines = Path(result.metrics_file).read_text().splitlines()
    return [json.loads(line) for line in lines]


names = ["meta_study_conv2d_1", "meta_study_conv3d_1", "meta_study_meta_1", "meta_study_head_1"]
curves = {name: fit(name) for name in names}

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
for name, lines in curves.items():
    logged = [(line["step"], line["train/nll"]) for line in lines if "train/nll" in line]
    tested = [line["test/error"] for line in lines if "test/error" in line]
    axes[0].plot(*np.transpose(logged), label=name)
    axes[1].plot(an.count_params(name), 100 * tested[-1], "o", label=name)
    print(f"{name:22} {an.count_params(name):7,} parameters, test error {tested[-1]:.1%}")
axes[0].set_xlabel("step")
axes[0].set_ylabel("training loss, nats")
axes[1].set_xlabel("parameters")
axes[1].set_ylabel("test error, %")
axes[1].legend(fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# After so few steps the order of the errors says little; `adaptive-nets list meta_layer` has the
# experiments of the study.
