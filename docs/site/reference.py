"""Pages of the API reference: one for each public package, rendered from its docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

_ROOTS = ("adaptive_nets", "kernels")


def public_packages(root: Path) -> dict[str, tuple[str, ...]]:
    """Returns the packages that export names: dotted name -> the names of its ``__all__``."""
    found: dict[str, tuple[str, ...]] = {}
    for top in _ROOTS:
        for path in sorted((root / top).rglob("__init__.py")):
            package = ".".join(path.parent.relative_to(root).parts)
            names = exported(path)
            if names and not any(part.startswith("_") for part in package.split(".")):
                found[package] = names
    return found


def exported(path: Path) -> tuple[str, ...]:
    """Returns the names in ``__all__`` of a file, without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return tuple(
                element.value
                for element in getattr(node.value, "elts", ())
                if isinstance(element, ast.Constant) and isinstance(element.value, str)
            )
    return ()


def api_pages(root: Path) -> dict[str, str]:
    """Returns the Markdown of each page of the reference: package -> its exported names.

    A name that several packages export is indexed on the page of the deepest one.
    """
    packages = public_packages(root)
    pages = {}
    for package in packages:
        inner = {n for p, ns in packages.items() if p.startswith(f"{package}.") for n in ns}
        shared = sorted(inner & set(packages[package]))
        lines = [f"# {package}", "", "```{eval-rst}", f".. automodule:: {package}"]
        if shared:
            lines.append(f"   :exclude-members: {', '.join(shared)}")
        pages[package] = "\n".join([*lines, "```", ""])
    return pages
