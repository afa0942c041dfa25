"""MoLA's formula, written as the paper states it: one expert at a time, one token at a time where it matters. Slow and readable."""

import torch


def mola_linear(x, weight, bias, experts, router, *, scalings, top_k):
    """y = x Wᵀ + b + Σ over a token's k best experts of their renormalised softmax weight · scaling · B A x.

    x: T × d_in; experts: a list of (A, B); router: N × d_in, or None for a single expert.
    """
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    if router is None:
        (a, b), (scaling,) = experts[0], scalings
        return y + scaling * (x @ a.T @ b.T)
    rows = []
    for token, frozen in zip(x, y, strict=True):
        probabilities = torch.softmax(router @ token, dim=0)
        best = torch.topk(probabilities, min(top_k, len(experts))).indices.tolist()
        total = sum(probabilities[i] for i in best)
        added = [probabilities[i] / total * scalings[i] * (experts[i][1] @ (experts[i][0] @ token)) for i in best]
        rows.append(frozen + sum(added))
    return torch.stack(rows)


def mola_balance(inputs, routers, *, top_k, mask=None):
    """N · Σ f P of one layer: its linears' tokens concatenated, padding left out."""
    shares, probabilities = [], []
    for x, router in zip(inputs, routers, strict=True):
        kept = x if mask is None else x[mask.bool()]
        p = torch.softmax(kept @ router.T, dim=1)
        probabilities.append(p)
        shares.append(torch.zeros_like(p).scatter(1, p.topk(min(top_k, len(router))).indices, 1.0))
    chosen = torch.cat(shares)
    return len(routers[0]) * (chosen.sum(0) / chosen.sum() * torch.cat(probabilities).mean(0)).sum()
