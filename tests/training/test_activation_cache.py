"""The frozen part: cut where training begins, kept in bounded shards, and the rest equal to the whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl._threads import Progress
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import freeze
from tfaudiotl.errors import AudioError
from tfaudiotl.training.activation_cache import ActivationCache, cut, upper_model
from tfaudiotl.training.batches import CachedInputs

LENGTHS = (9_000, 15_600, 31_000, 60_000, 20_000)


def classifier(stand_in: Path, **options: Any) -> keras.Model:
    return build_classifier(
        "yamnet", class_names=["a", "b", "c"], weights=str(stand_in), seed=1, **{"embedding": "layer4", **options}
    )


def waveforms() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.5, 0.5, length).astype(np.float32) for length in LENGTHS]


def jobs() -> list[partial[np.ndarray]]:
    return [partial(np.copy, waveform) for waveform in waveforms()]


@pytest.mark.parametrize(
    ("trainable", "shapes"),
    [
        (0, [(128,)]),
        (1, [(24, 16, 128)]),
        ("layer2", [(48, 32, 32)]),
        ("all", [(96, 64, 1)]),
    ],
)
def test_cuts_where_training_begins(trainable: int | str, shapes: list[tuple[int, ...]], stand_in: Path) -> None:
    model = freeze(classifier(stand_in), trainable=trainable)
    assert [tuple(tensor.shape[1:]) for tensor in cut(model)] == shapes


def test_several_embeddings_are_cut_each_where_it_is_frozen(stand_in: Path) -> None:
    model = freeze(classifier(stand_in, embedding=["layer2", "layer4"]), trainable=1)
    assert sorted(tuple(tensor.shape[1:]) for tensor in cut(model)) == [(24, 16, 128), (64,)]


@pytest.mark.parametrize("trainable", [0, 1, "all"])
@pytest.mark.parametrize("options", [{}, {"aggregate": "embeddings"}, {"embedding": ["layer2", "layer4"]}])
def test_upper_part_on_the_cache_is_the_whole(
    trainable: int | str, options: dict[str, Any], stand_in: Path, tmp_path: Path
) -> None:
    model = freeze(classifier(stand_in, **options), trainable=trainable)
    tensors = cut(model)
    cache = ActivationCache.build(tmp_path / "cache", model, tensors, jobs(), key="")
    inputs = CachedInputs(cache, range(len(tensors))).batch(np.array([3, 0, 4, 1, 2]))
    padded = np.zeros((5, max(LENGTHS)), np.float32)
    for row, waveform in zip([1, 3, 4, 0, 2], waveforms(), strict=True):
        padded[row, : len(waveform)] = waveform
    np.testing.assert_allclose(upper_model(model, tensors)(list(inputs)), model(padded), rtol=1e-3, atol=1e-5)


def test_the_whole_shares_what_the_upper_part_learns_and_saves_as_ever(stand_in: Path, tmp_path: Path) -> None:
    model = freeze(classifier(stand_in), trainable=1)
    upper = upper_model(model, cut(model))
    kernel = upper.get_layer("layer4_pointwise_conv").kernel
    kernel.assign(kernel * 0.5)
    np.testing.assert_array_equal(model.get_layer("layer4_pointwise_conv").kernel, kernel)
    model.save(tmp_path / "model.keras")
    x = waveforms()[3][None]
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(x), model(x), rtol=1e-5)


def test_shards_are_bounded_and_finished_ones_are_used_again(stand_in: Path, tmp_path: Path) -> None:
    model = freeze(classifier(stand_in), trainable=1)
    patch = 4 * 24 * 16 * 128
    done: list[int] = []

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        done.append(progress.done)
        if progress.done == 4:
            raise Killed

    options = {"key": "same", "shard_bytes": 3 * patch}
    with pytest.raises(Killed):
        ActivationCache.build(tmp_path / "cache", model, cut(model), jobs(), progress=kill, **options)  # type: ignore[arg-type]
    done.clear()
    cache = ActivationCache.build(
        tmp_path / "cache",
        model,
        cut(model),
        jobs(),
        progress=lambda progress: done.append(progress.done),
        **options,  # type: ignore[arg-type]
    )
    assert done == [5]  # the first three filled a shard, the long fourth another
    sizes = [file.stat().st_size for file in (tmp_path / "cache").glob("*/0.npy")]
    assert len(sizes) > 1
    assert sum(sizes) == cache.bytes
    assert patch * sum(cache.counts.values()) < cache.bytes < patch * (sum(cache.counts.values()) + 1)
    assert max(sizes) < 3 * patch + 8 * patch  # the sound that filled it
    whole = ActivationCache.build(tmp_path / "other", model, cut(model), jobs(), key="")
    for row in range(5):
        np.testing.assert_allclose(cache.read(0, row), whole.read(0, row), rtol=1e-4, atol=1e-5)


def test_a_damaged_shard_is_computed_again(stand_in: Path, tmp_path: Path) -> None:
    model = classifier(stand_in)
    whole = ActivationCache.build(tmp_path / "cache", model, cut(model), jobs(), key="", shard_bytes=1)
    before = [whole.read(0, row) for row in range(5)]
    file = sorted((tmp_path / "cache").glob("*/0.npy"))[2]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    done: list[int] = []
    again = ActivationCache.build(
        tmp_path / "cache", model, cut(model), jobs(), key="", progress=lambda progress: done.append(progress.done)
    )
    assert done == [5]
    for row in range(5):
        np.testing.assert_allclose(again.read(0, row), before[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["key", "weights"])
def test_a_cache_of_other_sounds_or_weights_is_not_used(change: str, stand_in: Path, tmp_path: Path) -> None:
    model = freeze(classifier(stand_in), trainable=1)
    ActivationCache.build(tmp_path / "cache", model, cut(model), jobs(), key="1")
    if change == "weights":
        model.get_layer("layer1_conv").kernel.assign(model.get_layer("layer1_conv").kernel * 2)
    done: list[int] = []
    ActivationCache.build(
        tmp_path / "cache",
        model,
        cut(model),
        jobs(),
        key="2" if change == "key" else "1",
        progress=lambda progress: done.append(progress.done),
    )
    assert done == [1, 2, 3, 4, 5]


def test_sounds_that_cannot_be_used_are_listed(stand_in: Path, tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise AudioError("street.wav", "broken")

    model = classifier(stand_in)
    for _ in range(2):  # made, and taken up again
        cache = ActivationCache.build(tmp_path / "cache", model, cut(model), [*jobs()[:2], broken, jobs()[2]], key="")
        assert list(cache.counts) == [0, 1, 3]
        assert {row: error.path for row, error in cache.skipped.items()} == {2: "street.wav"}
