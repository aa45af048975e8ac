"""One self-contained HTML page of an output folder."""

from lcmae_core.viewer.report.page import build_report

__all__ = ["build_report"]
