"""Set up: photos taken at the page, the region, training, and the view itself in a browser."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from inspector.config.console_file import ShownStation
from inspector.console.access import Person
from inspector.console.app import Page
from inspector.console.collecting import Collecting
from inspector.console.hub import Hub
from inspector.console.line import Line
from inspector.imaging.images import decode, encode_jpeg, encode_png, gaussian_blur
from tests import running, tiny
from tests.console import serving
from tests.console.serving import opened, wait_for
from tests.loops import in_a_loop

WIDTH, HEIGHT = 320, 240
PARTS = 6
PHOTOS = "/api/stations/line-1/photos"


def part(number: int) -> np.ndarray:
    """A part unlike the others, in the same light and as sharp."""
    blocks = np.random.default_rng(number).integers(60, 200, (HEIGHT // 20, WIDTH // 20, 3))
    return np.kron(blocks, np.ones((20, 20, 1))).astype(np.uint8)


def blurred(picture: np.ndarray) -> np.ndarray:
    planes = [gaussian_blur(picture[:, :, at].astype(np.float32), 9.0) for at in range(3)]
    return np.stack(planes, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A station whose camera shows six known parts, then one out of focus, over and over."""
    folder = tmp_path_factory.mktemp("line")
    pictures = [part(number) for number in range(PARTS)]
    parts = running.write_parts(folder / "parts", *pictures, blurred(part(99)))
    camera = running.folder_camera(parts, "belt", rate_hz=8, loop=True)
    bundle = tiny.write_bundle(folder / "tiny.onnx")
    sockets = dict.fromkeys(("verdicts", "images", "commands", "queries"), "tcp://127.0.0.1:*")
    station = running.write_station(folder / "station.yaml", bundle, camera, sockets=sockets)
    with running.running(station) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ")
        yield daemon


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state") / "of the page"


@pytest.fixture(scope="module")
def served(line, state, tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    stations = {"line-1": serving.addresses(line)}
    with serving.serving(folder, stations, state=str(state)) as made:
        wait_for(lambda: snapshot_of(made)["status"])
        yield made


def snapshot_of(served):
    with served.client.stream("GET", "/api/events", timeout=20) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                return json.loads(line[6:])[0]
    raise AssertionError("no snapshot")


def post(served, path, status=200, **told):
    session = served.client.get("/api/session").json()
    headers = {"X-CSRF-Token": session["csrf"]}
    answer = served.client.post(path, json=told, headers=headers, timeout=30)
    assert answer.status_code == status, answer.text
    return answer.json()


def new_set(served) -> str:
    return f"{PHOTOS}/{post(served, PHOTOS, camera='belt')['number']}"


def collected(served, where, goal=PARTS, within_s=40.0):
    post(served, f"{where}/each", on=True, goal=goal)

    def enough():
        told = served.client.get(where).json()
        return not told["taking"] and told

    return wait_for(enough, within_s)


def collected_without_doubt(served, where):
    """As ``collected``, without the one out of focus, which is not doubted before five others."""
    while True:
        told = collected(served, where)
        doubted = [one["name"] for one in told["photos"] if one["objections"]]
        if not doubted:
            return told
        for name in doubted:
            post(served, f"{where}/remove", photo=name)


def test_files_of_a_browser_become_photos_of_the_set(served, state):
    number = post(served, PHOTOS, camera="belt")["number"]
    where = f"{PHOTOS}/{number}/add"
    served.take_token()

    def add(data, **asked):
        answer = served.client.post(where, content=data, params=asked)
        told = answer.json()
        return told.get("code") or told["name"] or [one["kind"] for one in told["objections"]]

    for at in range(PARTS):
        data = encode_jpeg(part(at), 95) if at == 1 else encode_png(part(at))
        assert add(data) == f"{at:04d}.png"
        kept = decode((state / "photos" / f"{number:04d}" / f"{at:04d}.png").read_bytes())
        assert np.array_equal(kept, decode(data)), at
    assert add(encode_png(part(2))) == ["already_there"]
    assert add(encode_png(blurred(part(99)))) == ["blurred"]
    assert add(encode_png(blurred(part(99))), keep_all="1") == f"{PARTS:04d}.png"
    assert add(encode_png(part(50)[:-20])) == add(encode_png(part(50)[:, :, 0])) == "photo_shape"
    for damaged in (b"", b"no picture", encode_png(part(51))[:-40], encode_jpeg(part(51))[:-400]):
        assert add(damaged) == "photo"
    assert add(bytes(129 << 20)) == "too_long"
    assert len(served.client.get(f"{PHOTOS}/{number}").json()["photos"]) == PARTS + 1


def test_a_file_that_is_to_be_shown_turned_is_kept_as_it_is_stored_and_told(served, state):
    number = post(served, PHOTOS, camera="belt")["number"]
    served.take_token()
    exif = Image.Exif()
    exif[0x0112] = 6
    for at, mark in enumerate((exif, None)):
        file = io.BytesIO()
        Image.fromarray(part(at)).save(file, "PNG", **({"exif": mark} if mark else {}))
        answer = served.client.post(f"{PHOTOS}/{number}/add", content=file.getvalue()).json()
        assert (answer["name"], answer["turned"]) == (f"{at:04d}.png", mark is not None)
        kept = decode((state / "photos" / f"{number:04d}" / answer["name"]).read_bytes())
        assert kept.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.long
def test_photos_are_what_the_camera_saw_and_each_part_is_taken_once(served, state):
    where = new_set(served)
    told = collected_without_doubt(served, where)
    assert told["why"] == "enough" and len(told["photos"]) == PARTS
    sources = [part(number) for number in range(PARTS)]
    seen = set()
    for photo in told["photos"]:
        data = served.client.get(f"{where}/picture/{photo['name']}").content
        assert data == (state / "photos" / f"{told['number']:04d}" / photo["name"]).read_bytes()
        seen.add(next(at for at, one in enumerate(sources) if np.array_equal(decode(data), one)))
    assert seen == set(range(PARTS))
    small = served.client.get(f"{where}/picture/{photo['name']}", params={"side": "small"})
    assert small.headers["content-type"] == "image/jpeg"
    assert max(decode(small.content).shape) == 240

    # All that comes now is there already, or out of focus; even who keeps all keeps no copy.
    kinds = set()
    for _ in range(30):
        taken = post(served, f"{where}/take")
        assert taken["name"] == "" and taken["count"] == PARTS
        kinds |= {one["kind"] for one in taken["objections"]}
        if {"already_there", "blurred"} <= kinds:
            break
    assert {"already_there", "blurred"} <= kinds

    def kept_though_blurred():
        return post(served, f"{where}/take", keep_all=True)["name"]

    assert wait_for(kept_though_blurred)
    told = served.client.get(where).json()
    assert len(told["photos"]) == PARTS + 1
    assert [one["kind"] for one in told["photos"][-1]["objections"]] == ["blurred"]

    gone = told["photos"][-1]["name"]
    told = post(served, f"{where}/remove", photo=gone)
    assert gone not in {one["name"] for one in told["photos"]}
    assert not (state / "photos" / f"{told['number']:04d}" / gone).exists()
    post(served, f"{where}/remove", 404, photo=gone)


def test_a_region_counts_for_photos_and_one_beyond_the_picture_is_refused_in_words(served):
    where = new_set(served)
    region = {"x": 40, "y": 20, "w": 200, "h": 180}
    assert post(served, f"{where}/region", region=region)["region"] == region
    assert post(served, f"{where}/take")["name"]
    post(served, f"{where}/region", region={**region, "w": 100_000})
    refused = post(served, f"{where}/take", 409)
    assert refused["code"] == "photo" and "reaches beyond" in refused["detail"]
    for wrong in ({"x": -1, "y": 0, "w": 9, "h": 9}, {"x": 0}, "all", {**region, "w": 1.5}):
        assert post(served, f"{where}/region", 400, region=wrong)["code"] == "malformed"
    assert post(served, f"{where}/region", region=None)["region"] is None


def test_no_name_from_outside_reaches_a_file(served, state):
    where = new_set(served)
    post(served, f"{where}/take")
    for asked in (
        ".set.json",
        "..%2f0001%2f0000.png",
        "%2fetc%2fpasswd",
        "0000.png%00",
        "9999.png",
    ):
        assert served.client.get(f"{where}/picture/{asked}").status_code == 404, asked
    post(served, f"{where}/remove", 404, photo="../0001/.set.json")
    post(served, f"{where}/remove", 404, photo=["0000.png"])
    post(served, PHOTOS, 404, camera="../../belt")
    for path in (f"{PHOTOS}/9999", f"{PHOTOS}/..%2f1", "/api/stations/..%2f/photos"):
        assert served.client.get(path).status_code == 404, path
    for model in ("9999", "..%2f1"):
        path = f"/api/stations/line-1/models/{model}/report"
        assert served.client.get(path).status_code == 404
    assert {one.name for one in state.iterdir()} <= {
        "photos",
        "jobs",
        "trained",
        "models",
        "baskets",
        "sessions.json",
    }
    assert all(one.name.isdecimal() for one in (state / "photos").iterdir())


def test_a_preview_says_how_large_the_cameras_picture_is(served):
    answer = served.client.get("/api/stations/line-1/preview/belt")
    told = json.loads(answer.headers["x-picture"])
    assert (told["width"], told["height"]) == (WIDTH, HEIGHT)
    # Whoever asks while somebody waits for the same picture gets that one.
    with ThreadPoolExecutor(8) as pool:
        where = "/api/stations/line-1/preview/belt?full=1"
        answers = list(pool.map(lambda _: served.client.get(where, timeout=20), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) < 8


def test_training_asks_for_photos_first(served):
    where = new_set(served)
    post(served, f"{where}/take")
    assert post(served, f"{where}/train", 409)["code"] == "few_photos"
    assert post(served, f"{where}/train", 400, pace="--help")["code"] == "malformed"
    number = where.rpartition("/")[2]
    told = served.client.get("/api/stations/line-1/models", params={"set": number}, timeout=60)
    assert told.json()["models"] == []
    assert told.json()["commands"][0].startswith("inspector-model train '")


def test_a_report_is_shown_without_rights_and_a_model_that_is_none_is_not_used(served, state):
    folder = state / "trained" / "0007"
    (folder / "run").mkdir(parents=True)
    notes = {"station": "line-1", "camera": "belt", "set": 1, "photos": 12, "pace": "usual"}
    notes |= {"name": "belt-1", "made_us": 1, "sha256": ""}
    where = "/api/stations/line-1/models/7"
    assert served.client.get(f"{where}/report").status_code == 404
    (folder / "model.json").write_text(json.dumps(notes))
    (folder / "run" / "report.html").write_text("<h1>belt-1</h1><style>h1 { color: red }</style>")
    report = served.client.get(f"{where}/report")
    # The page's own policy would take the report's styles; this one lets nothing run at all.
    (policy,) = report.headers.get_list("content-security-policy")
    assert policy.startswith("sandbox; default-src 'none'") and "script" not in policy
    assert report.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self'" in served.client.get("/").headers["content-security-policy"]
    assert post(served, f"{where}/use", 409, recipe="r")["code"] == "unfinished"
    assert served.client.get(f"{where}/bundle").status_code == 404
    assert served.client.get("/api/stations/line-1/models", timeout=60).json()["models"] == []

    # One that the station refuses leaves all as it was.
    (folder / "model.json").write_text(json.dumps(notes | {"sha256": "0" * 64}))
    (folder / "part.onnx").write_bytes(b"no bundle")
    refused = post(served, f"{where}/use", 409, recipe="r")
    assert refused["code"] in {"failed", "malformed"}, refused
    assert post(served, f"{where}/use", 409, recipe="other")["code"] in {"unknown", "failed"}
    deeds = served.client.get("/api/stations/line-1/deeds").json()["deeds"]
    assert not any(one["kind"] == "install" for one in deeds)


class As:
    """Every request comes from this person."""

    def __init__(self, app, who):
        self._app, self._who = app, who

    async def __call__(self, scope, receive, send):
        scope.setdefault("state", {})["person"] = self._who
        await self._app(scope, receive, send)


def asked(folder, *requests, role="engineer", reserve_bytes=0):
    """The answers to requests, each (method, path, JSON), without a station."""

    async def ask():
        hub = Hub()
        one = Line("line-1", ShownStation(), None, hub.tell)
        one.status = {"cameras": [{"name": "belt"}]}
        collecting = Collecting(folder, hub.tell, reserve_bytes)
        who = Person("Li", role)
        page = Page([one], hub, collecting.routes)
        transport = httpx.ASGITransport(As(page.app, who=who))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return [await client.request(m, path, json=told) for m, path, told in requests]
        finally:
            await collecting.end()
            collecting.close()
            one.close()

    return in_a_loop(ask())


def test_who_may_not_is_refused_and_who_looks_sees(tmp_path):
    (made,) = asked(tmp_path, ("POST", PHOTOS, {"camera": "belt"}))
    assert made.json()["by"] == "Li"
    deeds = [
        ("POST", PHOTOS, {"camera": "belt"}),
        *(("POST", f"{PHOTOS}/1/{deed}", {}) for deed in ("take", "each", "remove", "region")),
    ]
    for role in ("viewer", "operator"):
        for answer in asked(tmp_path, *deeds, role=role):
            assert answer.status_code == 403 and answer.json()["code"] == "role"
        told = asked(tmp_path, ("GET", PHOTOS, None), ("GET", f"{PHOTOS}/1", None), role=role)
        assert [one.status_code for one in told] == [200, 200]


def test_without_a_folder_the_page_only_looks():
    listed, made = asked(None, ("GET", PHOTOS, None), ("POST", PHOTOS, {"camera": "belt"}))
    assert listed.json()["writable"] is False and listed.json()["sets"] == []
    assert made.status_code == 409 and made.json()["code"] == "no_state"


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path):
    (made,) = asked(tmp_path, ("POST", PHOTOS, {"camera": "belt"}), reserve_bytes=1 << 60)
    assert made.status_code == 507 and made.json()["code"] == "disk"
    assert list(tmp_path.iterdir()) == []


def test_sets_are_there_after_a_restart_and_foreign_folders_stay_as_they_are(tmp_path):
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "mine.png").write_bytes(encode_png(part(1)))
    (made,) = asked(tmp_path, ("POST", PHOTOS, {"camera": "belt"}))
    number = made.json()["number"]
    assert number == 2
    (tmp_path / "0002" / "0000.png").write_bytes(encode_png(part(2)))
    listed, shown = asked(tmp_path, ("GET", PHOTOS, None), ("GET", f"{PHOTOS}/{number}", None))
    assert [one["number"] for one in listed.json()["sets"]] == [number]
    assert [one["name"] for one in shown.json()["photos"]] == ["0000.png"]
    assert [one.name for one in (tmp_path / "0001").iterdir()] == ["mine.png"]


def test_a_folder_that_somebody_fills_meanwhile_is_said_to_be_in_use(tmp_path):
    from inspector.photos.album import Album

    asked(tmp_path, ("POST", PHOTOS, {"camera": "belt"}))
    album = Album(tmp_path / "0001")
    try:
        (shown,) = asked(tmp_path, ("GET", f"{PHOTOS}/1", None))
    finally:
        album.close()
    assert shown.status_code == 409 and shown.json()["code"] == "folder"
    assert "another collect" in shown.json()["detail"]


# In a browser.

SIZES = {"panel": (1024, 600), "phone": (390, 844), "wall": (1920, 1080)}


def shown_at(stage, x, y):
    """Where pixel (x, y) of the camera lies on the screen: the picture is shown whole, centred."""
    box = stage.bounding_box()
    # Of the border's inside.
    left, top, width, height = box["x"] + 1, box["y"] + 1, box["width"] - 2, box["height"] - 2
    scale = min(width / WIDTH, height / HEIGHT)
    return (
        left + (width - scale * WIDTH) / 2 + scale * x,
        top + (height - scale * HEIGHT) / 2 + scale * y,
    )


def fields_of(page):
    return [int(page.locator(f"#region-{name}").input_value()) for name in "xywh"]


@pytest.mark.peers
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_region_is_drawn_moved_and_pulled_in_camera_pixels(served, chromium, size):
    new_set(served)
    viewport = {"width": size[0], "height": size[1]}
    with opened(chromium, f"{served.url}#/line-1/setup?step=region", viewport=viewport) as page:
        page.locator(".stage canvas[aria-label*='320']").wait_for()
        page.locator("#set option:checked").wait_for(state="attached")
        stage = page.locator(".stage")
        stage.scroll_into_view_if_needed()

        def drag(start, end):
            page.mouse.move(*shown_at(stage, *start))
            page.mouse.down()
            page.mouse.move(*shown_at(stage, *end), steps=4)
            page.mouse.up()

        drag((60, 40), (220, 200))
        assert fields_of(page) == pytest.approx([60, 40, 160, 160], abs=1)
        drag((140, 120), (160, 110))
        assert fields_of(page) == pytest.approx([80, 30, 160, 160], abs=2)
        drag((240, 190), (300, 230))
        assert fields_of(page) == pytest.approx([80, 30, 220, 200], abs=2)
        # A slip of the finger changes nothing.
        drag((10, 8), (14, 10))
        assert fields_of(page) == pytest.approx([80, 30, 220, 200], abs=2)
        # Beyond the picture it ends at its border.
        drag((80, 30), (-300, -300))
        x, y, w, h = fields_of(page)
        assert (x, y) == (0, 0) and (w, h) == (pytest.approx(300, abs=2), pytest.approx(230, abs=2))
        lines = page.locator("#region-lines").text_content().split("\n")
        assert lines == [f"region: {{x: {x}, y: {y}, w: {w}, h: {h}}}", f"--region {x},{y},{w},{h}"]
        number = page.locator("#set").input_value()
        wait_for(
            lambda: (
                served.client.get(f"{PHOTOS}/{number}").json()["region"]
                == {"x": x, "y": y, "w": w, "h": h}
            )
        )


@pytest.mark.peers
def test_a_region_is_drawn_by_a_finger(served, chromium):
    where = new_set(served)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(chromium, f"{served.url}#/line-1/setup?step=region", **phone) as page:
        page.locator(".stage canvas[aria-label*='320']").wait_for()
        page.locator("#set option:checked").wait_for(state="attached")
        stage = page.locator(".stage")
        finger = page.context.new_cdp_session(page)

        def touch(kind, *points):
            at = [dict(zip("xy", shown_at(stage, *point), strict=True)) for point in points]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

        touch("touchStart", (60, 40))
        for step in range(1, 6):
            touch("touchMove", (60 + 32 * step, 40 + 32 * step))
        touch("touchEnd")
        assert fields_of(page) == pytest.approx([60, 40, 160, 160], abs=2)
        region = dict(zip("xywh", fields_of(page), strict=True))
        wait_for(lambda: served.client.get(where).json()["region"] == region)
        # The finger has moved no page.
        assert page.evaluate("document.querySelector('main').scrollTop") == 0


@pytest.mark.peers
def test_the_histogram_stands_before_that_of_the_good_photos(served, chromium):
    where = new_set(served)
    collected_without_doubt(served, where)
    with opened(chromium, f"{served.url}#/line-1/setup") as page:
        bands = page.locator(".bars rect.band")
        bands.first.wait_for(state="attached")
        page.get_by_text("green: good parts").wait_for()
        # The photos were taken of what the camera shows: most of it lies below their most.
        told = page.evaluate("""() => {
          const found = (kind) => [...document.querySelectorAll(`.bars rect${kind}`)];
          const most = found(".band").map((one) => 100 - one.y.baseVal.value);
          const bars = found(":not(.band)").map((one) => one.height.baseVal.value);
          const within = bars.map((bar, at) => Math.min(bar, most[at]));
          const sum = (all) => all.reduce((one, other) => one + other, 0);
          return [most.length, bars.length, sum(within) / sum(bars)];
        }""")
        assert told[:2] == [32, 32]
        assert told[2] > 0.7
        # Another region of the photos has another histogram.
        post(served, f"{where}/region", region={"x": 0, "y": 0, "w": 60, "h": 60})
        before = bands.evaluate_all("all => all.map((one) => one.getAttribute('height')).join()")
        page.reload()
        bands.first.wait_for(state="attached")
        after = bands.evaluate_all("all => all.map((one) => one.getAttribute('height')).join()")
        assert before != after


@pytest.mark.peers
def test_a_region_is_typed_and_one_beyond_the_picture_is_told(served, chromium):
    new_set(served)
    with opened(chromium, f"{served.url}#/line-1/setup?step=region") as page:
        page.locator(".stage canvas[aria-label*='320']").wait_for()
        for name, value in zip("xywh", ("10", "20", "100", "90"), strict=True):
            page.locator(f"#region-{name}").fill(value)
            page.keyboard.press("Tab")
        page.get_by_text("For a station file").click()
        page.get_by_text("--region 10,20,100,90").wait_for()
        page.locator("#region-w").fill("400")
        page.keyboard.press("Tab")
        page.get_by_text("must lie within the picture of 320×240").wait_for()
        page.locator("#whole").click()
        page.get_by_text("The whole picture: no line is needed").wait_for()
        # Whoever has gone elsewhere costs the camera nothing.
        page.get_by_role("link", name="Log").click()
        page.locator("#view[data-view=deeds]").wait_for()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(1500)
        assert not [url for url in asked if "/preview/" in url]


@pytest.mark.peers
def test_photos_are_taken_warned_of_and_thrown_away_in_the_browser(served, chromium):
    where = new_set(served)
    with opened(chromium, f"{served.url}#/line-1/setup") as page:
        page.locator("#focus-advice:not(:empty)").wait_for()
        page.get_by_role("button", name="Photos").click()
        page.locator("#take").click()
        page.get_by_text("Photo 0000 kept").wait_for()
        page.locator("#each").click()
        page.locator(".photos li").nth(PARTS - 1).wait_for(timeout=60_000)
        page.get_by_text("is there already").wait_for(timeout=60_000)
        page.locator("#each").click()
        page.locator("#each[aria-pressed=false]").wait_for()
        # The one out of focus is there, too, if it came before five others.
        before = len(served.client.get(where).json()["photos"])
        page.locator(".photos button").first.click()
        page.locator("#throw-away").click()
        page.get_by_text("was thrown away").wait_for()
        assert len(served.client.get(where).json()["photos"]) == before - 1
        page.reload()
        page.locator(".photos li").nth(PARTS - 2).wait_for()


@pytest.mark.peers
def test_files_are_added_and_those_that_are_not_kept_are_named(served, chromium, tmp_path):
    number = post(served, PHOTOS, camera="belt")["number"]
    files = []
    for at in range(3):
        (tmp_path / f"good{at}.png").write_bytes(encode_png(part(at)))
        files.append(tmp_path / f"good{at}.png")
    (tmp_path / "<b>bad.png").write_bytes(b"no picture")
    files[1:1] = [tmp_path / "<b>bad.png"]
    with opened(chromium, f"{served.url}#/line-1/setup?camera=belt") as page:
        page.get_by_role("button", name="Photos").click()
        page.locator("#add:not(:disabled)").wait_for()
        with page.expect_file_chooser() as chooser:
            page.locator("#add").click()
        chooser.value.set_files(files)
        page.get_by_text("3 of 4 files added").wait_for()
        page.get_by_text("<b>bad.png: The picture cannot be used").wait_for()
        page.locator(".photos li").nth(2).wait_for()
        page.problems.clear()  # the browser tells of each request that failed
    assert len(served.client.get(f"{PHOTOS}/{number}").json()["photos"]) == 3


@pytest.mark.peers
def test_the_view_heals_when_the_station_comes_back(chromium, tmp_path):
    sockets = dict.fromkeys(("verdicts", "images", "commands", "queries"), "tcp://127.0.0.1:*")
    parts = running.write_parts(tmp_path / "parts", *(part(one) for one in range(3)))
    camera = running.folder_camera(parts, "belt", rate_hz=8, loop=True)
    bundle = tiny.write_bundle(tmp_path / "tiny.onnx")
    path = running.write_station(tmp_path / "station.yaml", bundle, camera, sockets=sockets)
    with running.running(path) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ")
        found = serving.addresses(daemon)
    running.write_station(path, bundle, camera, sockets=found)
    with serving.serving(tmp_path / "console", {"line-1": found}) as served:
        with running.running(path), opened(chromium, f"{served.url}#/line-1/setup") as page:
            page.locator("#focus-advice:not(:empty)").wait_for()
        with opened(chromium, f"{served.url}#/line-1/setup?camera=belt") as page:
            page.locator(".stage.stale").wait_for(timeout=30_000)
            page.get_by_text("The station does not answer").first.wait_for()
            # The page's own folder is missing, and it says what to do.
            page.get_by_role("button", name="Photos").click()
            page.get_by_text("adds 'state: FOLDER'").wait_for()
            assert page.locator("#take").is_disabled()
            with running.running(path):
                page.locator(".stage:not(.stale)").wait_for(timeout=40_000)
            page.problems.clear()  # the browser tells of each request that failed


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_model_is_trained_on_collected_photos_and_gives_its_first_verdict(tmp_path):
    sockets = dict.fromkeys(("verdicts", "images", "commands", "queries"), "tcp://127.0.0.1:*")
    camera = {"name": "belt", "kind": "simulator", "rate_hz": 4, "seed": 7, "defect_rate": 0.0}
    path = serving.write_demo_station(tmp_path / "line", sockets=sockets, cameras=[camera])
    state = tmp_path / "state"
    with running.running(path) as daemon:
        daemon.wait_for_log(r" state=ContinuousExecution ")
        stations = {"line-1": serving.addresses(daemon)}
        with serving.serving(tmp_path / "console", stations, state=str(state)) as served:
            wait_for(lambda: snapshot_of(served)["status"])
            where = new_set(served)
            region = {"x": 112, "y": 52, "w": 416, "h": 384}
            post(served, f"{where}/region", region=region)
            assert len(collected(served, where, goal=12, within_s=120)["photos"]) == 12
            post(served, f"{where}/train", pace="quick")
            # Photos that are taken, or thrown away, meanwhile are none of this model's.
            post(served, f"{where}/remove", photo="0000.png")

            def ended():
                job = served.client.get("/api/stations/line-1/jobs/train").json()["job"]
                return job["state"] != "running" and job

            job = wait_for(ended, 700)
            assert job["state"] == "done", job
            models = served.client.get("/api/stations/line-1/models", timeout=60).json()["models"]
            assert models[0]["sha256"] == job["result"]["sha256"]
            assert models[0]["photos"] == models[0]["good_parts"] == 12
            report = served.client.get("/api/stations/line-1/models/1/report")
            policy = report.headers.get_list("content-security-policy")
            assert len(policy) == 1 and policy[0].startswith("sandbox; default-src 'none'")
            assert "<h1" in report.text and "<script" not in report.text

            post(served, "/api/stations/line-1/models/1/use", recipe="flange")

            def first():
                # A page of history may be empty, and be followed by others.
                asked = {"verdicts": ["PASS", "FAIL"], "limit": 20}
                found = served.client.get("/api/stations/line-1/history", params=asked)
                verdicts = [one["verdict"] for one in found.json()["entries"]]
                sha256 = models[0]["sha256"]
                return next((one for one in verdicts if one["model"]["sha256"] == sha256), None)

            verdict = wait_for(first, 60)
            assert verdict["model"]["name"] == "belt-1" and verdict["score"] > 0
            deeds = served.client.get("/api/stations/line-1/deeds").json()["deeds"]
            assert deeds[0]["kind"] == "install" and deeds[0]["after"] == models[0]["sha256"]
