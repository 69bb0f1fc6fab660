"""The SavedModel's signature for encoded files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tests.helpers.sounds import sound
from tfaudiotl.classifiers.build import build_classifier
from tfaudiotl.export.savedmodel import export_saved_model


def wav(wave: np.ndarray, rate: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def test_wav_bytes_give_the_scores_of_their_sound(stand_in: Path, tmp_path: Path) -> None:
    model = build_classifier(class_names=("a", "b"), weights=str(stand_in), embedding="layer3")
    loaded = tf.saved_model.load(str(export_saved_model(model, tmp_path / "saved")))
    classify = loaded.signatures["classify_file_bytes"]
    rng = np.random.default_rng(1)
    waves = [sound("low", rng, seconds=1.0), sound("noise", rng, seconds=2.5)]
    found = classify(wav=tf.constant([wav(wave, 16_000) for wave in waves]))["scores"].numpy()
    # The network hears a tone's rounding to 16 bits in the empty bands: compare on what the files hold.
    held = [soundfile.read(io.BytesIO(wav(wave, 16_000)), dtype="float32")[0] for wave in waves]
    wanted = np.concatenate([model(wave[None]).numpy() for wave in held])
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    stereo = classify(wav=tf.constant([wav(np.stack([waves[0]] * 2, axis=1), 16_000)]))["scores"].numpy()
    np.testing.assert_allclose(stereo, found[:1], atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="16000 Hz"):
        classify(wav=tf.constant([wav(waves[0], 8_000)]))
