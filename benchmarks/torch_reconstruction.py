"""Training steps in PyTorch of the networks that reconstruct, as the recipes' defaults have them.

As `benchmarks.torch_steps`. Transforms are those that PyTorch's users have on a CPU: its own FFT,
and ASTRA's projector, whose gradient is its adjoint.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import measure
from benchmarks.torch_steps import Step, UNet, descend, ready


class Automap(nn.Module):
    """Two dense layers from 2 n² values, two convolutions, a transposed one; image, features."""

    def __init__(self, n: int, filters: int):
        super().__init__()
        self.n = n
        self.dense = nn.Sequential(
            nn.Linear(2 * n * n, n * n), nn.Tanh(), nn.Linear(n * n, n * n), nn.Tanh()
        )
        self.body = nn.Sequential(
            *(nn.Conv2d(1, filters, 5, padding=2), nn.ReLU()),
            *(nn.Conv2d(filters, filters, 5, padding=2), nn.ReLU()),
        )
        self.last = nn.ConvTranspose2d(filters, 1, 7, padding=3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(self.dense(x.flatten(1)).reshape(-1, 1, self.n, self.n))
        return self.last(features) - 1, features


def automap_step(
    batch: int, n: int, filters: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = ready(Automap(n, filters), layout, compiled)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=2e-5, alpha=0.9, eps=1e-8)
    source = torch.randn(batch, 2, n, n).to(memory_format=layout)
    target = torch.randn(batch, 1, n, n).to(memory_format=layout)

    def step() -> None:
        jittered = source * (1 + 0.01 * (2 * torch.rand_like(source) - 1))
        output, features = network(jittered)
        loss = functional.mse_loss(output, target) + 1e-4 * features.abs().sum(1).mean()
        descend(optimizer, loss)

    return Step(step, network)


class VarNet(nn.Module):
    """Cascades of data consistency and U-Nets, of one coil's complex k-space `[N, 1, H, W]`."""

    def __init__(self, base: int, levels: int, cascades: int):
        super().__init__()
        makers = (UNet(base, levels, 2, nn.InstanceNorm2d) for _ in range(cascades))
        self.priors = nn.ModuleList(makers)
        self.eta = nn.Parameter(torch.ones(cascades))

    def forward(self, measured: Tensor) -> Tensor:
        mask = (measured != 0).to(torch.float32)
        size = measured.abs().square().mean((2, 3), keepdim=True).add(1e-20).sqrt()
        kspace = measured = measured / size
        for prior, eta in zip(self.priors, self.eta, strict=True):
            image = _image(kspace)
            found = prior(torch.cat([image.real, image.imag], 1))
            change = _kspace(torch.complex(found[:, :1], found[:, 1:]))
            kspace = kspace - eta * mask * (kspace - measured) - change
        image = _image(kspace)
        return (image.real.square() + image.imag.square() + 1e-12).sqrt() * size - 1


def _image(kspace: Tensor) -> Tensor:
    moved = torch.fft.ifftshift(kspace, (-2, -1))
    return torch.fft.fftshift(torch.fft.ifft2(moved, norm="ortho"), (-2, -1))


def _kspace(image: Tensor) -> Tensor:
    moved = torch.fft.ifftshift(image, (-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(moved, norm="ortho"), (-2, -1))


def varnet_step(
    batch: int,
    side: int,
    base: int,
    levels: int,
    cascades: int,
    layout: torch.memory_format,
    compiled: bool,
) -> Step:
    network = ready(VarNet(base, levels, cascades), layout, compiled)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    source = torch.randn(batch, 1, side, side, dtype=torch.complex64)
    target = torch.rand(batch, 1, side, side)

    def step() -> None:
        descend(optimizer, functional.l1_loss(network(source), target))

    return Step(step, network)


class _Project(torch.autograd.Function):
    """ASTRA's projector of `[N, 1, n, n]`, or its adjoint; either is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beam: "_Beam", back: bool) -> Tensor:
        ctx.beam, ctx.back = beam, back
        return beam.apply(x, back)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.beam.apply(gradients[0], not ctx.back), None, None


class _Beam:
    """Parallel beams with detectors as wide as pixels, scaled to a norm of about 1."""

    def __init__(self, n: int, views: int, detectors: int):
        self.astra = measure.needed("astra")
        angles = (np.arange(views) + 0.5) * np.pi / views
        geometry = self.astra.create_proj_geom("parallel", 1.0, detectors, angles)
        volume = self.astra.create_vol_geom(n, n)
        self.projector = self.astra.create_projector("linear", geometry, volume)
        self.size = float(np.sqrt(n * views))

    def apply(self, x: Tensor, back: bool) -> Tensor:
        work = self.astra.create_backprojection if back else self.astra.create_sino
        found = []
        for image in x.detach()[:, 0].contiguous().numpy():
            number, values = work(image, self.projector)
            self.astra.data2d.delete(number)
            found.append(values)
        return torch.from_numpy(np.stack(found))[:, None] / self.size


class LearnedPrimalDual(nn.Module):
    """Sinograms `[N, 1, V, D]` to images `[N, 1, n, n]`, from zero."""

    def __init__(self, n: int, views: int, detectors: int, iterations: int, filters: int):
        super().__init__()
        self.n, self.beam = n, _Beam(n, views, detectors)
        self.dual = nn.ModuleList(_update(7, filters) for _ in range(iterations))
        self.primal = nn.ModuleList(_update(6, filters) for _ in range(iterations))

    @torch.compiler.disable
    def project(self, x: Tensor, back: bool) -> Tensor:
        return _Project.apply(x, self.beam, back)

    def forward(self, y: Tensor) -> Tensor:
        f, h = y.new_zeros(len(y), 5, self.n, self.n), y.new_zeros(len(y), 5, *y.shape[2:])
        for dual, primal in zip(self.dual, self.primal, strict=True):
            h = h + dual(torch.cat([h, self.project(f[:, 1:2], False), y], 1))
            f = f + primal(torch.cat([f, self.project(h[:, :1], True)], 1))
        return f[:, :1]


def _update(channels: int, filters: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, filters):
        layers += [nn.Conv2d(before, filters, 3, padding=1), nn.PReLU(filters, init=0.0)]
    return nn.Sequential(*layers, nn.Conv2d(filters, 5, 3, padding=1))


def learned_primal_dual_step(
    batch: int,
    n: int,
    views: int,
    detectors: int,
    iterations: int,
    filters: int,
    layout: torch.memory_format,
    compiled: bool,
) -> Step:
    network = LearnedPrimalDual(n, views, detectors, iterations, filters)
    network = ready(network, layout, compiled)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.99))
    source = torch.rand(batch, 1, views, detectors).to(memory_format=layout)
    target = torch.rand(batch, 1, n, n).to(memory_format=layout)

    def step() -> None:
        loss = functional.mse_loss(network(source), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return Step(step, network)


class Critic(nn.Module):
    """Convolutions, the mean over places, a weight each; and how far a step down it goes."""

    def __init__(self, base: int, levels: int):
        super().__init__()
        layers: list[nn.Module] = []
        before, width = 1, base
        for _ in range(levels):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.LeakyReLU(0.1)]
            before, width = width, min(2 * width, 4 * base)
            layers += [nn.Conv2d(before, width, 4, 2, 1), nn.LeakyReLU(0.1)]
            before = width
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.1)]
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width, 1, bias=False)
        self.length = nn.Parameter(torch.tensor(0.05))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(0.5 * x + 0.5).mean((2, 3)))


def critic_step(
    batch: int, side: int, base: int, levels: int, layout: torch.memory_format, compiled: bool
) -> Step:
    bare = Critic(base, levels)
    network = ready(bare, layout, compiled)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.999))
    images = (torch.rand(batch, 1, side, side).to(memory_format=layout) for _ in "qt")
    quick, true = images
    quick.requires_grad_(True)

    def step() -> None:
        scores = network(quick)
        higher = (scores - network(true)).mean()
        (down,) = torch.autograd.grad(scores.sum(), quick, retain_graph=True)
        given = quick.detach()
        mixed = true + (given - true) * torch.rand(batch, 1, 1, 1)
        mixed.requires_grad_(True)
        (slope,) = torch.autograd.grad(network(mixed).sum(), mixed, create_graph=True)
        steep = (side**2 * slope.square().sum((1, 2, 3)) + 1e-12).sqrt()
        penalty = functional.relu(steep - 1).square().mean()
        moved = given - bare.length * side**2 * down
        descend(optimizer, penalty - higher + functional.mse_loss(moved, true))

    return Step(step, network)


STEPS: dict[str, Callable[..., Step]] = {
    "automap": automap_step,
    "critic": critic_step,
    "learned_primal_dual": learned_primal_dual_step,
    "varnet": varnet_step,
}
