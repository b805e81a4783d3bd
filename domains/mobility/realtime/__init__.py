"""What is so now: vehicles, trip updates and alerts of GTFS-Realtime, in and out."""
