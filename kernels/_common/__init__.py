"""Code shared by the kernels: geometry, dispatch, tiling, cost model, gather convolution."""
