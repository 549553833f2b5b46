"""What a run is: methods, kernels, policies, the driver, the graph, storage. No Ray, no torch, no engine."""
