"""Arms times seeds: methods trained alike and told apart."""
