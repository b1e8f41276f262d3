"""Forecasters that stand beside the language model, registered under the entry-point group "grpo.forecasters".

Rooms, each importing from those before it alone (`tests/baselines/test_rooms.py`):

    building_blocks         what forecasters are built from: features, volatility, paths, quantiles, saving
    statistical             random walks, volatility models, bootstraps, ARIMA, regressions, trees
    foundation              pretrained time-series models
    neural                  what the trained networks share: inputs, checkpoints, early stopping, learning curves
    seqgan, gail, decision_transformer, gflownet
                            one generative method each: the forecaster and what it needs on top; `standalone` holds
                            what only its own commands need, `toys` problems whose answer is known
    trader                  from a trader's files to a model of what he does
"""
