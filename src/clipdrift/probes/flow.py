"""Attention flow: how much can pass from each patch to CLS where attention is what pipes hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CAPACITY = 1_000_000
"""Whole units that a row of attention is cut into: scipy's maximum flow is of whole numbers."""
MOST_TOKENS = 200
"""A flow to each of T tokens through L blocks of T^2 edges: the work grows with L T^3."""


def attention_flow(maps: Floats) -> Floats:
    """Maximum flow between CLS after the last block and each patch before the first.

    Nodes are tokens between blocks; the edge from token i after block l to token j before it holds
    round(10^6 (0.5 A_l[i, j] + 0.5 [i = j])) units. Every patch is a problem of its own.

    Args:
        maps: [L, T, T] of one image, mean over heads, first block first; rows sum to 1, token 0 is
            CLS.

    Returns:
        [T - 1] as shares of what CLS can pass on, 0 to 1; they need not sum to 1.

    Raises:
        ValueError: for more than 200 tokens, which would take minutes an image.

    Reference: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3, with
    the residual connections as there.

    >>> attention_flow(np.array([[[0.5, 0.5], [0.0, 1.0]]])).tolist()
    [0.25]
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    depth, n_tokens, _ = maps.shape
    if n_tokens > MOST_TOKENS:
        raise ValueError(f"attention_flow: expected up to {MOST_TOKENS} tokens, got {n_tokens}")
    held = np.rint(CAPACITY * (0.5 * maps[::-1] + 0.5 * np.eye(n_tokens))).astype(np.int32)
    layer, i, j = np.nonzero(held)
    nodes = (depth + 1) * n_tokens
    edges = (layer * n_tokens + i, (layer + 1) * n_tokens + j)
    graph = csr_array((held[layer, i, j], edges), shape=(nodes, nodes))
    first = depth * n_tokens
    flows = [maximum_flow(graph, 0, first + patch).flow_value for patch in range(1, n_tokens)]
    return np.array(flows) / CAPACITY
