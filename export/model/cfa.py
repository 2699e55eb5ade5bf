"""CFA: Coupled-hypersphere-based Feature Adaptation (Lee, Lee, Song; arXiv 2206.04325).

Symbols are the paper's: p_t a patch's features (D), φ the patch descriptor (D'), C the memory bank
of M items c, K nearest items that attract, J next items that repel, r the radius, α the margin,
ν divides the loss of patches outside their hypersphere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

from export.settings import TrainSettings

Levels = list[Tensor]
"""Pooled feature maps of a batch, one float32 ``[N, C_l, H_l, W_l]`` a scale and stride."""

CORESET_POOL = 100_000
"""Patches that the greedy coreset chooses from; rare but normal patches must be among them."""

CORESET_FLOATS = 2**25
"""Largest number of floats in that pool, which bounds it for wide features: 134 MB."""

AXES_PATCHES = 1024
"""Patches drawn from each part to find the principal axes."""

CHUNK = 8192
"""Patches compared with the bank at a time, which bounds memory."""

AT_ONCE = 2048
"""Patches compared with new items of the coreset at a time: their distances fit into caches."""


def pool(maps: list[Tensor]) -> Levels:
    """Local average of section III-A: 3×3, stride 1, zero padding counted."""
    return [F.avg_pool2d(level, 3, stride=1, padding=1) for level in maps]


def coordinates(grid: tuple[int, int]) -> Tensor:
    """CoordConv channels: float32 ``[2, H', W']``, x then y, each in [-1, 1]."""
    y = torch.linspace(-1.0, 1.0, grid[0]).view(-1, 1).expand(grid)
    x = torch.linspace(-1.0, 1.0, grid[1]).view(1, -1).expand(grid)
    return torch.stack((x, y))


@dataclass(frozen=True)
class FeatureScale:
    """Standardises features: subtract ``mean``, divide by ``divisor``; one tensor for each level.

    It is measured once over all good parts and shared by every fit of a run, so that the scores of
    different folds are in the same unit.
    """

    mean: tuple[Tensor, ...]
    divisor: tuple[Tensor, ...]

    @classmethod
    def identity(cls, channels: tuple[int, ...]) -> FeatureScale:
        """A scale that leaves features as they are."""
        return cls(tuple(torch.zeros(c) for c in channels), tuple(torch.ones(c) for c in channels))

    @classmethod
    def measure(cls, batches: Iterator[Levels], channels: tuple[int, ...]) -> FeatureScale:
        """Measure each channel's mean and deviation in one float64 pass over the good parts."""
        total = [torch.zeros(c, dtype=torch.float64) for c in channels]
        square = [torch.zeros(c, dtype=torch.float64) for c in channels]
        count = [0] * len(channels)
        for levels in batches:
            for i, level in enumerate(levels):
                values = level.double().cpu()
                total[i] += values.sum(dim=(0, 2, 3))
                square[i] += values.square().sum(dim=(0, 2, 3))
                count[i] += values.shape[0] * values.shape[2] * values.shape[3]
        mean = [t / n for t, n in zip(total, count, strict=True)]
        var = [
            (s / n - m.square()).clamp_min(0) for s, n, m in zip(square, count, mean, strict=True)
        ]
        # A channel that is constant on good parts must not be divided by almost zero.
        floor = 1e-4 * torch.cat(var).mean() + 1e-12
        var = [v.clamp_min(floor) for v in var]
        return cls(tuple(m.float() for m in mean), tuple(v.sqrt().float() for v in var))

    def in_units_of(self, distance: float) -> FeatureScale:
        """The same scale with feature distances divided by ``distance``."""
        return FeatureScale(self.mean, tuple(divisor * distance for divisor in self.divisor))


class PatchDescriptor(nn.Module):
    """φ: a 1×1 CoordConv from D + 2 to D' channels (section III-B).

    Each level's slice of the weight is applied at the level's own resolution and the result is
    up-sampled: the convolution and the bilinear resize act on different axes and commute.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        width: int,
        grid: tuple[int, int],
        scale: FeatureScale,
        *,
        init: str,
        generator: torch.Generator,
        axes: Tensor | None = None,
    ) -> None:
        """``axes`` ``[D', D]`` are the initial weight of "principal"; without them it is zero."""
        super().__init__()
        self.channels, self.width, self.grid = channels, width, grid
        features = sum(channels)
        if init != "random":
            weight = torch.zeros(width, features + 2)
            if axes is not None:
                weight[:, :features] = axes
            elif width == features:
                weight[:, :features] = torch.eye(width)
            elif init == "identity":
                nn.init.orthogonal_(weight[:, :features], generator=generator)
            bias = torch.zeros(width)
        else:
            bound = 1.0 / math.sqrt(features + 2)
            weight = torch.empty(width, features + 2)
            weight.uniform_(-bound, bound, generator=generator)
            bias = torch.empty(width).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.register_buffer("coords", coordinates(grid))
        self.register_buffer("mean", torch.cat(scale.mean))
        self.register_buffer("divisor", torch.cat(scale.divisor))

    coords: Tensor
    mean: Tensor
    divisor: Tensor

    def folded(self) -> tuple[list[Tensor], Tensor]:
        """The weights that act on raw features, and the constant map.

        Returns one ``[D', C_l]`` for each level, and ``[D', H', W']``, which holds coordinates,
        bias and the features' mean. Standardisation is affine in each channel: it folds exactly.
        """
        features = sum(self.channels)
        weight = self.weight[:, :features] / self.divisor
        constant = torch.einsum("dc,chw->dhw", self.weight[:, features:], self.coords)
        constant = constant + (self.bias - weight @ self.mean).view(-1, 1, 1)
        return list(torch.split(weight, list(self.channels), dim=1)), constant

    def forward(self, levels: Levels) -> Tensor:
        """``levels``: pooled raw features. Returns float32 ``[N, D', H', W']``."""
        weights, constant = self.folded()
        out = constant.unsqueeze(0)
        for level, weight in zip(levels, weights, strict=True):
            part = F.conv2d(level, weight[:, :, None, None])
            out = out + up_sample(part, self.grid)
        return out


class CFA(nn.Module):
    """φ, the frozen memory bank C and the radius r; loss and scores."""

    def __init__(self, descriptor: PatchDescriptor, items: int, settings: TrainSettings) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.neighbours, self.hard_negatives = settings.neighbours, settings.hard_negatives
        self.alpha, self.nu = settings.alpha, settings.nu
        self.radius = nn.Parameter(torch.tensor(settings.radius))
        self.register_buffer("bank", torch.zeros(items, descriptor.width))

    bank: Tensor

    def loss(self, levels: Levels, sample: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L_att and L_rep of one batch (equations 2 and 3), scalars.

        ``sample`` holds the indices of the patches to average over; None means all of the batch.
        """
        phi = flatten(self.descriptor(levels))
        if sample is not None:
            phi = phi[sample]
        with torch.no_grad():
            index = find_nearest(phi, self.bank, self.neighbours + self.hard_negatives)[1]
        chosen = (phi.unsqueeze(1) - self.bank[index]).square().sum(dim=2)
        r2 = self.radius.square()
        attract = (chosen[:, : self.neighbours] - r2).clamp_min(0).mean()
        repel = (r2 - chosen[:, self.neighbours :] - self.alpha).clamp_min(0)
        zero = attract.new_zeros(())
        return attract / self.nu, (repel.mean() if repel.numel() else zero) / self.nu

    @torch.no_grad()
    def patch_scores(self, levels: Levels) -> Tensor:
        """w_1 · d_1 of every patch (section III-D): float32 ``[N, H', W']``."""
        phi_map = self.descriptor(levels)
        phi = flatten(phi_map)
        squared = torch.cat(
            [find_nearest(part, self.bank, self.neighbours)[0] for part in torch.split(phi, CHUNK)]
        )
        distance = squared.clamp_min(0).sqrt()
        score = F.softmin(distance, dim=1)[:, 0] * distance[:, 0]
        return score.view(phi_map.shape[0], *phi_map.shape[2:])


def up_sample(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear up-sampling of ``[N, C, H, W]`` to ``grid``, half-pixel centres.

    Two matrix products: F.interpolate's backward pass is not deterministic on CUDA.
    """
    if x.shape[2:] == grid:
        return x
    rows = torch.from_numpy(smoothing(x.shape[2], grid[0], 0.0)).to(x)
    columns = torch.from_numpy(smoothing(x.shape[3], grid[1], 0.0)).to(x)
    return rows @ x @ columns.T


@functools.cache
def smoothing(grid: int, size: int, sigma: float) -> npt.NDArray[np.float64]:
    """The matrix of bilinear up-sampling from ``grid`` to ``size`` and a Gaussian, along one axis.

    Float64 ``[size, grid]``; the map is ``G_h · S · G_wᵀ``, both filters being separable.
    """
    identity = torch.eye(grid, dtype=torch.float64).unsqueeze(0)
    up = F.interpolate(identity, size, mode="linear", align_corners=False)[0].T.numpy()
    # A narrower Gaussian, cut off at 4 σ, is the identity, and SciPy would divide by σ².
    out = gaussian_filter1d(up, sigma, axis=0, mode="reflect") if sigma > 0.1 else up
    return np.asarray(out, dtype=np.float64)


def measure_scale(
    settings: TrainSettings,
    channels: tuple[int, ...],
    batches: Callable[[], Iterator[Levels]],
    device: torch.device,
) -> FeatureScale:
    """The run's feature scale: channels standardised, typical distance to the memory bank 1.

    α, r and the softmin of the score are in units of feature distance; with the root mean square
    distance of a good patch to its nearest item as the unit they mean the same for every backbone.
    Without ``settings.standardise`` features stay raw, as in the paper.
    """
    if not settings.standardise:
        return FeatureScale.identity(channels)
    scale = FeatureScale.measure(batches(), channels)
    model = build(settings, channels, batches, scale=scale, seed=settings.seed, device=device)
    with torch.no_grad():
        nearest = [
            find_nearest(part, model.bank, 1)[0]
            for levels in batches()
            for part in torch.split(flatten(model.descriptor(levels)), CHUNK)
        ]
    typical = float(torch.cat(nearest).double().clamp_min(0).mean().sqrt())
    return scale.in_units_of(max(typical, 1e-6))


def build(
    settings: TrainSettings,
    channels: tuple[int, ...],
    batches: Callable[[], Iterator[Levels]],
    *,
    scale: FeatureScale,
    seed: int,
    device: torch.device,
) -> CFA:
    """A CFA with the initial φ and the frozen memory bank built with it.

    ``batches()`` iterates over the good parts' pooled features, in the same order each time.
    """
    generator = torch.Generator().manual_seed(seed)
    width = settings.width(sum(channels))
    axes = None
    if settings.descriptor_init == "principal" and width < sum(channels):
        axes = principal_axes(batches(), scale, settings.grid, generator)[:width]
    descriptor = PatchDescriptor(
        channels,
        width,
        settings.grid,
        scale,
        init=settings.descriptor_init,
        generator=generator,
        axes=axes,
    )
    model = CFA(descriptor, settings.items, settings).to(device)
    with torch.no_grad():
        phis = (model.descriptor(levels) for levels in batches())
        if settings.bank_init == "mean":
            bank = _mean_bank(phis, settings.items, seed)
        elif settings.bank_init == "ema":
            bank = _ema_bank(phis, settings.items, seed)
        else:
            bank = _coreset_bank(phis, settings.items, generator)
        model.bank.copy_(bank)
    return model


def principal_axes(
    batches: Iterator[Levels],
    scale: FeatureScale,
    grid: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    """Directions ``[D, D]`` of standardised features, those of the largest variance first.

    Distances in the first D' axes nearly equal the full ones: the remaining axes hardly vary.
    """
    mean, divisor = torch.cat(scale.mean), torch.cat(scale.divisor)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for levels in batches:
        features = flatten(torch.cat([up_sample(level.float(), grid) for level in levels], dim=1))
        most = AXES_PATCHES * levels[0].shape[0]
        if len(features) > most:
            drawn = torch.randperm(len(features), generator=generator)[:most]
            features = features[drawn.to(features.device)]
        features = (features - mean.to(features)) / divisor.to(features)
        covariance += (features.T @ features).double().cpu()
    axes = torch.linalg.eigh(covariance).eigenvectors.T.flip(0)
    # An axis has no sign of its own; a fixed one keeps runs alike.
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    turned: Tensor = axes * largest.sign()
    return turned.float()


def flatten(phi_map: Tensor) -> Tensor:
    """``[N, D, H', W']`` → ``[N·H'·W', D]``."""
    return phi_map.flatten(2).transpose(1, 2).reshape(-1, phi_map.shape[1])


def find_nearest(phi: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest ‖φ−c‖² in rising order and their items' indices, ``[T, k]`` each.

    The items are found by the expanded square, without ‖φ‖², which does not change the order; both
    sides are centred first, or the expansion loses digits. The distances are then measured by the
    difference, because near an item the expansion has no digits left.
    """
    centre = bank.mean(dim=0)
    phi, bank = phi - centre, bank - centre
    partial = torch.addmm(bank.square().sum(dim=1).unsqueeze(0), phi, bank.T, alpha=-2.0)
    if k == 1:
        index = partial.argmin(dim=1, keepdim=True)
    else:
        index = partial.topk(k, dim=1, largest=False, sorted=True).indices
    return torch.stack([(phi - bank[i]).square().sum(dim=1) for i in index.T], dim=1), index


def _kmeans(points: Tensor, items: int, seed: int) -> Tensor:
    if items >= len(points):
        # With more items than points, the points themselves are the centres, repeated.
        return points[torch.arange(items, device=points.device) % len(points)]
    # It takes two seconds to import, and the default bank does without.
    from sklearn.cluster import MiniBatchKMeans

    fitted = MiniBatchKMeans(items, random_state=seed, n_init=1, batch_size=4096).fit(
        points.cpu().double().numpy()
    )
    return torch.from_numpy(fitted.cluster_centers_).to(points)


def _mean_bank(phis: Iterator[Tensor], items: int, seed: int) -> Tensor:
    """As in the authors' code: the mean over all parts at each position, k-means if M < H'·W'."""
    total, count = None, 0
    for phi in phis:
        part = phi.double().sum(dim=0, keepdim=True)
        total = part if total is None else total + part
        count += phi.shape[0]
    assert total is not None
    return _kmeans(flatten((total / count).to(torch.float32)), items, seed)


def _ema_bank(phis: Iterator[Tensor], items: int, seed: int) -> Tensor:
    """As in the paper (III-C): k-means of the first part, then a moving average with the others."""
    bank = None
    for phi in phis:
        for part in torch.split(phi, 1):
            patches = flatten(part)
            if bank is None:
                bank = _kmeans(patches, items, seed)
                continue
            nearest = find_nearest(bank, patches, 1)[1][:, 0]
            bank = EMA_KEEP * bank + (1.0 - EMA_KEEP) * patches[nearest]
    assert bank is not None
    return bank


EMA_KEEP = 0.9
"""Weight of the old item in the moving average with each further part; the paper names none."""


def _coreset_bank(phis: Iterator[Tensor], items: int, generator: torch.Generator) -> Tensor:
    """Greedy k-centre over patches of all parts: rare but normal patches keep an item of their own.

    The items are chosen from a uniform sample of patches, so that time and memory do not grow with
    the data set.
    """
    kept: list[Tensor] = []
    keys: list[Tensor] = []
    for phi in phis:
        patches = flatten(phi)
        pool_size = max(min(CORESET_POOL, CORESET_FLOATS // patches.shape[1]), 4 * items)
        # Each patch gets a random key; those with the smallest keys are a uniform sample.
        kept.append(patches)
        keys.append(torch.rand(len(patches), generator=generator))
        if sum(map(len, kept)) > 2 * pool_size:
            kept, keys = _smallest(kept, keys, pool_size)
    kept, keys = _smallest(kept, keys, pool_size)
    points = kept[0]
    if items >= len(points):
        return points[torch.arange(items, device=points.device) % len(points)]
    return points[farthest_first(points, items)]


def farthest_first(points: Tensor, items: int) -> Tensor:
    """Greedy k-centre (Gonzalez 1985): indices ``[items]`` of ``[N, D]``, the most central first.

    ``items`` is at most N. The search is lazy and gives the same choice as the plain one: the next
    points are found among the 512 farthest by their mutual distances, as long as they are farther
    than every point outside the 512.
    """
    points = points - points.mean(dim=0)
    norms = points.square().sum(dim=1)
    best = torch.full_like(norms, math.inf)
    chosen: list[Tensor] = []
    count = 0
    fresh = norms.argmin().view(1)
    while True:
        fresh = fresh[: items - count]
        chosen.append(fresh)
        count += len(fresh)
        for start in range(0, len(points), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            distance = torch.addmm(norms[fresh], points[part], points[fresh].T, alpha=-2.0)
            nearest = distance.amin(dim=1) + norms[part]
            best[part] = torch.minimum(best[part], nearest)
        best[fresh] = -math.inf
        if count >= items:
            return torch.cat(chosen)
        bounds, listed = best.topk(min(512, len(points)))
        local = points[listed]
        mutual = norms[listed, None] + norms[listed] - 2.0 * (local @ local.T)
        left = bounds.clone()
        picked: list[int] = []
        while True:
            candidate = int(left.argmax())
            if left[candidate] < (bounds[-1] if picked else -math.inf):
                break
            if math.isinf(left[candidate].item()):
                break
            picked.append(candidate)
            left = torch.minimum(left, mutual[candidate])
            left[picked] = -math.inf
        fresh = listed[torch.tensor(picked, device=points.device)]


def _smallest(
    kept: list[Tensor], keys: list[Tensor], count: int
) -> tuple[list[Tensor], list[Tensor]]:
    points, key = torch.cat(kept), torch.cat(keys)
    if len(points) <= count:
        return [points], [key]
    order = key.topk(count, largest=False).indices.sort().values
    return [points[order.to(points.device)]], [key[order]]
