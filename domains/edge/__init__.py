"""Edge: 5G and LTE nodes, their radio and network KPIs, heartbeat and position."""
