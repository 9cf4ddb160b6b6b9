"""The report: a static site of all papers, with no scripts from elsewhere and no network."""

from reprise.report.site import build

__all__ = ["build"]
