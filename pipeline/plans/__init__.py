"""Plan builders: which pairs share a batch. One file each, one signature, one row in ``BUILDERS``.

builder.py     what a builder is: it puts the rows of a pass into groups
eligible.py    which pairs a plan may use, and what must not meet in a batch
similarity.py  how alike pairs are, in whole numbers: the same on every machine
split.py       rows -> blocks of like rows, balanced in size
loading.py     all of these, read from a dataset
pooled.py      one vector an image
nodes.py       rows by object, and up the tree
fill.py        rows in some order -> batches of exactly B without conflicts, and what is left
deal.py        groups of pairs -> batches without conflicts

random.py      a uniform draw
ontology.py    every batch from one object's subtree
communities.py batches of several tight groups from unrelated places
kmeans.py      every batch from one coarse cluster
concepts.py    every batch of as many objects as it can hold
similar.py     batches along a walk from neighbour to neighbour
pools.py       batches of every object, for a trainer that decides which to draw from

curricula.py   phases as the user writes them, and ready-made ones
epochs.py      epochs and passes -> all batches of a plan, and its remainder
quality/       what a plan is like beside a random one
exchange/      plans of others, and for others
"""

from __future__ import annotations

from . import communities, concepts, kmeans, ontology, pools, random, similar
from .builder import Builder

BUILDERS: dict[str, Builder] = {
    module.BUILDER.name: module.BUILDER
    for module in (random, ontology, communities, kmeans, concepts, similar, pools)
}

__all__ = ["BUILDERS", "Builder"]
