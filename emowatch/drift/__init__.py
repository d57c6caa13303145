"""Has something changed? Over the turns of a conversation, or against a baseline of sessions."""
