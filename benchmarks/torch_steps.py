"""Training steps in PyTorch, as the recipes' defaults have them.

The same layers, losses and updates as in `zoo.models`; written for the comparison of speed alone.
Images are `[N, 1, H, W]`, in [-1, 1].
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

RATES = {"lr": 2e-4, "betas": (0.5, 0.999)}


class UNet(nn.Module):
    """Two 3×3 convolutions a level, max-pool, transposed 2×2, concatenation."""

    def __init__(
        self, base: int, levels: int, channels: int = 1, norm: type[nn.Module] | None = None
    ):
        super().__init__()
        widths = [base * 2**level for level in range(levels)]
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, width in zip([channels, *widths], widths, strict=False):
            self.down.append(_twice(before, width, norm))
        for width in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose2d(2 * width, width, 2, 2))
            self.join.append(_twice(2 * width, width, norm))
        self.last = nn.Conv2d(base, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        return self.last(x)


def _twice(before: int, width: int, norm: type[nn.Module] | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        layers += [norm(width)] if norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


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


class UnitEncoder(nn.Sequential):
    """UNIT's encoder: a code of a quarter of the sides and 4 base channels."""

    def __init__(self, base: int, blocks: int):
        layers = _padded(1, base, 7)
        for width in (base, 2 * base):
            layers += [nn.InstanceNorm2d(width), nn.ReLU(), *_padded(width, 2 * width, 4, 2)]
        layers += [nn.InstanceNorm2d(4 * base), nn.ReLU()]
        super().__init__(*layers, *(_Residual(4 * base) for _ in range(blocks)))


class UnitDecoder(nn.Sequential):
    """UNIT's decoder."""

    def __init__(self, base: int, blocks: int):
        layers: list[nn.Module] = [_Residual(4 * base) for _ in range(blocks)]
        for width in (2 * base, base):
            layers += [nn.Upsample(scale_factor=2), *_padded(2 * width, width, 5)]
            layers += [nn.GroupNorm(1, width), nn.ReLU()]
        super().__init__(*layers, *_padded(base, 1, 7), nn.Tanh())


class MultiScale(nn.Module):
    """UNIT's discriminators: scores of an image and of its averages over 2 and 4 pixels."""

    def __init__(self, base: int):
        super().__init__()
        self.judges = nn.ModuleList()
        for _ in range(3):
            layers: list[nn.Module] = []
            for before, width in zip([1, base, 2 * base, 4 * base], [1, 2, 4, 8], strict=True):
                layers += [*_padded(before, width * base, 4, 2), nn.LeakyReLU(0.2)]
            self.judges.append(nn.Sequential(*layers, nn.Conv2d(8 * base, 1, 1)))

    def forward(self, x: Tensor) -> list[Tensor]:
        scores = [self.judges[0](x)]
        for judge in list(self.judges)[1:]:
            x = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            scores.append(judge(x))
        return scores


def _padded(before: int, width: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [nn.ReflectionPad2d((size - 1) // 2), nn.Conv2d(before, width, size, stride)]


class _Equalised(nn.Module):
    """A convolution, or with `size` 0 a dense layer, whose weights He's constant scales."""

    def __init__(self, before: int, width: int, size: int = 3, gain: float = 2**0.5):
        super().__init__()
        self.size = size
        kernel = (size, size) if size else ()
        self.weight = nn.Parameter(torch.randn(width, before, *kernel))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = gain / (before * max(size, 1) ** 2) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if not self.size:
            return functional.linear(x, weight, self.bias)
        return functional.conv2d(x, weight, self.bias, padding=self.size // 2)


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)


def _pixel_norm(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Grown(nn.Module):
    """PGGAN's generator at its last level, of `widths` at 4, 8, … pixels."""

    def __init__(self, latent: int, widths: list[int]):
        super().__init__()
        self.first = _Dense16(latent, widths[0])
        self.ups, self.second = nn.ModuleList(), nn.ModuleList()
        self.second.append(_Equalised(widths[0], widths[0]))
        for before, width in itertools.pairwise(widths):
            self.ups.append(_Equalised(before, width))
            self.second.append(_Equalised(width, width))
        self.rgb = _Equalised(widths[-1], 1, 1, 1.0)

    def forward(self, latents: Tensor) -> Tensor:
        x = _pixel_norm(_leaky(self.first(_pixel_norm(latents))))
        x = _pixel_norm(_leaky(self.second[0](x)))
        for up, second in zip(self.ups, list(self.second)[1:], strict=True):
            x = _pixel_norm(_leaky(up(functional.interpolate(x, scale_factor=2))))
            x = _pixel_norm(_leaky(second(x)))
        return self.rgb(x)


class _Dense16(nn.Module):
    """Latents to `[N, width, 4, 4]`, a bias for each channel."""

    def __init__(self, latent: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16 * width, latent))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = 2**0.5 / 4 / latent**0.5

    def forward(self, x: Tensor) -> Tensor:
        x = functional.linear(x, self.weight * self.scale).reshape(len(x), -1, 4, 4)
        return x + self.bias[:, None, None]


class GrownCritic(nn.Module):
    """PGGAN's critic at its last level."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.rgb = _Equalised(1, widths[-1], 1)
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        for before, width in reversed(list(itertools.pairwise(widths))):
            self.first.append(_Equalised(width, width))
            self.second.append(_Equalised(width, before))
        self.last = _Equalised(widths[0] + 1, widths[0])
        self.dense = _Equalised(16 * widths[0], widths[0], 0)
        self.score = _Equalised(widths[0], 1, 0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = _leaky(self.rgb(x))
        for first, second in zip(self.first, self.second, strict=True):
            x = functional.avg_pool2d(_leaky(second(_leaky(first(x)))), 2)
        # How much the images of a group of 4 differ.
        groups = x.reshape(-1, 4, *x.shape[1:])
        deviation = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        more = deviation.repeat_interleave(4)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        x = _leaky(self.last(torch.cat([x, more], 1)))
        return self.score(_leaky(self.dense(x.flatten(1))))


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


def ready(network: nn.Module, layout: torch.memory_format, compiled: bool) -> nn.Module:
    network = network.to(memory_format=layout)
    return torch.compile(network) if compiled else network


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
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
    network = ready(UNet(base, levels), layout, compiled)
    optimizer = _adam(network)
    source, target = (torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "st")

    def step() -> None:
        loss = functional.mse_loss(network(source), target)
        descend(optimizer, loss)

    return Step(step, network)


def pix2pix_step(
    batch: int, side: int, base: int, levels: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = ready(Pix2Pix(base, levels), layout, compiled)
    judge = ready(patch_gan(2, base, nn.BatchNorm2d, False), layout, compiled)
    optimizer, judging = _adam(network), _adam(judge)
    source, target = (torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "st")

    def step() -> None:
        fake = network(source)
        real_scores = judge(torch.cat([source, target], 1))
        fake_scores = judge(torch.cat([source, fake.detach()], 1))
        descend(judging, 0.5 * (_judged(real_scores, True) + _judged(fake_scores, False)))
        judge.requires_grad_(False)
        loss = _judged(judge(torch.cat([source, fake], 1)), True)
        loss = loss + 100 * functional.l1_loss(fake, target)
        descend(optimizer, loss)
        judge.requires_grad_(True)

    return Step(step, network, judge)


def cyclegan_step(
    batch: int, side: int, base: int, blocks: int, layout: torch.memory_format, compiled: bool
) -> Step:
    makers = [ready(resnet(base, blocks), layout, compiled) for _ in "AB"]
    judges = []
    for _ in "AB":
        judges.append(ready(patch_gan(1, base, nn.InstanceNorm2d, True), layout, compiled))
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
        descend(optimizer, loss)
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
    network = ready(nn.Sequential(first, last), layout, compiled)
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
        descend(optimizer, loss)

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
    network = ready(SRResNet(base, blocks, scale), layout, compiled)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    source = torch.randn(batch, 1, side // scale, side // scale).to(memory_format=layout)
    target = torch.randn(batch, 1, side, side).to(memory_format=layout)

    def step() -> None:
        loss = functional.mse_loss(network(source), target)
        descend(optimizer, loss)

    return Step(step, network)


def dcgan_step(
    batch: int, side: int, base: int, latent: int, layout: torch.memory_format, compiled: bool
) -> Step:
    network = ready(dcgan(latent, base, side), layout, compiled)
    judge = ready(dcgan_judge(base, side), layout, compiled)
    optimizer, judging = _adam(network), _adam(judge)
    real = torch.randn(batch, 1, side, side).to(memory_format=layout)

    def step() -> None:
        fake = network(torch.randn(batch, latent, 1, 1))
        descend(judging, _judged(judge(real), True) + _judged(judge(fake.detach()), False))
        judge.requires_grad_(False)
        loss = _judged(judge(fake), True)
        descend(optimizer, loss)
        judge.requires_grad_(True)

    return Step(step, network, judge)


def unit_step(
    batch: int, side: int, base: int, blocks: int, layout: torch.memory_format, compiled: bool
) -> Step:
    encoders = [ready(UnitEncoder(base, blocks), layout, compiled) for _ in "AB"]
    decoders = [ready(UnitDecoder(base, blocks), layout, compiled) for _ in "AB"]
    judges = [ready(MultiScale(base), layout, compiled) for _ in "AB"]
    optimizer, judging = _adam(*encoders, *decoders), _adam(*judges)
    for group in (*optimizer.param_groups, *judging.param_groups):
        group["weight_decay"] = 1e-4
    real = [torch.randn(batch, 1, side, side).to(memory_format=layout) for _ in "AB"]

    def errors(scores: list[Tensor], wanted: float) -> Tensor:
        return torch.stack([(each - wanted).square().mean() for each in scores]).sum()

    def step() -> None:
        codes = [encode(image) for encode, image in zip(encoders, real, strict=True)]
        noisy = [code + torch.randn_like(code) for code in codes]
        fakes = [decoders[to](noisy[1 - to]) for to in (0, 1)]
        # The discriminators.
        loss = torch.zeros(())
        for own in (0, 1):
            loss = loss + errors(judges[own](real[own]), 1.0)
            loss = loss + errors(judges[own](fakes[own].detach()), 0.0)
        descend(judging, loss)
        # The generators.
        for judge in judges:
            judge.requires_grad_(False)
        loss = torch.zeros(())
        for own in (0, 1):
            code = encoders[1 - own](fakes[1 - own])
            back = decoders[own](code + torch.randn_like(code))
            loss = loss + errors(judges[own](fakes[own]), 1.0)
            loss = loss + 10 * functional.l1_loss(decoders[own](noisy[own]), real[own])
            loss = loss + 10 * functional.l1_loss(back, real[own])
            loss = loss + 0.01 * (codes[own].square().mean() + code.square().mean())
        descend(optimizer, loss)
        for judge in judges:
            judge.requires_grad_(True)

    return Step(step, *encoders, *decoders, *judges)


def pggan_step(
    batch: int,
    side: int,
    widths: list[int],
    latent: int,
    layout: torch.memory_format,
    compiled: bool,
) -> Step:
    network = ready(Grown(latent, widths), layout, compiled)
    average = [weight.detach().clone() for weight in network.parameters()]
    judge = ready(GrownCritic(widths), layout, compiled)
    rates: dict[str, Any] = {"lr": 1e-3, "betas": (0.0, 0.99)}
    optimizer = torch.optim.Adam(network.parameters(), **rates)
    judging = torch.optim.Adam(judge.parameters(), **rates)
    real = torch.randn(batch, 1, side, side).to(memory_format=layout)

    def step() -> None:
        with torch.no_grad():
            fake = network(torch.randn(batch, latent))
        # The critic, with the penalty of its gradient between real and generated images.
        real_scores, fake_scores = judge(real), judge(fake)
        mixed = (real + (fake - real) * torch.rand(batch, 1, 1, 1)).requires_grad_(True)
        (slope,) = torch.autograd.grad(judge(mixed).sum(), mixed, create_graph=True)
        penalty = (slope.square().sum((1, 2, 3)).sqrt() - 1).square().mean()
        loss = fake_scores.mean() - real_scores.mean() + 10 * penalty
        descend(judging, loss + 1e-3 * real_scores.square().mean())
        # The generator, and the moving average of its weights.
        judge.requires_grad_(False)
        descend(optimizer, -judge(network(torch.randn(batch, latent))).mean())
        judge.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(average, list(network.parameters()), 1e-3)

    return Step(step, network, judge)


STEPS: dict[str, Callable[..., Step]] = {
    "encoder_decoder": unet_step,
    "pix2pix": pix2pix_step,
    "cyclegan": cyclegan_step,
    "unit": unit_step,
    "srcnn": srcnn_step,
    "srgan": srresnet_step,
    "dcgan": dcgan_step,
    "pggan": pggan_step,
}
