"""The ground: graphs, operations of our own, kernels. It knows nothing of relevance."""
