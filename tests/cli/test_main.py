from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest

import inspector
from export.cli import main as model_cli
from inspector.cli import main as cli
from inspector.wire import schemas
from tests import running, tiny


def test_version_and_schema(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == inspector.__version__
    assert cli.main(["schema"]) == 0
    assert capsys.readouterr().out == schemas.dump_schemas()


def fresh(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user starts it."""
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_python_m_inspector_is_the_command():
    told = fresh("-m", "inspector", "--version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"{inspector.__version__}\n", "")
    refused = fresh("-m", "inspector", "fly")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("usage: inspector ")
    assert "'fly'" in refused.stderr


def test_help_lists_every_command_and_loads_none_of_them():
    told = fresh("-X", "importtime", "-m", "inspector", "--help")
    assert told.returncode == 0
    assert re.findall(r"^    (\S+)", told.stdout, re.MULTILINE) == list(cli.COMMANDS)
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "inspector.cli.main" in loaded
    heavy = {"numpy", "cv2", "onnx", "onnxruntime", "zmq", "pydantic", "rich", "yaml"}
    assert heavy & loaded == set()
    assert not [name for name in loaded if name.startswith("inspector.detection")]


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (("inspector", "schema"), {0}),
        (("inspector", "--help"), {0}),
        (("inspector", "judge", "{bundle}", "{photo}"), {0}),
        (("export.cli.main", "--help"), {0, 141}),
        (("export.cli.main", "show", "{bundle}"), {0, 141}),
        (("export.cli.main", "show", "{bundle}", "--json"), {0, 141}),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.long)])
def test_a_reader_that_ends_first_gets_no_traceback(
    words, codes, unbuffered, bundle_path, tmp_path
):
    photo = running.write_parts(tmp_path / "photos", tiny.bad_picture())
    told = [word.format(bundle=bundle_path, photo=photo) for word in words]
    program = [sys.executable, "-m", *told]
    if told[0] != "inspector":
        call = "import sys; from export.cli.main import main; sys.exit(main(sys.argv[1:]))"
        program = [sys.executable, "-c", call, *told[1:]]
    read, write = os.pipe()
    os.close(read)
    # As after 'head' has ended: nobody reads from the pipe any more.
    with os.fdopen(write, "wb") as unread:
        done = subprocess.run(
            program,
            stdout=unread,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.stderr == ""
    assert done.returncode in codes


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: inspector {command} ")


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["watch", "--count", "0"], ["simulate", "x", "--seed", "-1"]]
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: inspector" in capsys.readouterr().err


def test_error_is_one_line_with_its_exit_code(tmp_path, capsys):
    assert cli.main(["run", str(tmp_path / "none.yaml")]) == 10
    assert (
        capsys.readouterr().err
        == f"inspector: error: {tmp_path / 'none.yaml'}: no such file; write one with 'inspector "
        f"init {tmp_path / 'none.yaml'}'\n"
    )
    assert cli.main(["watch", "nonsense"]) == 16
    assert capsys.readouterr().err.startswith("inspector: error: nonsense: not an address")


def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(monkeypatch):
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupt)
    assert cli.main(["judge", "part.onnx", "photos"]) == 130
    assert model_cli.main(["train", "photos", "-o", "run"]) == 130


def test_path_that_is_not_utf8_is_shown_all_the_same(tmp_path):
    path = os.fsencode(tmp_path) + b"/m\xff.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "inspector", "check", path], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (10, b"")
    assert rb"m\udcff.yaml: no such file; write one with 'inspector init " in done.stdout


def test_simulate_writes_a_data_set(tmp_path, capsys):
    out = tmp_path / "parts"
    command = ["simulate", str(out), "--good", "2", "--test-good", "1", "--defective", "1"]
    assert cli.main(command) == 0
    assert capsys.readouterr().out == (
        f"{out}: 2 good parts to train with, 1 good and 1 defective ones to test with\n"
        f"next: inspector-model train {out} -o run\n"
    )
    assert len(list(out.glob("train/good/*.png"))) == 2
    assert len(list(out.glob("ground_truth/*/*_mask.png"))) == 1
    assert cli.main(command) == 26
    assert "choose another" in capsys.readouterr().err


def test_help_and_messages_load_no_engine_and_no_torch(bundle_path):
    program = (
        "heavy = {'onnxruntime', 'openvino', 'torch', 'export'};"
        "import sys, inspector, inspector.cli.main, inspector.client;"
        "inspector.cli.main._parser([]).format_help();"
        "print(heavy & set(sys.modules));"
        "inspector.Detector.load(sys.argv[1]);"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bundle_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["set()", "{'onnxruntime'}"]
