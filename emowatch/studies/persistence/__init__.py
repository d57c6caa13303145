"""How long does the emotion of a message stay in the states of the reply?"""

from emowatch.studies.persistence.study import PersistenceOptions, study_persistence

__all__ = ["PersistenceOptions", "study_persistence"]
