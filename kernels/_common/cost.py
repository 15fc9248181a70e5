"""CPU cost model in units of one multiply-accumulate of a matrix product at full throughput.

Fitted to medians on two cores; `adaptive-nets bench kernels` measures the layers.
"""

# Overhead of gathering one element of a row.
GATHER = 42.0
# Overhead per output row of a direct convolution, in output positions.
ROW_ENDS = 3.0
# Cost of writing one element of a copied output position.
FILL = 50.0
