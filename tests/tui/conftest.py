"""What all tests of the screen share."""

from __future__ import annotations

from pytest_textual_snapshot import SVGImageExtension

# syrupy 5 renamed the attribute by which the plugin names its files; without it they end in .raw.
SVGImageExtension.file_extension = "svg"
