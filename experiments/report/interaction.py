"""The page's filter, and its one script, which the page's policy admits by digest."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

from experiments.report.markup import Markup, element, join
from experiments.report.tables import status

_SCRIPT = Path(__file__).with_name("page.js")


def script() -> Markup:
    """Returns the script of the page as an element."""
    return element("script", Markup(_SCRIPT.read_text(encoding="utf-8")))


def script_policy() -> str:
    """Returns the source expression that admits this script and no other."""
    digest = hashlib.sha256(_SCRIPT.read_text(encoding="utf-8").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def filter_form(papers: Iterable[tuple[str, str]], verdicts: Iterable[str]) -> Markup:
    """Returns the choice of a paper and of statuses, shown where scripts run.

    Args:
        papers: Name and title of each paper on the page.
        verdicts: Statuses in order.
    """
    options = [
        element("option", "all papers", value=""),
        *(element("option", title, value=name) for name, title in papers),
    ]
    boxes = [
        element(
            "label",
            element("input", type="checkbox", name="status", value=verdict, checked=True),
            " ",
            status(verdict),
        )
        for verdict in verdicts
    ]
    return element(
        "form",
        element("label", "Paper ", element("select", *options, name="paper")),
        element("span", join(boxes, " "), class_="boxes"),
        element("output", name="count"),
        id="filter",
        hidden=True,
        aria_label="Filter",
    )
