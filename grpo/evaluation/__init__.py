"""The judge of every forecaster: the protocol, scores, tests of significance, tables and pictures. No torch."""
