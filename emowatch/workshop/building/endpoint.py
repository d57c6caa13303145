"""A client of any endpoint that speaks OpenAI's chat completions, with retries and rate limits.

What may pass is tried again: a cut connection, a busy or broken server, a body that is no answer.
What will not pass is told at once: a wrong key, an unknown model, an empty account.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from threading import Event
from types import TracebackType
from typing import Any, Self

from emowatch.errors import RetryableError
from emowatch.text import clean_line
from emowatch.workshop.building.address import checked_address, is_here, key_for
from emowatch.workshop.building.answering import Answer, Messages, Outcome, RefusedPromptError
from emowatch.workshop.building.extras import import_corpus_extra
from emowatch.workshop.building.options import EndpointOptions
from emowatch.workshop.building.pacing import Pace, wait_for_turn
from emowatch.workshop.building.replying import Passing, answer_of, check_status, retry_after
from emowatch.workshop.building.workers import in_parallel

MOST_BYTES = 16 * 2**20
"""Of one answer; what is longer is no chat completion."""
SECRET = 16
"""Characters from which on a key is taken out of answers as well as of messages."""
LONGEST_WAIT_S = 30.0
"""Between two attempts, where the server does not say how long."""
LONGEST_PAUSE_S = 300.0
"""A server that asks for a longer one is not waited for."""
CHARACTERS_PER_TOKEN = 4


class Endpoint:
    """An `Answerer` on the network. The key is read once, and stands in no message and no file."""

    def __init__(self, options: EndpointOptions, *, of: Endpoint | None = None) -> None:
        """Check the options; nothing is sent yet.

        Args:
            options: where to ask, how, and how fast.
            of: another one, whose connections and rate limits are shared.

        Raises:
            UsageError: for an address that cannot be used, or would show the key to others.
        """
        self.options = options
        self._url = checked_address(options.base_url) + "/chat/completions"
        self._key = key_for(self._url, options.api_key_env)
        self._httpx = import_corpus_extra("httpx", "Asking an endpoint")
        self._tenacity = import_corpus_extra("tenacity", "Asking an endpoint")
        if of is None:
            self._stopped = Event()
            self._requests = Pace(options.requests_per_minute)
            self._tokens = Pace(options.tokens_per_minute)
            self._client = self._httpx.Client(
                timeout=options.timeout_s,
                follow_redirects=False,  # the key would go along
                trust_env=not is_here(self._url),  # nor would a proxy be asked for this machine
                limits=self._httpx.Limits(max_connections=options.concurrency),
            )
        else:
            self._stopped, self._client = of._stopped, of._client
            self._requests, self._tokens = of._requests, of._tokens

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        """Name the model and the address."""
        return f"Endpoint({self.options.model!r} at {self.options.base_url!r})"

    def close(self) -> None:
        """End all waiting and close the connections; requests under way fail."""
        self._stopped.set()
        self._client.close()

    def having(self, **changes: Any) -> Endpoint:
        """Give one with other options that shares connections and rate limits."""
        return Endpoint(replace(self.options, **changes), of=self)

    @property
    def model(self) -> str:
        """Name of the model as the endpoint knows it."""
        return self.options.model

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on. The address is left out: servers move."""
        return {"model": self.options.model, "settings": self._settings()}

    def complete(self, messages: Messages) -> Answer:
        """Answer one dialogue; may be called from several threads.

        Raises:
            RefusedPromptError: if the server refuses this prompt.
            RetryableError: if no attempt brought an answer.
            UsageError: if none will: a wrong key or address, an unknown model, no credit.
        """
        body = {"model": self.options.model, "messages": [dict(m) for m in messages]}
        content = json.dumps(body | dict(self._settings())).encode()
        guess = len(content) // CHARACTERS_PER_TOKEN + self.options.max_tokens
        t = self._tenacity
        retrying = t.Retrying(
            retry=t.retry_if_exception_type(Passing),
            stop=t.stop_any(
                t.stop_after_attempt(self.options.attempts), t.stop_when_event_set(self._stopped)
            ),
            wait=self._pause,
            sleep=t.sleep_using_event(self._stopped),
            reraise=True,
        )
        try:
            answer: Answer = retrying(self._ask, content, guess, uuid.uuid4().hex)
        except Passing as error:
            raise RetryableError(
                f"Could not get an answer from {clean_line(self.options.base_url)!r} "
                f"(attempt {self.options.attempts} of {self.options.attempts}): "
                f"{error}."
            ) from error
        return answer

    def complete_many(
        self, prompts: Iterable[tuple[str, Messages]]
    ) -> Iterator[tuple[str, Outcome]]:
        """Answer many dialogues, so many at a time as the options say.

        Raises:
            UsageError: as `complete`.
        """

        def outcome(messages: Messages) -> Outcome:
            try:
                return self.complete(messages)
            except (RefusedPromptError, RetryableError) as error:
                return error

        return in_parallel(outcome, prompts, self.options.concurrency)

    def _settings(self) -> dict[str, Any]:
        known = {"max_tokens": self.options.max_tokens, "temperature": self.options.temperature}
        return {k: v for k, v in (known | dict(self.options.body)).items() if v is not None}

    def _ask(self, content: bytes, guess: int, number: str) -> Answer:
        """Send one request, when its turn has come, and read the answer."""
        if not wait_for_turn(self._stopped, (self._requests, 1), (self._tokens, guess)):
            raise Passing("the client was closed")
        answer = None
        try:
            answer = self._send(content, number)
        finally:
            used = answer.prompt_tokens + answer.completion_tokens if answer else 0
            self._tokens.correct(used - guess)
        return answer

    def _send(self, content: bytes, number: str) -> Answer:
        # Attempts share a number, by which some servers know a request that they have answered.
        headers = {"content-type": "application/json", "idempotency-key": number}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            request = self._client.stream("POST", self._url, content=content, headers=headers)
            with request as response:
                found = self._read(response)
                status, wait = response.status_code, retry_after(response.headers)
        except self._httpx.HTTPError as error:
            raise Passing(str(error) or type(error).__name__) from error
        except RuntimeError as error:  # httpx's word for a client that was closed meanwhile
            raise Passing("the client was closed") from error
        clean = self._without_key(found)
        check_status(status, clean, wait, self.options, has_key=bool(self._key))
        # A short key is a placeholder, as local servers have, and may be a word of the answer.
        secret = len(self._key or "") >= SECRET
        return answer_of(clean if secret else found, prompt_characters=len(content))

    def _read(self, response: Any) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise Passing(f"its answer is longer than {MOST_BYTES // 2**20} MiB")
        return b"".join(parts)

    def _pause(self, state: Any) -> float:
        """Say how long to wait before the next attempt; what the server asks for, all wait."""
        error = state.outcome.exception()
        asked = getattr(error, "retry_after_s", None)
        if asked is None:
            return self._backoff(state)
        if asked > LONGEST_PAUSE_S:
            raise RetryableError(
                f"Could not get an answer from {clean_line(self.options.base_url)!r}: it asks to "
                f"wait {asked:.0f} s. Run the same command again after that."
            )
        for pace in (self._requests, self._tokens):
            pace.pause(asked)
        usual = self._backoff(state)
        return max(0.0, usual - float(asked))  # a date that is past asks for no haste

    def _backoff(self, state: Any) -> float:
        t, first = self._tenacity, self.options.first_wait_s
        backoff = t.wait_exponential(multiplier=first, max=LONGEST_WAIT_S)
        return float(backoff(state)) + float(t.wait_random(0, first)(state))

    def _without_key(self, content: bytes) -> bytes:
        """Take the key out of what a server says."""
        return content.replace(self._key.encode(), b"[key]") if self._key else content
