"""Training steps of U-Net, pix2pix and CycleGAN in PyTorch, as the recipes' defaults have them.

The same layers, losses and updates as in `zoo.models`; written for the comparison of speed alone.
Images are `[N, 1, H, W]`, in [-1, 1].
"""

import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

RATES = {"lr": 2e-4, "betas": (0.5, 0.999)}


class UNet(nn.Module):
    """Two 3×3 convolutions a level, max-pool, transposed 2×2, concatenation; no norm."""

    def __init__(self, base: int, levels: int):
        super().__init__()
        widths = [base * 2**level for level in range(levels)]
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width in zip([1, *widths], widths, strict=False):
            self.down.append(_twice(before, width))
        for width in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose2d(2 * width, width, 2, 2))
            self.join.append(_twice(2 * width, width))
        self.last = nn.Conv2d(base, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([functional.relu(up(x)), kept.pop()], 1))
        return self.last(x)


def _twice(before: int, width: int) -> nn.Sequential:
    first, second = nn.Conv2d(before, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


class Pix2Pix(nn.Module):
    """The strided U-Net of 4×4 kernels, with batch norm and dropout."""

    def __init__(self, base: int, levels: int):
        super().__init__()
        widths = [base * min(2**level, 8) for level in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (before, width) in enumerate(zip([1, *widths], widths, strict=False)):
            inner = 0 < level < levels - 1
            layers: list[nn.Module] = [nn.Conv2d(before, width, 4, 2, 1, bias=False)]
            self.down.append(nn.Sequential(*layers, *([nn.BatchNorm2d(width)] if inner else [])))
        for level in reversed(range(levels)):
            before = widths[level] * (1 if level == levels - 1 else 2)
            width = widths[level - 1] if level else 1
            layers = [nn.ConvTranspose2d(before, width, 4, 2, 1, bias=not level)]
            layers += [nn.BatchNorm2d(width)] if level else [nn.Tanh()]
            layers += [nn.Dropout(0.5)] if 3 < level < levels - 1 else []
            self.up.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.leaky_relu(x, 0.2) if level else x)
            kept.append(x)
        x = kept.pop()
        for block in self.up:
            x = block(functional.relu(x))
            x = torch.cat([kept.pop(), x], 1) if kept else x
        return x


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)),
            *(nn.ReLU(), nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3)),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def resnet(base: int, blocks: int) -> nn.Sequential:
    """CycleGAN's generator."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(1, base, 7)]
    layers += [nn.InstanceNorm2d(base), nn.ReLU()]
    for width in (base, 2 * base):
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU()]
    layers += [_Residual(4 * base) for _ in range(blocks)]
    for width in (2 * base, base):
        layers.append(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1))
        layers += [nn.InstanceNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(base, 1, 7), nn.Tanh())


def patch_gan(channels: int, base: int, norm: type[nn.Module], biased: bool) -> nn.Sequential:
    """The 70×70 discriminator."""
    layers: list[nn.Module] = [nn.Conv2d(channels, base, 4, 2, 1), nn.LeakyReLU(0.2)]
    for level, stride in ((1, 2), (2, 2), (3, 1)):
        before, width = base * 2 ** (level - 1), base * 2**level
        layers += [nn.Conv2d(before, width, 4, stride, 1, bias=biased), norm(width)]
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Conv2d(8 * base, 1, 4, 1, 1))


def _adam(*networks: nn.Module) -> torch.optim.Adam:
    weights: Iterable[nn.Parameter] = itertools.chain(*(each.parameters() for each in networks))
    return torch.optim.Adam(weights, **RATES)


class Step:
    """A training step.

    Attributes:
        weights: how many it trains.
    """

    def __init__(self, run: Callable[[], object], *networks: nn.Module):
        self.run = run
        weights = itertools.chain(*(each.parameters() for each in networks))
        self.weights = sum(weight.numel() for weight in weights)

    def __call__(self) -> object:
        return self.run()


def _ready(network: nn.Module, layout: torch.memory_format, compiled: bool) -> nn.Module:
    network = network.to(memory_format=layout)
    return torch.compile(network) if compiled else network


def unet_step(
    batch: int, side: int, base: int, levels: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = _ready(UNet(base, levels), layout, compiled)
    optimizer = _adam(network)
    source, target = (torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "st")

    def step() -> None:
        loss = functional.mse_loss(network(source), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return Step(step, network)


def pix2pix_step(
    batch: int, side: int, base: int, levels: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = _ready(Pix2Pix(base, levels), layout, compiled)
    judge = _ready(patch_gan(2, base, nn.BatchNorm2d, False), layout, compiled)
    optimizer, judging = _adam(network), _adam(judge)
    source, target = (torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "st")

    def loss_of(scores: Tensor, real: bool) -> Tensor:
        wanted = torch.ones_like(scores) if real else torch.zeros_like(scores)
        return functional.binary_cross_entropy_with_logits(scores, wanted)

    def step() -> None:
        fake = network(source)
        real_scores = judge(torch.cat([source, target], 1))
        fake_scores = judge(torch.cat([source, fake.detach()], 1))
        judging.zero_grad(set_to_none=True)
        (0.5 * (loss_of(real_scores, True) + loss_of(fake_scores, False))).backward()
        judging.step()
        judge.requires_grad_(False)
        loss = loss_of(judge(torch.cat([source, fake], 1)), True)
        loss = loss + 100 * functional.l1_loss(fake, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        judge.requires_grad_(True)

    return Step(step, network, judge)


def cyclegan_step(
    batch: int, side: int, base: int, blocks: int, layout: torch.memory_format, compiled: bool
) -> Step:
    makers = [_ready(resnet(base, blocks), layout, compiled) for _ in "AB"]
    judges = []
    for _ in "AB":
        judges.append(_ready(patch_gan(1, base, nn.InstanceNorm2d, True), layout, compiled))
    optimizer, judging = _adam(*makers), _adam(*judges)
    real = [torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "AB"]

    def step() -> None:
        # The generators: from 0 to 1 and back, from 1 to 0 and back, and each domain to itself.
        for judge in judges:
            judge.requires_grad_(False)
        loss, fakes = torch.zeros(()), []
        for own in (0, 1):
            fake = makers[1 - own](real[own])
            fakes.append(fake)
            loss = loss + (judges[1 - own](fake) - 1).square().mean()
            loss = loss + 10 * functional.l1_loss(makers[own](fake), real[own])
            loss = loss + 5 * functional.l1_loss(makers[own](real[own]), real[own])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        # The discriminators.
        for judge in judges:
            judge.requires_grad_(True)
        judging.zero_grad(set_to_none=True)
        for own in (0, 1):
            scores = judges[1 - own](fakes[own].detach())
            wrong = (judges[own](real[own]) - 1).square().mean()
            (0.5 * (wrong + scores.square().mean())).backward()
        judging.step()

    return Step(step, *makers, *judges)
