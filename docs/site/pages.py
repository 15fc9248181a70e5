"""Pages of the documentation site: the repository's documents where they lie.

A document keeps its place in the repository and its relative links; here both are mapped to the
site. New papers, public packages and messages appear without a change.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from messages import messages_page
from reference import api_pages

from experiments.suite.registry import papers

_FIXED = {
    "README.md": "overview.md",
    "BUILD_NOTES.md": "build-notes.md",
    "kernels/README.md": "kernels.md",
    "experiments/papers/README.md": "add-a-paper.md",
    "experiments/commands/README.md": "add-a-command.md",
}
# Section of the navigation -> its pages in order.
_SECTIONS = {
    "Guides": (
        "start", "reproduce", "own-network", "own-kernels", "trained-networks", "notebooks",
        "devices", "data", "models", "commands",
    ),
    "Results": ("coverage", "records", "run-folder", "costs", "benchmarks"),
    "Papers": (),
    "Extend": (
        "add-a-paper", "add-a-model", "add-a-kernel", "add-a-command", "architecture",
        "build-notes",
    ),
    "Reference": ("kernels", "troubleshooting", "messages", "bibliography"),
    "API": (),
}  # fmt: skip
_LINK = re.compile(r"(?P<before>!?\[[^\]]*\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)]*)?\)")


def documents(root: Path) -> dict[str, str]:
    """Returns the documents of the site: path in the repository -> path in the site."""
    found = dict(_FIXED)
    found |= {f"docs/{path.name}": path.name for path in sorted((root / "docs").glob("*.md"))}
    for entry in papers().values():
        readme = entry.folder / "README.md"
        if readme.is_file() and readme.is_relative_to(root):
            found[str(readme.relative_to(root))] = f"papers/{entry.name}.md"
    return found


def site_sources(root: Path) -> dict[str, str | Path]:
    """Returns the files of the site: path -> Markdown, or the file to copy.

    Raises:
        SystemExit: a page of `docs` has no place in the navigation.
    """
    pages = documents(root)
    sections = {name: list(uris) for name, uris in _SECTIONS.items()}
    sections["Papers"] = [f"papers/{entry.name}" for entry in papers().values()]
    api = api_pages(root)
    sections["API"] = [f"api/{package}" for package in api]
    placed = {f"{uri}.md" for uris in sections.values() for uri in uris} | {"overview.md"}
    if lost := sorted(set(pages.values()) - placed):
        raise SystemExit(f"{', '.join(lost)}: no section in docs/site/pages.py names this page")
    found: dict[str, str | Path] = {
        "index.md": _index(sections),
        "messages.md": messages_page(root),
    }
    for source, uri in pages.items():
        text = (root / source).read_text(encoding="utf-8")
        found[uri] = _with_site_links(text, root, source, uri, pages, found)
    found |= {f"api/{package}.md": text for package, text in api.items()}
    return found


def _index(sections: dict[str, list[str]]) -> str:
    lines = ["# adaptive_nets\n\n:::{include} overview.md\n:start-line: 1\n:::\n"]
    for name, uris in sections.items():
        lines += [f":::{{toctree}}\n:hidden:\n:caption: {name}\n", *uris, ":::\n"]
    return "\n".join(lines)


def _with_site_links(
    text: str, root: Path, source: str, uri: str, pages: dict[str, str], found: dict
) -> str:
    """Rewrites relative links of a document; adds the linked files that are no pages."""

    def rewritten(link: re.Match[str]) -> str:
        target = link["target"]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = os.path.normpath(Path(source).parent / target)
        place = pages.get(path, f"files/{path}")
        if path not in pages:
            found[place] = root / path
        relative = os.path.relpath(place, Path(uri).parent)
        return f"{link['before']}{relative}{link['anchor'] or ''})"

    blocks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        block if block.startswith("```") else _LINK.sub(rewritten, block) for block in blocks
    )
