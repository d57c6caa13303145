"""The published experiments, repeated on any model: one study each, with the controls they lack."""

from __future__ import annotations

STUDIES = {
    "classification": "Zero-shot answers beside probes of raw and templated text (Table 2).",
    "layers": "Accuracy by depth, beside a control task (Table 3, Figure 5).",
    "geometry": "How the emotions lie to each other in the scores (Figures 1 and 4).",
    "expression": "Whether replies show the emotion of their messages (Table 4).",
    "persistence": "How long the user's emotion stays in the states of a reply (Figure 7).",
}
"""Name and one line of each study, in the order in which `all` runs them. Tables and figures are
those of paper A (arXiv 2510.04064) where no other is named."""

OF_OTHER_TEXTS = {
    "notebook": "Emotions and appraisals of crowd-enVENT, and what moves them (Tak et al.).",
}
"""Name and one line of each study of texts of its own, which `all` runs where it is given them."""
