"""What predictions cost, what is full first, and how many replicas so many a day take.

On paper (`model`), with inputs that are measured on this machine (`measure`), and a simulation of a
replica's two threads that says how full it may be (`simulation`).
"""
