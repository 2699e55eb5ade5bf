"""A bundle's manifest in plain words. The exact terms are in the manifest itself and in the docs.

This module needs no torch.
"""

from __future__ import annotations

from typing import Final

from export.settings import say_scales
from inspector.detection.manifest import Manifest, Parity

_FIGURES: Final = {
    "image_auroc": "good and defective parts told apart (image AUROC; 1 is perfect)",
    "pixel_auroc": "good and defective pixels told apart (pixel AUROC)",
    "aupro": "defects covered by the heatmap (AUPRO)",
    "f1": "caught defects against false rejects (F1)",
    "f1_best": "the same at the limit that suits it best",
    "f1_best_threshold": "that limit, in units of this one",
    "false_reject_rate": "share of good parts rejected",
    "escape_rate": "share of defective parts that pass",
    "good_parts": "good parts judged",
    "defective_parts": "defective parts judged",
    "false_rejects": "good parts rejected",
    "escapes": "defective parts that pass",
    "faults": "photos that could not be judged",
}


def say_figure(key: str) -> str:
    """The name of a figure of the evaluation in plain words; ``key`` itself for an unknown one."""
    return _FIGURES.get(key, key.replace("_", " "))


def describe(manifest: Manifest) -> list[tuple[str, str]]:
    """(name, text) rows for a table, in plain words."""
    cfa, calibration, geometry = manifest.cfa, manifest.calibration, manifest.geometry
    region = geometry.region
    low, high = calibration.interval
    return [
        ("model", f"{manifest.name}, version {manifest.version}, {manifest.precision}"),
        ("made", f"{manifest.created} by line-inspector {manifest.product_version}"),
        (
            "input",
            f"{geometry.width}x{geometry.height} px, {geometry.fit}, "
            + (
                f"region {region.w}x{region.h} at {region.x},{region.y}"
                if region
                else "whole frame"
            ),
        ),
        (
            "network",
            f"{cfa.backbone}, strides {', '.join(map(str, cfa.strides))}, {say_scales(cfa.scales)}",
        ),
        (
            "remembers",
            f"{cfa.bank_items} patches of good parts, {cfa.descriptor_width} numbers each; a photo "
            f"has {cfa.grid[0]}x{cfa.grid[1]} patches, each is compared with the nearest "
            f"{'one' if cfa.neighbours == 1 else cfa.neighbours}",
        ),
        *(
            (
                "by place",
                f"distances are compared with those of {normalisation.good_parts} unseen good "
                f"parts at the same place, which count for {normalisation.weight:.0%}",
            )
            for normalisation in (manifest.normalisation,)
            if normalisation is not None
        ),
        (
            "trained on",
            f"{manifest.training_parts - sum(e.parts for e in manifest.lineage)} good parts, "
            f"{cfa.epochs} {'pass' if cfa.epochs == 1 else 'passes'}, seed {cfa.seed}",
        ),
        *(
            (
                "taught in",
                f"{extension.parts} good parts on {extension.created[:10]}, "
                f"{extension.bank_replaced} of {cfa.bank_items} patches replaced; extends "
                f"{extension.parent_version}",
            )
            for extension in manifest.lineage
        ),
        (
            "limit",
            f"to reject {calibration.target_false_reject:.2%} of good parts"
            f"{' (auto)' if calibration.automatic else ''}, "
            + (
                "estimated, for there are few photos"
                if calibration.extrapolated
                else "counted on good parts"
            ),
        ),
        *(
            (
                "defects drawn on good parts",
                f"{cost.passed} of {cost.drawn} pass; {cost.passed_at_auto} with the limit 'auto'",
            )
            for cost in [calibration.cost]
            if cost is not None
        ),
        (
            "unseen good parts",
            f"{calibration.good_rejected} of {calibration.good_parts} reach it: {low:.2%} to "
            f"{high:.2%} would be rejected (95 % confidence)",
        ),
        (
            f"next {calibration.predicted_next} good parts",
            f"{calibration.predicted_rejects[0]} to {calibration.predicted_rejects[1]} rejected "
            f"(95 % confidence)",
        ),
        *(("remark", remark) for remark in calibration.remarks),
        *((say_figure(key), f"{value:.4g}") for key, value in manifest.evaluation.items()),
        *_parity_rows(manifest.parity),
        ("known photos", ", ".join(f"{g.name} {g.score:.3f}" for g in manifest.golden)),
    ]


def _parity_rows(parity: Parity | None) -> list[tuple[str, str]]:
    if parity is None:
        return []
    allowed = f"{parity.flips_allowed:.1%} of verdicts may differ"
    if parity.tolerance is not None:
        allowed = f"allowed {parity.tolerance:g}"
    if parity.auroc_change is not None:
        allowed += f", image AUROC {parity.auroc_change:+.4f}"
    kinds = {"good parts of the run": parity.validation, "test photos": parity.test}
    parts = ", ".join(
        f"{kind}: {found.verdict_flips} of {found.images}"
        for kind, found in kinds.items()
        if found is not None and parity.flips_allowed
    )
    return [
        (
            "checked",
            f"{parity.images} photos judged by the file and by the model, {parity.verdict_flips} "
            f"verdicts differ; largest difference {parity.largest_score_difference:.1e} (score) "
            f"{parity.largest_map_difference:.1e} (map) of the limit, {allowed}, on "
            f"{parity.provider}" + (f"; other verdicts on {parts}" if parts else ""),
        )
    ]
