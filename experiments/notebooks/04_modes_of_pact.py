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
# # The three modes of probabilistic adaptive computation time
#
# In a probabilistic network the number of units z is a latent variable: after unit l the block
# stops with probability h_l. The same weights run in three modes:
#
# * **relaxed**: indicators between 0 and 1, differentiable, for training; runs every unit;
# * **discrete**: indicators are sampled, 0 or 1;
# * **thresholded**: a unit stops where h_l exceeds one half; deterministic, for use.
#
# The notebook shows the modes on numbers first, then trains a small network on the embedded MNIST
# and compares them.

# %% tags=["parameters"]
STEPS = 300  # training steps of 64 images
TAU = 0.05  # price of one unit at every position, nats
TEST_IMAGES = 500
SAMPLES = 8  # runs of the modes that draw random numbers
SEED = 0

# %%
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import adaptive_nets as an
from adaptive_nets.data import load
from adaptive_nets.halting import (
    expected_units,
    relaxed_bernoulli,
    sample_indicators,
    stick_breaking,
    stopping_unit,
    threshold_indicators,
)
from adaptive_nets.models import ponder_map
from adaptive_nets.models.adaptive.cost import flops_per_image, plain_flops
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

MODES = ("relaxed", "discrete", "thresholded")
key = jax.random.key(SEED)

# %% [markdown]
# ## One block of six units
#
# Stick breaking turns halting probabilities into the distribution of z. The last unit takes what is
# left.

# %%
probs = jnp.array([0.05, 0.2, 0.4, 0.6, 0.7, 1.0])
of_units = stick_breaking(probs)
samples = jax.vmap(lambda k: stopping_unit(sample_indicators(k, probs)))(
    jax.random.split(key, 2000)
)
at_threshold = int(stopping_unit(threshold_indicators(probs)))
units = np.arange(1, len(probs) + 1)
plt.figure(figsize=(6, 3))
plt.bar(units - 0.2, of_units, width=0.4, label="q(z)")
frequencies = np.bincount(np.asarray(samples), minlength=len(probs) + 1)[1:] / len(samples)
plt.bar(units + 0.2, frequencies, width=0.4, label="discrete, frequencies of samples")
plt.axvline(at_threshold, color="black", linestyle=":", label="thresholded")
plt.xlabel("unit z at which the block stops")
plt.legend(fontsize=8, loc="upper right")
plt.show()
print(f"expected units {float(expected_units(probs)):.3f}, mean of samples {samples.mean():.3f}")

# %% [markdown]
# ## Temperature of the relaxation
#
# A relaxed indicator of probability 0.3 at three temperatures. At a low temperature it is almost
# binary, and its gradient has a high variance.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.3), sharex=True)
logit = jnp.full((20000,), jnp.log(0.3 / 0.7))
for axis, temperature in zip(axes, (0.1, 2 / 3, 2.0), strict=True):
    axis.hist(np.asarray(relaxed_bernoulli(key, logit, temperature)), bins=40, density=True)
    axis.set_title(f"temperature {temperature:.2f}", fontsize=9)
    axis.set_yticks([])
plt.show()

# %% [markdown]
# ## Training
#
# Training maximises a bound: the log-likelihood minus τ times the expected number of units. It
# uses the relaxed mode. The initial bias of the halting heads lets most units run at first.

# %%
digits = load("mnist", source="embedded")
model = an.create_model("resnet32_pact_cifar10", stage_sizes=(3, 3, 3), widths=(8, 16, 32))
with tempfile.TemporaryDirectory() as folder:
    result = train(
        classification_task(
            model,
            lambda timing: adaptive_depth(lambda step: jnp.float32(TAU)),
            start=lambda params, model_state: (set_head_bias(params, -1.0), model_state),
        ),
        TrainConfig(
            data=DataConfig(
                batch_size=64,
                eval_batch_size=64,
                centre="none",  # pixels from 0 to 1
                test_limit=64,
            ),
            optimiser=OptimiserConfig(name="sgd", learning_rate=0.1, momentum=0.9),
            schedule=ScheduleConfig(length=f"{STEPS} steps", kind="cosine"),
            run=RunConfig(eval_every="100%", checkpoint_every="100%", tensorboard=False),
        ),
        dataset=digits,
        directory=folder,
        seed=SEED,
    )
variables = result.state.eval_variables
print(f"{digits.name}: {STEPS} steps in {result.seconds:.0f} s")

# %% [markdown]
# ## The same weights in three modes
#
# Relaxed and discrete runs draw random numbers, so they are repeated.

# %%
images = digits.test.images[:TEST_IMAGES] / np.float32(255)
labels = digits.test.labels[:TEST_IMAGES]
outputs = {}
for mode in MODES:
    run = jax.jit(
        lambda x, halting, mode=mode: model.apply(
            variables, x, mode=mode, rngs={"halting": halting}, method="full_output"
        )
    )
    runs = 1 if mode == "thresholded" else SAMPLES
    outputs[mode] = [run(images, jax.random.fold_in(key, n)) for n in range(runs)]

whole = plain_flops(model, outputs["thresholded"][0], image_size=(28, 28))
for mode, found in outputs.items():
    errors = [float(np.mean(np.argmax(o.logits, -1) != labels)) for o in found]
    flops = [flops_per_image(model, o, image_size=(28, 28)).mean() / whole for o in found]
    units = [sum(float(block.num_units.mean()) for block in o.blocks) for o in found]
    print(
        f"{mode:12} error {np.mean(errors):.2%} (deviation {np.std(errors):.2%} over runs), "
        f"{np.mean(units):.2f} units, {np.mean(flops):.0%} of the plain network's FLOPs"
    )

# %% [markdown]
# Predictions of one run, image by image: the modes differ by their decisions alone.

# %%
reference = np.asarray(jax.nn.softmax(outputs["thresholded"][0].logits))
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for axis, mode in zip(axes, ("relaxed", "discrete"), strict=True):
    found = np.asarray(jax.nn.softmax(outputs[mode][0].logits))
    rows = np.arange(len(labels))
    axis.plot(reference[rows, labels], found[rows, labels], ".", markersize=3)
    axis.set_xlabel("probability of the label, thresholded")
    axis.set_title(mode, fontsize=9)
axes[0].set_ylabel("in the other mode")
plt.show()

# %% [markdown]
# ## Maps of the units that ran
#
# A discrete map is one sample. The mean of many samples approaches the expected number of units;
# the thresholded map is deterministic.


# %%
def units_map(output):
    """Sums the units that ran over the blocks, at every pixel."""
    blocks = tuple(
        block.replace(ponder_cost=block.num_units.astype(jnp.float32)) for block in output.blocks
    )
    return np.asarray(ponder_map(output.replace(blocks=blocks), (28, 28)))


rows = {
    "one discrete sample": units_map(outputs["discrete"][0]),
    f"mean of {SAMPLES} samples": np.mean([units_map(o) for o in outputs["discrete"]], axis=0),
    "expected units": np.asarray(ponder_map(outputs["thresholded"][0], (28, 28))),
    "thresholded": units_map(outputs["thresholded"][0]),
}
figure, axes = plt.subplots(len(rows) + 1, 6, figsize=(8, 7))
for column in range(6):
    axes[0, column].imshow(images[column, ..., 0], cmap="gray")
    for row, (name, maps) in enumerate(rows.items(), start=1):
        drawn = axes[row, column].imshow(maps[column], vmin=3, vmax=9)
        if column == 0:
            axes[row, 0].set_ylabel(name, fontsize=8)
for axis in axes.ravel():
    axis.set_xticks([])
    axis.set_yticks([])
figure.colorbar(drawn, ax=axes, label="units, all blocks", fraction=0.03)
plt.show()
