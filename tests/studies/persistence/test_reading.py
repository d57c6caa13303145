"""Replies read with their messages and without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emowatch.bank import ProbeBank
from emowatch.errors import UsageError
from emowatch.studies.persistence import study_persistence
from emowatch.studies.persistence.reading import (
    empty_prompt,
    predict,
    read_replies,
    reread,
    without_message,
)
from emowatch.studies.probing import options_for
from emowatch.studies.setting import Setting
from emowatch.workshop.preparation import Prepared
from emowatch.workshop.readouts import Passage, prompt_ids
from tests.studies.taught import THINKING

PLAIN = {"readout": "reply", "head": "offset-mlp", "max_new_tokens": 6, "states_per_reply": 3}


def test_without_its_message_a_reply_keeps_its_tokens_and_offsets() -> None:
    """Only what stands before it changes."""
    passage = Passage((1, 2, 3, 40, 41), (2, 3, 4), (0, 1, 2))
    (found,) = without_message(Prepared([passage], [0], {}), [9]).passages
    assert found == Passage((9, 40, 41), (0, 1, 2), (0, 1, 2))


def test_behind_its_own_prompt_a_reply_has_the_states_it_had(setting: Setting) -> None:
    """Reading again is reading the same: the difference of the controls is the message alone."""
    options = options_for(setting, **PLAIN)
    one = replace(setting.test, examples=setting.test.examples[:1])
    replies = read_replies(setting, one, options, 2)
    own = prompt_ids(setting.loaded.tokenizer, one.examples[0].text, template=True)
    assert without_message(replies.prepared, own).passages == replies.prepared.passages


def test_the_empty_message_has_the_frame_and_no_words(setting: Setting) -> None:
    """The markers of the template are there, and the text is not."""
    empty = setting.loaded.tokenizer.decode(empty_prompt(setting, options_for(setting)))
    assert empty == "<|bos|><|user|><|end|><|assistant|>"


def test_where_nothing_stands_before_a_reply_it_cannot_be_read_alone(setting: Setting) -> None:
    """Offset 0 would be the end of the reply, which knows most of all."""
    bare = replace(setting, template=False)
    setting.loaded.tokenizer.add_bos_token = False
    setting.loaded.tokenizer._tokenizer.post_processor = None
    with pytest.raises(UsageError, match="puts no token before a text"):
        study_persistence(bare)
    assert not setting.work.exists()


def test_a_model_that_can_think_does_so_only_where_asked(setting: Setting) -> None:
    """Else what is followed are thoughts, and in the study of expression replies."""
    setting.loaded.tokenizer.chat_template = THINKING
    tokenizer = setting.loaded.tokenizer
    for thinks, ends in ((False, "<think></think>"), (True, "<think>")):
        options = options_for(setting, **PLAIN, thinks=thinks)
        passage = read_replies(setting, setting.test, options, 2).prepared.passages[0]
        assert tokenizer.decode(passage.ids[: passage.places[0] + 1]).endswith(ends)
        assert tokenizer.decode(empty_prompt(setting, options)).endswith(ends)


def test_at_offset_0_a_reply_alone_knows_nothing_of_its_message(setting: Setting) -> None:
    """All replies have the same state there, whatever they answer."""
    options = options_for(setting, **PLAIN)
    replies = read_replies(setting, setting.test, options, 2)
    alone = reread(setting, setting.test, options, replies, 2)
    first = alone.rows.states[0, alone.rows.offsets == 0]
    assert torch.allclose(first, first[:1].expand_as(first), atol=1e-5)
    own = replies.rows.states[0, replies.rows.offsets == 0]
    assert not torch.allclose(own, own[:1].expand_as(own), atol=1e-3)


def test_every_state_of_a_reply_is_read_once(setting: Setting) -> None:
    """As many as the reply has tokens, in order."""
    replies = read_replies(setting, setting.test, options_for(setting, **PLAIN), 2)
    offsets = replies.rows.offsets.numpy()
    assert offsets.tolist() == [k for length in replies.lengths for k in range(length)]
    laid = replies.spread(offsets.astype(float), np.nan)
    assert np.array_equal(laid[0, : replies.lengths[0]], np.arange(replies.lengths[0]))
    assert np.isnan(laid[np.arange(laid.shape[1]) >= replies.lengths[:, None]]).all()


def test_predictions_are_the_heads_dominant_labels(setting: Setting) -> None:
    """State by state, as a watch would tell them."""
    bank = ProbeBank.random_for(
        setting.loaded.model, labels=setting.test.labels, head="offset-mlp", layers=2
    )
    replies = read_replies(setting, setting.test, options_for(setting, **PLAIN), 2)
    found = predict(bank.heads, replies, 3)
    scores = bank.heads.scores(replies.rows.states, replies.rows.offsets)[0]
    row = 0
    for reply, length in enumerate(replies.lengths):
        expected = scores[row : row + length].argmax(-1)
        assert found.predicted[reply, :length].tolist() == expected.tolist()
        assert (found.predicted[reply, length:] == -1).all()
        row += length
    assert found.labels.tolist() == [example.label for example in setting.test.examples]


def test_replies_are_written_once_for_all_layers(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generating is what takes long; another layer reads the same replies."""
    options = options_for(setting, **PLAIN)
    first = read_replies(setting, setting.test, options, 1)
    monkeypatch.setattr(setting.loaded.model, "generate", None)  # a call would fail
    second = read_replies(setting, setting.test, options, 2)
    assert first.prepared.passages == second.prepared.passages
