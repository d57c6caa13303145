"""Messages that doses are tried on where none are given: everyday talk, of no one emotion."""

PROMPTS = (
    "What should I cook tonight?",
    "I am moving to a new city next month.",
    "Tell me about your day.",
    "My neighbour plays music until late.",
    "I have an exam tomorrow.",
    "The train was late again.",
    "We are going to the sea this weekend.",
    "I found an old photo of my family.",
    "My phone stopped working this morning.",
    "I started to learn the piano.",
    "Do you like films?",
    "I met an old friend in the street.",
    "It has been raining all week.",
    "My sister wants to change her job.",
    "I cannot decide which book to read.",
    "The shop was closed when I came.",
    "I am planting tomatoes this year.",
    "Somebody left a letter at my door.",
    "I have not slept much lately.",
    "Our team has a new manager.",
)
