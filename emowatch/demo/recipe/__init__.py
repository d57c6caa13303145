"""The recipe that makes the embedded demo model and its banks from public data.

``python -m emowatch.demo.recipe --data DIR`` runs every stage in order and skips what is
already done: tokenizer, pre-training, fine-tuning, judging, model card. It is not needed to
*use* the demo model, which travels in the wheel.
"""
