"""A comparison as one page of HTML: no network, one constant script, everything from the record."""

from kinprint.report.html.page import page

__all__ = ["page"]
