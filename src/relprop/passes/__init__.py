"""Graph passes: captured graph -> canonical graph. Each is a small function; their order is the list below."""

from __future__ import annotations

from ..graph.graph import Graph
from .activations import name_activations
from .affine import join_affine
from .batch_norm import fold_batch_norm
from .clean import clean
from .constants import find_constants
from .decompose import decompose
from .instance_norm import name_instance_norm
from .padding import join_even_padding, join_padding
from .precision import keep_double
from .quantised import name_fake_quantisation
from .softmax import name_softmax
from .sparse import make_dense
from .split import split_layers
from .statistics import explain_statistics
from .training import find_random, refuse_training_mode


def canonize(graph: Graph) -> Graph:
    """The canonical form that plans are made for. The user never names a canonizer."""
    refuse_training_mode(graph)
    clean(graph)
    make_dense(graph)
    name_fake_quantisation(graph)
    keep_double(graph)
    decompose(graph)
    name_instance_norm(graph)
    split_layers(graph)
    explain_statistics(graph)
    name_softmax(graph)
    name_activations(graph)
    join_even_padding(graph)
    fold_batch_norm(graph)
    join_affine(graph)
    join_padding(graph)
    find_constants(graph)
    find_random(graph)
    return graph
