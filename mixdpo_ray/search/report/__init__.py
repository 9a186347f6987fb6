"""The page of a study: figures and tables in one file that opens offline."""
