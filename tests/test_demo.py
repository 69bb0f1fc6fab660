"""The demo: its noise is what it says, and five clips of each colour are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfaudiotl.demo import COLOURS, SAMPLES, noise, run_demo


def test_clips_of_noise_are_scaled_to_their_peak(rng: np.random.Generator) -> None:
    for colour in COLOURS:
        wave = noise(colour, rng)
        assert (wave.shape, wave.dtype, np.abs(wave).max()) == ((SAMPLES,), np.float32, 1)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(tmp_path / "demo", seed=1, echo=said.append)
    assert (result.accuracy, result.clips, result.agreement) == (1.0, 285, 1.0)
    text = "\n".join(said)
    assert "Validation accuracy 1.0000 on 285 clips" in text
    assert "agree on 300 of 300 clips" in text
    for colour in COLOURS:
        assert f"hears {colour} in a clip of {colour} noise" in text
        assert len(list((tmp_path / "demo" / "sounds" / colour).iterdir())) == 100
    for name in ("spectrograms.png", "classifier/model.tflite", "classifier/report/report.md"):
        assert (tmp_path / "demo" / name).stat().st_size
    assert SAMPLES == 15_680
    with pytest.raises(FileExistsError, match="overwrite=True"):
        run_demo(tmp_path / "demo")
