"""Several processes that speak HTTP before the one that computes.

A worker reads requests and writes answers, which costs more processor time than a small model's
passes. It has no models: those are loaded once, in the process that started it, with which it
speaks through a socket that nobody else can reach. What a worker does not do itself it passes on
whole, so that every route works the same with any number of workers.

channel: messages over a socket   messages: what they say   remote: a worker's engine and tally
switchboard: the other side   forwarding: whole requests   process: a worker's `main`
supervisor: starts, restarts and ends them
"""
