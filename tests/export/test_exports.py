"""Exports: the same numbers without this package, built-in operators only, and old files that stay whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfaudiotl.audio.files import load_audio
from tfaudiotl.backbones.scores import ClassScores, class_names_of
from tfaudiotl.backbones.yamnet import YAMNet
from tfaudiotl.classifiers.anatomy import parts
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import ExportError, WeightsError
from tfaudiotl.export.check import Reference, checks_table, verify_export
from tfaudiotl.export.prepare import float_graph
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import Quantize, export_tflite
from tfaudiotl.runtime.load import Artifact, open_artifact

CLASSES = ["dog", "rain", "sea waves"]
WINDOW = 15_600

# Runs in a process that cannot import tfaudiotl or Keras.
BARE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfaudiotl", {refused}):
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Refuse())
import numpy as np
waveforms = np.load({waveforms!r})
{run}
np.save({scores!r}, scores)
"""
RUN_SAVED_MODEL = """
import tensorflow as tf
loaded = tf.saved_model.load({path!r})
assert open(loaded.labels.asset_path.numpy()).read().splitlines() == ["dog", "rain", "sea waves"]
scores = loaded.signatures["serving_default"](waveform=tf.constant(waveforms))["scores"].numpy()
"""
RUN_TFLITE = """
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter({path!r}).get_signature_runner("serving_default")
scores = np.concatenate([runner(waveform=w[None, :15600])["scores"] for w in waveforms])
"""


@pytest.fixture(scope="module")
def model(stand_in: Path) -> keras.Model:
    return build_classifier("yamnet", class_names=CLASSES, weights=str(stand_in), embedding="layer6", hidden=(16,))


@pytest.fixture(scope="module")
def waveforms() -> np.ndarray:
    time, rng = np.arange(40_000) / 16_000, np.random.default_rng(0)
    # Beside a pure tone, empty mel bands show the Fourier transform's rounding, and random weights amplify
    # it; a little noise covers it, as in any recording. The test with real weights has pure tones too.
    tones = [np.sin(2 * np.pi * pitch * time) + rng.normal(0, 0.01, 40_000) for pitch in (100, 440, 3_000)]
    return np.stack([*tones, rng.uniform(-1, 1, 40_000), np.zeros(40_000)]).astype(np.float32)


def run_bare(run: str, refused: str, waveforms: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "in.npy", waveforms)
    names = {"waveforms": str(folder / "in.npy"), "scores": str(folder / "out.npy")}
    subprocess.run([sys.executable, "-c", BARE.format(run=run, refused=refused, **names)], check=True, cwd=folder)
    return np.asarray(np.load(folder / "out.npy"))


def test_saved_model_runs_without_this_package(model: keras.Model, waveforms: np.ndarray, tmp_path: Path) -> None:
    path = export_saved_model(model, tmp_path / "saved")
    found = run_bare(RUN_SAVED_MODEL.format(path=str(path)), "", waveforms, tmp_path)
    np.testing.assert_allclose(found, model(waveforms), atol=1e-4)


def test_saved_model_embeds(model: keras.Model, waveforms: np.ndarray, tmp_path: Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(export_saved_model(model, tmp_path / "saved")))
    embedding = loaded.signatures["embed"](waveform=tf.constant(waveforms))["embedding"]
    assert embedding.shape == (5, 256)
    np.testing.assert_allclose(embedding, parts(model).clip_embedding(waveforms), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("quantize", "atol"), [(None, 1e-4), ("float16", 0.1)])
def test_tflite_runs_without_this_package_and_tensorflow(
    quantize: Quantize | None, atol: float, model: keras.Model, waveforms: np.ndarray, tmp_path: Path
) -> None:
    path = export_tflite(model, tmp_path / "model.tflite", quantize=quantize)
    found = run_bare(RUN_TFLITE.format(path=str(path)), '"tensorflow", "keras"', waveforms, tmp_path)
    np.testing.assert_allclose(found, model(waveforms[:, :WINDOW]), atol=atol)


def test_tflite_of_the_real_network_on_real_sound(shared: Path, hub_yamnet: str, tmp_path: Path) -> None:
    model = YAMNet(weights=hub_yamnet, patch_pooling="avg")
    time = np.arange(WINDOW) / 16_000
    paths = [shared / "reference" / "miaow_16k.wav", *sorted((shared / "data" / "esc10").glob("*/1-*.ogg"))[::6]]
    clips = [*(np.sin(2 * np.pi * pitch * time) for pitch in (100, 440, 3_000)), *map(load_audio, paths)]
    waveforms = np.stack([clip[:WINDOW] for clip in clips]).astype(np.float32)
    expected = model(waveforms)
    schemes: dict[Quantize | None, float] = {None: 1e-4, "float16": 5e-2}
    for quantize, atol in schemes.items():
        path = export_tflite(model, tmp_path / "model.tflite", quantize=quantize, overwrite=True)
        exported = open_artifact(path, class_names=class_names_of(model))
        scores = exported.scores(waveforms)
        np.testing.assert_allclose(scores[3:], expected[3:], atol=atol)
        # Beside a pure tone, empty mel bands show how the two Fourier transforms round: see docs/decisions.md.
        np.testing.assert_allclose(scores[:3], expected[:3], atol=max(1e-3, atol))


def test_tflite_has_built_in_operators_only(model: keras.Model, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(export_tflite(model, tmp_path / "model.tflite")))
    interpreter.allocate_tensors()
    operators = {details["op_name"] for details in interpreter._get_ops_details()}
    assert "CONV_2D" in operators
    assert not {name for name in operators if name.startswith(("Flex", "CUSTOM"))}


def test_float16_is_half_the_size(model: keras.Model, tmp_path: Path) -> None:
    whole = export_tflite(model, tmp_path / "a.tflite").stat().st_size
    assert export_tflite(model, tmp_path / "b.tflite", quantize="float16").stat().st_size <= 0.5 * whole


def test_tflite_windows_are_the_models_or_as_asked(stand_in: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"class_names": CLASSES, "weights": str(stand_in), "embedding": "layer2"}
    fixed = build_classifier("yamnet", samples=32_000, **options)
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    assert open_artifact(export_tflite(fixed, tmp_path / "fixed.tflite")).samples == 32_000
    loose = build_classifier("yamnet", **options)
    assert open_artifact(export_tflite(loose, tmp_path / "two.tflite", samples=23_280)).samples == 23_280
    with pytest.raises(ValueError, match="samples=16000: the model was built"):
        export_tflite(fixed, tmp_path / "x.tflite", samples=16_000)
    with pytest.raises(ValueError, match="samples=-1"):
        export_tflite(loose, tmp_path / "x.tflite", samples=-1)
    with pytest.raises(ValueError, match="quantize='int4'"):
        export_tflite(loose, tmp_path / "x.tflite", quantize="int4")  # type: ignore[arg-type]


def test_every_file_opens_again_as_the_same_classifier(
    model: keras.Model, waveforms: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    labels = [CLASSES[row] for row in (0, 1, 2, 0, 1)]
    clips = Clips.from_arrays(list(waveforms), labels, sample_rate=16_000, class_names=CLASSES)
    reference = Reference(open_artifact(model), clips)
    paths = [
        tmp_path / "model.keras",
        export_saved_model(model, tmp_path / "saved"),
        export_tflite(model, tmp_path / "model.tflite"),
    ]
    checks = [verify_export(reference, open_artifact(path)) for path in paths]
    for check, kind in zip(checks, ("keras", "saved_model", "tflite"), strict=True):
        assert (check.kind, check.agreement) == (kind, 1.0)
        assert check.max_difference < 1e-4
        assert check.accuracy == check.keras_accuracy
        assert check.bytes > 1e5
    assert [check.windows for check in checks] == [5, 5, 21]  # four of 2.5 s (five patches each) and one of silence
    assert checks_table(checks).count("\n") == 4


def artifact(scores: list[float], names: tuple[str, ...] = ("a", "b")) -> Artifact:
    row = np.array(scores, np.float32)
    return Artifact("file.tflite", "tflite", names, 10, 16_000, lambda x: np.tile(row, (len(x), 1)))


def test_a_file_that_disagrees_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(b"x")
    clips = [np.ones(10, np.float32)] * 4
    reference = Reference(artifact([0.9, 0.1]), clips)
    other = artifact([0.2, 0.8])
    with pytest.raises(ExportError, match=r"agreement .* is 0.0000 on 4 windows, .*differ most: waveform 0"):
        verify_export(reference, Artifact(**{**vars(other), "path": str(path)}))
    with pytest.raises(ExportError, match="not finite"):
        verify_export(reference, artifact([float("nan"), 0.5]))
    with pytest.raises(ExportError, match="class names differ"):
        verify_export(reference, artifact([0.9, 0.1], ("a", "c")))
    with pytest.raises(ValueError, match="verify is empty"):
        Reference(artifact([0.9, 0.1]), [])


def test_existing_files_need_overwrite_and_folders_of_others_stay(tmp_path: Path, model: keras.Model) -> None:
    path = tmp_path / "model.tflite"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_tflite(model, path)
    assert path.read_text() == "precious"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with pytest.raises(FileExistsError, match="is a folder"):
        export_tflite(model, tmp_path / "thesis", overwrite=True)
    with pytest.raises(FileExistsError, match=r"it holds chapter\.txt"):
        export_saved_model(model, tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_what_cannot_be_opened_says_why(tmp_path: Path, model: keras.Model) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        open_artifact(tmp_path / "missing.keras")
    (tmp_path / "broken.keras").write_text("hello")
    with pytest.raises(WeightsError, match=r"damaged, cut off or no \.keras file"):
        open_artifact(tmp_path / "broken.keras")
    (tmp_path / "broken.tflite").write_text("hello")
    with pytest.raises(WeightsError, match=r"cannot be loaded as a \.tflite file"):
        open_artifact(tmp_path / "broken.tflite")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no SavedModel"):
        open_artifact(tmp_path / "empty")
    export_tflite(model, tmp_path / "model.tflite")
    assert open_artifact(tmp_path / "model.tflite").class_names == tuple(CLASSES)  # from its metadata
    (tmp_path / "model.tflite").write_bytes(float_graph(model).content)
    with pytest.raises(WeightsError, match=r"no class names: looked for .*model.txt, .*labels.txt"):
        open_artifact(tmp_path / "model.tflite")
    with pytest.raises(WeightsError, match="2 class names for 3 outputs"):
        open_artifact(tmp_path / "model.tflite", class_names=["a", "b"])


def test_a_model_without_class_names_says_so() -> None:
    inputs = keras.Input((10,))
    nameless = keras.Model(inputs, ClassScores()(keras.layers.Dense(2)(inputs)))
    with pytest.raises(ValueError, match="carries no class names"):
        open_artifact(nameless)
