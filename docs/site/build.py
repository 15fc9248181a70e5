"""Builds the documentation site: ``python docs/site/build.py [OUT]``, into ``site/`` by default.

Broken links, missing pages and docstrings that cannot be rendered are errors.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]


def write_sources(target: Path) -> None:
    """Writes the sources of the site into an empty folder.

    Raises:
        SystemExit: a link leads to a file that is not there.
    """
    from pages import site_sources

    for place, content in site_sources(ROOT).items():
        path = target / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif not content.is_file():
            raise SystemExit(f"{content.relative_to(ROOT)}: a document links it; it is no file")
        elif content.suffix == ".md":
            text = content.read_text(encoding="utf-8")
            path.write_text(f"---\norphan: true\n---\n\n{text}", encoding="utf-8")
        else:
            shutil.copyfile(content, path)


def main() -> int:
    """Builds the site; returns the exit code."""
    from sphinx.cmd.build import main as sphinx

    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"
    sources = ROOT / "build" / "docs"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    write_sources(sources)
    options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(HERE)]
    return sphinx([*options, "-d", str(sources.parent / "doctrees"), str(sources), str(out)])


if __name__ == "__main__":
    sys.exit(main())
