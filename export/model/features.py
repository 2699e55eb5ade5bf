"""Cache of the backbone's pooled maps, in memory or in a mapped file: it runs once per image."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch

from export.model.backbone import Backbone
from export.model.cfa import Levels, pool
from inspector.errors import OutputError

BATCH = 8
"""Images in one pass of the backbone; fixed, so that a resumed run computes equal features."""


class FeatureCache:
    """Pooled features of N images, one float32 ``[N, C_l, H_l, W_l]`` array for each level.

    Arrays larger together than ``cache_gb`` lie in memory-mapped files under ``folder``, removed
    on close. Raises :class:`OutputError` when the disk cannot hold them.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: npt.NDArray[np.uint8],
        *,
        device: torch.device,
        cache_gb: float,
        folder: Path,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.device = device
        self._rows: npt.NDArray[np.intp] | None = None
        height, width = images.shape[1:3]
        shapes = [
            (len(images), level.channels, height // level.patch_px, width // level.patch_px)
            for level in backbone.levels
        ]
        size = sum(4 * int(np.prod(shape, dtype=np.int64)) for shape in shapes)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if size <= cache_gb * 1e9:
            self._levels = [np.empty(shape, dtype=np.float32) for shape in shapes]
        else:
            self._folder = tempfile.TemporaryDirectory(dir=folder, prefix="features-")
            files = (Path(self._folder.name) / f"level-{i}.npy" for i in range(len(shapes)))
            self._levels = [self._map(*pair) for pair in zip(files, shapes, strict=True)]
        for start in range(0, len(images), BATCH):
            maps = backbone.maps(images[start : start + BATCH], device)
            for level, values in zip(self._levels, pool(maps), strict=True):
                level[start : start + BATCH] = values.cpu().numpy()
            on_progress(min(start + BATCH, len(images)), len(images))

    def __len__(self) -> int:
        return len(self._levels[0]) if self._rows is None else len(self._rows)

    def __enter__(self) -> FeatureCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the arrays and remove the mapped files."""
        self._levels = []
        if self._folder is not None:
            self._folder.cleanup()

    def only(self, rows: npt.NDArray[np.intp]) -> FeatureCache:
        """The features of the images ``rows`` alone, as long as this cache is open."""
        view = copy.copy(self)
        view._folder, view._rows = None, rows if self._rows is None else self._rows[rows]
        return view

    def batch(self, index: npt.NDArray[np.intp]) -> Levels:
        """Pooled features of the images ``index``, on the training device."""
        index = index if self._rows is None else self._rows[index]
        return [torch.from_numpy(level[index]).to(self.device) for level in self._levels]

    def batches(self, index: npt.NDArray[np.intp], size: int = BATCH) -> Iterator[Levels]:
        """Yield the features of ``index`` in order, ``size`` images at a time."""
        for start in range(0, len(index), size):
            yield self.batch(index[start : start + size])

    def _map(self, path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        try:
            # Blocks are claimed now: writing to a mapped page on a full disk is a bus error.
            with path.open("wb") as file:
                self._claim(file.fileno(), 4 * int(np.prod(shape, dtype=np.int64)))
        except OSError as error:
            self.close()
            raise OutputError(
                f"{path}: no room for the feature cache ({error.strerror}); free disk space, or "
                f"raise --cache-gb to keep it in memory"
            ) from None
        return np.memmap(path, dtype=np.float32, mode="r+", shape=shape)

    @staticmethod
    def _claim(descriptor: int, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.truncate(descriptor, size)
