"""The documentation site: pages, navigation, bibliography and the public names of its reference."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.commands.docs import ROOT

SITE = ROOT / "docs" / "site"


@pytest.fixture
def site(monkeypatch):
    """The modules of the site by name."""
    monkeypatch.syspath_prepend(str(SITE))
    names = ("pages", "reference", "messages")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def test_every_document_has_a_place_and_every_link_a_target(site):
    sources = site["pages"].site_sources(ROOT)
    assert {"index.md", "overview.md", "messages.md", "papers/sact.md", "kernels.md"} <= set(
        sources
    )
    absent = [path for path in sources.values() if isinstance(path, Path) and not path.is_file()]
    assert absent == []
    # Links between documents are mapped to the site.
    assert "](coverage.md)" in sources["overview.md"]
    papers = "".join(str(text) for place, text in sources.items() if place.startswith("papers/"))
    assert "](../benchmarks.md" in papers


def test_a_page_without_a_place_in_the_navigation_is_named(site, monkeypatch):
    monkeypatch.setattr(site["pages"], "_SECTIONS", {"Guides": ("start",)})
    with pytest.raises(
        SystemExit, match=r"architecture\.md, .*: no section in docs/site/pages\.py"
    ):
        site["pages"].site_sources(ROOT)


def test_messages_are_found_in_the_source(site):
    found = site["messages"].found_messages(ROOT)
    texts = {text for pairs in found.values() for text, _ in pairs}
    assert len(texts) > 500
    assert "experiment … is unknown; …" in texts
    assert all("{" not in text.replace("{}", "") or "…" in text or len(text) > 8 for text in texts)


def public_names():
    sys.path.insert(0, str(SITE))
    try:
        from reference import public_packages
    finally:
        sys.path.remove(str(SITE))
    return public_packages(ROOT)


@pytest.mark.parametrize("package", public_names())
def test_every_public_name_is_there_and_documented(package):
    module = importlib.import_module(package)
    for name in public_names()[package]:
        thing = getattr(module, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert (inspect.getdoc(thing) or "").strip(), f"{package}.{name} has no docstring"


def test_every_key_of_a_publication_is_in_the_bibliography():
    text = (ROOT / "docs" / "bibliography.md").read_text()
    known = set(re.findall(r"^\| ([a-z]+\d{4}[a-z]?) \|", text, re.M))
    used = set()
    for root in ("adaptive_nets", "kernels", "experiments"):
        for path in (ROOT / root).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            used |= set(re.findall(r"\[([a-z]+(?:19|20)\d\d[a-z]?)(?=[\],;])", source))
    assert used - known == set()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SITE / "build.py"), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()
    assert "auc_judd" in (tmp_path / "api" / "adaptive_nets.saliency.html").read_text()
