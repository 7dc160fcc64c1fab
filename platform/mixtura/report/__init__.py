"""A report that a person can look at: one HTML file on one run, or several side by side. See `page`."""

from __future__ import annotations

from mixtura.report.page import write_report

__all__ = ["write_report"]
