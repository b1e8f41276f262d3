"""What people call, write and encode, to tables of bars: texts, Parquet files and data frames."""
