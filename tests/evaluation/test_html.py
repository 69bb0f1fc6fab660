"""The page: everything inside, nothing of it live, and shown by a real browser without a complaint."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.helpers.reports import evaluation, history
from tests.helpers.sounds import sound
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.plots import reliability_figure, spectrogram_figure
from tfaudiotl.evaluation.report import write_report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(12):
        path = tmp_path / f"{number}<script>alert(1)</script>.wav".replace("/", "-")
        soundfile.write(path, sound("low" if number % 2 else "noise", rng), 16_000)
        paths.append(str(path))
    labels = np.arange(12) % 3
    scores = rng.dirichlet(np.ones(3), 12)
    found = evaluate_scores(scores, np.eye(3)[labels], class_names=["low", "<b>noise</b>", "x"], names=paths)
    write_report(tmp_path / "report", found, title="A & B", histories={"train": history(4)})
    return tmp_path / "report" / "report.html"


def test_everything_is_inside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = _Links()
    links.feed(text)
    assert links.found
    assert all(link.startswith("data:") for link in links.found)
    assert "script" not in links.tags  # names are text
    assert "b" not in re.findall(r"<td>.*?<(\w)", text)
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == ["Summary", "Per class", "Confusion matrix", "Calibration", "Training curves", "Worst mistakes"]
    assert links.tags.count("audio") == min(10, len(re.findall(r"truly <b>", text)))
    encoded = re.search(r"data:audio/wav;base64,([^\"]+)", text)
    assert encoded
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded[1])))
    assert rate == 16_000
    assert 0.1 < np.abs(samples).max() <= 1


def test_sounds_may_come_from_elsewhere_or_be_missing(tmp_path: Path) -> None:
    found = evaluation(3)
    write_report(tmp_path / "without", found, title="t")  # its names are no files
    assert "<audio" not in (tmp_path / "without" / "report.html").read_text(encoding="utf-8")
    tone = np.sin(np.arange(8_000) / 5).astype(np.float32)
    write_report(tmp_path / "with", found, title="t", sound=lambda row: (tone, 8_000))
    assert (tmp_path / "with" / "report.html").read_text(encoding="utf-8").count("<audio") == min(
        10, len(found.errors(10))
    )


def test_figures_of_little_data() -> None:
    from tfaudiotl.evaluation.measures import calibration

    reliability_figure(calibration(evaluation(3)))
    for samples in (1, 100, 16_000):
        (axes,) = spectrogram_figure(np.zeros(samples, np.float32), 16_000).axes
        assert axes.images[0].get_clim() == (-220, -140)  # silence lies under the scale


def test_spectrograms_are_drawn_from_their_loudest_point_down() -> None:
    tone = np.sin(2 * np.pi * 2_000 * np.arange(16_000) / 16_000)
    for loudness in (1.0, 1e-3):
        (axes,) = spectrogram_figure(loudness * tone, 16_000).axes
        low, high = axes.images[0].get_clim()
        assert high - low == pytest.approx(80)
        picture = np.asarray(axes.images[0].get_array())
        assert picture.max() == pytest.approx(high)
        bottom, top = axes.images[0].get_extent()[2:]
        hertz = np.linspace(top, bottom, len(picture))  # the first row of the array is at the top
        assert hertz[picture.max(axis=1).argmax()] == pytest.approx(2_000, abs=32)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_real_browser_shows_it(page: Path, tmp_path: Path) -> None:
    assert CHROMIUM
    picture, log = tmp_path / "page.png", tmp_path / "net.json"
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--no-first-run", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", f"--screenshot={picture}",
            "--window-size=1000,6000", "--virtual-time-budget=5000", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    asked = set(re.findall(r'"url":"((?:https?|wss?)://[^"]+)"', log.read_text(encoding="utf-8", errors="replace")))
    ours = {url for url in asked if not re.search(r"google|gstatic|gvt1|chromium", url)}  # the browser's own
    assert not ours
    pixels = _pixels(picture)
    coloured = (pixels.max(axis=2) - pixels.min(axis=2)) > 0.2
    assert coloured.any(axis=1).mean() > 0.15  # plots and spectrograms down the page


def _pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(path))[..., :3]
