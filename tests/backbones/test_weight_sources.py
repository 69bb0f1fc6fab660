"""The chain of places for published weights: each step fails in each way, the next is asked, all reasons are given."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.servers import (
    Answer,
    Server,
    hangs,
    isolate,
    redirects,
    sends,
    serving,
    tar_gz,
    tar_of,
    zip_of,
)
from tfaudiotl import _download
from tfaudiotl.backbones import weight_sources
from tfaudiotl.backbones.weight_sources import (
    Found,
    Published,
    by_hand,
    first_that_fits,
    handle_sources,
    published_sources,
)
from tfaudiotl.errors import WeightsError

ORIGINAL = b"the authors' file"
NET = Published(
    tfhub="google/net/1",
    kaggle="google/net/tensorFlow2/net/1",
    original="net.h5",
    sha256=hashlib.sha256(ORIGINAL).hexdigest(),
)
TFHUB = "/tfhub/google/net/1?tf-hub-format=compressed"
KAGGLE = "/kaggle/api/v1/models/google/net/tensorFlow2/net/1/download"
AUTHORS = "/audioset/net.h5"
HTML = sends(b"<html>sign in</html>", Content_Type="text/html")
FAILURES: list[tuple[Answer, str]] = [
    (sends(b"", status=403), "HTTP 403"),
    (sends(b"", status=404), "HTTP 404"),
    (sends(b"", status=429, Retry_After="3600"), "HTTP 429"),
    (redirects("/gone"), "HTTP 404"),
    (HTML, "a web page"),
    (sends(ORIGINAL, length=1000), "cut off"),
    (hangs(), "nothing came"),
]
ARCHIVE_FAILURES: list[tuple[Answer, str]] = [
    (sends(tar_of("variables/variables.index", bytes(9999))[:60]), "cannot be unpacked"),
    (sends(tar_of("../../outside")), "cannot be unpacked"),
    (sends(zip_of("saved_model.pb", encrypted=True)), "encrypted"),
    (sends(tar_of("saved_model.pb")), "does not fit"),
]


def accept(path: Path) -> str:
    """Stands for reading the weights and checking them: a SavedModel's variables, or the authors' file."""
    if path.is_dir():
        if not (path / "variables" / "good").is_file():
            raise WeightsError("does not fit")
        return "folder"
    if path.read_bytes() != ORIGINAL:
        raise WeightsError("does not fit")
    return "file"


def search() -> tuple[Found, str]:
    return first_that_fits(published_sources(NET), accept, asked="weights='audioset'", advice=by_hand(NET))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "good").touch()
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> Iterator[Server]:
    """All three places up, all caches empty."""
    monkeypatch.setattr(_download, "READ", 0.5)
    with serving() as place:
        isolate(monkeypatch, tmp_path / "caches", servers=place.url)
        place.answers |= {TFHUB: sends(tar_gz(model)), KAGGLE: sends(tar_gz(model)), AUTHORS: sends(ORIGINAL)}
        yield place


def left_in_caches(folder: Path) -> list[str]:
    files = (path.relative_to(folder / "caches") for path in (folder / "caches").rglob("*") if path.is_file())
    return sorted(str(path) for path in files)


def test_tf_hub_first_then_its_cache(server: Server) -> None:
    found, kind = search()
    assert (found.name, kind) == ("TF Hub", "folder")
    assert found.path == weight_sources.tfhub_cache() / hashlib.sha1(b"https://tfhub.dev/google/net/1").hexdigest()
    again, _ = search()
    assert (again.name, again.path) == ("TF Hub's cache", found.path)
    assert server.requests == [TFHUB]


@pytest.mark.parametrize("answer", [answer for answer, _ in FAILURES + ARCHIVE_FAILURES])
def test_tf_hub_fails_and_kaggle_has_it(answer: Answer, server: Server, tmp_path: Path) -> None:
    server.answers[TFHUB] = answer
    found, _ = search()
    assert found.name == "Kaggle"
    assert left_in_caches(tmp_path) == [
        "kagglehub/models/google/net/tensorFlow2/net/1.complete",
        "kagglehub/models/google/net/tensorFlow2/net/1/variables/good",
    ]
    assert search()[0].name == "kagglehub's cache"


@pytest.mark.parametrize("answer", [answer for answer, _ in FAILURES + ARCHIVE_FAILURES])
def test_kaggle_fails_too_and_the_authors_have_it(answer: Answer, server: Server, tmp_path: Path) -> None:
    server.answers |= {TFHUB: HTML, KAGGLE: answer}
    found, kind = search()
    assert (found.name, kind) == ("AudioSet's authors", "file")
    assert left_in_caches(tmp_path) == ["own/net.h5"]
    assert search()[0].name == "tfaudiotl's cache"


@pytest.mark.parametrize(("answer", "message"), [*FAILURES, (sends(b"another file"), "SHA-256")])
@pytest.mark.parametrize(("archive", "reason"), [FAILURES[0], *ARCHIVE_FAILURES])
def test_all_fail_and_the_error_has_every_reason(
    answer: Answer, message: str, archive: Answer, reason: str, server: Server, tmp_path: Path
) -> None:
    server.answers |= {TFHUB: archive, KAGGLE: sends(b"", status=404), AUTHORS: answer}
    with pytest.raises(WeightsError) as caught:
        search()
    first, *lines, advice = str(caught.value).split("\n")
    assert first.startswith("weights='audioset': ")
    names = ["TF Hub's cache", "kagglehub's cache", "tfaudiotl's cache", "TF Hub", "Kaggle", "AudioSet's authors"]
    reasons = ["not there"] * 3 + [reason, "HTTP 404", message]
    for line, name, expected in zip(lines, names, reasons, strict=True):
        assert line.startswith(f"  {name} (")
        assert expected in line
    for word in (
        "https://storage.googleapis.com/audioset/net.h5",
        str(tmp_path / "caches" / "own" / "net.h5"),
        "https://www.kaggle.com/models/google/net",
        "--weights",
    ):
        assert word in advice
    assert left_in_caches(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "make", "message"),
    [
        ("tfhub/{sha1}", "folder", "does not fit; a damaged or foreign copy"),
        ("kagglehub/models/google/net/tensorFlow2/net/1", "folder", "1.complete is missing"),
        ("own/net.h5", "file", "its SHA-256 is"),
    ],
)
def test_a_damaged_copy_in_a_cache_is_passed_over_and_named(
    path: str, make: str, message: str, server: Server, tmp_path: Path
) -> None:
    copy = tmp_path / "caches" / path.format(sha1=hashlib.sha1(NET.handle.encode()).hexdigest())
    copy.parent.mkdir(parents=True)
    copy.mkdir() if make == "folder" else copy.write_bytes(b"cut")
    answers = dict(server.answers)
    server.answers.clear()
    with pytest.raises(WeightsError, match=message):
        search()
    assert copy.exists()  # nothing took its place
    for address, name in ((TFHUB, "TF Hub"), (KAGGLE, "Kaggle"), (AUTHORS, "AudioSet's authors")):
        server.answers = {address: answers[address]}
        assert search()[0].name == name
        for kept in (weight_sources.tfhub_cache(), weight_sources.kagglehub_cache(), weight_sources.own_cache()):
            for entry in kept.rglob("good"):
                entry.unlink()
            (kept / "net.h5").unlink(missing_ok=True)


def test_a_cache_that_cannot_be_written_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name in ("TFHUB_CACHE_DIR", "KAGGLEHUB_CACHE", "TFAUDIOTL_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match=r"(?s)TF Hub \(.*Not a directory.*authors \(.*Not a directory"):
        search()


@pytest.mark.parametrize("fails", [None, ImportError("broken"), RuntimeError("403\nForbidden"), OSError("no space")])
def test_kagglehub_is_asked_where_it_is_installed(
    fails: Exception | None,
    server: Server,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def model_download(handle: str) -> str:
        assert handle == NET.kaggle
        sys.stderr.write("100 %")
        if fails:
            raise fails
        return str(model)

    library = types.ModuleType("kagglehub")
    library.model_download = model_download  # type: ignore[attr-defined]
    library.__spec__ = types.SimpleNamespace(name="kagglehub")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "kagglehub", library)
    monkeypatch.delenv("TFAUDIOTL_KAGGLE_URL")
    monkeypatch.setattr(weight_sources, "KAGGLE", f"{server.url}/kaggle")
    server.answers.clear()
    if fails:
        reason = f"{type(fails).__name__}: {' '.join(str(fails).split())}"
        message = rf"(?s)Kaggle by kagglehub \({NET.kaggle}\): {reason}\n  Kaggle \(.*download\): HTTP 404"
        with pytest.raises(WeightsError, match=message):
            search()
    else:
        found, _ = search()
        assert (found.name, found.path) == ("Kaggle by kagglehub", model)
        assert KAGGLE not in server.requests
    assert capfd.readouterr() == ("", "")


def test_the_real_kagglehub_fetches_file_by_file(
    server: Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = pytest.importorskip("kagglesdk.kaggle_env")  # of kagglehub 1.0 and later
    pytest.importorskip("kagglehub")
    monkeypatch.setitem(environment._env_to_endpoint, environment.KaggleEnv.TEST, server.url)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials
    monkeypatch.delenv("TFAUDIOTL_KAGGLE_URL")
    server.answers.clear()
    service = "/api/v1/models.ModelApiService"
    server.answers[f"{service}/ListModelInstanceVersionFiles"] = sends(
        b'{"files": [{"name": "variables/good"}], "nextPageToken": ""}', Content_Type="application/json"
    )
    server.answers[f"{service}/DownloadModelInstanceVersion"] = sends(b"values")
    capfd.readouterr()
    found, _ = search()
    assert capfd.readouterr() == ("", "")
    assert found.name == "Kaggle by kagglehub"
    assert found.path == weight_sources.kagglehub_cache() / "models" / NET.kaggle
    assert (found.path / "variables" / "good").read_bytes() == b"values"
    assert server.posted[-1]["ownerSlug"] == "google"
    assert search()[0].name == "kagglehub's cache"


def test_default_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TFHUB_CACHE_DIR", "KAGGLEHUB_CACHE", "TFAUDIOTL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TFHUB", "KAGGLE", "AUDIOSET"):
        monkeypatch.delenv(f"TFAUDIOTL_{name}_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(weight_sources.importlib.util, "find_spec", lambda name: None)
    places = [source.place for source in published_sources(NET)]
    assert places[1:] == [
        str(tmp_path / ".cache/kagglehub/models/google/net/tensorFlow2/net/1"),
        str(tmp_path / ".cache/tfaudiotl/net.h5"),
        "https://tfhub.dev/google/net/1?tf-hub-format=compressed",
        "https://www.kaggle.com/api/v1/models/google/net/tensorFlow2/net/1/download",
        "https://storage.googleapis.com/audioset/net.h5",
    ]
    assert places[0].endswith(f"tfhub_modules/{hashlib.sha1(NET.handle.encode()).hexdigest()}")


def test_a_cache_in_cloud_storage_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/cache")
    assert weight_sources.tfhub_cache().name == "tfhub_modules"


def test_the_cache_of_tensorflow_hub_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tensorflow_hub.compressed_module_resolver import _module_dir

    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    assert str(handle_sources(NET.handle)[0].path) == _module_dir(NET.handle)


def test_the_cache_of_kagglehub_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache, handle = pytest.importorskip("kagglehub.cache"), pytest.importorskip("kagglehub.handle")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    parsed = handle.parse_model_handle(NET.kaggle)
    ours = weight_sources.kaggle_sources(NET.kaggle)[0]
    assert isinstance(ours, weight_sources.Cached)
    assert str(ours.path) == cache.get_cached_path(parsed)
    ours.path.mkdir(parents=True)
    assert ours.marker
    ours.marker.touch()
    assert cache.Cache().load_from_cache(parsed) == str(ours.path)


@pytest.mark.parametrize(
    ("handle", "place"),
    [
        ("https://tfhub.dev/a/b/1", "https://tfhub.dev/a/b/1?tf-hub-format=compressed"),
        ("https://example.org/b?x=1", "https://example.org/b?x=1&tf-hub-format=compressed"),
        ("https://www.kaggle.com/models/a/b/TensorFlow2/c/3", "/kaggle/api/v1/models/a/b/tensorFlow2/c/3/download"),
        ("https://kaggle.com/models/a/b/tensorFlow2/c/3", "/kaggle/api/v1/models/a/b/tensorFlow2/c/3/download"),
    ],
)
def test_handles(handle: str, place: str, server: Server) -> None:
    assert handle_sources(handle)[1].place == (server.url if place.startswith("/") else "") + place
