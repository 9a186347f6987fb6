"""MixDPO on Ray: preference tuning from clear pairs to ambiguous ones."""
