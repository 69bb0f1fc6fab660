"""Every purpose has random numbers of its own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tfaudiotl
from tfaudiotl._seeds import PURPOSES, derived_seed, stream
from tfaudiotl.data.clips import Clips

SOURCES = sorted(Path(tfaudiotl.__file__).parent.rglob("*.py"))
# What tells streams of one purpose and seed apart. A padded seed is what made [7] and [7, 0] one.
PARTS: list[tuple[int | str, ...]] = [(), (0,), (1,), (2,), (0, 0), (0, 1), (1, 0), ("0",), ("a",), ("a", 0)]


def test_no_two_streams_are_equal() -> None:
    keys = [(purpose, seed, *parts) for purpose in PURPOSES for seed in (*range(12), 2**32, 2**40) for parts in PARTS]
    first = {tuple(stream(*key).integers(2**63, size=2).tolist()) for key in keys}
    assert len(first) == len(keys)
    # Nor of the plain seeds that a caller, or a test, makes generators of.
    plain = {tuple(np.random.default_rng(seed).integers(2**63, size=2).tolist()) for seed in range(200)}
    assert not first & plain
    assert len({derived_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derived_seed(*key) < 2**31 for key in keys[:100])


def test_a_stream_is_the_same_in_every_process_and_for_every_kind_of_integer() -> None:
    assert derived_seed("folds", 7, 3) == 237_909_224
    assert derived_seed("folds", *np.array([7, 3])) == 237_909_224
    assert stream("folds", 7).random() == stream("folds", 7).random()


def test_a_purpose_that_is_not_listed_is_refused() -> None:
    with pytest.raises(ValueError, match="purpose='fold'"):
        stream("fold", 0)


def test_generators_are_made_of_seeds_in_one_place_alone() -> None:
    made = re.compile(r"default_rng|SeedSequence|RandomState|np\.random\.seed|set_random_seed|manual_seed")
    assert [path.name for path in SOURCES if made.search(path.read_text())] == ["_seeds.py"]


def test_every_purpose_is_used() -> None:
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "_seeds.py")
    assert [purpose for purpose in PURPOSES if f'"{purpose}"' not in text] == []


@pytest.mark.parametrize("seed", range(4))
def test_what_is_held_out_is_independent_of_other_draws(seed: int) -> None:
    """A permutation drawn from the caller's own seed says nothing about the split of that seed."""
    clips = Clips.from_arrays(
        [np.full(16, (n + 1) / 400, np.float32) for n in range(400)], ["a", "b"] * 200, sample_rate=16_000
    )
    _, held_out = clips.split(test=0.2, seed=seed)
    numbers = np.random.default_rng(seed).permutation(400)[:100]
    held = set(held_out.source.tolist())
    assert 5 <= len(held & set(numbers.tolist())) <= 40  # 20 are expected
