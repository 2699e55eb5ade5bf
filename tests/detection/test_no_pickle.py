"""Nothing that is received or read can become code: no pickle, no eval, no unsafe YAML."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.paths import ROOT

FILES = sorted(path for wing in ("inspector", "export") for path in (ROOT / wing).rglob("*.py"))

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {
    "recv_pyobj",
    "send_pyobj",
    "recv_serialized",
    "eval",
    "exec",
    "unsafe_load",
    "full_load",
    "unsafe_load_all",
    "full_load_all",
    "UnsafeLoader",
    "FullLoader",
    "read_pickle",
    "Pipe",
    "Queue",
    "Listener",
}
"""Names that unpickle or run what they are given; multiprocessing's pipes and queues do."""


def offences(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    from_queue = any(
        isinstance(node, ast.ImportFrom) and node.module == "queue" for node in ast.walk(tree)
    )
    # torch.load(weights_only=True) raises pickle's error for what it refuses.
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "pickle"
    }
    only_errors = {"pickle"} if used == {"UnpicklingError"} else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
            yield from (f"import {m}" for m in modules if m.split(".")[0] in MODULES - only_errors)
        name = (
            node.attr
            if isinstance(node, ast.Attribute)
            else node.id
            if isinstance(node, ast.Name)
            else ""
        )
        if name in CALLS and isinstance(getattr(node, "ctx", None), ast.Load):
            owner = node.value if isinstance(node, ast.Attribute) else None
            of = owner.id if isinstance(owner, ast.Name) else ""
            if name == "eval" and owner is not None:
                # torch's Module.eval() switches to evaluation.
                continue
            if name == "Queue" and (of in {"queue", "asyncio"} or (not of and from_queue)):
                continue
            yield f"{of}.{name}".lstrip(".")
        if isinstance(node, ast.Call):
            yield from _keywords(node)


def _keywords(call: ast.Call) -> Iterator[str]:
    given = {word.arg: word.value for word in call.keywords}
    wanted = {"allow_pickle": False, "weights_only": True, "shell": False}
    for name, value in wanted.items():
        if name in given:
            found = given[name]
            if not isinstance(found, ast.Constant) or found.value is not value:
                yield f"{name}={ast.unparse(found)}"
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        called = f"{function.value.id}.{function.attr}"
        if called == "torch.load" and "weights_only" not in given:
            yield "torch.load without weights_only"
        if called in {"yaml.load", "yaml.load_all"}:
            yield called


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_comes_from_data(path):
    assert list(offences(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from pickle import loads",
        "import pickle\npickle.loads(data)\npickle.UnpicklingError",
        "import multiprocessing\nmultiprocessing.Queue()",
        "socket.recv_pyobj()",
        "numpy.load(f, allow_pickle=True)",
        "numpy.load(f, allow_pickle=yes)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(text, Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_offences_are_seen(bad):
    assert list(offences(bad))
