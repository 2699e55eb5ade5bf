"""What the options ask for: rows, categories, backbones; a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.accuracy import plan
from inspector.errors import ConfigError, DatasetError
from tests.benchmarks.accuracy.conftest import command


def test_rivals_see_the_input_of_our_model(data: Path, tmp_path: Path) -> None:
    more = ("--set", "fit=letterbox", "--set", "size=64x96", "--variant", "v:size=96,fit=stretch")
    options = plan.parser().parse_args(command(data, tmp_path, *more))
    entries, shared = plan.plan(options)
    inputs = {entry.name: entry.settings(shared) for entry in entries}
    for name in ("cfa", "patchcore", "patchcore-14", "padim"):
        assert (inputs[name].size, inputs[name].fit) == ((64, 96), "letterbox")
    assert (inputs["v"].size, inputs["v"].fit, inputs["v"].epochs) == ((96, 96), "stretch", 1)
    authors = inputs["cfa-authors"]
    assert (authors.size, authors.fit, authors.strides) == ((64, 64), "stretch", (4, 8, 16))
    assert authors.bank_init == "mean"
    assert all(made.false_reject == 0.01 for made in inputs.values())


def test_the_command_printed_says_that_other_code_served(data: Path, tmp_path: Path) -> None:
    for more in ([], ["--any-code"]):
        options = plan.parser().parse_args(command(data, tmp_path, *more))
        assert ("--any-code" in plan.command(options).split()) == bool(more)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--set", "bank=3"), "no setting bank"),
        (("--set", "size"), "expected KEY=VALUE"),
        (("--set", "size=65"), "multiples of 32"),
        (("--set", "seed=3"), "--seeds"),
        (("--set", "padin:size=64"), "no method padin"),
        (("--variant", "epochs=3"), "expected NAME:"),
        (("--variant", "padim:epochs=3"), "name of another row"),
        (("--methods", "padin"), "there are cfa,"),
        (("--false-reject", "80%"), "share below 50%"),
    ],
)
def test_a_wrong_option_is_named(
    data: Path, tmp_path: Path, option: tuple[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        plan.plan(plan.parser().parse_args([*command(data, tmp_path), *option]))


def test_settings_with_commas_are_one_value() -> None:
    found = plan.pairs("strides=4,8,16,epochs=2,region=1,2,3,4,bank_items=none", "--set")
    assert found == {
        "strides": "4,8,16",
        "epochs": "2",
        "region": "1,2,3,4",
        "bank_items": None,
    }
    assert [plan.seeds(text) for text in ("3", "0,2", "4,")] == [(0, 1, 2), (0, 2), (4,)]


def test_data_root_may_be_a_category_itself(data: Path, tmp_path: Path) -> None:
    assert [c.name for c in plan.find_categories(data, None)] == ["masked", "more/unmasked"]
    assert [c.name for c in plan.find_categories(data / "masked", None)] == ["masked"]
    with pytest.raises(DatasetError, match="no category"):
        plan.find_categories(tmp_path, None)
    with pytest.raises(ConfigError, match="there are masked, more/unmasked"):
        plan.find_categories(data, ["other"])


def test_a_backbone_without_weights_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    networks, skipped = plan.find_backbones(["resnet18", "efficientnet_lite0"], {})
    assert list(networks) == ["efficientnet_lite0"]
    assert len(skipped) == 1
    assert skipped[0].startswith("resnet18 skipped: resnet18-")
