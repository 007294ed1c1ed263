"""One answer for a bag of images: a pretrained backbone whose features are weighed by gated attention, then classified.

Ilse, Tomczak & Welling 2018, Attention-based deep multiple instance learning (arXiv:1802.04712). Bags of any size stand
one behind the other in one array, so that nothing is padded.
"""

import torch
from torch import nn

from medcnn.model.features import headless, last_linear
from medcnn.section import Section


class AttentionShape(Section):
    """width: of what a bag's images are averaged as; n_hidden: of the two layers that weigh them."""

    width: int = 128
    n_hidden: int = 64


class GatedAttention(nn.Module):
    """Features of images, (n, n_features), to scores of their bags, (n_bags, n_outputs), and the images' weights, (n,)."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int, n_outputs: int, shape: AttentionShape, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.squeeze = nn.Sequential(nn.Linear(n_features, shape.width), nn.ReLU(), nn.Dropout(dropout))
        self.values = nn.Linear(shape.width, shape.n_hidden)
        self.gates = nn.Linear(shape.width, shape.n_hidden)
        self.weigh = nn.Linear(shape.n_hidden, 1)
        self.classifier = nn.Linear(shape.width, n_outputs)

    def forward(self, features: torch.Tensor, bag: torch.Tensor, n_bags: int) -> tuple[torch.Tensor, torch.Tensor]:
        """bag: int64 (n,), the bag of each image, 0 to n_bags - 1, each with an image. Weights of a bag add up to 1."""
        hidden = self.squeeze((features - self.mean) * self.scale)
        scores = self.weigh(self.values(hidden).tanh() * self.gates(hidden).sigmoid())[:, 0]
        weights = softmax_within(scores, bag, n_bags)
        together = hidden.new_zeros(n_bags, hidden.shape[1]).index_add(0, bag, weights[:, None] * hidden)
        outputs: torch.Tensor = self.classifier(together)
        return outputs, weights


def softmax_within(scores: torch.Tensor, bag: torch.Tensor, n_bags: int) -> torch.Tensor:
    """Softmax of scores (n,) among those of one bag, (n,)."""
    lowest = scores.new_full((n_bags,), -torch.inf)
    highest = lowest.scatter_reduce(0, bag, scores.detach(), "amax")
    raised = (scores - highest[bag]).exp()
    return raised / raised.new_zeros(n_bags).index_add(0, bag, raised)[bag]


class BagNetwork(nn.Module):
    """A backbone and gated attention over what it sees. Called with images, each of them is a bag of its own."""

    def __init__(self, trunk: nn.Module, attention: GatedAttention) -> None:
        super().__init__()
        self.trunk, self.attention = trunk, attention

    @classmethod
    def around(cls, model: nn.Module, n_outputs: int, shape: AttentionShape, *, dropout: float = 0.0) -> "BagNetwork":
        """A network on the backbone of `model`, with random attention from torch's generator. Raises InputError as last_linear does."""
        return cls(headless(model), GatedAttention(last_linear(model).in_features, n_outputs, shape, dropout=dropout))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (B, channels, S, S) to (B, n_outputs)."""
        alone = torch.arange(len(images), device=images.device)
        outputs: torch.Tensor = self.attention(self.trunk(images), alone, len(images))[0]
        return outputs

    def get_classifier(self) -> nn.Module:
        """The last layer, as timm's networks name it."""
        return self.attention.classifier
