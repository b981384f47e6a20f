"""Training steps in PyTorch, as the recipes' defaults have them.

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


class SRResNet(nn.Module):
    """SRGAN's generator, with batch norm."""

    def __init__(self, base: int, blocks: int, scale: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, base, 9, padding=4), nn.PReLU(base))
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            layers = [*_normed(base), nn.PReLU(base), *_normed(base)]
            self.blocks.append(nn.Sequential(*layers))
        self.joined = nn.Sequential(*_normed(base))
        layers = []
        for _ in range(scale.bit_length() - 1):
            layers += [nn.Conv2d(base, 4 * base, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(base)]
        self.up = nn.Sequential(*layers, nn.Conv2d(base, 1, 9, padding=4))

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.up(first + self.joined(x))


def _normed(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]


def dcgan(latent: int, base: int, side: int) -> nn.Sequential:
    """DCGAN's generator, of latents `[N, latent, 1, 1]`."""
    layers: list[nn.Module] = []
    before = latent
    widths = _widths(base, side)
    for level, width in enumerate(reversed(widths)):
        up = (4, 2, 1) if level else (4, 1, 0)
        layers += [nn.ConvTranspose2d(before, width, *up, bias=False), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU())
        before = width
    return nn.Sequential(*layers, nn.ConvTranspose2d(before, 1, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_judge(base: int, side: int) -> nn.Sequential:
    """DCGAN's discriminator."""
    layers: list[nn.Module] = []
    before = 1
    for level, width in enumerate(_widths(base, side)):
        layers.append(nn.Conv2d(before, width, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(width)] if level else []
        layers.append(nn.LeakyReLU(0.2))
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, bias=False))


def _widths(base: int, side: int) -> list[int]:
    """Channels at half of the images' side, a quarter, … 4 pixels."""
    return [base * 2**level for level in range(side.bit_length() - 3)]


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


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _judged(scores: Tensor, real: bool) -> Tensor:
    """The loss of a discriminator's scores, if this is what they should say."""
    wanted = torch.ones_like(scores) if real else torch.zeros_like(scores)
    return functional.binary_cross_entropy_with_logits(scores, wanted)


def unet_step(
    batch: int, side: int, base: int, levels: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = _ready(UNet(base, levels), layout, compiled)
    optimizer = _adam(network)
    source, target = (torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "st")

    def step() -> None:
        loss = functional.mse_loss(network(source), target)
        _descend(optimizer, loss)

    return Step(step, network)


def pix2pix_step(
    batch: int, side: int, base: int, levels: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = _ready(Pix2Pix(base, levels), layout, compiled)
    judge = _ready(patch_gan(2, base, nn.BatchNorm2d, False), layout, compiled)
    optimizer, judging = _adam(network), _adam(judge)
    source, target = (torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "st")

    def step() -> None:
        fake = network(source)
        real_scores = judge(torch.cat([source, target], 1))
        fake_scores = judge(torch.cat([source, fake.detach()], 1))
        _descend(judging, 0.5 * (_judged(real_scores, True) + _judged(fake_scores, False)))
        judge.requires_grad_(False)
        loss = _judged(judge(torch.cat([source, fake], 1)), True)
        loss = loss + 100 * functional.l1_loss(fake, target)
        _descend(optimizer, loss)
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
        _descend(optimizer, loss)
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


def srcnn_step(
    batch: int, side: int, filters: int, scale: int, layout: torch.memory_format, compiled: bool
) -> Step:
    first = nn.Sequential(nn.Conv2d(1, filters, 9), nn.ReLU(), nn.Conv2d(filters, filters // 2, 1))
    last = nn.Sequential(nn.ReLU(), nn.Conv2d(filters // 2, 1, 5))
    network = _ready(nn.Sequential(first, last), layout, compiled)
    rates = [{"params": first.parameters()}, {"params": last.parameters(), "lr": 1e-5}]
    optimizer = torch.optim.SGD(rates, lr=1e-4, momentum=0.9)
    source = torch.randn(batch, 1, side // scale, side // scale).to(memory_format=layout)
    target = torch.randn(batch, 1, side, side).to(memory_format=layout)
    edge = 2 * scale  # where the image that is enlarged has no neighbours
    centre = slice(edge, -edge), slice(edge, -edge)
    inner = slice(edge + 6, -edge - 6), slice(edge + 6, -edge - 6)

    def step() -> None:
        enlarged = functional.interpolate(source, scale_factor=scale, mode="bicubic")
        output = network(enlarged[(..., *centre)])
        loss = (output - target[(..., *inner)]).square().sum() / batch
        _descend(optimizer, loss)

    return Step(step, network)


def srresnet_step(
    batch: int,
    side: int,
    base: int,
    blocks: int,
    scale: int,
    layout: torch.memory_format,
    compiled: bool,
) -> Step:
    network = _ready(SRResNet(base, blocks, scale), layout, compiled)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    source = torch.randn(batch, 1, side // scale, side // scale).to(memory_format=layout)
    target = torch.randn(batch, 1, side, side).to(memory_format=layout)

    def step() -> None:
        loss = functional.mse_loss(network(source), target)
        _descend(optimizer, loss)

    return Step(step, network)


def dcgan_step(
    batch: int, side: int, base: int, latent: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = _ready(dcgan(latent, base, side), layout, compiled)
    judge = _ready(dcgan_judge(base, side), layout, compiled)
    optimizer, judging = _adam(network), _adam(judge)
    real = torch.randn(batch, 1, side, side).to(memory_format=layout)

    def step() -> None:
        fake = network(torch.randn(batch, latent, 1, 1))
        _descend(judging, _judged(judge(real), True) + _judged(judge(fake.detach()), False))
        judge.requires_grad_(False)
        loss = _judged(judge(fake), True)
        _descend(optimizer, loss)
        judge.requires_grad_(True)

    return Step(step, network, judge)
