"""Learning curves of active learning on MNIST: what choosing the labels is worth.

The protocol is that of Kirsch et al. 2019 (github.com/BlackHC/BatchBALD): 20 labels to start, two
of every class, ten at a time, the network trained from scratch after each batch. It differs from it
in these points:

- A pool is 5,000 pictures drawn for each seed, not all of MNIST.
- Training takes a fixed number of steps (`network.py`); no validation set.
- Copies are exact; there they differ by a little noise.
- Networks train and sample in bfloat16, with T = 50 to choose and T = 20 to test.

Two rules, fixed before any curve was seen, say what is read off them (`measures.py`): labels needed
are those at which the median of three consecutive accuracies first reaches 95 %; with copies in the
pool, a strategy is ahead of another if its accuracy is larger in the mean over the curve and over
seeds. Pools, starts, first weights and masks of a seed are the same for all strategies.
"""
