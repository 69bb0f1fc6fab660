"""Which clips go to which side: stratified, group-aware assignment for splits and folds.

One algorithm serves single- and multi-label clips, with groups or without: iterative
stratification (Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data",
ECML PKDD 2011) over whole groups. scikit-learn's splitters were not enough: the stratified ones
take single labels only, and none sees to it that a small class comes to both sides.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfaudiotl._seeds import stream
from tfaudiotl.data.table import is_missing, listed
from tfaudiotl.errors import check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tfaudiotl.data.table import Table

Folds = int | Literal["given"]  # a number to draw, or the column
Groups = Literal["group", "source"] | Sequence[Hashable] | np.ndarray | None

logger = logging.getLogger(__name__)

SHARE_OFF = 0.1  # of all clips, from which a split that is not the one asked for is told
_ATTEMPTS = 20  # orders tried until every class is on every side; nearly always the first will do


def split_mask(
    clips: Table, name: str, share: float, *, stratify: bool, groups: Groups, seed: int
) -> NDArray[np.bool_]:
    """Bool (rows,): which rows are held out, a share of which messages say the name; ``Clips.split`` says how."""
    check_number(name, share, above=0, below=1)
    together = units(clips, groups)
    if len(np.unique(together)) < 2:
        raise ValueError(f"{len(clips)} clips in one group cannot be split: at least two groups (or files) are needed")
    targets = clips.targets if stratify else np.ones((len(clips), 1))
    if stratify:
        _check_spread(clips, targets, together, 2, "a split", "leave it out or record more")
    held_out: NDArray[np.bool_] = assign(targets, together, [1 - share, share], purpose="held-out part", seed=seed) == 1
    missing = np.flatnonzero(targets.any(axis=0) & ~(targets[held_out].any(axis=0) & targets[~held_out].any(axis=0)))
    if len(missing):
        names = listed(repr(clips.class_names[label]) for label in missing)
        raise ValueError(f"no split was found with {names} on both sides: its groups are bound to other classes")
    if abs(held_out.mean() - share) > SHARE_OFF:
        logger.warning(
            "%s=%g: %d of %d clips are held out, %.0f %%: they come from %d recordings or groups, which stay whole",
            name,
            share,
            held_out.sum(),
            len(clips),
            100 * held_out.mean(),
            len(np.unique(together)),
        )
    return held_out


def check_parts(clips: Table) -> None:
    """ValueError where a file or group of ``clips`` lies in two of their own parts; a warning where a copy does."""
    if clips.part is not None:
        _check_torn(clips, None, "part", clips.part.tolist())


def fold_numbers(clips: Table, folds: Folds, *, groups: Groups, seed: int) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the folds, and int64 (rows,) which one each row is tested in; see ``Clips.folds``."""
    targets = clips.targets
    if isinstance(folds, str) and folds == "given":
        names, fold = _given_folds(clips, groups)
    else:
        check_number("folds", folds, least=2, whole=True)
        together = units(clips, groups)
        _check_spread(
            clips, targets, together, folds, f"{folds} folds", "use fewer folds or record more", f"folds={folds}: "
        )
        if len(np.unique(together)) < folds:
            raise ValueError(f"folds={folds}: there are only {len(np.unique(together))} groups (or files) to share out")
        names = [str(number + 1) for number in range(folds)]
        fold = assign(targets, together, [1 / folds] * folds, purpose="folds", seed=seed)
    for number, name in enumerate(names):
        lost = targets.any(axis=0) & ~targets[fold != number].any(axis=0)
        if lost.any():
            classes = listed(repr(clips.class_names[label]) for label in np.flatnonzero(lost))
            raise ValueError(f"fold {name!r} has every clip of {classes}: none would be left to train on")
    return names, fold


def _given_folds(clips: Table, groups: Groups) -> tuple[list[str], NDArray[np.int64]]:
    if clips.fold is None:
        raise ValueError(
            "no folds were given: pass a number of them, or build the clips with fold_pattern= (from_directory), "
            "folds= (from_files) or fold= (from_table)"
        )
    names = natural_order(clips.fold.tolist())
    if len(names) < 2:
        raise ValueError(f"all clips are in fold {names[0]!r}: cross-validation needs at least two folds")
    fold = np.array([names.index(name) for name in clips.fold.tolist()], np.int64)
    _check_torn(clips, groups, "fold", clips.fold.tolist())
    return names, fold


def _check_torn(clips: Table, groups: Groups, what: str, sides: Sequence[str]) -> None:
    """ValueError where a file or group lies in two folds or parts; a warning where a copy does."""
    side = np.array(sides)
    for together, certain in ((units(clips, groups, copies=False), True), (units(clips, groups), False)):
        first = np.zeros(int(together.max()) + 1, np.int64)
        first[together[::-1]] = np.arange(len(side))[::-1]
        torn = np.flatnonzero(side != side[first[together]])
        if len(torn):
            row, other = torn[0], first[together[torn[0]]]
            message = (
                f"{clips.paths[row]} is in {what} {sides[row]!r}, but {clips.paths[other]}, of the same "
                f"{'file or group' if certain else 'content'}, in {what} {sides[other]!r}: clips that are "
                "tested would be trained on"
            )
            if certain:
                raise ValueError(message)
            logger.warning("%d clips have copies in other %ss: %s", len(torn), what, message)


def units(clips: Table, groups: Groups, *, copies: bool = True) -> NDArray[np.int64]:
    """Numbers the rows so that what must stay together has one number: files, their copies, and ``groups``.

    Args:
        clips: The table.
        groups: None (the group column if there is one), "group", "source" (files alone) or (rows,).
        copies: Whether files of the same bytes count as one.

    Raises:
        ValueError: There is no group column, or the array has another length.
    """
    files = [file_keys(clips.paths)] + ([clips.content_keys()] if copies else [])
    if isinstance(groups, str):
        if groups not in ("group", "source"):
            raise ValueError(f'groups={groups!r}: expected None, "group", "source" or an array')
        if groups == "source":
            return connected(*files)
        if clips.group is None:
            raise ValueError('groups="group": the clips have no groups; give group_pattern=, groups= or group=')
    if groups is None or isinstance(groups, str):
        return connected(*files) if clips.group is None else connected(*files, clips.group.tolist())
    column = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)  # as an array NaN might become text
    if len(column) != len(clips):
        raise ValueError(f"groups has {len(column)} entries: expected one for each of the {len(clips)} clips")
    return connected(*files, column)


def shared_units(clips: Table) -> list[int] | None:
    """The number of each row's recording or group, or None where no two rows share one."""
    together = units(clips, None, copies=False)
    return together.tolist() if together.max() + 1 < len(together) else None


def _check_spread(
    clips: Table,
    targets: NDArray[Any],
    together: NDArray[np.int64],
    least: int,
    purpose: str,
    advice: str,
    given: str = "",
) -> None:
    """Raises ValueError naming the classes that lie in fewer than ``least`` groups."""
    few = []
    for label, name in enumerate(clips.class_names):
        rows = np.flatnonzero(targets[:, label])
        number = len(np.unique(together[rows]))
        if 0 < number < least:
            few.append(f"{name!r} has {len(rows)} clips in {number} groups (or files)")
    if few:
        raise ValueError(f"{given}too few for {purpose}, which needs at least {least}: {listed(few)}; {advice}")


def file_keys(paths: Sequence[str]) -> list[str]:
    """One key per file, the same for every way of writing its path."""
    keys = {path: os.path.abspath(path) for path in set(paths)}
    return [keys[path] for path in paths]


def connected(*columns: Sequence[Hashable]) -> NDArray[np.int64]:
    """Numbers the rows so that rows sharing a value in any column share a number.

    Args:
        *columns: Each (rows,): file, recording site, speaker and the like. Missing values join nothing.

    Returns:
        int64 (rows,), numbered from 0 in order of first appearance.
    """
    count, rows, first = len(columns[0]), list[int](), list[int]()
    for column in columns:
        seen: dict[Hashable, int] = {}
        for row, value in enumerate(column):
            if not is_missing(value):
                rows.append(row)
                first.append(seen.setdefault(value, row))
    links = coo_array((np.ones(len(rows), bool), (rows, first)), shape=(count, count))
    numbers = connected_components(links, directed=False)[1]
    _, begin, place = np.unique(numbers, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(begin))[place]


def assign(
    targets: NDArray[Any], groups: NDArray[np.int64], fractions: Sequence[float], *, purpose: str, seed: int
) -> NDArray[np.int64]:
    """Gives every group to one side, so that each side has its fraction of every class.

    Args:
        targets: (rows, classes), nonzero where the row has the class.
        groups: int (rows,): rows of one number stay together.
        fractions: Share of the rows that each side is to have; they sum to 1.
        purpose: What the sides are for: each purpose has its own stream of random numbers.
        seed: Same seed, same sides.

    Returns:
        int64 (rows,): the side of each row. A class with at least as many groups as there are sides
        is on every side where the groups allow it.
    """
    present = np.asarray(targets) > 0
    counts = np.zeros((int(groups.max()) + 1, present.shape[1]))
    np.add.at(counts, groups, present)
    sizes = np.bincount(groups).astype(float)
    spread = np.minimum((counts > 0).sum(axis=0), len(fractions))  # sides that a class can be on
    best, fewest = np.zeros(len(sizes), np.int64), np.inf
    for attempt in range(_ATTEMPTS):
        sides = _iterate(counts, sizes, np.asarray(fractions, float), stream(purpose, seed, attempt))
        reached = np.stack([(counts[sides == side] > 0).any(axis=0) for side in range(len(fractions))])
        missing = (spread - reached.sum(axis=0)).sum() + (np.bincount(sides, minlength=len(fractions)) == 0).sum()
        if missing < fewest:
            best, fewest = sides, missing
        if fewest == 0:
            break
    return best[groups]


def _iterate(
    counts: NDArray[np.float64],
    sizes: NDArray[np.float64],
    fractions: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Places the groups of the rarest class first, each where that class is short of most rows."""
    present = counts > 0
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]  # large groups while there is room for them
    wanted = fractions[:, None] * counts.sum(axis=0)  # (sides, classes) rows still to come
    room = fractions * sizes.sum()
    reached = np.zeros(wanted.shape, bool)
    waiting = present.sum(axis=0)  # groups of a class not yet placed
    sides = np.full(len(sizes), -1, np.int64)

    def place(group: int, label: int | None) -> None:
        labels = np.flatnonzero(present[group])
        lacking = ~reached[:, labels]
        # Where a class has no more groups than sides still without it, they must go there.
        urgent = lacking[:, waiting[labels] <= lacking.sum(axis=0)].sum(axis=1)
        keys = [rng.random(len(room)), room, room if label is None else wanted[:, label], urgent]
        side = int(np.lexsort(keys)[-1])
        sides[group] = side
        wanted[side] -= counts[group]
        room[side] -= sizes[group]
        reached[side, labels] = True
        waiting[labels] -= 1

    while waiting.any():
        label = int(np.argmin(np.where(waiting > 0, waiting, np.iinfo(waiting.dtype).max)))
        for group in order[present[order, label]]:
            if sides[group] < 0:
                place(int(group), label)
    for group in order[sides[order] < 0]:  # rows without any class
        place(int(group), None)
    return sides


def rarest_class(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Of each row's classes the one that the fewest rows have; -1 for rows without any."""
    rare = np.where(targets > 0, (targets > 0).sum(axis=0), np.inf)
    chosen: NDArray[np.int64] = np.where((targets > 0).any(axis=1), rare.argmin(axis=1), -1)
    return chosen


def balanced_draw(targets: NDArray[Any], rng: np.random.Generator, count: int | None = None) -> NDArray[np.int64]:
    """Numbers of rows, as many as there are (or ``count``), every class equally often, in random order.

    Rows of several classes count for their rarest, rows without any for a class of their own. A class's rows are
    all used before one comes again.
    """
    classes = rarest_class(targets)
    members = [np.flatnonzero(classes == label) for label in np.unique(classes)]
    total = len(targets) if count is None else count
    share, rest = divmod(total, len(members))
    extra = rng.permutation(len(members)) < rest  # classes that get one more
    drawn = []
    for rows, more in zip(members, extra, strict=True):
        wanted = share + int(more)
        turns = [rng.permutation(rows) for _ in range(-(-wanted // len(rows)))]
        drawn.append(np.concatenate([*turns, rows[:0]])[:wanted])
    return rng.permutation(np.concatenate(drawn))


def natural_order(names: Iterable[str]) -> list[str]:
    """Distinct names sorted, numbers by their value: "2" before "10"."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)
