"""All that the doctor checks, in order, and what a failure means for the scores.

Everything is run on the user's own model with a dozen tokens, in the mode it is in.
"""

from __future__ import annotations

from emowatch.doctor import states, ways
from emowatch.doctor.patient import Test

CHECKS: tuple[Test, ...] = (
    Test(
        "watchable",
        states.is_watchable,
        "The model cannot be watched at all, and there are no scores: emowatch.watch refuses it in "
        "these words.",
        is_ground=True,
    ),
    Test(
        "blocks",
        states.finds_blocks,
        "Layers cannot be numbered, so no head knows where to read. Name the list with blocks=.",
        is_ground=True,
    ),
    Test(
        "mode",
        states.is_evaluating,
        "Dropout changes the states at random, and scores with them. Call model.eval().",
        reads=False,
    ),
    Test(
        "finite weights",
        states.has_finite_weights,
        "States turn into NaN and scores with them. The file or its conversion is damaged.",
        is_ground=True,
        reads=False,
    ),
    Test(
        "hooks fire",
        states.fires_everywhere,
        "Some layers cannot be read: heads there would have no state to score.",
        is_ground=True,
    ),
    Test(
        "hidden_states parity",
        states.equals_hidden_states,
        "What is read is not what transformers calls hidden_states: layers are mixed up, and "
        "banks of other tools do not fit.",
    ),
    Test(
        "offline parity",
        states.reads_early,
        "Heads are trained on other states than they score, as where a block changes its input "
        "in place: scores are off by an unknown amount.",
    ),
    Test(
        "left padding",
        states.ignores_padding,
        "In a batch, shorter prompts get other scores than alone. Generate one prompt at a time.",
        "batches of prompts of different lengths",
    ),
    Test(
        "batch rows",
        states.keeps_rows_apart,
        "A text's scores depend on its neighbours in the batch. Generate one prompt at a time.",
        "batches",
    ),
    Test(
        "generate unchanged",
        ways.generates_the_same,
        "Watching changes what the model says or misses forwards: scores belong to other tokens.",
        is_ground=True,
    ),
    Test(
        "cached decoding",
        ways.speaks_plainly,
        "Scores during generation are not those of the finished text, or belong to other tokens: "
        "they do not compare with those of training.",
    ),
    Test(
        "left as found",
        ways.cleans_up,
        "After an exception something of a watch stays on the model, which is slower then or says "
        "other words. Load the model again after an error.",
        "what is done with a model after an exception",
    ),
    Test(
        "own loop",
        ways.loops_by_itself,
        "Where you call the model yourself, with a cache and no position_ids, scores belong to "
        "other tokens or are not those of the finished text. Pass position_ids, or call generate.",
        "loops of your own",
    ),
    Test(
        "several replies",
        ways.samples_several,
        "Where one prompt is answered several times, scores belong to other replies than it seems. "
        "Use num_return_sequences=1.",
        "num_return_sequences",
    ),
    Test(
        "padded batch",
        ways.answers_a_batch,
        "In a batch, scores belong to other rows or tokens, or go on after a reply has ended. "
        "Generate one prompt at a time.",
        "batches of prompts of different lengths",
    ),
    Test(
        "no cache",
        ways.runs_without_cache,
        "Where the whole text is read again for each token, scores belong to other tokens. "
        "Generate with the cache.",
        "use_cache=False",
    ),
    Test(
        "next turn",
        ways.reads_the_next_turn,
        "A prompt that goes on from the cache of an earlier turn has other scores than one that is "
        "read at once. Begin each turn with an empty cache.",
        "a cache that is kept between turns",
    ),
    Test(
        "prompt in chunks",
        ways.reads_in_chunks,
        "A prompt that is read in chunks has other scores than one that is read at once. Leave "
        "prefill_chunk_size out.",
        "prefill_chunk_size",
    ),
    Test(
        "static cache",
        ways.runs_statically,
        'Under cache_implementation="static" scores differ from those of training. Use the '
        "default cache.",
        "static caches",
    ),
    Test(
        "candidates",
        ways.takes_candidates,
        "Under assisted decoding and prompt look-up, scores belong to other tokens or are those of "
        "rejected ones. Generate without them.",
        "assisted decoding and prompt look-up",
    ),
    Test(
        "beam search",
        ways.searches_beams,
        "Scores of a beam search are those of other beams than the returned ones. Use num_beams=1.",
        "beam search",
    ),
    Test(
        "chat template",
        states.knows_the_template,
        "Segments cannot be told apart: every prompt token counts as user.",
        "the segments of prompts",
        reads=False,
    ),
)
ON_REQUEST: tuple[Test, ...] = (
    Test(
        "compiled code",
        ways.runs_compiled,
        "Where generate compiles the model, scores are not those of the finished text. Pass "
        "disable_compile=True to generate.",
        "static caches that generate compiles for",
    ),
    Test(
        "quantised cache",
        ways.packs_its_cache,
        'Under cache_implementation="quantized" scores are not those of the states that spoke. Use '
        "the default cache.",
        "quantised caches",
    ),
)
"""Run where they are asked for, since they take minutes: both need a compiler first, and a build
of quanto's that was killed leaves a lock that its next user waits for without end."""
