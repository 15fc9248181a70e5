# %% [markdown]
# # Sparse variational dropout, from one weight to a pruned network
#
# Convert to a notebook with `jupytext --to ipynb` (extra `notebooks`), or run as a script.

# %%
import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from adaptive_nets.data.sources import load
from adaptive_nets.training.loop import train
from adaptive_nets.variational import (
    compression,
    keep_mask,
    kl_log_uniform,
    layer_sparsity,
    sample_linear,
)
from experiments.papers.sparse_vd.configs import SparseVDConfig
from experiments.papers.sparse_vd.experiment import sparse_task
from experiments.suite.registry import experiments

STEPS = 4000

# %% [markdown]
# ## Divergence from the log-uniform prior
#
# The divergence depends only on the dropout rate α = σ²/θ² of a weight. It decreases in α and
# vanishes as α → ∞, so only weights that are distinguishable from noise are penalised.

# %%
rates = jnp.linspace(-8, 8, 200)
plt.figure(figsize=(5, 3))
plt.plot(rates, kl_log_uniform(rates))
plt.axvline(3, color="grey", linestyle=":")
plt.xlabel("log α")
plt.ylabel("divergence, nats")

# %% [markdown]
# ## Local reparameterisation
#
# Outputs are sampled instead of weights. Their mean and variance match those of sampled weights.

# %%
key = jax.random.key(0)
x = jnp.ones((1, 3))
theta, sigma2 = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[0.1], [0.2], [0.3]])
keys = jax.random.split(key, 20000)
draws = jax.vmap(lambda k: sample_linear(k, x, theta, sigma2, jnp.dot))(keys)
print(f"mean {draws.mean():.3f} (exact 6), variance {draws.var():.3f} (exact 0.6)")

# %% [markdown]
# ## Training LeNet-300-100 on the embedded digits
#
# Preset *quick* of the experiment, with fewer steps.

# %%
config = experiments()["sparse_vd.table1.lenet-300-100-sparse"].presets["quick"].config
assert isinstance(config, SparseVDConfig)
schedule = dataclasses.replace(config.train.schedule, length=f"{STEPS} steps")
config = dataclasses.replace(config, train=dataclasses.replace(config.train, schedule=schedule))
digits = load("mnist", source="embedded")
with tempfile.TemporaryDirectory() as folder:
    result = train(
        sparse_task(config, digits), config.train, dataset=digits, directory=Path(folder), seed=0
    )
params = result.state.params
layers = layer_sparsity(params)
for layer in layers:
    print(f"{layer.layer}: {layer.kept:,} of {layer.weights:,} weights kept")
error = 100 * result.evaluate(result.state.eval_variables, result.test)["error"]
print(f"test error {error:.2f} %, compression {compression(layers):.0f} x")

# %% [markdown]
# ## Input pixels in use
#
# A pixel whose weights are all removed has no effect on the network.

# %%
kept = keep_mask(params["fc1"]["kernel"], params["fc1"]["log_sigma2"])
plt.figure(figsize=(3, 3))
plt.imshow(np.asarray(kept.sum(1)).reshape(28, 28), cmap="viridis")
plt.title("kept weights per pixel")
plt.axis("off")

# %%
plt.show()
