"""Timetables: GTFS and GTFS-JP, read, judged, stored and published again."""
