"""Freezing by name, batch norm's policy, heads for other classes, and batch norm folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tfaudiotl import YAMNet, fold_batch_norm
from tfaudiotl.backbones.scores import class_names_of
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.classifiers.edit import freeze, replace_head

CLASSES = ["dog", "rain", "sea waves"]


def small(stand_in: Path | None, **options: Any) -> keras.Model:
    """A classifier on the first four blocks."""
    weights = str(stand_in) if stand_in else None
    options = {"embedding": "layer4", "hidden": (8,), "seed": 1, **options}
    return build_classifier("yamnet", class_names=CLASSES, weights=weights, **options)


def training(model: keras.Model) -> set[str]:
    return {variable.path.split("/")[0] for variable in model.trainable_variables}


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (6, 15_600)).astype(np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize(
    ("trainable", "trains"),
    [
        (
            "layer3",
            {"layer3_depthwise_conv", "layer3_pointwise_conv", "layer4_depthwise_conv", "layer4_pointwise_conv"},
        ),
        ("layer4_pointwise_conv", {"layer4_pointwise_conv"}),
        (0, set()),
    ],
)
def test_freezes_by_name(trainable: int | str, trains: set[str], stand_in: Path) -> None:
    model = freeze(small(stand_in), trainable=trainable)
    assert training(model) == trains | {"head_dense_1", "head_logits"}


def test_all_frees_everything(stand_in: Path) -> None:
    model = freeze(small(stand_in), trainable="all", batch_norm="train")
    assert training(model) == training(small(stand_in, trainable="all", batch_norm="train"))
    assert {"layer1_conv", "layer1_conv_bn"} <= training(model)


@pytest.mark.parametrize("trainable", [2, "layer3"])
def test_the_last_blocks_train(trainable: int | str, stand_in: Path) -> None:
    model = small(stand_in, trainable=trainable)
    assert {name.split("_")[0] for name in training(model)} == {"layer3", "layer4", "head"}
    assert list(parts(model).blocks) == ["layer1", "layer2", "layer3", "layer4"]


def test_the_summary_tells_what_trains(stand_in: Path) -> None:
    lines: list[str] = []
    model = freeze(small(stand_in), trainable="layer4")
    model.summary(print_fn=lambda line, **_: lines.append(line))
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert any(f"Trainable params: {count:,} (" in line for line in "\n".join(lines).splitlines())


def test_only_what_trains_changes_and_frozen_statistics_stay(stand_in: Path) -> None:
    model = small(stand_in)
    model.fit(*batch(), verbose=0)
    freeze(model, trainable="layer4")  # a compiled model that has trained goes on with other layers
    before = {v.path: np.array(v) for v in model.variables}
    model.fit(*batch(), verbose=0)
    changed = {v.path for v in model.variables if not np.array_equal(before[v.path], v)}
    changed_layers = {path.split("/")[0] for path in changed if not path.startswith(("head", "seed_generator"))}
    assert changed_layers == {"layer4_depthwise_conv", "layer4_pointwise_conv"}


@pytest.mark.parametrize(("policy", "learns"), [("frozen", False), ("train", True)])
def test_batch_norm_policy_of_blocks_that_train(policy: str, learns: bool, stand_in: Path) -> None:
    model = small(stand_in, trainable=1, batch_norm=policy)
    norms = [model.get_layer(f"layer{n}_pointwise_conv_bn") for n in (3, 4)]
    before = [np.array(norm.moving_mean) for norm in norms]
    model.fit(*batch(), verbose=0)
    changed = [not np.array_equal(old, norm.moving_mean) for old, norm in zip(before, norms, strict=True)]
    assert changed == [False, learns]


def test_without_weights_batch_norm_learns() -> None:
    assert "layer1_conv_bn" in training(small(None, trainable="all"))


def test_bad_names_list_the_good_ones(stand_in: Path) -> None:
    model = small(stand_in)
    with pytest.raises(ValueError, match=r"trainable='layer9'.*layer1, layer2"):
        freeze(model, trainable="layer9")
    with pytest.raises(ValueError, match="batch_norm='thaw': allowed are 'frozen' and 'train'"):
        freeze(model, trainable=1, batch_norm="thaw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no classifier of build_classifier"):
        freeze(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), trainable=1)


def test_a_head_for_more_classes_knows_the_old_ones(stand_in: Path, tmp_path: Path) -> None:
    old = small(stand_in, trainable=1)
    x, y = batch()
    old.fit(x, y, verbose=0)
    new = replace_head(old, ["wind"], extend=True, seed=3)
    assert class_names_of(new) == (*CLASSES, "wind")
    before, after = old.predict(x, verbose=0), new.predict(x, verbose=0)
    np.testing.assert_allclose(after[:, :3] / after[:, :3].sum(axis=1, keepdims=True), before, rtol=1e-3)
    assert training(new) == training(old)
    new.fit(x, np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 3, 0]], verbose=0)
    np.testing.assert_array_equal(old.predict(x, verbose=0), before)  # a model of its own
    new.save(tmp_path / "new.keras")
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), new.predict(x, verbose=0), rtol=1e-5)
    assert class_names_of(freeze(loaded, trainable="layer4")) == class_names_of(new)


def test_a_head_for_other_classes_keeps_the_columns_of_shared_ones(stand_in: Path) -> None:
    old = small(stand_in)
    new = replace_head(old, ["siren", "dog"])
    kernels = [np.asarray(model.get_layer("head_logits").kernel) for model in (old, new)]
    np.testing.assert_array_equal(kernels[1][:, 1], kernels[0][:, 0])
    np.testing.assert_array_equal(*(model.get_layer("head_dense_1").kernel for model in (old, new)))
    anew = replace_head(old, CLASSES, keep=False, seed=9)
    assert not np.array_equal(anew.get_layer("head_dense_1").kernel, old.get_layer("head_dense_1").kernel)
    np.testing.assert_array_equal(*(model.get_layer("layer2_pointwise_conv").kernel for model in (old, anew)))
    with pytest.raises(ValueError, match=r"\['dog'\] are there already"):
        replace_head(old, ["dog"], extend=True)
    for wrong in ("siren", None, 5):
        with pytest.raises(ValueError, match=f"class_names={wrong!r}: a sequence of class names"):
            replace_head(old, wrong, extend=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one name"):
        replace_head(old, [], extend=True)


def shuffle_weights(model: keras.Model, rng: np.random.Generator) -> None:
    """Gives every weight, batch norm statistics included, a value of its own."""
    model.set_weights([rng.uniform(0.2, 1.0, w.shape).astype("float32") for w in model.get_weights()])


def norms(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def test_yamnet_keeps_its_outputs_and_its_own_weights(rng: np.random.Generator) -> None:
    model = YAMNet(weights=None, classes=5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    before = model.get_weights()
    sound = rng.uniform(-1, 1, (2, 16_000)).astype("float32")
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(folded(sound), model(sound), atol=1e-5)
    assert not norms(folded)
    assert len(norms(model)) == 27
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert folded.get_layer("layer3_pointwise_conv_relu").output.shape[-1] == 128


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(3, 3, use_bias=True),
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.Dense(5, use_bias=True),
    ],
    ids=["conv with bias", "depth multiplier", "dense"],
)
@pytest.mark.parametrize("parts", [(True, True), (True, False), (False, True)], ids=str)
def test_each_kind_of_layer_and_norm(layer: layers.Layer, parts: tuple[bool, bool], rng: np.random.Generator) -> None:
    scale, center = parts
    inputs = keras.Input((8, 8, 4))
    clone = type(layer).from_config(layer.get_config())
    model = keras.Model(inputs, layers.BatchNormalization(scale=scale, center=center)(clone(inputs)))
    shuffle_weights(model, rng)
    x = rng.normal(size=(2, 8, 8, 4)).astype("float32")
    folded = fold_batch_norm(model)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert not norms(folded)


@pytest.mark.parametrize("case", ["read twice", "activation between", "an output", "first"])
def test_what_cannot_be_folded_stays(case: str, rng: np.random.Generator) -> None:
    inputs = keras.Input((6, 6, 2))
    conv = layers.Conv2D(2, 1, activation="relu" if case == "activation between" else None)(inputs)
    norm = layers.BatchNormalization(name="norm")(inputs if case == "first" else conv)
    outputs = {"read twice": layers.Add()([conv, norm]), "an output": [norm, conv]}.get(case, norm)
    model = keras.Model(inputs, outputs)
    shuffle_weights(model, rng)
    x = rng.normal(size=(3, 6, 6, 2)).astype("float32")
    folded = fold_batch_norm(model)
    assert norms(folded) == ["norm"]
    for ours, theirs in zip(keras.tree.flatten(folded(x)), keras.tree.flatten(model(x)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_only_functional_models() -> None:
    with pytest.raises(ValueError, match="functional"):
        fold_batch_norm(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
