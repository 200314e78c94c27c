"""The graph above synsets, and its primary parents."""

from __future__ import annotations

import pytest

from tonics.ontology.tables import merged_synsets
from tonics.ontology.tree import build_graph, cut_tree, only_children, usable_merges

MENTIONED = ["dog.n.01", "person.n.01", "water.n.01", "music.n.01", "golden_gate_bridge.n.01"]


@pytest.fixture(scope="module")
def graph(wordnet):
    return build_graph(wordnet, MENTIONED)


def test_everything_above_is_there(graph, wordnet):
    assert set(graph.synsets) == set().union(*(wordnet.ancestors(s) for s in MENTIONED))
    assert list(graph.synsets) == sorted(graph.synsets)


def test_primary_parents(graph):
    assert graph.parent["entity.n.01"] is None
    assert graph.parent["dog.n.01"] == "canine.n.02"  # deeper than domestic_animal.n.01
    assert graph.parent["person.n.01"] == "organism.n.01"  # deeper than causal_agent.n.01
    assert "physical_entity.n.01" in graph.lineage("water.n.01")  # not by way of part.n.01
    assert "abstraction.n.06" in graph.lineage("music.n.01")
    assert graph.parent["golden_gate_bridge.n.01"] == "suspension_bridge.n.01"  # an instance
    for name in graph.synsets:
        line = graph.lineage(name)
        assert line[-1] == "entity.n.01"
        assert graph.depth[name] == len(line) - 1


def test_distances_take_the_short_way(graph):
    assert graph.distances("dog.n.01")["animal.n.01"] == 2
    assert graph.lineage("dog.n.01").index("animal.n.01") > 2


def test_cut_tree(graph):
    tree = cut_tree(graph, {"dog.n.01", "organism.n.01", "person.n.01"})
    assert tree.synsets == ["entity.n.01", "organism.n.01", "dog.n.01", "person.n.01"]
    assert tree.parents == [-1, 0, 1, 1]
    assert tree.depths == [0, 1, 2, 2]
    assert tree.lineage(2) == [2, 1, 0]
    assert tree.nearest["canine.n.02"] == 1
    assert tree.nearest["music.n.01"] == 0


def test_only_children(graph):
    kept = {"entity.n.01", "physical_entity.n.01", "organism.n.01", "person.n.01", "animal.n.01"}
    assert only_children(graph, kept) == {"entity.n.01": "physical_entity.n.01"}
    assert only_children(graph, {"canine.n.02", "dog.n.01"}) == {"canine.n.02": "dog.n.01"}


def test_a_merged_synset_is_gone_and_its_children_move(wordnet):
    merges = usable_merges(wordnet, {"food.n.02": "food.n.01"})
    graph = build_graph(wordnet, ["food.n.02", "bread.n.01"], merges)
    assert "food.n.02" not in graph.synsets
    assert "solid.n.01" not in graph.synsets  # only food.n.02 lies under it
    assert "food.n.01" in graph.lineage("bread.n.01")
    assert graph.hypernyms("baked_goods.n.01") == ("food.n.01",)


def test_merges_that_cannot_be(wordnet):
    assert usable_merges(wordnet, {"animal.n.01": "dog.n.01"}) == {}  # would lie above itself
    assert usable_merges(wordnet, {"dog.n.01": "dgo.n.01", "dgo.n.02": "dog.n.01"}) == {}
    circle = {"canine.n.02": "cat.n.01", "feline.n.01": "dog.n.01"}  # each alone would do
    assert len(usable_merges(wordnet, circle)) == 1
    build_graph(wordnet, ["dog.n.01", "cat.n.01"], usable_merges(wordnet, circle))
    chain = {"food.n.02": "food.n.01", "food.n.01": "substance.n.01"}
    assert usable_merges(wordnet, chain) == {"food.n.01": "substance.n.01"}


def test_every_merge_of_the_table_can_be(wordnet):
    table = {synset: kept for synset, (kept, _) in merged_synsets().items()}
    assert usable_merges(wordnet, table) == table
    graph = build_graph(wordnet, wordnet_names(wordnet, table), table)
    for name in graph.synsets:
        assert name not in table
        assert graph.lineage(name)[-1] == "entity.n.01"


def wordnet_names(wordnet, table):
    """The synsets of the table, and some below them."""
    return [*table, *table.values(), "bread.n.01", "boulder.n.01", "oak.n.02"]
