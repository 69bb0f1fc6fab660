"""Where published weights are: caches, TF Hub, Kaggle, the authors' storage; asked in turn until one fits.

Needs no TensorFlow: whether what was found fits is for the caller to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tfaudiotl._download import fetch, unpack
from tfaudiotl._files import file_digest, replace
from tfaudiotl.errors import WeightsError

TFHUB = "https://tfhub.dev"
KAGGLE = "https://www.kaggle.com"
AUDIOSET = "https://storage.googleapis.com/audioset"
# Environment variables with the address of a mirror, each for the one above.
TFHUB_MIRROR, KAGGLE_MIRROR, AUDIOSET_MIRROR = (f"TFAUDIOTL_{name}_URL" for name in ("TFHUB", "KAGGLE", "AUDIOSET"))
CACHE = "TFAUDIOTL_CACHE_DIR"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Published:
    """Where one network's weights were published.

    Attributes:
        tfhub: name of the module on TF Hub, "google/yamnet/1".
        kaggle: the same on Kaggle, "google/yamnet/tensorFlow2/yamnet/1".
        original: name of the file of AudioSet's authors.
        sha256: of that file, which has no checksums of its own.
    """

    tfhub: str
    kaggle: str
    original: str
    sha256: str

    @property
    def handle(self) -> str:
        """TF Hub's handle."""
        return f"{TFHUB}/{self.tfhub}"


@dataclass(frozen=True)
class Found:
    """Weights that were found.

    Attributes:
        name: of who had them.
        place: the path or address that was asked.
        path: the file or folder on this machine.
    """

    name: str
    place: str
    path: Path


@dataclass(frozen=True)
class Source(ABC):
    """One place to ask.

    Attributes:
        name: as errors and descriptions write it.
        path: where the weights lie on this machine, or will lie once they are fetched.
    """

    name: str
    path: Path

    @property
    def place(self) -> str:
        """The path or address that is asked."""
        return str(self.path)

    @abstractmethod
    def open(self) -> contextlib.AbstractContextManager[Path]:
        """The file or folder; what was fetched is kept if the block ends without an error.

        Raises:
            WeightsError: it cannot be had here.
            OSError: it cannot be read or kept.
        """


@dataclass(frozen=True)
class Cached(Source):
    """What an earlier download left.

    Attributes:
        marker: a file which says that the download was finished.
        sha256: what the file must have.
    """

    marker: Path | None = None
    sha256: str | None = None

    @contextmanager
    def open(self) -> Iterator[Path]:
        if not self.path.exists():
            raise WeightsError("not there")
        if self.marker and not self.marker.exists():
            raise WeightsError(f"an unfinished download: {self.marker.name} is missing")
        try:
            if self.sha256 and (found := file_digest(self.path)) != self.sha256:
                raise WeightsError(f"its SHA-256 is {found}, expected {self.sha256}")
            yield self.path
        except WeightsError as error:
            raise WeightsError(f"{error}; a damaged or foreign copy, which can be deleted") from error


@dataclass(frozen=True)
class Download(Source):
    """An address; ``archive``: it answers with an archive, of which the folder is kept."""

    url: str = ""
    sha256: str | None = None
    archive: bool = False
    marker: Path | None = None

    @property
    def place(self) -> str:
        return self.url

    @contextmanager
    def open(self) -> Iterator[Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # In the cache itself, so that the move to its place is one step.
        with tempfile.TemporaryDirectory(prefix=".tfaudiotl-", dir=self.path.parent) as name:
            work = Path(name)
            work.chmod(0o755)
            found = work / self.path.name
            if self.archive:
                fetch(self.url, work / "archive", sha256=self.sha256)
                found = unpack(work / "archive", found)
            else:
                fetch(self.url, found, sha256=self.sha256)
            yield found
            replace(found, self.path, aside=work / "old")
            if self.marker:
                self.marker.touch()


@dataclass(frozen=True)
class KaggleHub(Source):
    """Kaggle by its own library, which knows credentials and the caches of Kaggle's and Colab's notebooks."""

    handle: str = ""

    @property
    def place(self) -> str:
        return self.handle

    @contextmanager
    def open(self) -> Iterator[Path]:
        try:
            import kagglehub

            with _silenced("kagglehub"):
                path = Path(kagglehub.model_download(self.handle))
        except Exception as error:  # whatever its transport raises
            raise WeightsError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
        try:
            yield path
        except WeightsError as error:
            raise WeightsError(f"{error}; the copy in {path} can be deleted") from error


@contextmanager
def _silenced(library: str) -> Iterator[None]:
    """Holds back what a library logs, the progress it draws and the notes on its version that it prints."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def tfhub_cache() -> Path:
    """Folder of tensorflow_hub's cache, by its own rule; its default where that is in cloud storage."""
    given = os.environ.get("TFHUB_CACHE_DIR", "")
    return Path(given).expanduser() if given and "://" not in given else Path(tempfile.gettempdir()) / "tfhub_modules"


def kagglehub_cache() -> Path:
    """Folder of kagglehub's cache, by its own rule."""
    return Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub").expanduser()


def own_cache() -> Path:
    """Folder of what neither of them keeps: TFAUDIOTL_CACHE_DIR, or ``tfaudiotl`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(base) / "tfaudiotl").expanduser()


def tfhub_sources(handle: str, *, url: str | None = None) -> list[Source]:
    """The cache and the server of a TF Hub handle; ``url``: of a mirror that is asked in its place."""
    path = tfhub_cache() / hashlib.sha1(handle.encode(), usedforsecurity=False).hexdigest()  # as tensorflow_hub does
    address = url or handle
    query = f"{'&' if '?' in address else '?'}tf-hub-format=compressed"
    return [
        Cached("TF Hub's cache", path),
        Download("TF Hub", path, url=address + query, archive=True),
    ]


def kaggle_sources(handle: str) -> list[Source]:
    """The cache of kagglehub, and Kaggle: by kagglehub where it is installed, and by the address for everyone."""
    path = kagglehub_cache() / "models" / handle
    marker = path.with_name(f"{path.name}.complete")
    mirror = os.environ.get(KAGGLE_MIRROR)
    url = f"{(mirror or KAGGLE).rstrip('/')}/api/v1/models/{handle}/download"
    sources: list[Source] = [Cached("kagglehub's cache", path, marker=marker)]
    if not mirror and importlib.util.find_spec("kagglehub"):
        sources.append(KaggleHub("Kaggle by kagglehub", path, handle=handle))
    return [*sources, Download("Kaggle", path, url=url, archive=True, marker=marker)]


def original_sources(name: str, sha256: str) -> list[Source]:
    """A file of AudioSet's authors: in the own cache, and at their storage."""
    path = own_cache() / name
    url = f"{os.environ.get(AUDIOSET_MIRROR, AUDIOSET).rstrip('/')}/{name}"
    return [
        Cached("tfaudiotl's cache", path, sha256=sha256),
        Download("AudioSet's authors", path, url=url, sha256=sha256),
    ]


def published_sources(published: Published) -> list[Source]:
    """All places of published weights: first what is on this machine, then TF Hub, Kaggle and the authors."""
    mirror = os.environ.get(TFHUB_MIRROR)
    places = [
        tfhub_sources(published.handle, url=mirror and f"{mirror.rstrip('/')}/{published.tfhub}"),
        kaggle_sources(published.kaggle),
        original_sources(published.original, published.sha256),
    ]
    return [source for place in places for source in place[:1]] + [source for place in places for source in place[1:]]


def by_hand(published: Published) -> str:
    """What to fetch on another machine, and where to put it."""
    network = published.tfhub.split("/")[1]
    return (
        f"By hand: run 'tfaudiotl weights {network} -o {network}.weights.h5' on a machine that reaches one of them, or "
        f"fetch {AUDIOSET}/{published.original} or the archive of {KAGGLE}/models/{published.kaggle} there; then give "
        f"the file's path for the weights (--weights on the command line), or copy {published.original} to "
        f"{own_cache() / published.original}. Mirrors: {TFHUB_MIRROR}, {KAGGLE_MIRROR}, {AUDIOSET_MIRROR}. "
        "The network yamnet_mini needs none of this"
    )


def handle_sources(handle: str) -> list[Source]:
    """The places of one handle: an address of TF Hub or of a model's page on Kaggle."""
    page = re.match(r"https://(?:www\.)?kaggle\.com/models/([^/]+/[^/]+/)([^/]+)(/[^/]+/\d+)", handle)
    if page:
        framework = {"tensorflow2": "tensorFlow2"}.get(
            page[2].lower(), page[2]
        )  # pages have either, the API the latter
        return kaggle_sources(page[1] + framework + page[3])
    return tfhub_sources(handle)


@contextmanager
def opened_handle(handle: str, check: Callable[[Path], object]) -> Iterator[Path]:
    """The folder of the first place of ``handle`` that has one which passes ``check``."""
    found, _ = first_that_fits(
        handle_sources(handle),
        check,
        asked=f"weights={handle!r}",
        advice="Without a network, download the SavedModel elsewhere and give its folder or archive for the "
        "weights (--weights on the command line), or set TFHUB_CACHE_DIR to a cache directory that already holds it",
    )
    yield found.path


def first_that_fits(
    sources: Sequence[Source], accept: Callable[[Path], Result], *, asked: str, advice: str
) -> tuple[Found, Result]:
    """Asks one source after the other.

    Args:
        sources: in the order in which they are asked.
        accept: takes the file or folder that was found; WeightsError if it does not fit. What was downloaded is kept
            only if it fits.
        asked: what the user asked for, such as "weights='audioset'".
        advice: what to do if all fail, for the error.

    Returns:
        Who had it and where it lies now, and what ``accept`` returned.

    Raises:
        WeightsError: every source with the reason why it failed, and the advice.
    """
    failures = []
    for source in sources:
        try:
            with source.open() as path:
                result = accept(path)
            # a download has moved to its place by now
            return Found(source.name, source.place, path if path.exists() else source.path), result
        except (WeightsError, OSError) as error:
            failures.append(f"\n  {source.name} ({source.place}): {error}")
    raise WeightsError(f"{asked}: none of these places has them:{''.join(failures)}\n{advice}")
