"""Several processes and machines of one job: their rendezvous, what they agree on, how they end."""
