"""The page's server: files, events, history, pictures, previews, deeds."""

from __future__ import annotations

import json

import pytest

from tests.console.serving import wait_for


def events(served, kinds):
    """The first event of each kind."""
    found = {}
    with served.client.stream("GET", "/api/events", timeout=20) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                found.setdefault(kind, json.loads(line[6:]))
            if kinds <= set(found):
                return found
    raise AssertionError(found)


def test_events_tell_what_the_station_publishes(served):
    found = events(served, {"snapshot", "verdict", "picture", "status"})
    assert found["snapshot"][0]["station"] == "line-1"
    assert found["verdict"]["verdict"]["camera"] == "belt"
    assert found["status"]["alive"] is True
    assert found["picture"]["seq"] >= 1


def test_a_part_has_pictures_by_its_number_alone(served):
    def reject():
        found = served.client.get(
            "/api/stations/line-1/history", params={"verdicts": ["FAIL"], "limit": 1}
        ).json()["entries"]
        return found and found[0]["has_picture"] and found[0]["verdict"]

    verdict = wait_for(reject)
    where = f"/api/stations/line-1/parts/{verdict['epoch']}/{verdict['seq']}"
    assert served.client.get(f"{where}/picture").content.startswith(b"\xff\xd8")
    assert served.client.get(f"{where}/heatmap").content.startswith(b"\x89PNG")
    assert served.client.get(f"{where}/about").json()["camera"] == "belt"
    assert served.client.get(f"{where}/../../../etc/passwd").status_code == 404
    assert served.client.get("/static/..%2f..%2fapp.py").status_code == 404


@pytest.mark.long
def test_a_browser_asks_for_the_pages_files_anew(served):
    """A module of the version before beside those of this one would leave a view empty."""
    for name in ("main.js", "words.js", "views/line.js", "style.css"):
        first = served.client.get(f"/static/{name}")
        assert first.headers["cache-control"] == "no-cache"
        known = {"If-None-Match": first.headers["etag"]}
        assert served.client.get(f"/static/{name}", headers=known).status_code == 304


def test_a_query_that_is_none_is_refused_in_words(served):
    for params in ({"limit": "many"}, {"colour": "red"}, {"verdicts": "GOOD"}, {"id": "7"}):
        answer = served.client.get("/api/stations/line-1/history", params=params)
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] == "malformed"
        assert "pydantic" not in answer.text
    assert served.client.get("/api/stations/other/history").status_code == 404


def test_a_mark_stands_in_the_journal(served):
    verdict = wait_for(
        lambda: served.client.get("/api/stations/line-1/history", params={"limit": 1}).json()[
            "entries"
        ]
    )[0]["verdict"]
    told = {"epoch": verdict["epoch"], "seq": verdict["seq"], "label": "good", "note": "a shadow"}
    answer = served.client.post("/api/stations/line-1/deeds/mark", json=told)
    assert answer.status_code == 200, answer.text
    (entry,) = served.client.get("/api/stations/line-1/history", params={"marked": True}).json()[
        "entries"
    ]
    assert entry["marks"][0]["label"] == "good" and entry["marks"][0]["note"] == "a shadow"
