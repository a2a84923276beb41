"""Models in files: npz and safetensors."""
