"""Saved states are restored, damaged ones are named, whatever the damage."""

from __future__ import annotations

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.checkpoint import Checkpoints
from adaptive_nets.training.config import MeshConfig
from adaptive_nets.training.mesh import make_mesh


def make_state(value=0.0):
    return {
        "step": jnp.int32(value),
        "params": {
            "kernel": jnp.arange(600.0).reshape(20, 30) + value,
            "half": jnp.ones(3, jnp.bfloat16),
        },
        "empty": jnp.zeros((0, 4)),
        "none": None,
        "key": jnp.array([1, 2], jnp.uint32),
    }


def abstract(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def saved(tmp_path):
    """A folder with the steps 10, 20 and 30."""
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory)
    for step in (10, 20, 30):
        checkpoints.save(step, make_state(step), {"epoch": step // 10})
    checkpoints.close()
    return directory


def restore(directory, state=None):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(abstract(state or make_state()))
    finally:
        checkpoints.close()


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_the_newest_step_comes_back_exactly(saved):
    found = restore(saved)
    assert (found.step, found.position, found.damaged) == (30, {"epoch": 3}, ())
    assert_same(found.state, make_state(30))


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in range(5):
        checkpoints.save(step, make_state(step), {})
    checkpoints.close()
    assert checkpoints.steps() == [3, 4]


def test_saving_a_step_again_changes_nothing(saved):
    checkpoints = Checkpoints(saved)
    checkpoints.save(30, make_state(99), {})
    checkpoints.close()
    assert_same(restore(saved).state, make_state(30))


def test_the_state_may_be_overwritten_right_after_saving(tmp_path):
    """Donation reuses the buffers while the writer may still be at work."""
    advance = jax.jit(lambda s: jax.tree.map(lambda leaf: leaf + 1, s), donate_argnums=0)
    state = {"x": jnp.zeros(500_000), "y": jnp.zeros(1000)}
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=20)
    for step in range(12):
        checkpoints.save(step, state, {})
        for _ in range(3):
            state = advance(state)
    checkpoints.close()
    for step in range(12):
        alone = tmp_path / f"only{step}"
        shutil.copytree(tmp_path / "checkpoints" / str(step), alone / str(step))
        found = restore(alone, state)
        assert not found.damaged
        assert float(found.state["x"][-1]) == float(found.state["x"][0]) == 3 * step


def data_files(directory, step):
    """Files that hold the arrays, smallest first."""
    files = (directory / str(step) / "state").rglob("*")
    data = [path for path in files if path.is_file() and path.parent.name == "d"]
    return sorted(data, key=lambda path: path.stat().st_size)


def flip(path, where=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 0x10
    path.write_bytes(bytes(content))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    "truncated data": lambda d: truncate(data_files(d, 30)[-1]),
    "deleted data": lambda d: [p.unlink() for p in data_files(d, 30)],
    "empty data": lambda d: [os.truncate(p, 0) for p in data_files(d, 30)],
    "deleted manifest": lambda d: (d / "30" / "state" / "manifest.ocdbt").unlink(),
    "flipped bit in the description": lambda d: flip(d / "30" / "meta" / "metadata"),
    "truncated description": lambda d: truncate(d / "30" / "meta" / "metadata"),
    "deleted description": lambda d: shutil.rmtree(d / "30" / "meta"),
    "deleted arrays": lambda d: shutil.rmtree(d / "30" / "state"),
    "emptied metadata": lambda d: os.truncate(d / "30" / "state" / "_METADATA", 0),
    "emptied step": lambda d: [shutil.rmtree(p) for p in (d / "30").iterdir() if p.is_dir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_step_is_named_and_the_one_before_used(saved, damage):
    DAMAGES[damage](saved)
    found = restore(saved)
    assert found.step == 20
    assert_same(found.state, make_state(20))
    assert len(found.damaged) == 1
    assert "step 30" in found.damaged[0]
    assert "\n" not in found.damaged[0]
    assert (saved.parent / "damaged-checkpoints" / "30").is_dir()
    assert restore(saved).damaged == ()


@pytest.mark.parametrize("where", [0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_flipped_bit_anywhere_is_either_noticed_or_harmless(saved, where):
    flip(data_files(saved, 30)[-1], where)
    found = restore(saved)
    assert found.step in (20, 30)
    assert_same(found.state, make_state(found.step))


def test_some_flipped_bits_are_noticed_by_the_checksum(tmp_path, rng):
    """Random floats do not compress, so most of the file is their bits."""
    state = {"x": jnp.asarray(rng.normal(size=50_000), jnp.float32)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, {})
    checkpoints.save(2, state, {})
    checkpoints.close()
    flip(data_files(tmp_path / "checkpoints", 2)[-1])
    found = restore(tmp_path / "checkpoints", state)
    assert found.step == 1
    assert "step 2" in found.damaged[0]


def test_a_step_that_disappeared_is_named(saved):
    shutil.rmtree(saved / "30")
    found = restore(saved)
    assert found.step == 20
    assert found.damaged == (f"checkpoint of step 30 in {saved} is missing",)


def test_several_damaged_steps(saved):
    for step in (20, 30):
        (saved / str(step) / "state" / "manifest.ocdbt").unlink()
    found = restore(saved)
    assert found.step == 10
    assert [text.split()[3] for text in found.damaged] == ["30", "20"]


def test_when_all_are_damaged_it_says_so(saved):
    for step in (10, 20, 30):
        (saved / str(step) / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(UserError, match=r"step 30 .* none of the 3 checkpoints can be read"):
        restore(saved)


def remove_all_arrays(saved):
    for step in (10, 20, 30):
        (saved / str(step) / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(UserError, match="none of the 3 checkpoints"):
        restore(saved)


def test_when_all_are_damaged_it_says_so_every_time(saved):
    remove_all_arrays(saved)
    for _ in range(2):
        with pytest.raises(UserError) as error:
            restore(saved)
        aside = saved.parent / "damaged-checkpoints" / "30"
        assert f"step 30 in {saved} is damaged and was moved to {aside}" in str(error.value)
        assert f"to start from step 0, pass --fresh or move {saved} away" in str(error.value)


@pytest.mark.parametrize("moved", ["checkpoints", "damaged-checkpoints"])
def test_damaged_checkpoints_that_are_moved_away_are_forgotten(saved, moved):
    remove_all_arrays(saved)
    (saved.parent / moved).rename(saved.parent / "elsewhere")
    assert restore(saved) is None


def test_missing_steps_stay_known_until_a_newer_one_is_saved(saved):
    for step in (10, 20, 30):
        shutil.rmtree(saved / str(step))
    for _ in range(2):
        with pytest.raises(UserError, match=r"step 30 .* is missing; none of the 3 checkpoints"):
            restore(saved)


def test_a_step_under_the_name_of_another_is_damaged(saved):
    shutil.copytree(saved / "20", saved / "40")
    found = restore(saved)
    assert (found.step, found.position) == (30, {"epoch": 3})
    assert found.damaged == (f"checkpoint of step 40 in {saved} is damaged: it holds step 20",)


@pytest.mark.parametrize(
    "text", ["", "7\n", "[1]\n", '{"step": "a"}\n', '{"step": 1', "\x00\xff", '{"a": 1}\n']
)
def test_a_damaged_ledger_is_no_obstacle(saved, text):
    (saved / "saved.jsonl").write_text(text, encoding="latin-1")
    assert restore(saved).step == 30


def test_a_ledger_that_cannot_be_read_is_named(saved):
    (saved / "saved.jsonl").unlink()
    (saved / "saved.jsonl").mkdir()
    with pytest.raises(UserError, match=r"saved\.jsonl cannot be read: Is a directory"):
        restore(saved)


def test_a_repaired_run_can_save_the_same_step_again(saved):
    (saved / "30" / "state" / "manifest.ocdbt").unlink()
    checkpoints = Checkpoints(saved)
    checkpoints.restore(abstract(make_state()))
    checkpoints.save(30, make_state(31), {})
    checkpoints.close()
    assert_same(restore(saved).state, make_state(31))


def test_checkpoints_of_another_network_are_refused_and_left_alone(saved):
    other = make_state()
    other["params"]["kernel"] = jnp.zeros((20, 31))
    with pytest.raises(
        UserError, match=r"another configuration: params/kernel is float32\[20, 30\]"
    ):
        restore(saved, other)
    assert restore(saved).step == 30


def test_an_unfinished_write_is_ignored(saved):
    leftover = saved / "40.orbax-checkpoint-tmp-123"
    leftover.mkdir()
    (leftover / "part").write_bytes(b"x")
    assert restore(saved).step == 30


@pytest.mark.parametrize("axes", [("data",), ("data", "model")])
def test_comes_back_onto_other_devices(tmp_path, axes):
    mesh = make_mesh(MeshConfig(model=2))
    kernel = jnp.arange(64.0).reshape(8, 8)
    sharded = {"k": jax.device_put(kernel, NamedSharding(mesh, P(*axes)))}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, sharded, {})
    checkpoints.close()
    one = {"k": jax.device_put(kernel, jax.devices()[1])}
    for target in (one, {"k": jax.device_put(kernel, NamedSharding(mesh, P("model", "data")))}):
        found = restore(tmp_path / "checkpoints", target)
        np.testing.assert_array_equal(found.state["k"], kernel)
        assert found.state["k"].sharding == target["k"].sharding


def test_a_full_disk_is_one_line_and_the_last_good_step_stays(small_disk, rng):
    small = {"x": jnp.asarray(rng.normal(size=100_000), jnp.float32)}
    large = {"x": jnp.asarray(rng.normal(size=1_500_000), jnp.float32)}
    checkpoints = Checkpoints(small_disk / "checkpoints")
    checkpoints.save(1, small, {})

    def save():
        checkpoints.save(2, large, {})
        checkpoints.wait()

    with pytest.raises(UserError, match="no space left on the disk; step 1 is kept") as error:
        save()
    assert "\n" not in str(error.value)
    checkpoints.close()
    assert sorted(p.name for p in (small_disk / "checkpoints").iterdir()) == ["1", "saved.jsonl"]
    assert_same(restore(small_disk / "checkpoints", small).state, small)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="checkpoints cannot be written to"):
        Checkpoints(tmp_path / "file" / "checkpoints")
