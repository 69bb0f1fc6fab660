"""The report as one page that needs nothing else: pictures, sounds and style are inside."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from markdown_it import MarkdownIt

from tfaudiotl._files import write_atomic
from tfaudiotl.errors import AudioError
from tfaudiotl.evaluation.metrics import Evaluation, Mistake
from tfaudiotl.evaluation.plots import figure_bytes, spectrogram_figure

Sound = Callable[[int], tuple[np.ndarray, int]]  # a clip's row -> its waveform and rate

LISTEN = 10  # mistakes with a player
LISTEN_SECONDS = 10.0  # of each: 320 kB at 16 kHz

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #eee; text-align: left; } th { border-color: #999; }
img { max-width: 100%; height: auto; } audio { width: 100%; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1.5rem; }
.sounds p { margin: 0.2rem 0; overflow-wrap: anywhere; }
"""


def write_html(path: Path, *, title: str, markdown: str, evaluation: Evaluation, sound: Sound | None = None) -> Path:
    """Writes the Markdown report as a page, its pictures (beside ``path``) and the worst mistakes' sounds inside.

    Args:
        path: the file to write, in the report's folder.
        title: of the page.
        markdown: the report.
        evaluation: whose worst mistakes to play.
        sound: gives a clip's waveform and rate by its row; None: from the files that the clips are named after.

    Returns:
        ``path``.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'src="([^":]+\.png)"', lambda match: f'src="{_data(path.parent / match[1])}"', body)
    body = re.sub(r'<a href="([^":]+)">([^<]*)</a>', r"\2", body)  # files beside the page may stay behind
    players = _players(evaluation, sound or _from_names(evaluation.names))
    heading = re.search(r"<h2>Worst mistakes</h2>", body)
    if players and heading:
        body = f"{body[: heading.end()]}\n{players}{body[heading.end() :]}"
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(" ".join(title.split()))}</title>\n<style>{_STYLE}</style>\n'
        f"</head>\n<body>\n{body}</body>\n</html>\n"
    )
    return write_atomic(path, page)


def _players(evaluation: Evaluation, sound: Sound) -> str:
    items = []
    for mistake in evaluation.errors(LISTEN):
        try:
            waveform, rate = sound(mistake.index)
        except (AudioError, OSError, LookupError):
            continue  # the table names it
        items.append(_player(mistake, np.asarray(waveform, np.float32)[: round(LISTEN_SECONDS * rate)], rate))
    return f'<div class="sounds">\n{"".join(items)}</div>\n' if items else ""


def _player(mistake: Mistake, waveform: np.ndarray, rate: int) -> str:
    picture = base64.b64encode(figure_bytes(spectrogram_figure(waveform, rate), dpi=80)).decode()
    name = escape(Path(mistake.name).name or f"clip {mistake.index}")
    return (
        f'<div><img alt="spectrogram of {name}" src="data:image/png;base64,{picture}">\n'
        f'<audio controls preload="none" src="data:audio/wav;base64,{_wav(waveform, rate)}"></audio>\n'
        f"<p><b>{escape(mistake.predicted_label)}</b> ({mistake.score:.3f}), "
        f"truly <b>{escape(mistake.true_label)}</b></p>\n"
        f"<p>{name}</p></div>\n"
    )


def _wav(waveform: np.ndarray, rate: int) -> str:
    import soundfile

    content = io.BytesIO()
    soundfile.write(content, np.clip(waveform, -1, 1), rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(content.getvalue()).decode()


def _from_names(names: Sequence[str]) -> Sound:
    def load(row: int) -> tuple[np.ndarray, int]:
        from tfaudiotl.audio.files import load_audio
        from tfaudiotl.audio.waveform import SAMPLE_RATE

        return load_audio(names[row], sample_rate=SAMPLE_RATE), SAMPLE_RATE

    return load


def _data(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
