"""Puts new patches into a finished model's memory bank, whose size stays."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from export.model.cfa import CFA, Levels
from export.model.normalise import Normaliser

MOST_REPLACED = 0.25
"""Largest share of the bank that one lesson replaces; the rest stays with the old parts."""
COVER = 0.75
"""A taught patch has an item within this share of the limit, even if the bank is coarse."""


@torch.no_grad()
def teach(
    model: CFA, batches: Iterable[Levels], limit: float, normaliser: Normaliser | None = None
) -> int:
    """Put patches of added good parts into ``model.bank``; returns how many items were replaced.

    ``limit`` is in the unit of distance. The covering radius is the bank's own, which is the median
    distance of an item to the nearest other one, but at most ``COVER * limit``, or the distance
    that ``normaliser`` turns into that at the patch's position. Patches enter farthest first
    (greedy k-centre, as the bank was chosen) until all lie within the radius of an item, or
    ``MOST_REPLACED`` of the bank is new. A patch that is near an item already changes nothing. Each
    new patch takes the place of the item that is nearest to another one: the neighbour stands for
    nearly the same patches, and rare items, which lie alone, stay.
    """
    bank = model.bank
    apart, neighbour = _nearest_others(bank)
    spread = apart[apart > 0]
    positions = torch.full(model.descriptor.grid, COVER * limit)
    if normaliser is not None:
        positions = torch.from_numpy(normaliser.invert(COVER * limit))
    reach = positions.flatten().to(bank)
    if len(spread):
        reach = reach.clamp_max(spread.median())
    patches, distances, radii = [], [], []
    for levels in batches:
        for phi in model.descriptor(levels).flatten(2).transpose(1, 2):
            found = _distances(phi, bank).amin(dim=1)
            new = found > reach
            patches.append(phi[new])
            distances.append(found[new])
            radii.append(reach[new])
    candidates, distance, radius = torch.cat(patches), torch.cat(distances), torch.cat(radii)
    chosen: list[int] = []
    while len(chosen) < int(MOST_REPLACED * len(bank)) and bool((distance > radius).any()):
        chosen.append(int(distance.where(distance > radius, 0.0).argmax()))
        distance = torch.minimum(distance, _distances(candidates, candidates[chosen[-1:]])[:, 0])
        distance[chosen] = 0.0
    entering = candidates[chosen]
    bank[_dispensable(bank, entering, apart, neighbour)] = entering
    return len(chosen)


def _dispensable(bank: Tensor, entering: Tensor, loss: Tensor, neighbour: Tensor) -> Tensor:
    """Indices of the items of ``bank`` that leave, one for each entering patch.

    ``loss`` and ``neighbour`` are each item's distance to the nearest other item of ``bank``, and
    the index of that item. Both are changed in place.
    """
    everything = torch.cat([bank, entering])
    gone = torch.zeros(len(everything), dtype=torch.bool, device=bank.device)
    for part in torch.split(torch.arange(len(bank), device=bank.device), 1024):
        if not len(entering):
            break
        found = _distances(bank[part], entering).min(dim=1)
        nearer = found.values < loss[part]
        loss[part] = torch.where(nearer, found.values, loss[part])
        neighbour[part] = torch.where(nearer, found.indices + len(bank), neighbour[part])
    for _ in range(len(entering)):
        item = int(loss.argmin())
        gone[item] = True
        loss[item] = torch.inf
        bereft = ((neighbour == item) & ~gone[: len(bank)]).nonzero().flatten()
        if len(bereft):
            distance = _distances(bank[bereft], everything)
            distance[:, gone] = torch.inf
            distance[torch.arange(len(bereft), device=bank.device), bereft] = torch.inf
            found = distance.min(dim=1)
            loss[bereft], neighbour[bereft] = found.values, found.indices
    return gone.nonzero().flatten()


def _nearest_others(bank: Tensor) -> tuple[Tensor, Tensor]:
    """Each item's distance to the nearest other item, and the index of that item."""
    distances, indices = [], []
    for part in torch.split(torch.arange(len(bank), device=bank.device), 1024):
        distance = _distances(bank[part], bank)
        distance[torch.arange(len(part), device=bank.device), part] = torch.inf
        found = distance.min(dim=1)
        distances.append(found.values)
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Both are centred, because expanded squares lose digits as the mean grows.
    centre = b.mean(dim=0)
    return torch.cdist(a - centre, b - centre)
