"""Tell which part of a dialogue each token of a prompt and of a reply belongs to."""

from emowatch.model.segments.parsing import SegmentParser
from emowatch.model.segments.replies import ReplySegments

__all__ = ["ReplySegments", "SegmentParser"]
