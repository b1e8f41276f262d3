"""What the sampler can build: exact trees, the hypergrid, 8-mers of DNA, and price paths."""
