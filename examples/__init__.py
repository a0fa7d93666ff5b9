"""Examples of use; none is part of the installed package."""
