"""Small models of the families that people train, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)


def normed(*sizes: int) -> nn.Sequential:
    return nn.Sequential(conv(*sizes), nn.BatchNorm2d(sizes[1]))


class Wide(nn.Module):
    """A block of WideResNet (Zagoruyko & Komodakis 2016): normalised and bent before each convolution."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), conv(before, after, 3, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(after), conv(after, after)
        self.short = conv(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(x))
        found: Tensor = self.short(y) + self.conv2(torch.relu(self.norm2(self.conv1(y))))
        return found


class Next(nn.Module):
    """A block of ResNeXt (Xie et al. 2017): its middle convolution in groups."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        middle = [nn.ReLU(), normed(8, 8, 3, stride, 4), nn.ReLU()]
        self.path = nn.Sequential(normed(before, 8, 1), *middle, normed(8, after, 1))
        self.short = normed(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.short(x))


class DenseLayer(nn.Module):
    """A layer of DenseNet (Huang et al. 2017): its features beside those that it reads."""

    def __init__(self, before: int, more: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(before), conv(before, more)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


class Encoder(nn.Module):
    """A transformer encoder over 3 tokens, with places, and a head on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(4, 8), nn.Parameter(0.1 * torch.randn(3, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.layers(self.embed(x) + self.places).mean(1))
        return found


class Recurrent(nn.Module):
    """Recurrent layers, and a head on the last step."""

    def __init__(self, cells: nn.RNNBase) -> None:
        super().__init__()
        self.cells, self.head = cells, nn.Linear(cells.hidden_size, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.cells(x)[0][:, -1])
        return found


def _head(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


IMAGES, WORDS = (3, 6, 6), (3, 4)
MODELS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
with torch.random.fork_rng():
    torch.manual_seed(0)
    between = [nn.BatchNorm2d(12), nn.ReLU(), conv(12, 6, 1), nn.AvgPool2d(2)]
    MODELS = {
        "WideResNet": (nn.Sequential(conv(3, 4), Wide(4, 8, 1), Wide(8, 8, 2), *_head(8)), IMAGES),
        "ResNeXt": (nn.Sequential(conv(3, 4), Next(4, 8, 1), Next(8, 12, 2), *_head(12)), IMAGES),
        "DenseNet": (
            nn.Sequential(conv(3, 4), DenseLayer(4, 4), DenseLayer(8, 4), *between, DenseLayer(6, 4), *_head(10)),
            IMAGES,
        ),
        "transformer": (Encoder(), WORDS),
        "RNN": (Recurrent(nn.RNN(4, 5, batch_first=True)), WORDS),
        "GRU": (Recurrent(nn.GRU(4, 5, batch_first=True)), WORDS),
        "LSTM": (Recurrent(nn.LSTM(4, 5, batch_first=True)), WORDS),
    }
