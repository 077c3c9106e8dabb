"""Several processes that compute, on several machines, behind several that speak HTTP.

A door reads requests and writes answers; a replica holds all models and computes; the board is one
process that both tell what they counted, and through which models are changed on all replicas in
turn. What carries their calls, and notices who died, is `service/ray_app.py`'s; here nobody knows
Ray.

asking: what a call to another process may come to   requests: whole requests as messages
replica: answers doors   loads: what doors know of its models   engine: a door's engine
door: a door's application   clerk: tells the board, and is told   board   counting: sums of metrics
fitting: settings that go together on several machines
"""
