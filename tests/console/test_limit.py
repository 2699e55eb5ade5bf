"""The view of the limit: scores, what another limit would change, and setting it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from export.training.calibrate import confidence
from inspector.client import Commander, Viewer
from tests import running, tiny
from tests.console.serving import opened, wait_for

RAW = (0.25, 0.5, 1.125, 1.5)
"""Scores of the parts that are shown in turn, in units of the bundle's limit."""


def picture(raw: float) -> np.ndarray:
    return np.full(
        (tiny.SIDE, tiny.SIDE, 3), tiny.GREY + raw * tiny.LIMIT_GREY_LEVELS, dtype=np.uint8
    )


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    """A station that has judged twelve parts."""
    folder = tmp_path_factory.mktemp("line")
    parts = running.write_parts(folder / "parts", *map(picture, RAW))
    station = running.write_station(
        folder / "station.yaml",
        tiny.write_bundle(folder / "tiny.onnx"),
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=20_000),
        sockets={"queries": "tcp://127.0.0.1:*"},
        self_test={"every_s": 0},
    )
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        with Commander(daemon.commands, timeout_s=30) as plc:
            for number in range(1, 13):
                plc.trigger("top", number, f"S/N {number}")
        yield daemon


def scores(served):
    return served.client.get("/api/stations/line-1/scores/top", timeout=30).json()


def in_force(line):
    with Viewer(line.queries) as viewer:
        return viewer.judging().cameras[0].limit_factor


def marks(line):
    with Viewer(line.queries) as viewer:
        return [
            (entry.verdict.seq, mark.label)
            for entry in viewer.history(marked=True)
            for mark in entry.marks
        ]


def test_scores_are_in_units_of_the_bundle_whatever_the_limit_was(served, line):
    found = scores(served)
    assert [one["part_id"] for one in found["parts"]] == [f"S/N {n}" for n in range(12, 0, -1)]
    assert [one["raw"] for one in found["parts"]] == pytest.approx(list(RAW[::-1]) * 3)
    with Commander(line.commands, timeout_s=30) as plc:
        plc.limit("r", "top", 1.25)
        plc.trigger("top", 13, "S/N 13")
        plc.trigger("top", 14, "S/N 14")
        plc.trigger("top", 15, "S/N 15", purpose="challenge")
        judged = plc.trigger("top", 16, "S/N 16")
        assert judged.score == pytest.approx(RAW[3] / 1.25)
        plc.mark(judged.epoch, judged.seq, "bad", by="Li Wei")
        plc.limit("r", "top", 1.0)

    def newest():
        parts = scores(served)["parts"]
        return parts[0]["part_id"] == "S/N 16" and parts

    parts = wait_for(newest)
    # A challenge is no part of the production.
    assert [one["part_id"] for one in parts[:3]] == ["S/N 16", "S/N 14", "S/N 13"]
    assert len(parts) == 15
    assert [one["raw"] for one in parts[:3]] == pytest.approx([RAW[3], RAW[1], RAW[0]])
    (marked,) = wait_for(lambda: scores(served)["marked"])
    assert (marked["part_id"], marked["label"]) == ("S/N 16", "bad")
    assert served.client.get("/api/stations/line-1/scores/other", timeout=30).status_code == 404


def test_a_part_has_a_small_picture_or_none(served):
    part = scores(served)["parts"][0]
    where = f"/api/stations/line-1/thumbnails/{part['epoch']}"
    found = served.client.get(f"{where}/{part['seq']}", params={"px": 64}, timeout=30)
    assert found.content.startswith(b"\xff\xd8")
    assert served.client.get(f"{where}/999", timeout=30).status_code == 204
    for px in ("63", "5000", "1e9", "-1"):
        assert served.client.get(f"{where}/1", params={"px": px}).status_code == 400


def test_a_limit_that_is_set_is_in_force_and_written_down(served, line):
    before = in_force(line)
    told = {"recipe": "r", "camera": "top", "limit_factor": before + 0.25}
    answer = served.client.post("/api/stations/line-1/deeds/limit", json=told, timeout=30)
    assert answer.status_code == 200, answer.text
    assert in_force(line) == before + 0.25
    deed = served.client.get("/api/stations/line-1/deeds", timeout=30).json()["deeds"][0]
    assert (deed["kind"], deed["subject"]) == ("limit", "r/top")
    assert (deed["before"], deed["after"]) == (f"{before:g}", f"{before + 0.25:g}")
    told["limit_factor"] = 2.5
    answer = served.client.post("/api/stations/line-1/deeds/limit", json=told, timeout=30)
    assert answer.status_code in {400, 409}, answer.text
    told["limit_factor"] = before
    served.client.post("/api/stations/line-1/deeds/limit", json=told, timeout=30)


@pytest.mark.peers
def test_the_limit_is_tried_set_and_taken_back_by_keyboard_and_mouse(served, line, chromium):
    with Commander(line.commands) as desk:
        desk.limit("r", "top", 1.0)
    with opened(chromium, f"{served.url}#/line-1/limit") as page:
        slider = page.get_by_role("slider", name="Limit")
        slider.wait_for()
        assert slider.get_attribute("aria-valuenow") == "1.00"
        slider.focus()
        page.keyboard.press("PageUp")
        page.keyboard.press("PageUp")
        page.keyboard.press("ArrowLeft")
        assert slider.get_attribute("aria-valuenow") == "1.19"
        assert page.evaluate("document.activeElement.getAttribute('role')") == "slider"
        # By the mouse: to the left end, then back by the keys.
        box = slider.bounding_box()
        y = box["y"] + 10
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(0, y, steps=4)
        page.mouse.up()
        assert slider.get_attribute("aria-valuenow") == "0.50"
        for _ in range(7):
            page.keyboard.press("PageUp")
        assert slider.get_attribute("aria-valuenow") == "1.20"
        parts = [one for one in scores(served)["parts"] if 1.0 <= one["raw"] < 1.2]
        page.get_by_text(f"{len(parts)} more would pass").wait_for()
        page.get_by_role("button", name="Show them").click()
        strip = page.get_by_role("region", name="Parts that would be judged otherwise")
        assert strip.get_by_role("button").count() == len(parts)
        strip.get_by_text(parts[0]["part_id"], exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="This part was good").click()
        wait_for(lambda: (parts[0]["seq"], "good") in marks(line))
        page.get_by_role("dialog").wait_for(state="detached")
        assert in_force(line) == 1.0
        strip.get_by_text(parts[0]["part_id"], exact=True).click()
        page.get_by_role("button", name="Look closer or mark it").click()
        page.get_by_role("heading", name=parts[0]["part_id"]).wait_for()
        assert page.evaluate("location.hash").startswith("#/line-1/history?")
        page.go_back()
        slider.wait_for()
        for _ in range(20):
            slider.press("ArrowRight")
        page.get_by_text(f"{len(parts)} more would pass").wait_for()
        page.get_by_role("button", name="Set the limit to 1.20").click()
        dialog = page.get_by_role("dialog")
        assert f"{len(parts)} more would pass" in dialog.inner_text()
        dialog.get_by_role("button", name="Cancel").click()
        assert in_force(line) == 1.0
        page.get_by_role("button", name="Set the limit to 1.20").click()
        page.get_by_role("button", name="Set it to 1.20").click()
        wait_for(lambda: in_force(line) == 1.2)
        page.get_by_role("button", name="Back to 1.00").click()
        page.get_by_role("button", name="Set it to 1.00").click()
        wait_for(lambda: in_force(line) == 1.0)
        # What another client sets is shown without a reload.
        with Commander(line.commands) as desk:
            desk.limit("r", "top", 0.9, by="Ana")
        page.get_by_text("Last change: Ana").wait_for()
        assert slider.get_attribute("aria-valuenow") == "0.90"


@pytest.mark.peers
def test_the_interval_of_the_limit_moves_with_it(served, line, chromium):
    with Viewer(line.queries) as viewer:
        told = viewer.judging().cameras[0].calibration
    counts = [(0, 1), (0, 150), (1, 150), (75, 150), (150, 150), (3, 10), (200, 5000)]
    with opened(chromium, f"{served.url}#/line-1/limit") as page:
        found = page.evaluate(
            """async (counts) => {
              const { confidence } = await import("/static/confidence.js");
              return counts.map(([count, of]) => confidence(count, of));
            }""",
            counts,
        )
        for (count, of), interval in zip(counts, found, strict=True):
            assert interval == pytest.approx(confidence(count, of), abs=1e-9)
        slider = page.get_by_role("slider", name="Limit")
        for key, limit in (("Home", 0.5), ("End", 2.0)):
            slider.press(key)
            rejected = sum(score >= limit for score in told.scores)
            low, high = (100 * share for share in confidence(rejected, told.good_parts))
            said = f"Of 100 good parts, limit {limit:.2f} rejects {low:.1f} to {high:.1f}."
            page.get_by_text(said).wait_for()


@pytest.mark.peers
@pytest.mark.parametrize("size", [(1024, 600), (390, 844), (1920, 1080)])
def test_the_limit_fits_each_screen(served, chromium, size):
    viewport = {"width": size[0], "height": size[1]}
    with opened(chromium, f"{served.url}#/line-1/limit", viewport=viewport) as page:
        page.get_by_role("slider", name="Limit").wait_for()
        width = page.evaluate("[document.querySelector('main').scrollWidth, innerWidth]")
        assert width[0] <= width[1]
        if size[0] > size[1]:
            apply = page.locator("#apply").bounding_box()
            assert apply["y"] + apply["height"] <= size[1]
            assert page.locator("svg.histogram").bounding_box()["height"] >= 180


@pytest.mark.peers
def test_the_limit_is_dragged_by_a_finger(served, line, chromium):
    with Commander(line.commands) as desk:
        desk.limit("r", "top", 1.0)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(chromium, f"{served.url}#/line-1/limit", **phone) as page:
        slider = page.get_by_role("slider", name="Limit")
        slider.wait_for()
        box = slider.bounding_box()
        assert box["width"] >= 44
        x, y = box["x"] + box["width"] / 2, box["y"] + 60
        finger = page.context.new_cdp_session(page)

        def touch(kind, *points):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

        touch("touchStart", {"x": x, "y": y})
        for step in range(1, 6):
            touch("touchMove", {"x": x + 16 * step, "y": y})
        touch("touchEnd")

        def value():
            return float(slider.get_attribute("aria-valuenow"))

        wait_for(lambda: 1.2 < value() < 1.8)
        page.wait_for_timeout(200)
        moved = value()
        # A finger beside the limit does not move it.
        touch("touchStart", {"x": x - 60, "y": y})
        touch("touchMove", {"x": x - 90, "y": y})
        touch("touchEnd")
        page.wait_for_timeout(200)
        assert value() == moved
        assert in_force(line) == 1.0
