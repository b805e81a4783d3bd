"""The network that all timetables make: departures, what is near, journeys, fares."""
