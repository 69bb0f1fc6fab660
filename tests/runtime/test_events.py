from __future__ import annotations

import json

import numpy as np
import pytest

from tfaudiotl.runtime.events import Event, EventOptions, EventTracker, format_events, in_order, write_events


def track(scores: list[float], *, hop: float = 0.5, window: float = 1.0, **options: float) -> list[tuple[float, float]]:
    tracker = EventTracker(["x"], EventOptions(**options), hop=hop, window=window)  # type: ignore[arg-type]
    events = [event for score in scores for event in tracker.push(np.array([score]))]
    events += tracker.finish((len(scores) - 1) * hop + window)
    return [(event.start, event.end) for event in in_order(events)]


def test_an_event_spans_the_windows_at_or_above_the_threshold() -> None:
    assert track([0, 0.5, 0.9, 0.4, 0]) == [(0.5, 2.0)]


def test_windows_apart_are_two_events_and_a_gap_below_the_least_joins_them() -> None:
    scores = [0.9, 0, 0, 0, 0.9]
    assert track(scores) == [(0.0, 1.0), (2.0, 3.0)]
    assert track(scores, min_gap=1.0) == [(0.0, 1.0), (2.0, 3.0)]
    assert track(scores, min_gap=1.1) == [(0.0, 3.0)]


def test_hysteresis_holds_an_event_until_the_release() -> None:
    scores = [0, 0.8, 0.4, 0.4, 0.1, 0.4]
    assert track(scores, threshold=0.7) == [(0.5, 1.5)]
    assert track(scores, threshold=0.7, release=0.3) == [(0.5, 2.5)]


def test_short_events_are_dropped_after_gaps_are_closed() -> None:
    scores = [0.9, 0, 0, 0.9, 0, 0, 0, 0, 0.9]
    assert track(scores, min_duration=1.5) == []
    assert track(scores, min_duration=1.5, min_gap=0.6) == [(0.0, 2.5)]


def test_smoothing_takes_out_a_single_window_and_keeps_the_place_of_a_long_event() -> None:
    assert track([0, 0, 0.9, 0, 0], smoothing=3) == []
    assert track([0, 0, 0.9, 0.9, 0.9, 0, 0], smoothing=3) == [(1.0, 3.0)]


def test_smoothing_over_more_windows_than_there_are_uses_those_there_are() -> None:
    assert track([0.9], smoothing=5) == [(0.0, 1.0)]
    assert track([0.9, 0.9], smoothing=5) == [(0.0, 1.5)]


def test_an_event_at_the_end_stops_where_the_sound_does() -> None:
    tracker = EventTracker(["x"], EventOptions(), hop=1.0, window=1.0)
    tracker.push(np.array([0.9]))
    assert tracker.active == ["x"]
    assert tracker.finish(0.25) == [Event(0.0, 0.25, "x", 0.9)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"release": 0.6}, "release=0.6"),
        ({"smoothing": 2}, "smoothing=2"),
        ({"min_gap": -1}, "min_gap=-1"),
        ({"min_duration": float("nan")}, "min_duration=nan"),
    ],
)
def test_options_outside_what_is_allowed_are_named(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EventOptions(**options)


EVENTS = [Event(0.5, 2.0, "dog, loud", 0.9), Event(1.0, 1.5, 'a "cat"\tmew', 0.75)]


def test_every_format_holds_every_event(tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert json.loads(format_events(EVENTS, "json"))[0] == EVENTS[0].to_dict()
    assert format_events(EVENTS, "csv").splitlines()[1] == '0.5,2.0,"dog, loud",0.9'
    assert format_events(EVENTS, "audacity").splitlines() == [
        "0.500000\t2.000000\tdog, loud",
        '1.000000\t1.500000\ta "cat" mew',
    ]
    raven = [line.split("\t") for line in format_events(EVENTS, "raven").splitlines()]
    assert {len(row) for row in raven} == {9}
    assert raven[0][3] == "Begin Time (s)"
    assert raven[2][3] == "1.000000"
    assert len(format_events(EVENTS).splitlines()) == 2
    assert write_events(tmp_path / "e.txt", EVENTS, "audacity").read_text().startswith("0.5")
    with pytest.raises(ValueError, match="format='xml'"):
        format_events(EVENTS, "xml")  # type: ignore[arg-type]
