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
# # Sparse variational dropout, from one weight to a pruned network
#
# Every weight has a mean θ and a variance σ². Training maximises a bound that rewards a large
# ratio α = σ²/θ². A weight whose log α exceeds 3 is noise and is removed. The notebook shows the
# penalty of one weight, trains LeNet-300-100 on the embedded MNIST, prunes it, and shows which
# weights remain.

# %% tags=["parameters"]
STEPS = 4000  # optimiser steps of 100 images
SEED = 0

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import adaptive_nets as an
from adaptive_nets.data import load
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.config import (
    DataConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.loop import train
from adaptive_nets.variational import (
    THRESHOLD,
    compression,
    keep_mask,
    kl_divergence,
    kl_log_uniform,
    layer_sparsity,
    linear_warmup,
    log_alpha,
    prune,
    sample_linear,
)

# %% [markdown]
# ## Divergence from the log-uniform prior
#
# The divergence depends only on α. It decreases in α and vanishes as α → ∞, so only weights that
# are distinguishable from noise are penalised.

# %%
rates = jnp.linspace(-8, 8, 200)
plt.figure(figsize=(5, 3))
plt.plot(rates, kl_log_uniform(rates))
plt.axvline(THRESHOLD, color="grey", linestyle=":", label="threshold of removal")
plt.xlabel("log α")
plt.ylabel("divergence, nats")
plt.legend()
plt.show()

# %% [markdown]
# ## Local reparameterisation
#
# A layer samples its outputs instead of its weights, which lowers the variance of the gradient.
# Mean and variance of the outputs are those of sampled weights.

# %%
key = jax.random.key(SEED)
x = jnp.ones((1, 3))
theta, sigma2 = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[0.1], [0.2], [0.3]])
keys = jax.random.split(key, 20000)
draws = jax.vmap(lambda k: sample_linear(k, x, theta, sigma2, jnp.dot))(keys)
print(f"mean      {draws.mean():.3f}, exact {float((x @ theta).item()):.3f}")
print(f"variance  {draws.var():.3f}, exact {float((x**2 @ sigma2).item()):.3f}")

# %% [markdown]
# ## Training LeNet-300-100
#
# The loss is the mean cross-entropy plus the divergence per training image. The weight of the
# divergence rises from 0 to 1 in the first half of the training.

# %%
digits = load("mnist", source="embedded")
model = an.create_model("lenet_300_100_sparse_vd")


def bound(timing):
    """Returns the objective of a run of a given length."""

    def penalty(params, step):
        weight = linear_warmup(step, start=0, end=timing.total_steps / 2)
        return {"kl": weight * kl_divergence(params) / timing.examples}

    return classification(penalty=penalty)


with tempfile.TemporaryDirectory() as folder:
    result = train(
        classification_task(model, bound),
        TrainConfig(
            data=DataConfig(batch_size=100, centre="none"),  # pixels from 0 to 1
            optimiser=OptimiserConfig(learning_rate=2e-3),
            schedule=ScheduleConfig(length=f"{STEPS} steps"),
            run=RunConfig(eval_every="100%", checkpoint_every="100%", tensorboard=False),
        ),
        dataset=digits,
        directory=folder,
        seed=SEED,
    )
params = result.state.params
layers = layer_sparsity(params)
for layer in layers:
    print(f"{layer.layer}: {layer.kept:,} of {layer.weights:,} weights kept")
error = 100 * result.evaluate(result.state.eval_variables, result.test)["error"]
print(f"test error {error:.2f} %, 1 weight in {compression(layers):.0f} kept")

# %% [markdown]
# ## Two kinds of weights
#
# The distribution of log α has two modes: weights that matter, and weights that are noise. The
# threshold lies between them, so its exact value matters little.

# %%
figure, axes = plt.subplots(1, len(layers), figsize=(9, 2.4), sharex=True)
for axis, layer in zip(axes, layers, strict=True):
    weights = params[layer.layer]
    values = np.asarray(log_alpha(weights["kernel"], weights["log_sigma2"])).ravel()
    axis.hist(values.clip(-10, 12), bins=60)
    axis.axvline(THRESHOLD, color="black", linestyle=":")
    axis.set_yscale("log")
    axis.set_title(f"{layer.layer}, {100 * layer.sparsity:.1f} % removed", fontsize=9)
    axis.set_xlabel("log α")
axes[0].set_ylabel("weights")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## The pruned network
#
# `prune` sets removed weights to zero and drops the variances. The result is an ordinary network.

# %%
images = digits.test.images[:1000] / np.float32(255)
labels = digits.test.labels[:1000]
variational = model.apply({"params": params}, images, train=False)
plain = an.create_model("lenet_300_100")
logits = plain.apply({"params": prune(params)}, images, train=False)
changed = int(jnp.sum(jnp.argmax(variational, -1) != jnp.argmax(logits, -1)))
print(f"predictions changed by pruning: {changed} of {len(images):,}")
print(f"error of the pruned network on these images: {np.mean(logits.argmax(-1) != labels):.2%}")

# %% [markdown]
# ## Input pixels in use
#
# A pixel whose weights are all removed has no effect on the network: it has learnt to ignore the
# border of the image.

# %%
kept = np.asarray(keep_mask(params["fc1"]["kernel"], params["fc1"]["log_sigma2"]))
per_pixel = kept.sum(axis=1).reshape(28, 28)
figure, axes = plt.subplots(1, 2, figsize=(7, 3))
axes[0].imshow(np.mean(digits.train.images[..., 0], axis=0), cmap="gray")
axes[0].set_title("mean training image", fontsize=9)
drawn = axes[1].imshow(per_pixel, cmap="viridis")
axes[1].set_title(f"kept weights per pixel, {np.mean(per_pixel == 0):.0%} unused", fontsize=9)
figure.colorbar(drawn, ax=axes[1])
for axis in axes:
    axis.axis("off")
plt.show()
