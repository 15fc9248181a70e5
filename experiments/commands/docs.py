"""adaptive-nets docs: numbers in documents come from records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from adaptive_nets.runtime.errors import UserError
from experiments.commands.parsing import parse
from experiments.suite import documents


@dataclasses.dataclass(frozen=True)
class Docs:
    """Renders the tables of README.md and BUILD_NOTES.md again from the published records."""

    check: bool = False
    """Change nothing; exit code 2 if a document is stale."""


def main(arguments: Sequence[str]) -> None:
    """Renders or checks."""
    options = parse(Docs, arguments, program="adaptive-nets docs")
    if not (documents.ROOT / documents.DOCUMENTS[0]).exists():
        raise UserError(f"{documents.ROOT} is no checkout; expected one with README.md")
    if options.check:
        stale = documents.stale()
        if stale:
            raise UserError(f"{stale[0]} is stale; run adaptive-nets docs")
        print("every document is up to date")
        return
    changed = documents.update()
    print(f"rendered: {', '.join(changed) or 'nothing had changed'}")
