"""What licences say is read from their publishers' words, never guessed, and goes with what is made from them."""

import pytest

from terrazzo.errors import UsageError
from terrazzo.licences import NVIDIA_SEGFORMER, Ledger, Origin, ledger_of, public, read


@pytest.mark.parametrize(
    ("stated", "spdx", "commercial", "hub"),
    [
        ("Apache-2.0", "Apache-2.0", "yes", "apache-2.0"),
        ("apache-2.0", "Apache-2.0", "yes", "apache-2.0"),
        ("The Apache License 2.0", "Apache-2.0", "yes", "apache-2.0"),
        ("Apache-2.0, as OpenMMLab says of its files", "Apache-2.0", "yes", "apache-2.0"),
        ("MIT License", "MIT", "yes", "mit"),
        ("BSD-3-Clause", "BSD-3-Clause", "yes", "bsd-3-clause"),
        ("CC BY 4.0", "CC-BY-4.0", "yes", "cc-by-4.0"),
        ("CC0-1.0", "CC0-1.0", "yes", "cc0-1.0"),
        ("ODbL", "ODbL-1.0", "yes", "odbl"),
        ("CC-BY-SA-2.0", "CC-BY-SA-2.0", "yes", "other"),  # the Hub lists 3.0 and 4.0 alone
        ("CC-BY-NC-4.0: non-commercial", "CC-BY-NC-4.0", "no", "cc-by-nc-4.0"),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0", "no", "cc-by-nc-sa-4.0"),
        (NVIDIA_SEGFORMER, None, "no", "other"),
        ("Cityscapes terms of use: non-commercial, no redistribution", None, "no", "other"),
        ("for academic use only", None, "no", "other"),
        # parts of which one denies it, or which name a licence among others, are no licence of that name
        ("BSD 3-clause for annotations; images for non-commercial research and education", None, "no", "other"),
        ("annotations CC BY 4.0, images by Flickr's terms", None, "unknown", "other"),
        ("Apache-2.0 with the Commons Clause", None, "unknown", "other"),
        ("whatever", None, "unknown", "other"),
        ("not stated by its authors", None, "unknown", "unknown"),
        ("", None, "unknown", "unknown"),
        (None, None, "unknown", "unknown"),
    ],
)  # fmt: skip
def test_a_licence_is_read_from_its_words(
    stated: str | None, spdx: str | None, commercial: str, hub: str
) -> None:
    known = read(stated)
    assert (known.spdx, known.commercial, known.hub) == (spdx, commercial, hub)


def test_what_may_not_be_passed_on_is_known_from_its_words() -> None:
    assert read("Cityscapes terms of use: non-commercial, no redistribution").redistribution == "no"
    assert read("CC-BY-NC-4.0").redistribution == "yes"
    assert read("by request").redistribution == "unknown"


def test_a_ledger_allows_what_its_strictest_part_allows() -> None:
    free = Origin("scenes", "CC0-1.0")
    assert Ledger().after("scenes", "CC0-1.0").commercial == "yes"
    assert Ledger((Origin("someone/else", None),), (free,)).commercial == "unknown"
    nvidia = Origin("nvidia/mit-b0", NVIDIA_SEGFORMER)
    assert Ledger((nvidia, Origin("someone/else", None)), (free,)).commercial == "no"


def test_a_notice_names_each_part_that_denies_commercial_use() -> None:
    ledger = Ledger((Origin("nvidia/mit-b0", NVIDIA_SEGFORMER),)).after("streets", "CC-BY-NC-4.0")
    assert ledger.notices() == (
        "not for commercial use: its weights come from nvidia/mit-b0 (NVIDIA Source Code License for SegFormer: "
        "non-commercial research and evaluation only)",
        "not for commercial use: it was trained on streets (CC-BY-NC-4.0)",
    )
    assert Ledger().after("scenes", None).notices() == ()


def test_a_ledger_comes_back_from_json_and_from_what_was_written_before() -> None:
    ledger = Ledger((Origin("nvidia/mit-b0", NVIDIA_SEGFORMER), Origin("x/y", None)), (Origin("a", "MIT"),))
    assert Ledger.from_json(ledger.to_json()) == ledger
    assert ledger.to_json()["weights"] == NVIDIA_SEGFORMER
    assert ledger.to_json()["data"] == "MIT"
    old = ledger_of({"licenses": {"weights": "CC-BY-NC-4.0", "data": None}})
    assert (old.commercial, [one.license for one in old.weights], old.data) == ("no", ["CC-BY-NC-4.0"], ())
    for broken in ({}, {"licenses": None}, {"licenses": [1]}, {"licenses": {"from": 3}},
                   {"licenses": {"from": {"weights": [None, 3], "data": "x"}}}):  # fmt: skip
        assert ledger_of(broken) == Ledger()


def test_data_sets_of_a_chain_are_all_kept_and_none_twice() -> None:
    first = Ledger().after("cityscapes", "non-commercial")
    second = first.after("camvid", None).after("camvid", None)
    assert [one.name for one in second.data] == ["camvid", "cityscapes"]
    assert second.commercial == "no"


def test_weights_are_given_away_under_what_they_inherit_or_something_as_strict() -> None:
    free = Ledger().after("scenes", "CC0-1.0").given("MIT")
    assert (free.of_weights, free.commercial, Ledger.from_json(free.to_json())) == ("MIT", "yes", free)
    assert free.given("CC-BY-NC-4.0").commercial == "no"
    bound = Ledger((Origin("nvidia/mit-b0", NVIDIA_SEGFORMER),)).after("scenes", "CC0-1.0")
    assert bound.of_weights == NVIDIA_SEGFORMER
    assert bound.given("CC-BY-NC-4.0").of_weights == "CC-BY-NC-4.0"
    with pytest.raises(UsageError, match="cannot be given away under 'MIT'"):
        bound.given("MIT")


@pytest.mark.parametrize(
    "words", ["/home/anna/x", "~/x", "./x", "../x", "C:\\x", "\\\\server\\x", "file:///x"]
)
def test_paths_are_not_passed_on(words: str) -> None:
    assert not public(words)


def test_addresses_and_citations_are_passed_on() -> None:
    assert public("https://example.org/data") and public("Brostow et al. 2008") and public("user/name")
