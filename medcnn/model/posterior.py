"""From a network's outputs to the scores of the classes: what each loss makes of an output, undone.

Cross-entropy and CORN are smallest where softmax (or the chain rule) of the outputs is the class probability. Focal and
asymmetric loss are smallest elsewhere. With l_k(u) the cost of giving class k the share u, the best shares u for class
probabilities eta satisfy eta_k l_k'(u_k) = const, so that eta_k is proportional to -1 / l_k'(u_k)
(Charoenphakdee et al. 2021, doi:10.1109/CVPR46437.2021.00516, for the focal loss). This keeps the order of the scores.
"""

import math

import torch
from torch.nn import functional

from medcnn.config import Loss
from medcnn.tables import Task

MARGIN = 0.05  # of the asymmetric loss: negatives with a smaller share cost nothing (doi:10.1109/ICCV48922.2021.00015)
TELLING = (MARGIN + 0.01, 0.95)  # shares whose asymmetric loss tells probabilities apart; outside it is flat


def class_scores(outputs: torch.Tensor, *, task: Task, loss: Loss, gamma: float) -> torch.Tensor:
    """Outputs of a network that was trained by `loss` to scores whose softmax (multilabel: sigmoid) are probabilities.

    outputs: float32 (B, n_outputs). Returns float32: (B, n_classes), for multilabel the log-odds (B, n_labels).
    """
    if loss == "ordinal":
        return ordinal_log_probabilities(outputs)
    if loss == "asymmetric":
        return _asymmetric_log_odds(outputs, gamma)
    if loss == "cross_entropy" or gamma == 0:
        return outputs
    if task == "multilabel":
        log_p, log_q = functional.logsigmoid(outputs), functional.logsigmoid(-outputs)
        return _focal_scores(log_p, log_q, gamma) - _focal_scores(log_q, log_p, gamma)
    log_p = functional.log_softmax(outputs, dim=1)
    return _focal_scores(log_p, _log_of_the_others(log_p), gamma)


def ordinal_log_probabilities(outputs: torch.Tensor) -> torch.Tensor:
    """CORN: the conditional outputs (B, K - 1) to log-probabilities (B, K), by the chain rule (arXiv:2111.08851).

    sigmoid(output k) is the probability that the class is above k, given that it is k or above.
    """
    above, stays = functional.logsigmoid(outputs), functional.logsigmoid(-outputs)
    reached = functional.pad(above.cumsum(dim=1), (1, 0))  # log P(class >= k)
    return reached + functional.pad(stays, (0, 1))


def _focal_scores(log_u: torch.Tensor, log_others: torch.Tensor, gamma: float) -> torch.Tensor:
    """-log(-l') with l(u) = -(1 - u)^gamma log u, so -l' = (1 - u)^gamma (1 / u + gamma phi), phi = -log u / (1 - u).

    In logarithms throughout, so that shares next to 0 and 1 stay finite. log_others: log(1 - u).
    """
    others = log_others.exp()
    small = others < 1e-3
    phi = torch.where(small, 1 + others / 2, -log_u / torch.where(small, 1.0, others))  # the series, where the quotient loses its digits
    return -gamma * log_others - torch.logaddexp(-log_u, phi.log() + math.log(gamma))


def _log_of_the_others(log_p: torch.Tensor) -> torch.Tensor:
    """log(1 - p_k) as the logarithm of the sum of the other classes: exact where 1 - p_k would be rounded to 0."""
    itself = torch.eye(log_p.shape[1], dtype=torch.bool, device=log_p.device)
    return log_p.unsqueeze(1).masked_fill(itself, -math.inf).logsumexp(dim=2)


def _asymmetric_log_odds(outputs: torch.Tensor, gamma: float) -> torch.Tensor:
    """log(u l'(u)) with l(u) = -q^gamma log(1 - q) the cost of a negative, q = u - MARGIN; a positive costs -log u.

    l' = q^gamma / (1 - q) + gamma q^(gamma - 1) (-log(1 - q)). Outside of TELLING it goes on as an output of the
    cross-entropy would, so that the order is kept.
    """
    low, high = (math.log(share / (1 - share)) for share in TELLING)
    inside = outputs.clamp(low, high)
    q = inside.sigmoid() - MARGIN
    slope = q**gamma / (1 - q) - gamma * q ** (gamma - 1) * torch.log1p(-q)
    return functional.logsigmoid(inside) + slope.log() + (outputs - inside)
