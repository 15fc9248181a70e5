"""What things cost on a CPU, in multiply-accumulates of a product at full speed.

Fitted to medians on two cores; `adaptive-nets bench kernels` measures the layers again.
"""

# Gathering an element of a row, beside multiplying it.
GATHER = 42.0
# Output positions that the start and end of a row of them cost a direct convolution.
ROW_ENDS = 3.0
# Writing an element of a copied output position.
FILL = 50.0

# Up to so many channel groups are computed one after the other: XLA's grouped convolution takes
# several times as long on a CPU.
FEW_GROUPS = 8
