"""Raw OHLCV bars to windows: reading, indicators, statistics, scaling, splits. No torch.

Imports go one way: combined_preprocessor -> stock_windows -> {windows_reader, windows_writer} -> windows and
market_data -> bars_files -> download -> {reading, checks} -> bars; under them config -> {indicators, statistics,
splits}, and scaling, simulation and bars_store; files, seeds, parallel and command_line serve all of them.
Forecasters also use returns and sequence_files.
"""
