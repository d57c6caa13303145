"""Plugins that come with emowatch, written as anybody's would be."""
