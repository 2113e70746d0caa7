"""One nn.Module per file."""
