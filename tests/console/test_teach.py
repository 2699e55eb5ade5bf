"""Teaching in: the basket, what it needs, the trial on kept pictures, and a whole lesson."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from inspector.client import Commander
from inspector.config.console_file import ShownStation
from inspector.console.line import Line
from inspector.console.teach import Lesson
from inspector.imaging.images import decode
from inspector.journal.pictures import pictures
from inspector.wire.messages import VerdictMessage
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for
from tests.loops import in_a_loop

STATION = "/api/stations/line-1"
WHAT = {"recipe": "r", "camera": "top"}


@dataclass
class Shown:
    """A station that has judged six parts, every second one a reject, and its page."""

    daemon: running.Running
    served: serving.Served
    judged: list[VerdictMessage]

    @property
    def rejects(self) -> list[VerdictMessage]:
        return self.judged[1::2]

    def ask(self, path: str, **asked: Any) -> httpx.Response:
        return self.served.client.get(f"{STATION}/{path}", params=asked)

    def tell(self, path: str, **told: Any) -> httpx.Response:
        return self.served.client.post(f"{STATION}/{path}", json=told)

    def add(self, verdict: VerdictMessage) -> httpx.Response:
        return self.tell("basket/add", epoch=verdict.epoch, seq=verdict.seq)

    @property
    def basket(self) -> list[dict[str, Any]]:
        return self.ask("basket").json()["parts"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teach")


@pytest.fixture(scope="module")
def shown(folder: Path) -> Iterator[Shown]:
    """The page has a folder of its own, and is told a training run of another model."""
    run = folder / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"fingerprint": "0123456789abcdef"}))
    (run / "outcome.json").write_text(json.dumps({"created": "2024-05-01T06:00:00+00:00"}))
    training = {
        "program": "/nowhere/inspector-model",
        "runs": {"line-1": {"r": {"top": str(run)}}},
    }
    parts = running.write_parts(folder / "parts", tiny.good_picture(), tiny.bad_picture())
    station = running.write_station(
        folder / "station.yaml",
        tiny.write_bundle(folder / "tiny.onnx"),
        running.folder_camera(parts, loop=True, trigger="software", deadline_ms=5000),
        sockets={"queries": "tcp://127.0.0.1:*"},
    )
    with running.running(station) as daemon:
        daemon.wait_for_log(r"state=Ready")
        with Commander(daemon.commands) as plc:
            judged = [plc.trigger("top", number, f"S/N {number}") for number in range(1, 7)]
        with serving.serving(
            folder / "console",
            {"line-1": serving.addresses(daemon)},
            state=str(folder / "state"),
            training=training,
        ) as served:
            yield Shown(daemon, served, judged)


def test_the_basket_keeps_whole_pictures_and_gives_them_as_a_folder(
    shown: Shown, folder: Path
) -> None:
    for verdict in (*shown.rejects[:2], shown.rejects[0]):
        assert shown.add(verdict).status_code == 200
    parts = shown.basket
    assert [one["verdict"]["part_id"] for one in parts] == ["S/N 2", "S/N 4"]
    small = shown.ask(f"basket/{parts[0]['id']}/picture")
    assert decode(small.content).shape == tiny.bad_picture().shape

    answer = shown.tell("teach/folder", **WHAT).json()
    good = Path(answer["folder"]) / "good"
    assert good.is_relative_to(folder / "state") and answer["parts"] == 2
    assert [path.name for path in sorted(good.iterdir())] == ["0001.png", "0002.png"]
    assert np.array_equal(decode((good / "0001.png").read_bytes()), tiny.bad_picture())
    assert answer["command"] == "inspector-model extend RUN --good good -o taught.onnx"

    answer = shown.tell("teach/folder", **{**WHAT, "recipe": "other"})
    assert (answer.status_code, answer.json()["code"]) == (409, "basket_empty")
    assert shown.tell("basket/remove", ids=[one["id"] for one in parts]).status_code == 200
    assert shown.basket == []
    # What was written stays: another machine is to read it.
    assert len(list(good.iterdir())) == 2


def test_what_cannot_go_into_the_basket_is_refused(shown: Shown) -> None:
    def refused(**told: Any) -> tuple[int, str]:
        answer = shown.tell("basket/add", **told)
        return answer.status_code, answer.json()["code"]

    reject = shown.rejects[0]
    assert refused(epoch=reject.epoch, seq=10**9) == (409, "unknown")
    assert refused(epoch="../../etc/passwd", seq=1) == (409, "unknown")
    assert refused(epoch=reject.epoch) == (400, "malformed")
    assert refused(epoch=reject.epoch, seq="one") == (400, "malformed")
    # Of a part that passed there is the judged region alone, as the model saw it.
    passed = shown.judged[0]
    assert refused(epoch=passed.epoch, seq=passed.seq) == (409, "not_whole")
    for name in ("..", "%2e%2e%2fstate", "0", "1.png"):
        assert shown.ask(f"basket/{name}/picture").status_code == 404
    assert shown.tell("basket/remove", ids=["../run/run"]).status_code == 400
    assert shown.tell("basket/remove").status_code == 400
    assert shown.basket == []


def test_why_it_cannot_teach_is_told(shown: Shown) -> None:
    told = shown.ask("teach", **WHAT).json()
    assert told["state"] is True and told["program"] is False
    # The run that the file names made another model than the one in use.
    assert told["problem"] == "run_other"
    assert "20240501-01234567" in told["detail"] and told["model"]["version"] in told["detail"]
    assert shown.ask("teach", recipe="other", camera="top").json()["problem"] == "no_model"
    assert shown.ask("teach").status_code == 400
    assert shown.tell("teach/start", **WHAT).json()["code"] == "no_tools"
    assert shown.ask("jobs/teach").json() == {"job": None, "running": None}
    for deed in ("use", "back"):
        assert shown.tell(f"teach/{deed}", job="1").status_code == 404
    assert shown.ask("teach/bundle").status_code == 404
    assert shown.tell("jobs/teach/cancel").status_code == 200


@pytest.mark.long
def test_the_trial_reads_what_was_fetched_as_the_station_kept_it(
    shown: Shown, folder: Path, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []

    async def fetch() -> None:
        addresses = ShownStation(**serving.addresses(shown.daemon))
        station = Line("line-1", addresses, None, lambda *_: None)
        try:
            lesson = Lesson(tmp_path, station, "r", "top")
            await lesson.fetch(lambda *step: told.append(step))
        finally:
            station.close()

    in_a_loop(fetch())
    kept = list(pictures(tmp_path / "kept"))
    there = list(pictures(folder / "journal"))
    assert [one.path.name for one in kept] == [one.path.name for one in there]
    assert len(told) == len(kept) == 3
    report = tmp_path / "trial.json"

    def replayed(*options: str | Path) -> dict[str, Any]:
        command = ("replay", tmp_path / "kept", "--bundle", folder / "tiny.onnx", *options)
        code, _, err = running.inside(*command, "--report", report, "--show", "0")
        assert code == 0, err
        return json.loads(report.read_text())

    # The same bundle judges them as it did: the region and the factor came along.
    same = replayed()
    assert same["counts"] == [{"then": "FAIL", "now": "FAIL", "parts": 3}]
    assert (same["judged"], same["unreadable"], same["changed"]) == (3, 0, [])
    other = replayed("--limit-factor", "100")
    assert other["counts"] == [{"then": "FAIL", "now": "PASS", "parts": 3}]
    assert [one["seq"] for one in other["changed"]] == [one.seq for one in shown.rejects]
    assert other["bundle"]["sha256"] == shown.judged[0].model.sha256


@pytest.mark.peers
def test_a_reject_goes_into_the_basket_by_hand(shown: Shown, chromium) -> None:
    url = f"{shown.served.url}#/line-1/teach"
    with opened(chromium, url) as page:
        page.get_by_text("No part with a picture is marked good yet").wait_for()
        page.get_by_role("button", name="Last rejects").click()
        page.get_by_role("button", name="It was good: S/N 4").click()
        page.get_by_role("heading", name="Basket: 1 to teach").wait_for()
        # It is marked, too, and so it stands among those that are marked good.
        page.get_by_role("button", name="Marked good").click()
        page.get_by_role("button", name="In the basket: S/N 4").wait_for()
        page.locator(".teach-basket").get_by_role("button", name="Look: S/N 4").click()
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Write a folder").click()
        assert "inspector-model extend" in page.locator("#teach-command").inner_text()
        page.reload()
        page.get_by_role("button", name="Take out: S/N 4").click()
        page.get_by_role("heading", name="Basket: 0 to teach").wait_for()
        page.get_by_role("button", name="Put in: S/N 4").wait_for()
    with opened(chromium, url, language="zh-CN") as page:
        page.get_by_role("heading", name="篮子：0 个待学习").wait_for()
    (entry,) = shown.ask("history", marked=True).json()["entries"]
    assert entry["verdict"]["part_id"] == "S/N 4" and entry["marks"][-1]["label"] == "good"


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A small model, really trained, in ``run`` and ``small.onnx``."""
    made = folder / "trained"
    made.mkdir()
    settings = {
        "region": "112,52,416,384",
        "size": [96, 96],
        "epochs": 1,
        "bank_items": 256,
        "folds": 3,
        "device": "cpu",
    }
    (made / "small.yaml").write_text(yaml.safe_dump(settings))
    program = Path(sys.executable).with_name("inspector-model")
    simulate = (sys.executable, "-m", "inspector", "simulate", "data")
    for command in (
        (*simulate, "--good", "30", "--test-good", "0", "--defective", "0"),
        (program, "train", "data", "-o", "run", "--config", "small.yaml"),
        (program, "export", "run", "-o", "small.onnx", "--precision", "fp32", "--name", "flange"),
    ):
        subprocess.run(command, cwd=made, check=True, env=running.environment())
    return made


@pytest.mark.peers
def test_a_part_of_the_history_goes_into_the_basket(shown: Shown, chromium) -> None:
    reject, passed = shown.rejects[2], shown.judged[0]
    address = f"{shown.served.url}#/line-1/history?seen={reject.epoch}/"
    with opened(chromium, address + str(reject.seq)) as page:
        put = page.locator("button.basket")
        wait_for(lambda: put.is_visible() and put.is_enabled())
        assert put.inner_text() == "Good: teach it"
        put.click()
        said = page.locator("#said .done")
        said.wait_for()
        assert "basket of recipe r, camera top" in said.inner_text()
        (part,) = shown.basket
        assert (part["verdict"]["epoch"], part["verdict"]["seq"]) == (reject.epoch, reject.seq)
        told = shown.ask("history", marked=True).json()["entries"]
        marks = {one["verdict"]["seq"]: one["marks"][-1]["label"] for one in told}
        assert marks[reject.seq] == "good"
        assert put.inner_text() == "In the basket" and put.is_disabled()
        # Of a part that passed the station has the judged region alone.
        page.locator("button.row", has_text=passed.part_id).click()
        page.get_by_role("heading", name=passed.part_id).wait_for()
        wait_for(lambda: put.is_visible() and put.is_enabled())
        put.click()
        page.locator("#said .problem").wait_for()
        assert "has not kept the whole picture" in page.locator("#said").inner_text()
        page.problems.clear()  # the browser's own word about the refused request
        page.locator("button.row", has_text=reject.part_id).click()
        page.get_by_role("button", name="In the basket").wait_for()
        assert len(shown.basket) == 1
        page.goto(f"{shown.served.url}#/line-1/teach?camera=top")
        page.get_by_role("heading", name="Basket: 1 to teach").wait_for()
    shown.tell("basket/remove", ids=[part["id"]])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_false_reject_is_taught_by_the_page_alone(
    trained: Path, tmp_path: Path, chromium
) -> None:
    pytest.importorskip("torch")
    # Of good parts a good deal is rejected by a limit that is a little too low.
    recipe = {"belt": {"bundle": str(trained / "small.onnx"), "limit_factor": 0.93}}
    belt = {"name": "belt", "kind": "simulator", "rate_hz": 2, "seed": 7, "defect_rate": 0.3}
    path = serving.write_demo_station(tmp_path / "line", recipes={"flange": recipe}, cameras=[belt])
    with running.running(path) as line:
        line.wait_for_log(r" state=ContinuousExecution ")
        stations = {"line-1": serving.addresses(line)}
        training = {"runs": {"line-1": {"flange": {"belt": str(trained / "run")}}}}
        with serving.serving(
            tmp_path / "console", stations, state=str(tmp_path / "state"), training=training
        ) as served:
            _teach_by_hand(served, chromium, tmp_path)


def _teach_by_hand(served: serving.Served, chromium: Any, folder: Path) -> None:
    def found(**asked: Any) -> list[dict[str, Any]]:
        told = served.client.get(f"{STATION}/history", params=asked, timeout=30).json()
        return [one["verdict"] for one in told["entries"] if one["has_picture"]]

    def newest() -> dict[str, Any]:
        return found()[0]

    # Those pictures are written after their verdicts.
    wait_for(lambda: len(found(verdicts="FAIL")) >= 4, 120)
    first = newest()["model"]
    with opened(chromium, f"{served.url}#/line-1/teach") as page:
        page.get_by_role("button", name="Last rejects").click()
        for count in (1, 2, 3):
            page.locator(".put:not([disabled])").first.click()
            basket = page.get_by_role("heading", name=f"Basket: {count} to teach")
            # What the page says in place of it fails the test in its own words.
            basket.or_(page.locator("#said .problem")).wait_for()
            assert basket.is_visible(), page.locator("#said").inner_text()
        page.get_by_role("button", name="Teach these parts").click()
        page.locator("#confirm").click()
        page.get_by_text("Teaching the parts (step 1 of 3)").wait_for()
        # The page may be loaded anew; the station judges meanwhile.
        before = newest()["seq"]
        page.reload()
        page.get_by_text("3 parts are being taught").wait_for()
        wait_for(lambda: newest()["seq"] > before)
        page.get_by_role("button", name="Use the taught model").wait_for(timeout=600_000)
        job = served.client.get(f"{STATION}/jobs/teach").json()["job"]
        assert job["state"] == "done" and job["left_out"] == {}, job
        assert all(part["now"] < part["before"] for part in job["result"]["parts"])
        assert job["result"]["trial"]["judged"] >= 3
        page.get_by_text("Tried on the last").wait_for()
        taught = job["result"]["bundle"]["sha256"]
        assert newest()["model"]["sha256"] == first["sha256"]

        page.get_by_role("button", name="Use the taught model").click()
        page.locator("#confirm").click()
        page.get_by_role("button", name="Back to the model of before").wait_for()
        wait_for(lambda: newest()["model"]["sha256"] == taught)
        assert served.client.get(f"{STATION}/basket").json()["parts"] == []
        about = served.client.get(
            f"{STATION}/teach", params={"recipe": "flange", "camera": "belt"}
        ).json()
        # The next lesson goes on from the extended run, of which the page knows.
        assert (about["problem"], about["model"]["sha256"]) == ("", taught)

        page.get_by_role("button", name="Back to the model of before").click()
        page.locator("#confirm").click()
        page.get_by_role("button", name="Use the taught model").wait_for()
        wait_for(lambda: newest()["model"]["sha256"] == first["sha256"])
    deeds = served.client.get(f"{STATION}/deeds").json()["deeds"]
    assert [one["kind"] for one in deeds[:2]] == ["revert", "install"]
    assert not list((folder / "state" / "lessons").glob("*/kept"))
