"""What papers report for a method on a public category, to stand beside what is measured here.

Their networks are larger (WRN50-2), their photos are cropped to the middle 224 of 256 px, and a
figure is only quoted for the very test set: :func:`published` compares its numbers of parts.
Missing are figures that no source at hand states for the single category: those of CFA
(arXiv 2206.04325 states 0.995 / 0.985 for the mean of MVTec AD's fifteen), PaDiM's image AUROC, and
all figures of categories that are no public data set of these papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Published:
    """``image`` and ``pixel`` AUROC as printed, None where not; ``source`` is a key of SOURCES."""

    image: float | None
    pixel: float | None
    source: str


SOURCES: Final = {
    "Roth 2022": (
        "Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv "
        "2106.08265), PatchCore with WRN50-2, figures per category as quoted in the column 'Paper' "
        "of github.com/any-tech/PatchCore-ex"
    ),
    "Defard 2021": (
        "Defard et al., PaDiM, ICPR 2021 (arXiv 2011.08785), WRN50-2 with 550 channels, figures "
        "per category as quoted in the column 'Paper' of github.com/taikiinoue45/PaDiM"
    ),
}

TEST_PARTS: Final = {"bottle": (20, 63), "screw": (41, 119)}
"""Good and defective test parts of the MVTec AD categories that figures are quoted for."""

_FIGURES: Final = {
    ("bottle", "patchcore"): Published(1.000, 0.986, "Roth 2022"),
    ("screw", "patchcore"): Published(0.970, 0.994, "Roth 2022"),
    ("bottle", "padim"): Published(None, 0.983, "Defard 2021"),
    ("screw", "padim"): Published(None, 0.985, "Defard 2021"),
}


def published(category: str, method: str, parts: tuple[int, int]) -> Published | None:
    """The paper's figures of ``method`` on a category with ``parts`` good and defective ones.

    ``category`` is the folder's name below the data's root, whose last part counts.
    """
    name = category.rpartition("/")[2].lower()
    return _FIGURES.get((name, method)) if TEST_PARTS.get(name) == parts else None
