"""HTML in which text from a checkpoint can be nothing but text: what is not marked up here is escaped."""

from __future__ import annotations

import html
from typing import Any, TypeAlias

from kinprint.report.cells import clean


class Markup(str):
    """Text that is HTML already; only this module and constants make it."""

    __slots__ = ()


Content: TypeAlias = str | int | list[Any] | tuple[Any, ...] | None
"""What may stand inside an element: text, elements, and lists of both however deep; None is nothing."""

_VOID = frozenset({"br", "col", "hr", "img", "link", "meta"})


def tag(name: str, /, *content: Content, **attributes: str | int | float | None) -> Markup:
    """Return an element.

    Args:
        name: Of the element; a constant.
        content: Elements, and text that is escaped.
        attributes: Values are escaped; ``class_`` is ``class``, other underscores are hyphens, None leaves one out.

    Example:
        >>> tag("p", "a < b", tag("b", "!"), class_="x")
        '<p class="x">a &lt; b<b>!</b></p>'
    """
    held = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(clean(_plain(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{held}>")
    return Markup(f"<{name}{held}>{flow(content)}</{name}>")


def flow(content: Content) -> Markup:
    """Return content one behind the other.

    Example:
        >>> flow(["<i>", Markup("<br>"), None, 3])
        '&lt;i&gt;<br>3'
    """
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, list | tuple):
        return Markup("".join(map(flow, content)))
    return Markup(html.escape(clean(str(content))))


def _plain(value: str | int | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
