"""The mathematics of CFA against literal, float64 and brute-force versions of itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from export.model import cfa
from export.settings import TrainSettings

SMALL = TrainSettings(size=(64, 96), strides=(4, 8, 16), bank_items=40, neighbours=3)
CHANNELS = (6, 5, 7)


def levels(seed: int, n: int = 2, offset: float = 0.0) -> cfa.Levels:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, c, 64 // s, 96 // s, generator=generator) + offset
        for c, s in zip(CHANNELS, SMALL.strides, strict=True)
    ]


def model(settings_: TrainSettings = SMALL, seed: int = 0, offset: float = 0.0) -> cfa.CFA:
    return build(settings_, [levels(seed + i, offset=offset) for i in range(3)], seed)


def build(settings_: TrainSettings, batches: list[cfa.Levels], seed: int = 0) -> cfa.CFA:
    device = torch.device("cpu")
    scale = cfa.measure_scale(settings_, CHANNELS, lambda: iter(batches), device)
    return cfa.build(
        settings_, CHANNELS, lambda: iter(batches), scale=scale, seed=seed, device=device
    )


def literal_features(pooled: cfa.Levels, grid: tuple[int, int]) -> torch.Tensor:
    """Section III-A as written: up-sample to the finest grid, concatenate."""
    return torch.cat(
        [F.interpolate(p, grid, mode="bilinear", align_corners=False) for p in pooled], dim=1
    )


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("width", [None, 9])
@pytest.mark.parametrize("init", ["principal", "identity", "random"])
def test_descriptor_is_the_literal_coord_conv(
    standardise: bool, width: int | None, init: str
) -> None:
    options = SMALL.model_copy(
        update={"standardise": standardise, "descriptor_width": width, "descriptor_init": init}
    )
    trained = model(options, offset=3.0).descriptor
    with torch.no_grad():
        trained.weight.add_(0.3 * torch.randn(trained.weight.shape))
    pooled = levels(9, offset=3.0)
    p = literal_features(pooled, SMALL.grid)
    p = (p - trained.mean.view(1, -1, 1, 1)) / trained.divisor.view(1, -1, 1, 1)
    x = torch.linspace(-1, 1, SMALL.grid[1]).view(1, 1, 1, -1).expand(2, 1, *SMALL.grid)
    y = torch.linspace(-1, 1, SMALL.grid[0]).view(1, 1, -1, 1).expand(2, 1, *SMALL.grid)
    weight = trained.weight.double()[:, :, None, None]
    literal = F.conv2d(torch.cat((p, x, y), dim=1).double(), weight, trained.bias.double())
    torch.testing.assert_close(trained(pooled).double(), literal, atol=2e-4, rtol=1e-4)


def test_principal_axes_keep_what_varies() -> None:
    mixing = torch.randn(4, sum(CHANNELS), generator=torch.Generator().manual_seed(3))
    finest = [torch.einsum("nkhw,kc->nchw", levels(seed)[0][:, :4], mixing) for seed in range(6)]
    batches = [list(torch.split(mixed, CHANNELS, dim=1)) for mixed in finest]
    batches = [[F.avg_pool2d(b[i], 2**i) for i in range(3)] for b in batches]
    scale = cfa.FeatureScale.measure(iter(batches), CHANNELS)
    axes = cfa.principal_axes(iter(batches), scale, SMALL.grid, torch.Generator())
    torch.testing.assert_close(axes @ axes.T, torch.eye(len(axes)), atol=1e-4, rtol=0)

    def spread(**changes: object) -> torch.Tensor:
        built = cfa.build(
            SMALL.model_copy(update=changes),
            CHANNELS,
            lambda: iter(batches),
            scale=scale,
            seed=0,
            device=torch.device("cpu"),
        )
        with torch.no_grad():
            return torch.cat([built.descriptor(b) for b in batches]).var(dim=(0, 2, 3))

    principal = spread(gamma_d=1.5, descriptor_init="principal")
    drawn = spread(gamma_d=1.5, descriptor_init="identity")
    assert len(principal) == len(drawn) == 12
    assert (principal.diff() <= 1e-3).all()
    # Four sources in three resolutions: twelve axes hold all there is.
    assert principal.sum() > 0.99 * spread().sum() > 1.2 * drawn.sum()


def test_standardised_channels_share_one_variance() -> None:
    batches = [[level * (i + 1) + 5 for i, level in enumerate(levels(seed))] for seed in range(4)]
    scale = cfa.FeatureScale.measure(iter(batches), CHANNELS)
    for i in range(3):
        values = torch.cat([batch[i] for batch in batches])
        shape = (1, -1, 1, 1)
        standard = (values - scale.mean[i].view(shape)) / scale.divisor[i].view(shape)
        assert standard.mean().abs() < 1e-3
        torch.testing.assert_close(
            standard.var(dim=(0, 2, 3)), torch.ones(CHANNELS[i]), atol=0.02, rtol=0
        )


@pytest.mark.parametrize("gain", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("init", ["identity", "random"])
def test_unit_of_distance_is_a_good_patch_to_its_nearest_item(gain: float, init: str) -> None:
    options = SMALL.model_copy(update={"descriptor_init": init})
    batches = [[gain * level for level in levels(i)] for i in range(3)]
    built = build(options, batches)
    with torch.no_grad():
        phi = torch.cat(
            [built.descriptor(b).flatten(2).transpose(1, 2).flatten(0, 1) for b in batches]
        )
    nearest = torch.cdist(phi, built.bank).amin(dim=1).square().mean().item()
    # A random φ has a bias and coordinates that do not scale with the features.
    assert nearest == pytest.approx(1.0, rel=1e-3 if init == "identity" else 0.5)


@given(seed=st.integers(0, 1000), radius=st.floats(0.0, 4.0), alpha=st.floats(0.0, 2.0))
@settings(max_examples=20)
def test_loss_is_equations_2_and_3(seed: int, radius: float, alpha: float) -> None:
    built = model(seed=seed)
    with torch.no_grad():
        built.radius.fill_(radius)
        built.alpha = alpha
    pooled = levels(seed + 50)
    attract, repel = built.loss(pooled)
    phi = built.descriptor(pooled).detach().double().permute(0, 2, 3, 1).reshape(-1, sum(CHANNELS))
    d = (phi[:, None] - built.bank.double()[None]).square().sum(2).sort(dim=1).values
    k, j, nu, r2 = 3, 3, SMALL.nu, built.radius.double().item() ** 2
    t = len(phi)
    l_att = (d[:, :k] - r2).clamp_min(0).sum() / (nu * t * k)
    l_rep = (r2 - d[:, k : k + j] - built.alpha).clamp_min(0).sum() / (nu * t * j)
    assert attract.item() == pytest.approx(l_att.item(), rel=1e-4, abs=1e-3)
    assert repel.item() == pytest.approx(l_rep.item(), rel=1e-3, abs=1e-1)


@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 900),
    width=st.integers(1, 6),
    share=st.floats(0.01, 0.99),
)
@settings(max_examples=40)
def test_farthest_first_is_the_literal_greedy_choice(
    seed: int, count: int, width: int, share: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Distances of whole numbers are exact, and no two of them need be equal for the radius to be.
    points = torch.randint(-500, 500, (count, width), generator=generator).float()
    items = max(1, int(count * share))
    chosen = cfa.farthest_first(points, items)
    assert len(set(chosen.tolist())) == items
    covered = torch.cdist(points.double(), points[chosen].double())
    for taken in range(1, items):
        # Each new item lies as far from those before it as any point does.
        reach = covered[:, :taken].amin(dim=1)
        assert reach[chosen[taken]] >= reach.max() * (1 - 1e-4) - 1e-2


def test_repulsion_acts_once_the_radius_reaches_the_negatives() -> None:
    built = model()
    with torch.no_grad():
        built.radius.fill_(100.0)
    _, repel = built.loss(levels(3))
    assert repel.item() > 0
    repel.backward()
    gradient = built.descriptor.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_patch_score_is_the_softmin_weighted_nearest_distance() -> None:
    built = model()
    pooled = levels(7)
    phi = built.descriptor(pooled).detach().double().permute(0, 2, 3, 1)
    distance = torch.cdist(phi.reshape(-1, phi.shape[-1]), built.bank.double())
    nearest = distance.sort(dim=1).values[:, :3]
    expected = torch.softmax(-nearest, dim=1)[:, 0] * nearest[:, 0]
    found = built.patch_scores(pooled).double().flatten()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_patch_in_the_bank_scores_zero_even_far_from_the_origin() -> None:
    built = model(SMALL.model_copy(update={"standardise": False}), offset=1000.0)
    pooled = levels(0, offset=1000.0)
    phi = built.descriptor(pooled).detach().permute(0, 2, 3, 1).reshape(-1, sum(CHANNELS))
    with torch.no_grad():
        built.bank.copy_(phi[: len(built.bank)])
    assert built.patch_scores(pooled).flatten()[: len(built.bank)].max() < 0.1


@given(
    grid=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    factor=st.sampled_from([4, 8]),
    sigma=st.floats(0.5, 6.0),
)
@settings(max_examples=25)
def test_smoothing_matrices_are_bilinear_then_gaussian(
    grid: tuple[int, int], factor: int, sigma: float
) -> None:
    small = np.random.default_rng(0).random(grid)
    size = (grid[0] * factor, grid[1] * factor)
    up = F.interpolate(
        torch.from_numpy(small)[None, None], size, mode="bilinear", align_corners=False
    )
    literal = gaussian_filter(up[0, 0].numpy(), sigma, mode="reflect")
    rows, columns = (cfa.smoothing(grid[i], size[i], sigma) for i in (0, 1))
    np.testing.assert_allclose(rows @ small @ columns.T, literal, atol=1e-9)


def test_mean_bank_is_the_position_wise_mean() -> None:
    options = TrainSettings(
        size=(64, 96), strides=(4, 8, 16), gamma_c=1, bank_init="mean", standardise=False
    )
    built = model(options)
    phis = torch.cat([built.descriptor(levels(i)) for i in range(3)]).detach()
    expected = phis.mean(dim=0).flatten(1).T
    torch.testing.assert_close(built.bank, expected, atol=1e-5, rtol=1e-4)


def test_ema_bank_moves_from_the_first_part_towards_the_others() -> None:
    options = SMALL.model_copy(update={"bank_init": "ema", "standardise": False})
    first = [level[:1] for level in levels(0)]
    shifted = [level[:1] + 4.0 for level in levels(1)]
    alone = build(options, [first])
    both = build(options, [first, shifted])
    assert (both.bank - alone.bank).mean().item() > 0.1
    assert both.bank.shape == (40, sum(CHANNELS))


def test_coreset_keeps_the_rare_patch_that_a_mean_would_blur() -> None:
    batches = [levels(i) for i in range(6)]
    for level in batches[4]:
        level[0, :, 0, 0] += 25.0
    options = SMALL.model_copy(update={"standardise": False})
    rare = batches[4]
    coreset = build(options, batches)
    mean = build(options.model_copy(update={"bank_init": "mean"}), batches)
    near = coreset.patch_scores(rare)[0, 0, 0]
    blurred = mean.patch_scores(rare)[0, 0, 0]
    assert near.item() < 0.5 * blurred.item()


def test_bank_size_does_not_depend_on_the_number_of_parts() -> None:
    for count in (1, 5):
        batches = [levels(i) for i in range(count)]
        built = build(SMALL, batches)
        assert built.bank.shape == (40, sum(CHANNELS))
