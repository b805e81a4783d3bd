"""Ports: vessels, their voyages and aids to navigation, from AIS."""
