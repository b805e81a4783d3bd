"""newsector: say here what this sector observes."""
