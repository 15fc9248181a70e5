"""Names that users reach through ``import adaptive_nets as an``."""

from __future__ import annotations

import subprocess
import sys


def test_every_package_is_an_attribute_without_a_further_import():
    code = (
        "import adaptive_nets as an; "
        "print(an.ensembling.brier_score.__module__, an.halting.__name__, hasattr(an, 'absent'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert found == ["adaptive_nets.ensembling.measures", "adaptive_nets.halting", "False"]
