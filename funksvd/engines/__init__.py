"""The engines: each turns ratings and hyper-parameters into weights, an epoch at a time."""
