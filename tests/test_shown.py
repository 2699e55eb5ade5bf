"""No secret and no control character of others is ever shown, whatever it looks like."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shlex
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.cli import main as cli
from inspector.cli import output
from inspector.cli.export_verdicts import _write_csv
from inspector.client.subscriber import Gap
from inspector.logs import _Plain, quoted
from inspector.shown import cell, complaint, masked, plain
from inspector.wire.messages import CameraStatus, StatusMessage
from inspector.wire.rows import COLUMNS, row_of
from tests import running, stations

SECRET = "s3cr3t"

FORMS = [
    "rtsp://admin:{}@10.0.0.9:554/live",
    "rtsp://{}@10.0.0.9/live",
    "rtsp://admin:{}@10.0.0.9/live?user=a@b",
    "rtsp:/admin:{}@10.0.0.9/one-slash",
    "admin:{}@10.0.0.9/no-scheme",
    "http://10.0.0.9/video?user=a&password={}",
    "http://10.0.0.9/video?PASSWD={}&size=1",
    "http://10.0.0.9/video?api_key={}&size=1",
    "http://10.0.0.9/video?size=1&access-token={}",
    "http://10.0.0.9/video?p%61ss={}",
    "http://10.0.0.9/video?login[pwd]={}",
    "rtsp://10.0.0.9:554/user=admin_password={}_channel=1_stream=0.sdp",
    "http://10.0.0.9/video?loginuse=admin&loginpas={}",
    "http://10.0.0.9/video?u=admin&p={}&size=1",
    "http://10.0.0.9/video?kennwort={}",
    "http://10.0.0.9/video?X-Amz-Signature={}",
    "http://10.0.0.9/video?sessionid={}",
    "http://10.0.0.9/video?pin={}",
    'souphttpsrc location=http://10.0.0.9 cookies="SID={}" ! appsink',
    "rtsp://10.0.0.9/api/token/{}",
    "rtsp://10.0.0.9/key:{}",
    "rtspsrc location=rtsp://10.0.0.9 user-id=admin user-pw={} ! decodebin ! appsink",
    'rtspsrc location=rtsp://10.0.0.9 user-pw="{}" ! decodebin ! appsink',
    "rtspsrc user-pw = '{}' location=rtsp://10.0.0.9 ! appsink",
    "rtspsrc location=rtsp://admin:{}@10.0.0.9 ! appsink",
    'souphttpsrc location="http://10.0.0.9/?secret={}" ! appsink',
    'souphttpsrc extra-headers="a,authorization={}" location=http://10.0.0.9 ! appsink',
    'souphttpsrc location="http://10.0.0.9" proxy-pw={} ! appsink name=x@y',
    "http://10.0.0.9/video?wachtwoord={}",
    "http://10.0.0.9/video?пароль={}",
    "http://10.0.0.9/video?口令={}",
    "http://10.0.0.9/video?mdp={}",
    "http://10.0.0.9/video?sessid={}",
    "http://10.0.0.9/video?ak=1&sk={}",
    "http://10.0.0.9/video?user=a&pwd%3D{}",
    "http://10.0.0.9/video?a=1%26password%3D{}",
    "http://10.0.0.9/video?p%2561ss={}",
    "http://10.0.0.9/video?next=http%3A%2F%2Fu%3A{}%4010.0.0.8",
    "http://10.0.0.9/video?ｐａｓｓｗｏｒｄ={}",
    "http://10.0.0.9/video?pa\u200bss={}",
    "rtsp://10.0.0.9/admin:{}/stream",
    "rtsp://10.0.0.9:554/accessToken/{}",
    "10.0.0.9:554/passwords/{}",
    "camera.local/sid/{}",
    "http://10.0.0.9/video?password[]={}",
    "http://10.0.0.9/video?key%5B0%5D={}",
    "http://10.0.0.9/video?auth[token][0]={}",
    "http://10.0.0.9/video?psswd={}",
    "http://10.0.0.9/video?userPIN={}",
    "rtspsrc location=rtsp://10.0.0.9 user-pw=(string) {} ! decodebin ! appsink",
    "rtspsrc location=rtsp://10.0.0.9 user-pw=(string){} ! decodebin ! appsink",
    "appsrc ! video/x-raw,password=(string) {} ! appsink",
    "srt://10.0.0.9:1?streamid=#!::u=admin,s={}",
    "srt://10.0.0.9:1?mode=caller&streamid=publish:line:admin:{}",
    'srtsrc uri="srt://10.0.0.9:1?streamid=#!::u=admin,s={}" ! appsink',
    "srtsrc uri=srt://10.0.0.9:1 streamid={} ! appsink",
    "/dev/video0?password={}",
]

PIPELINES = [form for form in FORMS if "!" in form]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_secret_is_masked(form):
    shown = masked(form.format(SECRET))
    assert SECRET not in shown
    assert "***" in shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "source",
    [
        "0",
        "/dev/video0",
        "line@2.avi",
        "parts/line.avi",
        "rtsp://10.0.0.9:554/live?channel=1",
        "http://10.0.0.9/video?codec=h264&spin=2&page=3",
        "videotestsrc ! video/x-raw,format=BGR ! x264enc key-int-max=30 ! appsink",
        "x264enc option-string=keyint=60:min-keyint=60 ! appsink",
        "rtsp://key-cam:554/live",
        "http://login.example.com/live",
        "rtsp://[fe80::1%25eth0]:554/live",
        "rtsp://10.0.0.9/p/1",
        "P:/key/line.avi",
        "/home/me/code/keys/line.avi",
        "config/keys/desk.secret",
    ],
)
def test_what_has_no_secret_is_shown_whole(source):
    assert masked(source) == source


def test_what_is_no_secret_stays_readable():
    assert masked("rtsp://admin:a@b:c/d@10.0.0.9:554/live") == "rtsp://***@10.0.0.9:554/live"
    assert masked("http://h/v?password=a b&size=1") == "http://h/v?password=***&size=1"
    assert masked("rtspsrc location=rtsp://h user-pw='a b' ! appsink") == (
        "rtspsrc location=rtsp://h user-pw=*** ! appsink"
    )


STEMS = [
    *("pass", "password", "passwd", "passwort", "passcode", "pwd", "pw", "userpw", "psswd"),
    *("token", "authtoken", "secret", "key", "apikey", "auth", "credential", "session", "sid"),
    *("pin", "signature", "sign", "code", "cookie"),
]
INNOCENT = [
    *("keyframe", "monkey", "keyboard", "stream1", "channel", "subtype", "pinhole", "design"),
    *("codec", "spin", "author", "crop", "width", "user", "id", "value", "0"),
]
WORDS = st.lists(st.sampled_from(INNOCENT), max_size=2)
STYLES = {
    "snake": "_".join,
    "kebab": "-".join,
    "dots": ".".join,
    "camel": lambda words: words[0] + "".join(map(str.capitalize, words[1:])),
    "upper": lambda words: "_".join(words).upper(),
    "list": lambda words: words[0] + "".join(f"[{word}]" for word in words[1:]),
    "codes": lambda words: words[0] + "".join(f"%5B{word}%5D" for word in words[1:]),
    "hidden": lambda words: "_".join(f"{word[0]}%{ord(word[1]):x}{word[2:]}" for word in words),
}
PLACES = ["http://h/v?a=1&{}={}", "rtsp://h:554/live/{}/{}", "rtspsrc {}={} ! appsink"]


@given(WORDS, st.sampled_from(STEMS), WORDS, st.sampled_from([*STYLES]), st.sampled_from(PLACES))
def test_a_key_is_secret_if_one_of_its_words_is(before, stem, after, style, place):
    for word in (stem, f"{stem}s", f"{stem}2"):
        words = [*before, word, *after]
        if style == "hidden":
            words = [one for one in words if len(one) > 1]
        key = STYLES[style](words)
        shown = masked(place.format(key, MARK))
        assert MARK not in shown, shown
        assert key in shown


@given(st.lists(st.sampled_from(INNOCENT), min_size=1, max_size=4), st.sampled_from([*STYLES]))
def test_a_key_of_words_that_tell_no_secret_stays_readable(words, style):
    key = STYLES[style]([one for one in words if len(one) > 1] or ["width"])
    for place in PLACES:
        assert masked(place.format(key, MARK)) == place.format(key, MARK)


SYLLABLES = st.sampled_from(
    [
        *"@:/?#=!%;+ _-.\\$\t\"'",
        *("://", " ! ", "pass=", "token/", "%40", "é", "user-pw="),
        *("Kq7", "Zx9", "Wv4", "Jf2"),
    ]
)
MARK = "Hd5Hd5"


@settings(max_examples=500)
@given(st.sampled_from(FORMS), st.lists(SYLLABLES, max_size=8), st.lists(SYLLABLES, max_size=8))
def test_no_secret_shows_whatever_is_in_it(form, before, after):
    """Of a secret no letter may show; only ``&`` ends the value of a query."""
    secret = "".join(before) + MARK + "".join(after)
    if form in PIPELINES:
        secret = quoted_for(form, secret)
        if secret is None:
            return
    shown = masked(form.format(secret))
    for piece in re.findall(r"Kq7|Zx9|Wv4|Jf2|Hd5", secret):
        assert piece not in shown, (form.format(secret), shown)


def quoted_for(form: str, secret: str) -> str | None:
    """The secret as a pipeline can carry it in this place; None: it cannot."""
    escaped = secret.replace("\\", "\\\\")
    if '"{}"' in form or '={}"' in form:
        return escaped.replace('"', '\\"')
    if "'{}'" in form:
        return escaped.replace("'", "\\'")
    if "://admin" in form:
        return secret
    return re.sub(r"([\s\"'])", r"\\\1", escaped)


HOSTILE = st.text(
    st.characters(blacklist_categories=())
    | st.sampled_from("\x1b\x9b\r\n\t\0\x7f\u202e\u2028\u200b\udcff"),
    max_size=40,
)


@given(HOSTILE)
def test_plain_text_is_one_line_that_moves_nothing(text):
    assert plain(text).isprintable()
    assert not text.isprintable() or plain(text) == text


@given(HOSTILE, HOSTILE, HOSTILE)
@settings(max_examples=150)
def test_watch_shows_one_line_for_a_verdict(part_id, detail, camera):
    shown = said(
        lambda lines: lines.verdict(
            stations.verdict(
                1, part_id=part_id, camera=camera, verdict="FAULT", score=None, detail=detail
            )
        )
    )
    assert shown.count("\n") == 2, "the head and the line"
    assert shown.replace("\n", "").isprintable()


def said(tell) -> str:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), output.Screen() as screen:
        tell(output.Lines(screen))
    return stream.getvalue()


FORGED = "p1\x1b[2K\r12:00:00 top      p1                 PASS      0.012\n\u202eend"


def test_a_part_id_forges_no_line_anywhere(caplog, capsys):
    camera = CameraStatus(name=FORGED, state="lost", detail=FORGED, frames=1)
    status = StatusMessage(
        **dict.fromkeys(("station", "epoch", "recipe", "provider", "inference"), FORGED),
        **dict.fromkeys(("trouble", "drift", "alarm", "storage"), FORGED),
        **dict.fromkeys(("last_seq", "passed", "failed", "faults", "sent_us"), 1),
        state="Error",
        cameras=(camera,),
    )
    lines = said(lambda made: (made.status(status), made.gap(Gap("s", FORGED, 1, 2))))
    assert lines.count("\n") == 3
    assert lines.replace("\n", "").isprintable()
    from inspector import tables
    from inspector.cli.status import _show, assess

    _show(status, assess(status))
    filled = tables.table("part", FORGED)
    filled.add_row(FORGED, FORGED)
    tables.show(filled)
    tables.print_next("inspector", FORGED)
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable()
    assert not re.search(r"(?m)^12:00:00", shown)
    assert quoted(FORGED).isprintable()


def test_a_result_forges_no_line_of_a_simulated_plc():
    from inspector.bridges.scan_cycle import Seen
    from inspector.cli.simulate_plc import watch

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), output.Screen() as screen:
        watch([Seen(FORGED, 2, FORGED, 1.5, 20.0)], screen)
    assert stream.getvalue().count("\n") == 2, "the head and the line"
    assert stream.getvalue().replace("\n", "").isprintable()


def test_a_file_name_forges_no_line_of_judge(tmp_path, bundle_path):
    from tests import tiny

    folder = running.write_parts(tmp_path / "parts", tiny.good_picture())
    (folder / "000.png").rename(folder / f"{FORGED.replace('/', '_')}.png")
    code, out, err = running.inside("judge", bundle_path, folder)
    assert (code, err) == (0, "")
    assert out.replace("\n", "").isprintable()
    assert not re.search(r"(?m)^12:00:00", out)
    code, _, err = running.inside("judge", bundle_path, folder / FORGED)
    assert code != 0
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()


def test_a_traceback_in_the_log_moves_no_cursor():
    import logging

    try:
        raise ValueError(FORGED)
    except ValueError:
        import sys

        record = logging.LogRecord("x", 40, "f", 1, "crash", None, sys.exc_info())
    assert _Plain("%(message)s").format(record).replace("\n", "").isprintable()


@pytest.mark.parametrize("secret", [SECRET, "p@ss/w0rd"])
@pytest.mark.parametrize(
    "words",
    [
        ("init", "{file}", "--camera", "{source}"),
        ("init", "{file}", "--camera", "0", "{source}"),
        ("init", "{file}", "--camera={source}", "--no-such"),
        ("collect", "{source}", "-o", "{folder}", "--count", "{source}"),
        ("collect", "rtsp:/a:{secret}@h", "-o", "{folder}"),
        ("check", "{wrong}"),
        ("run", "{twice}"),
        ("check", "{lost}"),
        ("run", "{lost}"),
    ],
)
def test_no_command_shows_a_secret(tmp_path, bundle_path, words, secret):
    source = f"http://admin:{secret}@127.0.0.1:9/?password={secret}"
    lost = running.write_station(
        tmp_path / "lost.yaml",
        bundle_path,
        {"name": "top", "kind": "opencv", "source": source, "timeout_ms": 200},
    )
    wrong = tmp_path / "wrong.yaml"
    text = lost.read_text(encoding="utf-8")
    wrong.write_text(
        f"{text}queue_size: '{source}'\nmetrics: '{source}'\n'{source}': 1\n", encoding="utf-8"
    )
    twice = tmp_path / "twice.yaml"
    twice.write_text(f"'{source}': 1\n'{source}': 2\n", encoding="utf-8")
    names = {
        "twice": str(twice),
        "file": str(tmp_path / "new.yaml"),
        "folder": str(tmp_path / "photos"),
        "lost": str(lost),
        "wrong": str(wrong),
        "source": source,
        "secret": secret,
    }
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            code = cli.main([word.format(**names) for word in words])
        except SystemExit as ended:
            code = ended.code
    out = told.getvalue()
    assert "inspector" in out or "***" in out
    assert secret not in out, shlex.join(words)
    if words[2:] == ("--camera", "{source}"):
        assert (code, "***" in out) == (0, True)


def test_argparse_complains_without_the_secret(capsys):
    source = f"rtsp://admin:{SECRET}@10.0.0.9/live"
    for words in (
        ["collect", "-o", "x", source, source],
        ["watch", "--count", source],
        [source],
    ):
        with pytest.raises(SystemExit):
            cli.main(words)
        said_so = capsys.readouterr().err
        assert "***" in said_so
        assert SECRET not in said_so


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\\t=1"),
        ("\r=1", "'\\r=1"),
        ("-5", "-5"),
        ("+4.5e3", "+4.5e3"),
        ("S/N 7", "S/N 7"),
        ("'=1", "''=1"),
        (" =1", "' =1"),
        ("a;=1", "a;'=1"),
        ('a; "+1;b', "a; \"'+1;b"),
        ("=1;@b", "'=1;'@b"),
        ("a;b=1;-", "a;b=1;'-"),
        ("a\nPASS 1.000 part-7", "a\\nPASS 1.000 part-7"),
        ("a\x1b[2J", "a\\x1b[2J"),
    ],
)
def test_no_cell_is_a_formula(text, shown):
    assert cell(text) == shown


@given(st.text("'=+-@\t\r1.eE x ", max_size=8))
def test_a_cell_begins_no_formula(text):
    made = cell(text)
    number = re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", made)
    assert number or not made.lstrip(" ").startswith(tuple("=+-@\t\r"))


def test_exported_verdicts_hold_no_formula_and_numbers_stay_numbers(tmp_path):
    verdict = stations.verdict(
        1, part_id="=1+1", session="@x", client="-2-3", detail="\t=1", score=0.25
    )
    path = tmp_path / "out.csv"
    assert _write_csv(path, COLUMNS, iter([row_of(verdict)])) == 1
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert [row[name] for name in ("part_id", "session", "client", "detail")] == [
        "'=1+1",
        "'@x",
        "'-2-3",
        "'\\t=1",
    ]
    assert float(row["score"]) == 0.25
    assert int(row["seq"]) == 1
    assert row["regions"] == "[]"


def test_letters_of_a_name_are_kept():
    assert plain(string.printable[:94]) == string.printable[:94]
    assert plain("S/N 0815 Prüfling 部品") == "S/N 0815 Prüfling 部品"


@pytest.mark.parametrize(
    "words",
    [
        ("judge", "part.onnx", "{}"),
        ("check", "{}"),
        ("run", "{}"),
        ("init", "{}"),
        ("tune", "{}"),
        ("export-verdicts", "{}", "-o", "out.csv"),
        ("status", "{}"),
        ("watch", "{}"),
        ("trigger", "top", "--address", "{}"),
        ("bridge", "modbus", "{}"),
    ],
)
def test_a_source_in_the_place_of_a_path_or_an_address_is_masked(words, capsys):
    source = f"rtsp://admin:{SECRET}@10.0.0.9/live?token={SECRET}"
    assert cli.main([word.format(source) for word in words]) != 0
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err
    assert "10.0.0.9" in shown.out + shown.err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rtsp://10.0.0.9/token/{}", "{}: no such file"),
        ("rtsp://a:x/{}@10.0.0.9", "{}@10.0.0.9: no such file"),
        ("-ortsp://a:{}@10.0.0.9", "rtsp:/a:{}@10.0.0.9: no such folder"),
    ],
)
def test_no_piece_of_a_typed_source_shows_its_secret(word, message):
    shown = complaint(message.format(SECRET), [word.format(SECRET)])
    assert SECRET not in shown
    assert "no such" in shown


def test_a_source_that_yaml_cut_off_is_masked():
    assert masked(f"rtsp://admin:{SECRET}") == "rtsp://***"
    for source in ("rtsp://10.0.0.9:554", "rtsp://[::1]:554/a", "http://host/a:b"):
        assert masked(source) == source
