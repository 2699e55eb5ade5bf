from __future__ import annotations

import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from inspector.detection.bundle import read
from inspector.detection.manifest import Manifest
from inspector.errors import PortError
from inspector.station.metrics import Metrics
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import CameraStatus, ModelField, StatusMessage, VerdictMessage
from tests.paths import ROOT

PAGE = ROOT / "docs" / "operations.md"


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    metrics = Metrics("line-1", ["top", "side"])
    yield metrics
    metrics.close()


def get(address: str, path: str = "/metrics", accept: str = "") -> str:
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as reply:
        return reply.read().decode()


class Scrape:
    """All samples as a scraper reads them."""

    def __init__(self, address: str) -> None:
        self.families = {family.name: family for family in parse(get(address))}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples[f"inspector_{name}", frozenset(labels.items())]


@pytest.fixture
def scrape(metrics):
    address = metrics.serve("127.0.0.1:0")
    return lambda: Scrape(address)


def verdict(kind: Verdict = Verdict.PASS, reason: str = "", **fields: Any) -> VerdictMessage:
    blank: dict[str, Any] = dict.fromkeys(VerdictMessage.model_fields)
    judged = kind is not Verdict.FAULT
    return VerdictMessage.model_validate(
        blank
        | {"schema": 1, "station": "line-1", "camera": "top", "epoch": "e", "seq": 1}
        | {"part_id": "", "verdict": kind, "score": 0.5 if judged else None, "reason": reason}
        | {"detail": "", "limit_factor": 1.0, "regions": (), "recipe": "r", "judged_us": 0}
        | {"client": "", "session": ""}
        | fields
    )


def status(metrics_state: str, **cameras: str) -> StatusMessage:
    return StatusMessage(
        station="line-1",
        epoch="e",
        state=metrics_state,
        last_seq=0,
        passed=0,
        failed=0,
        faults=0,
        recipe="r",
        provider="CPUExecutionProvider",
        inference="",
        cameras=tuple(
            CameraStatus(name=name, state=state, detail="", frames=0)
            for name, state in cameras.items()
        ),
        sent_us=0,
    )


def test_verdicts_are_counted_by_camera_kind_and_reason(metrics, scrape):
    metrics.verdict(verdict())
    metrics.verdict(verdict())
    metrics.verdict(verdict(Verdict.FAIL, "anomaly", camera="side"))
    metrics.verdict(verdict(Verdict.FAULT, "too_dark"))
    seen = scrape()
    assert seen("verdicts_total", camera="top", verdict="PASS", reason="") == 2
    assert seen("verdicts_total", camera="side", verdict="FAIL", reason="anomaly") == 1
    assert seen("verdicts_total", camera="top", verdict="FAULT", reason="too_dark") == 1
    # Every other kind stands at zero, so that its first one is seen by a rate.
    counted = seen.families["inspector_verdicts"].samples
    assert sum(sample.value for sample in counted) == 4
    assert len(counted) == 2 * len(Reason)


def test_times_are_histograms_by_stage_in_seconds(metrics, scrape):
    metrics.verdict(verdict(queue_ms=0.4, judge_ms=30.0))
    metrics.verdict(verdict(Verdict.FAULT, "camera_lost"))
    metrics.stage("trigger_to_verdict", 0.034, "top")
    metrics.stage("commit", 0.003)
    seen = scrape()
    for stage, camera, total in (
        ("queue", "top", 0.0004),
        ("judge", "top", 0.03),
        ("trigger_to_verdict", "top", 0.034),
        ("commit", "", 0.003),
    ):
        assert seen("stage_seconds_count", stage=stage, camera=camera) == 1
        assert seen("stage_seconds_sum", stage=stage, camera=camera) == pytest.approx(total)
    assert seen("stage_seconds_bucket", stage="judge", camera="top", le="0.02") == 0
    assert seen("stage_seconds_bucket", stage="judge", camera="top", le="0.05") == 1
    assert seen("stage_seconds_count", stage="judge", camera="side") == 0


def test_camera_states_tell_losses_and_returns(metrics, scrape):
    for state in ("running", "lost", "lost", "opening", "lost", "running", "lost"):
        metrics.status(status("ContinuousExecution", top=state, side="running"))
    seen = scrape()
    assert seen("camera_state", camera="top", state="lost") == 1
    assert seen("camera_state", camera="top", state="running") == 0
    assert seen("camera_state", camera="side", state="running") == 1
    assert seen("camera_losses_total", camera="top") == 2
    assert seen("camera_reopens_total", camera="top") == 1
    assert seen("camera_losses_total", camera="side") == 0
    assert 0 <= seen("loop_age_seconds") < 5
    assert seen("state", state="ContinuousExecution") == 1
    assert seen("state", state="Preoperational") == 0


def test_a_count_since_the_start_is_taken_over_and_never_twice(metrics, scrape):
    for total in (0, 2, 2, 5):
        counts: dict[str, Any] = {"over_triggers": total, "overruns": 1, "late": 3}
        counts["repeated"] = 2 * total
        metrics.status(status("Ready").model_copy(update=counts))
        metrics.refused(total)
    seen = scrape()
    assert seen("over_triggers_total") == 5
    assert seen("overruns_total") == 1
    assert seen("late_results_total") == 3
    assert seen("repeated_triggers_total") == 10
    assert seen("refused_connections_total") == 5


def test_the_rest_of_the_station(metrics, scrape):
    metrics.queue("top", 3)
    metrics.journal(17, failing=True, forgotten=3)
    metrics.dropped("published")
    metrics.dropped("kept", 4)
    metrics.drift("top", 0.7)
    metrics.self_test("top", missed=False)
    metrics.self_test("top", missed=True)
    metrics.self_test("top", missed=True)
    seen = scrape()
    assert seen("queue_depth", camera="top") == 3
    assert (seen("journal_waiting"), seen("journal_failing")) == (17, 1)
    assert seen("forgotten_verdicts_total") == 3
    assert seen("pictures_dropped_total", kind="published") == 1
    assert seen("pictures_dropped_total", kind="kept") == 4
    assert seen("drift_statistic", camera="top") == 0.7
    assert seen("self_tests_total", camera="top", result="missed") == 2
    assert seen("self_tests_total", camera="top", result="found") == 1
    assert "process_resident_memory_bytes" in seen.families


def test_a_model_has_a_name_and_grows_older(metrics, scrape, bundle_path):
    manifest: Manifest = read(bundle_path).manifest
    made = datetime.now(timezone.utc) - timedelta(days=2)
    days = {}
    for version, created in (
        ("1", made.isoformat(timespec="seconds")),
        ("2", f"{made:%Y-%m-%dT%H:%M:%SZ}"),
        ("3", "some day"),
    ):
        model = ModelField(name="flange", version=version, sha256="ab")
        metrics.model("top", model, manifest.model_copy(update={"created": created}))
        days[version] = scrape()("model_age_seconds", camera="top") / 86_400
    assert days["1"] == pytest.approx(2, abs=0.01)
    assert days["2"] == pytest.approx(2, abs=0.01)
    assert days["3"] != days["3"]
    # The model before it is gone: one series a camera, whatever is swapped in over the months.
    (sample,) = scrape().families["inspector_model_info"].samples
    assert sample.labels == {"camera": "top", "name": "flange", "version": "3", "sha256": "ab"}


def test_openmetrics_scrapers_are_served_too(metrics):
    address = metrics.serve("127.0.0.1:0")
    text = get(address, accept="application/openmetrics-text; version=1.0.0")
    assert "inspector_verdicts" in {family.name for family in parse_openmetrics(text)}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(address, "/")


def test_address_in_use_is_refused_with_a_cure(metrics):
    taken = metrics.serve("127.0.0.1:0")
    for address, why in ((taken, "in use"), ("127.0.0.1:99999", "no port has that number")):
        other = Metrics("line-2", [])
        with pytest.raises(PortError, match=rf"metrics: {address}: .*{why}; choose another"):
            other.serve(address)
        other.close()


def test_closing_frees_the_port_and_leaves_no_thread(metrics):
    address = metrics.serve("127.0.0.1:0")
    get(address)
    metrics.close()
    metrics.close()
    assert "metrics" not in {thread.name for thread in threading.enumerate()}
    other = Metrics("line-1", [])
    assert other.serve(address) == address
    other.close()


def test_peers_that_say_nothing_neither_block_scrapes_nor_the_end(metrics):
    host, _, port = metrics.serve("127.0.0.1:0").rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(4)]
    silent[0].sendall(b"GET /metr")
    assert "inspector_info" in get(f"{host}:{port}")
    began = time.monotonic()
    metrics.close()
    assert time.monotonic() - began < 2.0
    for peer in silent:
        peer.close()


def test_more_connections_than_it_serves_are_shut(metrics):
    host, _, port = metrics.serve("127.0.0.1:0").rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(30)]
    deadline = time.monotonic() + 5.0
    served = len(silent)
    while served > 8 and time.monotonic() < deadline:
        served = 0
        for peer in silent:
            peer.settimeout(0.01)
            try:
                served += peer.recv(1) != b""
            except TimeoutError:
                served += 1
            except ConnectionError:
                pass
    assert served == 8
    assert sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) <= 8
    for peer in silent:
        peer.close()


def test_many_threads_count_every_verdict(metrics, scrape):
    def work() -> None:
        for total in range(500):
            metrics.verdict(verdict())
            metrics.refused(total)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scrape()("verdicts_total", camera="top", verdict="PASS", reason="") == 2000
    assert scrape()("refused_connections_total") == 499


def ours(text: str) -> set[str]:
    """Names of ours as a scraper sees them, a histogram's without its ending."""
    names = set(re.findall(r"\b(?:inspector|process)_[a-z_]+\b", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_the_page_lists_every_figure_and_no_other(scrape):
    seen = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in scrape().families.values()
    }
    seen |= {"inspector_model_info", "inspector_model_age_seconds"}
    listed = ours("\n".join(re.findall(r"^\| `(\w+)", PAGE.read_text("utf-8"), re.MULTILINE)))
    assert {name for name in seen if name.startswith("inspector_")} == {
        name for name in listed if name.startswith("inspector_")
    }
    assert listed <= seen


def test_alert_rules_of_the_page_ask_for_figures_that_there_are(scrape):
    (text,) = re.findall(r"```yaml\n(groups:.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) >= 8
    names = ours(PAGE.read_text("utf-8").partition("## Alert")[0])
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert ours(rule["expr"]) <= names
        assert rule["expr"].count("(") == rule["expr"].count(")")
