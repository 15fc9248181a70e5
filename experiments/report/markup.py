"""HTML elements whose text is escaped by construction."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

_VOID = ("br", "col", "hr", "img", "link", "meta")


class Markup(str):
    """Text that is HTML already. Every other string is escaped where it enters an element."""

    __slots__ = ()


def escape(content: Any) -> Markup:
    """One piece of content: markup as it is, nothing for None, anything else as escaped text."""
    if content is None:
        return Markup("")
    return content if isinstance(content, Markup) else Markup(html.escape(str(content)))


def join(contents: Iterable[Any], between: str = "") -> Markup:
    """Pieces one after the other, each escaped unless it is markup, as the separator is."""
    return Markup(escape(between).join(escape(content) for content in contents))


def element(tag: str, *contents: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
        tag: its name.
        *contents: text, escaped here, or markup.
        **attributes: a trailing underscore is dropped (``class_``), others become hyphens; True
            gives a bare attribute, None and False none.

    Returns:
        The element as markup.
    """
    written = "".join(
        f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
        for name, value in (
            (key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()
        )
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(contents)}</{tag}>")


def items(contents: Iterable[Any], **attributes: Any) -> Markup:
    """An unordered list."""
    return element("ul", *(element("li", content) for content in contents), **attributes)


def code(text: str) -> Markup:
    """Something to be typed."""
    return element("code", text)


def folded(summary: Any, *contents: Any, **attributes: Any) -> Markup:
    """Content that opens on demand."""
    return element("details", element("summary", summary), *contents, **attributes)


def scrolled(*contents: Any, label: str) -> Markup:
    """Something wide that scrolls by itself, so that the page never does; reachable by keyboard."""
    return element("div", *contents, class_="scroll", tabindex="0", role="region", aria_label=label)
