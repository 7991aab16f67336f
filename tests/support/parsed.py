"""HTML and SVG taken apart, for tests of what is drawn and written."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "link", "col", "input"}


class Parsed(HTMLParser):
    """Elements, their attributes, and text by the element that holds it; it fails where elements do not close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)

    def sections(self) -> list[str]:
        return [attributes["id"] or "" for name, attributes in self.elements if name == "section"]

    def of(self, kind: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if kind in (attributes.get("class") or "").split()]
