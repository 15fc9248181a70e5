"""Models of other distributions: found at the first lookup, kept apart when they are broken."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOY = """
import flax.linen as nn
import jax.numpy as jnp
from adaptive_nets.models.normalisation import Normalisation
from adaptive_nets.models.registry import register_model


@register_model(
    "toy_linear",
    input_shape=(4, 4, 3),
    num_classes=5,
    source="toy2026",
    normalisation=Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "toy statistics"),
    aliases=("toy",),
)
def toy_linear(*, num_classes, dtype=jnp.float32):
    '''Linear classifier of a toy distribution.'''

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(num_classes, dtype=dtype, name="fc")(x.reshape(x.shape[0], -1))

    return Linear()
"""
# The first model of a module that fails later is not kept.
DUPLICATE = """
from adaptive_nets.models.registry import register_model

options = dict(input_shape=(4, 4, 3), num_classes=5, source="")


def build(*, num_classes):
    '''Network that is never built.'''


register_model("twin_first", **options, aliases=("twin_alias",))(build)
register_model("resnet18", **options)(build)
"""


def add_distribution(folder: Path, module: str, text: str, entries: str = "") -> None:
    """A module, and the metadata that an installer would write for it."""
    (folder / f"{module}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    entries = entries or f"{module} = {module}"
    (info / "entry_points.txt").write_text(f"[adaptive_nets.models]\n{entries}\n")


@pytest.fixture
def python(tmp_path):
    """Runs a new interpreter that sees this repository and the distributions in `tmp_path`."""

    def run(*arguments: str) -> str:
        environment = os.environ | {
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "COLUMNS": "200",
        }
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_distribution_adds_a_model(tmp_path, python):
    add_distribution(tmp_path, "toy_models", TOY)
    script = """
    import sys
    import adaptive_nets as an
    import adaptive_nets.models
    assert "toy_models" not in sys.modules
    assert an.list_models("toy*") == ["toy_linear"]
    from adaptive_nets.models import broken_plugins, model_entry
    from adaptive_nets.models.weights.files import default_normalisation
    assert model_entry("toy").description == "Linear classifier of a toy distribution."
    assert default_normalisation("toy").mean == (0.1, 0.2, 0.3)
    assert an.count_params("toy_linear", num_classes=7) == 48 * 7 + 7
    assert broken_plugins() == {}
    """
    python("-c", textwrap.dedent(script))


def test_the_command_shows_it(tmp_path, python):
    add_distribution(tmp_path, "toy_models", TOY)
    out = python("-m", "experiments", "models", "toy*")
    assert "toy_linear" in out
    assert "245" in out


def test_broken_modules_leave_the_others_alone(tmp_path, python):
    add_distribution(tmp_path, "absent_import", "import no_such_module", "bad = absent_import")
    add_distribution(tmp_path, "duplicate", DUPLICATE)
    add_distribution(tmp_path, "other", "raise RuntimeError('two\\nlines')", "bad = other")
    add_distribution(tmp_path, "toy_models", TOY)
    script = """
    import adaptive_nets as an
    from adaptive_nets.models import broken_plugins
    from adaptive_nets.runtime.errors import UserError
    assert an.list_models("t[ow]*") == ["toy_linear"]
    try:
        an.create_model("twin_alias")
    except UserError as error:
        print(error)
    for name, error in sorted(broken_plugins().items()):
        print(f"{name}: {error}")
    """
    message, *broken = python("-c", textwrap.dedent(script)).splitlines()
    missing = (
        "module absent_import of distribution absent_import: "
        "ModuleNotFoundError: No module named 'no_such_module'"
    )
    twice = (
        "module duplicate of distribution duplicate: ValueError: a model named 'resnet18' is "
        "registered already: adaptive_nets.models.resnet._basic.<locals>.build and duplicate.build"
    )
    assert message.startswith("model 'twin_alias' is unknown; ")
    assert f"; plugin 'duplicate' could not be imported ({twice})" in message
    assert missing in message
    assert broken[-1] == f"duplicate: {twice}"
    assert len(broken) == 3
    assert {line.partition(": ")[0] for line in broken} in (
        {"bad", "bad (other)", "duplicate"},
        {"bad", "bad (absent_import)", "duplicate"},
    )
    assert any("RuntimeError: two lines" in line for line in broken)
