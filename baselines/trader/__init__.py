"""From a trader's files to a model of what the trader does.

The steps in order: ingestion -> positions -> features -> labels -> states -> actions -> dataset, joined by pipeline;
then network_fitting, action_scores and inference. train_command is `python -m baselines.decision_transformer train`,
download and simulation bring the files. The network is `baselines.decision_transformer.model`.
"""
