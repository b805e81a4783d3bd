"""Running the platform: the command line and everything on one machine."""
