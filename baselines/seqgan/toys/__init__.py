"""The original SeqGAN on tokens, where a random network is the data and its judge."""
