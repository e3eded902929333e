"""The command line of ssmdiff. Thin: it reads arguments, calls the library, prints results."""
