"""Generate in a worker thread and hand out scored tokens as they come, to a loop or to asyncio.

Whoever stops listening stops the model: within one token, with its hooks gone.
"""

from emowatch.streaming.awaiting import AsyncStream, aanswer, astream
from emowatch.streaming.blocking import Stream, answer, stream
from emowatch.streaming.callbacks import StopOnEvent, Streamer, WatchStreamer
from emowatch.streaming.prompts import Message, encode_prompt

__all__ = [
    "AsyncStream",
    "Message",
    "StopOnEvent",
    "Stream",
    "Streamer",
    "WatchStreamer",
    "aanswer",
    "answer",
    "astream",
    "encode_prompt",
    "stream",
]
