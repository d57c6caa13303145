"""What steering does to a model: doses and responses, gains of a governor, and what it costs."""
