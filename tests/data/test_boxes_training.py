"""The training loop on photographs with boxes: several shapes, resumed bit by bit."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from boxes_on_disk import write_coco
from conftest_training import StopAt, assert_same, config, with_values  # noqa: F401

from adaptive_nets.data.boxes import Resize, detection_dataset, flip_rows, load_boxes
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.loop import train
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Task


class MeanBox(nn.Module):
    """One box for each image, from its mean colour."""

    @nn.compact
    def __call__(self, batch, train=False):
        return nn.Dense(4)(jnp.mean(batch["image"], axis=(1, 2)))


def task(augment):
    def distances(output, batch):
        real = (batch["labels"] >= 0) & ~batch["crowd"]
        gap = jnp.abs(output[:, None] - batch["boxes"]).mean(axis=-1)
        return jnp.sum(gap * real, axis=1)

    def objective(output, batch, params, step):
        each = distances(output, batch)
        return jnp.mean(each), {"distance": Mean.of(each)}

    def measures(output, batch):
        weight = batch["weight"]
        return {
            "distance": Mean.of(distances(output, batch), weight),
            "height": Mean.of(batch["size"][:, 0].astype(jnp.float32), weight),
        }

    return Task(
        MeanBox(), lambda timing: objective, measures, inputs=dict, augment=augment, streams=()
    )


def unchanged(key, rows):
    return rows


@pytest.fixture
def found(root):
    write_coco(root / "coco")
    return load_boxes("coco", root=root)


@pytest.mark.parametrize("in_memory", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_on_boxes_resumes_where_it_was(config, found, tmp_path, in_memory):  # noqa: F811
    config = with_values(
        config,
        data={"batch_size": 2, "eval_batch_size": 2, "flip": False, "standardise": True},
        mesh={"model": 2},
        schedule={"length": "6 steps"},
        run={"eval_every": "6 steps", "checkpoint_every": "6 steps", "input_threads": 2},
    )
    # In memory, all images have one shape.
    resize = Resize(40, 40) if in_memory else Resize(40, 64)
    data = detection_dataset(found, resize, train="val", test="val", stride=8, in_memory=in_memory)

    def run(directory, progress=None):
        directory.mkdir(exist_ok=True)
        return train(
            task(flip_rows if in_memory else unchanged),
            config,
            dataset=data,
            directory=directory,
            seed=0,
            progress=progress or SilentProgress(),
        )

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", StopAt(3))
    rest = run(tmp_path / "parts")
    assert rest.resumed_from == 3
    assert_same(whole.state, rest.state)
    # Every image counts once, although the last batch of each shape is padded.
    values = whole.evaluate(whole.state.variables, whole.test)
    heights = [resize.size(image.height, image.width)[0] for image in found.split("val")]
    assert values["count"] == 5
    assert values["height"] == pytest.approx(np.mean(heights), rel=1e-6)
    assert np.isfinite(values["distance"])
