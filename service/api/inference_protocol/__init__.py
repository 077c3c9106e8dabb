"""The Open Inference Protocol v2 under `/v2`, as Triton, KServe and others speak it.

What it adds to the other routes is a form: tensors with a name, a shape and a datatype, in JSON or
behind it as bytes. What is computed, and what is refused, is that of `/predict` and `/eval`.
"""
