"""GAIL on tokens: a token language model of returns, then imitation of real paths by RecurrentPPO; see README.md."""
