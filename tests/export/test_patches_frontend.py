"""A model of patches keeps the numbers of its front-end; where they are not known it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pytest

from tests.helpers.sounds import sound
from tfaudiotl.backbones.vggish import FRONTEND
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.errors import ExportError, WeightsError
from tfaudiotl.export.savedmodel import export_saved_model
from tfaudiotl.export.tflite import export_tflite
from tfaudiotl.runtime.load import open_artifact
from tfaudiotl.runtime.predictor import Predictor
from tfaudiotl.tflite.metadata import read_metadata


def vggish(input: Literal["waveform", "patches"]) -> keras.Model:
    return build_classifier(
        "vggish", class_names=["a", "b"], weights=None, embedding="conv1", input=input, hidden=(), seed=1
    )


def test_patches_of_vggish_are_made_by_its_own_front_end(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)  # some networks drawn at random do not bear 8 bits
    waveforms, patches = vggish("waveform"), vggish("patches")
    patches.set_weights(waveforms.get_weights())
    patches.get_layer("head_logits").kernel.assign(50 * np.asarray(patches.get_layer("head_logits").kernel))
    waveforms.set_weights(patches.get_weights())
    rng = np.random.default_rng(1)
    wave = 0.02 * np.concatenate([sound("low", rng), sound("noise", rng, seconds=2.0)])
    wanted = Predictor(waveforms).scores(wave, sample_rate=16_000)
    patches.save(tmp_path / "p.keras")
    calibrate = [sound(kind, rng, seconds=3.0) for kind in ("high", "low", "noise") for _ in range(4)]
    files = {
        "model": patches,
        "keras": tmp_path / "p.keras",
        "saved": export_saved_model(patches, tmp_path / "saved"),
        "of patches": export_tflite(patches, tmp_path / "a.tflite"),
        "as patches": export_tflite(waveforms, tmp_path / "b.tflite", input="patches"),
    }
    for name, file in files.items():
        found = Predictor(file).scores(wave, sample_rate=16_000)
        np.testing.assert_allclose(found, wanted, atol=1e-3, err_msg=name)
    told = read_metadata((tmp_path / "a.tflite").read_bytes())
    assert told is not None
    assert (told.settings["frontend"]["log_offset"], told.settings["frontend"]["patch_hop"]) == (0.01, 96)
    small = export_tflite(patches, tmp_path / "c.tflite", quantize="int8", calibrate=calibrate)
    np.testing.assert_allclose(Predictor(small).scores(wave, sample_rate=16_000), wanted, atol=0.1)
    assert open_artifact(small).grid == FRONTEND


def test_an_unknown_front_end_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((96, 64))
    from tfaudiotl.backbones.scores import ClassScores

    flat = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, ClassScores("softmax", class_names=("a", "b"))(flat))
    with pytest.raises(WeightsError, match="does not say which front-end"):
        Predictor(model)
    with pytest.raises(ExportError, match="does not say which front-end"):
        export_tflite(model, tmp_path / "m.tflite")
    with pytest.raises(ExportError, match="does not say which front-end"):
        export_saved_model(model, tmp_path / "saved")
    assert not list(tmp_path.iterdir())
