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
# # Kernels on your device
#
# The package `kernels` has convolutions that skip positions, in several implementations. The
# notebook lists which of them run on this device, checks them against the reference, and measures
# from which share of positions on they are faster than the dense convolution.

# %% tags=["parameters"]
BATCH, SIZE, CHANNELS = 8, 28, 64
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)  # active positions
ROUNDS = 7  # timings of which the median is taken
SEED = 0

# %%
import statistics
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from kernels import masked_conv, masked_unit, perforated_conv, record_implementations
from kernels.masked_conv import IMPLEMENTATIONS as OF_MASKED_CONV
from kernels.masked_conv import choose as choose_masked_conv
from kernels.masked_unit import IMPLEMENTATIONS as OF_MASKED_UNIT
from kernels.perforated_conv import IMPLEMENTATIONS as OF_PERFORATED_CONV
from kernels.perforated_conv import choose as choose_perforated_conv

for device in jax.devices():
    print(f"{device}: {device.device_kind}, platform {device.platform}")
print(f"JAX {jax.__version__}")

# %% [markdown]
# ## Which implementations run here
#
# A named implementation runs or says why it does not. `None` chooses one that runs.

# %%
key = jax.random.key(SEED)
x = jax.random.normal(key, (BATCH, SIZE, SIZE, CHANNELS))
w = jax.random.normal(key, (3, 3, CHANNELS, CHANNELS)) / np.sqrt(9 * CHANNELS)


def blobs(share):
    """Draws masks bool[BATCH, SIZE, SIZE] of connected regions with a share of active positions."""
    noise = jax.random.normal(jax.random.fold_in(key, 1), (BATCH, SIZE, SIZE, 1))
    window = jnp.ones((7, 7, 1, 1)) / 49
    smooth = jax.lax.conv_general_dilated(
        noise, window, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[..., 0]
    return smooth <= jnp.quantile(smooth, share)


runtime_mask = blobs(0.25)
fixed_mask = np.asarray(runtime_mask[0])
operations = {
    "perforated_conv": (
        OF_PERFORATED_CONV,
        lambda name: perforated_conv(x, w, fixed_mask, implementation=name),
    ),
    "masked_conv": (
        OF_MASKED_CONV,
        lambda name: masked_conv(x, w, runtime_mask, implementation=name),
    ),
    "masked_unit": (
        OF_MASKED_UNIT,
        lambda name: masked_unit(x, runtime_mask, (w, w), implementation=name),
    ),
}
for operation, (names, call) in operations.items():
    reference = call("reference")
    for name in names:
        try:
            difference = float(jnp.abs(call(name) - reference).max())
        except NotImplementedError as error:
            reason = str(error).split(": ")[-1].split(";")[0]
            print(f"{operation:16} {name:14} does not run here: {reason}")
            continue
        print(f"{operation:16} {name:14} largest difference from the reference {difference:.1e}")
with record_implementations() as ran:
    for _, call in operations.values():
        call(None)
print("chosen for these inputs:", {name: list(used) for name, used in ran.items()})

# %% [markdown]
# ## Run-time masks
#
# A run-time mask differs between images and batches; the same program serves all masks of a shape.

# %%
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4))
for axis, share in zip(axes, (0.05, 0.25, 0.5, 0.75), strict=True):
    mask = np.asarray(blobs(share)[0])
    axis.imshow(mask, cmap="Greys")
    axis.set_title(f"{share:.0%} of the batch, {mask.mean():.0%} here", fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Time over active positions
#
# Times are medians, measured in turn. The dense convolution of XLA is the baseline; for the unit,
# two of them with ReLU and the sum.


# %%
def seconds_of(calls):
    """Times functions without arguments in turn; returns the median seconds of each."""
    for call in calls:
        jax.block_until_ready(call())
    times = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, found in zip(calls, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            found.append(time.perf_counter() - began)
    return [statistics.median(found) for found in times]


@jax.jit
def dense(x, w):
    """Computes the dense convolution."""
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.jit
def dense_unit(x, w):
    """Computes the dense residual unit."""
    return x + dense(jax.nn.relu(dense(x, w)), w)


masked = jax.jit(lambda x, w, mask: masked_conv(x, w, mask))
unit = jax.jit(lambda x, w, mask: masked_unit(x, mask, (w, w)))
ratios = {"perforated_conv": [], "masked_conv": [], "masked_unit": []}
for share in SHARES:
    mask = blobs(share)
    fixed = np.asarray(jax.random.permutation(key, np.arange(SIZE**2) < share * SIZE**2))
    fixed = fixed.reshape(SIZE, SIZE)
    perforated = jax.jit(lambda x, w, fixed=fixed: perforated_conv(x, w, fixed))
    layer, whole, *found = seconds_of(
        [
            lambda: dense(x, w),
            lambda: dense_unit(x, w),
            lambda perforated=perforated: perforated(x, w),
            lambda mask=mask: masked(x, w, mask),
            lambda mask=mask: unit(x, w, mask),
        ]
    )
    for name, seconds, baseline in zip(ratios, found, (layer, layer, whole), strict=True):
        ratios[name].append(seconds / baseline)
    print(
        f"{share:4.0%} active: "
        + ", ".join(f"{name} {values[-1]:.2f}" for name, values in ratios.items())
        + f" of the dense time; {choose_perforated_conv(x, w, fixed).implementation} and "
        f"{choose_masked_conv(x, w, mask).implementation}"
    )

# %%
plt.figure(figsize=(5.5, 3.6))
for name, values in ratios.items():
    plt.plot(SHARES, values, "o-", label=name)
plt.plot([0, 1], [0, 1], ":", color="grey", label="multiplications")
plt.axhline(1, color="black", linewidth=0.8)
plt.xlabel("share of active positions")
plt.ylabel("time, share of the dense time")
plt.title(f"{BATCH} x {SIZE} x {SIZE} x {CHANNELS}, {jax.devices()[0].device_kind}", fontsize=9)
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Gradients
#
# Every implementation is differentiable in inputs, weights and bias.

# %%
weights_gradient = jax.grad(lambda w: (masked_conv(x, w, runtime_mask) ** 2).sum())(w)
expected = jax.grad(lambda w: ((dense(x, w) * runtime_mask[..., None]) ** 2).sum())(w)
scale = float(jnp.abs(expected).max())
difference = float(jnp.abs(weights_gradient - expected).max())
print(f"largest difference of the weights' gradient {difference / scale:.1e}, relative")
