"""Other servers around the same Monte Carlo dropout, each as its own users write it.

Each runs in an environment of its own (`make bench-peers`), imports nothing of Candor and answers
`POST /predict {"inputs": [[60 numbers]]}`. Their batching limits are those of their own examples:
64 requests, 2 ms.
"""
