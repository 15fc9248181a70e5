"""The page of messages: every error that the program raises, found in its source."""

from __future__ import annotations

import ast
from pathlib import Path

_ROOTS = ("adaptive_nets", "experiments", "kernels")
_HEAD = """# Messages

Which message comes from where? Every error message of the program by package, found in the source
when this page is built; `…` stands for a value. A message names what is wrong, its value and what
is expected. [Troubleshooting](troubleshooting.md) says more about the frequent ones. Commands end
with exit code 2 after such a message, and nothing is half-written.
"""


def messages_page(root: Path) -> str:
    """Returns the Markdown of the page."""
    parts = [_HEAD]
    for package, lines in found_messages(root).items():
        parts.append(f"\n## {package}\n\n| message | in |\n| --- | --- |")
        parts += [f"| {_cell(text)} | `{place}` |" for text, place in lines]
    return "\n".join(parts) + "\n"


def found_messages(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Returns message and file of every error with a text: package -> sorted pairs."""
    found: dict[str, set[tuple[str, str]]] = {}
    for top in _ROOTS:
        for path in sorted((root / top).rglob("*.py")):
            place = path.relative_to(root)
            package = ".".join(place.parts[:2]) if len(place.parts) > 2 else top
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _is_error(node.func) and node.args:
                    text = " ".join(_text(node.args[0]).split())
                    if len(text.replace("…", "").strip(" :;,.")) > 8:
                        found.setdefault(package, set()).add((text, place.name))
    return {package: sorted(pairs) for package, pairs in sorted(found.items())}


def _is_error(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.endswith(("Error", "Stop"))


def _text(node: ast.expr) -> str:
    """Returns the text of an expression with … for its values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return _text(node.body)
    return "…"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
