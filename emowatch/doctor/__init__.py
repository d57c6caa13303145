"""Examine a model before its scores are believed: is it read rightly, and watched rightly?"""

from emowatch.doctor.certificate import Certificate, Check, render_table
from emowatch.doctor.examination import examine

__all__ = ["Certificate", "Check", "examine", "render_table"]
