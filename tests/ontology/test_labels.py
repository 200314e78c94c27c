"""Which synset a detector's label stands for."""

from __future__ import annotations

import json

import pytest

from tonics.ontology import labels as labels_module
from tonics.ontology.labels import label_sense, labels_fingerprint
from tonics.ontology.senses import CONFIDENT, decide
from tonics.ontology.tables import curated_labels, tables_fingerprint

COCO = {
    "person": "person.n.01", "bicycle": "bicycle.n.01", "car": "car.n.01",
    "motorcycle": "motorcycle.n.01", "airplane": "airplane.n.01", "bus": "bus.n.01",
    "train": "train.n.01", "truck": "truck.n.01", "boat": "boat.n.01",
    "traffic light": "traffic_light.n.01", "fire hydrant": "fireplug.n.01",
    "stop sign": "street_sign.n.01", "parking meter": "parking_meter.n.01",
    "bench": "bench.n.01", "bird": "bird.n.01", "cat": "cat.n.01", "dog": "dog.n.01",
    "horse": "horse.n.01", "sheep": "sheep.n.01", "cow": "cow.n.01",
    "elephant": "elephant.n.01", "bear": "bear.n.01", "zebra": "zebra.n.01",
    "giraffe": "giraffe.n.01", "backpack": "backpack.n.01", "umbrella": "umbrella.n.01",
    "handbag": "bag.n.04", "tie": "necktie.n.01", "suitcase": "bag.n.06",
    "frisbee": "frisbee.n.01", "skis": "ski.n.01", "snowboard": "snowboard.n.01",
    "sports ball": "ball.n.01", "kite": "kite.n.03", "baseball bat": "baseball_bat.n.01",
    "baseball glove": "baseball_glove.n.01", "skateboard": "skateboard.n.01",
    "surfboard": "surfboard.n.01", "tennis racket": "tennis_racket.n.01",
    "bottle": "bottle.n.01", "wine glass": "wineglass.n.01", "cup": "cup.n.01",
    "fork": "fork.n.01", "knife": "knife.n.01", "spoon": "spoon.n.01", "bowl": "bowl.n.03",
    "banana": "banana.n.02", "apple": "apple.n.01", "sandwich": "sandwich.n.01",
    "orange": "orange.n.01", "broccoli": "broccoli.n.02", "carrot": "carrot.n.03",
    "hot dog": "frank.n.02", "pizza": "pizza.n.01", "donut": "doughnut.n.02",
    "cake": "cake.n.03", "chair": "chair.n.01", "couch": "sofa.n.01",
    "potted plant": "pot_plant.n.01", "bed": "bed.n.01", "dining table": "dining_table.n.01",
    "toilet": "toilet.n.02", "tv": "television_receiver.n.01", "laptop": "laptop.n.01",
    "mouse": "mouse.n.04", "remote": "remote_control.n.01",
    "keyboard": "computer_keyboard.n.01", "cell phone": "cellular_telephone.n.01",
    "microwave": "microwave.n.02", "oven": "oven.n.01", "toaster": "toaster.n.02",
    "sink": "sink.n.01", "refrigerator": "refrigerator.n.01", "book": "book.n.02",
    "clock": "clock.n.01", "vase": "vase.n.01", "scissors": "scissors.n.01",
    "teddy bear": "teddy.n.01", "hair drier": "hand_blower.n.01",
    "toothbrush": "toothbrush.n.01",
}  # fmt: skip

ODD = {  # as vocabularies of Visual Genome have them
    "brocolli": "broccoli.n.02", "grafitti": "graffito.n.01", "skiier": "skier.n.01",
    "skiis": "ski.n.01", "sandwhich": "sandwich.n.01", "scissor": "scissors.n.01",
    "iphone": "cellular_telephone.n.01", "hoodie": "sweatshirt.n.01",
    "nightstand": "table.n.02", "reigns": "rein.n.01", "catchers mitt": "baseball_glove.n.01",
    "short": "short_pants.n.01", "fry": "french_fries.n.01", "she": "woman.n.01",
    "placemat": "place_mat.n.01", "kneepad": "knee_pad.n.01", "trashcan": "ashcan.n.01",
    "firetruck": "fire_engine.n.01", "stopsign": "street_sign.n.01",
    "lamp post": "lamppost.n.01", "head light": "headlight.n.01",
    "tail lights": "taillight.n.01", "suit case": "bag.n.06", "hill side": "hillside.n.01",
    "handle bars": "handlebar.n.01", "motor bike": "motorcycle.n.01",
    "windows": "window.n.01", "shoes": "shoe.n.01", "cows": "cow.n.01", "legs": "leg.n.01",
    "bowls": "bowl.n.03", "clocks": "clock.n.01", "leaves": "leaf.n.01", "skies": "sky.n.01",
    "tails": "tail.n.01", "women": "woman.n.01", "glasses": "spectacles.n.01",
    "wine glasses": "wineglass.n.01", "trousers": "trouser.n.01", "stairs": "stairs.n.01",
    "banana slice": "banana.n.02", "stuffed bear": "teddy.n.01", "lime": "lime.n.06",
    "screen": "screen.n.03", "speaker": "loudspeaker.n.01", "runway": "runway.n.04",
    "microwave,microwave oven": "microwave.n.02", "stop sign,stopsign": "street_sign.n.01",
}  # fmt: skip


@pytest.mark.parametrize(("name", "synset"), {**COCO, **ODD}.items())
def test_labels_as_detectors_have_them(wordnet, name, synset):
    sense = label_sense(wordnet, name)
    assert sense.synset == synset
    assert sense.confidence >= CONFIDENT


def test_coco_is_complete():
    assert len(COCO) == 80


@pytest.mark.parametrize(
    "name",
    [
        "background",
        "__background__",
        "view",
        "front",
        "thing",
        "label_17",
        "unlabelled",
        "",
        "qzxv",
    ],
)
def test_words_for_no_thing_have_no_synset(wordnet, name):
    sense = label_sense(wordnet, name)
    assert (sense.synset, sense.confidence) == (None, 0)


def test_the_vocabularys_own_synset_comes_first(wordnet):
    assert label_sense(wordnet, "mouse", "mouse.n.01").method == "given"
    assert label_sense(wordnet, "mouse", "mouse.n.01").synset == "mouse.n.01"
    assert label_sense(wordnet, "mouse", "no_such.n.01").synset == "mouse.n.04"


def test_methods_say_which_rule_it_was(wordnet):
    methods = {"pen": "label", "kite": "curated", "narwhal": "only", "wheelhouse": "only"}
    assert {name: label_sense(wordnet, name).method for name in methods} == methods
    head = label_sense(wordnet, "marble sink")
    assert (head.synset, head.method) == ("sink.n.01", "head")
    assert head.confidence == pytest.approx(0.75 * label_sense(wordnet, "sink").confidence)
    assert label_sense(wordnet, "dusty screen").synset == "screen.n.03"  # the table's, for a head


def test_the_tables_synsets_exist_under_these_names(wordnet):
    if wordnet.version == "3.0":
        listed = curated_labels().values()
        assert [name for name in listed if wordnet.resolve(name) != name] == []


def test_the_table_says_what_the_rules_for_captions_do_not(wordnet):
    differing = [
        label
        for label, synset in curated_labels().items()
        if decide(wordnet, label, label.split()[-1]).synset != synset
    ]
    assert len(differing) >= 0.9 * len(curated_labels())


def test_the_fingerprint_is_of_all_that_decides(monkeypatch):
    before = labels_fingerprint()
    changed = {**curated_labels(), "dog": "frank.n.02"}
    monkeypatch.setattr(labels_module, "curated_labels", lambda: changed)
    assert labels_fingerprint() != before
    monkeypatch.undo()
    assert labels_fingerprint() == before != tables_fingerprint()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "least"),
    [("VG-SGG-dicts-vgoi6-clipped.json", 0.98), ("vg_objects_vocab_1600.txt", 0.98)],
)
def test_vocabularies_of_visual_genome_are_covered(wordnet, shared, file, least):
    path = shared / "data" / "vocab" / file
    text = path.read_text(encoding="utf-8")
    names = list(json.loads(text)["label_to_idx"]) if path.suffix == ".json" else text.splitlines()
    senses = [label_sense(wordnet, name) for name in names]
    assert sum(s.confidence >= CONFIDENT for s in senses) >= least * len(names)
    assert {s.method for s in senses if s.synset is None} == {"frame"}  # words for no thing
