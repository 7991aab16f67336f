"""A comparison as one page of HTML: no script, no network, everything from the record."""

from kinprint.report.html.page import page

__all__ = ["page"]
