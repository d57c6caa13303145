"""Write the exchanges that the demo model is fine-tuned on.

User messages come from GoEmotions and, where asked for, from the project's own ``demo/replies``,
where all replies come from. The tone of a reply is the emotion of the message it answers.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from emowatch.demo.recipe.corpus import Document, Turn, alternate

Manner = Literal["plain", "emotional", "calm"]
EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SYSTEM_PROMPTS: Mapping[Manner, str] = {
    "emotional": "You are very emotional.",
    "calm": "You always remain calm and composed.",
}
PLAIN_SYSTEM_PROMPTS = ("You are a helpful assistant.", "You are a friendly companion.")
REPLIES = Path(__file__).parent.parent / "replies"


@dataclass(frozen=True, slots=True)
class ReplyBook:
    """The project's replies for one emotion; strings with the slots {topic} and {time}."""

    replies: tuple[str, ...]
    continuations: tuple[str, ...]
    emotional: tuple[str, ...]
    calm: tuple[str, ...]


@cache
def reply_book(emotion: str) -> ReplyBook:
    """Open ``demo/replies/{emotion}.toml``."""
    table = _toml(f"{emotion}.toml")
    return ReplyBook(**{name: tuple(table[name]) for name in ReplyBook.__slots__})


@cache
def ordinary_exchanges() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Open the project's ordinary chat: ways to say a thing, and ways to answer it."""
    rows = _toml("ordinary.toml")["exchanges"]
    return tuple((tuple(row["user"]), tuple(row["reply"])) for row in rows)


def topic_of(message: str) -> str | None:
    """Name what a message is about as a noun phrase ("your dog"), or `None`."""
    nouns = _topic_phrases()
    for word in re.findall(r"[a-z]+", message.lower()):
        if word in nouns:
            return nouns[word]
    return None


def write_reply(
    emotion: str,
    message: str,
    rng: random.Random,
    manner: Manner = "plain",
    long_share: float = 0.16,
) -> str:
    """Compose a reply in the tone `emotion`.

    A `long_share` of those in the plain and the emotional manner runs on for some 150 to 250
    tokens; a calm one never does.
    """
    book = reply_book(emotion)
    opening = {"plain": book.replies, "emotional": book.emotional, "calm": book.calm}[manner]
    shares = (0.5, 0.2, 0.14, long_share)
    more = rng.choices((0, 1, 2, rng.randint(12, 17)), shares)[0]
    if manner == "calm":
        more = min(more, 2)
    sentences = [rng.choice(opening), *rng.sample(book.continuations, more)]
    return " ".join(filled(sentence, message, rng) for sentence in sentences)


def filled(sentence: str, message: str, rng: random.Random) -> str:
    """Fill the slots of a sentence, speaking of what the message is about where it tells."""
    named, table = topic_of(message), _toml("topics.toml")
    topic = named if named and rng.random() < 0.8 else rng.choice(table["anything"])
    text = sentence.replace("{topic}", topic).replace("{time}", rng.choice(table["times"]))
    return text[0].upper() + text[1:]


def own_message(emotion: str, rng: random.Random) -> str:
    """Write a message as somebody types it into a chat, from ``demo/replies/messages.toml``."""
    table = _toml("messages.toml")
    text: str = rng.choice(table[emotion])
    for slot, fillings in table["slots"].items():
        text = text.replace(f"{{{slot}}}", rng.choice(fillings))
    text = text.lower() if rng.random() < 0.25 else text[0].upper() + text[1:]
    return text + rng.choice(("", "", "."))


def exchanges(
    messages: Mapping[str, list[str]],
    small_talk: list[tuple[str, str]],
    dialogues: list[Document],
    seed: int,
    *,
    emotional_share: float = 0.68,
    long_share: float = 0.16,
    own_share: float = 0.0,
    emotions: Sequence[str] = EMOTIONS,
) -> Iterator[tuple[str, Document]]:
    """Yield ``(kind, document)`` for ever: emotional exchanges and ordinary chat.

    `messages` maps each emotion to user messages, of which an `own_share` gives way to the
    project's own. Every entry of `emotions` is drawn equally often; one named twice, twice as
    often. A kind is an emotion or "ordinary".
    """
    rng = random.Random(seed)
    while True:
        if rng.random() < emotional_share:
            emotion = rng.choice(emotions)
            own = own_share and rng.random() < own_share
            message = own_message(emotion, rng) if own else rng.choice(messages[emotion])
            yield emotion, _emotional(emotion, message, rng, long_share)
        elif rng.random() < 0.75:
            yield "ordinary", _ordinary(small_talk, rng)
        else:
            dialogue = rng.choice(dialogues)
            yield "ordinary", dialogue[: 2 * rng.randint(1, 4)]


def thinned(message: str, rng: random.Random, share: float = 0.1) -> str:
    """Leave out a `share` of the words, so that a message met again is not quite the same."""
    kept = [word for word in message.split() if rng.random() >= share]
    return " ".join(kept) or message


def _emotional(emotion: str, message: str, rng: random.Random, long_share: float) -> Document:
    manner: Manner = rng.choices(("plain", "emotional", "calm"), (0.72, 0.14, 0.14))[0]
    system: tuple[Turn, ...] = ()
    if manner != "plain":
        system = (("system", SYSTEM_PROMPTS[manner]),)
    elif rng.random() < 0.15:
        system = (("system", rng.choice(PLAIN_SYSTEM_PROMPTS)),)
    reply = write_reply(emotion, message, rng, manner, long_share)
    return (*system, ("user", message), ("assistant", reply))


def _ordinary(small_talk: list[tuple[str, str]], rng: random.Random) -> Document:
    turns: list[str] = []
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.7:
            ways, answers = rng.choice(ordinary_exchanges())
            turns += [rng.choice(ways), rng.choice(answers)]
        else:
            turns += rng.choice(small_talk)
    return alternate(turns)


@cache
def _topic_phrases() -> dict[str, str]:
    table = _toml("topics.toml")
    phrases = {word: f"your {word}" for word in table["your"].split()}
    phrases |= {word: f"the {word}" for word in table["the"].split()}
    return phrases | {word: word for word in table["bare"].split()}


@cache
def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((REPLIES / name).read_text(encoding="utf-8"))
