"""The manifest in words; needs no torch."""

from __future__ import annotations

from inspector.detection.manifest import Manifest, Parity


def describe(manifest: Manifest) -> list[tuple[str, str]]:
    """The manifest in words: (what, figure) rows for a table."""
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
        ("backbone", f"{cfa.backbone}, strides {', '.join(map(str, cfa.strides))}"),
        (
            "memory bank",
            f"{cfa.bank_items} items of {cfa.descriptor_width}, by {cfa.bank_init}; "
            f"{cfa.grid[0]}x{cfa.grid[1]} patches, K = {cfa.neighbours}",
        ),
        (
            "trained on",
            f"{manifest.training_parts - sum(e.parts for e in manifest.lineage)} good parts, "
            f"{cfa.epochs} epochs, seed {cfa.seed}",
        ),
        *(
            (
                "taught in",
                f"{extension.parts} good parts on {extension.created[:10]}, "
                f"{extension.bank_replaced} of {cfa.bank_items} items replaced; extends "
                f"{extension.parent_version}",
            )
            for extension in manifest.lineage
        ),
        (
            "limit",
            f"for {calibration.target_false_reject:.2%} false rejects, by {calibration.method}",
        ),
        (
            "held-out good parts",
            f"{calibration.good_rejected} of {calibration.good_parts} reach it; true rate "
            f"{low:.2%} to {high:.2%} (95 %)",
        ),
        (
            f"next {calibration.predicted_next} good parts",
            f"{calibration.predicted_rejects[0]} to {calibration.predicted_rejects[1]} rejected "
            f"(95 %)",
        ),
        *(("remark", remark) for remark in calibration.remarks),
        *((key.replace("_", " "), f"{value:.4g}") for key, value in manifest.evaluation.items()),
        *_parity_rows(manifest.parity),
        ("golden images", ", ".join(f"{g.name} {g.score:.3f}" for g in manifest.golden)),
    ]


def _parity_rows(parity: Parity | None) -> list[tuple[str, str]]:
    if parity is None:
        return []
    allowed = f"{parity.flips_allowed:.1%} of verdicts may flip"
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
            "parity",
            f"{parity.images} photos, {parity.verdict_flips} flips, largest difference "
            f"{parity.largest_score_difference:.1e} (score) {parity.largest_map_difference:.1e} "
            f"(map) of the limit, {allowed}, on {parity.provider}"
            + (f"; flips of {parts}" if parts else ""),
        )
    ]
