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
# # Samples of the deep weight prior
#
# Kernels of trained networks look alike. The deep weight prior learns a generative model, a small
# variational autoencoder, of the slices of such kernels, and uses it to initialise or to regularise
# a new network. The notebook trains source networks on the embedded MNIST, learns a prior of their
# 5x5 kernels, and compares its samples with the source.

# %% tags=["parameters"]
SOURCES = 2  # trained source networks
STEPS = 400  # training steps of each, 100 images
EPOCHS = 40  # epochs of the prior
TARGET_STEPS = 60  # steps of the networks that start from the prior
LABELS = 500  # training images of these
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
from adaptive_nets.data import load
from adaptive_nets.layers.kernel_vae import kernel_vae
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.loop import train
from adaptive_nets.variational.deep_weight_prior import (
    collect_slices,
    init_convolutions,
    prior_initializer,
    sample_slices,
    train_prior,
)

digits = load("mnist", source="embedded")
model = an.create_model("lenet5_caffe")

# %% [markdown]
# ## Source networks
#
# Weight decay lets the slices vanish that a network does not need; those of a small norm are left
# out.


# %%
def fit(seed, *, steps, dataset, weight_decay=0.0, start=None, eval_every="100%"):
    """Trains LeNet-5; returns its parameters and the logged test errors."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            dataclasses.replace(classification_task(model), start=start),
            TrainConfig(
                data=DataConfig(batch_size=100, centre="none", test_limit=1000),
                optimiser=OptimiserConfig(name="adam", weight_decay=weight_decay),
                schedule=ScheduleConfig(length=f"{steps} steps"),
                run=RunConfig(eval_every=eval_every, checkpoint_every="100%", tensorboard=False),
            ),
            dataset=dataset,
            directory=folder,
            seed=seed,
        )
        lines = [json.loads(line) for line in Path(result.metrics_file).read_text().splitlines()]
    curve = [(line["step"], line["test/error"]) for line in lines if "test/error" in line]
    return result.state.eval_variables["params"], np.array(curve)


sources = []
for number in range(SOURCES):
    params, curve = fit(SEED + number, steps=STEPS, dataset=digits, weight_decay=1e-3)
    sources.append(params)
    print(f"source network {number + 1}: test error {curve[-1, 1]:.2%}")
source = collect_slices(sources, (5, 5), layers="conv*", relative=0.1)
training, held_out = source.split(0.2, seed=SEED)
print(f"{len(source.slices):,} of {source.found:,} slices kept")

# %% [markdown]
# ## Learning the prior
#
# The prior has two latent variables here, so that it can be drawn as a map.

# %%
untrained = kernel_vae(jax.random.key(SEED), (5, 5), hidden=32, latent=2)
trained = train_prior(
    untrained, training, held_out=held_out, epochs=EPOCHS, seed=SEED, evaluate_every=5
)
prior, history = trained.prior, trained.history
plt.figure(figsize=(5, 3))
plt.plot(np.arange(1, EPOCHS + 1), history.elbo, label="training slices")
plt.plot(history.held_out_epochs, history.held_out_elbo, "o-", label="held out")
plt.xlabel("epoch")
plt.ylabel("evidence lower bound, nats per slice")
plt.legend()
plt.show()

# %% [markdown]
# ## Samples
#
# Source slices, samples of the prior, its decoded means, and the customary initialisation.


# %%
def sheet(slices, count=40):
    """Tiles slices in rows of ten, each scaled by its largest weight."""
    slices = np.asarray(slices[:count])
    scaled = slices / np.abs(slices).max(axis=(1, 2), keepdims=True)
    framed = np.pad(scaled, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return framed.reshape(-1, 10, 6, 6).transpose(0, 2, 1, 3).reshape(-1, 60)


key = jax.random.key(SEED + 1)
sheets = {
    "source networks": training,
    "samples of the prior": sample_slices(key, prior, 40, draw="sample"),
    "means of the prior": sample_slices(key, prior, 40, draw="mean"),
    "independent weights": jax.random.normal(key, (40, 5, 5)),
}
figure, axes = plt.subplots(2, 2, figsize=(9, 4.6))
for axis, (name, slices) in zip(axes.ravel(), sheets.items(), strict=True):
    axis.imshow(sheet(slices), cmap="RdBu", vmin=-1, vmax=1)
    axis.set_title(name, fontsize=9)
    axis.axis("off")
plt.tight_layout()
plt.show()


# %%
def neighbour_correlation(slices):
    """Correlation of weights that are neighbours in a row."""
    slices = np.asarray(slices)
    return np.corrcoef(slices[:, :, :-1].ravel(), slices[:, :, 1:].ravel())[0, 1]


for name, slices in sheets.items():
    print(f"{name:22} correlation of neighbouring weights {neighbour_correlation(slices):.2f}")

# %% [markdown]
# ## The latent plane
#
# Decoded means on a grid of the two latent variables.

# %%
ticks = np.linspace(-2.5, 2.5, 11)
grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
decoded = np.asarray(prior.decode(jnp.asarray(grid, jnp.float32)).mean).reshape(11, 11, 5, 5)
framed = np.pad(decoded, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
limit = np.abs(decoded).max()
plt.figure(figsize=(5, 5))
plt.imshow(framed.transpose(0, 2, 1, 3).reshape(66, 66), cmap="RdBu", vmin=-limit, vmax=limit)
plt.axis("off")
plt.title("decoded slices over two latent variables", fontsize=9)
plt.show()

# %% [markdown]
# ## A new network that starts from the prior
#
# Does it help to start from samples of the prior, with few labelled images and few steps? One run
# of each start is drawn; the paper's table averages many.

# %%
few = dataclasses.replace(digits, train=digits.train.first(LABELS))


def start_from_prior(params, model_state):
    """Replaces the initial kernels of the convolutions by samples of the prior."""
    initializers = {(5, 5): prior_initializer(prior, draw="sample")}
    return init_convolutions(key, params, initializers, layers="conv*"), model_state


plt.figure(figsize=(5, 3))
for name, start in (("He initialisation", None), ("deep weight prior", start_from_prior)):
    _, curve = fit(SEED + 10, steps=TARGET_STEPS, dataset=few, start=start, eval_every="10%")
    plt.plot(curve[:, 0], 100 * curve[:, 1], "o-", label=name)
    print(f"{name}: test error {curve[-1, 1]:.2%} after {TARGET_STEPS} steps on {LABELS} images")
plt.xlabel("step")
plt.ylabel("test error, %")
plt.legend()
plt.show()
