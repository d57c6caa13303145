"""A stored session as one page that needs nothing else."""

from emowatch.reporting.page import render_page

__all__ = ["render_page"]
