from __future__ import annotations

import hashlib
import os

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector.detection import bundle
from inspector.errors import BundleError
from inspector.files import write_whole
from tests import tiny


def test_read_gives_what_was_written(bundle_path):
    found = bundle.read(bundle_path)
    assert found.manifest.name == "tiny"
    assert found.sha256 == hashlib.sha256(bundle_path.read_bytes()).hexdigest()
    assert found.manifest.golden[0].image().shape == (64, 64, 3)


def test_sealed_bundle_is_still_a_plain_onnx_file(bundle_path):
    model = onnx.load(bundle_path)
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == [bundle.MANIFEST_KEY, "sha256"]
    assert bundle.BANK in {tensor.name for tensor in model.graph.initializer}


def test_missing_bundle_is_one_line(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        bundle.read(tmp_path / "none.onnx")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_refused(bundle_path, data):
    whole = bytearray(bundle_path.read_bytes())
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BundleError, match=r"altered|not a complete bundle"):
        bundle.unseal(bytes(whole), bundle_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_truncation_is_refused(bundle_path, data):
    whole = bundle_path.read_bytes()
    size = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BundleError, match="not a complete bundle"):
        bundle.unseal(whole[:size], bundle_path)


def test_appended_bytes_are_refused(bundle_path):
    with pytest.raises(BundleError, match="not a complete bundle"):
        bundle.unseal(bundle_path.read_bytes() + b"\x00", bundle_path)


def test_bundle_for_another_input_size_is_refused(tmp_path):
    path = tiny.write_bundle(tmp_path / "odd.onnx", geometry={"height": 96, "width": 64})
    with pytest.raises(BundleError, match=r"shape \(64, 64, 3\), the manifest says \(96, 64, 3\)"):
        bundle.read(path)


def test_memory_bank_of_another_size_is_refused(tmp_path):
    cfa = tiny.manifest(tiny.model())["cfa"] | {"bank_items": 1000}
    with pytest.raises(BundleError, match=r"memory bank of shape .* says 1000 items"):
        bundle.read(tiny.write_bundle(tmp_path / "odd.onnx", cfa=cfa))


def test_golden_image_of_another_size_is_refused(tmp_path):
    golden = tiny.manifest(tiny.model())["golden"]
    golden[0]["png"] = tiny.png(tiny.good_picture(32))
    with pytest.raises(BundleError, match="golden image 'good' is not 64x64"):
        bundle.read(tiny.write_bundle(tmp_path / "odd.onnx", golden=golden))


def test_onnx_model_without_manifest_is_refused(tmp_path):
    path = tmp_path / "bare.onnx"
    path.write_bytes(bundle.seal(tiny.model().SerializeToString()))
    with pytest.raises(BundleError, match="without a manifest"):
        bundle.read(path)
    path.write_bytes(tiny.model().SerializeToString())
    with pytest.raises(BundleError, match="no closing checksum"):
        bundle.read(path)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "part.onnx"
    write_whole(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["part.onnx"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"station: line-1\n", "a text file"),
        ("名前: 部品\n".encode(), "a text file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "a photo"),
        (b"\xff\xd8\xff\xe0" + bytes(200), "a photo"),
    ],
)
def test_another_kind_of_file_is_not_called_a_damaged_bundle(tmp_path, content, what):
    path = tmp_path / "taken.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=rf"taken\.onnx: {what}, not a bundle; name the file"):
        bundle.read(path)
