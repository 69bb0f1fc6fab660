"""Nothing stale: each thing that a result depends on is changed alone, for every cache, store, checkpoint and search.

A new dependency is one more row of ``TABLES``, ``NETWORKS`` or ``VALUES``; a new cache is one more test below that goes
through those rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tests.helpers.training import examples, head
from tfaudiotl import _fingerprint
from tfaudiotl._fingerprint import check_unchanged, file_state, fingerprint, layers_parts, model_parts, plain, versions
from tfaudiotl.augment.chain import Chain, as_augmentation
from tfaudiotl.augment.layers import RandomGain, RandomNoise
from tfaudiotl.backbones.registry import get_backbone
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data import table as table_module
from tfaudiotl.data.clips import Clips
from tfaudiotl.data.table import clips_parts
from tfaudiotl.embeddings import extract
from tfaudiotl.embeddings.extract import Extractor, embed
from tfaudiotl.embeddings.store import StoreError
from tfaudiotl.errors import AudioError, AudioErrors
from tfaudiotl.training import fine_tune as fine_tune_module, train as recipe
from tfaudiotl.training.activation_cache import ActivationCache, cut
from tfaudiotl.training.batches import Sounds
from tfaudiotl.training.checkpoint import restore
from tfaudiotl.training.fine_tune import fine_tune
from tfaudiotl.training.head import fit_head
from tfaudiotl.training.options import FineTuneOptions, FitOptions
from tfaudiotl.workflow import train_folder

RATE = 16_000


class Enough(Exception):
    """Ends what has gone far enough."""


def write(folder: Path, name: str, seed: int) -> str:
    """0.3 s of two channels of noise."""
    folder.mkdir(exist_ok=True)
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, (4_800, 2))
    soundfile.write(folder / name, wave, RATE)
    return str(folder / name)


def table(folder: Path, times: int = 1) -> Clips:
    """Six clips of two classes, with groups and folds, or a multiple."""
    paths = [write(folder, f"{row}.wav", row) for row in range(6 * times)]
    labels = ["a", "b"] * 3 * times
    return Clips.from_files(paths, labels, groups=list("ppqqrr") * times, folds=list("112233") * times)


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return table(tmp_path / "s")


def rewritten(clips: Clips) -> Clips:
    """Other sound of the same length in the first file, written at the same time as before."""
    stat = os.stat(clips.paths[0])
    write(Path(clips.paths[0]).parent, Path(clips.paths[0]).name, 99)
    os.utime(clips.paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return clips


def exchanged(clips: Clips) -> Clips:
    """The first two files in each other's place."""
    first, second = map(Path, clips.paths[:2])
    aside = first.with_suffix(".aside")
    for old, new in ((first, aside), (second, first), (aside, second)):
        old.rename(new)
    return clips


def relabelled(clips: Clips) -> Clips:
    return replace(clips, labels=(("b",), *clips.labels[1:]))


def column(name: str, row: int, value: Any) -> Callable[[Clips], Clips]:
    """A change of one cell."""

    def change(clips: Clips) -> Clips:
        values = np.array(getattr(clips, name) if getattr(clips, name) is not None else np.full(len(clips), -1))
        values[row] = value
        return replace(clips, **dict[str, Any]({name: values}))

    return change


@dataclass(frozen=True)
class Change:
    """A change of a table: how, what part it shows in, and whether sounds, or only what is learned, change."""

    apply: Callable[[Clips], Clips]
    part: str
    sound: bool = False


TABLES = {
    "content": Change(rewritten, "sounds", sound=True),
    "exchanged files": Change(exchanged, "sounds", sound=True),
    "span": Change(column("starts", 0, 0.1), "spans", sound=True),
    "end": Change(column("ends", 0, 0.2), "spans", sound=True),
    "channel": Change(column("channel", 0, 1), "channels", sound=True),
    "order": Change(lambda clips: replace(clips, paths=clips.paths[::-1]), "sounds", sound=True),
    "label": Change(relabelled, "labels"),
    "class names": Change(lambda clips: replace(clips, class_names=("b", "a")), "class_names"),
    "multi-label": Change(lambda clips: replace(clips, multi_label=True), "class_names"),
    "weight": Change(column("weights", 0, 2.0), "weights"),
    "group": Change(column("group", 0, "q"), "groups"),
    "fold": Change(column("fold", 0, "3"), "folds"),
    "part": Change(lambda clips: replace(clips, part=np.array(["train"] * len(clips))), "parts"),
    "background": Change(lambda clips: replace(clips, background="a"), "background"),
}
of_tables = pytest.mark.parametrize("change", TABLES.values(), ids=list(TABLES))
SOUNDS = {name: change for name, change in TABLES.items() if change.sound}
of_sounds = pytest.mark.parametrize("change", SOUNDS.values(), ids=list(SOUNDS))


@of_tables
def test_each_column_of_a_table_counts(change: Change, clips: Clips) -> None:
    before = clips_parts(clips)
    after = clips_parts(change.apply(clips))
    assert [name for name in before if before[name] != after[name]] == [change.part]


def test_sound_in_memory_counts() -> None:
    waves = [np.full(100, value, np.float32) for value in (0.1, 0.2)]
    parts = [
        clips_parts(Clips.from_arrays(arrays, ["a", "b"], sample_rate=RATE)) for arrays in (waves, waves, waves[::-1])
    ]
    assert parts[0] == parts[1]
    assert [name for name in parts[0] if parts[0][name] != parts[2][name]] == ["sounds"]


# Networks


def network(**options: Any) -> keras.Model:
    options = {"embedding": "layer2", "hidden": (4,), "seed": 1, **options}
    return build_classifier("yamnet_mini", class_names=["a", "b"], **options)


@pytest.fixture(scope="module")
def base() -> keras.Model:
    return network()


def nudged(layer: str) -> keras.Model:
    """One number of one layer, the first of its last variable, changed a little."""
    model = network()
    variable = model.get_layer(layer).weights[-1]
    value = np.array(variable)
    value.flat[0] = np.nextafter(value.flat[0], 9, dtype=value.dtype)
    variable.assign(value)
    return model


def halved() -> keras.Model:
    keras.config.set_dtype_policy("mixed_float16")
    return network()


def silent_tail() -> keras.Model:
    """Another number of the front-end, which has no weights."""
    model = network()
    layer = next(layer for layer in model.layers if hasattr(layer, "spec"))
    layer.spec = replace(layer.spec, log_offset=layer.spec.log_offset * 2)
    return model


NETWORKS: dict[str, tuple[Callable[[], keras.Model], set[str]]] = {
    "a weight of the backbone": (partial(nudged, "layer1_conv"), {"weights"}),
    "a weight of the head": (partial(nudged, "head_logits"), {"weights"}),
    "a statistic": (partial(nudged, "head_batch_norm"), {"weights"}),
    "precision": (halved, {"network", "layers"}),
    "front-end": (silent_tail, {"network", "layers"}),
    "layer": (partial(network, embedding="layer3"), {"network", "layers", "weights", "assets"}),
    "width": (partial(network, hidden=(5,)), {"network", "layers", "weights"}),
    "dropout": (partial(network, dropout=0.3), {"network", "layers"}),
    "aggregation": (partial(network, aggregate="embeddings"), {"network"}),
    "seed": (partial(network, seed=2), {"network", "layers", "weights"}),
}
of_networks = pytest.mark.parametrize("change", NETWORKS.values(), ids=list(NETWORKS))


@of_networks
def test_each_thing_about_a_network_counts(change: tuple[Callable[[], keras.Model], set[str]], base: Any) -> None:
    before, after = model_parts(base), model_parts(change[0]())
    assert {name for name in before if before[name] != after[name]} >= change[1] - {"assets"}


def test_an_equal_network_has_the_same_fingerprint(base: keras.Model, tmp_path: Path) -> None:
    """Built again, read from a file, frozen: names that Keras counts up make no difference."""
    assert model_parts(network(trainable=1)) == model_parts(base)
    base.save(tmp_path / "model.keras")
    assert model_parts(keras.saving.load_model(tmp_path / "model.keras")) == model_parts(base)


def test_files_behind_a_layer_count(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(b"1")
    layer = keras.layers.Identity(name="hub")
    layer.assets_folder = tmp_path
    before = layers_parts([layer])
    (tmp_path / "variables" / "data").write_bytes(b"2")
    after = layers_parts([layer])
    assert [name for name in before if before[name] != after[name]] == ["assets"]


# Anything else: options, functions, layers

FACTOR = 2.0


def _scale(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return wave * FACTOR


def _closed(gain: float) -> Callable[..., Any]:
    return lambda wave, rng: wave * gain


class _Gain:
    def __init__(self, gain: float):
        self.gain = gain

    def __call__(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return wave * self.gain


VALUES: list[tuple[Any, Any]] = [
    (1, 2),
    (1, 1.5),
    ("a", "b"),
    (None, False),
    ([1, 2], [2, 1]),
    (["a", "b"], ["ab"]),
    ({"a": 1}, {"a": 2}),
    ({1: 2}, {"1": 2}),
    (np.zeros(2), np.zeros(3)),
    (np.zeros(2), np.zeros(2, np.float32)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.array([1.0, np.nan]), np.array([1.0, 2.0])),
    (np.array(["a", "b"]), np.array(["a", "c"])),
    (FitOptions(), FitOptions(seed=1)),
    (FitOptions(), FitOptions(learning_rate=2.1e-3)),
    (FineTuneOptions(), FineTuneOptions(label_smoothing=0.1)),
    (_closed(1.0), _closed(2.0)),
    (lambda wave: wave * 1.0, lambda wave: wave * 2.0),
    (lambda wave, gain=1: wave, lambda wave, gain=2: wave),
    (partial(_closed, 1), partial(_closed, 2)),
    (_Gain(1), _Gain(2)),
    (_Gain(1).__call__, _Gain(2).__call__),
    (np.sin, np.cos),
    (RandomGain((-3.0, 3.0)), RandomGain((-6.0, 6.1))),
    (RandomGain(), RandomGain(probability=0.5)),
    (Chain([RandomGain()]), Chain([RandomGain(), RandomGain()])),
    (as_augmentation(True, sample_rate=RATE), as_augmentation(True, sample_rate=22_050)),
]


@pytest.mark.parametrize(("first", "second"), VALUES)
def test_values_count(first: Any, second: Any) -> None:
    assert fingerprint(value=first) == fingerprint(value=first)
    assert fingerprint(value=first) != fingerprint(value=second)


def test_equal_values_are_equal() -> None:
    assert plain(_closed(1.0)) == plain(_closed(1.0))
    assert plain(_Gain(1)) == plain(_Gain(1))
    assert plain(Chain([RandomGain()])) == plain(Chain([RandomGain()]))  # Keras names each of them otherwise
    assert plain(as_augmentation(True, sample_rate=RATE)) == plain(as_augmentation(True, sample_rate=RATE))
    assert plain(np.float32(0.5)) == plain(0.5)
    loop: list[Any] = []
    loop.append(loop)
    assert plain(loop) == ["itself"]


def test_what_a_function_refers_to_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(augment=_scale)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint(augment=_scale) != before


def test_the_recordings_that_an_augmentation_mixes_in_count(tmp_path: Path) -> None:
    layer = RandomNoise(files=[write(tmp_path, "noise.wav", 1)])
    before = fingerprint(augment=Chain([layer]))
    write(tmp_path, "noise.wav", 2)
    assert fingerprint(augment=Chain([layer])) != before


def test_versions_name_what_computes() -> None:
    assert {"tfaudiotl", "tensorflow", "keras", "numpy"} <= set(versions())


# The caches and checkpoints, one after the other


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of a package."""
    monkeypatch.setattr(_fingerprint.metadata, "version", lambda package: "99")
    versions.cache_clear()


@pytest.fixture(autouse=True)
def fresh_versions() -> Any:
    yield
    versions.cache_clear()


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, base: keras.Model, tmp_path: Path) -> Callable[..., bool]:
    """Whether the recipe computes the embeddings of a table, rather than take them from its folder."""
    calls: list[int] = []

    def fake(network: Any, jobs: Sequence[Any], **options: Any) -> Any:
        calls.append(len(jobs))
        return iter([[np.zeros((1, 2), np.float32)] for _ in jobs])

    monkeypatch.setattr("tfaudiotl.embeddings.engine.PatchNetwork.run_jobs", fake)

    def run(clips: Clips, *, model: keras.Model | None = None, allow_silence: bool = False) -> bool:
        calls.clear()
        sounds = Sounds.of([clips], sample_rate=RATE, allow_silence=allow_silence)
        _cache(sounds, model or base, tmp_path / "work")
        return bool(calls)

    return run


@of_tables
def test_embeddings_of_the_recipe(change: Change, embedded: Any, clips: Clips) -> None:
    assert [embedded(clips), embedded(clips), embedded(change.apply(clips))] == [True, False, change.sound]


@pytest.mark.parametrize("layer", ["layer1_conv", "head_logits"])
def test_embeddings_of_the_recipe_by_network(layer: str, embedded: Any, clips: Clips) -> None:
    assert embedded(clips)
    assert embedded(clips, model=nudged(layer)) == (layer != "head_logits")  # the head comes after them


def test_embeddings_of_the_recipe_by_the_rest(embedded: Any, monkeypatch: Any, clips: Clips) -> None:
    assert embedded(clips)
    assert embedded(clips, allow_silence=True)
    assert embedded(clips, model=halved())
    later(monkeypatch)
    assert embedded(clips)


HEADS: dict[str, dict[str, Any]] = {
    "vectors": {"train": replace(examples(), vectors=examples().vectors + np.float32(1e-3))},
    "labels": {"train": replace(examples(), targets=examples().targets[::-1])},
    "weights": {"train": replace(examples(), weights=np.linspace(1, 2, 60, dtype=np.float32))},
    "other clips to train on": {"train": examples().take(np.arange(50))},
    "other clips to stop on": {"val": examples(20, seed=2)},
    "none to stop on": {"val": None},
    "variants": {"variants": [examples()]},
    "options": {"options": FitOptions(epochs=1, learning_rate=0.01)},
    "seed": {"options": FitOptions(epochs=1, seed=1)},
    "epochs": {"epochs": 2},
    "initial weights": {"head": head(seed=5)},
    "other layers": {"head": head(hidden=(8,))},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("head") / "train.npz"
    fit_head(head(), examples(), examples(20, seed=1), FitOptions(epochs=1), checkpoint=file)
    return file


@pytest.mark.parametrize("change", [{}, *HEADS.values()], ids=["nothing", *HEADS])
def test_checkpoints_of_a_head(change: dict[str, Any], checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"head": head(), "train": examples(), "val": examples(20, seed=1), "options": FitOptions(epochs=1)}

    def watched(*arguments: Any) -> Any:
        raise Enough(bool(restore(*arguments)[0]))

    monkeypatch.setattr("tfaudiotl.training.head.restore", watched)
    with pytest.raises(Enough) as ended:
        fit_head(checkpoint=checkpoint, **{**given, **change})
    assert ended.value.args == (not change,)


def test_checkpoints_without_a_key_are_not_taken_up(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", variable_0=np.zeros(3))
    assert restore(tmp_path / "train.npz", "key", head()) == ({}, {})


# The cache of activations, and fine-tuning


def cached(folder: Path, clips: Clips, model: keras.Model, key: str = "") -> np.ndarray:
    sounds = Sounds.of([clips], sample_rate=RATE)
    cache = ActivationCache.build(folder, model, cut(model), sounds.jobs, key=f"{sounds.digest} {key}")
    rows = [cache.read(0, row) for row in range(len(clips))]
    return np.concatenate(rows)


@of_sounds
def test_the_cache_of_activations(change: Change, base: keras.Model, tmp_path: Path, clips: Clips) -> None:
    cached(tmp_path / "cache", clips, base)
    after = change.apply(clips)
    np.testing.assert_array_equal(cached(tmp_path / "cache", after, base), cached(tmp_path / "fresh", after, base))


def test_the_cache_of_activations_by_network(base: keras.Model, tmp_path: Path, clips: Clips) -> None:
    other = network(weights=None)
    before = cached(tmp_path / "cache", clips, base)
    after = cached(tmp_path / "cache", clips, other)
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, cached(tmp_path / "fresh", clips, other))


def test_the_cache_leaves_what_is_not_its_own(base: keras.Model, tmp_path: Path, clips: Clips) -> None:
    first, second = tmp_path / "first" / "thesis.txt", tmp_path / "second" / "thesis.txt"
    first.parent.mkdir()
    first.write_text("years of work")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        cached(first.parent, clips, base)
    cached(second.parent, clips, base)
    first.rename(second)
    cached(second.parent, clips, base, key="another")
    assert second.read_text() == "years of work"


def claim_fine_tune(folder: Path, model: Any, train: Clips, val: Clips | None, **options: Any) -> None:
    windows = [train] if val is None else [train, val]
    augment = options.pop("augment", None)
    parts = fine_tune_module._parts(model, windows, FineTuneOptions(**options), augment)
    fine_tune_module._claim(folder, parts)


@of_tables
@pytest.mark.parametrize("side", ["train", "val"])
def test_fine_tuning_by_table(change: Change, side: str, base: keras.Model, tmp_path: Path) -> None:
    tables = {name: table(tmp_path / name) for name in ("train", "val")}
    for _ in range(2):
        claim_fine_tune(tmp_path / "w", base, **tables)
    tables[side] = change.apply(tables[side])
    with pytest.raises(ValueError, match=f"another training .*{side}: {change.part}"):
        claim_fine_tune(tmp_path / "w", base, **tables)


@of_networks
def test_fine_tuning_by_network(change: Any, base: keras.Model, tmp_path: Path, clips: Clips) -> None:
    claim_fine_tune(tmp_path / "w", base, clips, None)
    with pytest.raises(ValueError, match=r"another training .*model: "):
        claim_fine_tune(tmp_path / "w", change[0](), clips, None)


def test_fine_tuning_by_the_rest(base: keras.Model, tmp_path: Path, monkeypatch: Any, clips: Clips) -> None:
    claim_fine_tune(tmp_path / "w", base, clips, None)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"seed": 3}, "seed: 0 then, 3 now"),
        ({"augment": _scale}, "augment"),
        ({"val": clips}, "val: labels"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            claim_fine_tune(tmp_path / "w", base, clips, **{"val": None, **options})
    later(monkeypatch)
    with pytest.raises(ValueError, match="versions"):
        claim_fine_tune(tmp_path / "w", base, clips, None)


def test_corrected_labels_are_refused(tmp_path: Path, clips: Clips) -> None:
    claim_fine_tune(tmp_path / "w", network(), clips, None)
    with pytest.raises(ValueError, match=r"another training \(train: labels\)"):
        fine_tune(network(), relabelled(clips), workdir=tmp_path / "w")


def test_an_interrupted_model_is_given_back_as_it_was(tmp_path: Path, clips: Clips) -> None:
    """So the same call goes on, as the cell of a notebook does."""
    options: dict[str, Any] = {"trainable": 0, "head_epochs": 3, "verbose": False}

    def at_epoch(epoch: int, logs: Any) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_epoch_end=at_epoch)
    model, whole = network(), network()
    with pytest.raises(KeyboardInterrupt):
        fine_tune(model, clips, workdir=tmp_path / "w", callbacks=[stop], **options)
    fine_tune(model, clips, workdir=tmp_path / "w", **options)
    fine_tune(whole, clips, **options)
    for ours, theirs in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@of_tables
def test_searches_by_table(change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras_tuner = pytest.importorskip("keras_tuner")
    from tfaudiotl.training.tune import SearchSpace, tune

    monkeypatch.setattr(keras_tuner.Tuner, "search", lambda *arguments, **options: None)
    monkeypatch.setattr("tfaudiotl.training.tune.cut_backbone", lambda *arguments, **options: head())

    def search(clips: Clips, **options: Any) -> None:
        space = SearchSpace(embedding=("layer2",))
        tune(clips, tmp_path / "trials", backbone="yamnet_mini", space=space, folds=2, trials=1, **options)

    clips = replace(table(tmp_path / "s", 3), group=np.array([str(row) for row in range(18)]))
    search(clips)
    search(clips)
    changed = change.apply(clips)
    with pytest.raises(ValueError, match=f"another search .*clips: {change.part}"):
        search(changed)
    monkeypatch.setattr("tfaudiotl.training.tune.cut_backbone", lambda *arguments, **options: head(seed=3))
    with pytest.raises(ValueError, match=r"another search .*backbone: weights"):
        search(clips)


# Batches kept by tf.data


def batches(clips: Clips, cache: Any = False, **options: Any) -> list[np.ndarray]:
    dataset = clips.dataset(batch_size=6, cache=cache, **{"window_seconds": 0.3, "sample_rate": RATE, **options})
    return [part for batch in dataset.as_numpy_iterator() for part in batch]


@of_tables
def test_kept_batches(change: Change, tmp_path: Path, clips: Clips) -> None:
    if change.part == "class_names":
        pytest.skip("labels and targets are another table's then")
    batches(clips, tmp_path / "kept")
    after = change.apply(clips)
    for ours, fresh in zip(batches(after, tmp_path / "kept"), batches(after), strict=True):
        np.testing.assert_array_equal(ours, fresh)


@pytest.mark.parametrize("options", [{"sample_rate": 8_000}, {"window_seconds": 0.2}, {"shard": (1, 2)}])
def test_kept_batches_by_option(options: dict[str, Any], tmp_path: Path, clips: Clips) -> None:
    batches(clips, tmp_path / "kept")
    for ours, fresh in zip(batches(clips, tmp_path / "kept", **options), batches(clips, **options), strict=True):
        np.testing.assert_array_equal(ours, fresh)


def test_kept_batches_are_read_again_and_not_decoded(tmp_path: Path, monkeypatch: Any, clips: Clips) -> None:
    first = batches(clips, tmp_path / "kept")
    monkeypatch.setattr(Clips, "load", None)
    for ours, theirs in zip(batches(clips, tmp_path / "kept"), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Stores of embeddings

stored = partial(embed, "yamnet_mini", embedding="layer2", engine=extract.EngineOptions(runtime="keras"))


def test_stores_by_content_and_name(tmp_path: Path, clips: Clips) -> None:
    again = partial(stored, list(clips.paths), store=tmp_path / "store")
    before = again()
    np.testing.assert_array_equal(again(), before)
    exchanged(clips)
    np.testing.assert_array_equal(again(), before[[1, 0, 2, 3, 4, 5]])
    rewritten(clips)
    assert not np.allclose(again()[0], before[1], atol=1e-3)


def test_a_store_of_another_network_is_refused(tmp_path: Path, clips: Clips) -> None:
    stored(list(clips.paths), store=tmp_path / "store")
    with pytest.raises(StoreError, match=r"made in another way: .*weights is"):
        stored(list(clips.paths), store=tmp_path / "store", weights=None)


@pytest.mark.parametrize(
    "options", [{"pooling": "max"}, {"weights": None}, {"engine": extract.EngineOptions(quantize="int8")}]
)
def test_settings_of_a_store(options: dict[str, Any]) -> None:
    assert store_config() == store_config()
    assert store_config() != store_config(**options)


def store_config(**options: Any) -> dict[str, Any]:
    return Extractor("yamnet_mini", "layer2", **options).config(trim=False)


def test_settings_of_a_store_by_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    before = store_config()
    keras.config.set_dtype_policy("mixed_float16")
    assert store_config()["layers"] != before["layers"]
    keras.config.set_dtype_policy("float32")
    later(monkeypatch)
    assert [name for name, part in store_config().items() if part != before[name]] == ["versions"]


def test_options_of_a_backbone_without_weights_of_their_own() -> None:
    """The size of an image network's picture, say, which changes no weight."""
    first, second = (get_backbone("mobilenet").build(weights=None, include_top=False, size=size) for size in (32, 64))
    assert layers_parts(first.layers)["layers"] != layers_parts(second.layers)["layers"]


def test_a_saved_model_that_was_trained_again_in_its_place(tmp_path: Path, clips: Clips) -> None:
    def save(factor: float) -> None:
        module, spec = tf.Module(), tf.TensorSpec([None, 4_000], tf.float32)
        module.factor = tf.Variable(factor)
        module.__call__ = tf.function(lambda x: module.factor * tf.reduce_mean(x, 1, keepdims=True), [spec])
        tf.saved_model.save(module, str(hub))

    hub, name = tmp_path / "hub", f"hub:{tmp_path / 'hub'}"
    options: dict[str, Any] = {"backbone_options": {"sample_rate": RATE}}

    def classifier() -> dict[str, str]:
        return model_parts(build_classifier(name, class_names=["a", "b"], seed=0, **options))

    save(1.0)
    before = classifier()
    embed(name, list(clips.paths), store=tmp_path / "store", **options)
    save(5.0)
    assert [part for part, digest in classifier().items() if before[part] != digest] == ["assets"]
    with pytest.raises(StoreError, match="made in another way: assets"):
        embed(name, list(clips.paths), store=tmp_path / "store", **options)


# What is taken up by ``train --resume``


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A training that was interrupted after its first epoch."""
    base = tmp_path_factory.mktemp("resume")

    def kill(progress: Any) -> None:
        if progress.stage.startswith("Training"):
            raise Enough

    options: dict[str, Any] = {"fit": FitOptions(epochs=3), "backbone": "yamnet_mini", "embedding": "layer2"}
    with pytest.raises(Enough):
        train_folder(table(base / "s"), base / "out", progress=kill, **options)
    return base, options


@of_tables
def test_resuming_with_another_table_is_refused(change: Change, interrupted: tuple[Path, dict[str, Any]]) -> None:
    base, options = interrupted
    clips = table(base / "s")
    with pytest.raises(ValueError, match=f"interrupted run had other settings or clips .*clips: {change.part}"):
        train_folder(change.apply(clips), base / "out", resume=True, **options)


# Files that change while they are read


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.wav", 1)
    state = file_state(path)
    check_unchanged(path, state)
    os.utime(path, ns=(1, 1))
    with pytest.raises(AudioError, match=r"a\.wav.*changed while"):
        check_unchanged(path, state)
    assert file_state(tmp_path / "missing.wav") is None


@pytest.mark.parametrize("kind", ["store", "recipe", "fine-tuning", "batches"])
def test_no_cache_takes_a_file_that_changes_while_it_is_read(
    kind: str, base: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: Clips
) -> None:
    sounds = Sounds.of([clips], sample_rate=RATE)
    target = extract if kind == "store" else table_module
    original = target.load_audio

    def load(path: Any, **options: Any) -> np.ndarray:
        waveform = original(path, **options)
        if str(path) == clips.paths[2]:
            write(tmp_path / "s", "2.wav", 77)
            os.utime(path, ns=(5, 5))
        return waveform

    monkeypatch.setattr(target, "load_audio", load)
    read: dict[str, Callable[[], Any]] = {
        "store": lambda: stored(list(clips.paths), store=tmp_path / "store"),
        "recipe": lambda: recipe._usable(_cache(sounds, base, tmp_path / "work"), sounds, "raise"),
        "fine-tuning": lambda: fine_tune(network(), clips, workdir=tmp_path / "w", verbose=False),
        "batches": lambda: batches(clips, tmp_path / "kept", decoder="python"),
    }
    with pytest.raises((AudioError, AudioErrors, tf.errors.OpError), match=r"(?s)2\.wav.*changed while"):
        read[kind]()


def _cache(sounds: Sounds, model: keras.Model, folder: Path) -> ActivationCache:
    return recipe._trainer(model, sounds, FitOptions(), None, folder, lambda progress: None).cache
