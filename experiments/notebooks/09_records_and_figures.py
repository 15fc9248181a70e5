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
# # Reading a record and drawing its figures
#
# Every finished run has a record: one JSON file per seed, and arrays beside it. Tables, figures and
# the report are rendered from records alone. The notebook reads the published ones, which come with
# the package, and draws three of their figures.

# %% tags=["parameters"]
LOCAL = "runs"  # folder of your own runs, read too if it is there
EXPERIMENT = "sparse_vd.table1.lenet-300-100-sparse"

# %%
from collections import Counter, defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from experiments.suite.records import PUBLISHED, collect, mean_and_deviation

roots = [PUBLISHED, *([Path(LOCAL)] if Path(LOCAL).is_dir() else [])]
records = collect(roots)
print(f"{len(records)} records of {len({r.experiment for r in records})} experiments")
for paper, count in sorted(Counter(record.paper for record in records).items()):
    print(f"{paper:16} {count:3} records")

# %% [markdown]
# ## One record
#
# A record names experiment, preset and seed; it has the configuration and what differs from the
# preset, versions, devices, the data's fingerprint, and metrics with units and counts.

# %%
groups = defaultdict(list)
for record in records:
    groups[record.group].append(record)
seeds = max(
    (found for key, found in groups.items() if key[0] == EXPERIMENT),
    key=lambda found: (found[0].preset == "paper", len(found)),
)
record = seeds[0]
print(f"{record.experiment}, preset {record.preset}, seed {record.seed}")
print(f"{record.steps:,} steps in {record.seconds:,.0f} s, finished {record.finished}")
print(f"data {record.dataset['name']}, {record.dataset['train']:,} training images")
print(f"devices {record.devices}")
print(f"versions {record.packages}")

# %% [markdown]
# ## Metrics over seeds

# %%
for name in record.metrics:
    found = [metric for seed in seeds if (metric := seed.metric(name)) is not None]
    mean, deviation = mean_and_deviation([metric.value for metric in found])
    print(f"{name:20} {mean:12,.4g} ± {deviation:.2g} {found[0].unit}, {len(found)} seeds")

# %% [markdown]
# ## Curves
#
# `history` has the logged curves, {name: [[step, value], …]}, thinned for figures.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
names = [name for name in record.history if name.startswith("sparsity/")]
for colour, name in enumerate(names):
    for seed in seeds:
        steps, values = np.transpose(seed.history[name])
        label = name.split("/")[1] if seed is record else None
        axes[0].plot(steps, 100 * values, color=f"C{colour}", linewidth=1, label=label)
for seed in seeds:
    steps, values = np.transpose(seed.history["test/error"])
    axes[1].plot(steps, 100 * values, linewidth=1, label=f"seed {seed.seed}")
axes[0].set_ylabel("weights removed, %")
axes[1].set_ylabel("test error, %")
for axis in axes:
    axis.set_xlabel("step")
    axis.legend(fontsize=8)
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Arrays
#
# Arrays for figures are in a second file. Those of this experiment: a sweep of the pruning
# threshold, histograms of log α, and the first layer.

# %%
arrays = record.arrays()
for name, array in arrays.items():
    print(f"{name:20} {array.dtype}{list(array.shape)}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3))
axes[0].plot(arrays["sweep_threshold"], arrays["sweep_error"], "o-")
axes[0].set_xlabel("threshold of log α")
axes[0].set_ylabel("test error, %")
for name in sorted(name for name in arrays if name.startswith("log_alpha.")):
    axes[1].stairs(arrays[name], arrays["log_alpha_edges"], label=name.split(".")[1])
axes[1].set_yscale("log")
axes[1].set_xlabel("log α")
axes[1].set_ylabel("weights")
axes[1].legend(fontsize=8)
drawn = axes[2].imshow(arrays["pixel_weights"])
axes[2].set_title("kept weights per pixel", fontsize=9)
axes[2].axis("off")
figure.colorbar(drawn, ax=axes[2])
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Pictures of another experiment
#
# Records of adaptive networks hold a few test images and the units that ran in each block. The
# record whose maps vary most over the images is drawn.

# %%
pictured = []
for found in records:
    for name, array in found.arrays().items():
        if name.startswith("picture_map.block1"):
            pictured.append((float(np.std(array)), found, name.removeprefix("picture_map.block1")))
if pictured:
    _, found, suffix = max(pictured, key=lambda entry: entry[0])
    arrays = found.arrays()
    pictures = arrays[f"pictures{suffix}"]
    names = [f"picture_map.block{number}{suffix}" for number in range(1, 10)]
    blocks = [name for name in names if name in arrays]
    columns = min(8, len(pictures))
    figure, axes = plt.subplots(1 + len(blocks), columns, figsize=(9, 1.2 * (1 + len(blocks))))
    for column in range(columns):
        axes[0, column].imshow(pictures[column])
        for row, name in enumerate(blocks, start=1):
            axes[row, column].imshow(arrays[name][column])
    for axis in axes.ravel():
        axis.axis("off")
    plt.suptitle(f"{found.experiment}, seed {found.seed}: units by block", fontsize=9)
    plt.show()

# %% [markdown]
# On the command line: `adaptive-nets table PAPER` shows the paper's values beside these, and
# `adaptive-nets report` draws all figures of all records on one page.
