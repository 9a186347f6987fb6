"""Raw files to a prepared table in curriculum order, and tables derived from one."""
