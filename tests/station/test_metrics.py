from __future__ import annotations

import contextlib
import re
import selectors
import socket
import struct
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
from inspector.station import metrics as metrics_module
from inspector.station.metrics import Metrics
from inspector.verdict import Reason, Verdict
from inspector.wire.messages import CameraStatus, ModelField, StatusMessage, VerdictMessage
from tests import parties
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
        | {"schema": 2, "station": "line-1", "camera": "top", "epoch": "e", "seq": 1}
        | {"part_id": "", "verdict": kind, "score": 0.5 if judged else None, "reason": reason}
        | {"detail": "", "limit_factor": 1.0, "regions": (), "recipe": "r", "judged_us": 0}
        | {"client": "", "session": "", "repeated": False}
        | {"lot": "", "purpose": "production"}
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
    metrics.journal(17, failing=True, forgotten=3, damaged=2)
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
    assert seen("journal_damaged_rows") == 2
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


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/metric"])
def test_elsewhere_is_a_404_that_says_where(metrics, path):
    address = metrics.serve("127.0.0.1:0")
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        get(address, path)
    with refused.value as reply:
        assert reply.read() == b"the figures are at /metrics\n"
    assert "inspector_info" in get(address, "/metrics?t=1")


def test_address_in_use_is_refused_with_a_cure(metrics):
    taken = metrics.serve("127.0.0.1:0")
    for address, why in ((taken, "in use"), ("127.0.0.1:99999", "no port has that number")):
        other = Metrics("line-2", [])
        with pytest.raises(PortError, match=rf"metrics: {address}: .*{why}; choose another"):
            other.serve(address)
        other.close()


def serving() -> int:
    """Threads that serve metrics: one that waits for connections, and one for each of them."""
    names = [thread.name for thread in threading.enumerate()]
    return sum(name == "metrics" or "process_request" in name for name in names)


@contextlib.contextmanager
def peers(address: str, count: int, say: bytes = b"GET /metr") -> Iterator[list[socket.socket]]:
    """Connections that say ``say`` and no more."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.create_connection((host, int(port)))))
            made[-1].sendall(say)
        yield made


def test_closing_frees_the_port_and_leaves_no_thread(metrics):
    address = metrics.serve("127.0.0.1:0")
    get(address)
    metrics.close()
    metrics.close()
    assert serving() == 0
    other = Metrics("line-1", [])
    assert other.serve(address) == address
    other.close()


@pytest.mark.parametrize("count", [8, 30, 200])
def test_slow_peers_neither_block_scrapes_nor_the_end(metrics, count):
    address = metrics.serve("127.0.0.1:0")
    with peers(address, count) as slow:
        for _ in range(5):
            began = time.monotonic()
            assert "inspector_info" in get(address)
            assert time.monotonic() - began < 2.0
            for peer in slow:
                with contextlib.suppress(OSError):
                    peer.sendall(b"i")
        assert serving() < 40
        began = time.monotonic()
        metrics.close()
        assert time.monotonic() - began < 2.0
        assert serving() == 0


def test_peers_that_come_again_whenever_they_are_cut_off_block_no_scrape(metrics):
    address = metrics.serve("127.0.0.1:0")
    host, _, port = address.rpartition(":")
    ended = threading.Event()

    def insist() -> None:
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as ready:
            for _ in range(60):
                peer = stack.enter_context(socket.create_connection((host, int(port))))
                ready.register(peer, selectors.EVENT_READ)
            while not ended.is_set():
                for key, _ in ready.select(0.1):
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
                    peer = stack.enter_context(socket.create_connection((host, int(port))))
                    ready.register(peer, selectors.EVENT_READ)

    insisting = threading.Thread(target=insist)
    insisting.start()
    for _ in range(20):
        assert "inspector_info" in get(address)
    ended.set()
    insisting.join()


@pytest.mark.parametrize("say", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
def test_request_that_does_not_come_in_time_is_cut_off(metrics, monkeypatch, say):
    monkeypatch.setattr(metrics_module, "_REQUEST_S", 0.5)
    with peers(metrics.serve("127.0.0.1:0"), 3, say) as slow:
        began = time.monotonic()
        ended = False
        while not ended and time.monotonic() - began < 10.0:
            # A byte now and then does not keep a connection.
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                slow[0].sendall(b"x")
            ended = parties.was_cut_off(slow[0], 0.01)
        assert 0.4 < time.monotonic() - began < 3.0
        assert all(parties.was_cut_off(peer) for peer in slow)
        assert parties.wait_until(lambda: serving() == 1)


def test_reader_that_does_not_read_is_cut_off(metrics, monkeypatch):
    monkeypatch.setattr(metrics_module, "_REQUEST_S", 0.5)
    for seq in range(20_000):
        metrics.queue(f"{seq:0100}", 1)
    host, _, port = metrics.serve("127.0.0.1:0").rpartition(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert parties.wait_until(lambda: serving() == 2)
        assert parties.wait_until(lambda: serving() == 1)


@pytest.mark.parametrize(
    "header",
    [b"X: " + bytes(1 << 20), b"X-Many: headers\r\n" * (1 << 16)],
    ids=["one of 1 MB", "65,536 of them"],
)
def test_large_request_is_refused_soon(metrics, header):
    address = metrics.serve("127.0.0.1:0")
    with peers(address, 1) as (large,):
        # The rest may no longer be taken.
        with contextlib.suppress(OSError):
            large.sendall(b"ics HTTP/1.1\r\n" + header)
        assert parties.was_cut_off(large, 2.0)
    assert "inspector_info" in get(address)
    with peers(address, 1, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (16 << 10)) as (large,):
        large.settimeout(5.0)
        assert b" 431 " in large.recv(100)


def test_client_gone_in_the_middle_is_no_event(metrics, caplog):
    address = metrics.serve("127.0.0.1:0")
    for say in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n", b"\0" * 100, b"\r\n"):
        with peers(address, 5, say) as gone:
            for peer in gone[::2]:
                # Reset, not ended.
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert "inspector_info" in get(address)
    assert parties.wait_until(lambda: serving() == 1)
    assert caplog.text == ""


def test_scrape_that_fails_is_logged_and_the_next_is_answered(metrics, caplog, capsys, monkeypatch):
    address = metrics.serve("127.0.0.1:0")
    with monkeypatch.context() as broken:
        broken.setattr(metrics, "_heard_s", None)
        with pytest.raises(urllib.error.HTTPError, match="500") as failed:
            get(address)
        failed.value.close()
    assert "inspector_info" in get(address)
    assert "TypeError" in caplog.text
    assert capsys.readouterr() == ("", "")


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


def test_alert_rules_ask_for_figures_that_there_are():
    text = (ROOT / "config" / "prometheus-rules.yaml").read_text("utf-8")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) >= 8
    names = ours(PAGE.read_text("utf-8").partition("## Alert")[0])
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert ours(rule["expr"]) <= names
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_what_is_no_production_is_counted_apart(metrics, scrape):
    for purpose in ("production", "challenge", "study", "study"):
        metrics.verdict(verdict(purpose=purpose))
    metrics.verdict(verdict(Verdict.FAIL, "anomaly", purpose="challenge"))
    figures = scrape()
    assert figures("verdicts_total", camera="top", verdict="PASS", reason="") == 1
    assert figures("verdicts_total", camera="top", verdict="FAIL", reason="anomaly") == 0

    def apart(purpose: str, kind: str) -> float:
        return figures("uncounted_verdicts_total", camera="top", purpose=purpose, verdict=kind)

    assert [apart("challenge", "PASS"), apart("challenge", "FAIL"), apart("study", "PASS")] == [
        *(1, 1, 2)
    ]
