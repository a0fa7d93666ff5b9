"""Examples: programs that use the package, and that it does not depend on."""
