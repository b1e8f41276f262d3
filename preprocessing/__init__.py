"""Raw OHLCV bars to windows: reading, indicators, statistics, scaling, splits. No torch.

Imports go one way: combined_preprocessor -> windows -> {indicators, statistics, scaling, splits} and
market_data -> simulation; config, files and command_line serve all of them.
"""
