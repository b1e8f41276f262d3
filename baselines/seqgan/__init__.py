"""SeqGAN on numbers: a recurrent generator trained by likelihood, then by policy gradient against a discriminator.

Yu et al. 2017, "SeqGAN: Sequence Generative Adversarial Nets with Policy Gradient" (AAAI, arXiv 1609.05473), with a
normal law per step in place of a softmax over words. README.md says what it is for, what differs and what it measures.

    settings        sizes and schedule
    generator       the LSTM, its densities and its samples
    discriminator   the convolutional network that tells real from generated
    rollouts        Monte-Carlo search and the policy gradient
    three_stages    likelihood, discriminator, adversarial
    forecaster      the plugins `seqgan` and `seqgan_mle`
    standalone      text files in and out, as the original works; its commands are in __main__
    toys            the original on tokens, and its synthetic benchmark
"""
