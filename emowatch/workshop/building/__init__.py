"""Build a labelled corpus with a language model, after arXiv 2510.04064, section 3.

Natural texts are labelled; neutral ones are rewritten, and new ones are synthesized; what was
written is labelled again before it counts; what is left is filtered and split by parent. The
client of endpoints can be used alone: see `Endpoint` and `Answerer`.
"""

from emowatch.workshop.building.answering import Answer, Answerer, RefusedPromptError
from emowatch.workshop.building.endpoint import Endpoint
from emowatch.workshop.building.options import EndpointOptions

__all__ = ["Answer", "Answerer", "Endpoint", "EndpointOptions", "RefusedPromptError"]
