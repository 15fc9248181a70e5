"""HTML elements whose text is escaped by construction."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

_VOID = ("br", "col", "hr", "img", "input", "link", "meta")


class Markup(str):
    """String of HTML. Any other string is escaped when it enters an element."""

    __slots__ = ()


def escape(content: Any) -> Markup:
    """Escapes one piece of content; markup is unchanged and None becomes empty."""
    if content is None:
        return Markup("")
    return content if isinstance(content, Markup) else Markup(html.escape(str(content)))


def join(contents: Iterable[Any], between: str = "") -> Markup:
    """Concatenates pieces with a separator, escaping everything but markup."""
    return Markup(escape(between).join(escape(content) for content in contents))


def element(tag: str, *contents: Any, **attributes: Any) -> Markup:
    """Returns one element as markup.

    Args:
        tag: Name of the element.
        *contents: Children: markup, or text, which is escaped.
        **attributes: Attributes by name. A trailing underscore is dropped (``class_``), others
            become hyphens. True gives an attribute without a value; None and False give none.
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
    """Returns an unordered list."""
    return element("ul", *(element("li", content) for content in contents), **attributes)


def code(text: str) -> Markup:
    """Returns text to be typed, as a code element."""
    return element("code", text)


def folded(summary: Any, *contents: Any, **attributes: Any) -> Markup:
    """Returns content that opens on demand, as a details element."""
    return element("details", element("summary", summary), *contents, **attributes)


def scrolled(*contents: Any, label: str) -> Markup:
    """Returns a region for wide content, which scrolls by itself and is reachable by keyboard."""
    return element("div", *contents, class_="scroll", tabindex="0", role="region", aria_label=label)
