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
# # Test-time augmentation, calibration and policy search
#
# A trained network gets better at test time without training: average its predictions over random
# views of the image, correct its confidence by a temperature, and let a greedy search choose the
# views.
#
# Data, the best that is there: CIFAR-10 with trained weights of ResNet-20
# (`resnet_cifar10/resnet20-12fca82f.th` in the data root); else LeNet-5, trained for a few seconds
# on the embedded MNIST. The output of the cells says which was used.

# %% tags=["parameters"]
IMAGES = 1000  # test images; half of them for the search, half for the comparison
VIEWS = 8  # views of an image in the comparison
POOL = 16  # candidates of the search
STEPS = 200  # training steps of LeNet-5, 100 images each, if there are no trained weights
SEED = 0

# %%
import dataclasses
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import adaptive_nets as an
from adaptive_nets.data import AbsentDataError, data_root, load
from adaptive_nets.data.augmentations import random_sub_policies
from adaptive_nets.ensembling import (
    Policy,
    average_views,
    calibrated_measures,
    crop_views,
    error_rate,
    expected_calibration_error,
    fit_temperature,
    log_likelihood,
    make_predictor,
    policy_views,
    predict_pool,
    scale_by_temperature,
    search_policy,
    unchanged_views,
)
from adaptive_nets.ensembling.policies import from_arrays
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights.trained import load_weights
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import DataConfig, RunConfig, ScheduleConfig, TrainConfig
from adaptive_nets.training.loop import train

# %% [markdown]
# ## A trained network


# %%
def coloured(split):
    """Returns a split of digits with three equal channels, since views may change colours."""
    return split.replace(image=np.repeat(split.images, 3, axis=3))


weights = data_root(must_exist=False) / "resnet_cifar10" / "resnet20-12fca82f.th"
try:
    dataset = load("cifar10", splits=("test",)) if weights.is_file() else None
except AbsentDataError:
    dataset = None
if dataset is not None:
    model, variables, config = load_weights(weights, "resnet20_cifar10")
    normalisation = InputNormalisation(**config["normalisation"])
    print(f"network: resnet20_cifar10 with the weights of {weights.name}; data: {dataset.name}")
else:
    digits = load("mnist", source="embedded")
    dataset = dataclasses.replace(
        digits, train=coloured(digits.train.first(20000)), test=coloured(digits.test)
    )
    model = an.create_model("lenet5_caffe")
    normalisation = InputNormalisation(255.0, np.zeros((1, 1, 3)), np.ones((1, 1, 3)))
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            classification_task(model),
            TrainConfig(
                data=DataConfig(batch_size=100, centre="none", test_limit=100),
                schedule=ScheduleConfig(length=f"{STEPS} steps"),
                run=RunConfig(eval_every="100%", checkpoint_every="100%", tensorboard=False),
            ),
            dataset=dataset,
            directory=folder,
            seed=SEED,
        )
    variables = result.state.eval_variables
    print(f"network: lenet5_caffe after {STEPS} steps; data: {dataset.name}, as grey RGB images")

predict = make_predictor(model, variables, normalisation)
images, labels = dataset.test.images[:IMAGES], dataset.test.labels[:IMAGES]
half = IMAGES // 2
search_images, search_labels = images[:half], labels[:half]
test_images, test_labels = images[half:], labels[half:]

# %% [markdown]
# ## Calibration
#
# The reliability diagram compares confidence with accuracy. Dividing the logits by one temperature,
# fitted on the other half of the images, moves the points towards the diagonal and changes no
# prediction.

# %%
once = average_views([predict], images, unchanged_views, counts=(1,))[1]
temperature = fit_temperature(once[:half], search_labels)
scaled = scale_by_temperature(once[half:], temperature)
plt.figure(figsize=(4.2, 3.8))
plt.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
edges = np.linspace(0, 1, 11)
for name, log_probs in (("as trained", once[half:]), (f"T = {temperature:.2f}", scaled)):
    confidence, correct = np.exp(log_probs).max(-1), log_probs.argmax(-1) == test_labels
    bins = np.digitize(confidence, edges[1:-1])
    used = [b for b in range(10) if np.sum(bins == b) > 4]
    error = expected_calibration_error(log_probs, test_labels)
    plt.plot(
        [confidence[bins == b].mean() for b in used],
        [correct[bins == b].mean() for b in used],
        "o-",
        label=f"{name}, calibration error {error:.3f}",
    )
plt.xlabel("confidence")
plt.ylabel("accuracy")
plt.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Views
#
# A view is a random change of the image: crop and flip, or a sub-policy of a few operations.

# %%
key = jax.random.key(SEED)
indices, magnitudes = random_sub_policies(
    np.random.default_rng(SEED), POOL, operations=2, magnitude=20, protocol="cifar"
)
pool = from_arrays(indices, magnitudes, "cifar")
figure, axes = plt.subplots(2, 6, figsize=(9, 4))
for number, axis in enumerate(axes.ravel()):
    views = unchanged_views if number == 0 else policy_views(pool)
    shown = views(jax.random.fold_in(key, number), test_images[:1].astype(np.float32), number)
    axis.imshow(np.asarray(shown[0]).astype(np.uint8))
    title = (
        "unchanged" if number == 0 else str(pool.sub_policies[number % POOL]).replace(", ", "\n")
    )
    axis.set_title(title, fontsize=6)
    axis.axis("off")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Greedy policy search
#
# The network predicts every candidate of a pool once. The search then adds, one by one, the
# candidate that improves the calibrated log-likelihood of the average most.

# %%
with tempfile.TemporaryDirectory() as folder:
    pool_log_probs = np.array(
        predict_pool(
            predict,
            search_images,
            policy_views(pool),
            count=POOL,
            path=Path(folder) / "pool.npy",
            seed=SEED,
        )
    )
found = search_policy(pool_log_probs, search_labels, length=VIEWS)
policy = Policy("cifar", tuple(pool.sub_policies[b] for b in found.chosen))
plt.figure(figsize=(5, 3))
plt.plot(np.arange(1, VIEWS + 1), found.scores, "o-")
plt.xlabel("sub-policies chosen")
plt.ylabel("calibrated log-likelihood, nats")
plt.show()
for number, sub_policy in enumerate(policy.sub_policies, start=1):
    print(f"{number}: {sub_policy}")

# %% [markdown]
# ## Comparison on the other half
#
# All measures are at the best temperature, found by cross-validation. With few images the
# differences are of the size of their errors: raise `IMAGES` and `VIEWS` for a study.

# %%
counts = [count for count in (1, 2, 4, 8, 16) if count <= VIEWS]
curves = {
    "crops and flips": average_views([predict], test_images, crop_views(), counts=counts),
    "greedy policy": average_views([predict], test_images, policy_views(policy), counts=counts),
}
measures = {"ll": log_likelihood, "error": error_rate}
plain = calibrated_measures(once[half:], test_labels, measures)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for axis, (name, label) in zip(
    axes, (("ll", "calibrated log-likelihood, nats"), ("error", "error")), strict=True
):
    axis.axhline(plain[name], color="grey", label="unchanged image")
    for views, averages in curves.items():
        values = [calibrated_measures(averages[n], test_labels, measures)[name] for n in counts]
        axis.plot(counts, values, "o-", label=views)
    axis.set_xlabel("views")
    axis.set_ylabel(label)
axes[0].legend(fontsize=8)
plt.tight_layout()
plt.show()
print(f"unchanged image: {plain['ll']:.3f} nats, error {plain['error']:.2%}")
for views, averages in curves.items():
    last = calibrated_measures(averages[counts[-1]], test_labels, measures)
    print(f"{views}, {counts[-1]} views: {last['ll']:.3f} nats, error {last['error']:.2%}")
