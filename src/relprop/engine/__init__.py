"""Graph -> plan -> relevance and the ledger."""
