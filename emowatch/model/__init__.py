"""The user's model, read through hooks and left as it was found."""
