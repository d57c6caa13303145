"""From labelled text to a bank; offline, and never needed to watch a model."""
