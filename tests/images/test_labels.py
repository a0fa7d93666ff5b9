"""Class names."""

import pytest

from free.images.labels import class_ids, imagenet_names, label_table

TABLE = label_table(imagenet_names())


def test_imagenet() -> None:
    assert sorted(imagenet_names()) == list(range(1000))
    known = {
        "tench": 0,
        "goldfish": 1,
        "white shark": 2,
        "great white shark": 2,
        "golden retriever": 207,
        "giant panda": 388,
        "umbrella": 879,
        "daisy": 985,
        "toilet tissue": 999,
    }
    assert class_ids(list(known), TABLE) == list(known.values())
    assert class_ids([5, "goldfish", 7], TABLE) == [5, 1, 7]
    # A crane, a maillot and a missile share all their names with a later class.
    assert set(range(1000)) - set(TABLE.values()) == {134, 638, 657}


def test_table_is_that_of_diffusers() -> None:
    table = label_table({"0": "tench, Tinca tinca", "1": "goldfish"})
    assert table == {"Tinca tinca": 0, "goldfish": 1, "tench": 0}
    assert list(table) == sorted(table)
    assert label_table({0: "crane", 1: "crane"}) == {"crane": 1}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("goldfsh", "goldfish"),
        ("Golden Retriever", "golden retriever"),
        ("white sharks", "white shark"),
        ("###", ".*"),  # something is always suggested
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"got {name!r}: did you mean '{nearest}'\\?"):
        class_ids([3, name], TABLE)


def test_names_that_are_refused() -> None:
    with pytest.raises(ValueError, match="class_labels must be ids, .* no names, got 'seven'"):
        class_ids(["seven"], {})
    with pytest.raises(ValueError, match=r"id2label must map class ids to names, got \['tench'\]"):
        label_table(["tench"])  # type: ignore[arg-type]
    for names in ({"a": "tench"}, {"0": 5}, {"0": None}):
        with pytest.raises(ValueError, match="id2label must map class ids to names, got '[a0]': "):
            label_table(names)
