"""A recipe and a cluster looked over, one line a check."""
