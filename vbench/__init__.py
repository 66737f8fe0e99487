"""vbench tells what each layer of virtualization costs."""

__version__ = "0.1.0"
