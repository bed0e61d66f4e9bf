"""Knowledge: outside text that can be searched, and what it puts before an example.

knowledge = read_knowledge("docs/", "dolly.jsonl")       a corpus of passages
at = indexed(knowledge, lab, by=("bm25", "dense"))       in the store, with its indexes; made once
Retrieved(at, k=3)                                       contexts, as a field of a feature's spec
RandomContext(Retrieved(at), seed=0)                     and their controls
"""

from coretune.knowledge.bm25_building import bm25_ranking, bm25_scores
from coretune.knowledge.contexts import RandomContext, Retrieved, SwappedContext
from coretune.knowledge.corpus import Knowledge
from coretune.knowledge.indexes import KnowledgeAt, indexed
from coretune.knowledge.reading import read_knowledge
from coretune.knowledge.shipped import shipped

__all__ = [
    "Knowledge",
    "KnowledgeAt",
    "RandomContext",
    "Retrieved",
    "SwappedContext",
    "bm25_ranking",
    "bm25_scores",
    "indexed",
    "read_knowledge",
    "shipped",
]
