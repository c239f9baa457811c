"""The functions of the package: what the commands do, for Python."""
