"""Files and folders are there whole or not at all, and only what is recognised as ours is removed."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from tfaudiotl import _files
from tfaudiotl._files import claim, file_digest, fingerprint, new_files, new_path, sha256, show_name, write_atomic
from tfaudiotl.audio.files import write_audio
from tfaudiotl.data.clips import Clips
from tfaudiotl.errors import ExportError
from tfaudiotl.evaluation.metrics import evaluate_scores
from tfaudiotl.evaluation.plots import save_figure
from tfaudiotl.evaluation.report import write_report
from tfaudiotl.runtime.events import Event, write_events


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail_from(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    """Makes os.``function`` fail at its ``call``-th call, from 1, and at no other; with 0 at every one."""
    real, calls = getattr(os, function), [0]

    def wrapped(*args: object, **named: object) -> object:
        calls[0] += 1
        if call in (0, calls[0]):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **named)

    monkeypatch.setattr(_files.os, function, wrapped)


@pytest.mark.parametrize(
    "content", ["Geräusch\n", "Geräusch\n".encode(), lambda file: file.write("Geräusch\n".encode())]
)
def test_write_atomic_replaces_as_a_whole(tmp_path: Path, content: str | bytes | Callable[..., object]) -> None:
    path = tmp_path / "report.md"
    assert write_atomic(path, "old\n") == path
    write_atomic(str(path), content)
    assert path.read_bytes() == "Geräusch\n".encode()
    assert names(tmp_path) == ["report.md"]


def test_write_atomic_honours_the_umask(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("x")
    write_atomic(tmp_path / "atomic", "x")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_name_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    assert write_atomic(path, "1\n").read_text() == "1\n"


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "report.md"
    write_atomic(path, "old")
    fail_from(monkeypatch, moment, 1)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.md"]


def test_a_name_that_is_no_utf8_is_shown_and_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    assert show_name(name) == "caf\N{REPLACEMENT CHARACTER}.wav"
    assert show_name("Geräusch \ud800") == "Geräusch \N{REPLACEMENT CHARACTER}"
    assert write_atomic(tmp_path / "a", name).read_text(encoding="utf-8") == show_name(name)


def write_folder(path: Path, content: str) -> None:
    with new_path(path, overwrite=True, folder=("one", "two")) as target:
        target.mkdir()
        (target / content).touch()


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("one", "two"):
        write_folder(tmp_path / "deep" / "saved", content)
    assert names(tmp_path / "deep") == ["saved"]
    assert names(tmp_path / "deep" / "saved") == ["two"]


@pytest.mark.parametrize("call", [1, 2], ids=["moving the old one away", "the last step"])
def test_the_old_folder_is_there_after_a_failed_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    write_folder(tmp_path / "saved", "one")
    fail_from(monkeypatch, "rename", call)
    with pytest.raises(ExportError, match="could not be written"):
        write_folder(tmp_path / "saved", "two")
    assert names(tmp_path) == ["saved"]
    assert names(tmp_path / "saved") == ["one"]


def test_an_old_folder_that_cannot_be_put_back_is_kept_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "saved", "one")
    real = os.rename

    def only_away(source: Path, target: Path) -> None:
        if "old-" not in str(target):
            raise OSError(errno.EIO, "no more")
        real(source, target)

    monkeypatch.setattr(_files.os, "rename", only_away)
    with pytest.raises(ExportError, match="no more"):
        write_folder(tmp_path / "saved", "two")
    assert [path.parent.name[:4] for path in tmp_path.glob("*/*/one")] == ["old-"]


@pytest.mark.parametrize("failure", [RuntimeError("halfway"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failing_block_leaves_what_was_there(tmp_path: Path, failure: BaseException, kind: str) -> None:
    path = tmp_path / "saved"
    if kind == "file":
        path.write_text("one")
    else:
        write_folder(path, "one")

    def fail_halfway() -> None:
        with new_path(path, overwrite=True, folder=() if kind == "file" else ("one",)) as target:
            target.write_text("half")
            raise failure

    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        fail_halfway()
    assert names(tmp_path) == ["saved"]
    assert path.read_text() == "one" if kind == "file" else names(path) == ["one"]


def test_a_block_that_writes_nothing_is_an_error_and_removes_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path / "saved", "one")
    with pytest.raises(ExportError), new_path(tmp_path / "saved", overwrite=True, folder=("one",)):
        pass
    assert names(tmp_path / "saved") == ["one"]


def content_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_results(folder: Path, text: str, names: tuple[str, ...] = ("a.csv", "b.md", "saved")) -> None:
    with new_files(folder) as work:
        for name in names:
            if name == "saved":
                (work / name).mkdir()
                (work / name / "saved_model.pb").write_text(text)
            else:
                write_atomic(work / name, text)


def test_files_that_belong_together(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    write_results(folder, "one", ("a.csv", "c.txt"))
    write_results(folder, "two")
    assert content_of(folder) == {"a.csv": "two", "b.md": "two", "c.txt": "one", "saved/saved_model.pb": "two"}
    write_results(folder, "three")
    assert content_of(folder) == {"a.csv": "three", "b.md": "three", "c.txt": "one", "saved/saved_model.pb": "three"}


@pytest.mark.parametrize(("function", "call"), [("replace", 4), ("replace", 5), ("replace", 6), ("rename", 1)])
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("there", [("a.csv", "b.md", "saved"), ("b.md",), ()])
def test_all_files_take_their_places_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, links: bool, there: tuple[str, ...]
) -> None:
    folder = tmp_path / "out"
    write_results(folder, "one", ("c.txt", *there))
    before = content_of(folder)
    if not links:
        fail_from(monkeypatch, "link", 0)
    # two replacements write the files themselves
    fail_from(monkeypatch, function, call - 1 if function == "replace" else call)
    if function == "rename" and "saved" not in there and (links or not there):
        write_results(folder, "two")  # nothing had to be moved away
        return
    with pytest.raises(OSError, match="No space"):
        write_results(folder, "two")
    assert content_of(folder) == before
    assert not list(folder.glob(".*"))


def test_a_failing_block_leaves_what_was_there_of_all(tmp_path: Path) -> None:
    write_results(tmp_path, "one")

    def fail_halfway() -> None:
        with new_files(tmp_path) as work:
            write_atomic(work / "a.csv", "two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert set(content_of(tmp_path).values()) == {"one"}
    (tmp_path / "saved" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"it holds thesis\.txt"):
        write_results(tmp_path, "two")
    assert set(content_of(tmp_path).values()) == {"one", "mine"}


def test_what_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    for name in ("one", "a.txt", "b.txt", "c.txt", "d.txt"):
        (thesis / name).touch()
    with pytest.raises(FileExistsError, match=r"it holds a\.txt, b\.txt, c\.txt and 1 more"):
        write_folder(thesis, "two")
    with pytest.raises(FileExistsError, match="is a folder"), new_path(thesis, overwrite=True):
        pass
    with pytest.raises(FileExistsError, match="overwrite=True"), new_path(thesis, overwrite=False, folder=("one",)):
        pass
    assert names(thesis) == ["a.txt", "b.txt", "c.txt", "d.txt", "one"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", "one")
    (tmp_path / "saved").symlink_to(tmp_path / "real")
    write_folder(tmp_path / "saved", "two")
    assert names(tmp_path / "real") == ["one"]
    assert names(tmp_path / "saved") == ["two"]


def test_a_place_that_cannot_be_written_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written"), new_path(tmp_path / "file" / "x", overwrite=False):
        pass


def test_a_claimed_folder_loses_only_what_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "cache"

    def take(content: str) -> bool:
        return claim(folder, "cache.json", {"of": content}, ours=r"shard-\d{5}|unfinished")

    assert not take("a")
    for name in ("shard-00000", "shard-00001.bak", "unfinished"):
        (folder / name).mkdir()
    assert take("a")
    assert names(folder) == ["cache.json", "shard-00000", "shard-00001.bak", "unfinished"]
    assert not take("b")
    assert names(folder) == ["cache.json", "shard-00001.bak"]
    assert take("b")


def test_a_folder_of_somebody_else_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "shard-00000").mkdir()
    with pytest.raises(FileExistsError, match=r"holds shard-00000 and no cache\.json"):
        claim(tmp_path, "cache.json", {"of": "a"}, ours=r"shard-\d{5}")
    assert names(tmp_path) == ["shard-00000"]


def test_a_refused_folder_is_left_as_it_is(tmp_path: Path) -> None:
    def take(**settings: object) -> bool:
        return claim(tmp_path, "work.json", settings, refuse=lambda changed: ValueError("; ".join(changed)))

    (tmp_path / "thesis.txt").write_text("years of work")
    assert not take(seed=1, rates=(1, 2))
    assert take(seed=1, rates=[1, 2])
    before = (tmp_path / "work.json").read_bytes()
    with pytest.raises(ValueError, match=r"^seed: 1 then, 2 now$"):
        take(seed=2, rates=[1, 2])
    assert (tmp_path / "work.json").read_bytes() == before
    assert names(tmp_path) == ["thesis.txt", "work.json"]
    (tmp_path / "work.json").write_text("{")
    with pytest.raises(ValueError, match="content: 'damaged' then, None now"):
        take(seed=1)


def test_a_claim_that_was_cut_short_is_taken_up_as_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path, "cache.json", {"of": "a"}, ours=r"shard-\d{5}")
    (tmp_path / "shard-00000").mkdir()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_files, "remove_ours", interrupted)
        with pytest.raises(KeyboardInterrupt):
            claim(tmp_path, "cache.json", {"of": "b"}, ours=r"shard-\d{5}")
    for content in ("a", "b"):
        assert not claim(tmp_path, "cache.json", {"of": content}, ours=r"shard-\d{5}")
    assert names(tmp_path) == ["cache.json"]


def test_digests(tmp_path: Path) -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-2
    assert sha256("abc") == sha256(b"abc") == known
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == known
    assert fingerprint(a="x", b="y z") != fingerprint(a="x y", b="z")
    assert fingerprint(a=1, b=[2.5, None]) == fingerprint(b=(2.5, None), a=1)
    with pytest.raises(TypeError):
        fingerprint(a=object())


def test_neither_numpy_nor_tensorflow_is_needed() -> None:
    code = "import sys, tfaudiotl._files; assert not {'numpy', 'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def clips(labels: list[str]) -> Clips:
    file = Path(__file__).parent / "sound.wav"
    table = Clips.from_arrays([np.zeros(160)] * len(labels), labels, sample_rate=16_000)
    return replace(table, paths=(str(file),) * len(labels), _waveforms=None)


def figure(title: str) -> Figure:
    drawn = Figure()
    drawn.suptitle(title)
    return drawn


WRITERS: dict[str, Callable[[Path, str], object]] = {
    "sound.wav": lambda path, content: write_audio(path, np.full(160, len(content) / 10)),
    "clips.json": lambda path, content: clips(list(content)).save(path),
    "picture.png": lambda path, content: save_figure(figure(content), path),
    "events.csv": lambda path, content: write_events(path, [Event(0, 1, content, 0.5)]),
    "report.md": lambda path, content: write_report(
        path.parent, title=content, evaluation=evaluate_scores(np.eye(2), np.eye(2), class_names=["a", "b"])
    ),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_every_writer_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: str
) -> None:
    write = WRITERS[name]
    write(tmp_path / name, "old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if function == "fsync" and name == "sound.wav":
        monkeypatch.setattr(soundfile.SoundFile, "write", lambda *_: (_ for _ in ()).throw(OSError("No space")))
    else:
        fail_from(monkeypatch, function, 1)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / name, "newer")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(tmp_path / name, "newer")
    assert (tmp_path / name).read_bytes() != before[name]
